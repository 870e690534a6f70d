"""What is promised of numbers: how near they are, over long sequences too, and what becomes of extreme ones.

docs/reliability.md has the bounds, found by sweeps; here a sparse one looks whether they hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import available_backends, ops, use_backend
from fastlstm.contract import Candidates, FloatArray

needs_kernels = pytest.mark.skipif("cpp" not in available_backends(), reason="the extension _cpu is not built")

# In units of the last place of a float32 result, where that is a normal number.
MOST_ULPS = {"tanh": 3.0, "sigmoid": 3.0, "softmax": 4.0}
# Below x = -87, and of denormal x, results leave the normal numbers, and what kernels make of them is only small.
LEAST_X, SMALLEST = -87.0, 1.7e-38


def _sample_of_all_numbers() -> FloatArray:
    """Every 65,521st float32, and more of them where the functions bend."""
    bits = np.arange(0, 2**32, 65521, dtype=np.uint64).astype(np.uint32)
    dense = [np.linspace(-100, 100, 40_001), np.linspace(-10, 10, 40_001), np.linspace(-0.1, 0.1, 4_001)]
    x = np.concatenate([bits.view(np.float32), np.concatenate(dense).astype(np.float32), [-np.inf, np.inf, 0, -0.0]])
    return np.resize(x.astype(np.float32), -(-len(x) // 16) * 16)


def _tanh(x: FloatArray) -> FloatArray:
    """An RNN whose pre-activations are x."""
    return ops.rnn_forward(x.reshape(-1, 1, 16), None, np.zeros((16, 16), x.dtype), None, training=False).h_n


def _sigmoid(x: FloatArray) -> FloatArray:
    """The input gate of an LSTM whose candidate is 1 and whose state is 0."""
    columns = x.reshape(-1, 16)
    gates = {"i": columns, "g": np.full_like(columns, 100), "f": np.zeros_like(columns), "o": np.zeros_like(columns)}
    xs = ops.pack_gates(gates)[:, None]
    return ops.lstm_forward(xs, None, np.zeros((16, 64), x.dtype), None, training=False).c_n


def _softmax(x: FloatArray) -> FloatArray:
    """What softmax gives a logit x beside one of 0; the gradient of the cross entropy."""
    logits = np.stack([np.zeros_like(x), x], axis=1)
    return ops.softmax_cross_entropy(logits, np.zeros(len(x), np.int64), reduction="sum").dlogits[:, 1]


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softmax"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinite numbers
@needs_kernels
def test_functions_are_within_a_few_ulps_of_the_exact_ones(name: str) -> None:
    x = _sample_of_all_numbers()
    if name == "softmax":
        x = x[~np.isposinf(x)]  # inf - inf is NaN
    with use_backend("cpp"), np.errstate(all="ignore"):
        got = {"tanh": _tanh, "sigmoid": _sigmoid, "softmax": _softmax}[name](x).reshape(-1)
        wide = x.astype(np.float64)
        e = np.exp(-np.abs(wide))
        want = np.tanh(wide) if name == "tanh" else np.where(wide > 0, 1, e) / (1 + e)
    assert np.isnan(got[np.isnan(x)]).all()
    assert np.array_equal(np.isnan(got), np.isnan(x))
    error = np.abs(got.astype(np.float64) - want)
    ulp = np.spacing(np.maximum(np.abs(want), np.finfo(np.float32).smallest_normal).astype(np.float32))
    counted = np.abs(x) >= 2 * np.finfo(np.float32).smallest_normal if name == "tanh" else x >= LEAST_X
    worst = int(np.argmax(np.where(counted, error / ulp, 0)))
    assert error[worst] <= MOST_ULPS[name] * ulp[worst], (x[worst], got[worst], want[worst])
    assert (error[~counted & ~np.isnan(x)] <= SMALLEST).all()


def _long(family: str, T: int) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    N, D, H = 2, 3, 16
    G = {"lstm": 4, "gru": 3, "rnn": 1}[family] * H
    weights = {"Wx": rng.standard_normal((D, G)), "Wh": rng.standard_normal((H, G)) / np.sqrt(H), "b": np.zeros(G)}
    return {"xs": rng.standard_normal((N, T, D)).astype(np.float32)} | {
        name: array.astype(np.float32) for name, array in weights.items()
    }


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
@needs_kernels
def test_ten_thousand_steps_do_not_drift(family: str) -> None:
    """The error of the last states and of the gradients is that of the first ones."""
    T = 10_000
    inputs = _long(family, T)
    if family == "rnn":
        inputs["Wh"] *= np.float32(0.7)  # a contraction: else tanh networks are chaotic, and no arithmetic follows
    rng = np.random.default_rng(6)
    dhs = (rng.standard_normal((2, T, 16)) / T).astype(np.float32)
    forward, backward = getattr(ops, f"{family}_forward"), getattr(ops, f"{family}_backward")
    with use_backend("cpp"):
        out = forward(**inputs)
        grads = backward(dhs, out.tape)
        exact = forward(**{name: array.astype(np.float64) for name, array in inputs.items()})
        exact_grads = backward(dhs.astype(np.float64), exact.tape)
    with use_backend("numpy"):  # the definition, over the last steps from the state before them
        start = T - 200
        states = {"h0": exact.hs[:, start - 1]}
        if family == "lstm":
            states["c0"] = _cell_state(inputs, start, "cpp")
        tail = {**inputs, "xs": inputs["xs"][:, start:]}
        defined = forward(**{name: array.astype(np.float64) for name, array in {**tail, **states}.items()})
    np.testing.assert_allclose(exact.hs[:, start:], defined.hs, rtol=0, atol=1e-12)
    error = np.abs(out.hs - exact.hs).max(axis=(0, 2))
    assert error.max() < 1e-5
    assert error[-1000:].max() < 3 * error[100:1100].max()
    for got, want in zip(grads, exact_grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1e-4, float(np.abs(want).max())))


def _cell_state(inputs: dict[str, Any], steps: int, backend: str) -> FloatArray:
    part = {**inputs, "xs": inputs["xs"][:, :steps]}
    with use_backend(backend):
        return ops.lstm_forward(**{k: v.astype(np.float64) for k, v in part.items()}, training=False).c_n


@needs_kernels
def test_a_cell_that_never_forgets_is_the_sum_of_its_steps() -> None:
    """c = c + i g, ten thousand times: each addition rounds once, nothing else is lost."""
    T = 10_000
    rng = np.random.default_rng(7)
    steps = rng.standard_normal((1, T, 16)).astype(np.float32)
    gates = {"i": np.full_like(steps, 50), "f": np.full_like(steps, 50), "g": steps, "o": np.full_like(steps, 50)}
    with use_backend("cpp"):
        out = ops.lstm_forward(ops.pack_gates(gates), None, np.zeros((16, 64), np.float32), None, training=False)
    sums = np.cumsum(np.tanh(steps.astype(np.float64)), axis=1)
    bound = T * 2.0**-24 * np.abs(sums).max() + T * 2.0**-22  # of the additions, and of tanh
    assert np.abs(out.c_n - sums[:, -1]).max() < bound
    assert np.abs(out.c_n - sums[:, -1]).max() < 0.05 * bound  # as errors of both signs add up


# --------------------------------------------------------------------------------------------
# Extreme logits
# --------------------------------------------------------------------------------------------


def _losses_of(logits: FloatArray, targets: list[int], how: Any) -> tuple[float, FloatArray]:
    """The sum of the cross entropies and its gradient, of logits or of what a projection makes them."""
    ids = np.array(targets)
    if how == "logits":
        return ops.softmax_cross_entropy(logits, ids, reduction="sum")
    V = logits.shape[1]
    eye = np.eye(V, dtype=logits.dtype)
    if np.isinf(logits).any():  # 0 times infinity is NaN in a product, so these come with the bias
        assert len(logits) == 1
        grads = ops.linear_cross_entropy(
            np.zeros((1, V), logits.dtype), eye, logits[0], ids, memory=how, reduction="sum"
        )
        return grads.loss, grads.db[None]
    grads = ops.linear_cross_entropy(logits, eye, np.zeros(V, logits.dtype), ids, memory=how, reduction="sum")
    return grads.loss, grads.dh


@pytest.mark.parametrize("how", ["logits", "fast", "low"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("V", [3, 40])
def test_cross_entropy_of_extreme_logits(backend: str, dtype: Any, V: int, how: str) -> None:
    inf, huge = np.inf, 1e30
    rest = [-huge] * (V - 3)
    for first, target, loss, gradient in (
        ((huge, 0.0, -huge), 0, 0.0, (0.0, 0.0, 0.0)),
        ((huge, 0.0, -huge), 1, huge, (1.0, -1.0, 0.0)),
        ((huge, 0.0, -huge), 2, 2 * huge, (1.0, 0.0, -1.0)),
        ((huge, huge, -huge), 0, np.log(2), (-0.5, 0.5, 0.0)),
        ((-huge, -inf, -huge), 0, np.log(V - 1), (1 / (V - 1) - 1, 0.0, 1 / (V - 1))),
        ((0.0, -inf, 0.0), 0, np.log(2), (-0.5, 0.0, 0.5)),
        ((0.0, -inf, -inf), 0, 0.0, (0.0, 0.0, 0.0)),
        ((0.0, -inf, -inf), 1, inf, (1.0, -1.0, 0.0)),
    ):
        logits = np.array([[*first, *rest]], dtype)
        with use_backend(backend):
            got, dlogits = _losses_of(logits, [target], how)
        np.testing.assert_allclose(got, loss, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(dlogits[0, :3], gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("how", ["logits", "fast", "low"])
def test_a_row_without_a_softmax_is_nan_and_leaves_the_others_alone(backend: str, how: str) -> None:
    for row in ([np.inf, 0.0, 1.0], [np.nan, 0.0, 1.0], [-np.inf] * 3):
        logits = np.array([[0.0, 1.0, 2.0], row, [2.0, 1.0, 0.0]])
        if how != "logits" and not np.isnan(row).any():
            continue  # 0 times infinity is NaN in the product already
        with use_backend(backend):
            loss, dlogits = _losses_of(logits, [0, 1, 2], how)
            _, alone = _losses_of(logits[::2].copy(), [0, 2], how)
        assert np.isnan(loss)
        assert np.isnan(dlogits[1]).all()
        np.testing.assert_allclose(dlogits[::2], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("loss", ["nce_loss", "sampled_softmax_loss", "negative_sampling_loss"])
def test_sampled_losses_of_extreme_logits(backend: str, loss: str) -> None:
    """A true class and a sampled one, of which the logits are as far apart as 1e30 makes them."""
    dtype, huge = np.float32, 1e30
    weights = np.array([[huge], [-huge], [0.0]], dtype)
    once = np.ones((2, 1)), np.ones(1)
    options = {} if loss == "negative_sampling_loss" else {"biases": np.zeros(3, dtype)}
    for true, sampled, right in ((0, 1, True), (1, 0, False)):
        candidates = Candidates(np.array([sampled]), *once, 1)
        labels = np.array([true, 2])
        with use_backend(backend):
            out = getattr(ops, loss)(
                weights=weights, labels=labels, inputs=np.ones((2, 1), dtype), candidates=candidates, **options
            )
        # Right: both sigmoids, or the softmax, are certain. Wrong: the loss is as large as the logits.
        expected = 0.0 if right else 2 * huge
        np.testing.assert_allclose(out.loss[0], expected, rtol=1e-6, atol=1e-6)
        assert np.isfinite(out.dinputs).all()
        assert np.isfinite(out.dweights.values).all()


def test_sampled_softmax_of_equal_logits_is_that_of_their_difference(backend: str) -> None:
    """However large they are: two equal ones have the loss log 2."""
    weights = np.full((2, 1), 1e20, np.float32)
    candidates = Candidates(np.array([1]), np.ones((1, 1)), np.ones(1), 1)
    with use_backend(backend):
        out = ops.sampled_softmax_loss(
            weights=weights,
            biases=np.zeros(2, np.float32),
            labels=np.array([0]),
            inputs=np.ones((1, 1), np.float32),
            candidates=candidates,
        )
    np.testing.assert_allclose(out.loss, np.log(2), rtol=1e-6)


def test_a_certain_pair_takes_nothing_from_the_loss_of_the_others(backend: str) -> None:
    """The score of the second pair, 1e20, is right by far: its loss is 0, and that of the first stays."""
    vectors, weights = np.array([[-3.0], [1e20]]), np.array([[1.0], [0.0]])
    table = ops.UnigramTable(np.array([0, 1]))
    with use_backend(backend):
        loss = ops.negative_sampling_update(
            vectors, weights, np.array([0, 1]), np.array([0, 0]), table, num_sampled=1, lr=0.0, seed=0
        )
    # The mean; each pair has a negative with the score 0.
    np.testing.assert_allclose(loss, (3 + np.log1p(np.exp(-3.0)) + 2 * np.log(2)) / 2, rtol=1e-6)


def test_a_certain_word_takes_nothing_from_the_loss_of_the_others(backend: str) -> None:
    """The same of CBOW: each of two words has one neighbour."""
    vectors, weights = np.array([[-3.0], [1e20]]), np.array([[1.0], [0.0]])
    table = ops.UnigramTable(np.array([0, 1]))
    words = np.array([0, 0]), np.array([0, 1]), np.array([1, 1])  # centers, their neighbours, how many of these
    with use_backend(backend):
        loss = ops.cbow_update(vectors, weights, *words, table, num_sampled=1, lr=0.0, seed=0)
    np.testing.assert_allclose(loss, (3 + np.log1p(np.exp(-3.0)) + 2 * np.log(2)) / 2, rtol=1e-6)


def test_sigmoid_cross_entropy_of_extreme_logits(backend: str) -> None:
    huge = 1e30
    logits, labels = np.array([huge, huge, -huge, -huge], np.float32), np.array([1, 0, 1, 0], np.float32)
    with use_backend(backend):
        loss, dlogits = ops.sigmoid_cross_entropy(logits, labels, reduction="sum")
    np.testing.assert_allclose(loss, 2 * huge, rtol=1e-6)
    np.testing.assert_array_equal(dlogits, [0, 1, -1, 0])


@pytest.mark.parametrize("norm", [np.array([2.0]), "2", None])
def test_a_norm_that_is_no_number_is_refused(norm: Any) -> None:
    with pytest.raises(TypeError, match="norm is .*, expected a number"):
        ops.clip_scale(norm, 1.0)


@pytest.mark.parametrize("loss", ["mean_squared_error", "sigmoid_cross_entropy"])
def test_gradients_of_losses_without_axes_are_arrays(backend: str, loss: str) -> None:
    with use_backend(backend):
        total, gradient = getattr(ops, loss)(np.array(2.0), np.array(1.0))
        of_one = getattr(ops, loss)(np.array([2.0]), np.array([1.0]))
    assert isinstance(gradient, np.ndarray)
    assert gradient.shape == ()
    assert (total, gradient) == (of_one[0], of_one[1][0])
