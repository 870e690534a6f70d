"""fastlstm.interop.keras_to_fastlstm and fastlstm_to_keras: a file made by Keras 3, and Keras itself where it is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import interop, layers, ops
from fastlstm.models import RNNLM, SequenceRegressor

# Made by data/make_keras.py: outputs of an Embedding, Bidirectional(LSTM), GRU without and with reset_after, an LSTM
# that runs backwards, without bias, and a Dense.
DATA = Path(__file__).parent / "data"
FILE = DATA / "bidirectional.keras"

needs_h5py = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="h5py is not installed")


def run(xs: Any, weights: Any) -> Any:
    """hs, both directions side by side."""
    results = []
    for one in (weights, weights.backwards):
        if isinstance(one, interop.LSTMWeights):
            results.append(ops.lstm_forward(xs, *one[:3], gate_order=one.gate_order, reverse=one.reverse).hs)
        elif isinstance(one, interop.GRUWeights):
            results.append(ops.gru_forward(xs, *one[:3], convention=one.convention, reverse=one.reverse).hs)
        elif one is not None:
            results.append(ops.rnn_forward(xs, *one[:3], reverse=one.reverse).hs)
    return np.concatenate(results, axis=2)


@needs_h5py
def test_a_file_of_keras() -> None:
    recorded = np.load(DATA / "bidirectional.npz")
    both, before, after, backwards = interop.keras_to_fastlstm(FILE)
    assert both.backwards is not None
    assert backwards.reverse
    assert not backwards.b.any()
    assert isinstance(before, interop.GRUWeights)
    assert before.b.shape == (9,)
    assert isinstance(after, interop.GRUWeights)
    assert after.b.shape == (2, 9)
    import h5py

    with zipfile.ZipFile(FILE) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as h5:
        E, W, b = (h5[f"layers/{name}"][...] for name in ("embedding/vars/0", "dense/vars/0", "dense/vars/1"))
    hs = E[recorded["ids"]]
    for weights in (both, before, after, backwards):
        hs = run(hs, weights)
    # After its last step, which is the first in time.
    np.testing.assert_allclose(hs[:, 0] @ W + b, recorded["outputs"], rtol=0, atol=1e-5)


@needs_h5py
def test_weights_alone_have_no_order_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    with zipfile.ZipFile(FILE) as archive:
        path.write_bytes(archive.read("model.weights.h5"))
    with pytest.raises(ValueError, match=r"of several classes, layers/bidirectional/cell, .*layers/gru_1"):
        interop.keras_to_fastlstm(path)


@needs_h5py
def test_a_file_into_a_model(tmp_path: Path) -> None:
    import h5py

    rng, path = np.random.default_rng(0), tmp_path / "lm.weights.h5"
    model = RNNLM(7, 3, 4, num_layers=2, seed=0)
    arrays: dict[str, list[Any]] = {
        "embedding": [rng.normal(size=(7, 3))],
        "lstm": [rng.normal(size=shape) for shape in ((3, 16), (4, 16), (16,))],
        "lstm_1": [rng.normal(size=shape) for shape in ((4, 16), (4, 16), (16,))],
        "dense": [rng.normal(size=(4, 7))],
    }
    with h5py.File(path, "w") as file:  # as Keras writes it
        for name, its in arrays.items():
            for k, array in enumerate(its):
                file[f"layers/{name}/{'cell/' if 'lstm' in name else ''}vars/{k}"] = array.astype(np.float32)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file["optimizer/vars/0"] = 3
    assert interop.keras_to_fastlstm(path, model) is model
    written = interop.fastlstm_to_keras(model)
    assert list(written) == ["embedding", "lstm1", "lstm2", "output"]
    for (name, its), got in zip(arrays.items(), written.values(), strict=True):
        for array, want in zip(got, [*its, np.zeros(7)] if name == "dense" else its, strict=True):
            np.testing.assert_array_equal(array, want.astype(np.float32))
    with pytest.raises(ValueError, match=r"lm.weights.h5 holds embeddings: 1, .*, expected embeddings: 0"):
        interop.keras_to_fastlstm(path, SequenceRegressor(2, 3, 1))


def layer_of(kind: Any, *shapes: Any, **options: Any) -> Any:
    return kind(*(np.random.default_rng(0).normal(0, 0.5, shape) for shape in shapes), **options)


D, H = 4, 3
LSTM = ((D, 4 * H), (H, 4 * H), 4 * H)
LAYERS = {
    "LSTM": layer_of(layers.TimeLSTM, *LSTM),
    "Bidirectional": layer_of(layers.TimeBiLSTM, *LSTM, *LSTM),
    "SimpleRNN": layer_of(layers.TimeRNN, (D, H), (H, H), H),
    "GRU": layer_of(layers.TimeGRU, (D, 3 * H), (H, 3 * H), (2, 3 * H), convention="pytorch"),
    "GRU, reset_after=False": layer_of(layers.TimeGRU, (D, 3 * H), (H, 3 * H), 3 * H, convention="book"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_arrays_go_there_and_come_back(name: str) -> None:
    layer = LAYERS[name]
    (weights,) = interop.keras_to_fastlstm(interop.fastlstm_to_keras(layer))
    xs = np.random.default_rng(1).standard_normal((2, 5, D))
    np.testing.assert_allclose(run(xs, weights), layer.forward(xs), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself
def test_layers_in_keras() -> None:
    pytest.importorskip("torch", reason="torch, Keras's backend here, is not installed")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras: Any = pytest.importorskip("keras", reason="keras is not installed")
    xs = np.random.default_rng(1).standard_normal((2, 5, D)).astype(np.float32)
    for name, layer in LAYERS.items():
        options: Any = {"return_sequences": True}
        if name == "Bidirectional":
            theirs = keras.layers.Bidirectional(keras.layers.LSTM(H, **options))
        else:
            options |= {"reset_after": False} if name.endswith("False") else {}
            theirs = getattr(keras.layers, name.partition(",")[0])(H, **options)
        theirs.build(xs.shape)
        theirs.set_weights(interop.fastlstm_to_keras(layer))
        want = theirs(xs).detach().cpu().numpy()
        np.testing.assert_allclose(layer.forward(xs.astype(np.float64)), want, rtol=0, atol=1e-5)
        (weights,) = interop.keras_to_fastlstm(theirs.get_weights())
        np.testing.assert_allclose(run(xs, weights), want, rtol=0, atol=1e-5)


def test_wrong_arrays() -> None:
    with pytest.raises(TypeError, match="source is .*, expected a path, or the list that get_weights"):
        interop.keras_to_fastlstm(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"the list holds arrays of shapes \[\(3, 2\), \(2,\)\], expected kernel"):
        interop.keras_to_fastlstm([np.zeros((3, 2)), np.zeros(2)])
    with pytest.raises(ValueError, match=r"recurrent kernel of the list has shape \(3, 6\), expected \(H, 4H\)"):
        interop.keras_to_fastlstm([np.zeros((3, 6)), np.zeros((3, 6)), np.zeros(6)])
    with pytest.raises(ValueError, match="do not belong to one recurrent layer"):
        interop.keras_to_fastlstm([np.zeros((3, 8)), np.zeros((2, 8)), np.zeros(7)])


@needs_h5py
def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"a\.keras is no file of Keras 3"):
        interop.keras_to_fastlstm(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", "else")
    with pytest.raises(ValueError, match=r"a\.keras is no .*: it holds something, expected Keras 3's config.json"):
        interop.keras_to_fastlstm(path)
    for old, new, message in (
        (b'"activation": "tanh"', b'"activation": "relu"', "has activation 'relu', expected 'tanh'"),
        (b'"merge_mode": "concat"', b'"merge_mode": "sum"', "has merge_mode 'sum', expected 'concat'"),
    ):
        with zipfile.ZipFile(FILE) as given, zipfile.ZipFile(path, "w") as archive:
            for name in given.namelist():
                archive.writestr(name, given.read(name).replace(old, new))
        with pytest.raises(ValueError, match=message):
            interop.keras_to_fastlstm(path)
    with zipfile.ZipFile(FILE) as given, zipfile.ZipFile(path, "w") as archive:
        for name in given.namelist():
            archive.writestr(name, given.read(name).replace(b'"name": "gru_1"', b'"name": "other"'))
    with pytest.raises(ValueError, match="does not say which of its layers layers/gru_1/cell is"):
        interop.keras_to_fastlstm(path)
    with pytest.raises(FileNotFoundError):
        interop.keras_to_fastlstm(tmp_path / "nowhere.keras")


@needs_h5py
def test_files_that_fill_the_memory_or_name_others_are_refused(tmp_path: Path) -> None:
    import h5py

    def refused(content: Any, message: str, pack: int = zipfile.ZIP_STORED) -> None:
        """``content``: a function that fills an HDF5 file, or the bytes in its place; packed in a .keras file."""
        weights, path = tmp_path / "w.h5", tmp_path / "a.keras"
        if isinstance(content, bytes):
            weights.write_bytes(content)
        else:
            with h5py.File(weights, "w") as file:
                content(file.create_group("layers/dense/vars"))
        with zipfile.ZipFile(path, "w", pack) as archive:
            archive.write(weights, "model.weights.h5")
            archive.writestr("config.json", "{}")
        with pytest.raises(ValueError, match=rf"a\.keras is no file of Keras 3.*{message}"):
            interop.keras_to_fastlstm(path)

    refused(bytes(1 << 24), "model.weights.h5 unpacks to more than", zipfile.ZIP_DEFLATED)
    refused(bytes(1 << 24), "model.weights.h5 is packed otherwise", zipfile.ZIP_BZIP2)
    huge = {"shape": (1 << 20, 1 << 20), "dtype": "f4"}
    refused(lambda group: group.create_dataset("0", **huge), "its arrays have more than")  # nothing is written of it
    refused(lambda group: group.create_dataset("0", **huge, chunks=(512, 512), compression=9), "its arrays have more")

    def many(group: Any) -> None:
        group["0"] = np.zeros((100, 100), np.float32)
        for k in range(1, 200):
            group[str(k)] = group["0"]

    refused(many, "its arrays have more than")
    (tmp_path / "secret").write_bytes(bytes(64))
    outside = [(str(tmp_path / "secret"), 0, 64)]
    refused(lambda group: group.create_dataset("0", (4, 4), "f4", external=outside), "0 is no array of numbers in this")
    refused(lambda group: group.update({"0": h5py.ExternalLink(str(FILE), "/")}), "0 is no array of numbers in this")
    refused(lambda group: group.update({"0": h5py.SoftLink("/layers")}), "0 is no array of numbers in this file")
    refused(lambda group: group.update({"0": ["text"]}), "0 is no array of numbers in this file")


@needs_h5py
def test_damaged_archives_are_one_error(tmp_path: Path) -> None:
    content, path, draw = FILE.read_bytes(), tmp_path / "a.keras", np.random.default_rng(0)
    for turn in range(60):
        damaged = bytearray(content[: draw.integers(len(content))] if turn % 2 else content)
        for at in draw.integers(0, len(damaged), 5 if damaged else 0):
            damaged[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            interop.keras_to_fastlstm(path)
