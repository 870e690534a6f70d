"""Texts as people have them: by any tokenizer, in columns of tables, from stdin, with rare words unknown."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of

from fastlstm import datasets
from fastlstm.cli import main
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier, Word2Vec

TINY = ["--hidden-size", "3", "--wordvec-size", "3", "--epochs", "1", "--batch-size", "4", "--quiet"]
TEXT = "The cat sat, the cat ran.\nA dog sat!\n" * 20


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    Path("text.txt").write_text(TEXT)
    rows = [f'"{line}",{label}' for line, label in zip(TEXT.splitlines(), [1, 0] * 20, strict=True)]
    Path("table.csv").write_text("\n".join(["review,stars", *rows]))


def vocabulary_of(kind: type[Any], run: str) -> list[str]:
    vocabulary: list[str] = kind.load(Path(run) / "model.safetensors").vocabulary
    return vocabulary


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    capsys.readouterr()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    return out, err


def test_a_language_model_by_words_with_rare_ones_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--tokenizer", "words", "--min-count", "21", "--vocab-size", "5", *TINY]
    assert main(["train", "rnnlm", "--data", "table.csv", "--column", "review", "--out", "a", *options]) == 0
    vocabulary = vocabulary_of(RNNLM, "a")
    assert vocabulary == ["<unk>", "the", "cat", "sat", "<eos>"]
    out, err = ask(capsys, "generate", "a", "The CAT flew", "--length", "4", "--seed", "1")
    assert out.startswith("the cat flew")
    assert err == "not in the vocabulary, read as <unk>: flew\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["train", "rnnlm", "--data", "-", "--out", "b", *options]) == 0
    assert vocabulary_of(RNNLM, "b") == vocabulary
    assert main(["data", "tokenize", "text.txt", "--out", "ids", "--tokenizer", "words"]) == 0
    assert main(["train", "rnnlm", "--data", "ids", "--out", "c", *options[2:]]) == 0
    results = [json.loads(Path(run, "config.json").read_text())["result"] for run in "abc"]
    assert results[0] == results[1] == results[2]


def test_word_vectors_of_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--vector-size", "3", "--epochs", "1", "--no-eval", "--quiet", "--no-unknown"]
    source = ["--data", "table.csv", "--column", "review"]
    assert main(["train", "word2vec", *source, "--tokenizer", "words", "--out", "a", *small]) == 0
    assert {"the", "cat", ",", "!"} < set(vocabulary_of(Word2Vec, "a"))
    assert main(["train", "word2vec", *source, "--out", "b", *small]) == 0
    assert {"The", "sat,"} < set(vocabulary_of(Word2Vec, "b"))


def test_classes_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["--text-column", "review", "--label-column", "stars"]
    for tokenizer, symbol in {"words": "cat", "char": "q", "blanks": "sat,"}.items():
        run = ["--out", tokenizer, "--tokenizer", tokenizer, *columns, *TINY, "--hold-out", "0.2"]
        assert main(["train", "sentiment", "--data", "table.csv", *run]) == 0
        assert (symbol in vocabulary_of(SequenceClassifier, tokenizer)) == (tokenizer != "char")
        out, _ = ask(capsys, "generate", tokenizer, "The cat")
        assert out.split()[0] in ("0", "1")
    assert main(["train", "sentiment", "--data", "table.csv", "--text-column", "review"]) == 2
    assert "--text-column and --label-column are given together" in error_of(capsys, 2)


def test_translations_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.csv").write_text("id;en;de\n" + "1;I see.;Ich sehe.\n2;You see!;Du siehst!\n" * 10)
    source = ["--data", "pairs.csv", "--source-column", "en", "--target-column", "de"]
    options = ["--tokenizer", "words", "--out", "r", "--validation-split", "0.2", *TINY]
    assert main(["train", "translate", *source, *options]) == 0
    model = Seq2seq.load("r/model.safetensors")
    assert model.vocabulary is not None
    assert set(model.vocabulary[4:]) == {"i", "see", "you", ".", "!"}
    out, _ = ask(capsys, "generate", "r", "I see!")
    assert out.startswith("I see!\t")
    assert main(["train", "translate", *source, "--tokenizer", "char", "--target-tokenizer", "words"]) == 2
    assert "both cut into words or into 'char'" in error_of(capsys, 2)


def test_a_script_without_blanks_read_by_words_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("neko.txt").write_text("吾輩は猫である。名前はまだ無い。\n" * 40)
    for options, told in ((["--tokenizer", "words"], True), ([], True), (["--tokenizer", "char"], False)):
        capsys.readouterr()
        assert main(["train", "rnnlm", "--data", "neko.txt", *options, *TINY]) == 0
        assert ("hardly a blank between words" in capsys.readouterr().err) == told
    Path("clauses.txt").write_text("吾輩は猫である。 名前はまだ無い。\n" * 40)
    assert main(["train", "word2vec", "--data", "clauses.txt", "--subsample", "0", *TINY[4:]]) == 0
    assert "--tokenizer janome (Japanese) splits it" in capsys.readouterr().err  # word2vec reads no characters
    if importlib.util.find_spec("janome") is None:
        assert main(["train", "rnnlm", "--data", "neko.txt", "--tokenizer", "janome"]) == 2
        assert "pip install 'fastlstm[japanese]'" in error_of(capsys, 2)
        pytest.skip("janome is not installed")
    assert main(["train", "rnnlm", "--data", "neko.txt", "--tokenizer", "janome", "--out", "r", *TINY]) == 0
    assert "猫" in vocabulary_of(RNNLM, "r")
    out, _ = ask(capsys, "generate", "r", "吾輩は猫", "--length", "3", "--seed", "0")
    assert out.startswith("吾輩は猫")


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in {
        ("--unit", "char", "--tokenizer", "words"): "--unit char and --tokenizer words do not go together",
        ("--column", "nothing"): "has no column 'nothing'",
    }.items():
        assert main(["train", "rnnlm", "--data", "table.csv", *options]) == 2
        assert message in error_of(capsys, 2)
    assert main(["train", "rnnlm", "--min-count", "2"]) == 2
    assert "ptb has a vocabulary of its own" in error_of(capsys, 2)


# --------------------------------------------------------------------------------------------
# Texts from memory
# --------------------------------------------------------------------------------------------


def test_texts_from_memory_are_those_of_files() -> None:
    lines = TEXT.splitlines()
    for unit in ("char", "word"):
        read, given = datasets.plain_text("text.txt", unit), datasets.plain_texts(lines, unit)
        assert given.vocabulary == read.vocabulary
        np.testing.assert_array_equal(given.ids, read.ids)
    words, counted = datasets.read_words("text.txt", tokenizer="words"), datasets.count_words(lines, tokenizer="words")
    assert counted.vocabulary == words.vocabulary
    np.testing.assert_array_equal(counted.ids, words.ids)
    labelled = datasets.labelled_text("table.csv", text_column="review", label_column="stars")
    same = datasets.labelled_texts(np.array(lines), np.array([1, 0] * 20))
    assert (same.vocabulary, same.classes) == (labelled.vocabulary, labelled.classes) == (same.vocabulary, ["0", "1"])
    np.testing.assert_array_equal(same.ts, labelled.ts)
    for got, want in zip(same.xs, labelled.xs, strict=True):
        np.testing.assert_array_equal(got, want)
    Path("pairs.tsv").write_text("".join(f"{line}\tt {line}\n" for line in lines))
    pairs = datasets.parallel_text("pairs.tsv", unit="word", min_count=21)
    again = datasets.parallel_texts(lines, (f"t {line}" for line in lines), unit="word", min_count=21)
    assert again[2:] == pairs[2:]
    np.testing.assert_array_equal(again.xs, pairs.xs)
    np.testing.assert_array_equal(again.ts, pairs.ts)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: datasets.plain_texts("a"), TypeError, "texts is the string 'a', expected a sequence"),
        (lambda: datasets.plain_texts([]), ValueError, "texts has no symbols, expected a text"),
        (lambda: datasets.plain_texts(["a"], max_size=3, vocabulary=["a"]), ValueError, "are for making a vocabulary"),
        (lambda: datasets.count_words("a"), TypeError, "texts is the string 'a'"),
        (lambda: datasets.labelled_texts(["a", None], [0, 1]), TypeError, r"texts\[1\] is NoneType None"),  # type: ignore[list-item]
        (lambda: datasets.labelled_texts(["a", "b"], [0]), ValueError, "there are 2 texts and 1 labels"),
        (lambda: datasets.labelled_texts(["a", "b"], [0, 0]), ValueError, "all 2 texts have the label '0'"),
        (lambda: datasets.parallel_texts(["a"], []), ValueError, "there are 1 sources and 0 targets"),
        (lambda: datasets.parallel_texts(["a"], "b"), TypeError, "targets is the string 'b'"),
    ],
)
def test_texts_that_are_none(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_words_outside_a_vocabulary_with_an_unknown_word() -> None:
    text = datasets.plain_texts(["a b a c"], "word", min_count=2)
    assert text.vocabulary == ["<unk>", "a"]
    assert text.ids.tolist() == [1, 0, 1, 0, 0]
    assert datasets.plain_texts(["z a"], "word", vocabulary=text.vocabulary).ids.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="'z' is not in the vocabulary of 1 symbols"):
        datasets.plain_texts(["z a"], "word", vocabulary=["a"])
