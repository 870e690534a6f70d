"""Sampled classes: the draws in csrc/cpu/sampling/candidates.cc, logits and losses in csrc/cpu/sampling/sampling.cc."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlstm._cpu as _cpu
from fastlstm._cpu import alias_table
from fastlstm.contract import (
    Candidates,
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


def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, *, unique: bool, log_range: float, seed: int
) -> Candidates:
    return Candidates(*_cpu.log_uniform_candidates(num_sampled, range_max, true_classes, unique, log_range, seed))


def log_uniform_expected_count(classes: IntArray, *, log_range: float, num_tries: int, num_sampled: int) -> FloatArray:
    return _cpu.log_uniform_expected_count(classes, log_range, num_tries, num_sampled)


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
    return Candidates(
        *_cpu.unigram_candidates(probabilities, threshold, alias, num_sampled, true_classes, unique, seed)
    )


def sampled_logits_forward(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    *,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
) -> tuple[FloatArray, FloatArray, Any]:
    logits, tape = _cpu.sampled_logits_forward(
        weights,
        biases,
        labels,
        inputs,
        sampled,
        true_expected_count,
        sampled_expected_count,
        remove_accidental_hits,
    )
    K = labels.shape[1]
    is_true = np.zeros_like(logits)
    is_true[:, :K] = 1 / K
    return logits, is_true, tape


def sampled_logits_backward(saved: Any, *, dlogits: FloatArray) -> SampledLogitsGrads:
    dinputs, indices, dweights, dbiases = saved.backward(dlogits)
    return SampledLogitsGrads(dinputs, RowGrad(indices, dweights), RowGrad(indices, dbiases))


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
    per_row, dinputs, indices, dweights, dbiases = _cpu.sampled_loss(
        weights,
        biases,
        labels,
        inputs,
        sampled,
        true_expected_count,
        sampled_expected_count,
        remove_accidental_hits,
        num_true,
        loss == "softmax",
    )
    return SampledLoss(
        per_row, dinputs, RowGrad(indices, dweights), None if dbiases is None else RowGrad(indices, dbiases)
    )
