"""Texts as one long array of ids: any file, by words or characters, and the Penn Treebank."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file, read_lines
from fastlstm.datasets.tokenizers import Tokenizer, Unit, check_tokenizer, split_lines, tokenizer_of

SPLITS = ("train", "valid", "test")

WHERE_TO_GET_PTB = (
    "The Penn Treebank of Mikolov's language models, ptb.train.txt, ptb.valid.txt and ptb.test.txt, is in the folder "
    "data of github.com/tomsercu/lstm; put the files, plain or as .xz, into a folder ptb and set FASTLSTM_DATA_DIR to "
    "the folder above"
)
WHERE_TO_GET_TEXT = "Any UTF-8 text will do, plain or packed (.xz, .gz, .bz2)"


class Text(NamedTuple):
    """ids (L,) int64 of a text's words or characters; id i means vocabulary[i]."""

    ids: IntArray
    vocabulary: list[str]


def plain_text(
    path: str | os.PathLike[str],
    unit: Unit = "char",
    *,
    vocabulary: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Tokenizer | None = None,
) -> Text:
    r"""Read a UTF-8 file, plain or packed (.xz, .gz, .bz2).

    Parameters
    ----------
    path : path
        Looked for as it stands and below FASTLSTM_DATA_DIR; "-" is stdin.
    unit : "char" or "word"
        Characters, line ends included (but for the file's last); or what stands between blanks, and "<eos>" at the end
        of every line. Where the text itself has the word "<eos>", that is another word, "\<eos>".
    vocabulary : sequence of str, optional
        That of another text. Without it the words get ids in the order in which they appear.
    limit : int, optional
        Only so many words or characters from the beginning.
    tokenizer : "blanks", "words", "char" or "janome", optional
        In the place of unit, see `fastlstm.datasets.tokenizers`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or has a symbol that the vocabulary lacks.
    """
    tokenizer = tokenizer_of(unit) if tokenizer is None else tokenizer
    check_tokenizer(tokenizer)
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1")
    path = find_file(path, WHERE_TO_GET_TEXT)
    lines = read_lines(path)
    symbols = _characters(lines) if tokenizer == "char" else split_lines(lines, tokenizer)
    return encode_symbols(islice(symbols, limit), vocabulary, str(path))


def ptb(split: str = "train", *, limit: int | None = None) -> Text:
    """Read a part of the Penn Treebank, in words: 929,589 to train on, of 10,000 different ones.

    The files are ptb/ptb.SPLIT.txt or ptb/ptb.SPLIT.txt.xz below FASTLSTM_DATA_DIR. All parts have the vocabulary of
    the training part: ids in the order in which the words appear there.

    Parameters
    ----------
    split : "train", "valid" or "test"
    limit : int, optional
        Only so many words from the beginning of the training part, and a vocabulary of these.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message says where to get it.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected 'train', 'valid' or 'test'")
    if limit is not None and split != "train":
        raise ValueError(f"limit is for the training part, split is {split!r}")
    train = plain_text(_ptb_file("train"), "word", limit=limit)
    return train if split == "train" else plain_text(_ptb_file(split), "word", vocabulary=train.vocabulary)


def _ptb_file(split: str) -> Path:
    name = f"ptb/ptb.{split}.txt"
    try:
        return find_file(f"{name}.xz", WHERE_TO_GET_PTB)
    except FileNotFoundError:
        return find_file(name, WHERE_TO_GET_PTB)


def encode_symbols(symbols: Iterator[str] | Sequence[str], vocabulary: Sequence[str] | None, source: str) -> Text:
    """Ids of symbols; without a vocabulary, in the order in which they appear."""
    if vocabulary is None:
        id_of: dict[str, int] = {}
        ids = np.fromiter((id_of.setdefault(symbol, len(id_of)) for symbol in symbols), np.int64)
        return Text(ids, list(id_of))
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    try:
        return Text(np.fromiter((id_of[symbol] for symbol in symbols), np.int64), list(vocabulary))
    except KeyError as unknown:
        raise ValueError(f"{source}: {unknown} is not in the vocabulary of {len(id_of):,} symbols") from None


def reject_string(name: str, texts: object) -> None:
    """Raises if one text was given where several are read: each of its characters would be a text."""
    if isinstance(texts, str):
        raise TypeError(f"{name} is the string {texts[:60]!r}, expected a sequence of texts such as [{texts[:60]!r}]")


def _characters(lines: Iterator[str]) -> Iterator[str]:
    yield from next(lines)
    for line in lines:
        yield "\n"
        yield from line
