"""float32 numbers as bfloat16: rounded to nearest, ties to even; NaN stays NaN."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from fastlstm.contract import FloatArray

Halves = npt.NDArray[np.uint16]

AT_ONCE = 1 << 14  # numbers that stay in a cache while they are rounded

UPPER = 1 if sys.byteorder == "little" else 0  # half of a float32


def round_to_bf16(numbers: FloatArray) -> None:
    """Round contiguous float32 numbers in place; they stay float32."""
    flat = numbers.reshape(-1)
    for start in range(0, len(flat), AT_ONCE):
        part = flat[start : start + AT_ONCE]
        bits = part.view(np.uint32)
        nan = np.isnan(part)
        odd = bits >> 16
        odd &= 1
        odd += 0x7FFF  # half of the last place that stays, less what makes a tie round to even
        bits += odd
        bits &= 0xFFFF0000
        if nan.any():
            bits[nan] = 0x7FC00000


def to_bf16(rounded: FloatArray) -> Halves:
    """The upper halves of rounded float32 numbers, contiguous, which say all of them."""
    return np.ascontiguousarray(rounded.view(np.uint16)[..., UPPER::2])


def from_bf16(halves: Halves) -> FloatArray:
    """The float32 numbers of which these are the upper halves."""
    bits = halves.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)
