"""Sequences of different lengths, similar lengths in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.models.id_sequences import last_steps
from fastlstm.training.batches import ShuffledRows

POOL = 50  # batches that are sorted together: more leave less padding, fewer leave more to chance


class BucketedRows(ShuffledRows):
    """Rows in a new order every epoch, those of a batch of similar lengths.

    The rows are shuffled, each `POOL` batches of them are sorted by length, and the batches are shuffled again. The
    arguments are those of `Batches`; xs are ids (N, T) with -1 for padding.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._row_lengths = row_lengths(self.xs)

    def draw_order(self, rng: np.random.Generator) -> IntArray:
        order = super().draw_order(rng)
        pool = POOL * self.batch_size
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows[:] = rows[np.argsort(self._row_lengths[rows], kind="stable")]
        # The last batch may be smaller than the others, so it keeps its place.
        size = min(self.batch_size, len(order))
        whole = len(order) // size
        batches = order[: whole * size].reshape(whole, size)
        return np.concatenate((batches[rng.permutation(whole)].ravel(), order[whole * size :]))

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "bucket_by_length": True}


def row_lengths(xs: IntArray) -> IntArray:
    """Of ids (N, T) with -1 for padding: the steps up to each row's last valid one, (N,)."""
    return last_steps(xs >= 0)


def order_by_length(xs: IntArray) -> IntArray:
    """All rows, similar lengths together: the less padding in a batch, the faster."""
    return np.argsort(row_lengths(xs), kind="stable")
