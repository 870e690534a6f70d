"""Means of an epoch, summed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.contract import Reduction
from fastlstm.ops.device import read


class Addable(Protocol):
    """A mean, or what becomes one, that grows batch by batch."""

    def add(self, total: Any, count: Any) -> None: ...


Means: TypeAlias = Mapping[str, Addable]


class RunningMean:
    """A mean that grows batch by batch; of nothing it is NaN.

    What is added may be on a GPU: it is summed there, and the host waits for it when it reads ``total``, ``count`` or
    ``value``.
    """

    __slots__ = ("_count", "_total")

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self._total: Any = total
        self._count: Any = count

    def copy(self) -> Self:
        """The mean so far."""
        return type(self)(self._total, self._count)

    def sum_in(self, total: Any, count: Any) -> None:
        """Have both sums stand in 0-d arrays of a GPU, to which others may add."""
        if self._total is not total:
            total[...], count[...] = self._total, self._count
            self._total, self._count = total, count

    def detach(self) -> None:
        """Keep what both sums are now, whatever is added to the arrays that they stand in."""
        if is_device_array(self._total):
            self._total = self._total.copy()
        if is_device_array(self._count):
            self._count = self._count.copy()

    def add(self, total: Any, count: Any) -> None:
        if is_device_array(total):
            total = total.astype(np.float64)
        self._total = self._total + total
        self._count = self._count + count

    @property
    def total(self) -> float:
        return read(self._total)

    @property
    def count(self) -> int:
        return int(read(self._count))

    @property
    def value(self) -> float:
        count = self.count
        return self.total / count if count else math.nan


class PerplexityMean(RunningMean):
    """A mean of losses whose value is its exponential."""

    __slots__ = ()

    @property
    def value(self) -> float:
        mean = super().value
        # Above, float64 has no number for it.
        return math.inf if mean > 709 else math.exp(mean)


class Measured(Protocol):
    """What has loss and metrics of a batch: a model after a forward call."""

    @property
    def loss_count(self) -> int:
        """Over how many targets the loss is the mean."""
        ...

    def metric_sums(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        """For each name: the sum of what is averaged, and over how many."""
        ...


def total_loss(loss: Any, count: Any, reduction: Reduction) -> Any:
    """The sum of losses of which ``loss`` is the mean or the sum."""
    return loss * count if reduction == "mean" else loss


def add_batch(means: Means, model: Measured, loss: float, names: Sequence[str], reduction: Reduction = "mean") -> None:
    """Add the model's last forward call to the running means."""
    count = model.loss_count
    means["loss"].add(total_loss(loss, count, reduction), count)
    if names:
        for name, (total, n) in model.metric_sums(names).items():
            means[name].add(total, n)
