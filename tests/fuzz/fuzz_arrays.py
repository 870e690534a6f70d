"""Random numbers, arrays and layouts of arrays for the fuzzer, all from one integer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray

Choice = TypeVar("Choice")

# Around the edges of vectors, tiles and blocks.
WIDTHS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 47, 48, 63, 64, 65, 96, 97, 100, 129)
COUNTS = (0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 23, 24, 25, 33, 48, 65)
# The size of numbers of a call, where it is not about 1: none of them makes sums of products of float64 overflow.
LARGE = (1e2, 1e4, 1e9, 1e18, 1e25, 1e38)
TINY = (1e-6, 1e-12, 1e-20, 1e-30, 1e-42)
NOT_A_NUMBER = (np.nan, np.nan, 0.0, -0.0, 1e-45, -1e-40, 1.1754944e-38, 1.0)
INFINITE = (np.inf, -np.inf, 3.4028235e38, -3.4028235e38, 0.0, -1.0)

MARGIN = 64  # bytes around an array that is changed in place


class Source:
    """All that is random in one example. Every call takes from it in turn, so the seed alone makes the example."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.choose = random.Random(seed)
        self.dtype = np.dtype(np.float32 if self.chance(0.65) else np.float64)
        # How large numbers are, and whether some are no ordinary ones.
        mood = self.choose.random()
        self.scale: float = 1.0
        self.special: Sequence[float] = ()
        if mood < 0.12:
            self.scale = self.pick(LARGE)
        elif mood < 0.22:
            self.scale = self.pick(TINY)
        elif mood < 0.36:
            self.special = self.pick((NOT_A_NUMBER, INFINITE))
        self.is_tiny = self.scale < 1

    def chance(self, probability: float) -> bool:
        return self.choose.random() < probability

    def pick(self, options: Sequence[Choice]) -> Choice:
        return options[int(self.choose.random() * len(options))]

    def width(self, most: int = 129) -> int:
        """A size that is at least 1."""
        return min(self.pick(WIDTHS), most)

    def count(self, most: int = 65) -> int:
        """A size that may be 0."""
        return min(self.pick(COUNTS), most)

    def shape(self, axes: int, most: int) -> tuple[int, ...]:
        return tuple(self.count(most) for _ in range(axes))

    def floats(self, *shape: int, scale: float = 1.0, positive: bool = False, plain: bool = False) -> FloatArray:
        """Numbers of the example's dtype and kind, laid out in memory in any way; ``plain``: of size 1."""
        values = np.asarray(self.rng.standard_normal(shape) * scale)  # a number without axes would be none
        if positive:
            values = np.asarray(np.abs(values))
        if not plain and self.scale != 1 and self.chance(0.6):
            values *= self.scale
        with np.errstate(over="ignore", under="ignore"):
            array: FloatArray = np.asarray(values, self.dtype)
            if not plain and self.special and array.size and self.chance(0.5):
                for _ in range(1 + int(self.choose.random() * 3)):
                    number = self.pick(self.special)
                    array.flat[int(self.choose.random() * array.size)] = abs(number) if positive else number
        return array

    def weights(self, *shape: int) -> FloatArray:
        """Of the size that keeps products with them near 1; most of the time they are C-contiguous or transposes."""
        array = self.floats(*shape, scale=1 / np.sqrt(max(shape[0], 1)))
        return self.turned(array) if self.chance(0.3) else self.laid_out(array)

    def ids(self, upper: int, *shape: int, dtype: Any = None) -> IntArray:
        few = min(upper, 3) if self.chance(0.2) else upper
        chosen = dtype or (np.int64 if self.chance(0.6) else np.int32)
        ids: IntArray = self.laid_out(self.rng.integers(0, few, shape).astype(chosen))
        return ids

    def mask(self, N: int, T: int) -> Array:
        """Which steps count: bools or 0 and 1 of any dtype."""
        kind = self.pick(("holes", "lengths", "none", "all"))
        if kind == "holes":
            mask = self.rng.random((N, T)) < self.choose.random()
        elif kind == "lengths":
            mask = np.arange(T)[None, :] < self.rng.integers(0, T + 1, (N, 1))
        else:
            mask = np.full((N, T), kind == "all")
        steps: Array = mask if self.chance(0.5) else mask.astype(self.pick((np.float32, np.int64, np.uint8)))
        made: Array = self.laid_out(steps)
        return made

    def turned(self, array: FloatArray) -> FloatArray:
        """The same values as the transpose of a C-contiguous array."""
        return np.array(array.T, order="C").T

    def laid_out(self, array: Any) -> Any:
        """The same values, in memory in any way that a caller may have them."""
        layout = self.choose.random()
        if layout < 0.55 or array.size == 0 or array.ndim == 0:
            return array
        if layout < 0.70:
            return between_margins(array)
        if layout < 0.75:
            return np.asfortranarray(array)
        if layout < 0.81:  # every other number of what is twice as long
            wide = _filled((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            wide[..., ::2] = array
            return wide[..., ::2]
        if layout < 0.87:  # a part of what is longer along the first axis
            long = _filled((2 * array.shape[0], *array.shape[1:]), array.dtype)
            long[1::2] = array
            return long[1::2]
        if layout < 0.92:
            return np.flip(np.flip(array).copy())
        if layout < 0.96:
            view: Array = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), offset=1)
            view[...] = array
            return view
        copy = array.copy()
        copy.flags.writeable = False
        return copy


def _filled(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """What no kernel may take for a number of its own: NaN, and the smallest integer."""
    if dtype.kind == "f":
        return np.full(shape, np.nan, dtype)
    return np.full(shape, True if dtype.kind == "b" else np.iinfo(dtype).max, dtype)


def between_margins(array: Array) -> Array:
    """A copy of the same order in memory, C's or Fortran's, between margins of bytes of 0xFF, NaN in every float."""
    if array.dtype.hasobject:
        return array.copy()
    turned = array.flags.f_contiguous and not array.flags.c_contiguous
    in_order = array.T if turned else np.array(array, order="C")
    buffer = np.full(in_order.nbytes + 2 * MARGIN, 0xFF, np.uint8)
    inner: Array = buffer[MARGIN : MARGIN + in_order.nbytes].view(array.dtype).reshape(in_order.shape)
    inner[...] = in_order
    return inner.T if turned else inner


def margins_are_whole(array: Array) -> bool:
    """Whether nothing was written beside a result of `between_margins`."""
    buffer: Any = array
    while buffer.base is not None:
        buffer = buffer.base
    return bool((buffer[:MARGIN] == 0xFF).all() and (buffer[len(buffer) - MARGIN :] == 0xFF).all())
