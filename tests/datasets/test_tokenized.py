"""Texts as ids on disk: what they hold, in how much memory they are made and read, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of

from fastlstm import datasets
from fastlstm.cli import main
from fastlstm.datasets import files, tokenized
from fastlstm.datasets.tokenized import sentences_of
from fastlstm.datasets.tokenizers import Tokenizer

RNG = np.random.default_rng(0)


def zipf_text(lines: int, words: int = 300) -> str:
    drawn = np.minimum(RNG.zipf(1.3, (lines, 6)), words)
    return "".join(" ".join(f"w{i}" for i in line[: RNG.integers(0, 7)]) + "\n" for line in drawn)


def words_of(text: datasets.TokenizedText | datasets.Text) -> list[str]:
    return [text.vocabulary[i] for i in text.ids]


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("tokenizer", ["blanks", "words", "char"])
def test_ids_are_those_of_the_text_read_as_a_whole(
    tokenizer: Tokenizer, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BLOCK", block)
    path = tmp_path / "text"
    path.write_bytes("\ufeffé b\r\n\r\nB! <eos> 日本 c  a \r\na long line without an end, c\r d".encode())
    whole = datasets.plain_text(path, tokenizer=tokenizer)
    text = datasets.tokenize_texts(path, tmp_path / "out", tokenizer=tokenizer)
    assert words_of(text) == words_of(whole)
    assert text.vocabulary.tokenizer == tokenizer
    assert text.ids.dtype == np.int32
    assert text.vocabulary.counts is not None
    np.testing.assert_array_equal(np.bincount(text.ids, minlength=len(text.vocabulary)), text.vocabulary.counts)
    assert (np.diff(text.vocabulary.counts[1:]) <= 0).all()


def test_several_texts_packed_or_piped_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [zipf_text(200) for _ in range(4)]
    (tmp_path / "whole").write_text("".join(parts))
    (tmp_path / "a.xz").write_bytes(lzma.compress(parts[0].encode()))
    (tmp_path / "b.gz").write_bytes(gzip.compress(parts[1].encode()))
    os.mkfifo(tmp_path / "pipe")
    feed = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(gzip.compress(parts[2].encode()),))
    feed.start()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lzma.compress(parts[3].encode()))))
    sources: list[str | Path] = [tmp_path / "a.xz", tmp_path / "b.gz", tmp_path / "pipe", "-"]
    text = datasets.tokenize_texts(sources, tmp_path / "out")
    feed.join()
    whole = datasets.tokenize_texts(tmp_path / "whole", tmp_path / "out2")
    assert text.vocabulary == whole.vocabulary
    np.testing.assert_array_equal(text.ids, whole.ids)


def test_words_that_are_given_up_are_unknown_and_the_frequent_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(zipf_text(3000, 5000))
    whole = words_of(datasets.plain_text(path, "word"))
    text = datasets.tokenize_texts(path, tmp_path / "out", most_words=100)
    assert 2 <= len(text.vocabulary) <= 101
    assert text.vocabulary.counts is not None
    np.testing.assert_array_equal(np.bincount(text.ids, minlength=len(text.vocabulary)), text.vocabulary.counts)
    assert all(got in ("<unk>", word) for got, word in zip(words_of(text), whole, strict=True))
    exact = datasets.Vocabulary.from_texts([path.read_text()])
    assert exact.counts is not None
    for word in exact[1:10]:
        assert text.vocabulary.counts[text.vocabulary.index(word)] == exact.counts[exact.index(word)]


def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of many different words, packed in a pipe."""
    monkeypatch.setattr(files, "_BLOCK", 1 << 14)
    monkeypatch.setattr(tokenized, "_IDS_AT_ONCE", 1 << 12)
    peaks = []
    for size in (1, 6):
        path = tmp_path / f"text{size}"
        drawn = RNG.zipf(1.3, 20_000 * size) % 10**6
        path.write_bytes(gzip.compress(" ".join(map(str, drawn.tolist())).encode(), 1))
        del drawn
        read, write = os.pipe()
        feed = threading.Thread(target=_feed, args=(write, path))
        feed.start()
        tracemalloc.start()
        datasets.tokenize_texts(f"/dev/fd/{read}", tmp_path / f"out{size}", most_words=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        feed.join()
        os.close(read)
    assert peaks[1] < 1.5 * peaks[0], peaks


def _feed(pipe: int, path: Path) -> None:
    with open(pipe, "wb") as out, open(path, "rb") as content:
        while piece := content.read(1 << 16):
            out.write(piece)


@pytest.mark.parametrize(
    "cut",
    [
        {"max_words": None, "min_count": 1, "unknown": False},
        {"max_words": 40, "min_count": 1, "unknown": True},
        {"max_words": 40, "min_count": 5, "unknown": False},
    ],
)
def test_sentences_for_word_vectors_are_those_of_the_text(cut: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("\n\n" + zipf_text(500) + "\n\n")
    want = datasets.read_words(path, **cut)
    got = sentences_of(datasets.tokenize_texts(path, tmp_path / "out"), **cut)
    assert got.vocabulary == want.vocabulary
    np.testing.assert_array_equal(got.counts, want.counts)
    np.testing.assert_array_equal(got.ids, want.ids)


def test_what_cannot_be_tokenized_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a b")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "latin").write_bytes(b"a\nb \xe9 c\n")
    out = tmp_path / "new" / "out"

    def refused(error: type[Exception], message: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(error, match=message):
            datasets.tokenize_texts(*arguments, **options)
        assert not (tmp_path / "new").exists()

    refused(ValueError, "empty is empty", [tmp_path / "text", tmp_path / "empty"], out)
    refused(ValueError, r"latin, line 2: no UTF-8 .*iconv", tmp_path / "latin", out)
    refused(FileNotFoundError, "nothing does not exist", tmp_path / "nothing", out)
    refused(ValueError, "no word occurs 2 times", tmp_path / "text", out, min_count=2)
    refused(ValueError, "min_count is 0", tmp_path / "text", out, min_count=0)
    refused(ValueError, "max_size is 1", tmp_path / "text", out, max_size=1)
    refused(ValueError, "paths is empty", [], out)
    refused(FileExistsError, "exists already; expected a new or an empty folder", tmp_path / "text", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is no folder of ids: it has no ids\.npy"):
        datasets.tokenized_text(tmp_path)
    text = datasets.tokenize_texts(tmp_path / "text", out)
    assert text.ids.tolist() == [1, 2, 3]
    np.save(out / "ids.npy", np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="out is damaged"):
        datasets.tokenized_text(out)


def test_a_word_longer_than_any_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BLOCK", 16)
    monkeypatch.setattr(files, "_LONGEST_WORD", 100)
    (tmp_path / "text").write_text("a " + 200 * "b")
    with pytest.raises(ValueError, match="a word of more than 100 letters; read a text without blanks by characters"):
        datasets.tokenize_texts(tmp_path / "text", tmp_path / "out")
    assert len(datasets.tokenize_texts(tmp_path / "text", tmp_path / "out", tokenizer="char").ids) == 202


# --------------------------------------------------------------------------------------------
# The command line
# --------------------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(zipf_text(300))
    return tmp_path / "text.txt"


def test_trainings_from_a_folder_are_those_from_its_text(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "tokenize", "text.txt", "--out", "ids"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ids: ")
    assert " different words, 0.00% of them <unk>; " in out
    for task, options in {
        "word2vec": ["--vector-size", "4", "--epochs", "1", "--unknown", "--vocab-size", "50", "--no-eval"],
        "rnnlm": ["--hidden-size", "4", "--epochs", "1", "--limit", "500", "--hold-out", "0.2"],
    }.items():
        results = []
        for data in ("text.txt", "ids"):
            assert main(["train", task, "--data", data, "--out", f"{task}-{data}", "--quiet", *options]) == 0
            config = json.loads(Path(f"{task}-{data}/config.json").read_text())
            assert config["options"]["data"] == str(text.parent / data)
            results.append(config["result"])
        if task == "word2vec":
            results = [{k: v for k, v in result.items() if k != "words_per_second"} for result in results]
            assert results[0] == results[1]
        else:
            # The same text by other ids, so from other initial weights.
            assert results[0]["val_perplexity"] == pytest.approx(results[1]["val_perplexity"], rel=0.5)
    capsys.readouterr()
    assert main(["generate", "rnnlm-ids", "w1 w2", "--length", "5", "--seed", "0"]) == 0
    assert len(capsys.readouterr().out.split()) >= 5


def test_characters_on_disk(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "tokenize", "text.txt", "--out", "ids", "--unit", "char"]) == 0
    small = ["--hidden-size", "4", "--epochs", "1", "--limit", "400", "--out", "run"]
    assert main(["train", "rnnlm", "--data", "ids", *small]) == 0
    assert json.loads(Path("run/config.json").read_text())["options"]["unit"] == "char"
    capsys.readouterr()
    assert main(["generate", "run", "w1 ", "--length", "5", "--skip", "<unk>", "--seed", "0"]) == 0
    assert len(capsys.readouterr().out) == 3 + 5 + 1
    assert main(["train", "rnnlm", "--data", "ids", "--unit", "word"]) == 2
    assert "ids holds ids of chars, --unit is word; leave it out" in capsys.readouterr().err
    assert main(["data", "tokenize", "text.txt", "--out", "ids"]) == 2
    assert "ids exists already" in error_of(capsys, 2)
    assert main(["data", "tokenize", "text.txt", "--out", "x", "--unit", "char", "--tokenizer", "words"]) == 2
    assert "--unit char and --tokenizer words do not go together" in error_of(capsys, 2)
    assert not Path("x").exists()
