"""What a step of a training on a GPU may ask of the operators, so that it waits for nothing and can be captured.

A graph repeats what it was captured with. So a seed of a captured step is a 0-d array, in which each run of the graph
finds a number of its own; and gradients by rows may come in arrays of the largest size, with the number of their rows on
the device. Both are asked for here, for one thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

_UINT64 = np.dtype(np.uint64)


class _Asked(threading.local):
    seeds: Seeds | None = None
    padded_rows: bool = False


_asked = _Asked()


class Seeds:
    """Seeds on the device, in the order in which a step draws them.

    Parameters
    ----------
    places : (S,) uint64 array on the GPU
        Where the seeds of each run are to stand.

    Attributes
    ----------
    generators : list of numpy Generators
        Who draws each of them.
    values : list of int
        What was drawn for the step at hand.
    """

    def __init__(self, places: Any) -> None:
        self._places = places
        self.generators: list[np.random.Generator] = []
        self.values: list[int] = []
        self._before: list[tuple[np.random.Generator, Any]] = []

    def take(self, rng: np.random.Generator) -> Any:
        """A seed of the step that is captured, 0-d."""
        k = len(self.generators)
        if k == len(self._places):
            raise RuntimeError(f"a step draws more than {k} seeds, for which there is no room on the GPU")
        if not any(known is rng for known, _ in self._before):
            self._before.append((rng, rng.bit_generator.state))
        self.generators.append(rng)
        self.values.append(_draw(rng))
        return self._places[k : k + 1].reshape(())

    def draw_again(self) -> list[int]:
        """The seeds of another step, drawn as the step itself would."""
        self.values = [_draw(rng) for rng in self.generators]
        return self.values

    def put_back(self) -> None:
        """As if nothing had been drawn: the generators go back to where they were before the first `take`."""
        for rng, state in self._before:
            rng.bit_generator.state = state


def draw_seed(rng: np.random.Generator) -> Any:
    """A 64-bit seed: a number, or where `seeds_on_device` asks for it, a 0-d array."""
    return _draw(rng) if _asked.seeds is None else _asked.seeds.take(rng)


def _draw(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**64, dtype=_UINT64))


@contextlib.contextmanager
def seeds_on_device(seeds: Seeds) -> Iterator[None]:
    """Inside the block, all seeds of this thread come from there."""
    _asked.seeds = seeds
    try:
        yield
    finally:
        _asked.seeds = None


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
