"""Initial weights as in "Deep Learning from Scratch 2": normal, scaled by 1/sqrt(inputs); embeddings by 1/100."""

from __future__ import annotations

import math

import numpy as np

from fastlstm.contract import FloatArray


class InitialWeights:
    """Draws weights, one after the other, from one generator.

    Parameters
    ----------
    rng : numpy Generator
    dtype : "float32" or "float64"
    """

    def __init__(self, rng: np.random.Generator, dtype: str) -> None:
        self._rng = rng
        self._dtype = np.dtype(dtype)

    def embedding(self, V: int, E: int) -> FloatArray:
        """W (V, E)."""
        return self._normal(V, E, 0.01)

    def lstm(self, D: int, H: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wx (D, 4H), Wh (H, 4H), b (4H,)."""
        Wx = self._normal(D, 4 * H, 1 / math.sqrt(D))
        Wh = self._normal(H, 4 * H, 1 / math.sqrt(H))
        return Wx, Wh, np.zeros(4 * H, self._dtype)

    def affine(self, D: int, K: int) -> tuple[FloatArray, FloatArray]:
        """W (D, K), b (K,)."""
        return self._normal(D, K, 1 / math.sqrt(D)), np.zeros(K, self._dtype)

    def _normal(self, rows: int, columns: int, scale: float) -> FloatArray:
        return (self._rng.standard_normal((rows, columns)) * scale).astype(self._dtype)
