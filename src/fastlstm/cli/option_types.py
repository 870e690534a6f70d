"""The numbers that options of the command line take, each checked where it is read.

Pass one as ``type`` to ``add_argument``; what does not fit is a mistake that names what was expected.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

# Far above any use: what is larger is a slip, and would overflow an array's size or a float32.
MAX_COUNT = 2**31 - 1
MAX_LAYERS = MAX_BEAM = 1_000
MAX_SAMPLED = 1_000_000
MAX_STEPS = 10_000_000
MAX_NUMBER = 1e30


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from low to high."""

    def read(text: str) -> int:
        # Shorter than what int() refuses to read.
        if not (text.isdecimal() and len(text) < 100 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r:.60} is no whole number of at least {low} and at most {high}")
        return int(text)

    return read


def real(fits: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    """The type of an option that is a number; NaN fits nothing, for no comparison with it holds."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not fits(number):
            raise argparse.ArgumentTypeError(f"{text!r:.60} is no number {wanted}")
        return number

    return read


COUNT = whole(1, MAX_COUNT)
LAYER_COUNT = whole(1, MAX_LAYERS)
BEAM_WIDTH = whole(1, MAX_BEAM)
SAMPLE_COUNT = whole(1, MAX_SAMPLED)
STEP_COUNT = whole(1, MAX_STEPS)
SEED = whole(0, 2**64 - 1)
POSITIVE = real(lambda x: 1 / MAX_NUMBER <= x <= MAX_NUMBER, f"above 0, from {1 / MAX_NUMBER:g} to {MAX_NUMBER:g}")
NOT_NEGATIVE = real(lambda x: 0 <= x <= MAX_NUMBER, f"of at least 0 and at most {MAX_NUMBER:g}")
FACTOR = real(lambda x: 0 < x < 1, "between 0 and 1")
SHARE = real(lambda x: 0 <= x < 1, "from 0 to below 1")
