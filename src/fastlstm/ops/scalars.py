"""Checks of arguments that are single numbers: what came, what was expected."""

from __future__ import annotations

import math
import operator
from typing import Any

from fastlstm.ops.checks import describe

# Sizes of what has memory, or work, for each: more than any machine holds, and products with others fit 64 bits.
_MOST = 2**40


def integer(name: str, value: Any, low: float = -(2**63), high: float = 2**63 - 1) -> int:
    """A whole number from ``low`` to ``high``; what kernels take, if nothing else is said."""
    number: int = value
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(value, "__index__") or getattr(value, "ndim", 0) != 0:
            raise TypeError(f"{name} is {describe(value)}, expected a whole number")
        number = operator.index(value)
    if number < low:
        raise ValueError(f"{name} is {number}, expected at least {low}")
    if number > high:
        raise ValueError(f"{name} is {number}, expected at most {high}")
    return number


def size(name: str, value: Any, low: int = 1) -> int:
    """How many of something there are, each of which takes memory."""
    return integer(name, value, low, _MOST)


def real(name: str, value: Any) -> float:
    """Any number, NaN and infinity too."""
    if type(value) is float:
        return value
    if isinstance(value, str) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        raise TypeError(f"{name} is {describe(value)}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is a whole number too large for a float, expected a number") from None


def finite(name: str, value: Any, low: float | None = None, high: float | None = None) -> float:
    """A finite number, not below ``low`` nor above ``high``."""
    number = real(name, value)
    if not math.isfinite(number) or (low is not None and number < low) or (high is not None and number > high):
        limits = ["a finite number"]
        if low is not None:
            limits.append(f"at least {low}")
        if high is not None:
            limits.append(f"at most {high}")
        raise ValueError(f"{name} is {number}, expected {', '.join(limits)}")
    return number


def below_one(name: str, value: Any) -> float:
    """A number from 0 to below 1."""
    number = real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} is {number}, expected at least 0 and below 1")
    return number


def positive(name: str, value: Any) -> float:
    """A number above 0, infinity too."""
    number = real(name, value)
    if not number > 0:
        raise ValueError(f"{name} is {number}, expected a positive number")
    return number


def seed(name: str, value: Any) -> int:
    """A seed of the counter-based generator, from 0 to 2^64 - 1."""
    number = integer(name, value, 0, math.inf)
    if number >= 2**64:
        raise ValueError(f"{name} is {number}, expected less than 2^64")
    return number
