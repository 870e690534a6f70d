"""Skip-gram pairs and word2vec's learning rules: the definition. The draws are those of `fastlstm.contract`.

Mikolov et al. (2013), "Distributed representations of words and phrases and their compositionality". CBOW:
Mikolov et al. (2013), "Efficient estimation of word representations in vector space"; with divided steps Irsoy, Benton,
Stratos (2021), "Corrected CBOW performs as well as skip-gram".
"""

from __future__ import annotations

import numpy as np

from fastlstm.backends.numpy.lstm import sigmoid
from fastlstm.backends.numpy.sampling import alias_draws, uniforms
from fastlstm.contract import BoolArray, FloatArray, IntArray, SkipgramPairs


def subsample(ids: IntArray, keep: FloatArray, *, seed: int) -> IntArray:
    kept = ids < 0
    kept[~kept] = uniforms(seed, 0, len(ids))[~kept] < keep[ids[~kept]]
    return np.asarray(ids[kept])


def _neighbours(ids: IntArray, window: int, start: int, stop: int, seed: int) -> tuple[IntArray, BoolArray]:
    """Positions left to right, 2 window or 2 L of them for each center, and which of them are neighbours."""
    center = np.arange(start, stop)[:, None]
    reach = 1 + (uniforms(seed, start, stop - start) * window).astype(np.int64)[:, None]
    farthest = min(window, len(ids))
    offset = np.array([o for o in range(-farthest, farthest + 1) if o], np.int64)
    place = center + offset
    inside = (np.abs(offset) <= reach) & (place >= 0) & (place < len(ids))
    place = place.clip(0, max(len(ids) - 1, 0))
    sentence = np.cumsum(ids < 0)
    return place, inside & (sentence[place] == sentence[center]) & (ids[place] >= 0) & (ids[center] >= 0)


def skipgram_counts(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> IntArray:
    counts: IntArray = _neighbours(ids, window, start, stop, seed)[1].sum(axis=1, dtype=np.int64)
    return counts


def skipgram_pairs(ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> SkipgramPairs:
    place, counts = _neighbours(ids, window, start, stop, seed)
    return SkipgramPairs(np.repeat(ids[start:stop], counts.sum(axis=1)), ids[place[counts]])


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
    total = 0.0
    for m, (center, context) in enumerate(zip(centers.tolist(), contexts.tolist(), strict=True)):
        negatives = alias_draws(threshold, alias, uniforms(seed, m * num_sampled, num_sampled))
        loss, step = _learn(weights, vectors[center].copy(), context, negatives, lr)
        total += loss
        vectors[center] += step
    return total


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
    total = 0.0
    ends = np.cumsum(counts)
    for m, (center, count, end) in enumerate(zip(centers.tolist(), counts.tolist(), ends.tolist(), strict=True)):
        negatives = alias_draws(threshold, alias, uniforms(seed, m * num_sampled, num_sampled))
        words = contexts[end - count : end]
        loss, step = _learn(weights, vectors[words].mean(axis=0), center, negatives, lr)
        total += loss
        np.add.at(vectors, words, step / count if divide_step else step)  # a word that is there twice takes two steps
    return total


def _learn(weights: FloatArray, h: FloatArray, target: int, negatives: IntArray, lr: float) -> tuple[float, FloatArray]:
    """The weights take a step to tell the target from the negatives by h (E,); the loss, and the step for h (E,)."""
    classes = np.array([target, *negatives[negatives != target]])
    rows = weights[classes]
    scores = rows @ h
    is_true = np.arange(len(classes)) == 0
    of_wrong = np.where(is_true, -scores, scores)
    loss = float((np.maximum(of_wrong, 0) + np.log1p(np.exp(-np.abs(of_wrong)))).sum())
    gradient = sigmoid(scores) - is_true
    np.subtract.at(weights, classes, lr * np.outer(gradient, h))  # a class drawn twice takes both steps
    return loss, -lr * (gradient @ rows)
