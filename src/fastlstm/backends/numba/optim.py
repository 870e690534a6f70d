"""Parameter updates compiled by Numba, one pass over the memory each. The definition: ``backends/numpy/optim.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.products import part
from fastlstm.backends.numba.reductions import sum_of_squares
from fastlstm.backends.numba.workers import over_blocks

# Limited by the memory, and numpy's own loops reach that limit.
from fastlstm.backends.numpy.optim import clip, scale
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

_COST = 4  # one element of an update, in units of `over_blocks`
_CHUNK = 4096  # elements whose squares are summed on their own, for accuracy and for one fixed order

# What a kernel gets for rows where all of the parameter changes.
_ALL = np.empty(0, np.int64)


def _over_rows(
    work: Callable[[int, int, int, FloatArray, IntArray], None], grad: FloatArray, rows: IntArray | None
) -> None:
    """Call work(first, last, width, grad, rows) for blocks of rows of grad, which are width elements long.

    Without rows, the elements count as rows of _CHUNK, the last of which may be shorter, and rows is empty.
    """
    if grad.size == 0:
        return
    width = _CHUNK if rows is None else grad.size // len(rows)
    places = _ALL if rows is None else flat(rows)
    values = flat(grad)
    over_blocks(lambda first, last: work(first, last, width, values, places), -(-grad.size // width), _COST * grad.size)


@inner
def _row_of(param: FloatArray, rows: IntArray, u: int, width: int) -> tuple[int, int]:
    """Where row u of the gradient belongs in the parameter, and its length."""
    start = (rows[u] if rows.size else u) * width
    return start, min(width, param.size - start)


@kernel
def _sgd(
    first: int, last: int, width: int, grad: FloatArray, rows: IntArray, param: FloatArray, lr: float, grad_scale: float
) -> None:
    real = param.dtype.type
    lr_typed, scale_typed = real(lr), real(grad_scale)
    for u in range(first, last):
        start, size = _row_of(param, rows, u, width)
        p, g = part(param, start, size), part(grad, u * width, size)
        for j in range(size):
            p[j] -= lr_typed * (scale_typed * g[j])


def sgd_update(param: FloatArray, grad: FloatArray, rows: IntArray | None, *, lr: float, grad_scale: float) -> None:
    p = param.reshape(-1)
    _over_rows(lambda first, last, width, g, u: _sgd(first, last, width, g, u, p, lr, grad_scale), grad, rows)


@kernel
def _momentum(
    first: int,
    last: int,
    width: int,
    grad: FloatArray,
    rows: IntArray,
    param: FloatArray,
    velocity: FloatArray,
    lr: float,
    momentum: float,
    nesterov: bool,
    grad_scale: float,
) -> None:
    real = param.dtype.type
    lr_typed, momentum_typed, scale_typed = real(lr), real(momentum), real(grad_scale)
    for u in range(first, last):
        start, size = _row_of(param, rows, u, width)
        p, v, g = part(param, start, size), part(velocity, start, size), part(grad, u * width, size)
        if nesterov:
            for j in range(size):
                step = lr_typed * (scale_typed * g[j])
                new = momentum_typed * v[j] - step
                v[j] = new
                p[j] += momentum_typed * new - step
        else:
            for j in range(size):
                new = momentum_typed * v[j] - lr_typed * (scale_typed * g[j])
                v[j] = new
                p[j] += new


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
    p, v = param.reshape(-1), velocity.reshape(-1)
    _over_rows(
        lambda first, last, width, g, u: _momentum(first, last, width, g, u, p, v, lr, momentum, nesterov, grad_scale),
        grad,
        rows,
    )


@kernel
def _scaled_by_squares(
    first: int,
    last: int,
    width: int,
    grad: FloatArray,
    rows: IntArray,
    param: FloatArray,
    accumulator: FloatArray,
    lr: float,
    old: float,
    new: float,
    eps: float,
    eps_inside_root: float,
    grad_scale: float,
) -> None:
    """a = old a + new g^2; p -= lr g / (sqrt(a + eps_inside_root) + eps): AdaGrad (old = new = 1) and RMSprop."""
    real = param.dtype.type
    lr_typed, scale_typed, old_typed, new_typed = real(lr), real(grad_scale), real(old), real(new)
    eps_typed, inside_typed = real(eps), real(eps_inside_root)
    for u in range(first, last):
        start, size = _row_of(param, rows, u, width)
        p, a, gradient = part(param, start, size), part(accumulator, start, size), part(grad, u * width, size)
        for j in range(size):
            g = scale_typed * gradient[j]
            squares = old_typed * a[j] + new_typed * (g * g)
            a[j] = squares
            p[j] -= lr_typed * g / (np.sqrt(squares + inside_typed) + eps_typed)


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
    p, a = param.reshape(-1), accumulator.reshape(-1)
    outside, inside = (0.0, eps) if eps_inside_root else (eps, 0.0)
    _over_rows(
        lambda first, last, width, g, u: _scaled_by_squares(
            first, last, width, g, u, p, a, lr, 1.0, 1.0, outside, inside, grad_scale
        ),
        grad,
        rows,
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
    p, a = param.reshape(-1), accumulator.reshape(-1)
    _over_rows(
        lambda first, last, width, g, u: _scaled_by_squares(
            first, last, width, g, u, p, a, lr, decay, 1 - decay, eps, 0.0, grad_scale
        ),
        grad,
        rows,
    )


@kernel
def _adam(
    first: int,
    last: int,
    width: int,
    grad: FloatArray,
    rows: IntArray,
    param: FloatArray,
    m: FloatArray,
    v: FloatArray,
    lr_t: float,
    beta1: float,
    beta2: float,
    eps: float,
    kept: float,
    grad_scale: float,
) -> None:
    """kept: what weight decay leaves of the parameter."""
    real = param.dtype.type
    lr_typed, eps_typed, kept_typed, scale_typed = real(lr_t), real(eps), real(kept), real(grad_scale)
    old_m, new_m, old_v, new_v = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    for u in range(first, last):
        start, size = _row_of(param, rows, u, width)
        p, gradient = part(param, start, size), part(grad, u * width, size)
        m_row, v_row = part(m, start, size), part(v, start, size)
        for j in range(size):
            g = scale_typed * gradient[j]
            mean = old_m * m_row[j] + new_m * g
            square = old_v * v_row[j] + new_v * (g * g)
            m_row[j] = mean
            v_row[j] = square
            p[j] = p[j] * kept_typed - lr_typed * mean / (np.sqrt(square) + eps_typed)


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
    p, m_flat, v_flat = param.reshape(-1), m.reshape(-1), v.reshape(-1)
    lr_t = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    kept = 1 - lr * weight_decay
    _over_rows(
        lambda first, last, width, g, u: _adam(
            first, last, width, g, u, p, m_flat, v_flat, lr_t, beta1, beta2, eps, kept, grad_scale
        ),
        grad,
        rows,
    )


@kernel
def _sums_of_squares(first: int, last: int, values: FloatArray, sums: FloatArray) -> None:
    for chunk in range(first, last):
        elements = part(values, chunk * _CHUNK, min(_CHUNK, values.size - chunk * _CHUNK))
        sums[chunk] = sum_of_squares(elements)


def squared_norm(grad: FloatArray) -> float:
    values = flat(grad)
    sums = np.empty(-(-values.size // _CHUNK))
    over_blocks(lambda first, last: _sums_of_squares(first, last, values, sums), len(sums), values.size)
    return float(sums.sum())
