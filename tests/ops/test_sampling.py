"""The sampling family: samplers against their exact laws, logits and losses against loops, differences and PyTorch."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, use_backend
from fastlstm.backends import load_family
from fastlstm.backends.numpy import sampling as definition
from fastlstm.contract import TOLERANCE, Candidates, FloatArray, IntArray, RowGrad, SampledLoss
from fastlstm.testing import check_gradient

NO_IDS = np.zeros(0, np.int64)
FLOAT32_MAX = float(np.finfo(np.float32).max)


@pytest.fixture(autouse=True)
def _definition() -> Iterator[None]:
    """Tests that do not say which backend they run on are of the definition."""
    with use_backend("numpy"):
        yield


def log_uniform_law(range_max: int) -> FloatArray:
    v = np.arange(range_max)
    return np.asarray(np.log((v + 2) / (v + 1)) / np.log(range_max + 1))


def assert_follows(observed: Iterable[float], expected: Iterable[float]) -> None:
    """Pearson's chi-square: a sample of the law is refused once in ten thousand (Wilson and Hilferty's quantile)."""
    got, want = np.array(list(observed), float), np.array(list(expected), float)
    assert want.min() > 5, "too few expected for the chi-square law"
    df = len(want) - 1
    limit = df * (1 - 2 / (9 * df) + 3.72 * math.sqrt(2 / (9 * df))) ** 3
    assert ((got - want) ** 2 / want).sum() < limit


# --------------------------------------------------------------------------------------------
# Draws
# --------------------------------------------------------------------------------------------


def test_the_generator_is_splitmix64() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # Vigna's splitmix64.c, state 0
    np.testing.assert_array_equal(definition.uniforms(0, 0, 3), [(z >> 11) * 2.0**-53 for z in published])
    np.testing.assert_array_equal(definition.uniforms(2**64 - 1, 3, 5), definition.uniforms(2**64 - 1, 0, 8)[3:])


def test_exp_from_exactly_rounded_steps_is_exp() -> None:
    x = np.concatenate([[0.0], np.random.default_rng(0).uniform(0, 44, 10_000)])
    np.testing.assert_allclose(definition.exp_exactly(x), np.exp(x), rtol=4e-16)
    assert definition.exp_exactly(np.zeros(1))[0] == 1.0


# --------------------------------------------------------------------------------------------
# Log-uniform candidates
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("range_max", [2, 50, 1000])
def test_log_uniform_follows_its_law(backend: str, range_max: int) -> None:
    with use_backend(backend):
        rng = np.random.default_rng(range_max)
        sampled = ops.log_uniform_candidates(200_000, range_max, NO_IDS, unique=False, rng=rng).sampled
    assert_follows(np.bincount(sampled, minlength=range_max), 200_000 * log_uniform_law(range_max))


def test_log_uniform_calls_are_independent_of_each_other() -> None:
    rng = np.random.default_rng(5)
    pairs = np.array([ops.log_uniform_candidates(2, 4, NO_IDS, unique=False, rng=rng).sampled for _ in range(10_000)])
    p = log_uniform_law(4)
    in_one_call = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16)
    across_calls = np.bincount(pairs[:-1, 1] * 4 + pairs[1:, 0], minlength=16)
    assert_follows(in_one_call, 10_000 * np.outer(p, p).reshape(-1))
    assert_follows(across_calls, 9_999 * np.outer(p, p).reshape(-1))


def test_unique_log_uniform_follows_its_law() -> None:
    """The pair (a, b) has the probability p_a p_b / (1 - p_a); k tries have the sum of p_a^(k-1) (1 - p_a)."""
    rng, calls = np.random.default_rng(6), 20_000
    drawn = [ops.log_uniform_candidates(2, 4, NO_IDS, rng=rng) for _ in range(calls)]
    p = log_uniform_law(4)
    pairs = list(itertools.permutations(range(4), 2))
    got = Counter(tuple(c.sampled.tolist()) for c in drawn)
    assert sum(got[pair] for pair in pairs) == calls
    assert_follows([got[pair] for pair in pairs], [calls * p[a] * p[b] / (1 - p[a]) for a, b in pairs])
    tries = Counter(min(c.num_tries, 6) for c in drawn)
    exactly = [float((p ** (k - 1) * (1 - p)).sum()) for k in range(2, 6)]
    assert_follows([tries[k] for k in range(2, 7)], [calls * q for q in (*exactly, 1 - sum(exactly))])


def test_unique_gives_every_class_when_all_are_asked_for(backend: str) -> None:
    with use_backend(backend):
        drawn = ops.log_uniform_candidates(300, 300, NO_IDS, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(np.sort(drawn.sampled), np.arange(300))
    assert drawn.num_tries > 300


@pytest.mark.parametrize(("num_sampled", "range_max"), [(5, 10), (64, 50_000), (40, 40)])
def test_unique_skips_repeats_in_the_stream_of_draws(backend: str, num_sampled: int, range_max: int) -> None:
    with use_backend(backend):
        stream = ops.log_uniform_candidates(5000, range_max, NO_IDS, unique=False, rng=np.random.default_rng(12))
        drawn = ops.log_uniform_candidates(num_sampled, range_max, NO_IDS, rng=np.random.default_rng(12))
    first_seen = list(dict.fromkeys(stream.sampled.tolist()))[:num_sampled]
    np.testing.assert_array_equal(drawn.sampled, first_seen)
    assert drawn.num_tries == stream.sampled.tolist().index(first_seen[-1]) + 1


def test_one_class() -> None:
    drawn = ops.log_uniform_candidates(1, 1, np.array([0]), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.sampled, [0])
    np.testing.assert_array_equal(drawn.true_expected_count, [1.0])
    assert drawn.num_tries == 1


def test_expected_counts_are_tensorflows() -> None:
    """ExpectedCountHelper of range_sampler.cc: p S if no draw was repeated, else 1 - (1 - p)^num_tries."""
    p = log_uniform_law(100)[[0, 7, 99]]
    ids = np.array([[0], [7], [99]])
    for unique, num_tries, want in [
        (False, 10, 10 * p),
        (False, 25, 10 * p),
        (True, 10, 10 * p),
        (True, 25, 1 - (1 - p) ** 25),
    ]:
        count = ops.log_uniform_expected_count(ids, num_tries, 100, unique=unique, num_sampled=10)
        assert count.shape == (3, 1)
        assert count.dtype == np.float64
        np.testing.assert_allclose(count[:, 0], want, rtol=1e-12)
    np.testing.assert_array_equal(ops.log_uniform_expected_count(np.array([0]), 5, 1, num_sampled=1), [1.0])


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("ids", [np.int32, np.int64])
def test_candidates_carry_the_expected_counts_of_true_and_sampled(backend: str, unique: bool, ids: Any) -> None:
    labels = np.array([[3, 0], [99, 3]], ids)
    with use_backend(backend):
        drawn = ops.log_uniform_candidates(20, 100, labels, unique=unique, rng=np.random.default_rng(1))
    assert drawn.sampled.shape == (20,)
    assert drawn.sampled.dtype == np.int64
    assert drawn.num_tries > 20 if unique else drawn.num_tries == 20
    for classes, count in [(labels, drawn.true_expected_count), (drawn.sampled, drawn.sampled_expected_count)]:
        want = ops.log_uniform_expected_count(classes, drawn.num_tries, 100, unique=unique, num_sampled=20)
        np.testing.assert_allclose(count, want, rtol=1e-12)


def test_expected_count_is_near_the_true_mean_of_unique_samples() -> None:
    """Taking the number of tries as fixed is an approximation; for the mean over calls it is a good one."""
    rng, calls = np.random.default_rng(8), 3_000
    seen, expected = np.zeros(60), np.zeros(60)
    for _ in range(calls):
        drawn = ops.log_uniform_candidates(15, 60, np.arange(60), rng=rng)
        seen[drawn.sampled] += 1
        expected += drawn.true_expected_count
    np.testing.assert_allclose(expected / calls, seen / calls, atol=0.04)


# --------------------------------------------------------------------------------------------
# Unigram candidates
# --------------------------------------------------------------------------------------------

COUNTS = np.array([0, 1, 1000, 30, 0, 7, 7, 200, 55, 3])


@pytest.mark.parametrize("power", [0.75, 1.0, 0.25])
def test_unigram_follows_its_law(backend: str, power: float) -> None:
    with use_backend(backend):
        rng = np.random.default_rng(2)
        sampled = ops.unigram_candidates(COUNTS, 200_000, NO_IDS, power=power, rng=rng).sampled
    p = COUNTS**power / (COUNTS**power).sum()
    drawn = np.bincount(sampled, minlength=len(COUNTS))
    assert_follows(drawn[COUNTS > 0], 200_000 * p[COUNTS > 0])
    assert drawn[COUNTS == 0].sum() == 0


def test_unique_unigram_follows_its_law() -> None:
    rng, calls = np.random.default_rng(3), 20_000
    table = ops.UnigramTable(np.array([1.0, 2.0, 0.0, 5.0]), power=1.0)
    pairs = [(a, b) for a, b in itertools.permutations(range(4), 2) if 2 not in (a, b)]
    got = Counter(
        tuple(ops.unigram_candidates(table, 2, NO_IDS, unique=True, rng=rng).sampled.tolist()) for _ in range(calls)
    )
    p = np.array([1, 2, 0, 5]) / 8
    assert sum(got[pair] for pair in pairs) == calls
    assert_follows([got[pair] for pair in pairs], [calls * p[a] * p[b] / (1 - p[a]) for a, b in pairs])


@pytest.mark.parametrize("V", [1, 2, 17, 1000])
def test_the_alias_table_is_the_law(backend: str, V: int) -> None:
    counts = np.random.default_rng(V).integers(0, 50, V) + (np.arange(V) == 0)
    with use_backend(backend):
        table = ops.UnigramTable(counts, power=1.0)
    mass = table.threshold.copy()
    np.add.at(mass, table.alias, 1 - table.threshold)
    np.testing.assert_allclose(mass / V, counts / counts.sum(), rtol=1e-9, atol=1e-15)
    assert len(table) == V
    assert (table.threshold[counts == 0] == 0).all()


def test_unigram_expected_counts() -> None:
    labels = np.array([2, 5])
    p = COUNTS**0.75 / (COUNTS**0.75).sum()
    rng = np.random.default_rng(4)
    drawn = ops.unigram_candidates(COUNTS, 12, labels, rng=rng)
    np.testing.assert_allclose(drawn.true_expected_count, 12 * p[labels], rtol=1e-12)
    np.testing.assert_allclose(drawn.sampled_expected_count, 12 * p[drawn.sampled], rtol=1e-12)
    assert drawn.num_tries == 12
    drawn = ops.unigram_candidates(COUNTS, 6, labels, unique=True, rng=rng)
    assert drawn.num_tries > 6
    np.testing.assert_allclose(drawn.true_expected_count, 1 - (1 - p[labels]) ** drawn.num_tries, rtol=1e-12)


def test_a_table_draws_what_its_counts_draw_and_keeps_them() -> None:
    counts = COUNTS.copy()
    table = ops.UnigramTable(counts, power=0.5)
    counts[:] = 1
    from_table = ops.unigram_candidates(table, 50, NO_IDS, rng=np.random.default_rng(9))
    from_counts = ops.unigram_candidates(COUNTS, 50, NO_IDS, power=0.5, rng=np.random.default_rng(9))
    np.testing.assert_array_equal(from_table.sampled, from_counts.sampled)


# --------------------------------------------------------------------------------------------
# Seeds
# --------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_samples_and_a_call_takes_one_number() -> None:
    first, second = np.random.default_rng(10), np.random.default_rng(10)
    a = ops.log_uniform_candidates(64, 50_000, NO_IDS, rng=first)
    np.testing.assert_array_equal(a.sampled, ops.log_uniform_candidates(64, 50_000, NO_IDS, rng=second).sampled)
    b = ops.log_uniform_candidates(64, 50_000, NO_IDS, rng=first)
    assert (a.sampled != b.sampled).any()
    second.integers(0, 2**64, dtype=np.uint64)
    assert first.bit_generator.state == second.bit_generator.state


def test_every_backend_draws_the_same_bits(compiled_backend: str) -> None:
    def draw() -> Iterable[Candidates]:
        rng = np.random.default_rng(11)
        for unique in (True, False):
            for num_sampled, range_max in [(1, 1), (64, 50_000), (1000, 1000), (5000, 10**9)]:
                yield ops.log_uniform_candidates(num_sampled, range_max, NO_IDS, unique=unique, rng=rng)
            yield ops.unigram_candidates(COUNTS, 8, NO_IDS, unique=unique, rng=rng)
            yield ops.unigram_candidates(np.arange(5000.0), 1000, NO_IDS, unique=unique, rng=rng)

    with use_backend("numpy"):
        want = list(draw())
        want_table = ops.UnigramTable(np.arange(5000.0))
    with use_backend(compiled_backend):
        got = list(draw())
        got_table = ops.UnigramTable(np.arange(5000.0))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g.sampled, w.sampled)
        assert g.num_tries == w.num_tries
    np.testing.assert_array_equal(got_table.threshold, want_table.threshold)
    np.testing.assert_array_equal(got_table.alias, want_table.alias)


# --------------------------------------------------------------------------------------------
# Logits and losses
# --------------------------------------------------------------------------------------------

V, E, B, S = 30, 5, 7, 9
LOSSES: dict[str, Callable[..., SampledLoss]] = {
    "nce": ops.nce_loss,
    "sampled_softmax": ops.sampled_softmax_loss,
}


def problem(num_true: int, *, seed: int = 0) -> tuple[FloatArray, FloatArray, IntArray, FloatArray, Candidates]:
    """Weights, biases, labels, inputs, candidates, with repeated labels, repeated samples and accidental hits."""
    rng = np.random.default_rng(seed)
    weights, biases = rng.standard_normal((V, E)), rng.standard_normal(V)
    labels = rng.integers(0, V, (B, num_true))
    labels[1, 0] = labels[0, 0]
    if num_true == 1:
        labels = labels[:, 0]
    candidates = ops.log_uniform_candidates(S, V, labels, unique=False, rng=rng)
    candidates.sampled[:3] = [labels.flat[0], labels.flat[2], labels.flat[0]]
    return weights, biases, labels, rng.standard_normal((B, E)), candidates


def dense(grad: RowGrad, *shape: int) -> FloatArray:
    assert (np.diff(grad.indices) > 0).all()
    whole = np.zeros(shape)
    whole[grad.indices] = grad.values
    return whole


def logits_by_loops(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    subtract_log_q: bool,
    remove_accidental_hits: bool,
) -> list[list[float]]:
    rows = []
    for n, true in enumerate(labels.reshape(B, -1).tolist()):
        q = [*candidates.true_expected_count.reshape(B, -1)[n], *candidates.sampled_expected_count]
        row = []
        for k, v in enumerate([*true, *candidates.sampled.tolist()]):
            x = float(inputs[n] @ weights[v] + biases[v])
            if subtract_log_q:
                x -= math.log(q[k])
            if remove_accidental_hits and k >= len(true) and v in true:
                x = -FLOAT32_MAX
            row.append(x)
        rows.append(row)
    return rows


def test_a_table_does_not_change() -> None:
    """Kernels look into it without a check."""
    table = ops.UnigramTable(np.arange(5) + 1)
    for name in ("probabilities", "threshold", "alias"):
        array = getattr(table, name)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)
        with pytest.raises(AttributeError):
            setattr(table, name, array.copy())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copy_of_a_table_is_that_table(copied: Any) -> None:
    table = ops.UnigramTable(np.arange(5) + 1)
    of_table = copied(table)
    for name in ("probabilities", "threshold", "alias"):
        np.testing.assert_array_equal(getattr(of_table, name), getattr(table, name))
        assert not getattr(of_table, name).flags.writeable


@pytest.mark.parametrize(
    ("place", "forged", "error", "message"),
    [
        (2, np.full(5, 2**60), IndexError, "alias holds 1152921504606846976, expected ids from 0 to 4"),
        (2, np.arange(4), ValueError, r"alias is an array of shape \(4,\), int64, expected int64 of shape \(5,\)"),
        (1, np.ones(3), ValueError, "threshold is an array of shape"),
        (0, np.ones((0,)), ValueError, "probabilities is an array of shape"),
        (2, np.arange(5.0), ValueError, "alias is an array of shape .*float64, expected int64"),
    ],
)
def test_a_forged_table_is_refused(place: int, forged: Any, error: type[Exception], message: str) -> None:
    table = ops.UnigramTable(np.arange(5) + 1)
    state: Any = [*table.__getstate__()]
    state[place] = forged
    with pytest.raises(error, match=message):
        ops.UnigramTable.__new__(ops.UnigramTable).__setstate__(tuple(state))


@pytest.mark.parametrize("num_true", [1, 2, 3])
@pytest.mark.parametrize("subtract_log_q", [True, False])
@pytest.mark.parametrize("remove_accidental_hits", [True, False])
def test_logits_and_labels(num_true: int, subtract_log_q: bool, remove_accidental_hits: bool) -> None:
    args = problem(num_true)
    options: dict[str, Any] = {"subtract_log_q": subtract_log_q, "remove_accidental_hits": remove_accidental_hits}
    out = ops.sampled_logits_forward(*args, **options)
    want = np.array(logits_by_loops(*args, **options))
    assert (want == -FLOAT32_MAX).any() == remove_accidental_hits
    np.testing.assert_allclose(out.logits, want, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(out.labels, [[1 / num_true] * num_true + [0] * S] * B)


@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize("remove_accidental_hits", [True, False])
def test_losses_are_sums_over_the_columns(num_true: int, remove_accidental_hits: bool) -> None:
    args = problem(num_true)
    logits = logits_by_loops(*args, subtract_log_q=True, remove_accidental_hits=remove_accidental_hits)
    nce = ops.nce_loss(*args, remove_accidental_hits=remove_accidental_hits).loss
    softmax = ops.sampled_softmax_loss(*args, remove_accidental_hits=remove_accidental_hits).loss
    for n, row in enumerate(logits):
        z = [1 / num_true] * num_true + [0.0] * S
        by_column = [max(x, 0) - x * y + math.log1p(math.exp(-abs(x))) for x, y in zip(row, z, strict=True)]
        assert nce[n] == pytest.approx(sum(by_column), rel=1e-12)
        lse = math.log(sum(math.exp(x) for x in row))
        assert softmax[n] == pytest.approx(lse - sum(row[:num_true]) / num_true, rel=1e-12)


def test_defaults_for_accidental_hits_are_tensorflows() -> None:
    args = problem(1)
    np.testing.assert_array_equal(ops.nce_loss(*args).loss, ops.nce_loss(*args, remove_accidental_hits=False).loss)
    np.testing.assert_array_equal(
        ops.sampled_softmax_loss(*args).loss, ops.sampled_softmax_loss(*args, remove_accidental_hits=True).loss
    )


def test_negative_sampling_by_hand() -> None:
    """-log sigmoid(h . w_true) - sum of log sigmoid(-h . w_sampled), as in word2vec."""
    weights, _, labels, inputs, candidates = problem(1)
    got = ops.negative_sampling_loss(weights, labels, inputs, candidates)
    true = (inputs * weights[labels]).sum(axis=1)
    other = inputs @ weights[candidates.sampled].T
    np.testing.assert_allclose(got.loss, np.log1p(np.exp(-true)) + np.log1p(np.exp(other)).sum(axis=1), rtol=1e-12)
    assert got.dbiases is None


@pytest.mark.parametrize("num_true", [1, 2])
def test_rows_with_samples_of_their_own_are_batches_of_one(backend: str, num_true: int) -> None:
    weights, _, labels, inputs, _ = problem(num_true)
    own = np.random.default_rng(0).integers(0, V, (B, S))
    own[:, 0] = own[:, 1]
    own[2:4, 2] = labels.reshape(B, num_true)[2:4, 0]
    with use_backend(backend):
        got = ops.negative_sampling_loss(weights, labels, inputs, own)
        rows = [ops.negative_sampling_loss(weights, labels[n : n + 1], inputs[n : n + 1], own[n]) for n in range(B)]
    np.testing.assert_allclose(got.loss, [row.loss[0] for row in rows], rtol=1e-12)
    np.testing.assert_allclose(got.dinputs * B, np.concatenate([row.dinputs for row in rows]), atol=1e-13)
    np.testing.assert_allclose(
        dense(got.dweights, V, E) * B, sum(dense(row.dweights, V, E) for row in rows), atol=1e-13
    )
    np.testing.assert_array_equal(got.dweights.indices, np.unique([*labels.flat, *own.flat]))
    assert got.dbiases is None


def test_ids_that_the_batch_shares_are_candidates() -> None:
    weights, _, labels, inputs, candidates = problem(2)
    want = ops.negative_sampling_loss(weights, labels, inputs, candidates)
    for ids in (candidates.sampled, candidates.sampled.astype(np.int32)):
        got = ops.negative_sampling_loss(weights, labels, inputs, ids)
        np.testing.assert_array_equal(got.loss, want.loss)
        np.testing.assert_array_equal(got.dweights.values, want.dweights.values)


@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize("remove_accidental_hits", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_are_those_of_the_mean(name: str, num_true: int, remove_accidental_hits: bool) -> None:
    weights, biases, labels, inputs, candidates = problem(num_true)

    def loss(weights: FloatArray, biases: FloatArray, inputs: FloatArray) -> SampledLoss:
        hits = {"remove_accidental_hits": remove_accidental_hits}
        return LOSSES[name](weights, biases, labels, inputs, candidates, **hits)

    got = loss(weights, biases, inputs)
    assert got.loss.shape == (B,)
    assert got.dbiases is not None
    np.testing.assert_array_equal(got.dweights.indices, np.unique([*labels.flat, *candidates.sampled]))
    check_gradient(
        lambda **floats: float(loss(**floats).loss.mean()),
        {"weights": weights, "biases": biases, "inputs": inputs},
        {"weights": dense(got.dweights, V, E), "biases": dense(got.dbiases, V), "inputs": got.dinputs},
    )


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("num_true", [1, 2])
def test_negative_sampling_gradients(num_true: int, own: bool) -> None:
    weights, _, labels, inputs, shared = problem(num_true)
    candidates = np.random.default_rng(0).integers(0, V, (B, S)) if own else shared

    def loss(weights: FloatArray, inputs: FloatArray) -> SampledLoss:
        return ops.negative_sampling_loss(weights, labels, inputs, candidates)

    got = loss(weights, inputs)
    check_gradient(
        lambda **floats: float(loss(**floats).loss.mean()),
        {"weights": weights, "inputs": inputs},
        {"weights": dense(got.dweights, V, E), "inputs": got.dinputs},
    )


@pytest.mark.parametrize("num_true", [1, 3])
def test_logits_gradients(num_true: int) -> None:
    weights, biases, labels, inputs, candidates = problem(num_true)
    dlogits = np.random.default_rng(1).standard_normal((B, num_true + S))
    tape = ops.sampled_logits_forward(weights, biases, labels, inputs, candidates).tape
    grads = ops.sampled_logits_backward(dlogits, tape)

    def loss(weights: FloatArray, biases: FloatArray, inputs: FloatArray) -> float:
        out = ops.sampled_logits_forward(weights, biases, labels, inputs, candidates)
        return float((out.logits * dlogits).sum())

    check_gradient(
        loss,
        {"weights": weights, "biases": biases, "inputs": inputs},
        {"weights": dense(grads.dweights, V, E), "biases": dense(grads.dbiases, V), "inputs": grads.dinputs},
    )
    again = ops.sampled_logits_backward(dlogits, tape)
    np.testing.assert_array_equal(again.dweights.values, grads.dweights.values)


@pytest.mark.needs_torch
@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_against_torch(name: str, num_true: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    weights, biases, labels, inputs, candidates = problem(num_true)
    w, b, x = (torch.tensor(array, requires_grad=True) for array in (weights, biases, inputs))
    true, sampled = torch.tensor(labels.reshape(B, num_true)), torch.tensor(candidates.sampled)
    true_logits = torch.einsum("be,bke->bk", x, w[true]) + b[true]
    true_logits = true_logits - torch.log(torch.tensor(candidates.true_expected_count.reshape(B, num_true)))
    other = x @ w[sampled].T + b[sampled] - torch.log(torch.tensor(candidates.sampled_expected_count))
    logits = torch.cat([true_logits, other], dim=1)
    z = torch.cat([torch.full((B, num_true), 1 / num_true), torch.zeros(B, S)], dim=1).double()
    if name == "nce":
        per_row = torch.nn.functional.binary_cross_entropy_with_logits(logits, z, reduction="none").sum(dim=1)
    else:
        per_row = torch.nn.functional.cross_entropy(logits, z, reduction="none")
    per_row.mean().backward()
    got = LOSSES[name](weights, biases, labels, inputs, candidates, remove_accidental_hits=False)
    assert got.dbiases is not None
    np.testing.assert_allclose(got.loss, per_row.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(got.dinputs, x.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dense(got.dweights, V, E), w.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dense(got.dbiases, V), b.grad.numpy(), rtol=1e-9, atol=1e-12)


def as_dtype(args: Any, dtype: str) -> Any:
    """Weights, biases and inputs in dtype; the expected counts stay float64."""
    weights, biases, labels, inputs, candidates = args
    return weights.astype(dtype), biases.astype(dtype), labels, inputs.astype(dtype), candidates


def assert_agrees(got: Any, want: Any, dtype: str) -> None:
    for name in want._fields:
        g, w = getattr(got, name), getattr(want, name)
        if isinstance(w, RowGrad):
            np.testing.assert_array_equal(g.indices, w.indices)
            g, w = g.values, w.values
        if isinstance(w, np.ndarray):
            assert g.dtype == dtype, name
            limit = TOLERANCE[dtype] * max(1, float(np.abs(w).max(initial=0)))
            assert g.shape == w.shape
            assert float(np.abs(g - w).max(initial=0)) <= limit, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize("remove_accidental_hits", [True, False])
def test_every_backend_agrees_with_the_definition(
    backend: str, dtype: str, num_true: int, remove_accidental_hits: bool
) -> None:
    args = as_dtype(problem(num_true), dtype)
    in_float64 = as_dtype(args, "float64")
    hits = {"remove_accidental_hits": remove_accidental_hits}
    weights, _, labels, inputs, candidates = args
    dlogits = np.random.default_rng(2).standard_normal((B, num_true + S)).astype(dtype)
    with use_backend("numpy"):
        losses = [loss(*in_float64, **hits) for loss in LOSSES.values()]
        negative = ops.negative_sampling_loss(weights.astype(float), labels, inputs.astype(float), candidates)
        out = ops.sampled_logits_forward(*in_float64)
        grads = ops.sampled_logits_backward(dlogits.astype(float), out.tape)
    with use_backend(backend):
        for loss, want in zip(LOSSES.values(), losses, strict=True):
            assert_agrees(loss(*args, **hits), want, dtype)
        assert_agrees(ops.negative_sampling_loss(weights, labels, inputs, candidates), negative, dtype)
        got = ops.sampled_logits_forward(*args)
        assert got.tape.family is load_family(backend, "sampling")
        assert_agrees(got, out, dtype)
        assert_agrees(ops.sampled_logits_backward(dlogits, got.tape), grads, dtype)


def test_huge_and_nan_inputs(backend: str) -> None:
    args = weights, biases, labels, inputs, candidates = problem(1)
    with use_backend(backend):
        inputs *= 1e4
        for loss in LOSSES.values():
            assert np.isfinite(loss(*args).loss).all()
        inputs[2, 0] = np.nan
        for loss in LOSSES.values():
            got = loss(*args)
            np.testing.assert_array_equal(np.isnan(got.loss), np.arange(B) == 2)
            np.testing.assert_array_equal(np.isnan(got.dinputs).any(axis=1), np.arange(B) == 2)
            assert np.isnan(got.dweights.values).any()


def test_an_empty_batch(backend: str) -> None:
    weights, biases, _, _, _ = problem(1)
    with use_backend(backend):
        candidates = ops.log_uniform_candidates(S, V, NO_IDS, rng=np.random.default_rng(0))
        got = ops.nce_loss(weights, biases, NO_IDS, np.zeros((0, E)), candidates)
    assert got.loss.shape == (0,)
    assert got.dinputs.shape == (0, E)
    np.testing.assert_array_equal(got.dweights.indices, np.sort(candidates.sampled))
    np.testing.assert_array_equal(got.dweights.values, np.zeros((S, E)))


def test_int32_labels_give_the_same_loss() -> None:
    weights, biases, labels, inputs, candidates = problem(2)
    want = ops.nce_loss(weights, biases, labels, inputs, candidates)
    got = ops.nce_loss(weights, biases, labels.astype(np.int32), inputs, candidates)
    np.testing.assert_array_equal(got.loss, want.loss)


def test_row_gradients_train_the_weights() -> None:
    """The row gradients are what the optimisers take; steps down the gradient lower the loss, other rows stay."""
    weights, biases, labels, inputs, candidates = problem(1)
    before = weights.copy()
    losses = []
    for _ in range(20):
        got = ops.nce_loss(weights, biases, labels, inputs, candidates)
        assert got.dbiases is not None
        losses.append(float(got.loss.mean()))
        ops.sgd_update([weights, biases], [got.dweights, got.dbiases], 0.1)
    assert losses[-1] < 0.5 * losses[0]
    untouched = np.setdiff1d(np.arange(V), got.dweights.indices)
    np.testing.assert_array_equal(weights[untouched], before[untouched])


# --------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
ERRORS: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, "num_sampled is 11, but range_max is 10", lambda: ops.log_uniform_candidates(11, 10, NO_IDS, rng=RNG)),
    (ValueError, "num_sampled is 0", lambda: ops.log_uniform_candidates(0, 10, NO_IDS, rng=RNG)),
    (ValueError, "range_max is 0", lambda: ops.log_uniform_candidates(1, 0, NO_IDS, rng=RNG)),
    (TypeError, "num_sampled is float", lambda: ops.log_uniform_candidates(2.0, 10, NO_IDS, rng=RNG)),  # type: ignore[arg-type]
    (IndexError, "true_classes holds 10", lambda: ops.log_uniform_candidates(1, 10, np.array([10]), rng=RNG)),
    (TypeError, "default_rng", lambda: ops.log_uniform_candidates(1, 10, NO_IDS, rng=0)),  # type: ignore[arg-type]
    (TypeError, "rng and seed are both given", lambda: ops.log_uniform_candidates(1, 10, NO_IDS, rng=RNG, seed=1)),
    (ValueError, "seed is -1", lambda: ops.unigram_candidates(COUNTS, 1, NO_IDS, seed=-1)),
    (ValueError, "fraction", lambda: ops.log_uniform_candidates(10**8, 10**8, NO_IDS, rng=RNG)),
    (ValueError, "num_tries is 3", lambda: ops.log_uniform_expected_count(np.array([1]), 3, 10, num_sampled=4)),
    (IndexError, "classes holds -1", lambda: ops.log_uniform_expected_count(np.array([-1]), 3, 10, num_sampled=3)),
    (ValueError, "that occur is 8", lambda: ops.unigram_candidates(COUNTS, 9, NO_IDS, unique=True, rng=RNG)),
    (
        ValueError,
        "fraction",
        lambda: ops.unigram_candidates(np.array([1e30, 1.0]), 2, NO_IDS, unique=True, power=1.0, rng=RNG),
    ),
    (ValueError, "counts holds negative", lambda: ops.UnigramTable(np.array([1, -1]))),
    (ValueError, "nothing but zeros", lambda: ops.UnigramTable(np.zeros(3))),
    (ValueError, "counts holds negative numbers, NaN", lambda: ops.UnigramTable(np.array([1.0, np.nan]))),
    (ValueError, "expected numbers of shape", lambda: ops.UnigramTable(np.zeros((0,)))),
    (ValueError, "expected numbers of shape", lambda: ops.UnigramTable(np.ones((2, 2)))),
    (TypeError, "counts is list", lambda: ops.UnigramTable([1, 2])),
    (ValueError, "power is -1", lambda: ops.UnigramTable(np.ones(3), power=-1)),
    (IndexError, "true_classes holds 10", lambda: ops.unigram_candidates(COUNTS, 1, np.array([10]), rng=RNG)),
]


@pytest.mark.parametrize(("error", "message", "call"), ERRORS, ids=[message for _, message, _ in ERRORS])
def test_sampler_errors(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()


LOSS_ERRORS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "candidates is ndarray|candidates is an array", {"candidates": np.arange(3)}),
    (ValueError, r"biases has shape \(5,\), expected \(30,\)", {"biases": np.zeros(E)}),
    (TypeError, "biases is NoneType", {"biases": None}),
    (TypeError, "inputs has dtype float32", {"inputs": np.zeros((B, E), np.float32)}),
    (ValueError, r"inputs has shape \(7, 6\), expected \(7, 5\)", {"inputs": np.zeros((B, E + 1))}),
    (IndexError, "labels holds 30", {"labels": np.full(B, V)}),
    (IndexError, "labels holds -1", {"labels": np.full(B, -1)}),
    (ValueError, r"labels has shape \(7, 0\)", {"labels": np.zeros((B, 0), int)}),
    (TypeError, "labels has dtype float64", {"labels": np.zeros(B)}),
    (ValueError, r"true_expected_count has shape \(7,\), expected 14", {"labels": np.zeros((B, 2), int)}),
    (IndexError, "candidates.sampled holds 29", {"weights": np.zeros((9, E)), "biases": np.zeros(9), "labels": NO_IDS}),
]


@pytest.mark.parametrize("function", [ops.nce_loss, ops.sampled_softmax_loss, ops.sampled_logits_forward])
@pytest.mark.parametrize(("error", "message", "wrong"), LOSS_ERRORS, ids=[message for _, message, _ in LOSS_ERRORS])
def test_loss_errors(function: Callable[..., Any], error: type[Exception], message: str, wrong: dict[str, Any]) -> None:
    weights, biases, labels, inputs, candidates = problem(1)
    candidates.sampled[0] = V - 1
    args = {"weights": weights, "biases": biases, "labels": labels, "inputs": inputs, "candidates": candidates}
    if wrong.get("labels") is NO_IDS:
        args["inputs"] = np.zeros((0, E))
    with pytest.raises(error, match=message):
        function(**{**args, **wrong})


def test_rows_are_padded_on_a_gpu_only() -> None:
    weights, biases, labels, inputs, candidates = problem(1)
    with pytest.raises(ValueError, match="padded is True, but weights is on the host"):
        ops.nce_loss(weights, biases, labels, inputs, candidates, padded=True)
    with pytest.raises(ValueError, match="padded is True, but weights is on the host"):
        ops.sampled_softmax_loss(weights, biases, labels, inputs, candidates, padded=True)
    with pytest.raises(ValueError, match="padded is True, but weights is on the host"):
        ops.negative_sampling_loss(weights, labels, inputs, candidates, padded=True)


def test_a_seed_is_what_a_generator_draws() -> None:
    seed = int(np.random.default_rng(3).integers(0, 2**64, dtype=np.uint64))
    draws: tuple[Callable[..., Any], ...] = (
        lambda **given: ops.log_uniform_candidates(5, 20, NO_IDS, **given),
        lambda **given: ops.unigram_candidates(COUNTS, 5, NO_IDS, **given),
    )
    for draw in draws:
        np.testing.assert_array_equal(draw(seed=seed).sampled, draw(rng=np.random.default_rng(3)).sampled)


WRONG_IDS: list[tuple[type[Exception], str, Any]] = [
    (TypeError, r"candidates is list .*; expected the Candidates .*, or an array of ids \(S,\) or \(B, S\)", [1, 2]),
    (TypeError, "candidates is NoneType", None),
    (ValueError, r"candidates has shape \(6, 3\), expected \(S,\) or \(B, S\) with B = 7", np.ones((B - 1, 3), int)),
    (ValueError, r"candidates has shape \(7, 3, 1\), expected", np.ones((B, 3, 1), int)),
    (ValueError, r"candidates has shape \(\), expected", np.array(1)),
    (IndexError, "candidates holds 30, expected ids from 0 to 29", np.full((B, 3), V)),
    (IndexError, "candidates holds -1", np.array([1, -1])),
    (TypeError, "candidates has dtype float64, expected int32 or int64", np.ones((B, 3))),
]


@pytest.mark.parametrize(("error", "message", "ids"), WRONG_IDS, ids=[message for _, message, _ in WRONG_IDS])
def test_wrong_ids_of_samples(error: type[Exception], message: str, ids: Any) -> None:
    weights, _, labels, inputs, _ = problem(1)
    with pytest.raises(error, match=message):
        ops.negative_sampling_loss(weights, labels, inputs, ids)


def test_a_class_that_is_never_drawn_has_no_logarithm() -> None:
    weights, biases, labels, inputs, _ = problem(1)
    labels[3] = 0
    candidates = ops.unigram_candidates(np.arange(V), S, labels, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"true_expected_count holds 0\.0"):
        ops.nce_loss(weights, biases, labels, inputs, candidates)
    assert np.isfinite(ops.negative_sampling_loss(weights, labels, inputs, candidates).loss).all()


def test_logits_backward_errors() -> None:
    out = ops.sampled_logits_forward(*problem(1))
    with pytest.raises(ValueError, match=r"dlogits has shape \(7, 9\), expected \(7, 10\)"):
        ops.sampled_logits_backward(np.zeros((B, S)), out.tape)
    with pytest.raises(TypeError, match="tape is None"):
        ops.sampled_logits_backward(np.zeros((B, 1 + S)), None)
    other: Any = ops.rnn_forward(np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)).tape
    with pytest.raises(ValueError, match="tape was made by rnn_forward"):
        ops.sampled_logits_backward(np.zeros((B, 1 + S)), other)
