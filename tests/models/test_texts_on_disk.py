"""Texts in files larger than the memory: they are read where they lie, and learned to the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, use_backend
from fastlstm.callbacks import BackupAndRestore
from fastlstm.models import RNNLM, Word2Vec, skipgram_batches
from fastlstm.models.text_streams import TextStreams
from fastlstm.tensor_file import read_tensor_file

RNG = np.random.default_rng(0)
TEXT = RNG.integers(0, 9, 2000)
DTYPES = ["uint16", "int32", ">i4", "int64"]


def on_disk(path: Path, ids: Any, dtype: str) -> Any:
    ids.astype(dtype).tofile(path)
    return np.memmap(path, dtype, "r")


def weights(model: Any) -> list[bytes]:
    return [param.tobytes() for param in model.params]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_language_model_learns_the_same_bits_from_a_file(dtype: str, tmp_path: Path) -> None:
    models, histories = [], []
    for ids in (TEXT, on_disk(tmp_path / "ids", TEXT, dtype)):
        model = RNNLM(9, 3, 4, seed=0)
        fitted = model.fit(ids, epochs=2, time_size=7, batch_size=6, validation_split=0.1, verbose=0)
        models.append(model)
        histories.append(fitted.history)
    assert histories[0] == histories[1]
    assert weights(models[0]) == weights(models[1])
    assert models[1].evaluate(ids) == models[0].evaluate(TEXT)


@pytest.mark.parametrize("dtype", ["int8", *DTYPES[1:]])
@pytest.mark.parametrize("subsample", [None, 0.05])
def test_word_vectors_learn_the_same_bits_from_a_file(
    subsample: float | None, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = np.where(np.arange(len(TEXT)) % 17, TEXT, -1)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 50, "subsample": subsample, "verbose": 0}
    whole = Word2Vec(9, 4, seed=0)
    whole.fit(text, **options, callbacks=[BackupAndRestore(tmp_path / "whole", delete_checkpoint=False)])
    # As pieces of a length that no chunk has.
    monkeypatch.setattr(skipgram_batches, "CHUNK", 37)
    monkeypatch.setattr("fastlstm.models.ids.IDS_AT_ONCE", 41)
    model = Word2Vec(9, 4, seed=0)
    backup = BackupAndRestore(tmp_path / "part", delete_checkpoint=False)
    model.fit(on_disk(tmp_path / "ids", text, dtype), **options, callbacks=[backup])
    assert weights(model) == weights(whole)
    assert read_tensor_file(tmp_path / "part")[1] == read_tensor_file(tmp_path / "whole")[1]


def test_pairs_of_a_piece_are_those_of_the_text(backend: str) -> None:
    """``first`` says where in a longer text the ids stand."""
    text, keep = TEXT[:200], RNG.random(9)
    with use_backend(backend):
        whole = ops.subsample(text, keep, seed=2**64 - 5)
        parts = [ops.subsample(text[i : i + 30], keep, seed=2**64 - 5, first=i) for i in range(0, 200, 30)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        pairs = ops.skipgram_pairs(text, 3, start=50, stop=80, seed=11)
        piece = ops.skipgram_pairs(text[47:83], 3, start=3, stop=33, seed=11, first=47)
        counts = ops.skipgram_counts(text[47:83], 3, start=3, stop=33, seed=11, first=47)
    np.testing.assert_array_equal(piece.centers, pairs.centers)
    np.testing.assert_array_equal(piece.contexts, pairs.contexts)
    assert counts.sum() == len(pairs.centers)


def test_checksums_are_those_of_all_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TextStreams(TEXT, 6, 7, "cpu").fingerprint()
    monkeypatch.setattr("fastlstm.models.text_streams.IDS_AT_ONCE", 100)
    assert TextStreams(TEXT.astype(np.int64), 6, 7, "cpu").fingerprint() == whole
    assert TextStreams(TEXT[::-1], 6, 7, "cpu").fingerprint() != whole


FIT = """
import resource, sys
import numpy as np
from fastlstm.callbacks import Callback
from fastlstm.models import RNNLM, Word2Vec

class Stop(Callback):
    def on_train_batch_end(self, batch, logs):
        self.model.stop_training = batch == 3

corpus = np.memmap(sys.argv[1], sys.argv[2], "r")
if sys.argv[3] == "RNNLM":
    model, options = RNNLM(4, 4, 4, seed=0), {"validation_split": 0.1}
else:
    model, options = Word2Vec(4, 4, seed=0), {}
in_use = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
limit = in_use + 100 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
model.fit(corpus, epochs=1, callbacks=[Stop()], verbose=0, **options)
print("learned", len(corpus))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on data is Linux's")
@pytest.mark.parametrize(("kind", "dtype", "mb"), [("RNNLM", "uint16", 400), ("Word2Vec", "int32", 200)])
def test_a_text_is_not_copied(kind: str, dtype: str, mb: int, tmp_path: Path) -> None:
    """With 100 MB left for all that is made."""
    path = tmp_path / "ids"
    with open(path, "wb") as file:
        file.truncate(mb * 2**20)  # zeros, which take no room
    run = subprocess.run(
        [sys.executable, "-c", FIT, path, dtype, kind], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout == f"learned {mb * 2**20 // np.dtype(dtype).itemsize}\n", run.stderr
