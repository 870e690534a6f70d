"""fastlstm.interop.export_onnx: what a runtime computes with the files is what the models compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import interop, models
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier, SequenceRegressor, SequenceTagger

pytest.importorskip("onnx", reason="onnx is not installed")

V = 11
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


class OnnxRuntime:
    """A file in onnxruntime; without it in onnx's own evaluator, which knows no lengths and one direction only."""

    def __init__(self, path: Path, *, whole_onnx: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError:
            if whole_onnx:
                pytest.skip("onnxruntime is not installed")
            import onnx.reference

            self._session: Any = onnx.reference.ReferenceEvaluator(str(path))
            self.outputs: list[str] = list(self._session.output_names)
            self.inputs: list[str] | None = None
        else:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self.outputs = [value.name for value in self._session.get_outputs()]
            self.inputs = [value.name for value in self._session.get_inputs()]

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))


def ids(*shape: int, low: int = 0) -> Any:
    return np.random.default_rng(sum(shape)).integers(low, V, shape)


def scattered(rows: Any, padding: int) -> Any:
    """Padding anywhere: in front, in between, behind, nowhere, everywhere."""
    rows = rows.copy()
    rows[np.random.default_rng(1).random(rows.shape) < 0.4] = padding
    rows[0, :2], rows[1, -2:], rows[2] = padding, padding, padding
    return rows


def loud(model: Any) -> Any:
    """With weights and biases large enough for an error of any of them to be seen."""
    rng = np.random.default_rng(3)
    for param in model.params:
        param[...] = rng.normal(0, 0.6, param.shape)
    return model


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize(
    ("cell", "options"), [("lstm", {"num_layers": 2, "tie_weights": True}), ("gru", {}), ("rnn", {"dropout": 0.5})]
)
def test_rnnlm(cell: str, options: Any, opset: int, tmp_path: Path) -> None:
    model = loud(RNNLM(V, 6, 6, cell=cell, seed=0, **options))
    (file,) = interop.export_onnx(model, tmp_path / "lm.onnx", opset=opset)
    run = OnnxRuntime(file)
    assert run.inputs in (None, ["xs"])
    for N, T in ((3, 5), (1, 1), (4, 2)):
        np.testing.assert_allclose(run(xs=ids(N, T))["probabilities"], model.predict(ids(N, T)), **CLOSE)
    text = ids(3, 6)
    first = run(xs=text[:, :4])
    states = {name.removeprefix("next_"): value for name, value in first.items() if name.startswith("next_")}
    assert len(states) == (2 if cell == "lstm" else 1) * model.options["num_layers"]
    second = run(xs=text[:, 4:], **states)
    np.testing.assert_allclose(second["probabilities"], model.predict(text)[:, 4:], **CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classifier(pooling: str, dtype: str, tmp_path: Path) -> None:
    model = loud(SequenceClassifier(V, 5, 4, 3, pooling=pooling, seed=0, dtype=dtype, gate_order="ifog"))
    (file,) = interop.export_onnx(model, tmp_path / "classifier.onnx")
    run = OnnxRuntime(file)
    assert run.inputs in (None, ["xs"])
    np.testing.assert_allclose(run(xs=ids(3, 5))["probabilities"], model.predict(ids(3, 5)), **CLOSE)
    run = OnnxRuntime(file, whole_onnx=True)
    for xs in (scattered(ids(6, 7), -1), np.full((2, 3), -1)):
        np.testing.assert_allclose(run(xs=xs)["probabilities"], model.predict(xs), **CLOSE)
    xs, lengths = ids(4, 7), np.array([7, 0, 3, 1])
    got = run(xs=xs, lengths=lengths)["probabilities"]
    np.testing.assert_allclose(got, model.predict(xs, lengths=lengths), **CLOSE)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_regressor(cell: str, tmp_path: Path) -> None:
    model = loud(SequenceRegressor(2, 5, 3, cell=cell, seed=0))
    run = OnnxRuntime(*interop.export_onnx(model, tmp_path / "regressor.onnx"))
    for N, T in ((3, 7), (2, 1)):
        xs = np.random.default_rng(N).standard_normal((N, T, 2)).astype(np.float32)
        np.testing.assert_allclose(run(xs=xs)["outputs"], model.predict(xs), **CLOSE)


STACKED: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "seed": 0}
OF_SEQUENCES: dict[str, Any] = {
    "classifier, mean": lambda **o: SequenceClassifier(V, 5, 4, 3, **o),
    "classifier, last": lambda **o: SequenceClassifier(V, 5, 4, 3, pooling="last", **o),
    "tagger": lambda **o: SequenceTagger(V, 5, 4, 3, **o),
    "regressor of ids": lambda **o: SequenceRegressor(5, 4, 3, vocab_size=V, **o),
    "regressor of ids, steps": lambda **o: SequenceRegressor(5, 4, 3, vocab_size=V, return_sequences=True, **o),
}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", OF_SEQUENCES)
def test_two_layers_in_both_directions(kind: str, cell: str, tmp_path: Path) -> None:
    model = loud(OF_SEQUENCES[kind](cell=cell, **STACKED))
    (file,) = interop.export_onnx(model, tmp_path / "model.onnx")
    run = OnnxRuntime(file, whole_onnx=True)
    for xs in (ids(3, 5), scattered(ids(6, 7), -1), np.full((2, 3), -1), ids(1, 1)):
        (got,) = run(xs=xs).values()
        np.testing.assert_allclose(got, model.predict(xs), **CLOSE)
    xs, lengths = ids(4, 7), np.array([7, 0, 3, 1])
    (got,) = run(xs=xs, lengths=lengths).values()
    np.testing.assert_allclose(got, model.predict(xs, lengths=lengths), **CLOSE)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_series_of_different_lengths(return_sequences: bool, cell: str, tmp_path: Path) -> None:
    model = loud(SequenceRegressor(2, 4, 3, cell=cell, mask_value=0.1, return_sequences=return_sequences, **STACKED))
    run = OnnxRuntime(*interop.export_onnx(model, tmp_path / "model.onnx"), whole_onnx=True)
    xs = np.random.default_rng(0).standard_normal((6, 7, 2)).astype(np.float32)
    lengths = np.array([7, 0, 3, 1, 5, 7])
    np.testing.assert_allclose(run(xs=xs, lengths=lengths)["outputs"], model.predict(xs, lengths=lengths), **CLOSE)
    xs[scattered(ids(6, 7), -1) < 0] = 0.1
    np.testing.assert_allclose(run(xs=xs)["outputs"], model.predict(xs), **CLOSE)


SEQ2SEQ: dict[str, dict[str, Any]] = {
    "reversed, two layers, another vocabulary": {"reverse_source": True, "num_layers": 2, "target_vocab_size": 7},
    "peeky, padding": {"peeky": True, "pad_id": 0, "reverse_source": True, "share_embedding": True},
    "attention": {"attention": True, "pass_cell_state": False},
    "attention, bidirectional, two layers, padding": {
        "attention": True,
        "bidirectional": True,
        "num_layers": 2,
        "pad_id": 0,
    },
    "peeky, attention, padding": {"attention": True, "peeky": True, "pass_cell_state": False, "pad_id": 0},
}


@pytest.mark.parametrize("options", SEQ2SEQ.values(), ids=list(SEQ2SEQ))
def test_seq2seq(options: Any, tmp_path: Path) -> None:
    model = loud(Seq2seq(V, 5, 4, seed=0, **options))
    files = interop.export_onnx(model, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["encoder.onnx", "decoder.onnx"]
    whole_onnx = model.options["bidirectional"] or model.options["pad_id"] is not None
    encode, decode = (OnnxRuntime(file, whole_onnx=whole_onnx) for file in files)
    xs = ids(6, 5, low=1)
    if model.options["pad_id"] is not None:
        xs = scattered(xs, 0)
    encoded = encode(xs=xs)
    assert decode.inputs is None or set(decode.inputs) == {"ts", *encoded}
    ts = ids(6, 4) % 7
    want = model.predict(xs, ts)
    np.testing.assert_allclose(decode(ts=ts, **encoded)["probabilities"], want, **CLOSE)
    state = encoded  # id by id
    for t in range(4):
        got = decode(ts=ts[:, t : t + 1], **state)
        np.testing.assert_allclose(got["probabilities"][:, 0], want[:, t], **CLOSE)
        state = {**state, **{name.removeprefix("next_"): h for name, h in got.items() if name.startswith("next_")}}


def test_errors_before_anything_is_written(tmp_path: Path) -> None:
    model = RNNLM(V, 3, 3)
    with pytest.raises(ValueError, match=r"opset is 12, expected 13 to \d+, the latest"):
        interop.export_onnx(model, tmp_path / "a.onnx", opset=12)
    with pytest.raises(TypeError, match=r"model is a Word2Vec, expected an RNNLM, Seq2seq"):
        interop.export_onnx(models.Word2Vec(V, 3), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
