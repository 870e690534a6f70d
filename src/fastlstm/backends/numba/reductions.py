"""Sums and maxima over flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.backends.numba.compiling import inner, reduction
from fastlstm.backends.numba.products import part
from fastlstm.contract import FloatArray

_LANES = 32


@reduction
def total(values: FloatArray) -> np.floating[Any]:
    """The sum of the values."""
    result = values.dtype.type(0)
    for j in range(values.size):
        result += values[j]
    return result


@reduction
def dot(x: FloatArray, y: FloatArray) -> np.floating[Any]:
    """The sum of the products."""
    result = x.dtype.type(0)
    for j in range(x.size):
        result += x[j] * y[j]
    return result


@reduction
def sum_of_squares(values: FloatArray) -> float:
    """In float64."""
    result = 0.0
    for j in range(values.size):
        value = np.float64(values[j])
        result += value * value
    return result


@inner
def new_lanes(like: FloatArray) -> FloatArray:
    """Room for `largest` to work in; a caller keeps it, since many rows are short."""
    return np.empty(_LANES, like.dtype)


@inner
def largest(values: FloatArray, lanes: FloatArray) -> float:
    """The largest value, -inf if there is none; NaN is passed over.

    LLVM does not turn a plain loop into vectors, because of NaN; this keeps several maxima side by side.
    """
    lanes[:] = -np.inf
    whole = values.size // _LANES * _LANES
    for j in range(0, whole, _LANES):
        block = part(values, j, _LANES)
        for lane in range(_LANES):
            lanes[lane] = block[lane] if block[lane] > lanes[lane] else lanes[lane]
    for j in range(whole, values.size):
        lanes[j - whole] = max(lanes[j - whole], values[j])
    top = lanes[0]
    for lane in range(1, _LANES):
        top = max(top, lanes[lane])
    return top
