"""Training on one long text, read as parallel streams with the state carried over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastlstm.contract import FloatArray, IntArray
from fastlstm.models.rnnlm import IGNORED, RNNLM, most_streams, parallel_streams, windows
from fastlstm.ops import scalars
from fastlstm.training.callback import Callback
from fastlstm.training.loop import Trainer, check_callbacks
from fastlstm.training.means import RunningMean, with_perplexity


class CarriedState(Callback):
    """Starts every epoch from the zero state, and has checkpoints keep the state that is carried over."""

    state_names: ClassVar[tuple[str, ...]] = ("states",)

    def __init__(self, model: RNNLM) -> None:
        super().__init__()
        self._model = model

    @property
    def states(self) -> list[FloatArray]:
        return self._model.state()

    @states.setter
    def states(self, states: list[FloatArray]) -> None:
        self._model.set_state(states)

    def check_state(self, state: Mapping[str, Any]) -> None:
        options, dtype = self._model.options, self._model.params[0].dtype
        count = options["num_layers"] * (2 if options["cell"] == "lstm" else 1)
        shape = (self.trainer.batch_size, options["hidden_size"])
        states = [(array.shape, array.dtype) for array in state["states"]]
        if states and states != [(shape, dtype)] * count:
            raise ValueError(f"states are {states}, expected {count} arrays of shape {shape}, {dtype}")

    def on_epoch_begin(self, epoch: int) -> None:  # noqa: ARG002
        self._model.reset_state()


class StreamTrainer(Trainer):
    """The training loop where a batch is the next piece of all streams.

    Parameters
    ----------
    model : RNNLM
    corpus : (L,) ids
    time_size, batch_size : int
        Steps of a piece, and streams.
    validation_data : (K,) ids or None
    options
        The other arguments of ``RNNLM.fit``.
    """

    def __init__(
        self,
        model: RNNLM,
        corpus: IntArray,
        *,
        time_size: int,
        batch_size: int,
        validation_data: IntArray | None,
        callbacks: Any,
        **options: Any,
    ) -> None:
        streams = most_streams(corpus, batch_size)
        xs, ts = parallel_streams(corpus, streams)
        self.time_size = min(scalars.integer("time_size", time_size, 1), xs.shape[1])
        validation = None
        if validation_data is not None:
            validation = parallel_streams(validation_data, most_streams(validation_data, batch_size))
        super().__init__(
            model,
            windows(xs, self.time_size, 0),
            windows(ts, self.time_size, IGNORED),
            batch_size=streams,
            validation_data=validation,
            callbacks=[CarriedState(model), *check_callbacks(callbacks)],
            shuffle=False,
            **options,
        )

    # A checkpoint and the loop know sums and counts only; what becomes of them is decided here.
    @property
    def means(self) -> dict[str, RunningMean]:
        """Loss and metrics of the epoch at hand."""
        return self._means

    @means.setter
    def means(self, means: dict[str, RunningMean]) -> None:
        self._means = with_perplexity(means)

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "time_size": self.time_size}
