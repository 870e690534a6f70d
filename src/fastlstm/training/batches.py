"""Where a training takes its batches from, and rows of data as such a source, as they stand or in a new order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from fastlstm.contract import Array, IntArray
from fastlstm.ops import scalars
from fastlstm.ops.device import Device, to_device

# How many steps of each row of xs and of ts count, (N,) each; None where all do, or where there are no steps.
Lengths: TypeAlias = "tuple[IntArray | None, IntArray | None]"


class BatchSource(Protocol):
    """Where a training takes its batches from, epoch by epoch.

    Attributes
    ----------
    unit : str
        What a progress bar counts.
    """

    unit: str

    @property
    def units_per_batch(self) -> float:
        """How many of ``unit`` a batch of the epoch at hand has, on average."""
        ...

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Draw what the batches of an epoch are: from rng alone, so that its state brings the same batches again."""

    def __len__(self) -> int:
        """How many batches the epoch at hand has; before the first, the most that one can have."""
        ...

    def batch(self, i: int) -> tuple[Array, ...]:
        """Batch i of the epoch at hand, where the model lives."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        ...


@runtime_checkable
class PartSource(Protocol):
    """A source that can read some rows of a batch without the others."""

    def rows_of(self, i: int) -> int:
        """How many rows batch i of the epoch at hand has."""
        ...

    def part(self, i: int, rows: slice) -> tuple[Array, ...]:
        """Those rows of what ``batch(i)`` returns; both ends of the slice are given."""
        ...


def parts_of(source: BatchSource, i: int) -> tuple[int, Callable[[slice], tuple[Array, ...]]]:
    """How many rows batch i has, and what reads some of them: no others, where the source can do that."""
    if isinstance(source, PartSource):
        return source.rows_of(i), lambda rows: source.part(i, rows)
    batch = source.batch(i)
    return len(batch[0]), rows_of_batch(batch)


def rows_of_batch(batch: tuple[Array, ...]) -> Callable[[slice], tuple[Array, ...]]:
    """What reads some rows of a batch that is there."""
    return lambda rows: tuple(array[rows] for array in batch)


class Batches:
    """Rows of examples xs and targets ts, as they stand: a batch is gathered where the model lives, unchecked.

    Parameters
    ----------
    xs, ts : arrays of the host's, one row an example
    batch_size : int
        Rows of a batch; the last one may have fewer.
    device : "cpu" or "cuda"
        They are copied to it, once.
    lengths : (N,) integers each, or None
        Where given, a batch is cut to the longest of its rows. A model on the host cuts its batches itself.
    weights : (N,) or (N, T), optional
        Of the rows, or of each of their targets: the third array of a batch.
    """

    unit = "batch"
    units_per_batch = 1

    def __init__(
        self,
        xs: Array,
        ts: Array,
        batch_size: int,
        device: Device,
        lengths: Lengths = (None, None),
        weights: Array | None = None,
    ) -> None:
        self.xs, self.ts, self.weights = xs, ts, weights
        self.batch_size = scalars.integer("batch_size", batch_size, 1)
        self._device = device
        self._arrays = [to_device(array, device) for array in (xs, ts)]
        self._lengths = [*lengths]
        if weights is not None:
            self._arrays.append(to_device(weights, device))
            self._lengths.append(lengths[1] if weights.ndim > 1 else None)
        self._order: IntArray | None = None
        self._order_there: Array | None = None

    def shuffle_to(self, order: IntArray) -> None:
        """From now on the rows stand in this order, (N,) of the host's."""
        self._order, self._order_there = order, to_device(order, self._device)

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Every epoch has the rows as they stand."""

    def __len__(self) -> int:
        return -(-len(self.xs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        return (self.batch(i) for i in range(len(self)))

    def batch(self, i: int) -> tuple[Array, ...]:
        return self.part(i, slice(0, self.rows_of(i)))

    def rows_of(self, i: int) -> int:
        return min(self.batch_size, len(self.xs) - i * self.batch_size)

    def part(self, i: int, rows: slice) -> tuple[Array, ...]:
        first = i * self.batch_size
        part = slice(first + rows.start, first + rows.stop)
        host_rows = part if self._order is None else self._order[part]
        rows_there = part if self._order_there is None else self._order_there[part]
        return tuple(
            (array if lengths is None else array[:, : _longest(lengths[host_rows])])[rows_there]
            for array, lengths in zip(self._arrays, self._lengths, strict=True)
        )

    def fingerprint(self) -> dict[str, Any]:
        weights = {} if self.weights is None else {"crc32 of the weights": zlib.crc32(self.weights.data)}
        return {
            "batch_size": self.batch_size,
            "shuffle": False,
            "crc32 of the training data": zlib.crc32(self.ts.data, zlib.crc32(self.xs.data)),
            **weights,
        }


class ShuffledRows(Batches):
    """Rows in a new order every epoch."""

    def draw_order(self, rng: np.random.Generator) -> IntArray:
        """The order of an epoch, (N,)."""
        return rng.permutation(len(self.xs))

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002
        self.shuffle_to(self.draw_order(rng))

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "shuffle": True}


def _longest(lengths: IntArray) -> int:
    return int(np.max(lengths)) if len(lengths) else 0
