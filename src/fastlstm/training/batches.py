"""Rows of data where the model lives: batches are gathered there, without a look at them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from fastlstm.contract import Array, IntArray
from fastlstm.ops.device import Device, to_device

# How many steps of each row of xs and of ts count, (N,) each; None where all do, or where there are no steps.
StepsThatCount: TypeAlias = "tuple[IntArray | None, IntArray | None]"
ALL_STEPS: StepsThatCount = (None, None)


class Rows:
    """Examples xs and targets ts, in an order.

    Parameters
    ----------
    xs, ts : arrays of the host's, one row an example
    device : "cpu" or "cuda"
        They are copied to it, once.
    steps : (N,) integers each, or None
        Where given, a batch is cut to the longest of its rows. A model on the host cuts its batches itself.
    """

    def __init__(self, xs: Array, ts: Array, device: Device, steps: StepsThatCount = ALL_STEPS) -> None:
        self._xs, self._ts, self._device = to_device(xs, device), to_device(ts, device), device
        self._steps = steps
        self._order: IntArray | None = None
        self._order_there: Array | None = None

    def reorder(self, order: IntArray | None) -> None:
        """From now on the rows stand in this order, (N,) of the host's; None for as they were."""
        self._order = order
        self._order_there = None if order is None else to_device(order, self._device)

    def batch(self, start: int, stop: int) -> tuple[Array, Array]:
        """Rows start to stop - 1."""
        part = slice(start, stop)
        host_rows = part if self._order is None else self._order[part]
        rows = part if self._order_there is None else self._order_there[part]
        xs, ts = (
            array if steps is None else array[:, : _longest(steps[host_rows])]
            for array, steps in zip((self._xs, self._ts), self._steps, strict=True)
        )
        return xs[rows], ts[rows]


def _longest(steps: IntArray) -> int:
    return int(np.max(steps)) if len(steps) else 0
