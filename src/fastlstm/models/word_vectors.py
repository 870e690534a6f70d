"""Words as vectors: neighbours, analogies, the files of word2vec, and how well vectors agree with people."""

from __future__ import annotations

import codecs
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.contract import FloatArray, IntArray
from fastlstm.models.softmax_head import right_answers
from fastlstm.ops import scalars
from fastlstm.ops.checks import refuse_masked
from fastlstm.tensor_file import write_atomically

_BLOCK = 1024  # rows of a product with all vectors at once
_SHOWN = 5  # words in a repr

# A word, its id, or a vector (E,); with a weight, of these and the number.
Direction = Any


class UnknownWord(KeyError, ValueError):
    """A word is not in the vocabulary."""

    __str__ = Exception.__str__  # a KeyError shows the repr of its message


class Agreement(NamedTuple):
    """spearman: rank correlation with people's judgements, over the ``used`` pairs; ``unknown`` ones have a word the
    vocabulary lacks. NaN where no pair was used.
    """

    spearman: float
    used: int
    unknown: int


class Accuracy(NamedTuple):
    """accuracy: share of the ``used`` questions answered right; ``unknown`` ones have a word the vocabulary lacks. NaN
    where no question was used.
    """

    accuracy: float
    used: int
    unknown: int


class WordVectors:
    """A vocabulary and its vectors, with gensim's names for what is asked of them.

    Parameters
    ----------
    vocabulary : sequence of V str
    vectors : (V, E) float32 or float64
        Kept, not copied.

    Attributes
    ----------
    vocabulary, index_to_key : list of V str
        The same list.
    key_to_index : dict of str to int
    vectors : (V, E)
    """

    def __init__(self, vocabulary: Sequence[str], vectors: FloatArray) -> None:
        refuse_masked("vectors", vectors)
        if vectors.ndim != 2 or len(vectors) != len(vocabulary) or vectors.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"vectors is {vectors.dtype} of shape {vectors.shape}, expected float32 or float64 and "
                f"{len(vocabulary)} rows, one for each word"
            )
        self.vocabulary = list(vocabulary)
        self.vectors = vectors
        self.key_to_index = {word: i for i, word in enumerate(self.vocabulary)}
        if len(self.key_to_index) != len(self.vocabulary):
            twice = next(word for i, word in enumerate(self.vocabulary) if self.key_to_index[word] != i)
            raise ValueError(f"the vocabulary holds {twice!r} twice")

    @property
    def index_to_key(self) -> list[str]:
        return self.vocabulary

    def __repr__(self) -> str:
        V, E = self.vectors.shape
        shown = ", ".join(map(repr, self.vocabulary[:_SHOWN]))
        more = ", ..." if V > _SHOWN else ""
        return f"WordVectors of {V:,} words, {E} numbers each, {self.vectors.dtype}: {shown}{more}"

    def __len__(self) -> int:
        """V, the number of words."""
        return len(self.vocabulary)

    def __contains__(self, word: object) -> bool:
        return word in self.key_to_index

    def __getitem__(self, word: str) -> FloatArray:
        """The vector of a word, (E,)."""
        vector: FloatArray = self.vectors[self.id_of(word)]
        return vector

    def id_of(self, word: str | int) -> int:
        """The row of a word; an id is its own. Raises UnknownWord, a KeyError, for a word that is not there."""
        if isinstance(word, str):
            if word not in self.key_to_index:
                raise UnknownWord(f"{word!r} is not in the vocabulary of {len(self):,} words")
            return self.key_to_index[word]
        number = scalars.integer("word", word, 0)
        if number >= len(self):
            raise ValueError(f"the word's id is {number}, expected less than {len(self)}, the size of the vocabulary")
        return number

    def most_similar(
        self,
        positive: Direction | Sequence[Direction] = (),
        negative: Direction | Sequence[Direction] = (),
        topn: int = 10,
    ) -> list[tuple[str, float]]:
        """The words whose vectors point where those of some words do, and away from those of others.

        Parameters
        ----------
        positive, negative : str, or list of words
            A word may also be an id, a vector (E,), or one of these with a weight, such as ("king", 0.5). Vectors of
            words are taken at length 1; negative ones count -1. Words that are asked are not among the answers.
        topn : int

        Returns
        -------
        list of (word, cosine)
            The likest first.

        Raises
        ------
        UnknownWord
            A word is not in the vocabulary. It is a KeyError and a ValueError.
        TypeError, ValueError
            An argument does not fit.
        """
        if isinstance(negative, (int, float, np.number)):
            raise TypeError(
                f"negative is the number {negative}, expected words to point away from; for {negative} answers write "
                f"topn={negative}, for the word of that id negative=[{negative}]"
            )
        unit = self._unit_vectors()
        towards, asked = np.zeros(unit.shape[1], unit.dtype), []
        for sign, directions in ((1, listed(positive)), (-1, listed(negative))):
            for direction in directions:
                key, weight = direction if isinstance(direction, tuple) else (direction, 1.0)
                weight = scalars.finite("the weight of a word", weight)
                if isinstance(key, np.ndarray) and key.ndim:
                    towards += (sign * weight * self._checked_vector(key)).astype(unit.dtype)
                else:
                    asked.append(self.id_of(key))
                    towards += unit.dtype.type(sign * weight) * unit[asked[-1]]
        if not len(listed(positive)) and not len(listed(negative)):
            raise ValueError("there are neither positive nor negative words, expected one at least")
        return self._nearest(unit, towards, asked, topn)

    def _checked_vector(self, vector: FloatArray) -> FloatArray:
        E = self.vectors.shape[1]
        if vector.shape != (E,) or vector.dtype.kind not in "fiu":
            raise ValueError(f"a vector is {vector.dtype} of shape {vector.shape}, expected floats of shape ({E},)")
        return vector

    def analogy(self, a: str | int, b: str | int, c: str | int, topn: int = 10) -> list[tuple[str, float]]:
        """What is to c as b is to a: near b - a + c, all of length 1.

        Parameters
        ----------
        a, b, c : str or int
            Words or their ids; they are not among the answers.
        topn : int

        Returns
        -------
        list of (word, cosine)
            The likeliest first.

        References
        ----------
        Mikolov, Yih, Zweig (2013), "Linguistic regularities in continuous space word representations".
        """
        asked = self.id_of(a), self.id_of(b), self.id_of(c)
        unit = self._unit_vectors()
        i, j, k = asked
        return self._nearest(unit, unit[j] - unit[i] + unit[k], asked, topn)

    def similarity(self, w1: str | int, w2: str | int) -> float:
        """The cosine between two words."""
        u, v = _of_length_one(self.vectors[[self.id_of(w1), self.id_of(w2)]])
        return float(u @ v)

    def n_similarity(self, ws1: Sequence[str | int], ws2: Sequence[str | int]) -> float:
        """The cosine between the means of two lists of words or ids, whose vectors count as long as they are.

        Words that the vocabulary lacks are left out, and a warning names them; ValueError if nothing is left.
        """
        means = [self.vectors[self._known("ws1", ws1)].mean(axis=0), self.vectors[self._known("ws2", ws2)].mean(axis=0)]
        u, v = _of_length_one(np.stack(means))
        return float(u @ v)

    def doesnt_match(self, words: Sequence[str | int]) -> str:
        """Of some words or ids the word that is farthest from their mean, all of length 1.

        Words that the vocabulary lacks are left out, and a warning names them; ValueError if nothing is left.
        """
        ids = self._known("words", words)
        unit = _of_length_one(self.vectors[ids])
        return self.vocabulary[ids[int(np.argmin(unit @ unit.mean(axis=0)))]]

    def _known(self, name: str, words: Sequence[str | int]) -> list[int]:
        """The rows of the words that there are, one at least."""
        if isinstance(words, str):
            raise TypeError(f"{name} is the string {words[:60]!r}, expected a list of words: {words[:60]!r}.split()")
        unknown = [word for word in words if isinstance(word, str) and word not in self]
        ids = [self.id_of(word) for word in words if word not in unknown]
        if not ids:
            raise ValueError(
                f"none of {name} is in the vocabulary: {unknown[:_SHOWN]}" if unknown else f"{name} is empty"
            )
        if unknown:
            warnings.warn(f"not in the vocabulary and left out: {', '.join(map(repr, unknown))}", stacklevel=3)
        return ids

    def agreement(self, judged: Iterable[tuple[str, str, float]]) -> Agreement:
        """How the cosines of pairs of words agree with people's judgements, such as ``datasets.wordsim353()``.

        Parameters
        ----------
        judged : (word, word, score) each
            Pairs with a word that the vocabulary lacks are left out.
        """
        judged = list(judged)
        known = [(a, b, score) for a, b, score in judged if a in self and b in self]
        if not known:
            return Agreement(math.nan, 0, len(judged))
        unit = self._unit_vectors()
        first, second = [self.key_to_index[a] for a, _, _ in known], [self.key_to_index[b] for _, b, _ in known]
        cosines = (unit[first] * unit[second]).sum(axis=1)
        scores = np.array([score for _, _, score in known])
        return Agreement(rank_correlation(cosines, scores), len(known), len(judged) - len(known))

    def accuracy(self, questions: Iterable[tuple[str, str, str, str]]) -> Accuracy:
        """The share of analogies whose likeliest answer is right, such as ``datasets.questions_words()``.

        Parameters
        ----------
        questions : (a, b, c, d) each
            a is to b as c is to d. Questions with a word that the vocabulary lacks are left out.
        """
        questions = list(questions)
        known = np.array([[self.key_to_index[w] for w in q] for q in questions if all(w in self for w in q)], np.int64)
        if not len(known):
            return Accuracy(math.nan, 0, len(questions))
        unit, right = self._unit_vectors(), 0
        for start in range(0, len(known), _BLOCK):
            a, b, c, d = known[start : start + _BLOCK].T
            scores = (unit[b] - unit[a] + unit[c]) @ unit.T
            rows = np.arange(len(a))
            for asked in (a, b, c):
                scores[rows, asked] = -np.inf
            right += int(right_answers(scores, d).sum())
        return Accuracy(right / len(known), len(known), len(questions) - len(known))

    def _unit_vectors(self) -> FloatArray:
        return _of_length_one(self.vectors)

    def _nearest(
        self, unit: FloatArray, towards: FloatArray, without: Sequence[int], topn: int
    ) -> list[tuple[str, float]]:
        topn = min(scalars.integer("topn", topn, 0), len(self) - len(set(without)))
        cosines = unit @ _of_length_one(towards[None])[0]
        cosines[list(without)] = -np.inf
        best = np.argpartition(-cosines, max(topn - 1, 0))[:topn]
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [(self.vocabulary[i], float(cosines[i])) for i in best]

    # ----------------------------------------------------------------------------------------
    # Files
    # ----------------------------------------------------------------------------------------

    def save_word2vec_format(self, path: str | os.PathLike[str], binary: bool = False) -> None:
        """Write the file of Mikolov's word2vec, which gensim and others read.

        Parameters
        ----------
        path : path
            An older file is replaced at once.
        binary : bool
            float32 as they are in memory, or as text with 9 digits, which is as exact.
        """
        V, E = self.vectors.shape
        words = [word.encode() for word in self.vocabulary]
        for word in words:
            # Of bytes: only the blanks of ASCII separate, others are part of a word.
            if word.split() != [word]:
                raise ValueError(
                    f"the word {word.decode()!r} is empty or has a blank in it, which the format cannot hold"
                )
        rows = np.ascontiguousarray(self.vectors, "<f4")
        if binary:
            lines = (b"%s %s\n" % (word, row.tobytes()) for word, row in zip(words, rows, strict=True))
        else:
            form = b"%s" + b" %.9g" * E + b"\n"
            lines = (form % (word, *row.tolist()) for word, row in zip(words, rows, strict=True))
        write_atomically(path, b"%d %d\n" % (V, E) + b"".join(lines))

    @classmethod
    def load_word2vec_format(cls, path: str | os.PathLike[str], binary: bool = False) -> WordVectors:
        """Read a file of Mikolov's word2vec or of gensim, plain or packed (.xz, .gz, .bz2).

        Parameters
        ----------
        path : path
        binary : bool
            As the file was written.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is something else, damaged or cut short; the message says where.
        """
        from fastlstm.datasets.files import open_unpacked, refuse_address

        refuse_address(path)
        path = Path(path)
        with open_unpacked(path) as file:
            content = file.read().removeprefix(codecs.BOM_UTF8)
        end = content.find(b"\n", 0, 64)
        header = content[: max(end, 0)].split()
        if len(header) != 2 or not all(number.isdigit() for number in header):
            raise ValueError(
                f"{path} is no word2vec file: its first line is {content[:40]!r}, expected the numbers of words and "
                "of dimensions, such as b'50000 128'"
            )
        V, E = map(int, header)
        if E == 0:
            raise ValueError(f"{path} says that vectors have 0 dimensions")
        smallest = V * (4 * E + 2) if binary else V * (2 * E + 1)
        if len(content) - end - 1 < smallest:
            other = "" if binary else "; is it a binary file?"
            raise ValueError(
                f"{path} is cut short: {V:,} words of {E} dimensions need at least {smallest:,} bytes, but "
                f"{len(content) - end - 1:,} follow the first line{other}"
            )
        rows = _binary_rows(path, content, end + 1, V, E) if binary else _text_rows(path, content[end + 1 :], V, E)
        vocabulary: list[str] = []
        vectors = np.empty((V, E), np.float32)
        for i, (word, row) in enumerate(rows):
            try:
                vocabulary.append(word.decode())
            except UnicodeDecodeError:
                raise ValueError(f"{path}, word {i + 1}: {word!r:.60} is no UTF-8") from None
            vectors[i] = row
        try:
            return cls(vocabulary, vectors)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None


def _binary_rows(path: Path, content: bytes, at: int, V: int, E: int) -> Iterator[tuple[bytes, FloatArray]]:
    for i in range(V):
        blank = content.find(b" ", at)
        # word2vec ends a vector with a line end, gensim does not.
        word = content[at:blank].lstrip(b"\n")
        if blank < 0 or not word or b"\n" in word or blank + 1 + 4 * E > len(content):
            raise ValueError(f"{path} is damaged or cut short: there is no whole word {i + 1} of {V} at byte {at}")
        yield word, np.frombuffer(content, "<f4", E, blank + 1)
        at = blank + 1 + 4 * E
    if content[at:].strip(b"\n"):
        raise ValueError(f"{path} is damaged: {len(content) - at} bytes follow the last of {V} words")


def _text_rows(path: Path, text: bytes, V: int, E: int) -> Iterator[tuple[bytes, FloatArray]]:
    *lines, rest = text.split(b"\n")
    if rest:
        raise ValueError(
            f"{path} is cut short: its last line {rest[:60]!r} has no end. If it is whole, add a line feed to the file"
        )
    if len(lines) != V:
        raise ValueError(f"{path} is damaged or cut short: {len(lines):,} lines of words, expected {V:,}")
    for number, line in enumerate(lines, 2):
        word, *numbers = line.split()[: E + 2] or [b""]
        try:
            row = np.array(numbers, np.float32)
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is no word with {E} numbers") from None
        if len(row) != E:
            raise ValueError(f"{path}, line {number}: {len(line.split()) - 1} numbers, expected {E}")
        yield word, row


def listed(directions: Direction | Sequence[Direction]) -> Sequence[Direction]:
    """What stands for one word or for several as several."""
    if isinstance(directions, np.ndarray):
        return list(directions) if directions.ndim == 2 or directions.dtype.kind in "OU" else [directions]
    return list(directions) if isinstance(directions, (list, tuple, set, frozenset)) else [directions]


def rank_correlation(x: FloatArray, y: FloatArray) -> float:
    """Spearman's: the correlation of the ranks, equals sharing the mean of theirs; (n,) each. 0 if all are equal."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, (n,); equals share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: IntArray = np.cumsum(counts)
    mean: FloatArray = last - (counts - 1) / 2
    return mean[where]


def _of_length_one(rows: FloatArray) -> FloatArray:
    """Rows (n, E) divided by their lengths; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("ne,ne->n", rows, rows))[:, None]
    lengths[lengths == 0] = 1
    unit: FloatArray = rows / lengths
    return unit
