"""Dropout's masks: the definition's, block by block. What follows them takes far longer than they do."""

from __future__ import annotations

import numpy as np

from fastlstm.backends.numpy.sampling import uniforms
from fastlstm.contract import FloatArray

_BLOCK = 1 << 13  # draws whose steps stay in L2


def dropout_mask(xs: FloatArray, *, ratio: float, seed: int) -> FloatArray:
    mask = np.empty(xs.shape, xs.dtype)
    flat = mask.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        np.multiply(uniforms(seed, start, part.size) >= ratio, 1.0 / (1.0 - ratio), out=part, casting="same_kind")
    return mask
