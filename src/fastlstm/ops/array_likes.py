"""What callers pass in the place of arrays of the host, checked as it came: a conversion would change some of it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from fastlstm.contract import Array, IntArray
from fastlstm.ops import checks
from fastlstm.ops.device import to_host


def host_array(name: str, values: Any) -> Array:
    """An array of the host, of any array-like."""
    if checks.is_array(values):
        checks.require_array(name, values)
    return to_host(values)


def integers(name: str, values: Any, ndim: int, axes: str, what: str = "ids") -> IntArray:
    """An array-like of integers with ndim axes, in the dtype that it has; ``axes`` and ``what`` are for errors."""
    array = host_array(name, values)
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}, expected {axes}")
    if not array.size or array.dtype.kind in "iu":
        return array
    # Of [1, 2**63] numpy makes floats, of 2**70 an object: what came is what the caller wrote.
    came = (array if checks.is_array(values) else np.asarray(values, object)).flat
    wrong = next((value for value in came if not _is_int64(value)), None)
    holds = "" if wrong is None else f"; it holds {wrong!s:.60}"
    raise TypeError(f"{name} has dtype {array.dtype}, expected integer {what}{holds}")


def _is_int64(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63
