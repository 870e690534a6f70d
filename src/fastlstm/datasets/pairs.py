"""Questions and answers as ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray


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


def encode(texts: Sequence[str], vocabulary: Sequence[str]) -> IntArray:
    """Texts of one length, known symbols only -> ids (len(texts), length)."""
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    joined = "".join(texts)
    return np.fromiter((id_of[symbol] for symbol in joined), np.int64, len(joined)).reshape(len(texts), -1)


def decode(ids: IntArray, vocabulary: Sequence[str]) -> str:
    return "".join(vocabulary[i] for i in ids)
