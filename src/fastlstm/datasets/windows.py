"""Time series cut into what a model reads and what it is to say, and the scaling that belongs to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe


class Windows(NamedTuple):
    """xs (M, steps_in, D): pieces of a series; ts (M, steps_out, D): what follows each."""

    xs: FloatArray
    ts: FloatArray


def windows(series: Any, steps_in: int, steps_out: int, *, stride: int = 1) -> Windows:
    """Cut a series into pieces and what follows each.

    Parameters
    ----------
    series : (L,) or (L, D) numbers
        A time step a row; an array, a list, a column or several of a pandas DataFrame.
    steps_in, steps_out : int
        How many steps a piece has, and how many that follow it.
    stride : int
        Steps from the beginning of one piece to that of the next.

    Returns
    -------
    Windows
        xs (M, steps_in, D) and ts (M, steps_out, D), M = (L - steps_in - steps_out) // stride + 1; new arrays, float32
        if the series is, else float64.

    Raises
    ------
    TypeError, ValueError
        The series is none, holds what is no finite number, or is shorter than one piece and what follows.
    """
    values = as_series("series", series)
    steps_in, steps_out = scalars.integer("steps_in", steps_in, 1), scalars.integer("steps_out", steps_out, 1)
    stride = scalars.integer("stride", stride, 1)
    needed = steps_in + steps_out
    if len(values) < needed:
        raise ValueError(
            f"series has {len(values)} steps, expected at least {needed}: steps_in = {steps_in} to read and steps_out "
            f"= {steps_out} to say"
        )
    pieces = np.lib.stride_tricks.sliding_window_view(values, needed, axis=0)[::stride].swapaxes(1, 2)
    return Windows(np.ascontiguousarray(pieces[:, :steps_in]), np.ascontiguousarray(pieces[:, steps_in:]))


def as_series(name: str, series: Any) -> FloatArray:
    """A series as (L, D) float32 or float64; raises if it is none or not finite."""
    array = np.asarray(series)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} is {describe(series)}, expected numbers")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {array.shape}, expected (steps,) or (steps, values of a step)")
    values: FloatArray = array.astype(array.dtype if array.dtype == np.float32 else np.float64, copy=False)
    values = values[:, None] if values.ndim == 1 else values
    if not np.isfinite(values).all():
        step, column = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"{name} holds {values[step, column]} at step {step}, expected finite numbers; fill what is missing, for "
            "instance with the value before"
        )
    return values


class Scaling(NamedTuple):
    """mean and scale (D,) float64: a series is learned as (series - mean) / scale.

    Its numbers are the attribute ``scaling`` of a model that was trained on what it made, and saved with it.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, series: Any) -> Scaling:
        """Mean and standard deviation of each column of a series (L,) or (L, D): of its training part alone.

        A column that is always the same has a scale of 1.
        """
        values = as_series("series", series).astype(np.float64, copy=False)
        if not len(values):
            raise ValueError("series has no steps, expected at least one")
        deviation = values.std(axis=0)
        constant = deviation <= 1e-12 * np.abs(values).max(axis=0)
        return cls(values.mean(axis=0), np.where(constant, 1.0, deviation))

    def apply(self, series: Any) -> FloatArray:
        """The scaled series (..., D), float64."""
        return (np.asarray(series, np.float64) - self.mean) / self.scale

    def undo(self, scaled: Any) -> FloatArray:
        """The series (..., D) of a scaled one, float64."""
        return np.asarray(scaled, np.float64) * self.scale + self.mean
