"""The sum of all shards' gradients, in one order for any number of workers.

Each worker sums the subtrees that it has by itself. Then every worker owns a part of every gradient: it gets that part
of all subtrees, goes on summing in the tree's order, and sends the sum to all. MPI's own reductions promise no order.
Gradients by rows travel as rows; the owner of a row follows from its id.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray, RowGrad
from fastlstm.distributed.shards import halves, shards_of, subtrees, sum_tree
from fastlstm.distributed.workers import Workers, gather_bytes
from fastlstm.ops import checks
from fastlstm.ops.parameters import is_transpose

Grad: TypeAlias = "FloatArray | RowGrad"


def sum_gradients(
    workers: Workers, grads_of_my_shards: Iterable[Sequence[Grad]], *, shards: int
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

    Returns
    -------
    list of new arrays and RowGrad
        On every worker.

    Raises
    ------
    TypeError, ValueError
        There are more workers than shards or not a list for each of the worker's shards; or something in the lists is
        no gradient on the host, or not like that of another shard.
    """
    return GradientSum(workers, shards)(grads_of_my_shards)


class GradientSum:
    """`sum_gradients` many times over, in memory that is used again: the arrays returned are good until the next call.

    Parameters
    ----------
    workers : Workers
    shards : int
    """

    def __init__(self, workers: Workers, shards: int) -> None:
        self._workers = workers
        self._mine = workers.shards_of_mine(shards)
        self._all = range(shards)
        # The subtrees that each worker sums by itself.
        self._trees = [subtrees(shards_of(rank, workers.size, shards), self._all) for rank in range(workers.size)]
        self._layout: _Layout | None = None
        self._free: list[_Sum] = []
        self._received: dict[tuple[str, range], FloatArray] = {}

    def __call__(self, grads_of_my_shards: Iterable[Sequence[Grad]]) -> list[FloatArray | RowGrad]:
        lists = iter(grads_of_my_shards)
        sums = [self._subtotal(tree, lists) for tree in self._trees[self._workers.rank]]
        if next(lists, None) is not None:
            raise ValueError(f"there are more lists of gradients than shards of this worker, {len(self._mine)}")
        layout = self._layout
        assert layout is not None
        for dtype in layout.sizes:
            self._sum_flat(dtype, [part.flat[dtype] for part in sums])
        rows = self._sum_rows([part.rows for part in sums])
        self._free += sums
        return layout.gradients(sums[0].flat, rows)

    # ----------------------------------------------------------------------------------------
    # Shards of this worker
    # ----------------------------------------------------------------------------------------

    def _subtotal(self, tree: range, lists: Iterator[Sequence[Grad]]) -> _Sum:
        if len(tree) == 1:
            grads = self._next(lists)
            assert self._layout is not None
            total = self._free.pop() if self._free else _Sum(self._layout)
            total.set(grads)
            return total
        left, right = halves(tree)
        total = self._subtotal(left, lists)
        if len(right) == 1:
            total.add(self._next(lists))
        else:
            other = self._subtotal(right, lists)
            total.add_sum(other)
            self._free.append(other)
        return total

    def _next(self, lists: Iterator[Sequence[Grad]]) -> Sequence[Grad]:
        """The next shard's gradients, checked."""
        grads = next(lists, None)
        if grads is None:
            raise ValueError(
                f"there are fewer lists of gradients than shards of this worker, {len(self._mine)}: give one for each "
                "of workers.shards_of_mine(shards)"
            )
        layout = _Layout(grads)
        if self._layout is None:
            self._layout = layout
            self._check_layouts(layout)
        elif not layout.fits(self._layout):
            raise ValueError(
                f"the gradients of a shard are {layout.shown}, those of one before {self._layout.shown}; expected the "
                "same shapes and dtypes of all shards"
            )
        return grads

    def _check_layouts(self, layout: _Layout) -> None:
        """Raise, on all workers, unless all have gradients of the same shapes: they could not exchange others."""
        sums = np.zeros(self._workers.size, np.int64)
        sums[self._workers.rank] = zlib.crc32(repr(layout.positions).encode())
        self._workers.gather(sums, [1] * len(sums))
        if (sums != sums[0]).any():
            other = int((sums != sums[0]).argmax())
            raise ValueError(
                f"worker {other} has gradients of other shapes, dtypes or orders in memory than worker 0; those of "
                f"worker {self._workers.rank} are {layout.shown}"
            )

    # ----------------------------------------------------------------------------------------
    # Between workers
    # ----------------------------------------------------------------------------------------

    def _sum_flat(self, dtype: str, flats: list[FloatArray]) -> None:
        """Sum all subtrees into the first one of this worker, ``flats[0]``."""
        workers, rank, size = self._workers, self._workers.rank, self._workers.size
        whole = flats[0]
        ends = [len(whole) * r // size for r in range(size + 1)]
        parts_of = [slice(*bounds) for bounds in pairwise(ends)]
        mine = parts_of[rank]
        nothing = whole[:0]
        parts = {tree: flat[mine] for tree, flat in zip(self._trees[rank], flats, strict=True)}
        first = parts[self._trees[rank][0]]
        for i in range(max(map(len, self._trees))):
            received = [nothing] * size
            for r, trees in enumerate(self._trees):
                if r != rank and i < len(trees):
                    received[r] = parts[trees[i]] = self._room(dtype, trees[i], first)
            sent = [flats[i][part] for part in parts_of] if i < len(flats) else [nothing] * size
            workers.exchange(sent, received)
        total = sum_tree(self._all, parts, _add_to)
        if total is not first:
            first[...] = total
        workers.gather(whole, np.diff(ends).tolist())

    def _room(self, dtype: str, tree: range, like: FloatArray) -> FloatArray:
        if (dtype, tree) not in self._received:
            self._received[dtype, tree] = np.empty_like(like)
        return self._received[dtype, tree]

    def _sum_rows(self, rows_of_sums: list[list[RowGrad]]) -> list[RowGrad]:
        """Sum the gradients by rows of all subtrees, position by position."""
        workers, rank, size = self._workers, self._workers.rank, self._workers.size
        count = len(rows_of_sums[0])
        if size == 1 or not count:
            return rows_of_sums[0]
        like = rows_of_sums[0]
        # One message to each worker has all that it owns, of all positions and subtrees.
        sent = [
            _packed([_owned(rows, r, size) for of_sum in rows_of_sums for rows in of_sum]) if r != rank else _NOTHING
            for r in range(size)
        ]
        counts = [np.array([message.size]) for message in sent]
        sizes = [np.zeros(1, np.int64) for _ in sent]
        workers.exchange(counts, sizes)
        received = [np.empty(int(n[0]), np.uint8) for n in sizes]
        workers.exchange(sent, received)
        totals = []
        messages = [_unpacked(part, like * len(trees)) for part, trees in zip(received, self._trees, strict=True)]
        for k in range(count):
            parts: dict[range, RowGrad] = {}
            for r, trees in enumerate(self._trees):
                for i, tree in enumerate(trees):
                    own = r == rank
                    parts[tree] = _owned(rows_of_sums[i][k], r, size) if own else messages[r][i * count + k]
            totals.append(sum_tree(self._all, parts, _add_rows))
        shares = [_unpacked(part, like) for part in gather_bytes(workers, _packed(totals))]
        return [_joined([share[k] for share in shares]) for k in range(count)]


class _Position(NamedTuple):
    """What stands at one place of the lists; rows: the dtype of the ids of a RowGrad, whose shape is that of a row."""

    rows: str
    dtype: str
    shape: tuple[int, ...]
    transposed: bool


class _Layout:
    """Where each gradient lies among those of its dtype, one flat array."""

    def __init__(self, grads: Sequence[Grad]) -> None:
        self.positions = tuple(_position(i, grad) for i, grad in enumerate(grads))
        self.sizes: dict[str, int] = {}
        self.places: list[slice] = []
        for position in self.positions:
            if position.rows:
                self.places.append(slice(0))
                continue
            start = self.sizes.get(position.dtype, 0)
            self.sizes[position.dtype] = stop = start + int(np.prod(position.shape))
            self.places.append(slice(start, stop))

    def fits(self, other: _Layout) -> bool:
        """Whether the gradients are of the same shapes and dtypes; how they lie in memory may differ."""
        mine, others = ([position._replace(transposed=False) for position in of.positions] for of in (self, other))
        return mine == others

    @property
    def shown(self) -> str:
        """The shapes and dtypes, for people."""
        return ", ".join(
            f"{position.rows and f'rows by {position.rows} of '}{position.dtype} {position.shape}"
            for position in self.positions
        )

    def gradients(self, flat: dict[str, FloatArray], rows: Sequence[RowGrad]) -> list[FloatArray | RowGrad]:
        """The gradients of which ``flat`` and ``rows`` are the parts."""
        left = iter(rows)
        found: list[FloatArray | RowGrad] = []
        for position, place in zip(self.positions, self.places, strict=True):
            if position.rows:
                found.append(next(left))
            else:
                array = flat[position.dtype][place]
                turned = position.shape[::-1] if position.transposed else position.shape
                found.append(array.reshape(turned).T if position.transposed else array.reshape(turned))
        return found


def _position(i: int, grad: Grad) -> _Position:
    values = grad.values if isinstance(grad, RowGrad) else grad
    if not isinstance(values, np.ndarray) or values.dtype not in checks.FLOATS:
        raise TypeError(
            f"gradient {i} is {checks.describe(grad)}, expected a float32 or float64 array on the host, or a RowGrad"
        )
    if isinstance(grad, RowGrad):
        return _Position(grad.indices.dtype.name, values.dtype.name, values.shape[1:], False)
    return _Position("", values.dtype.name, values.shape, is_transpose(values))


class _Sum:
    """The gradients of some shards, summed."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout
        self.flat = {dtype: np.empty(size, dtype) for dtype, size in layout.sizes.items()}
        self.rows: list[RowGrad] = []

    def set(self, grads: Sequence[Grad]) -> None:
        for place, values in self._dense(grads):
            place[...] = values
        # Copies: a generator may use its arrays again.
        self.rows = [RowGrad(grad.indices.copy(), grad.values.copy()) for grad in grads if isinstance(grad, RowGrad)]

    def add(self, grads: Sequence[Grad]) -> None:
        for place, values in self._dense(grads):
            place += values
        rows = (grad for grad in grads if isinstance(grad, RowGrad))
        self.rows = [_add_rows(mine, other) for mine, other in zip(self.rows, rows, strict=True)]

    def add_sum(self, other: _Sum) -> None:
        for dtype, flat in self.flat.items():
            flat += other.flat[dtype]
        self.rows = [_add_rows(mine, others) for mine, others in zip(self.rows, other.rows, strict=True)]

    def _dense(self, grads: Sequence[Grad]) -> Iterator[tuple[FloatArray, FloatArray]]:
        """The place of each gradient, and the gradient as it lies there."""
        for position, place, grad in zip(self._layout.positions, self._layout.places, grads, strict=True):
            if not isinstance(grad, RowGrad):
                yield self.flat[position.dtype][place], (grad.T if position.transposed else grad).reshape(-1)


def _add_to(total: FloatArray, other: FloatArray) -> FloatArray:
    total += other
    return total


# --------------------------------------------------------------------------------------------
# Gradients by rows
# --------------------------------------------------------------------------------------------

_NOTHING = np.empty(0, np.uint8)


def _add_rows(a: RowGrad, b: RowGrad) -> RowGrad:
    """Rows that both have are added, the others stay as they are."""
    indices = np.concatenate((a.indices, b.indices))
    order = indices.argsort(kind="stable")  # of a row that both have, a's comes first
    indices = indices[order]
    again = np.zeros(len(indices), np.bool_)
    again[1:] = indices[1:] == indices[:-1]
    values = np.concatenate((a.values, b.values))[order]
    places = np.flatnonzero(again)
    values[places - 1] += values[places]
    return RowGrad(indices[~again], values[~again])


def _owned(rows: RowGrad, rank: int, size: int) -> RowGrad:
    """The rows of which a worker owns the sum: every ``size``-th id, since frequent ids tend to stand together."""
    mine = rows.indices % size == rank
    return RowGrad(rows.indices[mine], rows.values[mine])


def _joined(parts: Sequence[RowGrad]) -> RowGrad:
    """Rows of different owners as one gradient."""
    indices: IntArray = np.concatenate([part.indices for part in parts])
    order = indices.argsort()
    return RowGrad(indices[order], np.concatenate([part.values for part in parts])[order])


def _packed(grads: Sequence[RowGrad]) -> Array:
    """Gradients by rows as bytes: the number of rows of each, then ids and values."""
    counts = np.array([len(grad.indices) for grad in grads], np.int64)
    arrays = [counts, *(array for grad in grads for array in grad)]
    return np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])


def _unpacked(message: Array, like: Sequence[RowGrad]) -> list[RowGrad]:
    """What `_packed` has made of gradients of these shapes and dtypes; nothing of an empty message."""
    if not message.size:
        return []
    counts = np.frombuffer(message, np.int64, len(like)).tolist()
    start = 8 * len(like)
    found = []
    for grad, count in zip(like, counts, strict=True):
        arrays = []
        for array in grad:
            shape = (count, *array.shape[1:])
            arrays.append(np.frombuffer(message, array.dtype, int(np.prod(shape)), start).reshape(shape))
            start += arrays[-1].nbytes
        found.append(RowGrad(*arrays))
    return found
