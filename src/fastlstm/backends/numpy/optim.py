"""Parameter updates in place: the definition. With rows, only param[rows] and the same rows of the state change."""

from __future__ import annotations

import math

import numpy as np

from fastlstm.contract import FloatArray, IntArray


def _take(array: FloatArray, rows: IntArray | None) -> FloatArray:
    """The array itself, or a copy of some rows that `_put` writes back."""
    return array if rows is None else array[rows]


def _put(array: FloatArray, rows: IntArray | None, part: FloatArray) -> None:
    if rows is not None:
        array[rows] = part


def sgd_update(param: FloatArray, grad: FloatArray, rows: IntArray | None, *, lr: float, grad_scale: float) -> None:
    """p -= lr g."""
    p = _take(param, rows)
    p -= lr * (grad_scale * grad)
    _put(param, rows, p)


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
    """v = momentum v - lr g; p += v, or with nesterov p += momentum v - lr g."""
    p, v = _take(param, rows), _take(velocity, rows)
    step = lr * (grad_scale * grad)
    v *= momentum
    v -= step
    p += momentum * v - step if nesterov else v
    _put(param, rows, p)
    _put(velocity, rows, v)


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
    """a += g^2; p -= lr g / (sqrt(a) + eps), or with eps_inside_root p -= lr g / sqrt(a + eps)."""
    p, a = _take(param, rows), _take(accumulator, rows)
    g = grad_scale * grad
    a += g * g
    p -= lr * g / (np.sqrt(a + eps) if eps_inside_root else np.sqrt(a) + eps)
    _put(param, rows, p)
    _put(accumulator, rows, a)


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
    """a = decay a + (1 - decay) g^2; p -= lr g / (sqrt(a) + eps)."""
    p, a = _take(param, rows), _take(accumulator, rows)
    g = grad_scale * grad
    a *= decay
    a += (1 - decay) * (g * g)
    p -= lr * g / (np.sqrt(a) + eps)
    _put(param, rows, p)
    _put(accumulator, rows, a)


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
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p -= lr weight_decay p + lr_t m / (sqrt(v) + eps).

    lr_t = lr sqrt(1 - beta2^step) / (1 - beta1^step): the "epsilon hat" form of Kingma and Ba, section 2.
    """
    p, m_part, v_part = _take(param, rows), _take(m, rows), _take(v, rows)
    g = grad_scale * grad
    lr_t = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    p *= 1 - lr * weight_decay
    m_part *= beta1
    m_part += (1 - beta1) * g
    v_part *= beta2
    v_part += (1 - beta2) * (g * g)
    p -= lr_t * m_part / (np.sqrt(v_part) + eps)
    _put(param, rows, p)
    _put(m, rows, m_part)
    _put(v, rows, v_part)


def squared_norm(grad: FloatArray) -> float:
    """Sum of squares, added in float64."""
    return float(np.square(grad, dtype=np.float64).sum())


def scale(array: FloatArray, factor: float) -> None:
    array *= factor


def clip(array: FloatArray, limit: float) -> None:
    """Between -limit and limit; NaN stays NaN."""
    with np.errstate(over="ignore"):  # a limit above all numbers of the dtype is none
        np.clip(array, -limit, limit, out=array)
