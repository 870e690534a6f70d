"""Dropout's masks: csrc/cuda/dropout."""

from __future__ import annotations

from typing import Any

import cupy

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import address, call_on, device_of, seed_arguments
from fastlstm.contract import FloatArray


def dropout_mask(xs: FloatArray, *, ratio: float, seed: Any) -> FloatArray:
    with device_of(xs):
        made: Any = cupy.empty(xs.shape, xs.dtype)
        _cuda.dropout_mask(
            mask=address(made),
            float64=xs.dtype.char == "d",
            count=xs.size,
            ratio=ratio,
            factor=1.0 / (1.0 - ratio),
            **seed_arguments(seed),
            **call_on(xs),
        )
    mask: FloatArray = made
    return mask
