"""EmbeddingDot, NegativeSamplingLoss and NCELoss: the book's numbers and draws, gradients, arrays that stay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from fastlstm import layers, ops
from fastlstm.contract import FloatArray, IntArray
from fastlstm.layers import EmbeddingDot, NCELoss, NegativeSamplingLoss, SampledSoftmaxLoss, UnigramSampler
from fastlstm.testing import check_gradient

V, E, N = 11, 5, 7
RNG = np.random.default_rng(0)
CORPUS = np.concatenate([np.arange(V), RNG.zipf(1.5, 300) % V])
W, H = RNG.standard_normal((V, E)), RNG.standard_normal((N, E))
B = RNG.standard_normal(V)
TARGET = RNG.integers(0, V, N)


def negatives_of_the_book(corpus: IntArray, target: IntArray, size: int, power: float = 0.75) -> IntArray:
    """As chapter 4 draws them: one call of numpy.random.choice a target, which may not be drawn."""
    counts = Counter(corpus.tolist())
    p = np.array([counts[i] for i in range(len(counts))], float) ** power
    p /= p.sum()
    rows = []
    for i in target:
        own = p.copy()
        own[i] = 0
        own /= own.sum()
        rows.append(np.random.choice(len(p), size=size, replace=False, p=own))  # noqa: NPY002
    return np.array(rows)


@pytest.mark.parametrize(("vocabulary", "size"), [(11, 5), (11, 10), (3, 1), (2000, 5), (50, 20)])
def test_the_sampler_draws_what_the_book_draws(vocabulary: int, size: int) -> None:
    rng = np.random.default_rng(vocabulary)
    corpus = np.concatenate([np.arange(vocabulary), rng.zipf(1.3, 20 * vocabulary) % vocabulary])
    sampler = UnigramSampler(corpus, 0.75, size)
    for seed in range(5):
        target = rng.integers(0, vocabulary, 100)
        np.random.seed(seed)  # noqa: NPY002
        wanted, after = negatives_of_the_book(corpus, target, size), np.random.rand()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        got = sampler.get_negative_sample(target)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, wanted)
        assert np.random.rand() == after  # noqa: NPY002, the generator stands where it would stand


def test_what_the_sampler_refuses() -> None:
    with pytest.raises(ValueError, match="corpus has ids up to 3, but 1 is not among them"):
        UnigramSampler([0, 2, 3], 0.75, 2)
    with pytest.raises(ValueError, match="sample_size is 3, expected less than the 3 different words"):
        NegativeSamplingLoss(np.ones((3, 2)), [0, 1, 2], sample_size=3)


def test_embedding_dot() -> None:
    layer = EmbeddingDot(W.copy())
    dW = layer.grads[0]
    idx, dout = np.array([3, 0, 3, 10, 3, 1, 1]), RNG.standard_normal(N)

    def loss(W: FloatArray, h: FloatArray) -> float:
        return float(EmbeddingDot(W).forward(h, idx) @ dout)

    np.testing.assert_allclose(layer.forward(H, idx), [h @ W[i] for h, i in zip(H, idx, strict=True)])
    for _ in range(2):  # overwritten, not added to
        layer.forward(H, idx)
        dh = layer.backward(dout)
    check_gradient(loss, {"W": W, "h": H}, {"W": dW, "h": dh})
    assert layer.grads[0] is dW


def test_negative_sampling_loss_is_the_books() -> None:
    """The sum over the target and its negatives of the batch's mean sigmoid cross entropy, and its gradient."""
    layer = NegativeSamplingLoss(W.copy(), CORPUS, power=0.75, sample_size=4)
    (param,), (dW,) = layer.params, layer.grads
    np.random.seed(7)  # noqa: NPY002
    negatives = negatives_of_the_book(CORPUS, TARGET, 4)

    def loss(W: FloatArray, h: FloatArray) -> float:
        total = np.log1p(np.exp(-(W[TARGET] * h).sum(axis=1))).mean()
        for column in negatives.T:
            total += np.log1p(np.exp((W[column] * h).sum(axis=1))).mean()
        return float(total)

    for _ in range(2):
        np.random.seed(7)  # noqa: NPY002
        got = layer.forward(H, TARGET)
        dh = layer.backward()
    assert got == pytest.approx(loss(W, H), rel=1e-12)
    check_gradient(loss, {"W": W, "h": H}, {"W": dW, "h": dh})
    assert layer.params[0] is param
    assert layer.grads[0] is dW
    np.testing.assert_allclose(layer.backward(2.0), 2 * dh)
    single = NegativeSamplingLoss(W.astype(np.float32), CORPUS)
    single.forward(H.astype(np.float32), TARGET.astype(np.int32))
    assert single.backward().dtype == np.float32


@pytest.mark.parametrize(("kind", "op"), [(NCELoss, "nce_loss"), (SampledSoftmaxLoss, "sampled_softmax_loss")])
def test_losses_that_share_their_sample(kind: Any, op: str) -> None:
    layer = kind(W.copy(), B.copy(), 4, rng=np.random.default_rng(3))
    params, grads = list(layer.params), list(layer.grads)
    rng = np.random.default_rng(3)
    for dout in (1.0, 3.0):
        candidates = ops.log_uniform_candidates(4, V, TARGET, rng=rng)
        wanted = getattr(ops, op)(W, B, TARGET, H, candidates)
        assert layer.forward(H, TARGET) == pytest.approx(wanted.loss.mean(), rel=1e-12)
        np.testing.assert_allclose(layer.backward(dout), dout * wanted.dinputs)
        for grad, rows in zip(layer.grads, (wanted.dweights, wanted.dbiases), strict=True):
            dense = np.zeros_like(grad)
            dense[rows.indices] = dout * rows.values
            np.testing.assert_allclose(grad, dense)
    assert all(a is b for a, b in zip([*layer.params, *layer.grads], [*params, *grads], strict=True))
    # More classes than half of the vocabulary: with repeats, instead of for ever.
    assert np.isfinite(kind(W, B, 64).forward(H, TARGET))


def test_backward_before_forward() -> None:
    for layer in (EmbeddingDot(W), NegativeSamplingLoss(W, CORPUS), NCELoss(W, B)):
        with pytest.raises(RuntimeError, match="backward was called before forward"):
            layer.backward(1.0)  # type: ignore[arg-type]
    assert {"EmbeddingDot", "NegativeSamplingLoss", "NCELoss"} <= set(layers.__all__)


def test_wrong_rows_and_targets_are_named_and_nothing_is_kept_of_them() -> None:
    dot, loss = EmbeddingDot(W.copy()), NegativeSamplingLoss(W.copy(), CORPUS)
    cases: list[tuple[Any, str, Any]] = [(dot, "idx", np.ones(N)), (loss, "target", 1)]
    for layer, ids, dout in cases:
        layer.forward(H, TARGET)
        wrong: list[tuple[Any, Any, str]] = [
            (H.tolist(), TARGET, "h is list"),
            (H.astype("float32"), TARGET, "h has dtype float32, but W has float64"),
            (H[:, 1:], TARGET, r"h has shape \(7, 4\), expected \(7, 5\)"),
            (H[1:], TARGET, rf"{ids} has shape \(7,\), expected \(6,\)"),
            (H, TARGET + V, "expected ids from 0 to 10"),
        ]
        for h, target, message in wrong:
            with pytest.raises((TypeError, ValueError, IndexError), match=message):
                layer.forward(h, target)
        assert layer.backward(dout).shape == (N, E)
    with pytest.raises(ValueError, match=r"dout has shape \(7, 1\), expected \(7,\)"):
        dot.backward(np.ones((N, 1)))
