"""``common.functions``."""

from __future__ import annotations

import numpy as np

from fastlstm.contract import Array, FloatArray


def sigmoid(x: FloatArray) -> FloatArray:
    # exp of a negative number only: the book's 1 / (1 + exp(-x)) overflows, with a warning, below -88 in float32.
    e = np.exp(-np.abs(x))
    y: FloatArray = np.where(x >= 0, 1, e) / (1 + e)
    return y


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(0, x)


def softmax(x: FloatArray) -> FloatArray:
    """Over the last axis of x, (V,) or (N, V)."""
    y: FloatArray = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def cross_entropy_error(y: FloatArray, t: Array) -> float:
    """Mean of -log(y + 1e-7) at the targets: probabilities y (N, V) or (V,), targets t of ids, or one-hot."""
    y = y.reshape(-1, y.shape[-1])
    ids = t.reshape(y.shape).argmax(axis=1) if t.size == y.size else t.reshape(-1)
    return float(-np.log(y[np.arange(len(y)), ids] + 1e-7).sum() / len(y))
