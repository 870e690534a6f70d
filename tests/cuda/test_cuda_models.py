"""Whole models on the emulated kernels: every family's together, on the arrays that layers and models hand on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy_as_cupy
import pytest
from cuda_cases import H200, SMALL
from numpy_as_cupy import numbers_may_be_read
from tiny_models import MAKERS, V, ids, parameters

from fastlstm import layers, optim
from fastlstm.models import RNNLM, Model, Seq2seq, SequenceClassifier
from fastlstm.ops.device import to_device, to_host

TOLERANCES = {"float64": (1e-9, 1e-11), "float32": (1e-4, 1e-5)}  # relative, absolute
# Adam divides gradients by their own size, so that it makes much of the digits in which float32 sums differ.
OPTIMIZERS: dict[str, Callable[[], optim.Optimizer]] = {"float64": optim.Adam, "float32": lambda: optim.Momentum(0.05)}


@pytest.fixture(autouse=True)
def _memory_is_whole() -> Iterator[None]:
    yield
    numpy_as_cupy.check_margins()


def trained(model: Model, *data: Any, **arguments: Any) -> dict[str, Any]:
    """All that a training leaves: losses and metrics, and the weights."""
    dtype = model.options["dtype"]
    with numbers_may_be_read():
        history = model.fit(*data, max_grad=0.5, verbose=0, **{**arguments, "optimizer": OPTIMIZERS[dtype]()}).history
        evaluated = model.evaluate(*data)
    weights = {str(k): param for k, param in enumerate(parameters(model))}
    return {**history, "evaluated": list(evaluated.values()), **weights}


def close(got: Any, want: Any, dtype: str = "float64", name: str = "") -> None:
    rtol, atol = TOLERANCES[dtype]
    np.testing.assert_allclose(to_host(got), want, rtol=rtol, atol=atol, err_msg=name)


def compare(got: Mapping[str, Any], want: Mapping[str, Any], dtype: str) -> None:
    assert list(got) == list(want)
    for name, values in want.items():
        close(got[name], values, dtype, name)


def in_dtype(name: str, dtype: str) -> Model:
    model = MAKERS[name][0]()
    return type(model)(**{**model.options, "dtype": dtype})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKERS)
def test_training_on_emulated_kernels_is_training_on_the_host(small: Any, name: str, dtype: str) -> None:
    _, data, arguments = MAKERS[name]
    want = trained(in_dtype(name, dtype), *data(6), **arguments)
    before = small.launches()
    compare(trained(in_dtype(name, dtype).to("cuda"), *data(6), **arguments), want, dtype)
    assert small.launches() > before


@pytest.mark.parametrize("kernel", ["step", "persistent"])
@pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith("word2vec")])
def test_training_with_every_kernel(small: Any, monkeypatch: pytest.MonkeyPatch, kernel: str, name: str) -> None:
    """The kernel of rows is the choice of the test above, for float32 LSTMs."""
    _, data, arguments = MAKERS[name]
    want = trained(in_dtype(name, "float32"), *data(3), **{**arguments, "epochs": 1})
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", kernel)
    compare(trained(in_dtype(name, "float32").to("cuda"), *data(3), **{**arguments, "epochs": 1}), want, "float32")


@pytest.mark.parametrize(
    "name", ["rnnlm two layers, tied, dropout", "seq2seq attention, bidirectional, padding", "word2vec nce"]
)
def test_a_training_has_the_same_bits_for_every_order_of_the_threads(emulation: Any, name: str) -> None:
    _, data, arguments = MAKERS[name]
    results = []
    for seed in (0, 7):
        emulation.emulate(**SMALL, seed=seed)
        results.append(trained(in_dtype(name, "float32").to("cuda"), *data(6), **arguments))
    for key, first in results[0].items():
        np.testing.assert_array_equal(first, results[1][key], err_msg=key)


WIDE: dict[str, tuple[Callable[[], Model], Callable[[], tuple[Any, ...]]]] = {
    # The rows kernel with four rows a block, of which the last has two, on two multiprocessors; and the persistent one,
    # in several blocks.
    "addition": (lambda: Seq2seq(13, 16, 128, seed=1), lambda: (ids(6, 4), ids(6, 3))),
    "rnnlm": (
        lambda: RNNLM(50, 140, 140, num_layers=2, tie_weights=True, dropout=0.5, seed=1),
        lambda: (ids(9, 4), ids(9, 4, low=3)),
    ),
    "rnnlm gru": (lambda: RNNLM(50, 20, 132, cell="gru", seed=1), lambda: (ids(9, 3), ids(9, 3, low=3))),
    "sentiment": (
        lambda: SequenceClassifier(V, 20, 130, 3, seed=1, dropout=0.2),
        lambda: (np.where(np.arange(5) < 1 + np.arange(9)[:, None] % 5, ids(9, 5), -1), ids(9) % 3),
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_a_step_of_wide_models(emulation: Any, name: str) -> None:
    emulation.emulate(**{**H200, "multiprocessors": 2 if name == "addition" else 132}, seed=0)
    make, data = WIDE[name]
    results = []
    for device in ("cpu", "cuda"):
        model, optimizer = make().to(device), optim.SGD(0.5)
        losses = []
        for _ in range(2):
            loss = model.forward(*(to_device(array, device) for array in data()))
            model.backward()
            optimizer.update(model.params, model.grads, max_norm=1.0)
            losses.append(to_host(loss))
        results.append([*losses, *parameters(model)])
    for got, want in zip(*results[::-1], strict=True):
        close(got, want, "float32")


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("seq2seq")])
def test_translations_of_emulated_kernels(small: Any, name: str) -> None:
    host, model = in_dtype(name, "float64"), in_dtype(name, "float64").to("cuda")
    assert isinstance(host, Seq2seq)
    assert isinstance(model, Seq2seq)
    xs, ts = MAKERS[name][1](3)
    choices: list[dict[str, Any]] = [{}, {"beam": 2, "end_id": 2}]
    for options in choices:
        np.testing.assert_array_equal(model.generate(xs, 1, 6, **options), host.generate(xs, 1, 6, **options))
    close(model.predict(xs, ts), host.predict(xs, ts))


@pytest.mark.parametrize("name", ["rnnlm", "rnnlm gru", "rnnlm rnn"])
def test_texts_of_emulated_kernels(small: Any, name: str) -> None:
    host, model = in_dtype(name, "float64"), in_dtype(name, "float64").to("cuda")
    assert isinstance(host, RNNLM)
    assert isinstance(model, RNNLM)
    choices: list[dict[str, Any]] = [{}, {"temperature": 0.5, "top_k": 4, "skip_ids": [3, 5]}]
    for options in choices:
        got, want = (one.generate([1, 2], 12, seed=9, **options) for one in (model, host))
        np.testing.assert_array_equal(got, want)


# --------------------------------------------------------------------------------------------
# Layers that no model has
# --------------------------------------------------------------------------------------------

N, T, D, H = 3, 4, 5, 6
rng = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return 0.5 * rng.standard_normal(shape)


def recurrent(gates: int, *bias: int) -> list[Any]:
    return [floats(D, gates * H), floats(H, gates * H), floats(*bias, gates * H)]


LAYERS: dict[str, tuple[Callable[..., Any], list[Any], list[Any]]] = {
    "RNN": (layers.RNN, recurrent(1), [floats(N, D), floats(N, H)]),
    "LSTM": (layers.LSTM, recurrent(4), [floats(N, D), floats(N, H), floats(N, H)]),
    "GRU": (layers.GRU, recurrent(3), [floats(N, D), floats(N, H)]),
    "GRU, keras": (lambda *w: layers.GRU(*w, convention="keras"), recurrent(3, 2), [floats(N, D), floats(N, H)]),
    "TimeGRU, pytorch, reverse": (
        lambda *w: layers.TimeGRU(*w, convention="pytorch", reverse=True),
        recurrent(3, 2),
        [floats(N, T, D)],
    ),
    "TimeBiLSTM": (layers.TimeBiLSTM, [*recurrent(4), *recurrent(4)], [floats(N, T, D)]),
    "TimeAttention": (layers.TimeAttention, [], [floats(N, T, H), floats(N, D, H)]),
    "MatMul": (layers.MatMul, [floats(D, H)], [floats(N, D)]),
}


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_emulated_kernels(small: Any, name: str) -> None:
    """Inputs and upstream gradients are parts of larger arrays, as slices of sequences are."""
    cupy = sys.modules["cupy"]
    make, weights, inputs = LAYERS[name]
    results = []
    for place in (np.array, cupy.asarray):
        layer = make(*map(place, weights))

        def strided(array: Any, place: Any = place) -> Any:
            return place(np.stack([array, array], axis=1))[:, 0]

        outputs = as_tuple(layer.forward(*map(strided, inputs)))
        upstream = [np.random.default_rng(1).standard_normal(out.shape) for out in outputs]
        results.append([*outputs, *as_tuple(layer.backward(*map(strided, upstream))), *layer.grads])
    for got, want in zip(*results[::-1], strict=True):
        close(got, want)


@pytest.mark.parametrize("name", ["SoftmaxWithLoss", "SigmoidWithLoss", "MeanSquaredError"])
def test_losses_on_emulated_kernels(small: Any, name: str) -> None:
    cupy = sys.modules["cupy"]
    scores = floats(N, H)
    targets = {
        "SoftmaxWithLoss": ids(N) % H,
        "SigmoidWithLoss": (floats(N, H) > 0).astype(np.int64),
        "MeanSquaredError": floats(N, H),
    }[name]
    results = []
    for place in (np.array, cupy.asarray):
        layer = getattr(layers, name)()
        loss = layer.forward(place(scores), place(targets))
        results.append((loss, layer.backward()))
    for got, want in zip(*results[::-1], strict=True):
        close(got, want)
