"""Texts as ids of their most frequent words, for word vectors."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file
from fastlstm.datasets.tables import text_lines
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.datasets.tokenizers import Tokenizer, check_tokenizer, needs_splitting, split_line
from fastlstm.datasets.vocabulary import checked_texts

UNKNOWN = "UNK"  # the word that stands for all words outside the vocabulary
SENTENCE_END = -1

TEXT8_FILES = ("text8", "text8.xz", "text8/text8", "text8/text8.xz", "text8_slice/text8.head.txt.xz")
WHERE_TO_GET_TEXT8 = (
    "text8, the first 100 million letters of a cleaned Wikipedia, is text8.zip of mattmahoney.net/dc; unpack it and "
    "set FASTLSTM_DATA_DIR to its folder"
)

_LETTERS_AT_ONCE = 1 << 22


class Words(NamedTuple):
    """ids (L,) int64 of a text, -1 where a line ends; id i means vocabulary[i], which occurs counts[i] times.

    Ids are sorted by descending frequency, but for "UNK" in the first place where unknown words are kept.
    """

    ids: IntArray
    vocabulary: list[str]
    counts: IntArray


def read_words(
    path: str | os.PathLike[str],
    *,
    max_words: int | None = None,
    min_count: int = 1,
    unknown: bool = False,
    tokenizer: Tokenizer = "blanks",
    column: str | None = None,
) -> Words:
    """Read a UTF-8 file, plain or packed (.xz, .gz, .bz2), whose words are separated by blanks; a line is a sentence.

    Parameters
    ----------
    path : path
        Looked for as it stands and below FASTLSTM_DATA_DIR.
    max_words : int, optional
        The most frequent so many are the vocabulary, "UNK" included; of equally frequent ones the first in the text.
    min_count : int
        Rarer words are not in the vocabulary.
    unknown : bool
        Words outside the vocabulary become "UNK", id 0; else they are left out, as if they were not in the text.
    tokenizer : "blanks", "words", "char" or "janome"
        See `fastlstm.datasets.tokenizers`.
    column : str, optional
        The text is the column of this name in a CSV file, see `read_columns`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or no word is frequent enough.
    """
    path = find_file(path, WHERE_TO_GET_TEXT)
    lines = text_lines(path, column)
    return _words(str(path), lines, max_words, min_count, unknown, tokenizer)


def count_words(
    texts: Iterable[str],
    *,
    max_words: int | None = None,
    min_count: int = 1,
    unknown: bool = False,
    tokenizer: Tokenizer = "blanks",
) -> Words:
    """Texts from memory as `read_words` reads a file's: the end of a text or of a line ends a sentence.

    Parameters
    ----------
    texts : iterable of str
        A list, a column of a pandas DataFrame, anything that gives texts; read once.
    max_words, min_count, unknown, tokenizer
        As in `read_words`.

    Raises
    ------
    TypeError
        texts is one string, or one of them is none.
    ValueError
        No word is frequent enough.
    """
    lines = (line for text in checked_texts("texts", texts) for line in text.split("\n"))
    return _words("texts", lines, max_words, min_count, unknown, tokenizer)


def _words(
    source: str, lines: Iterable[str], max_words: int | None, min_count: int, unknown: bool, tokenizer: Tokenizer
) -> Words:
    check_tokenizer(tokenizer)
    for name, value in (("max_words", max_words), ("min_count", min_count)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    # A word "<eos>" is one like others here.
    split = str.split if tokenizer == "blanks" else functools.partial(split_line, tokenizer=tokenizer)
    # Ids from 1 in the order of first appearance; 0 ends a line, whatever stands in it, but the last.
    id_of: defaultdict[str, int] = defaultdict(itertools.count(1).__next__)
    ids = np.fromiter(itertools.chain.from_iterable(_ids(lines, id_of, split)), np.int64)[:-1]
    words = ["", *id_of]
    counts = np.bincount(ids, minlength=len(words))
    order = np.argsort(-counts[1:], kind="stable") + 1
    order = order[counts[order] >= min_count]
    if not len(order):
        helps = "a smaller min_count helps"
        if tokenizer != "janome" and needs_splitting(id_of):
            helps = f"by {tokenizer} whole clauses are words, as hardly a blank stands between; janome splits Japanese"
        raise ValueError(f"{source}: no word occurs {min_count} times; {helps}")
    if max_words is not None:
        order = order[: max_words - unknown]
    outside = 0 if unknown else SENTENCE_END - 1
    new_id = np.full(len(words), outside, np.int64)
    new_id[order] = np.arange(unknown, unknown + len(order))
    new_id[0] = SENTENCE_END
    ids = new_id[ids]
    vocabulary = [words[i] for i in order]
    kept_counts = counts[order]
    if unknown:
        check_unknown(source, vocabulary)
        vocabulary.insert(0, UNKNOWN)
        kept_counts = np.concatenate([[np.count_nonzero(ids == 0)], kept_counts])
    else:
        ids = ids[ids != outside]
    ends = ids == SENTENCE_END
    last = np.flatnonzero(~ends)[-1]
    # One end after the other says no more, nor does one before the first word.
    ids = ids[: last + 1][~(ends & np.concatenate(([True], ends[:-1])))[: last + 1]]
    return Words(np.ascontiguousarray(ids), vocabulary, kept_counts)


def check_unknown(source: str, vocabulary: Iterable[str]) -> None:
    """Raise if a text has the word that is to stand for others."""
    if UNKNOWN in vocabulary:
        raise ValueError(f"{source}: {UNKNOWN!r} is a word of the text, so it cannot stand for unknown words")


def text8_path() -> Path:
    """The file of text8 below FASTLSTM_DATA_DIR, or of its beginning.

    Raises
    ------
    FileNotFoundError
        There is none; the message says where to get it.
    """
    for name in TEXT8_FILES:
        with contextlib.suppress(FileNotFoundError):
            if (path := find_file(name, WHERE_TO_GET_TEXT8)).is_file():
                return path
    raise FileNotFoundError(f"text8 is not there. {WHERE_TO_GET_TEXT8}")


def _ids(lines: Iterable[str], id_of: Mapping[str, int], split: Callable[[str], list[str]]) -> Iterator[Iterable[int]]:
    """The words' ids piece by piece, and 0 after each line: a list of all words would take gigabytes."""
    for line in lines:
        start = 0
        while start < len(line):
            end = start + _LETTERS_AT_ONCE
            if end < len(line):
                blank = line.rfind(" ", start, end)
                # A piece may end at a blank only; a word longer than a piece is a piece of its own.
                end = blank + 1 if blank >= start else len(line)
            yield map(id_of.__getitem__, split(line[start:end]))
            start = end
        yield (0,)
