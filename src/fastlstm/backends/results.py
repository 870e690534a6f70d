"""Where a backend puts a result that it has made: into an array of the caller's, or as it is."""

from __future__ import annotations

from fastlstm.contract import FloatArray


def put(target: FloatArray | None, value: FloatArray, *, accumulate: bool = False) -> FloatArray:
    """The value, or the target that holds it now; with accumulate, the target with the value added once."""
    if target is None:
        return value
    if accumulate:
        target += value
    else:
        target[...] = value
    return target
