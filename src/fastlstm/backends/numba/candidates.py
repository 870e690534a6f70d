"""Draws of classes and their expected counts, compiled by Numba. Their definition: ``backends/numpy/sampling.py``."""

from __future__ import annotations

import math

import numpy as np

from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numpy.sampling import _EXP_TAYLOR, _LN2_HIGH, _LN2_LOW, _LOG2_E
from fastlstm.contract import Candidates, FloatArray, IntArray

# The steps and constants are those of the definition: the draws must be the same bits.
GAMMA, _FIRST, _SECOND = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@inner
def uniform(state: np.uint64) -> float:
    """The draw of SplitMix64 in this state, in [0, 1)."""
    z = (state ^ (state >> _SHIFT_30)) * _FIRST
    z = (z ^ (z >> _SHIFT_27)) * _SECOND
    return np.float64((z ^ (z >> _SHIFT_31)) >> _SHIFT_11) * 2.0**-53


@inner
def _exp_exactly(x: float) -> float:
    """exp(x) for 0 <= x < 700, in the steps of the definition."""
    k = math.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = _EXP_TAYLOR[0]
    for coefficient in _EXP_TAYLOR[1:]:
        total = total * r + coefficient
    return math.ldexp(total, k)


@inner
def _hash_table(count: int) -> IntArray:
    """Room for count numbers from 0 on, at most half full."""
    size = 4
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int64)


@inner
def _is_new(table: IntArray, value: np.int64) -> bool:
    """Whether value is not in the table yet; it is then put there."""
    slot = value & (table.size - 1)
    while table[slot] != -1:
        if table[slot] == value:
            return False
        slot = (slot + 1) & (table.size - 1)
    table[slot] = value
    return True


@inner
def _expected_count(p: float, num_tries: int, num_sampled: int) -> float:
    """TensorFlow's: exact without unique; with it, as if the number of tries were fixed: 1 - (1 - p)^num_tries."""
    if num_tries == num_sampled:
        return p * num_sampled
    return -math.expm1(num_tries * math.log1p(-p))


@inner
def _log_uniform_counts(
    classes: IntArray, log_range: float, num_tries: int, num_sampled: int, counts: FloatArray
) -> None:
    for m in range(classes.size):
        p = math.log1p(1 / (classes[m] + 1.0)) / log_range
        counts[m] = _expected_count(p, num_tries, num_sampled)


@kernel
def _log_uniform_expected_count(
    classes: IntArray, log_range: float, num_tries: int, num_sampled: int, counts: FloatArray
) -> None:
    _log_uniform_counts(classes, log_range, num_tries, num_sampled, counts)


@kernel
def _log_uniform(
    seed: np.uint64,
    range_max: int,
    log_range: float,
    unique: bool,
    sampled: IntArray,
    true_classes: IntArray,
    true_count: FloatArray,
    sampled_count: FloatArray,
) -> int:
    """Fill sampled and both counts; returns the number of draws."""
    table = _hash_table(sampled.size if unique else 0)
    state, found, num_tries = seed, 0, 0
    while found < sampled.size:
        state += GAMMA
        num_tries += 1
        value = (np.int64(_exp_exactly(uniform(state) * log_range)) - 1) % range_max
        if not unique or _is_new(table, value):
            sampled[found] = value
            found += 1
    _log_uniform_counts(true_classes, log_range, num_tries, sampled.size, true_count)
    _log_uniform_counts(sampled, log_range, num_tries, sampled.size, sampled_count)
    return num_tries


@inner
def alias_draw(threshold: FloatArray, alias: IntArray, u: float) -> np.int64:
    """The class for a number u in [0, 1)."""
    x = u * threshold.size
    column = np.int64(x)
    return column if x - column < threshold[column] else alias[column]


@kernel
def _unigram(
    seed: np.uint64,
    probabilities: FloatArray,
    threshold: FloatArray,
    alias: IntArray,
    unique: bool,
    sampled: IntArray,
    true_classes: IntArray,
    true_count: FloatArray,
    sampled_count: FloatArray,
) -> int:
    """Fill sampled and both counts; returns the number of draws."""
    table = _hash_table(sampled.size if unique else 0)
    state, found, num_tries = seed, 0, 0
    while found < sampled.size:
        state += GAMMA
        num_tries += 1
        value = alias_draw(threshold, alias, uniform(state))
        if not unique or _is_new(table, value):
            sampled[found] = value
            found += 1
    for m in range(true_classes.size):
        true_count[m] = _expected_count(probabilities[true_classes[m]], num_tries, sampled.size)
    for m in range(sampled.size):
        sampled_count[m] = _expected_count(probabilities[sampled[m]], num_tries, sampled.size)
    return num_tries


def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, *, unique: bool, log_range: float, seed: int
) -> Candidates:
    classes = flat(true_classes)
    sampled, true_count, sampled_count = np.empty(num_sampled, np.int64), np.empty(classes.size), np.empty(num_sampled)
    num_tries = _log_uniform(np.uint64(seed), range_max, log_range, unique, sampled, classes, true_count, sampled_count)
    return Candidates(sampled, true_count, sampled_count, num_tries)


def log_uniform_expected_count(classes: IntArray, *, log_range: float, num_tries: int, num_sampled: int) -> FloatArray:
    counts = np.empty(classes.shape)
    _log_uniform_expected_count(flat(classes), log_range, num_tries, num_sampled, counts.reshape(-1))
    return counts


@kernel
def _fill_alias_table(threshold: FloatArray, alias: IntArray) -> None:
    """threshold holds the scaled probabilities; Vose's method in the order that the protocol fixes."""
    V = threshold.size
    low, high = np.empty(V, np.int64), np.empty(V, np.int64)
    lows, highs = 0, 0
    for v in range(V):
        alias[v] = v
        if threshold[v] < 1:
            low[lows] = v
            lows += 1
        else:
            high[highs] = v
            highs += 1
    while lows and highs:
        lows, highs = lows - 1, highs - 1
        short, long = low[lows], high[highs]
        alias[short] = long
        threshold[long] = threshold[long] + threshold[short] - 1
        if threshold[long] < 1:
            low[lows] = long
            lows += 1
        else:
            high[highs] = long
            highs += 1
    for v in low[:lows]:
        threshold[v] = 1
    for v in high[:highs]:
        threshold[v] = 1


def alias_table(scaled: FloatArray) -> tuple[FloatArray, IntArray]:
    threshold, alias = scaled.copy(), np.empty(len(scaled), np.int64)
    _fill_alias_table(threshold, alias)
    return threshold, alias


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
    classes = flat(true_classes)
    sampled, true_count, sampled_count = np.empty(num_sampled, np.int64), np.empty(classes.size), np.empty(num_sampled)
    num_tries = _unigram(
        np.uint64(seed),
        flat(probabilities),
        flat(threshold),
        flat(alias),
        unique,
        sampled,
        classes,
        true_count,
        sampled_count,
    )
    return Candidates(sampled, true_count, sampled_count, num_tries)
