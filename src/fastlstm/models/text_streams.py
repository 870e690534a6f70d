"""One long text as parallel streams, with the state carried over from piece to piece.

The text is read where it lies, a piece at a time: it may be a ``numpy.memmap`` of a file larger than the memory.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray
from fastlstm.models.ids import IGNORED
from fastlstm.ops import scalars
from fastlstm.ops.checks import INTS
from fastlstm.ops.device import Device, to_device
from fastlstm.training import Callback
from fastlstm.training.trainable import Trainable

IDS_AT_ONCE = 1 << 20  # whose checksum is made at once
MOST_ON_DEVICE = 1 << 31  # bytes of a text that a GPU holds as a whole, so that no step copies to it


class Streams(NamedTuple):
    """A text (L,) of integers of any kind, cut into parallel streams, which are read piece by piece.

    Each id of the text but the first is said once; the last places, which the text does not fill, hold 0 and -1.
    """

    corpus: IntArray
    streams: int

    @property
    def steps(self) -> int:
        """How long a stream is."""
        return -(-(len(self.corpus) - 1) // self.streams)

    def piece(self, i: int, time_size: int) -> tuple[IntArray, IntArray]:
        """Ids xs and the ids that follow ts of piece i, both (streams, time_size), at most to the end."""
        T = min(time_size, self.steps - i * time_size)
        xs, ts = (np.ascontiguousarray(ids[0, :, :T]) for ids in self.pieces(i, i + 1, time_size))
        return xs, ts

    def pieces(self, first: int, last: int, time_size: int, rows: slice = slice(None)) -> tuple[IntArray, IntArray]:
        """The pieces first to last - 1 of all streams or of some, both arrays (last - first, streams, time_size)."""
        step = np.arange(first * time_size, last * time_size).reshape(-1, 1, time_size)
        places = np.arange(self.streams)[rows, None] * self.steps + step
        filled = (step < self.steps) & (places < len(self.corpus) - 1)
        places = places[filled]
        dtype = self.corpus.dtype if self.corpus.dtype in INTS else np.dtype(np.int64)
        xs, ts = np.zeros(filled.shape, dtype), np.full(filled.shape, IGNORED, dtype)
        xs[filled], ts[filled] = self.corpus[places], self.corpus[places + 1]
        return xs, ts


class TextStreams:
    """A batch is the next piece of all streams; an epoch reads the text from its beginning.

    Parameters
    ----------
    corpus : (L,) integers
    streams : int
        At most L - 1.
    time_size : int
        Steps of a piece; a stream that is shorter is one piece.
    device : "cpu" or "cuda"
        A GPU holds the text, unless that is too large: then every batch is copied to it.
    """

    unit = "batch"
    units_per_batch = 1

    def __init__(self, corpus: IntArray, streams: int, time_size: int, device: Device) -> None:
        self._streams = Streams(corpus, streams)
        self.batch_size = streams
        self.time_size = min(scalars.integer("time_size", time_size, 1), self._streams.steps)
        self._device = device
        self._on_device: tuple[Array, Array] | None = None
        if device == "cuda" and 2 * len(corpus) * np.dtype(np.int64).itemsize <= MOST_ON_DEVICE:
            xs, ts = self._streams.pieces(0, len(self), self.time_size)
            self._on_device = to_device(xs, device), to_device(ts, device)

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Every epoch reads the same."""

    def __len__(self) -> int:
        return -(-self._streams.steps // self.time_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return (self.batch(i) for i in range(len(self)))

    def batch(self, i: int) -> tuple[Array, Array]:
        """Piece i where the model lives; the last one has time_size steps too, of which some do not count."""
        return self.part(i, slice(0, self.batch_size))

    def rows_of(self, i: int) -> int:  # noqa: ARG002
        return self.batch_size

    def part(self, i: int, rows: slice) -> tuple[Array, Array]:
        if self._on_device is not None:
            xs, ts = self._on_device
            return xs[i, rows], ts[i, rows]
        xs, ts = (to_device(ids[0], self._device) for ids in self._streams.pieces(i, i + 1, self.time_size, rows))
        return xs, ts

    def fingerprint(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "shuffle": False,
            "crc32 of the training data": self._checksum,
            "time_size": self.time_size,
        }

    @functools.cached_property
    def _checksum(self) -> int:
        """Of all that is read, and then of all that is said."""
        at_once = max(1, IDS_AT_ONCE // (self.batch_size * self.time_size))
        checksum = 0
        for part in range(2):
            for first in range(0, len(self), at_once):
                last = min(first + at_once, len(self))
                checksum = zlib.crc32(self._streams.pieces(first, last, self.time_size)[part].data, checksum)
        return checksum


class CarriedState(Callback):
    """Starts every epoch from the zero state, and has checkpoints keep the state that is carried over."""

    state_names: ClassVar[tuple[str, ...]] = ("states",)

    def __init__(self, model: Trainable, streams: int) -> None:
        super().__init__()
        self._model = model
        self._streams = streams

    @property
    def states(self) -> list[FloatArray]:
        return self._model.state()

    @states.setter
    def states(self, states: list[FloatArray]) -> None:
        self._model.set_state(states)

    def check_state(self, state: Mapping[str, Any]) -> None:
        options, dtype = self._model.options, self._model.params[0].dtype
        count = options["num_layers"] * (2 if options["cell"] == "lstm" else 1)
        shape = (self._streams, options["hidden_size"])
        states = [(array.shape, array.dtype) for array in state["states"]]
        if states and states != [(shape, dtype)] * count:
            raise ValueError(f"states are {states}, expected {count} arrays of shape {shape}, {dtype}")

    def on_epoch_begin(self, epoch: int) -> None:  # noqa: ARG002
        self._model.set_state([])


def most_streams(corpus: IntArray, batch_size: int) -> int:
    """How many of batch_size streams a text (L,) fills: each says at least one id."""
    return min(scalars.integer("batch_size", batch_size, 1), len(corpus) - 1)
