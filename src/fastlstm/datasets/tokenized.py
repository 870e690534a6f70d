"""Texts of any size as ids in a folder, made in bounded memory and read without copying.

The folder holds ids.npy, int32, a text's ids one after the other, and vocabulary.json, a `Vocabulary` with counts.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file, read_blocks
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.datasets.tokenizers import END_OF_LINE, UNKNOWN, Tokenizer, check_tokenizer, split_block, unescape
from fastlstm.datasets.vocabulary import Vocabulary, most_frequent
from fastlstm.datasets.words import SENTENCE_END, Words, check_unknown
from fastlstm.ops import scalars

IDS = "ids.npy"
VOCABULARY = "vocabulary.json"
MOST_WORDS = 1_000_000  # different words that are counted at once, about 200 MB
_IDS_AT_ONCE = 1 << 20
_INT32 = np.dtype(np.int32)


class TokenizedText(NamedTuple):
    """ids (L,) int32 of a text, mapped from a file; id i means vocabulary[i]."""

    ids: IntArray
    vocabulary: Vocabulary


def tokenize_texts(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer = "blanks",
    min_count: int = 1,
    max_size: int | None = None,
    most_words: int = MOST_WORDS,
) -> TokenizedText:
    """Read texts one after the other, and write their ids and their vocabulary into a folder.

    The memory does not depend on the size of the texts: they are read in pieces, whatever the lengths of their lines,
    and no more different words are counted at once than ``most_words``.

    Parameters
    ----------
    paths : path or paths
        UTF-8 files, plain or packed (.xz, .gz, .bz2), or pipes; "-" is stdin. Looked for as they stand and below
        FASTLSTM_DATA_DIR.
    out : path
        A new or an empty folder.
    tokenizer : "blanks", "words", "char" or "janome"
        See `fastlstm.datasets.tokenizers`.
    min_count, max_size
        As in `Vocabulary.from_texts`; all other words are "<unk>", id 0.
    most_words : int
        When a text has more different words, the rarest are given up, as in word2vec, until there are half as many:
        they count as "<unk>", and are counted anew where they come again.

    Returns
    -------
    TokenizedText

    Raises
    ------
    OSError
        A file cannot be read or written.
    ValueError
        A text is empty or no UTF-8, or no word is frequent enough. What was written is gone again then.
    """
    check_tokenizer(tokenizer)
    scalars.integer("min_count", min_count, 1)
    max_size = None if max_size is None else scalars.integer("max_size", max_size, 2)
    names = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not names:
        raise ValueError("paths is empty, expected the path of a text at least")
    files = [find_file(name, WHERE_TO_GET_TEXT) for name in names]
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already; expected a new or an empty folder")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as numbers:
            words = _number(files, tokenizer, numbers, scalars.integer("most_words", most_words, 2))
            vocabulary, new_ids = words.vocabulary(tokenizer, min_count, max_size)
            with open(folder / IDS, "wb") as ids:
                _write_header(ids, words.length)
                for piece in words.pieces(numbers, new_ids):
                    piece.tofile(ids)
        vocabulary.save(folder / VOCABULARY)
    except BaseException:
        (folder / IDS).unlink(missing_ok=True)
        for path in made:
            path.rmdir()
        raise
    return tokenized_text(folder)


def tokenized_text(folder: str | os.PathLike[str]) -> TokenizedText:
    """Read a folder of `tokenize_texts`; of the ids no more is in memory than what is looked at.

    Raises
    ------
    OSError
        There is no such folder.
    ValueError
        Its files do not belong together.
    """
    folder = find_file(folder, "fastlstm data tokenize TEXT --out DIR makes such a folder")
    if not is_tokenized(folder):
        raise FileNotFoundError(f"{folder} is no folder of ids: it has no {IDS} and {VOCABULARY}")
    try:
        ids: IntArray = np.load(folder / IDS, mmap_mode="r")
    except Exception as error:  # numpy reads the header as Python's literals, which fail in many ways
        raise ValueError(
            f"{folder / IDS} is no array of numpy, or damaged ({str(error)[:200] or type(error).__name__})"
        ) from None
    vocabulary = Vocabulary.load(folder / VOCABULARY)
    if ids.dtype != _INT32 or ids.ndim != 1 or vocabulary.counts is None or vocabulary.counts.sum() != len(ids):
        raise ValueError(f"{folder} is damaged: {IDS} is no text of the words that {VOCABULARY} counts")
    return TokenizedText(ids, vocabulary)


def is_tokenized(folder: Path) -> bool:
    """Whether it is a folder of `tokenize_texts`."""
    return (folder / IDS).is_file() and (folder / VOCABULARY).is_file()


def narrowed(text: TokenizedText, *, min_count: int, max_size: int | None) -> TokenizedText:
    """The text with fewer words: the others are "<unk>". Its ids are in a file without a name, which ends with them."""
    vocabulary = text.vocabulary
    assert vocabulary.counts is not None
    order = most_frequent(vocabulary.words, vocabulary.counts, min_count, max_size)
    if len(order) == len(vocabulary) - 1:
        return text
    new_ids = np.zeros(len(vocabulary), np.int32)
    new_ids[order] = np.arange(1, len(order) + 1)
    known = vocabulary.counts[order]
    counts = np.concatenate(([len(text.ids) - known.sum()], known))
    words = [UNKNOWN, *(vocabulary[i] for i in order)]
    ids = ids_in_a_file(new_ids[piece] for piece in _pieces(text.ids, len(vocabulary)))
    return TokenizedText(ids, Vocabulary(words, tokenizer=vocabulary.tokenizer, counts=counts))


def _pieces(ids: IntArray, words: int) -> Iterator[IntArray]:
    """The ids of a text piece by piece; raises ValueError where one has no word."""
    for start in range(0, len(ids), _IDS_AT_ONCE):
        piece = ids[start : start + _IDS_AT_ONCE]
        wrong = piece[(piece < 0) | (piece >= words)]
        if len(wrong):
            raise ValueError(f"the text is damaged: it holds the id {wrong[0]}, of a vocabulary of {words:,} words")
        yield piece


def ids_in_a_file(pieces: Iterable[IntArray]) -> IntArray:
    """Arrays one behind the other, at least one id, mapped from a file in the folder for temporary ones."""
    with tempfile.TemporaryFile() as file:
        for piece in pieces:
            piece.tofile(file)
        file.flush()
        return np.memmap(file, _INT32, "r")


def sentences_of(text: TokenizedText, *, max_words: int | None, min_count: int, unknown: bool) -> Words:
    """What `read_words` would make of the same text by blanks: ids in a file without a name, which ends with them."""
    vocabulary = text.vocabulary
    assert vocabulary.counts is not None
    ids_of_marks = [vocabulary.index(mark) for mark in (UNKNOWN, END_OF_LINE) if mark in vocabulary]
    counts = vocabulary.counts.copy()
    counts[ids_of_marks] = 0
    order = most_frequent([], counts, min_count, None)
    order = order if max_words is None else order[: max_words - unknown]
    # "<eos>" in the text is a word like others here, as in `read_words`.
    words = [unescape(vocabulary[i], (END_OF_LINE,)) for i in order]
    known = counts[order]
    outside = 0 if unknown else SENTENCE_END - 1
    new_ids = np.full(len(vocabulary), outside, np.int32)
    new_ids[order] = np.arange(unknown, unknown + len(order))
    ends = vocabulary.counts[vocabulary.index(END_OF_LINE)] if END_OF_LINE in vocabulary else 0
    if END_OF_LINE in vocabulary:
        new_ids[vocabulary.index(END_OF_LINE)] = SENTENCE_END
    if unknown:
        check_unknown("the text", words)
        words.insert(0, "UNK")
        known = np.concatenate(([len(text.ids) - ends - known.sum()], known))
    ids = ids_in_a_file(_sentences(text.ids, new_ids))
    ends_at = len(ids) - int(ids[-1] == SENTENCE_END)
    return Words(ids[:ends_at], words, known)


def _sentences(ids: IntArray, new_ids: IntArray) -> Iterator[IntArray]:
    """The new ids piece by piece, without those below -1; one end after the other, or before all, says no more."""
    in_sentence = False
    for old in _pieces(ids, len(new_ids)):
        piece = new_ids[old]
        piece = piece[piece >= SENTENCE_END]
        ended = piece == SENTENCE_END
        before = np.concatenate(([not in_sentence], ended))[:-1]
        piece = piece[~(ended & before)]
        if len(piece):
            in_sentence = bool(piece[-1] != SENTENCE_END)
            yield piece


class _Numbers:
    """Words as numbers from 0 in the order in which they come, and how often each came.

    A word that is given up leaves its number to another. So what a number means depends on the place in the text:
    ``_given_up`` holds the length of the text at each such time, and a bit for each number that was given up.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0  # numbers that are or were a word's
        self._number: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._counts = np.zeros(0, np.int64)
        self._given_up: list[tuple[int, Any]] = []
        self.length = 0
        self.most_lost = 0  # how often at most each word came that was given up

    def add(self, symbols: Sequence[str]) -> IntArray:
        """The numbers of the next words of the text, int32."""
        numbers = np.fromiter(map(self._number.__getitem__, symbols), np.int32, len(symbols))
        counts = np.bincount(numbers)
        if len(counts) > len(self._counts):
            grown = np.zeros(max(len(counts), 2 * len(self._counts)), np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        self._counts[: len(counts)] += counts
        self.length += len(numbers)
        if len(self._number) > self._most:
            self._give_up()
        return numbers

    def drop_last(self, symbol: str) -> None:
        """Take the last word of the text away, which is ``symbol``."""
        self.length -= 1
        self._counts[self._number[symbol]] -= 1

    def _give_up(self) -> None:
        """Give the rarest words up, so that at most half of the most are left."""
        used = np.fromiter(self._number.values(), np.int32, len(self._number))
        counts = self._counts[used]
        floor = np.partition(counts, -(self._most // 2) - 1)[-(self._most // 2) - 1]
        rare = np.zeros(len(self._counts), np.bool_)
        rare[used[counts <= floor]] = True
        for word in [word for word, number in self._number.items() if rare[number]]:
            del self._number[word]
        # Numbers are used again before there are new ones.
        self._used = max(self._used, len(used))
        free = np.ones(self._used, np.bool_)
        free[used[counts > floor]] = False
        again = np.flatnonzero(free).tolist()
        self._number.default_factory = itertools.chain(again, itertools.count(self._used)).__next__
        self._counts[rare] = 0
        self._given_up.append((self.length, np.packbits(rare)))
        self.most_lost += int(floor)

    def vocabulary(self, tokenizer: Tokenizer, min_count: int, max_size: int | None) -> tuple[Vocabulary, IntArray]:
        """The words that are left, and the id of each number: 0, "<unk>", for all others."""
        words = list(self._number)
        numbers = np.fromiter(self._number.values(), np.int32, len(words))
        self._number.clear()
        counts = self._counts[numbers]
        order = most_frequent(words, counts, min_count, max_size)
        new_ids = np.zeros(len(self._counts), np.int32)
        new_ids[numbers[order]] = np.arange(1, len(order) + 1)
        known = counts[order]
        of_ids = np.concatenate(([self.length - known.sum()], known))
        return Vocabulary([UNKNOWN, *(words[i] for i in order)], tokenizer=tokenizer, counts=of_ids), new_ids

    def pieces(self, file: BinaryIO, new_ids: IntArray) -> Iterator[IntArray]:
        """The text's ids from the file of its numbers."""
        file.seek(0)
        # Before a number was given up it was that of a word which is unknown now.
        times = [*self._given_up, (self.length, None)]
        unknown = np.zeros(len(new_ids), np.bool_)
        unknown_until = []
        for _, rare in reversed(self._given_up):
            bits = np.unpackbits(rare).view(np.bool_)[: len(unknown)]
            unknown[: len(bits)] |= bits
            unknown_until.append(np.packbits(unknown))
        position = 0
        for end, rare in times:
            ids = new_ids
            if rare is not None:
                ids = new_ids.copy()
                ids[np.unpackbits(unknown_until.pop())[: len(ids)].view(np.bool_)] = 0
            end = min(end, self.length)  # the last character may have been dropped
            while position < end:
                numbers = np.fromfile(file, np.int32, min(_IDS_AT_ONCE, end - position))
                position += len(numbers)
                yield ids[numbers]


def _number(files: Sequence[Path], tokenizer: Tokenizer, out: BinaryIO, most_words: int) -> _Numbers:
    """Write the numbers of the words of all files."""
    words = _Numbers(most_words)
    for path in files:
        for block in read_blocks(path, cut_anywhere=tokenizer == "char"):
            words.add(split_block(block, tokenizer)).tofile(out)
    if tokenizer == "char":  # the end of the last line is no character of the text
        words.drop_last("\n")
    out.flush()
    return words


def _write_header(file: BinaryIO, length: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(_INT32), "fortran_order": False, "shape": (length,)}
    )
