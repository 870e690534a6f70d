"""Questions and answers as ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import read_lines


class SequencePairs(NamedTuple):
    """xs (N, S) and ts (N, T): ids of questions and of answers, the start symbol first; id i means vocabulary[i]."""

    xs: IntArray
    ts: IntArray
    vocabulary: list[str]


def hold_out(pairs: SequencePairs, share: float = 0.1, seed: int = 1984) -> tuple[SequencePairs, SequencePairs]:
    """Training and test rows. With the default values they are the rows of "Deep Learning from Scratch 2"."""
    order = np.arange(len(pairs.xs))
    np.random.RandomState(seed).shuffle(order)  # the generator the book uses
    split = len(order) - int(len(order) * share)
    train, test = (
        SequencePairs(pairs.xs[rows], pairs.ts[rows], pairs.vocabulary) for rows in (order[:split], order[split:])
    )
    return train, test


def read_padded_pairs(path: Path, vocabulary: Sequence[str], start: str) -> SequencePairs:
    """Read a file of which every line is a question and, from the start symbol on, an answer, both padded with blanks.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    lines = list(read_lines(path))
    width, split = len(lines[0]), lines[0].find(start)
    known = set(vocabulary)
    for number, line in enumerate(lines, 1):
        if unknown := set(line) - known:
            raise ValueError(
                f"{path}, line {number}: the symbol {min(unknown)!r} is not in the vocabulary {''.join(vocabulary)!r}"
            )
        if line.count(start) != 1 or line[0] == start or line[-1] == start:
            raise ValueError(
                f"{path}, line {number}: {line!r} is no question and answer with one {start!r} between them"
            )
        if len(line) != width or line[split] != start:
            raise ValueError(
                f"{path}, line {number}: {line!r} has question and answer of {line.find(start)} and "
                f"{len(line) - line.find(start)} symbols, line 1 has {split} and {width - split}; pad with blanks"
            )
    ids = encode(lines, vocabulary)
    return SequencePairs(np.ascontiguousarray(ids[:, :split]), np.ascontiguousarray(ids[:, split:]), list(vocabulary))


def encode(texts: Sequence[str], vocabulary: Sequence[str]) -> IntArray:
    """Texts of one length, known symbols only -> ids (len(texts), length)."""
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    joined = "".join(texts)
    return np.fromiter((id_of[symbol] for symbol in joined), np.int64, len(joined)).reshape(len(texts), -1)


def decode(ids: IntArray, vocabulary: Sequence[str]) -> str:
    return "".join(vocabulary[i] for i in ids)
