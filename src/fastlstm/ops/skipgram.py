"""Word vectors: pairs of words that stand near each other, and word2vec's learning rules.

Texts are ids (L,), int32 or int64; an id below 0 ends a sentence. Seeds are whole numbers from 0 to 2^64 - 1; equal
seeds give equal samples on every backend, and every position of a text has draws of its own, so that a text may be
worked through in pieces; of a longer text that is not at hand as a whole, ``first`` is the position of ids[0].
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import numpy as np

from fastlstm.backends import family_for
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs
from fastlstm.ops import checks, scalars
from fastlstm.ops.candidates import UnigramTable

_INT64 = np.dtype(np.int64)
_SPLITMIX_STEP = 0x9E3779B97F4A7C15  # from one draw of the generator of `fastlstm.contract` to the next


def subsample(ids: IntArray, keep: FloatArray, *, seed: int, first: int = 0) -> IntArray:
    """Leave out words at random.

    Parameters
    ----------
    ids : (L,) int32 or int64
        Those below 0 stay.
    keep : (V,) float32 or float64
        Probability that a word stays, by id. word2vec's for a word that is the share f of a text:
        sqrt(t / f) + t / f, with t from 1e-3 to 1e-5.
    seed, first : int

    Returns
    -------
    (K,) int64

    Raises
    ------
    IndexError
        An id is V or more.
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases", section 2.3, and their program.
    """
    text = _text(ids)
    keep = checks.float_array("keep", keep, 1)
    if len(text) and checks.largest(text) >= len(keep):
        raise IndexError(
            f"ids holds {checks.largest(text)}, expected at most {len(keep) - 1} (keep has V = {len(keep)})"
        )
    seed = _seed_from(seed, first)
    keep = keep.astype(np.float64, copy=False)
    return family_for(text, "skipgram").subsample(text, keep, seed=seed)


def skipgram_counts(
    ids: IntArray, window: int, *, start: int = 0, stop: int | None = None, seed: int, first: int = 0
) -> IntArray:
    """How many pairs `skipgram_pairs` makes of each word.

    Parameters
    ----------
    ids, window, start, stop, seed, first
        As in `skipgram_pairs`.

    Returns
    -------
    (stop - start,) int64
    """
    text, options = _checked_window(ids, window, start, stop, seed, first)
    return family_for(text, "skipgram").skipgram_counts(text, **options)


def skipgram_pairs(
    ids: IntArray, window: int, *, start: int = 0, stop: int | None = None, seed: int, first: int = 0
) -> SkipgramPairs:
    """Every word with its neighbours in the same sentence.

    Parameters
    ----------
    ids : (L,) int32 or int64
        A text; an id below 0 ends a sentence.
    window : int
        The farthest neighbour. Each word draws its own reach, from 1 to window.
    start, stop : int
        Only the words at these positions, L for no stop; their neighbours may stand outside.
    seed : int
        Pieces of one text with one seed are the pieces of its pairs.
    first : int

    Returns
    -------
    SkipgramPairs
        centers, contexts (M,) int64, in the order of the text.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Mikolov et al. (2013), "Efficient estimation of word representations in vector space", section 3.2.
    """
    text, options = _checked_window(ids, window, start, stop, seed, first)
    return family_for(text, "skipgram").skipgram_pairs(text, **options)


def negative_sampling_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    table: UnigramTable,
    *,
    num_sampled: int = 5,
    lr: float,
    seed: int,
) -> float:
    """word2vec's learning rule: stochastic gradient descent pair by pair, each pair with negatives of its own.

    The loss of a pair is softplus(-v.w) for its context's weights w and the sum of softplus(v.w) for its negatives'; a
    negative that is the context counts for nothing.

    Parameters
    ----------
    vectors, weights : (V, E) float32 or float64
        What the words are, and what predicts their neighbours. Changed in place; C-contiguous, sharing no memory.
    centers, contexts : (M,) int32 or int64
        The pairs, in the order in which they are learned.
    table : UnigramTable
        Of V classes, of which the negatives are drawn.
    num_sampled : int
        Negatives a pair.
    lr : float
        Learning rate.
    seed : int

    Returns
    -------
    float
        The mean of the pairs' losses, each before its step; 0.0 without pairs.

    Raises
    ------
    IndexError
        A center or a context lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit. Nothing is changed then.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases", equation 4.
    """
    update = _checked_update(vectors, weights, table, centers=centers, contexts=contexts)
    centers, contexts = update.ids
    checks.expect_shape("contexts", contexts, centers.shape, "= (M,), as centers")
    total = family_for(update.vectors, "skipgram").negative_sampling_update(
        update.vectors,
        update.weights,
        centers,
        contexts,
        update.threshold,
        update.alias,
        num_sampled=scalars.size("num_sampled", num_sampled),
        lr=scalars.finite("lr", lr),
        seed=scalars.seed("seed", seed),
    )
    return total / len(centers) if len(centers) else 0.0


def cbow_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    counts: IntArray,
    table: UnigramTable,
    *,
    num_sampled: int = 5,
    lr: float,
    divide_step: bool = False,
    seed: int,
) -> float:
    """word2vec's learning rule for continuous bags of words: the mean of a word's neighbours learns to tell the word.

    The loss of a word is softplus(-h.w) for its own weights w and the sum of softplus(h.w) for its negatives', h being
    the mean; a negative that is the word itself counts for nothing.

    Parameters
    ----------
    vectors, weights : (V, E) float32 or float64
        What the neighbours are, and what the words are told by. Changed in place; C-contiguous, sharing no memory.
    centers : (M,) int32 or int64
        The words, in the order in which they are learned.
    contexts : (P,) int32 or int64
        Their neighbours, of one word after those of the other. `skipgram_pairs` gives them, and `skipgram_counts` their
        numbers; words without any are to be left out.
    counts : (M,) int32 or int64
        How many neighbours each word has, at least 1, P in all.
    table : UnigramTable
        Of V classes, of which the negatives are drawn.
    num_sampled : int
        Negatives a word.
    lr : float
        Learning rate.
    divide_step : bool
        Whether a neighbour takes its share of the step of the mean, as gradient descent has it, or all of it, as
        word2vec and gensim do.
    seed : int

    Returns
    -------
    float
        The mean of the words' losses, each before its step; 0.0 without words.

    Raises
    ------
    IndexError
        A center or a context lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit. Nothing is changed then.

    References
    ----------
    Mikolov et al. (2013), "Efficient estimation of word representations in vector space", section 3.1; Irsoy, Benton,
    Stratos (2021), "Corrected CBOW performs as well as skip-gram", for the divided step.
    """
    update = _checked_update(vectors, weights, table, centers=centers, contexts=contexts, counts=counts)
    centers, contexts, counts = update.ids
    checks.expect_shape("counts", counts, centers.shape, "= (M,), as centers")
    if len(counts) and checks.smallest(counts) < 1:
        raise ValueError(f"counts holds {checks.smallest(counts)}, expected at least 1; leave words without any out")
    if sum(counts.tolist()) != len(contexts):
        raise ValueError(f"counts says {sum(counts.tolist())} contexts in all, but contexts has {len(contexts)}")
    total = family_for(update.vectors, "skipgram").cbow_update(
        update.vectors,
        update.weights,
        centers,
        contexts,
        counts,
        update.threshold,
        update.alias,
        num_sampled=scalars.size("num_sampled", num_sampled),
        lr=scalars.finite("lr", lr),
        divide_step=bool(divide_step),
        seed=scalars.seed("seed", seed),
    )
    return total / len(centers) if len(centers) else 0.0


class _Update(NamedTuple):
    """The checked arrays of a learning rule; ids int64."""

    vectors: FloatArray
    weights: FloatArray
    threshold: FloatArray
    alias: IntArray
    ids: list[IntArray]


def _checked_update(vectors: Any, weights: Any, table: Any, **ids: Any) -> _Update:
    """``ids``: centers, contexts and maybe counts, which are no ids."""
    names = " ".join(ids)
    checks.same_device(f"vectors weights {names}", vectors, weights, *ids.values())
    vectors = checks.changed_array("vectors", vectors)
    weights = checks.changed_array("weights", weights, vectors.dtype, "vectors")
    if vectors.ndim != 2:
        raise ValueError(f"vectors has shape {vectors.shape}, expected 2 axes")
    checks.expect_shape("weights", weights, vectors.shape, "= (V, E), as vectors")
    V = len(vectors)
    if not isinstance(table, UnigramTable):
        raise TypeError(f"table is {checks.describe(table)}; expected a UnigramTable of the words' counts")
    if len(table) != V:
        raise ValueError(f"table has {len(table)} classes, expected {V} = V for vectors (V, E)")
    if checks.overlapping((vectors, weights), ()):
        raise ValueError("vectors and weights share memory; both are changed, so they have to be two arrays")
    checked = [
        checks.int_ids(name, array, *((None, "") if name == "counts" else (V, f"{owner} has V = {{}} rows")))
        for (name, array), owner in zip(ids.items(), ("vectors", "weights", ""), strict=False)
    ]
    for name, array in (("vectors", vectors), ("weights", weights)):
        checks.expect_apart(name, array, names, *checked)
    _, threshold, alias = table.beside(vectors)
    return _Update(vectors, weights, threshold, alias, [array.astype(_INT64, copy=False) for array in checked])


def _text(ids: Any) -> IntArray:
    """A text as (L,) int64."""
    checks.require_integers("ids", ids)
    if ids.ndim != 1:
        raise ValueError(f"ids has shape {ids.shape}, expected (L,): one text")
    return checks.in_order(ids).astype(_INT64, copy=False)


class _Window(TypedDict):
    """The options of pairs, by the names that backends know them by."""

    window: int
    start: int
    stop: int
    seed: int


def _checked_window(ids: Any, window: Any, start: Any, stop: Any, seed: Any, first: Any) -> tuple[IntArray, _Window]:
    text = _text(ids)
    L = len(text)
    stop = L if stop is None else scalars.integer("stop", stop, 0)
    window, start = scalars.integer("window", window, 1), scalars.integer("start", start, 0)
    if not start <= stop <= L:
        raise ValueError(f"start is {start} and stop {stop}, expected 0 <= start <= stop <= {L} for a text of {L} ids")
    return text, {"window": window, "start": start, "stop": stop, "seed": _seed_from(seed, first)}


def _seed_from(seed: Any, first: Any) -> int:
    """The seed whose draw 0 is draw ``first`` of the given one."""
    steps = scalars.integer("first", first, 0) * _SPLITMIX_STEP
    return (scalars.seed("seed", seed) + steps) % 2**64
