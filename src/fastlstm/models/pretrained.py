"""Embeddings that begin as vectors trained before: arrays, word vectors of ours, of gensim, or a dict of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.contract import BoolArray, FloatArray, IntArray
from fastlstm.models.initial_weights import InitialWeights
from fastlstm.ops.array_likes import host_array
from fastlstm.ops.checks import describe


def embedding_weights(
    weights: InitialWeights, V: int, E: int, embeddings: Any, vocabulary: Sequence[str] | None
) -> FloatArray:
    """The rows that an embedding begins with, (V, E).

    Parameters
    ----------
    weights : InitialWeights
        Draws all rows, of which those of known words are overwritten. The rows of words without a vector keep what is
        drawn, scaled to the standard deviation of the vectors (Kim 2014, "Convolutional neural networks for sentence
        classification").
    V, E : int
    embeddings : array-like (V, E), word vectors, or None
        Word vectors have ``vectors`` (n, E), and their words in ``index_to_key`` (gensim's KeyedVectors) or
        ``vocabulary`` (`fastlstm.models.WordVectors`); or they are the ``words`` or ``wv`` of a word2vec model; or a
        mapping of words to vectors.
    vocabulary : sequence of str, or None
        What the V ids mean, by which word vectors are looked up. None: their own words in their order.

    Raises
    ------
    TypeError, ValueError
        They are no vectors, of another width or number, or of none of the words.
    """
    words, vectors = _words_and_vectors(embeddings)
    if vectors is None:
        return weights.embedding(V, E)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise ValueError(f"embeddings holds {vectors.dtype} of shape {vectors.shape}, expected numbers ({V}, {E})")
    if vectors.shape[1] != E:
        raise ValueError(f"embeddings has vectors of width {vectors.shape[1]}, but the model's are {E} wide")
    if words is None or vocabulary is None:
        if len(vectors) != V:
            hint = "" if words is None else ": vocabulary= says which words the ids mean"
            raise ValueError(f"embeddings has {len(vectors)} rows, expected {V}, one for each id{hint}")
        W = weights.embedding(V, E)
        W[...] = vectors
    else:
        if len(vocabulary) > V:
            raise ValueError(f"vocabulary has {len(vocabulary)} names, expected at most {V} (vocab_size = {V})")
        known, rows = _rows_of(words, vocabulary)
        if not len(rows):
            raise ValueError(
                f"embeddings knows none of the {len(vocabulary)} words of vocabulary, such as {vocabulary[0]!r}; "
                f"its own are such as {words[0]!r}"
            )
        W = weights.embedding(V, E)
        found = np.asarray(vectors[rows], W.dtype)
        if spread := found.std():
            W *= spread / W.std()
        W[: len(known)][known] = found
    if not np.isfinite(W).all():
        raise ValueError(f"embeddings holds numbers that are not finite in {W.dtype}")
    return W


def count_vectors(embeddings: Any) -> int:
    """How many rows there are."""
    vectors = _words_and_vectors(embeddings)[1]
    return 0 if vectors is None or vectors.ndim == 0 else len(vectors)


def words_of(embeddings: Any) -> Sequence[str] | None:
    """The words of word vectors, in their order; None of an array."""
    return _words_and_vectors(embeddings)[0]


def _words_and_vectors(embeddings: Any) -> tuple[Sequence[str] | None, FloatArray | None]:
    for name in ("wv", "words"):  # of a model of gensim's, of one of ours
        embeddings = getattr(embeddings, name, embeddings)
    if embeddings is None:
        return None, None
    if isinstance(embeddings, Mapping):
        if not embeddings:
            raise ValueError("embeddings is an empty mapping, expected words and their vectors")
        rows = [host_array("embeddings", vector) for vector in embeddings.values()]
        if len(shapes := {row.shape for row in rows}) > 1:
            raise ValueError(f"embeddings has vectors of the shapes {sorted(shapes)}, expected one width")
        return list(embeddings), np.stack(rows)
    for name in ("index_to_key", "vocabulary"):
        words = getattr(embeddings, name, None)
        if words is not None and hasattr(embeddings, "vectors"):
            return words, host_array("embeddings", embeddings.vectors)
    if isinstance(embeddings, (str, bytes)) or hasattr(embeddings, "vectors"):
        raise TypeError(
            f"embeddings is {describe(embeddings)}, expected an array or word vectors; a file of word2vec is read by "
            "WordVectors.load_word2vec_format"
        )
    return None, host_array("embeddings", embeddings)


def _rows_of(words: Sequence[str], vocabulary: Sequence[str]) -> tuple[BoolArray, IntArray]:
    """Which of the vocabulary's words have a vector, and the rows of those."""
    row_of = {word: row for row, word in enumerate(words)}
    rows = np.array([row_of.get(word, -1) for word in vocabulary], np.int64)
    known = rows >= 0
    return known, rows[known]
