"""Of ``common.util``: texts as ids, and words that are near each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray


def preprocess(text: str) -> tuple[IntArray, dict[str, int], dict[int, str]]:
    """Lower-case words of a text: their ids (L,), word to id, id to word. A full stop is a word."""
    words = text.lower().replace(".", " .").split(" ")
    word_to_id: dict[str, int] = {}
    corpus = np.array([word_to_id.setdefault(word, len(word_to_id)) for word in words])
    return corpus, word_to_id, {i: word for word, i in word_to_id.items()}


def create_contexts_target(corpus: Any, window_size: int = 1) -> tuple[IntArray, IntArray]:
    """The 2 window_size words around each word but the outermost, (L - 2 window_size, 2 window_size), and the words."""
    corpus = np.asarray(corpus)
    windows = np.lib.stride_tricks.sliding_window_view(corpus, 2 * window_size + 1)
    return np.delete(windows, window_size, axis=1), windows[:, window_size].copy()


def convert_one_hot(corpus: IntArray, vocab_size: int) -> IntArray:
    """Ids (N,) or (N, C) -> one-hot int32, with a last axis of vocab_size."""
    one_hot: IntArray = (corpus[..., None] == np.arange(vocab_size)).astype(np.int32)
    return one_hot


def cos_similarity(x: FloatArray, y: FloatArray, eps: float = 1e-8) -> float:
    """Cosine of the angle between two vectors."""
    nx = x / (np.sqrt(np.sum(x**2)) + eps)
    ny = y / (np.sqrt(np.sum(y**2)) + eps)
    return float(np.dot(nx, ny))


def normalize(x: FloatArray) -> FloatArray:
    """Vectors of length 1, in place: x (V,), or each row of x (N, V)."""
    x /= np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x


def most_similar(
    query: str, word_to_id: Mapping[str, int], id_to_word: Mapping[int, str], word_matrix: FloatArray, top: int = 5
) -> None:
    """Print the words whose vectors have the smallest angles with that of the query."""
    if query not in word_to_id:
        print(f"{query} is not found")
        return
    print(f"\n[query] {query}")
    vectors = _as_single(word_matrix)
    vectors = vectors / (np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)) + 1e-8)
    similarity = vectors @ vectors[word_to_id[query]]
    _print_best(similarity, id_to_word, {query}, top)


def analogy(
    a: str,
    b: str,
    c: str,
    word_to_id: Mapping[str, int],
    id_to_word: Mapping[int, str],
    word_matrix: FloatArray,
    top: int = 5,
    answer: str | None = None,
) -> None:
    """Print the words that are to c as b is to a."""
    for word in (a, b, c):
        if word not in word_to_id:
            print(f"{word} is not found")
            return
    print(f"\n[analogy] {a}:{b} = {c}:?")
    vectors = _as_single(word_matrix)
    a_vec, b_vec, c_vec = (vectors[word_to_id[word]] for word in (a, b, c))
    similarity = vectors @ normalize(b_vec - a_vec + c_vec)
    if answer is not None:
        print(f"==>{answer}:{similarity[word_to_id[answer]]}")
    _print_best(similarity, id_to_word, {a, b, c}, top)


def _as_single(vectors: Array) -> FloatArray:
    """The book saves vectors as float16, too coarse and too slow to calculate with."""
    return vectors.astype(np.float32) if vectors.dtype == np.float16 else vectors


def _print_best(similarity: FloatArray, id_to_word: Mapping[int, str], without: set[str], top: int) -> None:
    # A few too many: those that are left out may be among them.
    best = np.argsort(-np.nan_to_num(similarity, nan=-np.inf), kind="stable")[: top + len(without)]
    words = [(id_to_word[int(i)], similarity[i]) for i in best if id_to_word[int(i)] not in without]
    for word, value in words[:top]:
        if not np.isnan(value):
            print(f" {word}: {value}")
