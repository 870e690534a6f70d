"""Vocabularies and tokenizers: ids of texts, texts of ids, and errors that say what came."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.datasets import Vocabulary
from fastlstm.datasets.tokenizers import Tokenizer, join_symbols, needs_splitting, split_block, split_symbols
from fastlstm.models import RNNLM

TEXTS = ["the cat sat", "the dog sat\nthe end", "a cat"]


def test_ids_are_words_by_falling_frequency_behind_the_unknown_one() -> None:
    vocabulary = Vocabulary.from_texts(TEXTS)
    assert list(vocabulary) == ["<unk>", "the", "cat", "sat", "dog", "<eos>", "end", "a"]
    assert vocabulary.counts is not None
    assert vocabulary.counts.tolist() == [0, 3, 2, 2, 1, 1, 1, 1]
    ids = vocabulary.encode("the bird sat\nthe cat")
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 0, 3, 5, 1, 2]
    assert vocabulary.decode(ids) == "the <unk> sat\nthe cat"
    assert vocabulary.decode([-1, 1, 2, -1]) == "the cat"
    assert (vocabulary.unit, vocabulary.unknown_id, vocabulary.index("dog")) == ("word", 0, 4)


def test_rare_words_are_unknown() -> None:
    frequent = Vocabulary.from_texts(TEXTS, min_count=2)
    assert list(frequent) == ["<unk>", "the", "cat", "sat"]
    assert frequent.counts is not None
    assert frequent.counts.tolist() == [4, 3, 2, 2]
    assert list(Vocabulary.from_texts(iter(TEXTS), max_size=3)) == ["<unk>", "the", "cat"]
    assert list(Vocabulary.from_texts(["b <unk> b a <unk> <unk>"])) == ["<unk>", "b", "a"]


def test_characters() -> None:
    vocabulary = Vocabulary.from_texts(["abba\n", "b"], unit="char")
    assert list(vocabulary) == ["<unk>", "b", "a", "\n"]
    assert vocabulary.decode(vocabulary.encode("ba\nb")) == "ba\nb"
    assert vocabulary.encode("bz").tolist() == [1, 0]


def test_columns_of_tables_are_texts() -> None:
    assert Vocabulary.from_texts(np.array(TEXTS)) == Vocabulary.from_texts(np.array(TEXTS, object))
    pandas: Any = pytest.importorskip("pandas", reason="pandas is not installed")
    column = pandas.Series(TEXTS, index=[7, 8, 9])
    assert Vocabulary.from_texts(column) == Vocabulary.from_texts(TEXTS)
    with pytest.raises(TypeError, match=r"texts\[1\] is .*, expected a str; leave rows without a text out"):
        Vocabulary.from_texts(pandas.Series(["a", None], dtype="string"))


def test_a_vocabulary_is_saved_and_loaded(tmp_path: Path) -> None:
    for vocabulary in (
        Vocabulary.from_texts(TEXTS, tokenizer="words"),
        Vocabulary(["日本", "\n", " ", "\ud800"], tokenizer="char"),
    ):
        vocabulary.save(tmp_path / "v.json")
        loaded = Vocabulary.load(tmp_path / "v.json")
        assert loaded == vocabulary
        assert loaded.counts is vocabulary.counts or loaded.counts.tolist() == vocabulary.counts.tolist()  # type: ignore
    for content in ("", "[]", "{}", '{"words": ["a", "a"], "tokenizer": "char", "counts": null}'):
        (tmp_path / "v.json").write_text(content)
        with pytest.raises(ValueError, match=r"v\.json is no vocabulary"):
            Vocabulary.load(tmp_path / "v.json")


def test_it_says_what_it_is_and_is_a_models_vocabulary() -> None:
    vocabulary = Vocabulary.from_texts(TEXTS)
    assert repr(vocabulary) == "Vocabulary of 8 by blanks: '<unk>', 'the', 'cat', 'sat', 'dog', ..."
    assert repr(Vocabulary(["a"])) == "Vocabulary of 1 by blanks: 'a'"
    model = RNNLM(len(vocabulary), 2, 2)
    model.vocabulary = vocabulary
    assert Vocabulary(model.vocabulary or []) == vocabulary


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary.from_texts("a text"), TypeError, r"texts is the string 'a text', expected .*\['a text'\]"),
        (lambda: Vocabulary.from_texts([]), ValueError, "no words"),
        (lambda: Vocabulary.from_texts(["a"], min_count=2), ValueError, "no word occurs 2 times; a smaller min_count"),
        (lambda: Vocabulary.from_texts(["a"], min_count=0), ValueError, "min_count is 0"),
        (lambda: Vocabulary.from_texts(["a"], max_size=1), ValueError, "max_size is 1"),
        (lambda: Vocabulary.from_texts(["a"], unit="line"), ValueError, "unit is 'line', expected 'char' or 'word'"),  # type: ignore[arg-type]
        (lambda: Vocabulary.from_texts(["a"], tokenizer="x"), ValueError, "tokenizer is 'x', expected one of"),  # type: ignore[arg-type]
        (lambda: Vocabulary("ab"), TypeError, "words is the string 'ab'"),
        (lambda: Vocabulary(["a", 1]), TypeError, r"words\[1\] is int 1, expected a str"),  # type: ignore[list-item]
        (lambda: Vocabulary(["a", "b", "a"]), ValueError, "words holds 'a' twice"),
        (lambda: Vocabulary(["a"], counts=[1, 2]), ValueError, "counts has 2 numbers, expected 1"),
        (lambda: Vocabulary(["a"]).encode("a b"), ValueError, "'b' in 'a b' is not in the vocabulary of 1 words"),
        (lambda: Vocabulary(["a"]).encode(["a"]), TypeError, "text is list"),  # type: ignore[arg-type]
        (lambda: Vocabulary(["a"]).decode([0, 1]), IndexError, "ids holds 1, expected 0 to 0, or -1 for padding"),
        (lambda: Vocabulary(["a"]).decode([[0]]), ValueError, "expected one axis of integers"),  # type: ignore[list-item]
        (lambda: Vocabulary(["a"]).index("b"), ValueError, "'b' is not in the vocabulary of 1 words"),
    ],
)
def test_what_does_not_fit_is_said(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --------------------------------------------------------------------------------------------
# Tokenizers
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["blanks", "words", "char"])
def test_blocks_have_the_symbols_of_the_whole_text(tokenizer: Tokenizer) -> None:
    text = "It's GOOD,  isn't it?\n\n<eos> \\<eos> e\u0301 \n end"
    cut = text.index("isn't")
    joined = [*split_block(text[:cut], tokenizer), *split_block(text[cut:], tokenizer)]
    assert joined == split_symbols(text, tokenizer)
    again = join_symbols(joined, tokenizer)
    assert split_symbols(again, tokenizer) == joined
    if tokenizer == "blanks":
        assert again == "It's GOOD, isn't it?\n\n<eos> \\<eos> e\u0301\nend"


def test_words_are_in_lower_case_and_signs_apart() -> None:
    assert split_symbols("It's GOOD!\nYes", "words") == ["it's", "good", "!", "<eos>", "yes"]


@pytest.mark.parametrize("tokenizer", ["blanks", "words"])
def test_scripts_without_blanks_are_noticed(tokenizer: Tokenizer) -> None:
    def noticed(text: str) -> bool:
        return needs_splitting(iter(split_symbols(text, tokenizer)))

    assert noticed("吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。")
    assert noticed("ภาษาไทยไม่มีช่องว่างระหว่างคำ")
    assert not noticed("吾輩 は 猫 で ある 。\n名前 は まだ 無い 。 コンピューター")
    assert not noticed("The cat 猫である sat on the mat. " + "x" * 100)
    assert not noticed("")


def test_janome_splits_japanese() -> None:
    if importlib.util.find_spec("janome") is None:
        with pytest.raises(ValueError, match=r"run: pip install 'fastlstm\[japanese\]'"):
            Vocabulary.from_texts(["猫"], tokenizer="janome")
        pytest.skip("janome is not installed")
    words = split_symbols("すもももももも\nGood morning 東京", "janome")
    assert words == ["すもも", "も", "もも", "も", "<eos>", "Good", "morning", "東京"]
    assert join_symbols(words, "janome") == "すもももももも\nGood morning東京"
