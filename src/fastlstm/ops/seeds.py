"""Seeds of the counter-based generator: drawn on the host, and checked before an operator uses them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.contract import Array
from fastlstm.ops import checks, scalars

_UINT64 = np.dtype(np.uint64)


def require_generator(name: str, rng: Any) -> None:
    """Raise unless rng is a numpy Generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{name} is {checks.describe(rng)}; expected a numpy Generator such as numpy.random.default_rng(0)"
        )


def draw_seed(rng: np.random.Generator) -> int:
    """The next 64-bit seed of a generator."""
    return int(rng.integers(0, 2**64, dtype=_UINT64))


def check_seed(seed: Any, beside: str, array: Array) -> Any:
    """A seed from 0 to 2^64 - 1; beside an array on a GPU, called ``beside``, also a 0-d array, which is not read."""
    if not is_device_array(seed):
        return scalars.seed("seed", seed)
    if seed.ndim != 0 or seed.dtype != _UINT64:
        raise TypeError(f"seed is {checks.describe(seed)}, expected a whole number or a 0-d array of uint64")
    checks.same_device(f"{beside} seed", array, seed)
    return seed
