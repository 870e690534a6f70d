"""What a step of a training on a GPU may ask of the operators, so that it waits for nothing and can be captured.

A graph repeats what it was captured with. So a seed of a captured step is a 0-d array, in which each run of the graph
finds a number of its own; and gradients by rows may come in arrays of the largest size, with the number of their rows
on the device. Both are asked for here, for one thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

_UINT64 = np.dtype(np.uint64)


class _Asked(threading.local):
    seeds: Seeds | None = None
    padded_rows: bool = False


_asked = _Asked()


class Seeds(Protocol):
    """Where the seeds of a step come from."""

    def take(self, rng: np.random.Generator) -> Any:
        """The next seed, which rng draws: a 0-d uint64 array."""
        ...


def draw_seed(rng: np.random.Generator) -> Any:
    """A 64-bit seed: a number, or where `seeds_on_device` asks for it, a 0-d array."""
    return draw_on_host(rng) if _asked.seeds is None else _asked.seeds.take(rng)


def draw_on_host(rng: np.random.Generator) -> int:
    """A 64-bit seed."""
    return int(rng.integers(0, 2**64, dtype=_UINT64))


@contextlib.contextmanager
def seeds_on_device(seeds: Seeds) -> Iterator[None]:
    """Inside the block, all seeds of this thread come from there."""
    _asked.seeds = seeds
    try:
        yield
    finally:
        _asked.seeds = None


def is_captured() -> bool:
    """Whether this thread captures a step, which must not read what one step of the training left to the next."""
    return _asked.seeds is not None


def rows_are_padded() -> bool:
    """Whether gradients by rows on a GPU are to come as `PaddedRowGrad`."""
    return _asked.padded_rows


@contextlib.contextmanager
def padded_row_gradients() -> Iterator[None]:
    """Inside the block, gradients by rows on a GPU come as `PaddedRowGrad`, for which nothing waits."""
    before, _asked.padded_rows = _asked.padded_rows, True
    try:
        yield
    finally:
        _asked.padded_rows = before
