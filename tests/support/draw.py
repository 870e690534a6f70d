"""Random arrays for the cases of tests."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fastlstm.contract import FloatArray, IntArray


class Draw:
    """Random arrays that depend on the case's name only."""

    def __init__(self, name: str) -> None:
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def floats(self, *shape: int, scale: float = 1.0) -> FloatArray:
        return scale * self.rng.standard_normal(shape)

    def weights(self, *shape: int) -> FloatArray:
        """Of the size that keeps products with them near 1."""
        return self.floats(*shape, scale=1 / np.sqrt(max(shape[0], 1)))

    def ids(self, upper: int, *shape: int, dtype: type[np.signedinteger[Any]] = np.int64) -> IntArray:
        return self.rng.integers(0, upper, shape).astype(dtype)
