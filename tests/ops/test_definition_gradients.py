"""The definition's gradients against central differences: float64, every input, non-zero states and upstream, masks."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pytest
from recurrent_cases import CELLS, GRU, GRU_LAYOUTS, LSTM, LSTM_LAYOUTS, RNN, RNN_LAYOUTS

from fastlstm import ops, use_backend
from fastlstm.contract import FloatArray
from fastlstm.testing import Case, check_gradient, run_case

SEQUENCES = [
    *LSTM,
    *LSTM_LAYOUTS,
    *GRU,
    *GRU_LAYOUTS,
    *RNN,
    *RNN_LAYOUTS,
]
RECURRENT = [*SEQUENCES, *CELLS]
# Differences cannot see the gradient of a gate that is exactly 0 or 1; the case is for the backends.
RECURRENT = [case for case in RECURRENT if not case.name.startswith("saturated")]
LOSSES = [case for case in cases.LOSSES if case.name not in {"huge", "minus-infinity", "nan", "nan-ignored"}]


@pytest.fixture(autouse=True)
def _definition() -> Any:
    with use_backend("numpy"):
        yield


def floats_of(case: Case) -> dict[str, FloatArray]:
    return {name: v for name, v in case.inputs.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}


def weighted_outputs(case: Case, **floats: FloatArray) -> float:
    """The loss whose gradient the backward operator gives: every output times its upstream gradient."""
    out = getattr(ops, case.op)(**{**case.inputs, **floats})._asdict()
    return float(sum((out[name[1:]] * grad).sum() for name, grad in case.upstream.items() if grad is not None))


@pytest.mark.parametrize("case", RECURRENT, ids=str)
def test_recurrent_gradients(case: Case) -> None:
    inputs = floats_of(case)
    results = run_case(case)
    grads = {name: results["d" + name] for name in inputs}
    check_gradient(lambda **floats: weighted_outputs(case, **floats), inputs, grads)


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_without_training_the_results_are_the_same(backend: str, case: Case) -> None:
    forward = getattr(ops, case.op)
    *with_tape, tape = forward(**case.inputs)
    *without_tape, no_tape = forward(**case.inputs, training=False)
    assert tape is not None
    assert no_tape is None
    for a, b in zip(with_tape, without_tape, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", [c for c in cases.EMBEDDING if c.op == "embedding_backward_rows"], ids=str)
def test_embedding_gradients(case: Case) -> None:
    ids, dout = case.inputs["ids"], case.inputs["dout"]
    V = 1 + int(ids.max(initial=0))
    W = np.random.default_rng(0).standard_normal((V, dout.shape[-1]))
    dense = ops.embedding_backward(ids, dout, V)
    rows = ops.embedding_backward_rows(ids, dout)
    check_gradient(lambda W: float((ops.embedding_forward(W, ids) * dout).sum()), {"W": W}, {"W": dense})
    scattered = np.zeros_like(W)
    scattered[rows.indices] = rows.values
    np.testing.assert_allclose(scattered, dense, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(rows.indices, np.unique(ids))


def test_the_row_of_padding_idx_gets_no_gradient() -> None:
    dW = ops.embedding_backward(np.array([0, 2, 2, 1]), np.ones((4, 3)), 4, padding_idx=2)
    np.testing.assert_array_equal(dW, [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_loss_gradients(case: Case) -> None:
    inputs = floats_of(case)
    results = run_case(case)
    grads = {name: results["d" + name] for name in inputs}

    def loss(**floats: FloatArray) -> float:
        return float(getattr(ops, case.op)(**{**case.inputs, **floats}).loss)

    check_gradient(loss, inputs, grads)


# Differences of huge sums see nothing of small ones.
@pytest.mark.parametrize("case", [case for case in cases.PLAIN_LOSSES if case.name != "huge"], ids=str)
def test_gradients_of_losses_by_their_outputs(case: Case) -> None:
    name = next(iter(case.inputs))
    grads = {name: run_case(case)["d" + name]}

    def loss(**outputs: FloatArray) -> float:
        return float(getattr(ops, case.op)(**{**case.inputs, **outputs}).loss)

    check_gradient(loss, {name: case.inputs[name]}, grads)


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_linear_cross_entropy_is_the_projection_and_the_loss_in_one(memory: str) -> None:
    case = next(c for c in cases.LOSSES if str(c) == f"linear_cross_entropy-batch-{memory}")
    h, W, b, targets = (case.inputs[name] for name in ("h", "W", "b", "targets"))
    plain = ops.softmax_cross_entropy(h @ W + b, targets)
    assert ops.linear_cross_entropy(**case.inputs).loss == pytest.approx(plain.loss, rel=1e-12)


def test_all_targets_ignored_gives_zero() -> None:
    loss, dlogits = ops.softmax_cross_entropy(np.ones((3, 4)), np.full(3, -1))
    assert loss == 0.0
    assert isinstance(loss, float)
    np.testing.assert_array_equal(dlogits, np.zeros((3, 4)))


def test_losses_known_by_hand() -> None:
    loss, dlogits = ops.softmax_cross_entropy(np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]), np.array([2, 0]))
    assert loss == pytest.approx(-(np.log(5 / 8) + np.log(1 / 4)) / 2)
    np.testing.assert_allclose(dlogits, [[1 / 16, 2 / 16, -3 / 16], [-3 / 8, 1 / 8, 2 / 8]])


@pytest.mark.parametrize(("options", "divisor"), [({"reduction": "sum"}, 1), ({"normalizer": 4}, 4)])
def test_a_sum_known_by_hand(options: dict[str, Any], divisor: float) -> None:
    logits, targets = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), np.array([2, 0, -1])
    want = -(np.log(5 / 8) + np.log(1 / 4))
    dwant = np.array([[1 / 8, 2 / 8, -3 / 8], [-3 / 4, 1 / 4, 2 / 4], [0, 0, 0]])
    loss, dlogits = ops.softmax_cross_entropy(logits, targets, **options)
    assert loss * divisor == pytest.approx(want)
    np.testing.assert_allclose(dlogits * divisor, dwant)
    loss, dh, dW, db = ops.linear_cross_entropy(np.eye(3), logits, None, targets, **options)
    assert loss * divisor == pytest.approx(want)
    np.testing.assert_allclose(dW * divisor, dwant)
    np.testing.assert_allclose(dh * divisor, dwant @ logits.T)
    assert db is None
    loss, dy = ops.mean_squared_error(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]), **options)
    assert loss * divisor == 5
    np.testing.assert_array_equal(dy * divisor, [[2.0, -4.0]])
    loss, dlogits = ops.sigmoid_cross_entropy(np.log([[3.0, 1.0]]), np.array([[1.0, 0.0]]), **options)
    assert loss * divisor == pytest.approx(-(np.log(3 / 4) + np.log(1 / 2)))
    np.testing.assert_allclose(dlogits * divisor, [[-1 / 4, 1 / 2]])


def test_softmax_known_by_hand() -> None:
    logits = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(ops.softmax(logits), [[1 / 8, 2 / 8, 5 / 8]])
    np.testing.assert_allclose(ops.softmax(logits, temperature=0.5), [[1 / 30, 4 / 30, 25 / 30]])
    np.testing.assert_array_equal(ops.softmax(np.array([1e4, -1e4, -np.inf])), [1, 0, 0])


def test_plain_losses_known_by_hand() -> None:
    loss, dlogits = ops.sigmoid_cross_entropy(np.log([[3.0, 1.0]]), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(-(np.log(3 / 4) + np.log(1 / 2)) / 2)
    np.testing.assert_allclose(dlogits, [[-1 / 8, 1 / 4]])
    loss, dlogits = ops.sigmoid_cross_entropy(np.log([[3.0, 1.0]]), np.array([[1.0, 0.0]]), normalizer=0.5)
    assert loss == pytest.approx(-2 * (np.log(3 / 4) + np.log(1 / 2)))
    np.testing.assert_allclose(dlogits, [[-1 / 2, 1]])
    loss, dy = ops.mean_squared_error(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    assert (loss, type(loss)) == (2.5, float)
    np.testing.assert_array_equal(dy, [[1.0, -2.0]])


def test_a_cell_known_by_hand() -> None:
    """i, f, o = sigmoid(0) = 1/2, g = tanh(1): c = f c + i g, h = o tanh(c)."""
    zeros, b = np.zeros((1, 4)), np.array([0.0, 0.0, 1.0, 0.0])
    one = np.ones((1, 1))
    out = ops.lstm_cell_forward(one, one, 3 * one, zeros, zeros, b)
    c = 0.5 * 3 + 0.5 * np.tanh(1)
    np.testing.assert_allclose(out.c, [[c]])
    np.testing.assert_allclose(out.h, [[0.5 * np.tanh(c)]])


def test_a_gru_known_by_hand() -> None:
    """z = sigmoid(0) = 1/2, r = sigmoid(log 3) = 3/4; the state 2 meets r before or after its weight 3 and bias 1."""
    one, log3 = np.ones((1, 1, 1)), np.log(3)
    Wx, Wh, h0 = np.zeros((1, 3)), np.array([[0.0, 0.0, 3.0]]), np.array([[2.0]])
    book = ops.gru_forward(one, Wx, Wh, np.array([0.0, log3, 0.5]), h0=h0)
    np.testing.assert_allclose(book.h_n, [[0.5 * 2 + 0.5 * np.tanh(0.5 + 3 * 0.75 * 2)]])
    after = np.tanh(0.5 + 0.75 * (3 * 2 + 1))
    keras = ops.gru_forward(one, Wx, Wh, np.array([[log3, log3, 0.5], [0, 0, 1]]), h0=h0, convention="keras")
    np.testing.assert_allclose(keras.h_n, [[0.75 * 2 + 0.25 * after]])
    pytorch = ops.gru_forward(one, Wx, Wh, np.array([[log3, 0, 0.5], [0, 0, 1]]), h0=h0, convention="pytorch")
    np.testing.assert_allclose(pytorch.h_n, [[0.5 * 2 + 0.5 * after]])


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_gru_row_without_valid_steps_keeps_its_state(reset_after: bool) -> None:
    case = next(c for c in GRU if c.name == "no-step-counts" + "-pytorch" * reset_after)
    results = run_case(case)
    np.testing.assert_array_equal(results["h_n"], case.inputs["h0"])
    np.testing.assert_allclose(results["dh0"], case.upstream["dhs"].sum(axis=1) + case.upstream["dh_n"])
    for name in ("dxs", "dWx", "dWh", "db"):
        assert not results[name].any(), name


def test_a_row_without_valid_steps_keeps_its_state() -> None:
    case = next(c for c in LSTM if c.name == "no-step-counts")
    results = run_case(case)
    N, T, _ = case.inputs["xs"].shape
    np.testing.assert_array_equal(results["hs"], np.repeat(case.inputs["h0"][:, None], T, axis=1))
    np.testing.assert_array_equal(results["c_n"], case.inputs["c0"])
    np.testing.assert_allclose(results["dh0"], case.upstream["dhs"].sum(axis=1) + case.upstream["dh_n"])
    np.testing.assert_array_equal(results["dc0"], case.upstream["dc_n"])
    for name in ("dxs", "dWx", "dWh", "db"):
        assert not results[name].any(), name


def test_reverse_with_lengths_is_each_row_turned_round() -> None:
    case = next(c for c in LSTM if c.name == "lengths-reverse")
    lengths, xs = case.inputs["lengths"], case.inputs["xs"]
    forward = {name: v for name, v in case.inputs.items() if name not in ("lengths", "reverse", "xs", "h0", "c0")}
    hs, h_n, c_n, _ = ops.lstm_forward(**case.inputs)
    for n, length in enumerate(lengths):
        states = {"h0": case.inputs["h0"][n : n + 1], "c0": case.inputs["c0"][n : n + 1]}
        alone = ops.lstm_forward(xs[n : n + 1, :length][:, ::-1], **forward, **states)
        np.testing.assert_allclose(hs[n, :length], alone.hs[0, ::-1], rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(h_n[n], alone.h_n[0], rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(c_n[n], alone.c_n[0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "case",
    [case for case in (*LSTM, *GRU, *RNN) if case.name in ("H17", "H17-pytorch")],
    ids=str,
)
def test_nan_in_one_row_reaches_its_results_and_no_other_row(backend: str, case: Case) -> None:
    xs = case.inputs["xs"].copy()
    xs[3, 1, 0] = np.nan
    with use_backend(backend):
        clean = run_case(case)
        results = run_case(Case(case.name, case.op, {**case.inputs, "xs": xs}, case.upstream))
    assert np.isnan(results["hs"][3, 1:]).all()
    assert np.isnan(results["dWx"]).any()
    others = np.arange(len(xs)) != 3
    np.testing.assert_array_equal(results["hs"][others], clean["hs"][others])
    np.testing.assert_array_equal(results["dxs"][others], clean["dxs"][others])
