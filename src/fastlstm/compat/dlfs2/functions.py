"""``common.functions``."""

from __future__ import annotations

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import Array, FloatArray
from fastlstm.layers.targets import as_ids
from fastlstm.ops import checks
from fastlstm.ops.device import number


def sigmoid(x: FloatArray) -> FloatArray:
    # exp of a negative number only: the book's 1 / (1 + exp(-x)) overflows, with a warning, below -88 in float32.
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    y: FloatArray = xp.where(x >= 0, 1, e) / (1 + e)
    return y


def relu(x: FloatArray) -> FloatArray:
    y: FloatArray = array_module(x).maximum(0, x)
    return y


def softmax(x: FloatArray) -> FloatArray:
    """Over the last axis of x, (V,) or (N, V)."""
    return ops.softmax(x if x.dtype in checks.FLOATS else x.astype(np.float64))


def cross_entropy_error(y: FloatArray, t: Array) -> float:
    """Mean of -log(y + 1e-7) at the targets: probabilities y (N, V) or (V,), targets t of ids, or one-hot.

    Targets of -1 and one-hot rows of zeros do not count.
    """
    y = y.reshape(-1, y.shape[-1])
    ids = as_ids("t", t.reshape(y.shape), 1, y.shape[1], -1) if t.size == y.size else t.reshape(-1)
    xp = array_module(y)
    log_p = xp.log(y[xp.arange(len(y)), ids] + 1e-7)
    counts = ids != -1
    loss: float = number(-xp.where(counts, log_p, 0).sum() / xp.maximum(counts.sum(), 1))
    return loss
