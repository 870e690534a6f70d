"""Optimisers: csrc/cpu/optim.cc, one pass over parameter, gradient and state."""

from __future__ import annotations

import math

import numpy as np

from fastlstm._cpu import OptimRule, optim_update, scale, squared_norm
from fastlstm.contract import FloatArray, IntArray

__all__ = [
    "adagrad_update",
    "adam_update",
    "momentum_update",
    "rmsprop_update",
    "scale",
    "sgd_update",
    "squared_norm",
]


def _int64(rows: IntArray | None) -> IntArray | None:
    return None if rows is None else rows.astype(np.int64, copy=False)


def sgd_update(param: FloatArray, grad: FloatArray, rows: IntArray | None, *, lr: float, grad_scale: float) -> None:
    optim_update(OptimRule.SGD, param, grad, _int64(rows), grad_scale=grad_scale, lr=lr)


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
    optim_update(rule, param, grad, _int64(rows), velocity, grad_scale=grad_scale, lr=lr, momentum=momentum)


def adagrad_update(
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    accumulator: FloatArray,
    *,
    lr: float,
    eps: float,
    grad_scale: float,
) -> None:
    optim_update(OptimRule.ADAGRAD, param, grad, _int64(rows), accumulator, grad_scale=grad_scale, lr=lr, eps=eps)


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
    optim_update(
        OptimRule.RMSPROP, param, grad, _int64(rows), accumulator, grad_scale=grad_scale, lr=lr, momentum=decay, eps=eps
    )


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
    optim_update(
        OptimRule.ADAM,
        param,
        grad,
        _int64(rows),
        m,
        v,
        grad_scale=grad_scale,
        lr=lr * math.sqrt(1 - beta2**step) / (1 - beta1**step),
        momentum=beta1,
        beta2=beta2,
        eps=eps,
        decay=lr * weight_decay,
    )
