"""Cross entropy over a vocabulary: csrc/cpu/losses/losses.cc. The rest is the definition's."""

from __future__ import annotations

from typing import Literal

import numpy as np

import fastlstm._cpu as _cpu

# A few numbers a row, where a step of a training has products: numpy's loops are fast enough.
from fastlstm.backends.numpy.losses import mean_squared_error, sigmoid_cross_entropy, softmax
from fastlstm.contract import Destination, FloatArray, IntArray, LinearLossGrads, LossGrad, Precision

__all__ = ["linear_cross_entropy", "mean_squared_error", "sigmoid_cross_entropy", "softmax", "softmax_cross_entropy"]

_INT64 = np.dtype(np.int64)


def softmax_cross_entropy(
    logits: FloatArray, targets: IntArray, *, ignore_index: int, normalizer: float | None
) -> LossGrad:
    return LossGrad(*_cpu.softmax_cross_entropy(logits, targets, ignore_index, normalizer))


def linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray | None,
    targets: IntArray,
    *,
    ignore_index: int,
    memory: Literal["fast", "low"],
    precision: Precision,
    normalizer: float | None,
    into: Destination,
) -> LinearLossGrads:
    targets = targets.astype(_INT64, copy=False)
    dh, dW, db = (into.arrays[name] for name in ("dh", "dW", "db"))
    with_dh, with_dW, with_db = (name not in into.without for name in ("dh", "dW", "db"))
    return LinearLossGrads(
        *_cpu.linear_cross_entropy(
            h,
            W,
            b,
            targets,
            ignore_index,
            memory == "low",
            dh,
            dW,
            db,
            into.accumulate,
            with_dh,
            with_dW,
            with_db,
            precision == "bf16",
            normalizer,
        )
    )
