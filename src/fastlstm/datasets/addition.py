"""Sums as text: ``16+75  `` -> ``_91  ``.

The data set of chapter 7 of "Deep Learning from Scratch 2", after Keras's example addition_rnn: questions of numbers
with one to three digits, padded to 7 symbols; answers behind the start symbol "_", padded to 5.
"""

from __future__ import annotations

import os

import numpy as np

from fastlstm.datasets.files import find_file
from fastlstm.datasets.pairs import SequencePairs, encode, read_padded_pairs
from fastlstm.ops import scalars

VOCABULARY = list("0123456789+ _")
START = "_"
QUESTION_LENGTH = 7
ANSWER_LENGTH = 5
_NUMBERS = 1000  # 0 to 999
MAX_QUESTIONS = _NUMBERS * (_NUMBERS + 1) // 2

WHERE_TO_GET_IT = (
    "The book's file is dataset/addition.txt of github.com/oreilly-japan/deep-learning-from-scratch-2; "
    "without --data the questions are generated"
)


def addition(n: int = 50_000, seed: int | None = None) -> SequencePairs:
    """Draw questions with their answers.

    No two questions add the same two numbers, in either order. The numbers of digits are equally likely.

    Parameters
    ----------
    n : int from 1 to 500,500
    seed : int, optional

    Returns
    -------
    SequencePairs
        xs (n, 7), ts (n, 5) and the 13 symbols.
    """
    n = scalars.integer("n", n)
    if not 1 <= n <= MAX_QUESTIONS:
        raise ValueError(f"n is {n}, expected 1 to {MAX_QUESTIONS}, the number of different sums")
    rng = np.random.default_rng(seed)
    # Each number of digits has a third of the probability, shared by its 10, 90 or 900 numbers.
    numbers = np.arange(_NUMBERS)
    weight = 1.0 / np.select([numbers < 10, numbers < 100], [10.0, 90.0], 900.0)
    a, b = np.triu_indices(_NUMBERS)
    # Drawing without replacement in one go: the n smallest of exponential times (Efraimidis, Spirakis, 2006).
    times = rng.standard_exponential(len(a)) / (weight[a] * weight[b] * np.where(a == b, 1.0, 2.0))
    chosen = rng.permutation(np.argpartition(times, n - 1)[:n])
    swap = rng.random(n) < 0.5
    first, second = np.where(swap, b[chosen], a[chosen]), np.where(swap, a[chosen], b[chosen])
    questions = [f"{x}+{y}".ljust(QUESTION_LENGTH) for x, y in zip(first, second, strict=True)]
    answers = [f"{START}{total}".ljust(ANSWER_LENGTH) for total in first + second]
    return SequencePairs(encode(questions, VOCABULARY), encode(answers, VOCABULARY), list(VOCABULARY))


def read_addition(path: str | os.PathLike[str]) -> SequencePairs:
    """Read questions and answers from a file in the book's format, plain or packed (.xz, .gz, .bz2).

    A line is a question padded with blanks, and "_" with the answer padded with blanks: ``16+75  _91  ``. All lines
    have the lengths of the first.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    return read_padded_pairs(find_file(path, WHERE_TO_GET_IT), VOCABULARY, START)
