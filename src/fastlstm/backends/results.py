"""Where a backend puts a result that it has made: into an array of the caller's, or as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import Destination, FloatArray, GRUGrads, LSTMGrads, RNNGrads

# Gradients that sum over a batch, to which `Destination.accumulate` adds.
_SUMS = ("dWx", "dWh", "db")


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


def new_sequence(N: int, T: int, width: int, dtype: np.dtype[Any], *, time_major: bool) -> FloatArray:
    """(N, T, width) of zeros, which lie as (T, N, width) in memory if they are time_major."""
    return np.zeros((T, N, width), dtype).swapaxes(0, 1) if time_major else np.zeros((N, T, width), dtype)


def in_memory(array: FloatArray, *, time_major: bool) -> FloatArray:
    """A sequence (N, T, width) as it is, or the same values, lying (T, N, width) in memory."""
    if not time_major:
        return array
    turned: FloatArray = array_module(array).ascontiguousarray(array.swapaxes(0, 1))
    return turned.swapaxes(0, 1)


# For backends to which a cell is a sequence of one step: what a cell's gradients are called there.
_NAMES_IN_SEQUENCE = {"dx": "dxs", "dh_prev": "dh0", "dc_prev": "dc0"}


def of_one_step(into: Destination) -> Destination:
    """The destination of a cell's gradients as one of a sequence's."""
    arrays = {_NAMES_IN_SEQUENCE.get(name, name): array for name, array in into.arrays.items()}
    if arrays["dxs"] is not None:
        arrays["dxs"] = arrays["dxs"][:, None]
    return Destination(arrays, into.accumulate, tuple(_NAMES_IN_SEQUENCE.get(name, name) for name in into.without))


def of_cell(into: Destination, grads: LSTMGrads | GRUGrads | RNNGrads) -> dict[str, Any]:
    """The gradients of a sequence of one step by the names of a cell's."""
    of_sequence = grads._asdict()
    made = {name: of_sequence[_NAMES_IN_SEQUENCE.get(name, name)] for name in into.arrays}
    if made["dx"] is not None:
        made["dx"] = made["dx"][:, 0] if into.arrays["dx"] is None else into.arrays["dx"]
    return made
