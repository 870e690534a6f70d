"""fastlstm.interop: the .npz of Theano's LSTM tutorial and the .pkl of the book's models, by their formulas."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import interop
from fastlstm.layers import TimeAffine, TimeAttention, TimeEmbedding, TimeGRU, TimeLSTM
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier

V, D, H, C, N, T = 11, 5, 5, 3, 4, 6
HALF: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def draw(*shapes: Any) -> list[Any]:
    """As a file of the book's has them."""
    rng = np.random.default_rng(sum(np.size(np.zeros(shape)) for shape in shapes))
    return [rng.normal(0, 0.5, shape).astype(np.float16).astype(np.float32) for shape in shapes]


def ids(*shape: int) -> Any:
    return np.random.default_rng(2).integers(0, V, shape)


def softmax(scores: Any) -> Any:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# --------------------------------------------------------------------------------------------
# Theano's tutorial
# --------------------------------------------------------------------------------------------


def tutorial(p: Any, x: Any, mask: Any, *, use_dropout: bool) -> Any:
    """`pred_prob` of lstm.py when it does not train: ids x and mask (T, N), time first."""

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    state_below = p["Wemb"][x] @ p["lstm_W"] + p["lstm_b"]
    h = c = np.zeros((x.shape[1], H))
    total = np.zeros_like(h)
    for m, below in zip(mask[:, :, None], state_below, strict=True):
        preact = h @ p["lstm_U"] + below
        i, f, o = (sigmoid(preact[:, n * H : (n + 1) * H]) for n in range(3))
        new_c = f * c + i * np.tanh(preact[:, 3 * H :])
        new_h = o * np.tanh(new_c)
        h, c = m * new_h + (1 - m) * h, m * new_c + (1 - m) * c
        total += h * m
    proj = total / mask.sum(axis=0)[:, None]
    return softmax((proj * 0.5 if use_dropout else proj) @ p["U"] + p["b"])


@pytest.mark.parametrize("use_dropout", [True, False])
def test_theano(use_dropout: bool, tmp_path: Path) -> None:
    shapes = {"Wemb": (V, D), "lstm_W": (D, 4 * H), "lstm_U": (H, 4 * H), "lstm_b": (4 * H,), "U": (H, C), "b": (C,)}
    p = dict(zip(shapes, draw(*shapes.values()), strict=True))
    path = tmp_path / "lstm_model.npz"
    np.savez(path, history_errs=np.array([[0.5, None]], object), train_err=0.1, **p)  # pickled, and never read
    model = interop.theano_to_fastlstm(path, use_dropout=use_dropout)
    x, lengths = ids(N, T), np.array([6, 1, 3, 4])
    mask = (np.arange(T) < lengths[:, None]).T.astype(float)
    want = tutorial(p, x.T, mask, use_dropout=use_dropout)
    np.testing.assert_allclose(model.predict(x, lengths=lengths), want, **HALF)
    interop.fastlstm_to_theano(model, tmp_path / "again", use_dropout=use_dropout)
    with np.load(tmp_path / "again") as again:
        assert set(again.files) == set(p)
        for name, array in p.items():
            np.testing.assert_array_equal(again[name], array)


def test_no_theano(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, Wemb=np.zeros((3, 2)), W=1)
    with pytest.raises(ValueError, match="a.npz holds Wemb, W, expected Wemb, lstm_W, lstm_U, lstm_b, U, b of"):
        interop.theano_to_fastlstm(path)
    path.write_bytes(b"no numpy")
    with pytest.raises(ValueError, match="a.npz is no .npz of numpy"):
        interop.theano_to_fastlstm(path)
    with pytest.raises(ValueError, match="wordvec_size 5, hidden_size 4 and pooling 'mean'; the tutorial's has equal"):
        interop.fastlstm_to_theano(SequenceClassifier(V, 5, 4, C), path)
    others: list[dict[str, Any]] = [{"cell": "gru"}, {"num_layers": 2}, {"bidirectional": True}]
    for other in others:
        with pytest.raises(ValueError, match="the tutorial's has one LSTM in one direction"):
            interop.fastlstm_to_theano(SequenceClassifier(V, 4, 4, C, **other), path)
    with pytest.raises(FileNotFoundError):
        interop.theano_to_fastlstm(tmp_path / "nowhere.npz")


# --------------------------------------------------------------------------------------------
# The book
# --------------------------------------------------------------------------------------------


def save(path: Path, arrays: Any) -> Path:
    """As the book's save_params does."""
    with path.open("wb") as file:
        pickle.dump([array.astype(np.float16) for array in arrays], file)
    return path


def forward(xs: Any, arrays: Any, recurrent: Any = TimeLSTM) -> Any:
    """Scores of an Rnnlm, by layers with the book's defaults."""
    out = TimeEmbedding(arrays[0]).forward(xs)
    for k in range(1, len(arrays) - 2, 3):
        out = recurrent(*arrays[k : k + 3]).forward(out)
    return TimeAffine(*arrays[-2:]).forward(out)


@pytest.mark.parametrize("kind", ["Rnnlm", "BetterRnnlm", "GRU"])
def test_language_models_of_the_book(kind: str, tmp_path: Path) -> None:
    gates = 3 if kind == "GRU" else 4
    layer: Any = [(D, gates * H), (H, gates * H), gates * H]
    arrays = draw((V, D), *(layer * (2 if kind == "BetterRnnlm" else 1)), (H, V), V)
    if kind == "BetterRnnlm":
        arrays[-2] = arrays[0].T
    model = interop.book_to_fastlstm(save(tmp_path / "Rnnlm.pkl", arrays))
    assert isinstance(model, RNNLM)
    assert model.options["tie_weights"] is (kind == "BetterRnnlm")
    want = softmax(forward(ids(N, T), arrays, TimeGRU if kind == "GRU" else TimeLSTM))
    np.testing.assert_allclose(model.predict(ids(N, T)), want, **HALF)
    interop.fastlstm_to_book(model, tmp_path / "again.pkl")
    again = pickle.loads((tmp_path / "again.pkl").read_bytes())
    assert {array.dtype for array in again} == {np.dtype(np.float16)}
    for got, array in zip(again, arrays, strict=True):
        np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(("peeky", "attention"), [(False, False), (True, False), (False, True)])
def test_sequence_to_sequence_of_the_book(peeky: bool, attention: bool, tmp_path: Path) -> None:
    V2, lstm = V - 2, [(D, 4 * H), (H, 4 * H), 4 * H]
    decoder = [(D + peeky * H, 4 * H), *lstm[1:], (H * (1 + peeky + attention), V2), V2]
    arrays = draw((V, D), *lstm, (V2, D), *decoder)
    model = interop.book_to_fastlstm(save(tmp_path / "Seq2seq.pkl", arrays))
    assert isinstance(model, Seq2seq)
    xs, ts = ids(N, T), ids(N, 3) % V2

    hs = TimeLSTM(*arrays[1:4]).forward(TimeEmbedding(arrays[0]).forward(xs))
    last = np.repeat(hs[:, -1:], 3, axis=1)
    reader = TimeLSTM(*arrays[5:8])
    reader.stateful = True
    reader.set_state(np.ascontiguousarray(hs[:, -1]))
    read = TimeEmbedding(arrays[4]).forward(ts)
    out = reader.forward(np.concatenate([last, read], axis=2) if peeky else read)
    context = [TimeAttention().forward(hs, out)] if attention else [last] if peeky else []
    want = softmax(TimeAffine(*arrays[8:]).forward(np.concatenate([*context, out], axis=2)))
    np.testing.assert_allclose(model.predict(xs, ts), want, **HALF)

    interop.fastlstm_to_book(model, tmp_path / "again.pkl")
    for got, array in zip(pickle.loads((tmp_path / "again.pkl").read_bytes()), arrays, strict=True):
        np.testing.assert_array_equal(got, array)


def test_no_book(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pkl", draw((V, D), (D, 4 * H), (H, 4 * H), 4 * H))
    with pytest.raises(ValueError, match=r"holds arrays of shapes \[\(11, 5\), \(5, 20\), .*\], expected embedding"):
        interop.book_to_fastlstm(path)
    path.write_bytes(pickle.dumps({"word_vecs": np.zeros(3)}))
    with pytest.raises(ValueError, match="a.pkl is no pickled list of arrays: it holds a mapping"):
        interop.book_to_fastlstm(path)
    path.write_bytes(pickle.dumps([print]))
    with pytest.raises(ValueError, match="it asks for builtins.print, which arrays do not need"):
        interop.book_to_fastlstm(path)
    with pytest.raises(ValueError, match="bidirectional=False, .* pass_cell_state=True, .*, expected bidir"):
        interop.fastlstm_to_book(Seq2seq(V, D, H), path)
    with pytest.raises(TypeError, match="model is a SequenceClassifier, expected an RNNLM or a Seq2seq"):
        interop.fastlstm_to_book(SequenceClassifier(V, D, H, C), path)  # type: ignore[arg-type]
