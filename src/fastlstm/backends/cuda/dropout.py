"""Dropout's masks: csrc/cuda/dropout.cu."""

from __future__ import annotations

from typing import Any

import cupy

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import seed_arguments
from fastlstm.contract import FloatArray


def dropout_mask(xs: FloatArray, *, ratio: float, seed: Any) -> FloatArray:
    on: Any = xs
    with cupy.cuda.Device(on.device.id):
        made: Any = cupy.empty(xs.shape, xs.dtype)
        _cuda.dropout_mask(
            mask=made.data.ptr,
            float64=xs.dtype.char == "d",
            count=xs.size,
            ratio=ratio,
            factor=1.0 / (1.0 - ratio),
            **seed_arguments(seed),
            device=on.device.id,
            stream=cupy.cuda.get_current_stream().ptr,
        )
    mask: FloatArray = made
    return mask
