"""Where a backend puts a result that it has made: into an array of the caller's, or as it is."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import Destination, FloatArray

# Gradients that sum over a batch, to which `Destination.accumulate` adds.
_SUMS = ("dWx", "dWh", "dW", "db")


@functools.cache
def new_arrays(fields: tuple[str, ...], without: tuple[str, ...] = ()) -> Destination:
    """For results that have no arrays yet."""
    return Destination(dict.fromkeys(fields), accumulate=False, without=without)


def put(target: FloatArray | None, value: FloatArray, *, accumulate: bool = False) -> FloatArray:
    """The value, or the target that holds it now; with accumulate, the target with the value added once."""
    if target is None:
        return value
    if accumulate:
        target += value
    else:
        target[...] = value
    return target


def put_all(into: Destination, **made: FloatArray | None) -> dict[str, Any]:
    """Every result where it is wanted; None what ``into.without`` names, and what is None."""
    return {
        name: None
        if value is None or name in into.without
        else put(into.arrays[name], value, accumulate=into.accumulate and name in _SUMS)
        for name, value in made.items()
    }


def snapshot(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    """Copies of weights, in the same order in memory: what a backend prepares that packs nothing."""
    Wx, b = (None if array is None else array.copy(order="K") for array in (Wx, b))
    return Wx, Wh.copy(order="K"), b


def new_sequence(N: int, T: int, width: int, dtype: np.dtype[Any], *, time_major: bool) -> FloatArray:
    """(N, T, width) of zeros, which lie as (T, N, width) in memory if they are time_major."""
    return np.zeros((T, N, width), dtype).swapaxes(0, 1) if time_major else np.zeros((N, T, width), dtype)


def in_memory(array: FloatArray, *, time_major: bool) -> FloatArray:
    """A sequence (N, T, width) as it is, or the same values, lying (T, N, width) in memory."""
    if not time_major:
        return array
    turned: FloatArray = array_module(array).ascontiguousarray(array.swapaxes(0, 1))
    return turned.swapaxes(0, 1)
