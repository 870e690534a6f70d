"""Ids as text has them."""

from __future__ import annotations

import numpy as np

from fastlstm.contract import IntArray


def text_ids(rng: np.random.Generator, V: int, *shape: int) -> IntArray:
    """int64 ids from 0 to V - 1 by Zipf's law, like words sorted by frequency: P(k) ~ 1 / (k + 1)."""
    ids: IntArray = np.minimum(np.exp(rng.random(shape) * np.log1p(V)).astype(np.int64) - 1, V - 1)
    return ids
