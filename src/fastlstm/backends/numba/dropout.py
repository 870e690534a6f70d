"""Dropout's masks, compiled by Numba. The definition is in ``backends/numpy/dropout.py``."""

from __future__ import annotations

import numpy as np

from fastlstm.backends.numba.candidates import GAMMA, uniform
from fastlstm.backends.numba.compiling import flat, kernel
from fastlstm.contract import FloatArray


@kernel
def _fill(mask: FloatArray, ratio: float, factor: float, seed: np.uint64) -> None:
    for j in range(mask.size):
        stays = uniform(seed + (np.uint64(j) + np.uint64(1)) * GAMMA) >= ratio
        mask[j] = factor if stays else 0.0


def dropout_mask(xs: FloatArray, *, ratio: float, seed: int) -> FloatArray:
    mask = np.empty(xs.shape, xs.dtype)
    _fill(flat(mask), ratio, 1.0 / (1.0 - ratio), np.uint64(seed))
    return mask
