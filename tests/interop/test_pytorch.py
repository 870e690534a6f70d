"""fastlstm.interop.torch_to_fastlstm and fastlstm_to_torch: both sides compute the same with the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import interop, layers, ops
from fastlstm.contract import GRUConvention
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier, SequenceRegressor, Word2Vec

torch: Any = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.needs_torch

N, T, D, H, V = 3, 5, 4, 6, 11
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def series() -> Any:
    return np.random.default_rng(1).standard_normal((N, T, D)).astype(np.float32)


def ids(*shape: int) -> Any:
    return np.random.default_rng(2).integers(0, V, shape)


def run(kind: str, xs: Any, weights: Any) -> tuple[Any, list[Any]]:
    """hs of the layer, both directions side by side, and the last states of each."""
    results = []
    for one in (weights, weights.backwards):
        if one is not None:
            how: dict[str, Any] = {"reverse": one.reverse}
            if kind == "LSTM":
                how["gate_order"] = one.gate_order
            if kind == "GRU":
                how["convention"] = one.convention
            results.append(getattr(ops, f"{kind.lower()}_forward")(xs, *one[:3], **how))
    return np.concatenate([result.hs for result in results], axis=2), [result.h_n for result in results]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_modules_of_torch(kind: str, options: Any) -> None:
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(D, H, batch_first=True, **options)
    hs = series()
    with torch.no_grad():
        want, states = module(torch.from_numpy(hs))
    read = interop.torch_to_fastlstm(module.state_dict())
    assert len(read) == options.get("num_layers", 1)
    last = []
    for weights in read:
        hs, h_n = run(kind, hs, weights)
        last += h_n
    np.testing.assert_allclose(hs, want.numpy(), **CLOSE)
    np.testing.assert_allclose(last, (states[0] if kind == "LSTM" else states).numpy(), **CLOSE)


def layer_of(kind: Any, *shapes: Any, **options: Any) -> Any:
    return kind(*(np.random.default_rng(0).normal(0, 0.5, shape) for shape in shapes), **options)


LSTM, GRU = ((D, 4 * H), (H, 4 * H), 4 * H), ((D, 3 * H), (H, 3 * H), (2, 3 * H))
LAYERS = [
    layer_of(layers.TimeLSTM, *LSTM),
    layer_of(layers.TimeBiLSTM, *LSTM, *LSTM, gate_order="ifog"),
    layer_of(layers.TimeRNN, (D, H), (H, H), H),
    layer_of(layers.TimeGRU, *GRU, convention="keras"),
    layer_of(layers.TimeGRU, *GRU, convention=GRUConvention("nzr", reset_after=True, z_keeps=False)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_in_modules_of_torch(layer: Any) -> None:
    kind, ways = type(layer).__name__.removeprefix("Time").removeprefix("Bi"), len(layer.params) // 3
    module = getattr(torch.nn, kind)(D, H, batch_first=True, bidirectional=ways == 2).double()
    module.load_state_dict(interop.fastlstm_to_torch(layer))
    xs = series().astype(np.float64)
    with torch.no_grad():
        want = module(torch.from_numpy(xs))[0].numpy()
    np.testing.assert_allclose(layer.forward(xs), want, rtol=0, atol=1e-12)


class LanguageModel(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, kind: str, num_layers: int, *, tied: bool) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(V, H)
        setattr(self, kind, getattr(torch.nn, kind.upper())(H, H, num_layers, batch_first=True))
        self.output = torch.nn.Linear(H, V)
        self.kind = kind
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, xs: Any) -> Any:
        return torch.softmax(self.output(getattr(self, self.kind)(self.embedding(xs))[0]), dim=-1)


@pytest.mark.parametrize(("kind", "num_layers", "tied"), [("lstm", 2, True), ("lstm", 1, False), ("rnn", 2, False)])
def test_language_models_both_ways(kind: str, num_layers: int, tied: bool) -> None:
    torch.manual_seed(0)
    model = RNNLM(V, H, H, cell=kind, num_layers=num_layers, tie_weights=tied, seed=0)
    theirs = LanguageModel(kind, num_layers, tied=tied)
    state = theirs.state_dict()
    assert interop.torch_to_fastlstm({f"module.{name}": value for name, value in state.items()}, model) is model
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(ids(N, T)), theirs(torch.from_numpy(ids(N, T))).numpy(), **CLOSE)
    other = LanguageModel(kind, num_layers, tied=tied)
    other.load_state_dict(interop.fastlstm_to_torch(model))
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(ids(N, T)), other(torch.from_numpy(ids(N, T))).numpy(), **CLOSE)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Seq2seq(V, D, H, num_layers=2, bidirectional=True, attention=True, seed=seed),
        lambda seed: Seq2seq(V, D, H, peeky=True, share_embedding=True, seed=seed),
        lambda seed: SequenceClassifier(V, D, H, 3, seed=seed, gate_order="ifog"),
        lambda seed: SequenceRegressor(2, H, 1, seed=seed, dtype="float64"),
    ],
)
def test_every_model_goes_there_and_comes_back(make: Any) -> None:
    model, other = make(0), make(1)
    interop.torch_to_fastlstm(interop.fastlstm_to_torch(model), other)
    for mine, back in zip(model.params, other.params, strict=True):
        np.testing.assert_array_equal(back, mine)


def test_errors_say_what_is_there_and_change_nothing() -> None:
    model = RNNLM(V, H, H, seed=0)
    before = [param.copy() for param in model.params]
    state = LanguageModel("lstm", 2, tied=False).state_dict()
    with pytest.raises(ValueError, match=r"recurrent layers: 2, .* expected .*recurrent layers: 1, "):
        interop.torch_to_fastlstm(state, model)
    state = LanguageModel("gru", 1, tied=False).state_dict()
    with pytest.raises(ValueError, match=r"gru layer 0, holds the GRU layer with 6 inputs.*, expected the LSTM layer"):
        interop.torch_to_fastlstm(state, model)
    state = interop.fastlstm_to_torch(RNNLM(V + 1, H, H))
    with pytest.raises(ValueError, match=r"embedding, holds arrays of shapes \[\(12, 6\)\], expected \[\(11, 6\)\]"):
        interop.torch_to_fastlstm(state, model)
    tied = RNNLM(V, H, H, tie_weights=True)
    with pytest.raises(ValueError, match="output, holds other weights than the layer that shares them"):
        interop.torch_to_fastlstm(interop.fastlstm_to_torch(model), tied)
    with pytest.raises(ValueError, match="applies r before the product with Wh, PyTorch's GRU after it"):
        interop.fastlstm_to_torch(RNNLM(V, H, H, cell="gru"))
    with pytest.raises(TypeError, match="PyTorch has no layer like"):
        interop.fastlstm_to_torch(Word2Vec(V, H))
    with pytest.raises(ValueError, match="weight_hr_l0 is a projection"):
        interop.torch_to_fastlstm(torch.nn.LSTM(D, H, proj_size=2).state_dict())
    both = {**{f"a.{n}": v for n, v in torch.nn.GRU(D, H).state_dict().items()}, "b.weight_ih": torch.zeros(4 * H, D)}
    with pytest.raises(ValueError, match="b layer 0 holds weight_ih, expected weight_ih, weight_hh, bias_ih, bias_hh"):
        interop.torch_to_fastlstm(both)
    both |= {f"b.{n}": v for n, v in torch.nn.LSTMCell(D, H).state_dict().items()}
    with pytest.raises(ValueError, match=r"a layer 0 \(the GRU.*, b layer 0 \(the LSTM.*choose one by prefix="):
        interop.torch_to_fastlstm(both)
    (cell,) = interop.torch_to_fastlstm(both, prefix="b.")
    assert isinstance(cell, interop.LSTMWeights)
    with pytest.raises(ValueError, match="norm.running_mean belongs to no nn.LSTM"):
        interop.torch_to_fastlstm({"norm.running_mean": torch.zeros(3)})
    with pytest.raises(TypeError, match="state_dict is .*, expected a mapping"):
        interop.torch_to_fastlstm(torch.nn.LSTM(D, H))
    for mine, old in zip(model.params, before, strict=True):
        np.testing.assert_array_equal(mine, old)
