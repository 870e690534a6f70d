"""Losses over sampled classes, compiled by Numba. The definition is in ``backends/numpy/sampling.py``.

A loss is two kernels: one for rows of the batch (logits, loss, their gradient, dinputs), one for columns of the
weights' gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba.candidates import (
    alias_table,
    log_uniform_candidates,
    log_uniform_expected_count,
    unigram_candidates,
)
from fastlstm.backends.numba.compiling import flat, inner, kernel, unnamed
from fastlstm.backends.numba.elementary import exp, log1p_to_one
from fastlstm.backends.numba.embedding import runs_of
from fastlstm.backends.numba.products import (
    Rows,
    packed,
    panel_columns,
    part,
    product,
    tile_scratch,
    transpose,
)
from fastlstm.backends.numba.reductions import dot, largest, new_lanes, total
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.backends.numpy.sampling import REMOVED
from fastlstm.contract import (
    FloatArray,
    IntArray,
    RowGrad,
    SampledLogitsGrads,
    SampledLoss,
    SampledLossKind,
)

__all__ = [
    "alias_table",
    "log_uniform_candidates",
    "log_uniform_expected_count",
    "sampled_logits_backward",
    "sampled_logits_forward",
    "sampled_loss",
    "unigram_candidates",
]

# How a kernel is told the loss.
_KINDS: dict[SampledLossKind, int] = {"sigmoid": 0, "softmax": 1}
_SIGMOID = _KINDS["sigmoid"]

_ROWS_AT_ONCE = 64

_LOSS_COST = 2  # products of the logits' size in `_loss`


_Sizes = tuple[int, int, int, int]  # B, K, S, E


class _ForwardArrays(NamedTuple):
    """All arrays are flat; biases and both counts may be empty."""

    weights: FloatArray
    biases: FloatArray
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray
    true_count: FloatArray
    sampled_count: FloatArray


class _LossArrays(NamedTuple):
    """The results, flat: losses (B,), and the gradients of their mean by the logits (B, K + S) and inputs (B, E)."""

    losses: FloatArray
    dlogits: FloatArray
    dinputs: FloatArray


class _WeightArrays(NamedTuple):
    """All arrays are flat; dweights (U, E) and dbiases (U,) are results.

    Segment u of `places` makes row u: a place below B K is a class of some row of the batch, the others are sampled.
    """

    inputs: FloatArray
    dlogits: FloatArray
    places: IntArray
    starts: IntArray
    dweights: FloatArray
    dbiases: FloatArray


@inner
def _gathered(weights: FloatArray, E: int, ids: IntArray) -> FloatArray:
    """The rows of weights (V, E) for ids, flat."""
    rows = np.empty(ids.size * E, weights.dtype)
    for s in range(ids.size):
        source, target = part(weights, ids[s] * E, E), part(rows, s * E, E)
        for j in range(E):
            target[j] = source[j]
    return rows


@inner
def _logits(
    first: int,
    last: int,
    sizes: _Sizes,
    arrays: _ForwardArrays,
    sampled_rows: FloatArray,
    remove_accidental_hits: bool,
    logits: FloatArray,
) -> None:
    """Rows first to last - 1 of the logits (B, K + S)."""
    _, K, S, E = sizes
    weights, biases, labels, inputs, sampled, true_count, sampled_count = arrays
    columns = K + S
    real = inputs.dtype.type
    removed = real(REMOVED)
    shift = np.zeros(S, inputs.dtype)
    for s in range(S):
        if biases.size:
            shift[s] += biases[sampled[s]]
        if sampled_count.size:
            shift[s] -= real(math.log(sampled_count[s]))
    for b in range(first, last):
        row = part(logits, b * columns, columns)
        x = part(inputs, b * E, E)
        for k in range(K):
            label = labels[b * K + k]
            row[k] = dot(x, part(weights, label * E, E))
            if biases.size:
                row[k] += biases[label]
            if true_count.size:
                row[k] -= real(math.log(true_count[b * K + k]))
        others = part(row, K, S)
        for s in range(S):
            others[s] = shift[s]
    product(
        Rows(inputs, first * E, E),
        last - first,
        E,
        packed(sampled_rows, E, S, True),
        S,
        Rows(logits, first * columns + K, columns),
        True,
        tile_scratch(inputs),
    )
    if remove_accidental_hits:
        for b in range(first, last):
            others = part(logits, b * columns + K, S)
            for k in range(K):
                label = labels[b * K + k]
                for s in range(S):
                    others[s] = removed if sampled[s] == label else others[s]


@inner
def _gradient_of_inputs(
    first: int,
    last: int,
    sizes: _Sizes,
    weights: FloatArray,
    labels: IntArray,
    sampled_rows: FloatArray,
    dlogits: FloatArray,
    dinputs: FloatArray,
) -> None:
    """Rows first to last - 1."""
    _, K, S, E = sizes
    columns = K + S
    dinputs_here = part(dinputs, first * E, (last - first) * E)
    dinputs_here[:] = 0
    for b in range(first, last):
        dx = part(dinputs, b * E, E)
        for k in range(K):
            w, factor = part(weights, labels[b * K + k] * E, E), dlogits[b * columns + k]
            for j in range(E):
                dx[j] += factor * w[j]
    product(
        Rows(dlogits, first * columns + K, columns),
        last - first,
        S,
        packed(sampled_rows, S, E, False),
        E,
        Rows(dinputs, first * E, E),
        True,
        tile_scratch(dinputs),
    )


@kernel
def _forward(
    first: int, last: int, sizes: _Sizes, arrays: _ForwardArrays, remove_accidental_hits: bool, logits: FloatArray
) -> None:
    _, _, _, E = sizes
    weights, _, _, _, sampled, _, _ = arrays
    rows = _gathered(weights, E, sampled)
    _logits(first, last, sizes, arrays, rows, remove_accidental_hits, logits)


@kernel
def _backward_inputs(
    first: int,
    last: int,
    sizes: _Sizes,
    true_rows: FloatArray,
    places: IntArray,
    sampled_rows: FloatArray,
    dlogits: FloatArray,
    dinputs: FloatArray,
) -> None:
    """true_rows (B K, E): the rows of the weights for the labels, as they were in the forward call; places: 0, 1 ..."""
    _gradient_of_inputs(first, last, sizes, true_rows, places, sampled_rows, dlogits, dinputs)


@inner
def _sigmoid_losses(logits: FloatArray, rows: int, num_true: int, losses: FloatArray) -> None:
    """Sum over the columns of -z log sigmoid(x) - (1 - z) log(1 - sigmoid(x)); the logits become sigmoid(x) - z.

    All rows go through each loop at once, for they are short.
    """
    zero, one, share = logits.dtype.type(0), logits.dtype.type(1), logits.dtype.type(1 / num_true)
    columns = logits.size // rows
    e, terms = np.empty(logits.size, logits.dtype), np.empty(logits.size, logits.dtype)
    for j in range(logits.size):
        e[j] = exp(-abs(logits[j]))
    for j in range(logits.size):
        terms[j] = (zero if logits[j] < zero else logits[j]) + log1p_to_one(e[j])
    for b in range(rows):
        for k in range(num_true):
            terms[b * columns + k] -= logits[b * columns + k] * share
        losses[b] = total(part(terms, b * columns, columns))
    for j in range(logits.size):
        logits[j] = (e[j] if logits[j] < zero else one) / (one + e[j])
    for b in range(rows):
        for k in range(num_true):
            logits[b * columns + k] -= share


@inner
def _softmax_loss(row: FloatArray, num_true: int, lanes: FloatArray) -> float:
    """Cross entropy of softmax(x) with 1 / num_true for each true column; the row becomes softmax(x) minus that."""
    one, share = row.dtype.type(1), row.dtype.type(1 / num_true)
    top = largest(row, lanes)
    below_top = (top - row[0]) * share
    for k in range(1, num_true):
        below_top += (top - row[k]) * share
    for j in range(row.size):
        row[j] = exp(row[j] - top)
    sum_of_exp = total(row)
    factor = one / sum_of_exp
    for j in range(row.size):
        row[j] *= factor
    for k in range(num_true):
        row[k] -= share
    return math.log(sum_of_exp) + below_top


@kernel
def _loss(
    first: int,
    last: int,
    sizes: _Sizes,
    arrays: _ForwardArrays,
    results: _LossArrays,
    remove_accidental_hits: bool,
    num_true: int,
    kind: int,
) -> None:
    """Rows first to last - 1 of the results."""
    B, K, S, E = sizes
    weights, _, labels, _, sampled, _, _ = arrays
    losses, dlogits, dinputs = results
    columns = K + S
    rows = _gathered(weights, E, sampled)
    _logits(first, last, sizes, arrays, rows, remove_accidental_hits, dlogits)
    lanes, share = new_lanes(dlogits), dlogits.dtype.type(1 / B)
    for b in range(first, last, _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, last - b)
        block, losses_here = part(dlogits, b * columns, size * columns), part(losses, b, size)
        if kind == _SIGMOID:
            _sigmoid_losses(block, size, num_true, losses_here)
        else:
            for r in range(size):
                losses_here[r] = _softmax_loss(part(block, r * columns, columns), num_true, lanes)
        for j in range(block.size):
            block[j] *= share
    _gradient_of_inputs(first, last, sizes, weights, labels, rows, dlogits, dinputs)


@kernel
def _weight_rows(first: int, last: int, sizes: _Sizes, arrays: _WeightArrays) -> None:
    """Columns first to last - 1 of the weights' gradient, and with the first of them the biases'."""
    B, K, S, E = sizes
    inputs, dlogits, places, starts, dweights, dbiases = arrays
    columns, width = K + S, last - first
    transposed = np.empty(columns * B, inputs.dtype)
    transpose(dlogits, 0, B, columns, transposed, 0, B)
    sampled_rows = np.zeros(S * width, inputs.dtype)
    own = np.empty(B * width, inputs.dtype)
    for b in range(B):
        source, target = part(inputs, b * E + first, width), part(own, b * width, width)
        for j in range(width):
            target[j] = source[j]
    product(
        Rows(transposed, K * B, B),
        S,
        B,
        packed(own, B, width, False),
        width,
        Rows(sampled_rows, 0, width),
        True,
        tile_scratch(inputs),
    )
    zero = inputs.dtype.type(0)
    for u in range(starts.size - 1):
        row, dbias = part(dweights, u * E + first, width), zero
        row[:] = 0
        for m in range(starts[u], starts[u + 1]):
            place = places[m]
            if place < B * K:
                factor, x = dlogits[place // K * columns + place % K], part(own, place // K * width, width)
                dbias += factor
                for j in range(width):
                    row[j] += factor * x[j]
            else:
                s = place - B * K
                addend = part(sampled_rows, s * width, width)
                for j in range(width):
                    row[j] += addend[j]
                if first == 0:
                    dbias += total(part(transposed, (K + s) * B, B))
        if first == 0:
            dbiases[u] = dbias


class _Tape(NamedTuple):
    """true_rows (B K, E), sampled_rows (S, E): what the weights were; all arrays are flat."""

    sizes: _Sizes
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray
    true_rows: FloatArray
    sampled_rows: FloatArray


def _forward_arrays(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
) -> _ForwardArrays:
    return _ForwardArrays(
        weights=flat(weights),
        biases=np.empty(0, weights.dtype) if biases is None else flat(biases),
        labels=flat(labels),
        inputs=flat(inputs),
        sampled=flat(sampled),
        true_count=np.empty(0) if true_expected_count is None else flat(true_expected_count),
        sampled_count=np.empty(0) if sampled_expected_count is None else flat(sampled_expected_count),
    )


def _weight_gradients(
    sizes: _Sizes, labels: IntArray, inputs: FloatArray, sampled: IntArray, dlogits: FloatArray
) -> tuple[RowGrad, RowGrad]:
    """Gradients of the weights and of the biases. All arrays are flat."""
    B, K, S, E = sizes
    indices, places, starts = runs_of(np.concatenate((labels, sampled)))
    dweights, dbiases = np.empty((len(indices), E), inputs.dtype), np.empty(len(indices), inputs.dtype)
    arrays = unnamed(_WeightArrays(inputs, dlogits, places, starts, dweights.reshape(-1), dbiases))
    over_blocks(
        lambda first, last: _weight_rows(first, last, sizes, arrays),
        E,
        B * (K + S) * E,
        multiple=panel_columns(inputs.itemsize),
    )
    return RowGrad(indices, dweights), RowGrad(indices.copy(), dbiases)


def sampled_logits_forward(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    *,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
) -> tuple[FloatArray, FloatArray, _Tape]:
    (B, K), S, E = labels.shape, len(sampled), weights.shape[1]
    sizes = B, K, S, E
    arrays = _forward_arrays(weights, biases, labels, inputs, sampled, true_expected_count, sampled_expected_count)
    logits = np.empty((B, K + S), weights.dtype)
    results = logits.reshape(-1)
    over_blocks(
        lambda first, last: _forward(first, last, sizes, unnamed(arrays), remove_accidental_hits, results),
        B,
        B * (K + S) * E,
    )
    is_true = np.zeros_like(logits)
    is_true[:, :K] = 1 / K
    true_rows, sampled_rows = (weights[ids].reshape(-1) for ids in (arrays.labels, arrays.sampled))
    return logits, is_true, _Tape(sizes, arrays.labels, arrays.inputs, arrays.sampled, true_rows, sampled_rows)


def sampled_logits_backward(saved: _Tape, *, dlogits: FloatArray) -> SampledLogitsGrads:
    sizes, labels, inputs, sampled, true_rows, sampled_rows = saved
    B, K, S, E = sizes
    places, dz = np.arange(B * K), flat(dlogits)
    dinputs = np.empty((B, E), inputs.dtype)
    results = dinputs.reshape(-1)
    over_blocks(
        lambda first, last: _backward_inputs(first, last, sizes, true_rows, places, sampled_rows, dz, results),
        B,
        B * (K + S) * E,
    )
    dweights, dbiases = _weight_gradients(sizes, labels, inputs, sampled, dz)
    return SampledLogitsGrads(dinputs, dweights, dbiases)


def sampled_loss(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    *,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
    num_true: int,
    loss: SampledLossKind,
) -> SampledLoss:
    (B, K), S, E = labels.shape, len(sampled), weights.shape[1]
    sizes = B, K, S, E
    arrays = _forward_arrays(weights, biases, labels, inputs, sampled, true_expected_count, sampled_expected_count)
    losses, dinputs = np.empty(B, weights.dtype), np.empty((B, E), weights.dtype)
    results = _LossArrays(losses, np.empty(B * (K + S), weights.dtype), dinputs.reshape(-1))
    given, kind = unnamed(arrays), _KINDS[loss]
    over_blocks(
        lambda first, last: _loss(first, last, sizes, given, unnamed(results), remove_accidental_hits, num_true, kind),
        B,
        _LOSS_COST * B * (K + S) * E,
    )
    dweights, dbiases = _weight_gradients(sizes, arrays.labels, arrays.inputs, arrays.sampled, results.dlogits)
    return SampledLoss(losses, dinputs, dweights, None if biases is None else dbiases)
