"""Batches that somebody else makes, as a training takes them: from a generator, a list, a data loader."""

from __future__ import annotations

import operator
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastlstm.contract import Array
from fastlstm.ops import scalars

Batch: TypeAlias = tuple[Array, ...]


class IteratedBatches:
    """Batches of an iterable, read one by one, and one ahead of what is learned.

    Parameters
    ----------
    batches : iterable
    prepared : callable
        Makes of what is read a batch where the model lives; raises if it cannot be learned from.
    epochs : range
        Those that there are to be.
    steps : int, optional
        Batches an epoch. With it the next epoch goes on where the last one ended, and what can be read again begins
        anew at its end; without it every epoch reads all, from the beginning.
    stop : callable
        Ends the training with the epoch at hand: there are no more batches.
    """

    unit = "batch"
    units_per_batch = 1

    def __init__(
        self,
        batches: Iterable[Any],
        prepared: Callable[[Any], Batch],
        *,
        epochs: range,
        steps: int | None,
        stop: Callable[[], None],
    ) -> None:
        self.steps = None if steps is None else scalars.integer("steps_per_epoch", steps, 1)
        self.is_read_once = isinstance(batches, Iterator)
        if self.is_read_once and self.steps is None and len(epochs) > 1:
            raise ValueError(
                f"the batches come from an iterator, which can be read once, for {len(epochs)} epochs: give "
                "steps_per_epoch=, how many of them are an epoch, or what can be read again, such as a list"
            )
        self._batches = batches
        self._prepared = prepared
        self._epochs = epochs
        self._stop = stop
        self._length = operator.length_hint(batches)  # of an epoch, as far as anybody knows; 0: nobody does
        self._iterator: Iterator[Any] | None = None
        self._ahead: Batch | None = None
        self._epoch = 0
        self._read = 0  # batches of the epoch at hand

    @property
    def can_go_on(self) -> bool:
        """Whether an interrupted epoch can be gone on with: all read the same from the beginning, so many batches."""
        return self.steps is None and not self.is_read_once and self._length > 0

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002, nothing is drawn
        is_first = self._iterator is None
        self._epoch, self._read = epoch, 0
        if is_first or self.steps is None:
            self._iterator = iter(self._batches)
            self._ahead = self._next()
        if self._ahead is None:
            raise ValueError(
                "there are no batches to train on"
                if is_first
                else f"there are no more batches after epoch {epoch}: what was given could be read once; give "
                "steps_per_epoch=, how many of them are an epoch, or what can be read again, such as a list"
            )

    def __len__(self) -> int:
        if self._iterator is None:
            return self.steps or self._length or sys.maxsize
        if self._ahead is None:
            return self._read
        return self.steps or max(self._length, self._read + 1)

    def batch(self, i: int) -> Batch:
        while True:  # more than once where a checkpoint from the middle of an epoch is continued
            batch = self._ahead
            if batch is None:
                raise ValueError(f"an epoch has {self._read} batches, but {i} of it were learned before")
            self._read += 1
            self._read_ahead()
            if self._read > i:
                return batch

    def _read_ahead(self) -> None:
        ends_epoch = self._read == self.steps
        is_last = self._epoch + 1 >= self._epochs.stop
        self._ahead = None if ends_epoch and is_last else self._next()
        if self._ahead is not None:
            return
        if self.steps is None:
            self._length = self._read
        elif not (ends_epoch and is_last):
            warnings.warn(
                f"there are no more batches after {self._read} of epoch {self._epoch + 1}, where steps_per_epoch is "
                f"{self.steps} and epochs is {self._epochs.stop}; the training ends with this epoch",
                UserWarning,
                stacklevel=2,
            )
            self._stop()

    def _next(self) -> Batch | None:
        """The next batch, None where there is none; with ``steps`` from the beginning again, where that can be."""
        assert self._iterator is not None
        for batch in self._iterator:
            return self._prepared(batch)
        if self.steps is not None and not self.is_read_once and self._ahead is not None:
            self._iterator = iter(self._batches)
            for batch in self._iterator:
                return self._prepared(batch)
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {"batches": "of an iterable", "steps_per_epoch": self.steps}
