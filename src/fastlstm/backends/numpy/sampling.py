"""Sampled classes and the losses over them: the definition. The draws are those of `fastlstm.contract.SamplingFamily`.

Semantics are TensorFlow's: its ``log_uniform_candidate_sampler``, ``_compute_sampled_logits`` and ``tf.nn.nce_loss``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastlstm.backends.numpy.embedding import embedding_backward_rows
from fastlstm.backends.numpy.lstm import sigmoid
from fastlstm.contract import (
    Candidates,
    FloatArray,
    IntArray,
    RowGrad,
    SampledLogitsGrads,
    SampledLoss,
    SampledLossKind,
)

# What TensorFlow adds to a logit that is to vanish: minus the largest float32, for float64 too.
REMOVED = -float(np.finfo(np.float32).max)

_LOG2_E = 1.4426950408889634
# log(2) in two parts; products of the first with whole numbers below 2^20 are exact.
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# 1/n! for n = 13, 12 ... 0
_EXP_TAYLOR = (
    1.6059043836821613e-10,
    2.08767569878681e-09,
    2.505210838544172e-08,
    2.755731922398589e-07,
    2.7557319223985893e-06,
    2.48015873015873e-05,
    0.0001984126984126984,
    0.001388888888888889,
    0.008333333333333333,
    0.041666666666666664,
    0.16666666666666666,
    0.5,
    1.0,
    1.0,
)

# --------------------------------------------------------------------------------------------
# Draws
# --------------------------------------------------------------------------------------------


def uniforms(seed: int, start: int, count: int) -> FloatArray:
    """Draws start, start + 1 ... of the generator SplitMix64 (Steele, Lea, Flood 2014), in [0, 1)."""
    j = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(seed) + j * np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around without a warning
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def exp_exactly(x: FloatArray) -> FloatArray:
    """exp(x) for 0 <= x < 700 from operations that round the same everywhere; libraries' own differ in the last bit."""
    k = np.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.full_like(r, _EXP_TAYLOR[0])
    for coefficient in _EXP_TAYLOR[1:]:
        total = total * r + coefficient
    return np.asarray(np.ldexp(total, k.astype(np.int64)))


def _first_draws(draw: Callable[[int, int], IntArray], num_sampled: int, unique: bool) -> tuple[IntArray, int]:
    """The sample, and the number of draws it took; draw(start, count) makes draws start, start + 1 ..."""
    if not unique:
        return draw(0, num_sampled), num_sampled
    chosen: dict[int, None] = {}
    num_tries = 0
    while True:
        for value in draw(num_tries, 2 * num_sampled).tolist():
            num_tries += 1
            chosen[value] = None
            if len(chosen) == num_sampled:
                return np.array(list(chosen), dtype=np.int64), num_tries


# --------------------------------------------------------------------------------------------
# Candidates
# --------------------------------------------------------------------------------------------


def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, *, unique: bool, log_range: float, seed: int
) -> Candidates:
    def draw(start: int, count: int) -> IntArray:
        return (exp_exactly(uniforms(seed, start, count) * log_range).astype(np.int64) - 1) % range_max

    sampled, num_tries = _first_draws(draw, num_sampled, unique)
    true_count, sampled_count = (
        log_uniform_expected_count(classes, log_range=log_range, num_tries=num_tries, num_sampled=num_sampled)
        for classes in (true_classes, sampled)
    )
    return Candidates(sampled, true_count, sampled_count, num_tries)


def log_uniform_expected_count(classes: IntArray, *, log_range: float, num_tries: int, num_sampled: int) -> FloatArray:
    return _expected_count(np.log1p(1 / (classes + 1.0)) / log_range, num_tries, num_sampled)


def alias_table(scaled: FloatArray) -> tuple[FloatArray, IntArray]:
    threshold = scaled.tolist()
    alias = list(range(len(threshold)))
    low = [v for v, t in enumerate(threshold) if t < 1]
    high = [v for v, t in enumerate(threshold) if not t < 1]
    while low and high:
        short, long = low.pop(), high.pop()
        alias[short] = long
        threshold[long] = threshold[long] + threshold[short] - 1
        (low if threshold[long] < 1 else high).append(long)
    for v in low + high:
        threshold[v] = 1.0
    return np.array(threshold), np.array(alias, dtype=np.int64)


def alias_draws(threshold: FloatArray, alias: IntArray, u: FloatArray) -> IntArray:
    """Classes from numbers u in [0, 1), with the table that `alias_table` made."""
    x = u * len(threshold)
    column = x.astype(np.int64)
    return np.where(x - column < threshold[column], column, alias[column])


def unigram_candidates(
    probabilities: FloatArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    true_classes: IntArray,
    *,
    unique: bool,
    seed: int,
) -> Candidates:
    def draw(start: int, count: int) -> IntArray:
        return alias_draws(threshold, alias, uniforms(seed, start, count))

    sampled, num_tries = _first_draws(draw, num_sampled, unique)
    true_count, sampled_count = (
        _expected_count(probabilities[classes], num_tries, num_sampled) for classes in (true_classes, sampled)
    )
    return Candidates(sampled, true_count, sampled_count, num_tries)


def _expected_count(p: FloatArray, num_tries: int, num_sampled: int) -> FloatArray:
    """TensorFlow's: exact without unique; with it, as if the number of tries were fixed: 1 - (1 - p)^num_tries."""
    if num_tries == num_sampled:
        return p * num_sampled
    with np.errstate(divide="ignore"):  # p = 1 gives log(0) and then exactly 1
        return np.asarray(-np.expm1(num_tries * np.log1p(-p)))


# --------------------------------------------------------------------------------------------
# Logits and losses
# --------------------------------------------------------------------------------------------


class _Tape(NamedTuple):
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray
    true_w: FloatArray
    sampled_w: FloatArray


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
    B, K = labels.shape
    true_w, sampled_w = weights[labels], weights[sampled]
    true = (inputs[:, None, :] * true_w).sum(axis=2)
    other = inputs @ sampled_w.T
    if biases is not None:
        true += biases[labels]
        other += biases[sampled]
    if true_expected_count is not None and sampled_expected_count is not None:
        true -= np.log(true_expected_count).astype(true.dtype)
        other -= np.log(sampled_expected_count).astype(other.dtype)
    if remove_accidental_hits:
        other[(labels[:, :, None] == sampled).any(axis=1)] = REMOVED
    is_true = np.concatenate([np.full((B, K), 1 / K, true.dtype), np.zeros_like(other)], axis=1)
    return np.concatenate([true, other], axis=1), is_true, _Tape(labels, inputs, sampled, true_w, sampled_w)


def sampled_logits_backward(saved: _Tape, *, dlogits: FloatArray) -> SampledLogitsGrads:
    labels, inputs, sampled, true_w, sampled_w = saved
    K = labels.shape[1]
    dtrue, dother = dlogits[:, :K], dlogits[:, K:]
    dinputs = (dtrue[:, :, None] * true_w).sum(axis=1) + dother @ sampled_w
    ids = np.concatenate([labels.reshape(-1), sampled])
    dtrue_w = (dtrue[:, :, None] * inputs[:, None, :]).reshape(-1, inputs.shape[1])
    dweights = embedding_backward_rows(ids, np.concatenate([dtrue_w, dother.T @ inputs]))
    dbiases = embedding_backward_rows(ids, np.concatenate([dtrue.reshape(-1), dother.sum(axis=0)])[:, None])
    return SampledLogitsGrads(dinputs, dweights, RowGrad(dbiases.indices, dbiases.values[:, 0]))


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
    logits, _, saved = sampled_logits_forward(
        weights,
        biases,
        labels,
        inputs,
        sampled,
        true_expected_count=true_expected_count,
        sampled_expected_count=sampled_expected_count,
        remove_accidental_hits=remove_accidental_hits,
    )
    is_true = np.zeros_like(logits)
    is_true[:, :num_true] = 1 / num_true
    per_row, dlogits = (_sigmoid_loss if loss == "sigmoid" else _softmax_loss)(logits, is_true)
    dlogits /= max(len(inputs), 1)
    dinputs, dweights, dbiases = sampled_logits_backward(saved, dlogits=dlogits)
    return SampledLoss(per_row, dinputs, dweights, None if biases is None else dbiases)


def _sigmoid_loss(logits: FloatArray, is_true: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum over the columns of -z log sigmoid(x) - (1 - z) log(1 - sigmoid(x)), and its gradient."""
    of_columns = np.maximum(logits, 0) - logits * is_true + np.log1p(np.exp(-np.abs(logits)))
    return of_columns.sum(axis=1), sigmoid(logits) - is_true


def _softmax_loss(logits: FloatArray, is_true: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cross entropy of softmax(x) with the labels z, which sum to 1, and its gradient."""
    top = logits.max(axis=1, keepdims=True)
    shifted = np.exp(logits - top)
    total = shifted.sum(axis=1, keepdims=True)
    # Sampled columns have the label 0, but 0 times a removed logit may be NaN.
    below_top = np.where(is_true > 0, top - logits, 0) * is_true
    return np.log(total)[:, 0] + below_top.sum(axis=1), shifted / total - is_true
