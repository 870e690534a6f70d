"""Files that are damaged: one clear error that names them, and nothing is learned from them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fastlstm.callbacks import BackupAndRestore
from fastlstm.cli import run_folder
from fastlstm.cli.rnnlm import Options
from fastlstm.datasets import tokenize_texts, tokenized_text
from fastlstm.datasets.tokenized import narrowed
from fastlstm.interop import fastlstm_to_theano, theano_to_fastlstm
from fastlstm.models import RNNLM, SequenceClassifier
from fastlstm.models.word_vectors import WordVectors
from fastlstm.tensor_file import read_tensor_file, write_tensor_file

ROOT = Path(__file__).parents[1]


def test_fuzzer_finds_nothing() -> None:
    """A small part of what ``python -m tests.fuzz.files`` tries."""
    if not hasattr(sys, "getwindowsversion"):
        command = [sys.executable, "-m", "tests.fuzz.files", "--examples", "300"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


def model_file(folder: Path) -> Path:
    path = folder / "model.safetensors"
    RNNLM(9, 4, 4, seed=1).save(path)
    return path


def test_every_flipped_bit_of_the_weights_is_seen(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in range(begin, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged: .*crc32"):
            RNNLM.load(path)


@pytest.mark.parametrize("name", [b"crc33", b"", b"crc"])
def test_a_damaged_checksum_is_none_of_an_earlier_version(tmp_path: Path, name: bytes) -> None:
    path = model_file(tmp_path)
    content = path.read_bytes()
    place = content.index(b"crc32")
    for changed in (
        content[:place] + name.ljust(5) + content[place + 5 :],
        content[: place + 11] + b"g" + content[place + 12 :],
    ):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"model.safetensors is damaged: .*crc32"):
            RNNLM.load(path)


def test_a_checkpoint_of_very_many_epochs_is_one_error(tmp_path: Path) -> None:
    path, ids = tmp_path / "checkpoint.safetensors", np.arange(99) % 9

    def fit() -> None:
        backup = BackupAndRestore(path, delete_checkpoint=False)
        RNNLM(9, 4, 4, seed=1).fit(ids, epochs=1, time_size=4, batch_size=3, callbacks=[backup], verbose=0)

    fit()
    tensors, description = read_tensor_file(path)
    write_tensor_file(path, tensors, {**description, "epoch": 10**18})  # a list of them would not fit into memory
    with pytest.raises(ValueError, match="the history has not the epochs"):
        fit()


def test_checkpoint_with_a_flipped_bit_is_not_trained_on(tmp_path: Path) -> None:
    path, ids = tmp_path / "checkpoint.safetensors", np.arange(99) % 9

    def fit(epochs: int) -> None:
        backup = BackupAndRestore(path, delete_checkpoint=False)
        RNNLM(9, 4, 4, seed=1).fit(ids, epochs=epochs, time_size=4, batch_size=3, callbacks=[backup], verbose=0)

    fit(1)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        fit(2)


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["fastlstm"])
    assert description.pop("crc32")
    save_file(load_file(path), path, metadata={"fastlstm": json.dumps(description)})
    assert RNNLM.load(path).options["vocab_size"] == 9


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = {model_file(tmp_path).read_bytes() for _ in range(8)}
    assert len(contents) == 1


def test_checksum_is_of_names_shapes_and_description_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_tensor_file(
        path, {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 2)), "one": np.array(1, np.float32)}, {"x": 1}
    )
    tensors, description = read_tensor_file(path)
    assert description == {"x": 1}
    assert tensors["a"].shape == (2, 3)
    content = path.read_bytes()
    for old, new in ((b"[2,3]", b"[3,2]"), (b'"a"', b'"b"'), (b'x\\": 1', b'x\\": 2')):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match="crc32"):
            read_tensor_file(path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("vocabulary", 3),
        ("vocabulary", "abc"),
        ("vocabulary", ["a"] * 10),
        ("vocabulary", [1]),
        ("options", []),
        ("options", {"vocab_size": 2**60}),
        ("options", {"vocab_size": None}),
        ("class", []),
        ("format", {}),
    ],
)
def test_forged_descriptions_of_a_model(tmp_path: Path, entry: str, value: Any) -> None:
    tensors, description = read_tensor_file(model_file(tmp_path))
    changed = {**description[entry], **value} if entry == "options" and value else value
    path = tmp_path / "forged.safetensors"
    write_tensor_file(path, tensors, {**description, entry: changed})
    with pytest.raises(ValueError, match="forged.safetensors"):
        RNNLM.load(path)


def config(folder: Path, **options: Any) -> Path:
    run_folder.write_config(folder, "rnnlm", options=options)
    return folder / run_folder.CONFIG


@pytest.mark.parametrize(
    "options", [{"epochs": "many"}, {"epochs": True}, {"epochs": 1.5}, {"data": None}, {"dropout": []}, {"unknown": 1}]
)
def test_config_with_options_of_other_types(tmp_path: Path, options: dict[str, Any]) -> None:
    config(tmp_path, **options)
    with pytest.raises(ValueError, match=r"config.json is damaged: its options do not fit"):
        run_folder.read_options(tmp_path, "rnnlm", Options)


def test_config_with_options_of_the_right_types(tmp_path: Path) -> None:
    config(tmp_path, epochs=3, dropout=0, wordvec_size=None)
    assert run_folder.read_options(tmp_path, "rnnlm", Options) == Options(epochs=3, dropout=0, wordvec_size=None)


@pytest.mark.parametrize("content", ["[" * 100_000, "", "{", '{"task": "rnnlm"}', '{"task": "rnnlm", "options": [1]}'])
def test_config_that_is_cut_short_or_nested(tmp_path: Path, content: str) -> None:
    (tmp_path / run_folder.CONFIG).write_text(content)
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        run_folder.read_options(tmp_path, "rnnlm", Options)


@pytest.mark.parametrize("content", ["", "epoch,loss\n1", "epoch,loss\n1,x\n", "epoch,loss\n1,\udcff\n"])
def test_damaged_history(tmp_path: Path, content: str) -> None:
    (tmp_path / run_folder.HISTORY).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"history.csv is damaged"):
        run_folder.read_history(tmp_path)


def test_word2vec_text_cut_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    WordVectors(["a", "b"], np.array([[0.25, -1], [12, 0.12345678]], np.float32)).save_word2vec_format(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"vectors.txt"):
            WordVectors.load_word2vec_format(path)


def test_ids_on_disk_beyond_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c a\n" * 9)
    folder = tmp_path / "ids"
    tokenize_texts(tmp_path / "text.txt", folder)
    ids = np.load(folder / "ids.npy")
    ids[7] = 99
    np.save(folder / "ids.npy", ids)
    with pytest.raises(ValueError, match="holds the id 99, of a vocabulary of 5 words"):
        narrowed(tokenized_text(folder), min_count=1, max_size=3)


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _turn(content: bytes) -> bytes:
    return content[:300] + bytes([content[300] ^ 1]) + content[301:]


@pytest.mark.parametrize("damage", [_cut, _turn, lambda _: b"", lambda _: b"PK\3\4 and more"])
def test_damaged_npz(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "lstm_model.npz"
    fastlstm_to_theano(SequenceClassifier(9, 4, 4, 3, seed=1, pooling="mean", gate_order="ifog"), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"lstm_model.npz is no .npz of numpy, or damaged"):
        theano_to_fastlstm(path)


def test_npz_that_unpacks_to_much_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "lstm_model.npz"
    names = ("Wemb", "lstm_W", "lstm_U", "lstm_b", "U", "b")
    arrays: dict[str, Any] = {name: np.zeros(200_000) for name in names}
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="unpack to"):
        theano_to_fastlstm(path)


def test_description_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file({"a": np.zeros(1)}, path, metadata={"fastlstm": "[" * 100_000})
    with pytest.raises(ValueError, match="its description is no JSON"):
        read_tensor_file(path)
