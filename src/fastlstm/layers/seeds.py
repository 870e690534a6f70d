"""Where layers take their seeds from."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.ops.seeds import draw_seed, require_generator


class _Here(threading.local):
    capturing = False


# Whether this thread captures a step, in which no seed may be a number: each replay would draw the same.
_here = _Here()


class Seeds:
    """64-bit seeds, one after the other: numbers, or slots on a GPU while a step is captured there.

    A graph repeats what it was captured with. So a captured step reads its seeds from slots, and each replay finds new
    ones in them.

    Parameters
    ----------
    rng : numpy Generator
        Draws them.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        require_generator("rng", rng)
        self.rng = rng
        self._slots: Any = None
        self._drawn: list[int] = []

    def draw(self) -> int:
        """The next seed, as a number."""
        return draw_seed(self.rng)

    def take(self) -> Any:
        """The next seed, as operators take it: a number, or a slot, a 0-d uint64 array.

        Raises
        ------
        RuntimeError
            The slots are used up; or a step is captured, and these seeds are not those in slots.
        """
        if self._slots is None:
            if _here.capturing:
                raise RuntimeError(
                    "a layer draws seeds from a generator of its own, which no replay would ask; make it with "
                    "rng=model.seeds"
                )
            return self.draw()
        k = len(self._drawn)
        if k == len(self._slots):
            raise RuntimeError(f"a step draws more than {k} seeds, for which there is no room on the GPU")
        self._drawn.append(self.draw())
        return self._slots[k : k + 1].reshape(())

    @contextlib.contextmanager
    def drawn_by(self, rng: np.random.Generator) -> Iterator[None]:
        """Inside the block another generator draws."""
        before, self.rng = self.rng, rng
        try:
            yield
        finally:
            self.rng = before

    @contextlib.contextmanager
    def in_slots(self, slots: Any) -> Iterator[list[int]]:
        """Inside the block `take` hands out slots (S,), uint64 on a GPU; yields the list of what was drawn for them.

        After an error it is as if nothing had been drawn.
        """
        before = self.rng.bit_generator.state
        self._slots, self._drawn = slots, []
        _here.capturing = True
        try:
            yield self._drawn
        except BaseException:
            self.rng.bit_generator.state = before
            raise
        finally:
            self._slots = None
            _here.capturing = False


def seeds_of(rng: np.random.Generator | Seeds) -> Seeds:
    """The seeds that a generator draws, or those given."""
    return rng if isinstance(rng, Seeds) else Seeds(rng)
