"""Book-style layers: gradients by differences, the book's attributes, one life for params and grads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import layers, ops
from fastlstm.contract import FloatArray, IntArray
from fastlstm.layers import Layer
from fastlstm.layers.product import product
from fastlstm.testing import check_gradient

N, T, S, D, H, V = 3, 4, 5, 6, 7, 8
RNG = np.random.default_rng(0)


def floats(*shape: int, scale: float = 1.0) -> FloatArray:
    return scale * RNG.standard_normal(shape)


def lstm_weights(D: int = D, H: int = H) -> tuple[FloatArray, FloatArray, FloatArray]:
    return floats(D, 4 * H, scale=0.5), floats(H, 4 * H, scale=0.5), floats(4 * H)


def rnn_weights() -> tuple[FloatArray, FloatArray, FloatArray]:
    return floats(D, H, scale=0.5), floats(H, H, scale=0.5), floats(H)


def gru_weights(biases: int = 1) -> tuple[FloatArray, FloatArray, FloatArray]:
    return floats(D, 3 * H, scale=0.5), floats(H, 3 * H, scale=0.5), floats(*(2, 3 * H)[2 - biases :])


IDS = RNG.integers(0, V, (N, T))
TARGETS = np.where(RNG.random((N, T)) < 0.3, -1, RNG.integers(0, V, (N, T)))
LABELS = RNG.integers(0, 2, (N, T))

# Layer, and its inputs that have a gradient. Losses come apart: they take targets too.
DIFFERENTIABLE: dict[str, tuple[Callable[[], Any], tuple[FloatArray, ...]]] = {
    "MatMul": (lambda: layers.MatMul(floats(D, H)), (floats(N, D),)),
    "Affine": (lambda: layers.Affine(floats(D, H), floats(H)), (floats(N, D),)),
    "TimeAffine": (lambda: layers.TimeAffine(floats(D, H), floats(H)), (floats(N, T, D),)),
    "RNN": (lambda: layers.RNN(*rnn_weights()), (floats(N, D), floats(N, H))),
    "LSTM": (lambda: layers.LSTM(*lstm_weights()), (floats(N, D), floats(N, H), floats(N, H))),
    "GRU": (lambda: layers.GRU(*gru_weights()), (floats(N, D), floats(N, H))),
    "GRU, keras": (lambda: layers.GRU(*gru_weights(2), convention="keras"), (floats(N, D), floats(N, H))),
    "TimeRNN": (lambda: layers.TimeRNN(*rnn_weights()), (floats(N, T, D),)),
    "TimeGRU": (lambda: layers.TimeGRU(*gru_weights()), (floats(N, T, D),)),
    "TimeGRU, pytorch, reverse": (
        lambda: layers.TimeGRU(*gru_weights(2), convention="pytorch", reverse=True),
        (floats(N, T, D),),
    ),
    "TimeLSTM": (lambda: layers.TimeLSTM(*lstm_weights()), (floats(N, T, D),)),
    "TimeLSTM, reverse": (lambda: layers.TimeLSTM(*lstm_weights(), reverse=True), (floats(N, T, D),)),
    "TimeBiLSTM": (lambda: layers.TimeBiLSTM(*lstm_weights(), *lstm_weights()), (floats(N, T, D),)),
    "TimeAttention": (layers.TimeAttention, (floats(N, S, H), floats(N, T, H))),
    "TimeRNN, reverse": (lambda: layers.TimeRNN(*rnn_weights(), reverse=True), (floats(N, T, D),)),
    "TimeBiRNN": (lambda: layers.TimeBiRNN(*rnn_weights(), *rnn_weights()), (floats(N, T, D),)),
    "TimeBiGRU": (
        lambda: layers.TimeBiGRU(*gru_weights(2), *gru_weights(2), convention="keras"),
        (floats(N, T, D),),
    ),
}


def as_tuple(value: Any) -> tuple[FloatArray, ...]:
    return value if isinstance(value, tuple) else (value,)


def set_and_run(layer: Layer, run: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """A function of inputs and parameters by name, for `check_gradient`."""

    def function(**arrays: FloatArray) -> Any:
        for param, name in zip(layer.params, layer.param_names, strict=True):
            param[...] = arrays[name]
        return run(*(arrays[name] for name in names))

    return function


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_inputs_and_parameters(name: str) -> None:
    make, inputs = DIFFERENTIABLE[name]
    layer = make()
    upstream = [floats(*out.shape) for out in as_tuple(layer.forward(*inputs))]
    grads = as_tuple(layer.backward(*upstream))
    names = [f"input{i}" for i in range(len(inputs))]

    def loss(*arrays: FloatArray) -> float:
        outs = as_tuple(layer.forward(*arrays))
        return sum(float((out * d).sum()) for out, d in zip(outs, upstream, strict=True))

    at = dict(zip(names, inputs, strict=True)) | {
        n: p.copy() for n, p in zip(layer.param_names, layer.params, strict=True)
    }
    got = dict(zip(names, grads, strict=True)) | {
        n: g.copy() for n, g in zip(layer.param_names, layer.grads, strict=True)
    }
    check_gradient(set_and_run(layer, loss, names), at, got)


@pytest.mark.parametrize("kind", [layers.Embedding, layers.TimeEmbedding])
def test_gradient_of_the_embedding(kind: type[layers.Embedding]) -> None:
    layer = kind(floats(V, D))
    upstream = floats(N, T, D)
    np.testing.assert_array_equal(layer.forward(IDS), layer.params[0][IDS])
    layer.backward(upstream)
    at, got = {"W": layer.params[0].copy()}, {"W": layer.grads[0].copy()}
    check_gradient(set_and_run(layer, lambda: float((layer.forward(IDS) * upstream).sum()), []), at, got)


def one_embedding_gradient(ids: IntArray, upstream: FloatArray, E: int = D) -> FloatArray:
    layer = layers.Embedding(np.zeros((V, E)))
    layer.forward(ids)
    layer.backward(upstream)
    return layer.grads[0]


@pytest.mark.parametrize("promise", [False, True])
def test_embedding_gradients_of_one_batch_after_another(promise: bool) -> None:
    """Ids come in one array that is filled anew, gradients are scaled, zeroed or left in between."""
    layer = layers.TimeEmbedding(floats(V, D))
    layer.grads_only_scaled = promise
    batch = np.empty(3, np.int64)
    for k, ids in enumerate(([0, 1, 1], [5, 1, 2], [3, 3, 3], [7, 0, 4], [4, 4, 6])):
        batch[...] = ids
        upstream = floats(3, D)
        layer.forward(batch)
        layer.backward(upstream)
        np.testing.assert_array_equal(layer.grads[0], one_embedding_gradient(batch, upstream))
        layer.grads[0] *= (1.0, 0.5, 0.0)[k % 3]


def test_without_a_promise_whatever_is_written_into_the_gradient_is_overwritten() -> None:
    layer = layers.Embedding(floats(V, D))
    ids, upstream = np.array([1, 2]), floats(2, D)
    for _ in range(2):
        layer.forward(ids)
        layer.backward(upstream)
        np.testing.assert_array_equal(layer.grads[0], one_embedding_gradient(ids, upstream))
        layer.grads[0] += floats(V, D)  # weight decay, or the gradient of a layer that shares the weights


def test_a_promise_counts_from_the_next_backward_call_on() -> None:
    layer = layers.Embedding(floats(V, D))
    ids, upstream = np.array([1, 2]), floats(2, D)

    def check() -> None:
        layer.forward(ids)
        layer.backward(upstream)
        np.testing.assert_array_equal(layer.grads[0], one_embedding_gradient(ids, upstream))

    layer.grads_only_scaled = True
    layer.grads[0][...] = np.nan  # before the first call under the promise
    check()
    layer.grads_only_scaled = False
    check()
    layer.grads[0][...] = np.nan
    layer.grads_only_scaled = True
    check()
    layer.grads[0] = np.full((V, D), np.nan)  # another array, of which nothing is known
    check()


def test_a_promise_saves_writing_the_other_rows() -> None:
    layer = layers.Embedding(floats(V, D))
    layer.grads_only_scaled = True
    for ids in ([1, 2], [2, 5]):
        layer.forward(np.array(ids))
        layer.backward(floats(2, D))
        layer.grads[0][4] = np.nan  # breaks the promise, which shows that row 4 is not written
    assert np.isnan(layer.grads[0][4]).all()
    assert not layer.grads[0][1].any()


LOSSES: dict[str, tuple[Callable[[], Any], FloatArray, Any]] = {
    "SoftmaxWithLoss": (layers.SoftmaxWithLoss, floats(N, V), IDS[:, 0]),
    "SigmoidWithLoss": (layers.SigmoidWithLoss, floats(N), LABELS[:, 0]),
    "TimeSoftmaxWithLoss": (layers.TimeSoftmaxWithLoss, floats(N, T, V), TARGETS),
    "TimeSigmoidWithLoss": (layers.TimeSigmoidWithLoss, floats(N, T), LABELS),
    "TimeAffineWithLoss": (lambda: layers.TimeAffineWithLoss(floats(H, V), floats(V)), floats(N, T, H), TARGETS),
}


@pytest.mark.parametrize("dout", [1, 2.5])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_losses(name: str, dout: float) -> None:
    make, x, t = LOSSES[name]
    layer = make()
    layer.forward(x, t)
    dx = layer.backward(dout)
    at = {"x": x} | {n: p.copy() for n, p in zip(layer.param_names, layer.params, strict=True)}
    got = {"x": dx} | {n: g.copy() for n, g in zip(layer.param_names, layer.grads, strict=True)}
    check_gradient(set_and_run(layer, lambda x: dout * layer.forward(x, t), ["x"]), at, got)


def cross_entropy(scores: FloatArray, targets: Any) -> float:
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    counts = targets != -1
    picked = np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return float(-picked[counts].mean())


def test_losses_are_means_over_the_targets_that_count() -> None:
    xs = floats(N, T, V)
    assert layers.TimeSoftmaxWithLoss().forward(xs, TARGETS) == pytest.approx(cross_entropy(xs, TARGETS))
    W, b, hs = floats(H, V), floats(V), floats(N, T, H)
    assert layers.TimeAffineWithLoss(W, b).forward(hs, TARGETS) == pytest.approx(cross_entropy(hs @ W + b, TARGETS))
    scores, labels = floats(N, T), LABELS
    p = 1 / (1 + np.exp(-scores))
    wanted = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert layers.TimeSigmoidWithLoss().forward(scores, labels) == pytest.approx(wanted)


def test_sigmoid_loss_of_huge_scores_is_finite() -> None:
    layer = layers.SigmoidWithLoss()
    assert layer.forward(np.array([1e4, -1e4]), np.array([0, 1])) == pytest.approx(1e4)
    np.testing.assert_array_equal(layer.backward(), [0.5, -0.5])


@pytest.mark.parametrize("name", ["SoftmaxWithLoss", "TimeSoftmaxWithLoss", "TimeAffineWithLoss"])
def test_one_hot_targets_are_accepted(name: str) -> None:
    make, x, t = LOSSES[name]
    layer = make()
    ids = np.maximum(t, 0)
    assert layer.forward(x, np.eye(V)[ids]) == layer.forward(x, ids)


@pytest.mark.parametrize("name", ["SoftmaxWithLoss", "TimeSoftmaxWithLoss", "TimeAffineWithLoss"])
def test_targets_are_ids_a_column_of_ids_or_one_hot_rows(name: str) -> None:
    make, x, t = LOSSES[name]
    layer = make()
    loss = layer.forward(x, t)
    assert layer.forward(x, t[..., None]) == loss
    rows = np.eye(V, dtype=np.uint8)[t]
    rows[t == -1] = 0
    assert layer.forward(x, rows) == loss
    for wrong, message in (
        (0.5 * rows, r"its rows are not one-hot: ts?\[.*\] holds 0.5 beside zeros, expected a single 1"),
        (rows + rows[::-1], "its rows are not one-hot"),
        (-1.0 * rows, "its rows are not one-hot: .* holds -1.0"),
        (np.where(rows, np.nan, 0.0), "its rows are not one-hot: .* holds nan"),
        (rows[..., :-1], r"expected one-hot rows of V = 8, ids of . ax.s, or a column of ids"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.forward(x, wrong)


def test_a_column_of_labels_is_labels() -> None:
    scores = 9 * np.eye(3)
    assert layers.SoftmaxWithLoss().forward(scores, np.array([[0], [1], [2]])) == pytest.approx(0.000246789)
    one_class = layers.SoftmaxWithLoss()
    assert one_class.forward(np.ones((2, 1)), np.array([[1], [0]])) == 0.0  # the second does not count


@pytest.mark.parametrize("name", LOSSES)
def test_masked_targets_are_refused(name: str) -> None:
    make, x, t = LOSSES[name]
    with pytest.raises(TypeError, match="is a masked array"):
        make().forward(x, np.ma.array(t, mask=np.arange(t.size).reshape(t.shape) == 1))


def test_a_row_of_zeros_has_the_label_that_is_ignored() -> None:
    layer = layers.SoftmaxWithLoss()
    layer.ignore_label = -100
    rows = np.eye(V)[[3, 5, 1]]
    rows[1] = 0.0
    x = floats(3, V)
    assert layer.forward(x, rows) == layer.forward(x, np.array([3, -100, 1]))
    assert not layer.backward()[1].any()


def test_another_label_can_be_ignored() -> None:
    xs = floats(N, T, V)
    layer = layers.TimeSoftmaxWithLoss()
    layer.ignore_label = 0
    layer.forward(xs, IDS)
    assert not layer.backward()[IDS == 0].any()
    assert layer.backward()[IDS != 0].any()


def test_a_second_backward_replaces_the_factor_of_the_first() -> None:
    make, *inputs = LOSSES["TimeAffineWithLoss"]
    layer = make()
    layer.forward(*inputs)
    dhs = layer.backward().copy()
    dW, db = (grad.copy() for grad in layer.grads)
    for dout in (2, 2, 0.5, 1, 0):
        np.testing.assert_array_equal(layer.backward(dout), dhs * dout)
        np.testing.assert_array_equal(layer.grads[0], dW * dout)
        np.testing.assert_array_equal(layer.grads[1], db * dout)
    layer.forward(*inputs)
    layer.backward(2)
    with pytest.raises(ValueError, match="W has shape"):  # and the gradients stay those of the call before
        layer.forward(inputs[0][..., 1:], inputs[1])
    layer.backward()
    np.testing.assert_array_equal(layer.grads[0], dW)
    layer.backward(0)
    with pytest.raises(RuntimeError, match=r"backward\(0\) has cleared the gradients; call forward again"):
        layer.backward()
    layer.forward(*inputs)
    np.testing.assert_array_equal(layer.backward(), dhs)


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, "TimeEmbedding", "TimeAffineWithLoss"])
def test_params_and_grads_are_the_same_arrays_for_life(name: str) -> None:
    if name == "TimeEmbedding":
        W = floats(V, D)
        layer: Any = layers.TimeEmbedding(W)
        assert layer.params[0] is W
    else:
        layer = (DIFFERENTIABLE | LOSSES)[name][0]()
    params, grads = list(layer.params), list(layer.grads)
    for _ in range(2):
        if name == "TimeEmbedding":
            layer.forward(IDS)
            layer.backward(floats(N, T, D))
        elif name == "TimeAffineWithLoss":
            layer.forward(*LOSSES[name][1:])
            layer.backward()
        else:
            layer.backward(*(np.ones_like(out) for out in as_tuple(layer.forward(*DIFFERENTIABLE[name][1]))))
        for grad in grads:  # a second backward overwrites, it does not add
            assert grad.any()
            grad.fill(np.nan)
    assert all(a is b for a, b in zip(params, layer.params, strict=True))
    assert all(a is b for a, b in zip(grads, layer.grads, strict=True))
    assert len(layer.param_names) == len(params) == len(grads)


# --------------------------------------------------------------------------------------------
# State
# --------------------------------------------------------------------------------------------


def test_steps_of_the_lstm_are_the_sequence() -> None:
    weights = lstm_weights()
    xs = floats(N, T, D)
    sequence = layers.TimeLSTM(*weights)
    hs = sequence.forward(xs)
    step = layers.LSTM(*weights)
    h: FloatArray = np.zeros((N, H))
    c: FloatArray = np.zeros((N, H))
    for t in range(T):
        h, c = step.forward(xs[:, t].copy(), h, c)
        np.testing.assert_allclose(hs[:, t], h, rtol=1e-12)
    assert sequence.h is not None
    assert sequence.c is not None
    np.testing.assert_allclose(sequence.h, h, rtol=1e-12)
    np.testing.assert_allclose(sequence.c, c, rtol=1e-12)


def test_the_lstm_has_the_gate_order_of_the_book() -> None:
    weights, xs = lstm_weights(), floats(N, T, D)
    np.testing.assert_array_equal(
        layers.TimeLSTM(*weights).forward(xs), ops.lstm_forward(xs, *weights, gate_order="fgio").hs
    )


def test_the_gru_is_that_of_the_book() -> None:
    Wx, Wh, b = gru_weights()
    x, h = floats(N, D), floats(N, H)
    (Wxz, Wxr, Wxh), (Whz, Whr, Whh), (bz, br, bh) = (np.split(array, 3, axis=-1) for array in (Wx, Wh, b))
    z = 1 / (1 + np.exp(-(x @ Wxz + h @ Whz + bz)))
    r = 1 / (1 + np.exp(-(x @ Wxr + h @ Whr + br)))
    candidate = np.tanh(x @ Wxh + (r * h) @ Whh + bh)
    wanted = (1 - z) * h + z * candidate
    np.testing.assert_allclose(layers.GRU(Wx, Wh, b).forward(x, h), wanted, rtol=1e-12)
    layer = layers.TimeGRU(Wx, Wh, b, True)
    layer.set_state(h)
    np.testing.assert_allclose(layer.forward(x[:, None])[:, 0], wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", ["TimeLSTM", "TimeRNN", "TimeGRU", "TimeBiLSTM"])
def test_a_stateful_layer_goes_on_where_it_was(kind: str) -> None:
    weights: dict[str, tuple[FloatArray, ...]] = {
        "TimeLSTM": lstm_weights(),
        "TimeRNN": rnn_weights(),
        "TimeGRU": gru_weights(),
        "TimeBiLSTM": lstm_weights() + lstm_weights(),
    }
    layer = getattr(layers, kind)(*weights[kind], stateful=True)
    xs = floats(N, T, D)
    first = layer.forward(xs)
    assert not np.array_equal(layer.forward(xs), first)
    layer.reset_state()
    assert layer.h is None
    np.testing.assert_array_equal(layer.forward(xs), first)
    stateless = getattr(layers, kind)(*layer.params)
    np.testing.assert_array_equal(stateless.forward(xs), first)
    np.testing.assert_array_equal(stateless.forward(xs), first)


def test_the_state_of_the_lstm_can_be_set_and_has_gradients() -> None:
    layer = layers.TimeLSTM(*lstm_weights(), stateful=True)
    xs, h0, c0 = floats(N, T, D), floats(N, H), floats(N, H)
    upstream, dh_n, dc_n = floats(N, T, H), floats(N, H), floats(N, H)

    def loss(h0: FloatArray, c0: FloatArray) -> float:
        layer.set_state(h0, c0)
        hs = layer.forward(xs)
        assert layer.h is not None
        assert layer.c is not None
        return float((hs * upstream).sum() + (layer.h * dh_n).sum() + (layer.c * dc_n).sum())

    loss(h0, c0)
    layer.backward(upstream, dh_n=dh_n, dc_n=dc_n)
    assert layer.dh is not None
    assert layer.dc is not None
    check_gradient(loss, {"h0": h0, "c0": c0}, {"h0": layer.dh, "c0": layer.dc})

    layer.set_state(h0)
    with_h_alone = layer.forward(xs)
    layer.set_state(h0, np.zeros_like(h0))
    np.testing.assert_array_equal(layer.forward(xs), with_h_alone)


@pytest.mark.parametrize("kind", ["TimeRNN", "TimeGRU"])
def test_the_state_can_be_set_and_has_a_gradient(kind: str) -> None:
    layer = layers.TimeRNN(*rnn_weights(), True) if kind == "TimeRNN" else layers.TimeGRU(*gru_weights(), True)
    xs, h0, upstream = floats(N, T, D), floats(N, H), floats(N, T, H)

    def loss(h0: FloatArray) -> float:
        layer.set_state(h0)
        return float((layer.forward(xs) * upstream).sum())

    loss(h0)
    layer.backward(upstream)
    assert layer.dh is not None
    check_gradient(loss, {"h0": h0}, {"h0": layer.dh})


def test_the_bidirectional_lstm_is_two_lstms_and_a_flip() -> None:
    one, two, xs = lstm_weights(), lstm_weights(), floats(N, T, D)
    layer = layers.TimeBiLSTM(*one, *two)
    hs = layer.forward(xs)
    np.testing.assert_array_equal(hs[..., :H], layers.TimeLSTM(*one).forward(xs))
    flipped = layers.TimeLSTM(*two).forward(np.ascontiguousarray(xs[:, ::-1]))[:, ::-1]
    np.testing.assert_allclose(hs[..., H:], flipped, rtol=1e-12)
    assert layer.h is not None
    np.testing.assert_array_equal(layer.h, np.concatenate((hs[:, -1, :H], hs[:, 0, H:]), axis=1))


@pytest.mark.parametrize("kind", ["TimeLSTM", "TimeGRU", "TimeRNN", "TimeBiLSTM", "TimeBiGRU", "TimeBiRNN"])
def test_a_masked_step_carries_the_state_over(kind: str) -> None:
    weights_of: dict[str, Callable[[], Any]] = {"LSTM": lstm_weights, "GRU": gru_weights, "RNN": rnn_weights}
    one = weights_of[kind.removeprefix("Time").removeprefix("Bi")]
    layer = getattr(layers, kind)(*one(), *(one() if "Bi" in kind else ()))
    xs, lengths = floats(N, T, D), np.arange(N) % T + 1
    mask = np.arange(T) < lengths[:, None]
    layer.forward(xs, mask=mask)
    h, dxs = layer.h, layer.backward(None, dh_n=np.ones_like(layer.h))
    np.testing.assert_array_equal(dxs[~mask], 0)
    for n, length in enumerate(lengths):
        layer.forward(np.ascontiguousarray(xs[n : n + 1, :length]))
        np.testing.assert_allclose(h[n : n + 1], layer.h, rtol=1e-12)


def test_the_bidirectional_lstm_takes_gradients_by_its_last_states() -> None:
    layer = layers.TimeBiLSTM(*lstm_weights(), *lstm_weights())
    xs, dh_n, dc_n = floats(N, T, D), floats(N, 2 * H), floats(N, 2 * H)

    def loss(xs: FloatArray) -> float:
        layer.forward(xs)
        assert layer.h is not None
        assert layer.c is not None
        return float((layer.h * dh_n).sum() + (layer.c * dc_n).sum())

    loss(xs)
    check_gradient(loss, {"xs": xs}, {"xs": layer.backward(None, dh_n=dh_n, dc_n=dc_n)})


def test_without_training_nothing_is_kept() -> None:
    weights, xs = lstm_weights(), floats(N, T, D)
    layer = layers.TimeLSTM(*weights)
    np.testing.assert_array_equal(layer.forward(xs, training=False), layers.TimeLSTM(*weights).forward(xs))
    with pytest.raises(TypeError, match="call lstm_forward with training=True"):
        layer.backward(floats(N, T, H))


@pytest.mark.parametrize(
    ("layer", "dout"),
    [
        (layers.MatMul(floats(D, H)), floats(N, H)),
        (layers.Affine(floats(D, H), floats(H)), floats(N, H)),
        (layers.TimeEmbedding(floats(V, D)), floats(N, T, D)),
        (layers.TimeSoftmaxWithLoss(), 1),
        (layers.TimeAttention(), floats(N, T, H)),
    ],
)
def test_backward_before_forward_is_an_error(layer: Any, dout: Any) -> None:
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        layer.backward(dout)


def wrong_arrays(right: Any) -> list[Any]:
    """A list, an array with too few columns, and one whose first two axes are swapped."""
    return [right.tolist(), right[..., :-1], right.swapaxes(0, 1)]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_wrong_call_changes_nothing(name: str) -> None:
    make, inputs = DIFFERENTIABLE[name]
    layer = make()
    douts = [floats(*out.shape) for out in as_tuple(layer.forward(*inputs))]
    expected = [grad.copy() for grad in (*as_tuple(layer.backward(*douts)), *layer.grads)]
    for wrong in wrong_arrays(douts[0]):
        with pytest.raises((TypeError, ValueError), match="expected"):
            layer.backward(wrong, *douts[1:])
        for grad, right in zip(reversed(layer.grads), reversed(expected), strict=False):
            np.testing.assert_array_equal(grad, right)
    for wrong in (inputs[0].tolist(), inputs[0][..., :-1]):
        with pytest.raises((TypeError, ValueError), match="expected"):
            layer.forward(wrong, *inputs[1:])
        # What is kept is of the call before.
        got = (*as_tuple(layer.backward(*douts)), *layer.grads)
        for grad, right in zip(got, expected, strict=True):
            np.testing.assert_array_equal(grad, right)


def test_a_call_that_one_direction_fails_changes_neither() -> None:
    layer = layers.TimeBiLSTM(*lstm_weights(), *lstm_weights(), stateful=True)
    dhs = floats(N, T, 2 * H)
    layer.forward(floats(N, T, D))
    h, dxs = layer.h, layer.backward(dhs)
    right = layer.backward_layer.params[0]
    layer.backward_layer.params[0] = right[1:]
    with pytest.raises(ValueError, match="Wx has shape"):
        layer.forward(floats(N, T, D))
    layer.backward_layer.params[0] = right
    np.testing.assert_array_equal(layer.h, h)
    np.testing.assert_array_equal(layer.backward(dhs), dxs)


def test_an_embedding_keeps_the_ids_of_a_call_that_ended_well() -> None:
    layer = layers.TimeEmbedding(floats(V, D))
    layer.forward(IDS)
    with pytest.raises(IndexError, match="expected ids from 0"):
        layer.forward(IDS + V)
    layer.backward(floats(N, T, D))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_no_lists_for_scores(name: str) -> None:
    make, x, t = LOSSES[name]
    with pytest.raises(TypeError, match="expected a numpy or CuPy array"):
        make().forward(x.tolist(), t)


def test_masks_are_of_the_shape_that_is_said() -> None:
    # Of those that numpy would broadcast, too: the mean would be that of fewer elements.
    y = floats(N, T, D)
    for mask in (np.ones(T, bool), np.ones((1, T), bool), np.ones((T, N), bool)):
        with pytest.raises(ValueError, match=r"mask has shape .*, expected \(3, 4\)"):
            layers.MeanSquaredError().forward(y, 2 * y, mask=mask)
        with pytest.raises(ValueError, match=r"mask has shape .*, expected \(3, 4\)"):
            layers.TimeAttention().forward(y, y, mask)


def test_dropout_takes_gradients_of_its_shape_only() -> None:
    layer = layers.TimeDropout()
    layer.forward(floats(N, T, D))
    for wrong in (floats(T, D), floats(1, N, T, D), floats(N, T, 1)):
        with pytest.raises(ValueError, match=r"dout has shape .*, expected \(3, 4, 6\)"):
            layer.backward(wrong)


# --------------------------------------------------------------------------------------------
# Dropout, attention, products
# --------------------------------------------------------------------------------------------


def test_dropout_draws_the_masks_of_the_book() -> None:
    xs = floats(N, T, D).astype(np.float32)
    layer = layers.TimeDropout(0.3)
    np.random.seed(5)  # noqa: NPY002
    out = layer.forward(xs)
    np.random.seed(5)  # noqa: NPY002
    mask = (np.random.rand(*xs.shape) > 0.3) / np.float32(0.7)  # noqa: NPY002
    np.testing.assert_allclose(out, xs * mask, rtol=1e-6)
    np.testing.assert_allclose(layer.backward(np.ones_like(xs)), mask, rtol=1e-6)
    assert out.dtype == np.float32


def test_dropout_with_a_generator_and_without_training() -> None:
    xs = floats(N, T, D)
    layer = layers.TimeDropout(0.5, rng=np.random.default_rng(1))
    out = layer.forward(xs)
    seed = int(np.random.default_rng(1).integers(0, 2**64, dtype=np.uint64))
    mask = ops.dropout_mask(xs, 0.5, seed=seed)
    assert set(np.unique(mask)) == {0.0, 2.0}
    np.testing.assert_array_equal(out, xs * mask)
    layer.train_flg = False
    np.testing.assert_array_equal(layer.forward(xs), xs)
    np.testing.assert_array_equal(layer.backward(xs), xs)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_dropout_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0 and below 1"):
        layers.TimeDropout(ratio)


def test_attention_weights_are_softmax_of_dot_products() -> None:
    layer = layers.TimeAttention()
    assert layer.attention_weights == []
    hs_enc, hs_dec = floats(N, S, H), floats(N, T, H)
    context = layer.forward(hs_enc, hs_dec)
    assert len(layer.attention_weights) == T
    for t, weights in enumerate(layer.attention_weights):
        scores = np.exp((hs_enc * hs_dec[:, t, None]).sum(axis=2))
        np.testing.assert_allclose(weights, scores / scores.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(context[:, t], (weights[:, :, None] * hs_enc).sum(axis=1))


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (700, 64, 16), (100, 1000, 10), (3, 600, 600)])
def test_product_in_blocks_is_the_product(shape: tuple[int, int, int]) -> None:
    M, K, L = shape
    a, b = floats(M, K), floats(K, L)
    np.testing.assert_allclose(product(a, b), a @ b, atol=1e-12)
    out = np.full((M, L), np.nan)
    assert product(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b, atol=1e-12)


def test_no_rows_and_no_steps() -> None:
    for shape in ((0, T), (N, 0)):
        layer = layers.TimeAffine(floats(D, H), floats(H))
        assert layer.forward(np.empty((*shape, D))).shape == (*shape, H)
        assert layer.backward(np.empty((*shape, H))).shape == (*shape, D)
        assert not any(grad.any() for grad in layer.grads)
        lstm = layers.TimeLSTM(*lstm_weights())
        assert lstm.forward(np.empty((*shape, D))).shape == (*shape, H)
        output = layers.TimeAffineWithLoss(floats(H, V), floats(V))
        assert output.forward(np.empty((*shape, H)), np.empty(shape, np.int64)) == 0.0
        assert output.scores(np.empty((*shape, H))).shape == (*shape, V)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_layers_compute_in_float32(name: str) -> None:
    make, inputs = DIFFERENTIABLE[name]
    layer = make()
    wanted = as_tuple(layer.forward(*inputs))
    options = {name: getattr(layer, name) for name in ("reverse", "convention") if hasattr(layer, name)}
    single = type(layer)(*(p.astype(np.float32) for p in layer.params), **options)
    outs = as_tuple(single.forward(*(x.astype(np.float32) for x in inputs)))
    grads = as_tuple(single.backward(*(np.ones_like(out) for out in outs)))
    for out, want in zip(outs, wanted, strict=True):
        np.testing.assert_allclose(out, want, atol=1e-4)
    assert {array.dtype for array in (*outs, *grads, *single.grads)} == {np.dtype(np.float32)}


def test_a_layer_says_how_its_weights_are_used() -> None:
    W = np.zeros
    assert repr(layers.Affine(W((3, 2)), W(2))) == "Affine(W (3, 2), b (2,))"
    assert repr(layers.LSTM(W((3, 8)), W((2, 8)), W(8))) == "LSTM(Wx (3, 8), Wh (2, 8), b (8,), gate_order='fgio')"
    both = layers.TimeBiLSTM(W((3, 8)), W((2, 8)), W(8), W((3, 8)), W((2, 8)), W(8), gate_order="ifgo")
    assert repr(both).endswith("b2 (8,), gate_order='ifgo')")
    time_lstm = layers.TimeLSTM(W((3, 8)), W((2, 8)), W(8), stateful=True, gate_order="ifgo")
    assert "gate_order='ifgo', reverse=False, stateful=True)" in repr(time_lstm)
    assert repr(layers.GRU(W((3, 6)), W((2, 6)), W(6))).endswith("convention='book')")
