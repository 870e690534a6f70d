"""Word vectors: pairs in csrc/cpu/skipgram/pairs.cc, the learning rule in csrc/cpu/skipgram/skipgram.cc."""

from __future__ import annotations

import fastlstm._cpu as _cpu

# No kernel of CBOW is in the extension yet: the definition, a word after the other.
from fastlstm.backends.numpy.skipgram import cbow_update
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs

__all__ = ["cbow_update", "negative_sampling_update", "skipgram_counts", "skipgram_pairs", "subsample"]


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
