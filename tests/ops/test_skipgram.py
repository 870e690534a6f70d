"""The skipgram family: pairs against a plain loop, subsampling against its law, learning against the gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, use_backend
from fastlstm.backends.numpy.sampling import uniforms
from fastlstm.contract import FloatArray
from fastlstm.testing import check_gradient

RNG = np.random.default_rng(0)
TEXT = np.where(RNG.random(300) < 0.1, -1, RNG.integers(0, 20, 300))


def test_pairs_are_those_of_a_plain_loop(backend: str) -> None:
    window, seed = 4, 99
    reach = 1 + np.floor(uniforms(seed, 0, len(TEXT)) * window).astype(int)
    wanted = []
    for i, word in enumerate(TEXT):
        for k in range(max(i - reach[i], 0), min(i + reach[i] + 1, len(TEXT))):
            if k != i and word >= 0 and (TEXT[min(i, k) : max(i, k) + 1] >= 0).all():
                wanted.append((word, TEXT[k]))
    with use_backend(backend):
        pairs = ops.skipgram_pairs(TEXT, window, seed=seed)
        counts = ops.skipgram_counts(TEXT, window, seed=seed)
    assert set(reach) == {1, 2, 3, 4}
    assert list(zip(*pairs, strict=True)) == wanted
    assert counts.sum() == len(wanted)


def test_pieces_of_a_text_are_the_pieces_of_its_pairs(backend: str) -> None:
    with use_backend(backend):
        whole = ops.skipgram_pairs(TEXT.astype(np.int32), 5, seed=3)
        counts = ops.skipgram_counts(TEXT, 5, seed=3)
        cuts = [0, 1, 50, 50, 299, 300]
        parts = [ops.skipgram_pairs(TEXT, 5, start=a, stop=b, seed=3) for a, b in itertools.pairwise(cuts)]
    for name in ("centers", "contexts"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert [len(part.centers) for part in parts] == [counts[a:b].sum() for a, b in itertools.pairwise(cuts)]


def test_every_reach_is_equally_likely() -> None:
    counts = ops.skipgram_counts(np.zeros(40_000, np.int64), 4, seed=8)[4:-4]
    of_reach = np.bincount(counts // 2, minlength=5)[1:]
    np.testing.assert_allclose(of_reach, len(counts) / 4, rtol=0.03)


def test_subsampling_follows_its_law(backend: str) -> None:
    keep = np.array([0.0, 0.1, 0.5, 1.0, 7.0])
    ids = np.tile([0, 1, -1, 2, 3, 4], 20_000)
    with use_backend(backend):
        kept = ops.subsample(ids, keep, seed=2**64 - 1)
        again = ops.subsample(ids, keep.astype(np.float32), seed=1)
    assert (kept == -1).sum() == 20_000
    counts = np.bincount(kept[kept >= 0], minlength=5)
    assert counts[[0, 3, 4]].tolist() == [0, 20_000, 20_000]
    np.testing.assert_allclose(counts[[1, 2]], [2_000, 10_000], atol=4 * np.sqrt(20_000 * 0.25))
    assert len(again) != len(kept)


def test_a_step_goes_against_the_gradient_of_its_pair(backend: str) -> None:
    V, E, K, lr = 6, 7, 8, 1e-2  # more negatives than words: repeats, and the context among them
    rng = np.random.default_rng(4)
    vectors, weights = rng.standard_normal((2, V, E))
    table = ops.UnigramTable(np.arange(1, V + 1))
    center, context = np.array([2]), np.array([5])
    drawn = ops.unigram_candidates(table, K, center, rng=np.random.default_rng(11)).sampled
    seed = int(np.random.default_rng(11).integers(0, 2**64, dtype=np.uint64))
    assert 5 in drawn
    assert len(set(drawn.tolist())) < K

    def loss(vectors: FloatArray, weights: FloatArray) -> float:
        h = vectors[2]
        negatives = drawn[drawn != 5]
        return float(np.logaddexp(0, -weights[5] @ h) + np.logaddexp(0, weights[negatives] @ h).sum())

    after = {"vectors": vectors.copy(), "weights": weights.copy()}
    with use_backend(backend):
        got = ops.negative_sampling_update(
            **after, centers=center, contexts=context, table=table, num_sampled=K, lr=lr, seed=seed
        )
    assert got == pytest.approx(loss(vectors, weights), rel=1e-12)
    before = {"vectors": vectors, "weights": weights}
    check_gradient(loss, before, {name: (before[name] - after[name]) / lr for name in before}, tolerance=1e-5)


@pytest.mark.parametrize("divide_step", [True, False])
def test_a_step_of_cbow_goes_against_the_gradient(backend: str, divide_step: bool) -> None:
    """Not divided, each of three neighbours takes three times the gradient of the word's loss."""
    V, E, K, lr = 6, 7, 8, 1e-2  # more negatives than words: repeats, and the word itself among them
    rng = np.random.default_rng(4)
    vectors, weights = rng.standard_normal((2, V, E))
    table = ops.UnigramTable(np.arange(1, V + 1))
    center, contexts = np.array([5]), np.array([2, 0, 2])  # one of them twice
    drawn = ops.unigram_candidates(table, K, center, rng=np.random.default_rng(11)).sampled
    seed = int(np.random.default_rng(11).integers(0, 2**64, dtype=np.uint64))
    assert 5 in drawn

    def loss(vectors: FloatArray, weights: FloatArray) -> float:
        h = (2 * vectors[2] + vectors[0]) / 3
        return float(np.logaddexp(0, -weights[5] @ h) + np.logaddexp(0, weights[drawn[drawn != 5]] @ h).sum())

    after = {"vectors": vectors.copy(), "weights": weights.copy()}
    options: dict[str, Any] = {"num_sampled": K, "lr": lr, "divide_step": divide_step, "seed": seed}
    with use_backend(backend):
        got = ops.cbow_update(**after, centers=center, contexts=contexts, counts=np.array([3]), table=table, **options)
    assert got == pytest.approx(loss(vectors, weights), rel=1e-12)
    grads = {"vectors": (vectors - after["vectors"]) / lr, "weights": (weights - after["weights"]) / lr}
    if not divide_step:
        grads["vectors"] /= 3
    check_gradient(loss, {"vectors": vectors, "weights": weights}, grads, tolerance=1e-5)


def test_cbow_of_one_neighbour_is_a_pair(backend: str) -> None:
    rng = np.random.default_rng(6)
    start = rng.standard_normal((2, 9, 20)).astype(np.float32)
    centers, contexts = rng.integers(0, 9, (2, 600))
    table = ops.UnigramTable(np.arange(1, 10))
    options: dict[str, Any] = {"table": table, "num_sampled": 3, "lr": 0.1, "seed": 7}
    pairs, words = start.copy(), start.copy()
    with use_backend(backend):
        loss = ops.negative_sampling_update(pairs[0], pairs[1], contexts, centers, **options)
        of_words = ops.cbow_update(words[0], words[1], centers, contexts, np.ones(600, np.int64), **options)
    assert of_words == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(words, pairs, rtol=1e-3, atol=1e-5)


def test_each_pair_sees_what_the_one_before_has_learned(backend: str) -> None:
    """The pairs of one call are calls of one pair each, but for the draws; with one word to draw, they are the same."""
    rng = np.random.default_rng(5)
    start = rng.standard_normal((2, 9, 20)).astype(np.float32)
    table = ops.UnigramTable((np.arange(9) == 4).astype(int))
    centers, contexts = rng.integers(0, 9, (2, 600))
    together, one_by_one = start.copy(), start.copy()
    options: dict[str, Any] = {"table": table, "num_sampled": 2, "lr": 0.1}
    with use_backend(backend):
        ops.negative_sampling_update(together[0], together[1], centers, contexts, seed=0, **options)
        for m in range(600):
            pair = centers[m : m + 1], contexts[m : m + 1]
            ops.negative_sampling_update(one_by_one[0], one_by_one[1], *pair, seed=m, **options)
    np.testing.assert_array_equal(together, one_by_one)


def test_nan_stays_nan(backend: str) -> None:
    vectors, weights = np.ones((2, 5, 3), np.float32)
    vectors[1, 1] = np.nan
    with use_backend(backend):
        loss = ops.negative_sampling_update(
            vectors, weights, np.array([1]), np.array([2]), ops.UnigramTable(np.ones(5)), lr=0.1, seed=0
        )
    assert np.isnan(loss)
    assert np.isnan(vectors[1]).all()
    assert np.isnan(weights[2]).all()
