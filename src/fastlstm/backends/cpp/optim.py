"""Optimisers: csrc/cpu/optim/optim.cc, one pass over parameter, gradient and state."""

from __future__ import annotations

import math

import numpy as np

from fastlstm._cpu import OptimRule, clip, optim_update, scale, squared_norm
from fastlstm.contract import FloatArray, IntArray

__all__ = [
    "adagrad_update",
    "adam_update",
    "clip",
    "momentum_update",
    "rmsprop_update",
    "scale",
    "sgd_update",
    "squared_norm",
]


_INT64 = np.dtype(np.int64)


def _int64(rows: IntArray | None) -> IntArray | None:
    return rows if rows is None or rows.dtype is _INT64 else rows.astype(_INT64, copy=False)


def sgd_update(param: FloatArray, grad: FloatArray, rows: IntArray | None, *, lr: float, grad_scale: float) -> None:
    optim_update(OptimRule.SGD, param, grad, _int64(rows), grad_scale, lr)


def momentum_update(
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    velocity: FloatArray,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    grad_scale: float,
) -> None:
    rule = OptimRule.NESTEROV if nesterov else OptimRule.MOMENTUM
    optim_update(rule, param, grad, _int64(rows), grad_scale, lr, velocity, None, momentum)


def adagrad_update(
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    accumulator: FloatArray,
    *,
    lr: float,
    eps: float,
    eps_inside_root: bool,
    grad_scale: float,
) -> None:
    momentum, beta2, decay = 0.0, 0.0, 0.0  # not used by the rule
    optim_update(
        OptimRule.ADAGRAD,
        param,
        grad,
        _int64(rows),
        grad_scale,
        lr,
        accumulator,
        None,
        momentum,
        beta2,
        eps,
        decay,
        eps_inside_root,
    )


def rmsprop_update(
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    accumulator: FloatArray,
    *,
    lr: float,
    decay: float,
    eps: float,
    grad_scale: float,
) -> None:
    beta2 = 0.0  # not used by the rule
    optim_update(OptimRule.RMSPROP, param, grad, _int64(rows), grad_scale, lr, accumulator, None, decay, beta2, eps)


def adam_update(
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    m: FloatArray,
    v: FloatArray,
    *,
    lr: float,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    grad_scale: float,
) -> None:
    corrected_lr = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    decay = lr * weight_decay
    optim_update(OptimRule.ADAM, param, grad, _int64(rows), grad_scale, corrected_lr, m, v, beta1, beta2, eps, decay)
