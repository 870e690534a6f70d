"""Sentences from anything that can be read again, as gensim takes them: lists of words, or of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets import tokenizers, words
from fastlstm.datasets.tokenized import ids_in_a_file
from fastlstm.models.ids import check_range
from fastlstm.ops import scalars
from fastlstm.ops.array_likes import integers
from fastlstm.ops.checks import describe

SENTENCE_END = -1

_IDS_AT_ONCE = 1 << 16


def is_sentences(corpus: Any) -> bool:
    """Whether it gives sentences one after the other, instead of being one long array of ids."""
    if hasattr(corpus, "dtype"):
        return (
            getattr(corpus.dtype, "kind", "O") in "OU"
            and getattr(corpus, "ndim", 1) == 1
            and hasattr(corpus, "__iter__")
        )
    if isinstance(corpus, Sequence):
        return len(corpus) > 0 and not isinstance(corpus, (bytes, range)) and hasattr(corpus[0], "__iter__")
    return isinstance(corpus, Iterable) and not hasattr(corpus, "__array__")


def require_readable(name: str, sentences: Iterable[Any], times: int) -> None:
    """Raise if the sentences cannot be read as often as they will have to be."""
    if times > 1 and isinstance(sentences, Iterator):
        raise TypeError(
            f"{name} is {describe(sentences)}, which can be read once, but is read {times} times, once an epoch; give "
            "a list, or an object whose __iter__ begins anew each time"
        )


class Sentences:
    """The words of sentences as ids, read anew by each call.

    Parameters
    ----------
    name : str
        What errors call the sentences.
    sentences : iterable of sequences of str or of ids
    vocab_size : int
    vocabulary : list of str, optional
        What the ids mean. Words that are not in it are left out, or are its "<unk>" or "UNK" if it has one.
    """

    def __init__(self, name: str, sentences: Iterable[Any], vocab_size: int, vocabulary: Sequence[str] | None) -> None:
        self._name, self._sentences, self._vocab_size = name, sentences, vocab_size
        self._id_of = None if vocabulary is None else {word: i for i, word in enumerate(vocabulary)}

    def read(self) -> IntArray:
        """A text (L,) of ids, -1 behind each sentence, in a file without a name that ends with the array.

        Raises
        ------
        TypeError, ValueError, IndexError
            Something in it is no sentence, or there is none.
        """
        if isinstance(self._sentences, str):
            raise TypeError(f"{self._name} is the string {self._sentences[:60]!r}, expected ids or a list of sentences")
        pieces = self._pieces()
        first = next(pieces, None)
        if first is None:
            raise ValueError(
                f"{self._name} gave no sentences. What was read before to its end, such as a generator, gives nothing "
                "again: give a list, or an object whose __iter__ begins anew each time"
            )

        def all_pieces() -> Iterator[IntArray]:
            yield first
            yield from pieces

        return ids_in_a_file(all_pieces())

    def _pieces(self) -> Iterator[IntArray]:
        collected: list[int] = []
        for number, sentence in enumerate(self._sentences):
            collected += self._ids(f"{self._name}, sentence {number}", sentence)
            collected.append(SENTENCE_END)
            if len(collected) >= _IDS_AT_ONCE:
                yield np.array(collected, np.int32)
                collected = []
        if collected:
            yield np.array(collected, np.int32)

    def _ids(self, name: str, sentence: Any) -> list[int]:
        """The ids of a sentence."""
        check_sentence(name, sentence)
        if not hasattr(sentence, "__getitem__"):
            sentence = list(sentence)
        if not len(sentence):
            return []
        if isinstance(sentence[0], str):
            return self._ids_of_words(name, sentence)
        ids = integers(name, sentence, 1, "a list of words or of ids")
        check_range(name, ids, 0, self._vocab_size, f"0 to {self._vocab_size - 1}")
        listed: list[int] = ids.tolist()
        return listed

    def _ids_of_words(self, name: str, sentence: Iterable[str]) -> list[int]:
        if self._id_of is None:
            raise ValueError(
                f"{name} holds words, but the model has no vocabulary: set model.vocabulary, or make the model with "
                "Word2Vec.from_sentences"
            )
        unknown = self._id_of.get(tokenizers.UNKNOWN, self._id_of.get(words.UNKNOWN))
        ids = [self._id_of.get(word, unknown) for word in sentence]
        return [i for i in ids if i is not None]


def frequent_words(
    sentences: Iterable[Sequence[str]], min_count: int, max_words: int | None
) -> tuple[list[str], list[int]]:
    """The words of sentences by falling frequency, and how often each occurs; see `Word2Vec.from_sentences`.

    Raises
    ------
    TypeError, ValueError
        Something in it is no sentence, or no word is frequent enough.
    """
    min_count = scalars.integer("min_count", min_count, 1)
    most = None if max_words is None else scalars.integer("max_words", max_words, 1)
    counts: Counter[str] = Counter()
    for number, sentence in enumerate(sentences):
        check_sentence(f"sentence {number}", sentence)
        counts.update(sentence)
    for word in counts:
        if not isinstance(word, str):
            raise TypeError(f"the sentences hold {describe(word)}, expected words, each a str")
    known = [(word, count) for word, count in counts.most_common(most) if count >= min_count]
    if not known:
        held = f"hold no word {min_count} times; a smaller min_count helps" if counts else "give no words"
        raise ValueError(f"the sentences {held}")
    return [word for word, _ in known], [count for _, count in known]


def check_sentence(name: str, sentence: Any) -> None:
    """Raise if it is a string, each of whose letters would be a word, or no sequence at all."""
    if isinstance(sentence, (str, bytes)):
        raise TypeError(f"{name} is the string {sentence[:60]!r}, expected a list of words: {sentence[:60]!r}.split()")
    if not isinstance(sentence, Iterable):
        raise TypeError(f"{name} is {describe(sentence)}, expected a list of words or of ids")
