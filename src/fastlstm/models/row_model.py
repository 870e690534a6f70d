"""What models have that learn rows: examples and targets that belong together row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastlstm.contract import Array
from fastlstm.distributed.workers import Workers
from fastlstm.models.model import Model
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.batches import Batches, ShuffledRows


class RowModel(Model):
    """Base of the models that learn examples xs and targets ts, a row each."""

    def fit(
        self,
        xs: Array,
        ts: Array,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[Array, Array] | None = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
    ) -> History:
        """Train. The arguments mean what they mean in Keras.

        Parameters
        ----------
        xs, ts : arrays with one row an example
            Targets are ids; a column of them, with a last axis of one, and one-hot targets are accepted.
        epochs, batch_size : int
            The last batch of an epoch may be smaller.
        optimizer : str or optimizer
            "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw": a new one with its default values; or
            an object of ``fastlstm.optim``, which keeps its state from one ``fit`` to the next.
        max_grad : float, optional
            Clip the gradients' global norm to it.
        validation_split : float from 0 to below 1
            Hold out the last part of the rows, before any shuffling.
        validation_data : (xs, ts), optional
            Evaluated after every epoch; takes precedence over validation_split.
        metrics : sequence of str
            Names in ``metric_names``; the loss is always there.
        callbacks : sequence of callbacks
        shuffle : bool
            A new order of the rows every epoch.
        verbose : 0, 1, 2 or "auto"
            Silent, a progress bar, a line an epoch; "auto" is 1 on a terminal, else 2.
        workers : Workers, optional
            What `fastlstm.distributed.mpi` returned: processes that all make this call, with the same model and data,
            and share the work out. All have the weights and the history afterwards.
        shards : int
            Cut every batch into so many pieces of rows, whose gradients are computed one by one and summed in one
            order. At least the number of workers, of which the weights' bits do not depend: they depend on shards. A
            checkpoint belongs to one number of shards and goes on with any number of workers.

        Returns
        -------
        History
            ``history[name]`` is a list, an entry an epoch.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the batch at hand is done; the model is as it was after that batch.
        """
        xs, ts = self.check_batch(xs, ts)
        xs, ts, validation_data = self._hold_out(xs, ts, validation_split, validation_data)
        return Trainer(
            self,
            self.batches(xs, ts, batch_size, ShuffledRows if shuffle else Batches),
            optimizer,
            epochs=epochs,
            max_grad=max_grad,
            validation_data=validation_data,
            metrics=metrics,
            callbacks=callbacks,
            verbose=verbose,
            workers=workers,
            shards=shards,
        ).run()

    def _hold_out(
        self, xs: Array, ts: Array, validation_split: float, validation_data: tuple[Array, Array] | None
    ) -> tuple[Array, Array, tuple[Array, Array] | None]:
        """Of checked data those to learn from, and those to validate on; raises if there is nothing to learn."""
        if validation_data is not None:
            validation_data = self.check_batch(*check_validation_data(validation_data))
        validation_split = scalars.below_one("validation_split", validation_split)
        if validation_data is not None:
            if not len(validation_data[0]):
                raise ValueError("validation_data has no rows; leave it out to train without validation")
        elif validation_split:
            split = len(xs) - int(len(xs) * validation_split)
            if len(xs) and split == len(xs):
                raise ValueError(
                    f"validation_split is {validation_split}, which holds out none of {len(xs)} rows; use a larger "
                    "one, or 0 to train without validation"
                )
            validation_data = xs[split:], ts[split:]
            xs, ts = xs[:split], ts[:split]
        self.require_targets(ts, "train on")
        if validation_data is not None:
            self.require_targets(validation_data[1], "validate on")
        return xs, ts, validation_data

    def evaluate(
        self,
        xs: Array,
        ts: Array,
        *,
        batch_size: int = 512,
        metrics: Sequence[str] | None = None,
        workers: Workers | None = None,
        shards: int = 1,
    ) -> dict[str, float]:
        """Loss and metrics (all of ``metric_names`` unless named) over all rows, without learning.

        Workers share the work out, as in `fit`.

        Raises
        ------
        ValueError
            No target counts: there are no rows, or all targets are ignored.
        """
        xs, ts = self.check_batch(xs, ts)
        self.require_targets(ts, "evaluate")
        return self._evaluate(self.batches(xs, ts, batch_size), metrics, workers, shards)


def require_same_rows(xs: Array, ts: Array) -> None:
    """Raise unless there are as many targets as examples."""
    if len(xs) != len(ts):
        raise ValueError(f"xs has {len(xs)} rows and ts {len(ts)}; they belong together row by row")


def check_validation_data(validation_data: Any) -> Sequence[Any]:
    """The arguments of ``Model.check_batch``; raises unless there are at least two."""
    if not isinstance(validation_data, (tuple, list)):
        raise TypeError(f"validation_data is {describe(validation_data)}, expected (xs, ts)")
    if len(validation_data) < 2:
        raise ValueError(f"validation_data has {len(validation_data)} entries, expected (xs, ts)")
    return validation_data
