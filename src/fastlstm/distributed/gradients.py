"""The sum of all shards' gradients, in one order for any number of workers.

Each worker sums the subtrees that it has by itself. Then every worker owns a part of every gradient: it gets that part
of all subtrees, goes on summing in the tree's order, and sends the sum to all. MPI's own reductions promise no order.
Gradients by rows travel as rows; the owner of a row follows from its id.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from fastlstm.contract import Array, FloatArray, RowGrad
from fastlstm.distributed.bf16 import from_bf16, round_to_bf16, to_bf16
from fastlstm.distributed.flat_gradients import Grad, Layout, ShardSum
from fastlstm.distributed.row_gradients import (
    add_rounded_rows,
    add_rows,
    joined_rows,
    owned_rows,
    packed_rows,
    unpacked_rows,
)
from fastlstm.distributed.shards import halves, shards_of, subtrees, sum_tree
from fastlstm.distributed.workers import Workers, gather_bytes

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

GradPrecision = Literal["bf16"]

WORTH_SENDING = 1 << 22  # bytes of final gradients that are sent while others are computed


def sum_gradients(
    workers: Workers,
    grads_of_my_shards: Iterable[Sequence[Grad]],
    *,
    shards: int,
    precision: GradPrecision | None = None,
) -> list[FloatArray | RowGrad]:
    """The sum of all shards' gradients, the same bits for any number of workers; all workers call it together.

    Parameters
    ----------
    workers : Workers
        What `mpi` returned, or ``Alone()``.
    grads_of_my_shards : iterable of lists
        For each of ``workers.shards_of_mine(shards)``, in this order, a list of float32 or float64 arrays or RowGrad.
        Position by position, shapes and dtypes are the same on all shards and workers. They are gradients of sums, not
        of means: losses take ``reduction="sum"``. Divide by the number of all targets afterwards; it may be one of the
        arrays. Each list is done with before the next one is asked for, so that a generator may use its arrays again.
    shards : int
        Into how many pieces the whole batch is cut: it fixes the order of the sum, the workers do not.
    precision : "bf16", optional
        Half of the bytes travel: the float32 gradients of every shard, and every sum of two in the tree, are rounded to
        bfloat16 (to nearest, ties to even), of one worker alone too, so that the bits are the same for any number of
        workers. They are added in float32; what is float64 stays exact. Unless given, nothing is rounded.

    Returns
    -------
    list of new arrays and RowGrad
        On every worker.

    Raises
    ------
    TypeError, ValueError
        There are more workers than shards or not a list for each of the worker's shards; something in the lists is no
        gradient on the host, or not like that of another shard; or there is no precision of that name.
    """
    return GradientSum(workers, shards, precision)(grads_of_my_shards)


def check_grad_precision(name: str, precision: Any) -> GradPrecision | None:
    """The precision; raises unless there is one of that name."""
    if precision not in (None, "bf16"):
        raise ValueError(f"{name} is {precision!r}, expected 'bf16', or None for exact gradients")
    return cast("GradPrecision | None", precision)


class GradientSum:
    """`sum_gradients` many times over, in memory that is used again: the arrays returned are good until the next call.

    Parameters
    ----------
    workers : Workers
    shards : int
    precision : "bf16", optional
    """

    def __init__(self, workers: Workers, shards: int, precision: GradPrecision | None = None) -> None:
        self._workers = workers
        self._mine = workers.shards_of_mine(shards)
        self._all = range(shards)
        self._rounds = check_grad_precision("precision", precision) == "bf16"
        # The subtrees that each worker sums by itself.
        self._trees = [subtrees(shards_of(rank, workers.size, shards), self._all) for rank in range(workers.size)]
        self._layout: Layout | None = None
        self._free: list[ShardSum] = []
        self._received: dict[tuple[str, int, range], Array] = {}
        self._last: _LastShard | None = None  # while it is computed, if parts of it may travel already
        self._sums: list[ShardSum] = []
        self._beside: ThreadPoolExecutor | None = None
        self._travelling: list[Future[None]] = []

    def __call__(self, grads_of_my_shards: Iterable[Sequence[Grad]]) -> list[FloatArray | RowGrad]:
        lists = iter(grads_of_my_shards)
        # The same on all workers: none has asked for its first list yet.
        overlaps = self._workers.overlaps and self._layout is not None and not self._layout.has_rows
        *trees, tree = self._trees[self._workers.rank]
        self._sums = [self._subtotal(other, lists) for other in trees]
        lefts: list[ShardSum] = []
        while len(tree) > 1:
            left, tree = halves(tree)
            lefts.append(self._subtotal(left, lists))
        if overlaps:
            self._last = self._begin_last(lefts)
        try:
            grads = self._next(lists)  # meanwhile `final_from` is called
            last = self._last or self._begin_last(lefts)
        finally:
            self._last = None
        which = last.add(grads, 0)
        if next(lists, None) is not None:
            raise ValueError(f"there are more lists of gradients than shards of this worker, {len(self._mine)}")
        while self._travelling:
            self._travelling.pop(0).result()
        self._sum_dense(which)
        rows = self._sum_rows([part.rows for part in self._sums])
        self._free += [*self._sums, *last.inner_sums]
        assert self._layout is not None
        return self._layout.gradients(self._sums[0].flat, rows)

    def final_from(self, grads: Sequence[Grad], first: int) -> None:
        """Say that ``grads[first:]`` are what the list asked for will have there, while the others are computed.

        Those of the last shard travel at once, in a thread beside the one that computes, if they are enough to be worth
        it. All workers say the same, one after the other.
        """
        if self._last is None or self._layout is None:
            return
        if self._layout.num_bytes(slice(first, self._last.done)) < WORTH_SENDING:
            return
        self._check(grads)
        if self._beside is None:
            from concurrent.futures import ThreadPoolExecutor

            self._beside = ThreadPoolExecutor(1)
        self._travelling.append(self._beside.submit(self._sum_dense, self._last.add(grads, first)))

    # ----------------------------------------------------------------------------------------
    # Shards of this worker
    # ----------------------------------------------------------------------------------------

    def _new_sum(self) -> ShardSum:
        assert self._layout is not None
        return self._free.pop() if self._free else ShardSum(self._layout, self._rounds)

    def _subtotal(self, tree: range, lists: Iterator[Sequence[Grad]]) -> ShardSum:
        if len(tree) == 1:
            grads = self._next(lists)
            total = self._new_sum()
            total.set(grads)
            return total
        left, right = halves(tree)
        total = self._subtotal(left, lists)
        if len(right) == 1 and not self._rounds:
            total.add(self._next(lists))
        else:
            other = self._subtotal(right, lists)
            total.add_sum(other)
            self._free.append(other)
        return total

    def _begin_last(self, lefts: list[ShardSum]) -> _LastShard:
        """The last shard, to be added to the sums on its left, of which the innermost comes last."""
        # It has a sum of its own where it is the first of a tree, or is rounded before it is added.
        is_first = not lefts or self._rounds
        last = _LastShard([*([self._new_sum()] if is_first else []), *lefts[::-1]], is_first=is_first)
        self._sums.append(last.total)
        return last

    def _next(self, lists: Iterator[Sequence[Grad]]) -> Sequence[Grad]:
        """The next shard's gradients, checked."""
        grads = next(lists, None)
        if grads is None:
            raise ValueError(
                f"there are fewer lists of gradients than shards of this worker, {len(self._mine)}: give one for each "
                "of workers.shards_of_mine(shards)"
            )
        self._check(grads)
        return grads

    def _check(self, grads: Sequence[Grad]) -> None:
        layout = Layout(grads)
        if self._layout is None:
            self._layout = layout
            self._check_layouts(layout)
        elif not layout.fits(self._layout):
            raise ValueError(
                f"the gradients of a shard are {layout.shown}, those of one before {self._layout.shown}; expected the "
                "same shapes and dtypes of all shards"
            )

    def _check_layouts(self, layout: Layout) -> None:
        """Raise, on all workers, unless all have gradients of the same shapes: they could not exchange others."""
        sums = np.zeros(self._workers.size, np.int64)
        sums[self._workers.rank] = zlib.crc32(repr((layout.positions, self._rounds)).encode())
        self._workers.gather(sums, [1] * len(sums))
        if (sums != sums[0]).any():
            other = int((sums != sums[0]).argmax())
            raise ValueError(
                f"worker {other} has gradients of other shapes, dtypes or orders in memory than worker 0, or asks for "
                f"another precision; those of worker {self._workers.rank} are {layout.shown}"
            )

    # ----------------------------------------------------------------------------------------
    # Between workers
    # ----------------------------------------------------------------------------------------

    def _sum_dense(self, which: slice) -> None:
        """Sum these gradients of all subtrees into the first one of this worker."""
        assert self._layout is not None
        if self._workers.size == 1:
            return
        for dtype in self._layout.sizes:
            span = self._layout.span(dtype, which)
            self._sum_flat([part.flat[dtype][span] for part in self._sums], (dtype, span.start))

    def _sum_flat(self, flats: list[FloatArray], key: tuple[str, int]) -> None:
        """Sum all subtrees into the first one of this worker, ``flats[0]``; key: of the memory it takes."""
        workers, rank, size = self._workers, self._workers.rank, self._workers.size
        whole = flats[0]
        halved = self._rounds and whole.dtype == np.float32
        ends = [len(whole) * r // size for r in range(size + 1)]
        parts_of = [slice(*bounds) for bounds in pairwise(ends)]
        mine = parts_of[rank]
        sent_flats: Sequence[Array] = [to_bf16(flat) for flat in flats] if halved else flats
        nothing = sent_flats[0][:0]
        received_parts: dict[range, Array] = {}
        for i in range(max(map(len, self._trees))):
            received = [nothing] * size
            for r, trees in enumerate(self._trees):
                if r != rank and i < len(trees):
                    received[r] = received_parts[trees[i]] = self._room(key, trees[i], sent_flats[0][mine])
            sent = [sent_flats[i][part] for part in parts_of] if i < len(flats) else [nothing] * size
            workers.exchange(sent, received)
        parts: dict[range, FloatArray] = {
            tree: from_bf16(part) if halved else part for tree, part in received_parts.items()
        }
        parts |= {tree: flat[mine] for tree, flat in zip(self._trees[rank], flats, strict=True)}
        first = whole[mine]
        total = sum_tree(self._all, parts, _add_rounded if halved else _add_to)
        if total is not first:
            first[...] = total
        if not halved:
            workers.gather(whole, np.diff(ends).tolist())
            return
        sums = sent_flats[0]
        sums[mine] = to_bf16(first)
        workers.gather(sums, np.diff(ends).tolist())
        whole[...] = from_bf16(sums)

    def _room(self, key: tuple[str, int], tree: range, like: Array) -> Array:
        room = self._received.get((*key, tree))
        if room is None or room.shape != like.shape:
            room = self._received[(*key, tree)] = np.empty_like(like)
        return room

    def _sum_rows(self, rows_of_sums: list[list[RowGrad]]) -> list[RowGrad]:
        """Sum the gradients by rows of all subtrees, position by position."""
        workers, rank, size = self._workers, self._workers.rank, self._workers.size
        count = len(rows_of_sums[0])
        if size == 1 or not count:
            return rows_of_sums[0]
        like = rows_of_sums[0]
        halved = self._rounds
        # One message to each worker has all that it owns, of all positions and subtrees.
        sent = [
            packed_rows([owned_rows(rows, r, size) for of_sum in rows_of_sums for rows in of_sum], halved)
            if r != rank
            else np.empty(0, np.uint8)
            for r in range(size)
        ]
        counts = [np.array([message.size]) for message in sent]
        sizes = [np.zeros(1, np.int64) for _ in sent]
        workers.exchange(counts, sizes)
        received = [np.empty(int(n[0]), np.uint8) for n in sizes]
        workers.exchange(sent, received)
        totals = []
        messages = [
            unpacked_rows(part, like * len(trees), halved) for part, trees in zip(received, self._trees, strict=True)
        ]
        for k in range(count):
            parts: dict[range, RowGrad] = {}
            for r, trees in enumerate(self._trees):
                for i, tree in enumerate(trees):
                    own = r == rank
                    parts[tree] = owned_rows(rows_of_sums[i][k], r, size) if own else messages[r][i * count + k]
            totals.append(sum_tree(self._all, parts, add_rounded_rows if halved else add_rows))
        shares = [unpacked_rows(part, like, halved) for part in gather_bytes(workers, packed_rows(totals, halved))]
        return [joined_rows([share[k] for share in shares]) for k in range(count)]


class _LastShard:
    """The sums that end with a worker's last shard, whose gradients become final from the last one on.

    Parameters
    ----------
    sums : list of ShardSum
        What it is added to, and each sum to the one after it.
    is_first : bool
        It is the first shard of the first sum.
    """

    def __init__(self, sums: list[ShardSum], *, is_first: bool) -> None:
        *self.inner_sums, self.total = sums
        self._sums = sums
        self._is_first = is_first
        self.done: int | None = None  # gradients from this one on are; None: none

    def add(self, grads: Sequence[Grad], first: int) -> slice:
        """Add ``grads[first:]``, but those that are done; returns which were added."""
        which = slice(first, self.done)
        innermost = self._sums[0]
        (innermost.set if self._is_first else innermost.add)(grads, which)
        for inner, outer in pairwise(self._sums):
            outer.add_sum(inner, which)
        self.done = first
        return which


def _add_to(total: FloatArray, other: FloatArray) -> FloatArray:
    total += other
    return total


def _add_rounded(total: FloatArray, other: FloatArray) -> FloatArray:
    total += other
    round_to_bf16(total)
    return total
