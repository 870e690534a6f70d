"""What ids mean: the words or characters of texts, the most frequent first."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.tokenizers import (
    UNKNOWN,
    Tokenizer,
    Unit,
    check_tokenizer,
    join_symbols,
    split_symbols,
    tokenizer_of,
    unit_of,
)
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe
from fastlstm.tensor_file import regular_file, write_atomically

_SHOWN = 5  # words in a repr


class Vocabulary(Sequence[str]):
    """The words of a text, each with an id: a sequence of str of which the model's ids are the places.

    Parameters
    ----------
    words : iterable of str
        All different. "<unk>" among them stands for all that are not.
    tokenizer : "blanks", "words", "char" or "janome"
        How texts are cut into words, see `fastlstm.datasets.tokenizers`.
    counts : iterable of int, optional
        How often each occurs.

    Attributes
    ----------
    words : list of str
    tokenizer : str
    unit : "char" or "word"
    counts : (V,) int64 or None
    unknown_id : int or None
        The id of "<unk>".

    Notes
    -----
    It can be set as a model's ``vocabulary``, which keeps the words; ``Vocabulary(model.vocabulary)`` is one again.
    """

    def __init__(
        self, words: Iterable[str], *, tokenizer: Tokenizer = "blanks", counts: Iterable[int] | None = None
    ) -> None:
        check_tokenizer(tokenizer)
        if isinstance(words, str):
            raise TypeError(f"words is the string {words[:60]!r}, expected a list of str; see Vocabulary.from_texts")
        self.words = list(words)
        for i, word in enumerate(self.words):
            if not isinstance(word, str):
                raise TypeError(f"words[{i}] is {describe(word)}, expected a str")
        self.tokenizer = tokenizer
        self._id_of = {word: i for i, word in enumerate(self.words)}
        if len(self._id_of) < len(self.words):
            (twice, _), *_ = Counter(self.words).most_common(1)
            raise ValueError(f"words holds {twice!r} twice; each word has one id")
        self.counts: IntArray | None = None
        if counts is not None:
            self.counts = np.array(counts if isinstance(counts, np.ndarray) else list(counts), np.int64)
            if self.counts.shape != (len(self.words),):
                raise ValueError(f"counts has {len(self.counts)} numbers, expected {len(self.words)}, one a word")

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        unit: Unit = "word",
        min_count: int = 1,
        max_size: int | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Self:
        """The vocabulary of texts: "<unk>", then what occurs by falling frequency, of equals the first first.

        Parameters
        ----------
        texts : iterable of str
            A list, a column of a pandas DataFrame, a file's lines; they are read once.
        unit : "word" or "char"
            Words stand between blanks, unless there is a tokenizer; ends of lines are words too, "<eos>".
        min_count : int
            Leave rarer ones out.
        max_size : int, optional
            Leave all out but the most frequent so many, "<unk>" included.
        tokenizer : "blanks", "words", "char" or "janome", optional
            In the place of unit, see `fastlstm.datasets.tokenizers`.

        Raises
        ------
        TypeError
            texts is one string, or one of them is none.
        ValueError
            An option does not fit, or nothing is frequent enough.
        """
        tokenizer = tokenizer_of(unit) if tokenizer is None else tokenizer
        check_tokenizer(tokenizer)
        counts: Counter[str] = Counter()
        for text in checked_texts("texts", texts):
            counts.update(split_symbols(text, tokenizer))
        words, numbers = list(counts), np.fromiter(counts.values(), np.int64, len(counts))
        order = most_frequent(words, numbers, min_count, max_size)
        known = numbers[order]
        of_words = np.concatenate(([numbers.sum() - known.sum()], known))
        return cls([UNKNOWN, *(words[i] for i in order)], tokenizer=tokenizer, counts=of_words)

    @property
    def unit(self) -> Unit:
        return unit_of(self.tokenizer)

    @property
    def unknown_id(self) -> int | None:
        return self._id_of.get(UNKNOWN)

    def encode(self, text: str) -> IntArray:
        """The ids of a text's symbols, (L,) int64; those that the vocabulary lacks are "<unk>".

        Raises
        ------
        ValueError
            A symbol is not in the vocabulary, nor is "<unk>".
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {describe(text)}, expected a str")
        symbols = split_symbols(text, self.tokenizer)
        unknown = self.unknown_id
        ids = [self._id_of.get(symbol, unknown) for symbol in symbols]
        if unknown is None and None in ids:
            raise ValueError(
                f"{symbols[ids.index(None)]!r} in {text[:60]!r} is not in the vocabulary of {len(self):,} words, which "
                f"has no {UNKNOWN!r} for unknown ones"
            )
        return np.array(ids, np.int64)

    def decode(self, ids: Iterable[int] | IntArray) -> str:
        """The text of ids; -1, which is padding, is left out.

        Raises
        ------
        IndexError
            An id is not in the vocabulary.
        """
        numbers = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ValueError(f"ids is {describe(numbers)}, expected one axis of integers; rows one after the other")
        if numbers.size and not -1 <= numbers.min() <= numbers.max() < len(self):
            wrong = numbers[(numbers < -1) | (numbers >= len(self))][0]
            raise IndexError(f"ids holds {wrong}, expected 0 to {len(self) - 1}, or -1 for padding")
        return join_symbols([self.words[i] for i in numbers if i >= 0], self.tokenizer)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, UTF-8; an older file is replaced at once."""
        counts = None if self.counts is None else self.counts.tolist()
        content = {"tokenizer": self.tokenizer, "words": self.words, "counts": counts}
        write_atomically(Path(path), json.dumps(content, ensure_ascii=False).encode(errors="surrogatepass"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no vocabulary.
        """
        path = regular_file(path, "a vocabulary that fastlstm saved")
        try:
            content: Any = json.loads(path.read_bytes().decode(errors="surrogatepass"))
            return cls(content["words"], tokenizer=content["tokenizer"], counts=content["counts"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is no vocabulary of fastlstm ({error!s:.200})") from None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The id of a word; raises ValueError if there is none."""
        i = self._id_of.get(value)
        if i is None or not start <= i < (len(self) if stop is None else stop):
            raise ValueError(f"{value!r} is not in the vocabulary of {len(self):,} words")
        return i

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        return self.words[i]

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._id_of

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.words, self.tokenizer) == (other.words, other.tokenizer)

    __hash__ = None  # type: ignore[assignment]  # its words may be changed

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.words[:_SHOWN]))
        more = ", ..." if len(self) > _SHOWN else ""
        return f"Vocabulary of {len(self):,} by {self.tokenizer}: {shown}{more}"


def most_frequent(words: Sequence[str], counts: IntArray, min_count: int, max_size: int | None) -> IntArray:
    """The places of the most frequent words by falling frequency, without "<unk>", for which there is room left."""
    min_count = scalars.integer("min_count", min_count, 1)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= min_count]
    if UNKNOWN in words:
        order = order[order != words.index(UNKNOWN)]
    if not len(order):
        raise ValueError(f"no word occurs {min_count} times; a smaller min_count helps" if len(words) else "no words")
    return order if max_size is None else order[: scalars.integer("max_size", max_size, 2) - 1]


def reject_string(name: str, texts: object) -> None:
    """Raises if one text was given where several are read: each of its characters would be a text."""
    if isinstance(texts, str):
        raise TypeError(f"{name} is the string {texts[:60]!r}, expected a sequence of texts such as [{texts[:60]!r}]")


def checked_texts(name: str, texts: Iterable[Any]) -> Iterator[str]:
    """Texts one after the other; raises TypeError if one is no str, or all are one."""
    reject_string(name, texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] is {describe(text)}, expected a str; leave rows without a text out")
        yield text
