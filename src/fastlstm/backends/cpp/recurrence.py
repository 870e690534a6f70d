"""What the engine does not do yet, around it: strides, transposes, time first, no Wx, no b, results of the caller's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm.backends.results import in_memory, put_all
from fastlstm.contract import Destination, FloatArray


class Saved(NamedTuple):
    """What stands in place of the tape of the extension, and what it does not know."""

    tape: Any
    has_Wx: bool
    has_bias: bool
    time_major: bool


def inputs(
    xs: FloatArray, Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, two_biases: bool = False
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """As the extension takes them; without Wx the pre-activations meet the identity."""
    G = Wh.shape[1]
    if b is None:
        b = np.zeros((2, G) if two_biases else G, xs.dtype)
    W = np.eye(G, dtype=xs.dtype) if Wx is None else Wx
    return np.ascontiguousarray(xs), np.ascontiguousarray(W), np.ascontiguousarray(Wh), b


def upstream(dhs: FloatArray | None) -> FloatArray | None:
    return None if dhs is None else np.ascontiguousarray(dhs)


def grads(saved: Saved, into: Destination, fields: tuple[str, ...], computed: tuple[FloatArray, ...]) -> dict[str, Any]:
    made: dict[str, FloatArray | None] = dict(zip(fields, computed, strict=True))
    made["dxs"] = in_memory(computed[0], time_major=saved.time_major)
    if not saved.has_Wx:
        made["dWx"] = None
    if not saved.has_bias:
        made["db"] = None
    return put_all(into, **made)
