"""The gradients of shards, summed, in flat arrays: where each of them lies, and how shards are added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from fastlstm.contract import FloatArray, RowGrad
from fastlstm.distributed.bf16 import round_to_bf16
from fastlstm.distributed.row_gradients import add_rows, rows_among
from fastlstm.ops import checks
from fastlstm.ops.parameters import is_transpose

Grad: TypeAlias = "FloatArray | RowGrad"


class Position(NamedTuple):
    """What stands at one place of the lists; rows: the dtype of the ids of a RowGrad, whose shape is that of a row."""

    rows: str
    dtype: str
    shape: tuple[int, ...]
    transposed: bool


class Layout:
    """Where each gradient lies among those of its dtype, one flat array."""

    def __init__(self, grads: Sequence[Grad]) -> None:
        self.positions = tuple(_position(i, grad) for i, grad in enumerate(grads))
        self.has_rows = any(position.rows for position in self.positions)
        self.sizes: dict[str, int] = {position.dtype: 0 for position in self.positions if not position.rows}
        self.places: list[slice] = []
        # For each position, how many numbers of each dtype stand before it.
        self._before = [dict(self.sizes)]
        for position in self.positions:
            start = self.sizes.get(position.dtype, 0)
            if position.rows:
                self.places.append(slice(0))
            else:
                self.sizes[position.dtype] = stop = start + int(np.prod(position.shape))
                self.places.append(slice(start, stop))
            self._before.append(dict(self.sizes))

    def span(self, dtype: str, which: slice) -> slice:
        """Where the gradients of some positions lie among those of their dtype."""
        first, last, _ = which.indices(len(self.positions))
        return slice(self._before[first][dtype], self._before[last][dtype])

    def num_bytes(self, which: slice) -> int:
        """How large the gradients of some positions are."""
        spans = {dtype: self.span(dtype, which) for dtype in self.sizes}
        return sum((span.stop - span.start) * np.dtype(dtype).itemsize for dtype, span in spans.items())

    def fits(self, other: Layout) -> bool:
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


def _position(i: int, grad: Grad) -> Position:
    values = grad.values if isinstance(grad, RowGrad) else grad
    if not isinstance(values, np.ndarray) or values.dtype not in checks.FLOATS:
        raise TypeError(
            f"gradient {i} is {checks.describe(grad)}, expected a float32 or float64 array on the host, or a RowGrad"
        )
    if isinstance(grad, RowGrad):
        return Position(grad.indices.dtype.name, values.dtype.name, values.shape[1:], False)
    return Position("", values.dtype.name, values.shape, is_transpose(values))


_ALL = slice(0, None)


class ShardSum:
    """The gradients of some shards, summed. ``which`` are taken, of the order of the lists; rows with the first of all.

    Parameters
    ----------
    layout : Layout
    rounds : bool
        Whether float32 gradients, and sums of them, are rounded to bfloat16.
    """

    def __init__(self, layout: Layout, rounds: bool) -> None:
        self._layout = layout
        self._rounds = rounds
        self.flat = {dtype: np.empty(size, dtype) for dtype, size in layout.sizes.items()}
        self.rows: list[RowGrad] = []

    def set(self, grads: Sequence[Grad], which: slice = _ALL) -> None:
        for place, values in self._dense(grads, which):
            place[...] = values
        if not which.start:
            # Copies: a generator may use its arrays again.
            self.rows = [RowGrad(grad.indices.copy(), grad.values.copy()) for grad in rows_among(grads)]
        self._round(which)

    def add(self, grads: Sequence[Grad], which: slice = _ALL) -> None:
        """Add gradients as they are: not where sums are rounded."""
        for place, values in self._dense(grads, which):
            place += values
        if not which.start:
            self.rows = [add_rows(mine, other) for mine, other in zip(self.rows, rows_among(grads), strict=True)]

    def add_sum(self, other: ShardSum, which: slice = _ALL) -> None:
        for dtype, flat in self.flat.items():
            span = self._layout.span(dtype, which)
            flat[span] += other.flat[dtype][span]
        if not which.start:
            self.rows = [add_rows(mine, others) for mine, others in zip(self.rows, other.rows, strict=True)]
        self._round(which)

    def _round(self, which: slice) -> None:
        if self._rounds:
            spans = [flat[self._layout.span(dtype, which)] for dtype, flat in self.flat.items()]
            for array in (*spans, *(grad.values for grad in self.rows)):
                if array.dtype == np.float32:
                    round_to_bf16(array)

    def _dense(self, grads: Sequence[Grad], which: slice) -> Iterator[tuple[FloatArray, FloatArray]]:
        """The place of each gradient, and the gradient as it lies there."""
        layout = self._layout
        for position, place, grad in zip(layout.positions[which], layout.places[which], grads[which], strict=True):
            if not isinstance(grad, RowGrad):
                yield self.flat[position.dtype][place], (grad.T if position.transposed else grad).reshape(-1)
