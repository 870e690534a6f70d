"""Losses over a vocabulary compiled by Numba. The definition is in ``backends/numpy/losses.py``, and so is the rest."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from fastlstm.backends.numba.compiling import flat, kernel, plain
from fastlstm.backends.numba.elementary import exp
from fastlstm.backends.numba.products import multiply, part
from fastlstm.backends.numba.reductions import largest, new_lanes
from fastlstm.backends.numba.reductions import total as sum_of
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.backends.numpy.dense import factor

# A few numbers a row, where a step of a training has products: numpy's loops are fast enough.
from fastlstm.backends.numpy.losses import mean_squared_error, sigmoid_cross_entropy, softmax
from fastlstm.backends.results import put_all
from fastlstm.contract import Destination, FloatArray, IntArray, LinearLossGrads, LossGrad, Precision

__all__ = ["linear_cross_entropy", "mean_squared_error", "sigmoid_cross_entropy", "softmax", "softmax_cross_entropy"]

# With memory="low" a block of logits has about this many bytes, and at least so many columns that threads can share it.
_BLOCK_BYTES = 2**20
_BLOCK_COLUMNS = 128

_EXP = 4  # one exp and what belongs to it, in units of `over_blocks`


@kernel
def _softmax_gradient(
    first: int,
    last: int,
    logits: FloatArray,
    b: FloatArray,
    targets: IntArray,
    ignore_index: int,
    share: float,
    dlogits: FloatArray,
    losses: FloatArray,
) -> None:
    """Rows first to last - 1 of dlogits, multiplied by share, and of the losses; b is added to logits unless empty.

    dlogits may be logits.
    """
    V = logits.shape[1]
    lanes = new_lanes(logits)
    share_typed = logits.dtype.type(share)
    for m in range(first, last):
        x, d = part(logits.reshape(-1), m * V, V), part(dlogits.reshape(-1), m * V, V)
        target = targets[m]
        if target == ignore_index:
            d[:] = 0
            losses[m] = 0
            continue
        if b.size:
            for j in range(V):
                d[j] = x[j] + b[j]
        else:
            for j in range(V):
                d[j] = x[j]
        top = largest(d, lanes)
        at_target = d[target] - top
        for j in range(V):
            d[j] = exp(d[j] - top)
        total = sum_of(d)
        losses[m] = math.log(total) - at_target
        factor = share_typed / total
        for j in range(V):
            d[j] *= factor
        d[target] -= share_typed


def softmax_cross_entropy(
    logits: FloatArray, targets: IntArray, *, ignore_index: int, normalizer: float | None
) -> LossGrad:
    normalizer = normalizer or max(int(np.count_nonzero(targets != ignore_index)), 1)
    dlogits, losses = np.empty_like(logits), np.empty(len(logits), logits.dtype)
    _of_rows(logits, np.empty(0, logits.dtype), targets, ignore_index, 1 / normalizer, dlogits, losses)
    return LossGrad(_sum(losses) / normalizer, dlogits)


def _sum(losses: FloatArray) -> float:
    return float(losses.sum(dtype=np.float64))


def _of_rows(
    logits: FloatArray,
    b: FloatArray,
    targets: IntArray,
    ignore_index: int,
    share: float,
    dlogits: FloatArray,
    losses: FloatArray,
) -> None:
    logits, ids = plain(logits), flat(targets)
    over_blocks(
        lambda first, last: _softmax_gradient(first, last, logits, b, ids, ignore_index, share, dlogits, losses),
        len(ids),
        _EXP * logits.size,
    )


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
    W = np.ascontiguousarray(factor(W, precision))
    M, H = h.shape
    V = W.shape[1]
    b = np.zeros(V, W.dtype) if b is None else flat(b)
    counted = np.flatnonzero(targets != ignore_index)
    everything = counted.size == M
    h_counted, ids = (h, flat(targets)) if everything else (h[counted], targets[counted])
    h_counted = factor(h_counted, precision)
    made = _Gradients(
        dh=None if "dh" in into.without else np.empty_like(h_counted),
        dW=None if "dW" in into.without else np.zeros((H, V), h.dtype),
        db=None if "db" in into.without else np.zeros((1, V), h.dtype),
    )
    loss = 0.0
    if counted.size:
        of_counted = _in_blocks if memory == "low" else _at_once
        normalizer = normalizer or counted.size
        losses = of_counted(h_counted, W, b, ids, 1 / normalizer, made, precision)
        loss = _sum(losses) / normalizer
    dh_of_all = None if made.dh is None else _spread(made.dh, counted, M)
    grads = put_all(into, dh=dh_of_all, dW=made.dW, db=None if made.db is None else made.db[0])
    return LinearLossGrads(loss, **grads)


class _Gradients(NamedTuple):
    """dh (M, H); dW (H, V); db (1, V). None what is not wanted."""

    dh: FloatArray | None
    dW: FloatArray | None
    db: FloatArray | None

    def multiply(
        self,
        h: FloatArray,
        W: FloatArray,
        dlogits: FloatArray,
        precision: Precision,
        columns: slice = slice(None),
        *,
        add_to_dh: bool = False,
    ) -> None:
        """The products with the gradient of the logits of some columns; h and W are factors already."""
        if self.db is not None:
            multiply(np.ones((1, len(h)), h.dtype), dlogits, self.db[:, columns])
        d = factor(dlogits, precision)
        if self.dh is not None:
            multiply(d, W[:, columns], self.dh, transposed=True, add=add_to_dh)
        if self.dW is not None:
            multiply(np.ascontiguousarray(h.T), d, self.dW[:, columns])


def _spread(rows: FloatArray, places: IntArray, M: int) -> FloatArray:
    """Rows in their places among M, zeros in the others."""
    if len(rows) == M:
        return rows
    spread = np.zeros((M, rows.shape[1]), rows.dtype)
    spread[places] = rows
    return spread


def _at_once(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray,
    targets: IntArray,
    share: float,
    grads: _Gradients,
    precision: Precision,
) -> FloatArray:
    """The losses of all rows; grads become those of their sum times share."""
    logits, losses = np.empty((h.shape[0], W.shape[1]), h.dtype), np.empty(h.shape[0], h.dtype)
    multiply(h, W, logits)
    _of_rows(logits, b, targets, -1, share, logits, losses)
    grads.multiply(h, W, logits, precision)
    return losses


@kernel
def _add_to_log_sum_exp(
    first: int,
    last: int,
    z: FloatArray,
    b: FloatArray,
    column: int,
    targets: IntArray,
    top: FloatArray,
    total: FloatArray,
    at_target: FloatArray,
) -> None:
    """Take the logits z + b[column:] of some columns into the online log-sum-exp of rows first to last - 1.

    top: the largest logit so far; total: the sum of exp(logit - top) so far. z is overwritten.
    """
    width = z.shape[1]
    lanes = new_lanes(z)
    bias = part(b, column, width)
    for m in range(first, last):
        row = part(z.reshape(-1), m * width, width)
        for j in range(width):
            row[j] += bias[j]
        if column <= targets[m] < column + width:
            at_target[m] = row[targets[m] - column]
        new_top = max(top[m], largest(row, lanes))
        # Where every logit so far is -inf there is nothing to shift, and -inf - -inf would be NaN.
        shift = z.dtype.type(0) if new_top == -np.inf else new_top
        for j in range(width):
            row[j] = exp(row[j] - shift)
        total[m] = total[m] * exp(top[m] - shift) + sum_of(row)
        top[m] = new_top


@kernel
def _block_gradient(
    first: int,
    last: int,
    z: FloatArray,
    b: FloatArray,
    column: int,
    targets: IntArray,
    top: FloatArray,
    log_total: FloatArray,
    share: float,
) -> None:
    """Replace the logits z (without b) of some columns by the gradient, rows first to last - 1."""
    width = z.shape[1]
    share_typed = z.dtype.type(share)
    bias = part(b, column, width)
    for m in range(first, last):
        row = part(z.reshape(-1), m * width, width)
        row_top, row_log_total = top[m], log_total[m]
        for j in range(width):
            row[j] = exp((row[j] + bias[j] - row_top) - row_log_total) * share_typed
        if column <= targets[m] < column + width:
            row[targets[m] - column] -= share_typed


def _in_blocks(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray,
    targets: IntArray,
    share: float,
    grads: _Gradients,
    precision: Precision,
) -> FloatArray:
    """`_at_once` for blocks of columns: first an online log-sum-exp, then the logits again for the gradients."""
    M, V = h.shape[0], W.shape[1]
    width = max(1, _BLOCK_BYTES // (M * h.itemsize * _BLOCK_COLUMNS)) * _BLOCK_COLUMNS
    top, total, at_target = np.full(M, -np.inf, h.dtype), np.zeros(M, h.dtype), np.empty(M, h.dtype)
    room = np.empty(M * min(width, V), h.dtype)
    blocks = [(column, min(width, V - column)) for column in range(0, V, width)]

    for column, size in blocks:
        z = room[: M * size].reshape(M, size)
        multiply(h, W[:, column : column + size], z)
        over_blocks(
            lambda first, last, z=z, column=column: _add_to_log_sum_exp(  # type: ignore[misc]
                first, last, z, b, column, targets, top, total, at_target
            ),
            M,
            _EXP * z.size,
        )
    # A row with nothing but -inf has no softmax: NaN, as with memory="fast".
    log_total = np.where(np.isneginf(top), np.nan, np.log(np.maximum(total, np.finfo(h.dtype).tiny))).astype(h.dtype)

    for column, size in blocks if any(array is not None for array in grads) else ():
        z = room[: M * size].reshape(M, size)
        multiply(h, W[:, column : column + size], z)
        over_blocks(
            lambda first, last, z=z, column=column: _block_gradient(  # type: ignore[misc]
                first, last, z, b, column, targets, top, log_total, share
            ),
            M,
            _EXP * z.size,
        )
        grads.multiply(h, W, z, precision, slice(column, column + size), add_to_dh=column > 0)
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, quietly as in the kernels
        losses: FloatArray = log_total - (at_target - top)
    return losses
