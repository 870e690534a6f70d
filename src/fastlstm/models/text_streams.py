"""One long text as parallel streams, with the state carried over from piece to piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastlstm.contract import FloatArray, IntArray
from fastlstm.models.ids import IGNORED
from fastlstm.ops import scalars
from fastlstm.ops.device import Device
from fastlstm.training import Callback
from fastlstm.training.batches import Batches
from fastlstm.training.trainable import Trainable


class TextStreams(Batches):
    """A batch is the next piece of all streams; an epoch reads the text from its beginning.

    Parameters
    ----------
    corpus : (L,) ids
    streams : int
        At most L - 1.
    time_size : int
        Steps of a piece; a stream that is shorter is one piece.
    device : "cpu" or "cuda"
    """

    def __init__(self, corpus: IntArray, streams: int, time_size: int, device: Device) -> None:
        xs, ts = parallel_streams(corpus, streams)
        self.time_size = min(scalars.integer("time_size", time_size, 1), xs.shape[1])
        super().__init__(windows(xs, self.time_size, 0), windows(ts, self.time_size, IGNORED), streams, device)

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "time_size": self.time_size}


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


def parallel_streams(corpus: IntArray, streams: int) -> tuple[IntArray, IntArray]:
    """Cut a text (L,) into streams: ids xs and the ids that follow ts, both (streams, ceil((L - 1) / streams)).

    Each id of the text but the first stands in ts once; the last places, which it does not fill, hold 0 and -1.
    """
    steps = -(-(len(corpus) - 1) // streams)
    xs, ts = np.zeros(streams * steps, corpus.dtype), np.full(streams * steps, IGNORED, corpus.dtype)
    xs[: len(corpus) - 1], ts[: len(corpus) - 1] = corpus[:-1], corpus[1:]
    return xs.reshape(streams, steps), ts.reshape(streams, steps)


def windows(streams: IntArray, time_size: int, fill: int) -> IntArray:
    """Cut streams (N, L) into pieces one below the other, (ceil(L / time_size) N, time_size), filled up at the end."""
    N, L = streams.shape
    count = -(-L // time_size)
    padded = np.full((N, count * time_size), fill, streams.dtype)
    padded[:, :L] = streams
    return np.ascontiguousarray(padded.reshape(N, count, time_size).swapaxes(0, 1)).reshape(count * N, time_size)
