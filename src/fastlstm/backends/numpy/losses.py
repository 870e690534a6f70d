"""Losses: the definition. Over a vocabulary::

    loss = sum of logsumexp(logits) - logits[target] over the rows that count
    dlogits = softmax(logits) - onehot(target)

Rows whose target is ignore_index are never read. With a sigmoid, for labels from 0 to 1, and of outputs y for
targets t::

    loss = sum of  log(1 + exp(logits)) - logits labels,   dlogits = sigmoid(logits) - labels
    loss = sum of (y - t)^2,                               dy = 2 (y - t)

All of them are divided by normalizer or, where it is None, by the number of rows that count.

A linear loss has three products, h W in the logits, dh = dlogits W^T and dW = h^T dlogits, whose factors are rounded
with precision="bf16"; db, a sum, is that of dlogits as they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from fastlstm.backends.numpy.dense import factor
from fastlstm.backends.results import put_all
from fastlstm.contract import Destination, FloatArray, IntArray, LinearLossGrads, LossGrad, Precision, SquaredErrorGrad

# Bytes of one block of logits with memory="low"; a few such arrays exist at a time.
_BLOCK_BYTES = 2**18


def _quietly() -> np.errstate:
    """Infinite logits are legal (a masked word has -inf) and inf - inf is NaN by design: no warnings for them."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


def softmax(logits: FloatArray, *, temperature: float, out: FloatArray | None) -> FloatArray:
    with _quietly():
        p: FloatArray = np.subtract(logits, logits.max(axis=1, keepdims=True), out=out)
        if temperature != 1:
            p /= p.dtype.type(temperature)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
    return p


def softmax_cross_entropy(
    logits: FloatArray, targets: IntArray, *, ignore_index: int, normalizer: float | None
) -> LossGrad:
    counted = np.flatnonzero(targets != ignore_index)
    dlogits = np.zeros_like(logits)
    if counted.size == 0:
        return LossGrad(0.0, dlogits)
    divisor = counted.size if normalizer is None else normalizer
    rows, target = np.arange(counted.size), targets[counted]
    z = logits[counted]
    with _quietly():
        z -= z.max(axis=1, keepdims=True)
        log_softmax = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        d = np.exp(log_softmax)
        d[rows, target] -= 1
        d /= d.dtype.type(divisor)
    dlogits[counted] = d
    return LossGrad(0.0 - float(log_softmax[rows, target].sum(dtype=np.float64)) / divisor, dlogits)


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
    b = np.zeros(W.shape[1], W.dtype) if b is None else b
    made = _linear_cross_entropy(h, W, b, targets, ignore_index, memory, precision, normalizer)
    # All is computed, wanted or not: so it is obvious that nothing depends on what is wanted.
    return LinearLossGrads(made.loss, **put_all(into, dh=made.dh, dW=made.dW, db=made.db))


def _linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray,
    targets: IntArray,
    ignore_index: int,
    memory: Literal["fast", "low"],
    precision: Precision,
    normalizer: float | None,
) -> LinearLossGrads:
    counted = np.flatnonzero(targets != ignore_index)
    dh = np.zeros_like(h)
    if counted.size == 0:
        return LinearLossGrads(0.0, dh, np.zeros_like(W), np.zeros_like(b))
    of_counted = _in_blocks if memory == "low" else _at_once
    with _quietly():
        rows, weights = factor(h[counted], precision), factor(W, precision)
        made = of_counted(rows, weights, b, targets[counted], precision, normalizer or counted.size)
    dh[counted] = made.dh
    return made._replace(dh=dh)


def _at_once(
    h: FloatArray, W: FloatArray, b: FloatArray, targets: IntArray, precision: Precision, normalizer: float
) -> LinearLossGrads:
    """h and W are factors already."""
    loss, dlogits = softmax_cross_entropy(h @ W + b, targets, ignore_index=-1, normalizer=normalizer)
    d = factor(dlogits, precision)
    return LinearLossGrads(loss, d @ W.T, h.T @ d, dlogits.sum(axis=0))


def _in_blocks(
    h: FloatArray, W: FloatArray, b: FloatArray, targets: IntArray, precision: Precision, normalizer: float
) -> LinearLossGrads:
    """Blocks of columns of the vocabulary: first an online log-sum-exp, then the logits again for the gradients."""
    M, V = h.shape[0], W.shape[1]
    width = max(16, _BLOCK_BYTES // (M * h.itemsize))
    blocks = [slice(start, min(start + width, V)) for start in range(0, V, width)]

    top = np.full((M, 1), -np.inf, h.dtype)  # largest logit so far
    total = np.zeros((M, 1), h.dtype)  # sum of exp(logit - top) so far
    at_target = np.empty((M, 1), h.dtype)
    for block in blocks:
        z = h @ W[:, block] + b[block]
        new_top = np.maximum(top, z.max(axis=1, keepdims=True))
        # Where every logit so far is -inf there is nothing to shift, and -inf - -inf would be NaN.
        shift = np.where(np.isneginf(new_top), 0, new_top)
        total = total * np.exp(top - shift) + np.exp(z - shift).sum(axis=1, keepdims=True)
        top = new_top
        inside = np.flatnonzero((targets >= block.start) & (targets < block.stop))
        at_target[inside, 0] = z[inside, targets[inside] - block.start]
    # A row with nothing but -inf has no softmax: NaN, as in the plain form.
    log_total = np.where(np.isneginf(top), np.nan, np.log(total))

    dh, dW, db = np.zeros_like(h), np.empty_like(W), np.empty_like(b)
    for block in blocks:
        d = np.exp((h @ W[:, block] + b[block] - top) - log_total)
        inside = np.flatnonzero((targets >= block.start) & (targets < block.stop))
        d[inside, targets[inside] - block.start] -= 1
        d /= d.dtype.type(normalizer)
        db[block] = d.sum(axis=0)
        d = factor(d, precision)
        dh += d @ W[:, block].T
        dW[:, block] = h.T @ d
    loss = float((log_total - (at_target - top)).sum(dtype=np.float64))
    return LinearLossGrads(loss / normalizer, dh, dW, db)


def sigmoid_cross_entropy(logits: FloatArray, labels: FloatArray, *, normalizer: float) -> LossGrad:
    e = np.exp(-np.abs(logits))  # of what is not above 0: nothing overflows
    sigmoid = np.where(logits >= 0, logits.dtype.type(1), e) / (1 + e)
    dlogits = (sigmoid - labels) / logits.dtype.type(normalizer)
    losses = (np.maximum(logits, 0) - logits * labels).astype(np.float64) + np.log1p(e)
    return LossGrad(float(losses.sum() / normalizer), dlogits)


def mean_squared_error(y: FloatArray, t: FloatArray, *, normalizer: float) -> SquaredErrorGrad:
    difference = y - t
    loss = np.square(difference, dtype=np.float64).sum() / normalizer
    return SquaredErrorGrad(float(loss), difference * y.dtype.type(2 / normalizer))
