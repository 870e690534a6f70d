"""The rows of a PackedSequence in a padded array, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import Array, FloatArray


class Packing:
    """Where the M rows of a packed sequence stand in a padded one (T, N, ...).

    Sequences come in descending order of their lengths, and their rows step by step: first those of all sequences in
    step 0, then those of the sequences that have a step 1 ...

    Parameters
    ----------
    batch_sizes : (T,) int64 numpy array
        How many sequences have each step, as in `torch.nn.utils.rnn.PackedSequence`.
    rows : (M, ...) array
        Of the same device as the arrays to come.
    """

    def __init__(self, batch_sizes: Array, rows: FloatArray) -> None:
        self._T, self._N = len(batch_sizes), int(batch_sizes[0])
        self._is_even = bool(batch_sizes[-1] == self._N)
        self.lengths: Any = None  # (N,), None if all are T
        if not self._is_even:
            counts = np.arange(self._N) < batch_sizes[:, None]
            module = array_module(rows)
            self.lengths = module.asarray(counts.sum(axis=0))
            self._places = module.asarray(np.flatnonzero(counts))

    def pad(self, rows: FloatArray) -> FloatArray:
        """(T, N, K) of (M, K), zeros where a sequence has ended."""
        if self._is_even:
            return rows.reshape(self._T, self._N, -1)
        K = rows.shape[1]
        padded: FloatArray = array_module(rows).zeros((self._T * self._N, K), rows.dtype)
        padded[self._places] = rows
        return padded.reshape(self._T, self._N, K)

    def pack(self, padded: FloatArray) -> FloatArray:
        """(M, K) of (T, N, K)."""
        rows: FloatArray = padded.reshape(self._T * self._N, -1)
        return rows if self._is_even else rows[self._places]
