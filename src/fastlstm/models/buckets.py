"""Training on sequences of different lengths, similar lengths in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.models.classifier import row_lengths
from fastlstm.training.loop import Trainer

POOL = 50  # batches that are sorted together: more leave less padding, fewer leave more to chance


class BucketTrainer(Trainer):
    """The training loop where the rows of a batch have similar lengths.

    In every epoch the rows are shuffled, each `POOL` batches of them are sorted by length, and the batches are shuffled
    again. The arguments are those of `Trainer`; xs are ids (N, T) with -1 for padding.
    """

    def __init__(self, *data: Any, **options: Any) -> None:
        super().__init__(*data, **options)
        self._lengths = row_lengths(self.xs)

    def _draw_order(self, rng: np.random.Generator) -> IntArray:
        order: IntArray = rng.permutation(len(self.xs))
        pool = POOL * self.batch_size
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows[:] = rows[np.argsort(self._lengths[rows], kind="stable")]
        # The last batch may be smaller than the others, so it keeps its place.
        size = min(self.batch_size, len(order))
        whole = len(order) // size
        batches = order[: whole * size].reshape(whole, size)
        return np.concatenate((batches[rng.permutation(whole)].ravel(), order[whole * size :]))

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "bucket_by_length": True}
