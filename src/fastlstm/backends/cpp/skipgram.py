"""Word vectors: pairs in csrc/cpu/skipgram/pairs.cc, the learning rules in csrc/cpu/skipgram/skipgram.cc."""

from __future__ import annotations

import fastlstm._cpu as _cpu
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs


def subsample(ids: IntArray, keep: FloatArray, *, seed: int) -> IntArray:
    return _cpu.subsample(ids, keep, seed)


def skipgram_counts(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> IntArray:
    return _cpu.skipgram_counts(ids, window, start, stop, seed)


def skipgram_pairs(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> SkipgramPairs:
    return SkipgramPairs(*_cpu.skipgram_pairs(ids, window, start, stop, seed))


def negative_sampling_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    *,
    num_sampled: int,
    lr: float,
    seed: int,
) -> float:
    return _cpu.negative_sampling_update(vectors, weights, centers, contexts, threshold, alias, num_sampled, lr, seed)


def cbow_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    counts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    *,
    num_sampled: int,
    lr: float,
    divide_step: bool,
    seed: int,
) -> float:
    return _cpu.cbow_update(
        vectors, weights, centers, contexts, counts, threshold, alias, num_sampled, lr, divide_step, seed
    )
