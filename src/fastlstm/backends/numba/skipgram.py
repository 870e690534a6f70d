"""Skip-gram pairs and word2vec's rules, compiled by Numba. The definition is in ``backends/numpy/skipgram.py``.

All in one thread: each pair, or word of CBOW, sees what the one before has learned.
"""

from __future__ import annotations

import numpy as np

from fastlstm.backends.numba.candidates import GAMMA, alias_draw, uniform
from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.elementary import exp, log1p_to_one
from fastlstm.backends.numba.products import part
from fastlstm.backends.numba.reductions import dot
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs


@inner
def _draw(seed: np.uint64, j: int) -> float:
    """Draw j of a call."""
    return uniform(seed + (np.uint64(j) + np.uint64(1)) * GAMMA)


@kernel
def _subsample(ids: IntArray, keep: FloatArray, seed: np.uint64, kept: IntArray) -> int:
    count = 0
    for i in range(ids.size):
        if ids[i] < 0 or _draw(seed, i) < keep[ids[i]]:
            kept[count] = ids[i]
            count += 1
    return count


@inner
def _neighbours(ids: IntArray, window: int, i: int, seed: np.uint64) -> tuple[int, int]:
    """The first position, and the one behind the last."""
    if ids[i] < 0:
        return i, i + 1
    reach = 1 + np.int64(_draw(seed, i) * window)
    begin, end = i, i + 1
    while begin > 0 and i - begin < reach and ids[begin - 1] >= 0:
        begin -= 1
    while end < ids.size and end - i <= reach and ids[end] >= 0:
        end += 1
    return begin, end


@kernel
def _counts(ids: IntArray, window: int, start: int, seed: np.uint64, counts: IntArray) -> None:
    for k in range(counts.size):
        begin, end = _neighbours(ids, window, start + k, seed)
        counts[k] = end - begin - 1


@kernel
def _pairs(ids: IntArray, window: int, start: int, seed: np.uint64, counts: IntArray, pairs: IntArray) -> None:
    """pairs (2, M)."""
    m = 0
    for i in range(start, start + counts.size):
        begin, end = _neighbours(ids, window, i, seed)
        for k in range(begin, end):
            if k != i:
                pairs[0, m] = ids[i]
                pairs[1, m] = ids[k]
                m += 1


def subsample(ids: IntArray, keep: FloatArray, *, seed: int) -> IntArray:
    kept = np.empty(len(ids), np.int64)
    return kept[: _subsample(flat(ids), flat(keep), np.uint64(seed), kept)].copy()


def skipgram_counts(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> IntArray:
    counts = np.empty(stop - start, np.int64)
    _counts(flat(ids), window, start, np.uint64(seed), counts)
    return counts


def skipgram_pairs(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> SkipgramPairs:
    counts = skipgram_counts(ids, window=window, start=start, stop=stop, seed=seed)
    pairs = np.empty((2, counts.sum()), np.int64)
    _pairs(flat(ids), window, start, np.uint64(seed), counts, pairs)
    return SkipgramPairs(*pairs)


@inner
def _learn(
    weights: FloatArray, h: FloatArray, moved: FloatArray, classes: IntArray, steps: FloatArray, lr: float
) -> float:
    """A step of the weights to tell classes[0] from the others by h (E,); what h is to move by is added to moved."""
    real = weights.dtype.type
    E = h.size
    loss = 0.0
    for t in range(classes.size):
        steps[t] = 0
        if t > 0 and classes[t] == classes[0]:
            continue
        row = part(weights, classes[t] * E, E)
        steps[t] = dot(h, row)
        x = steps[t]
        tail = exp(-abs(x))
        sigmoid = (tail if x < 0 else real(1)) / (real(1) + tail)
        sign = -x if t == 0 else x
        loss += np.float64(log1p_to_one(tail) + max(sign, real(0)))
        steps[t] = real(lr) * ((real(1) if t == 0 else real(0)) - sigmoid)
        for j in range(E):
            moved[j] += steps[t] * row[j]
    for t in range(classes.size):
        row = part(weights, classes[t] * E, E)
        for j in range(E):
            row[j] += steps[t] * h[j]
    return loss


@kernel
def _update(
    vectors: FloatArray,
    weights: FloatArray,
    E: int,
    centers: IntArray,
    contexts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    lr: float,
    seed: np.uint64,
) -> float:
    """vectors and weights are flat."""
    classes = np.empty(num_sampled + 1, np.int64)
    steps = np.empty(num_sampled + 1, vectors.dtype)
    moved = np.empty(E, vectors.dtype)
    total = 0.0
    for m in range(centers.size):
        h = part(vectors, centers[m] * E, E)
        classes[0] = contexts[m]
        for k in range(num_sampled):
            classes[k + 1] = alias_draw(threshold, alias, _draw(seed, m * num_sampled + k))
        moved[:] = h
        total += _learn(weights, h, moved, classes, steps, lr)
        h[:] = moved
    return total


@kernel
def _cbow_update(
    vectors: FloatArray,
    weights: FloatArray,
    E: int,
    centers: IntArray,
    contexts: IntArray,
    counts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    lr: float,
    divide_step: bool,
    seed: np.uint64,
) -> float:
    """vectors and weights are flat."""
    real = vectors.dtype.type
    classes = np.empty(num_sampled + 1, np.int64)
    steps = np.empty(num_sampled + 1, vectors.dtype)
    mean = np.empty(E, vectors.dtype)
    moved = np.empty(E, vectors.dtype)
    total = 0.0
    start = 0
    for m in range(centers.size):
        classes[0] = centers[m]
        for k in range(num_sampled):
            classes[k + 1] = alias_draw(threshold, alias, _draw(seed, m * num_sampled + k))
        share = real(1) / real(counts[m])
        mean[:] = 0
        for i in range(start, start + counts[m]):
            row = part(vectors, contexts[i] * E, E)
            for j in range(E):
                mean[j] += share * row[j]
        moved[:] = 0
        total += _learn(weights, mean, moved, classes, steps, lr)
        by = share if divide_step else real(1)
        for i in range(start, start + counts[m]):
            row = part(vectors, contexts[i] * E, E)
            for j in range(E):
                row[j] += by * moved[j]
        start += counts[m]
    return total


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
    return _update(
        vectors.reshape(-1),
        weights.reshape(-1),
        vectors.shape[1],
        flat(centers),
        flat(contexts),
        flat(threshold),
        flat(alias),
        num_sampled,
        lr,
        np.uint64(seed),
    )


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
    return _cbow_update(
        vectors.reshape(-1),
        weights.reshape(-1),
        vectors.shape[1],
        flat(centers),
        flat(contexts),
        flat(counts),
        flat(threshold),
        flat(alias),
        num_sampled,
        lr,
        divide_step,
        np.uint64(seed),
    )
