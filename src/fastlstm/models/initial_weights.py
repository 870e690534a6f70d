"""Initial weights: as in "Deep Learning from Scratch 2", or uniform as in Zaremba, Sutskever, Vinyals (2014)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.models.memory import check_room

_room: ContextVar[int | None] = ContextVar("_room", default=None)


@contextmanager
def room_for(numbers: int) -> Iterator[None]:
    """Inside, it is an error to draw more weights than so many numbers: a file can name any sizes, and hold few."""
    before = _room.set(numbers)
    try:
        yield
    finally:
        _room.reset(before)


def take_room(*shape: int) -> None:
    """Raise, before a matrix of weights is made, if there is no room for it."""
    left = _room.get()
    if left is not None:
        if math.prod(shape) > left:
            raise ValueError(f"there are {left} numbers left for weights of shape {shape}")
        _room.set(left - math.prod(shape))


def weights_dtype(dtype: Any) -> str:
    """The name of a dtype; raises unless weights may have it."""
    given = np.dtype(dtype).name
    # One object a name: scikit-learn's clone looks whether it gets back the very arguments that it gave.
    for name in ("float32", "float64"):
        if given == name:
            return name
    raise ValueError(f"dtype is {given}, expected float32 or float64")


class InitialWeights:
    """Draws weights, one after the other, from one generator.

    Parameters
    ----------
    rng : numpy Generator
    dtype : "float32" or "float64"
    scale : float, optional
        Everything, biases included, uniformly from -scale to scale. Without it, as in the book: normal, scaled by
        1/sqrt(inputs), embeddings by 1/100, and biases of zero.

    Raises
    ------
    MemoryError
        A matrix would need more memory than is free.
    """

    def __init__(self, rng: np.random.Generator, dtype: str, scale: float | None = None) -> None:
        self._rng = rng
        self._dtype = np.dtype(dtype)
        self._scale = scale

    def embedding(self, V: int, E: int) -> FloatArray:
        """W (V, E)."""
        return self._weights(V, E, 0.01)

    def lstm(self, D: int, H: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wx (D, 4H), Wh (H, 4H), b (4H,)."""
        return self._recurrent(D, H, 4 * H)

    def gru(self, D: int, H: int, *, biases: int = 1) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wx (D, 3H), Wh (H, 3H), b (3H,) as in the book's convention; with two biases b (2, 3H), as in PyTorch's."""
        Wx, Wh, b = self._recurrent(D, H, 3 * H)
        return Wx, Wh, b if biases == 1 else np.stack([b] * biases)

    def rnn(self, D: int, H: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Wx (D, H), Wh (H, H), b (H,)."""
        return self._recurrent(D, H, H)

    def affine(self, D: int, K: int) -> tuple[FloatArray, FloatArray]:
        """W (D, K), b (K,)."""
        return self._weights(D, K, 1 / math.sqrt(D)), self.bias(K)

    def bias(self, K: int) -> FloatArray:
        """b (K,)."""
        return np.zeros(K, self._dtype) if self._scale is None else self._uniform(self._scale, K)

    def _recurrent(self, D: int, H: int, columns: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        Wx = self._weights(D, columns, 1 / math.sqrt(D))
        Wh = self._weights(H, columns, 1 / math.sqrt(H))
        return Wx, Wh, self.bias(columns)

    def _weights(self, rows: int, columns: int, deviation: float) -> FloatArray:
        take_room(rows, columns)  # biases are never larger than the weights before them
        # Drawn in float64, and once more where the numbers are scaled or rounded.
        check_room(f"drawing weights of shape ({rows}, {columns})", 16 * rows * columns)
        if self._scale is not None:
            return self._uniform(self._scale, rows, columns)
        return (self._rng.standard_normal((rows, columns)) * deviation).astype(self._dtype)

    def _uniform(self, scale: float, *shape: int) -> FloatArray:
        return self._rng.uniform(-scale, scale, shape).astype(self._dtype)
