"""The training loop behind the models' ``fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fastlstm.contract import Array
from fastlstm.distributed.gradients import GradPrecision, check_grad_precision
from fastlstm.distributed.workers import Workers, any_of, check_same, checked_workers
from fastlstm.ops import scalars
from fastlstm.optim import Optimizer, make_optimizer
from fastlstm.training.batches import BatchSource
from fastlstm.training.callback import Callback, check_callbacks, check_hooks
from fastlstm.training.callbacks import BackupAndRestore
from fastlstm.training.checkpoint import describe_progress, describe_training
from fastlstm.training.cuda_graph import GraphedSteps
from fastlstm.training.eager import EagerSteps
from fastlstm.training.history import History
from fastlstm.training.interrupt import SoftInterrupt
from fastlstm.training.means import Means, RunningMean
from fastlstm.training.progress import make_progress
from fastlstm.training.sharded import ShardedSteps
from fastlstm.training.trainable import Trainable

OptimizerLike = str | Optimizer


class StepRunner(Protocol):
    """Runs the steps of one training."""

    def run(self, i: int) -> None:
        """One step on batch i of the source's epoch; loss and metrics are added to the trainer's ``means``."""

    def logs(self) -> Mapping[str, float]:
        """Loss and metrics of the epoch so far."""
        ...

    def close(self) -> None:
        """After the last step: leave the model and the optimiser to others."""


class Trainer:
    """One training: what is to be done, and how far it is.

    Parameters
    ----------
    model : Trainable
    source : BatchSource
        What the model learns from.
    optimizer : str or optimizer
    epochs, initial_epoch : int
    max_grad : float, optional
        Clip the gradients' global norm to it.
    validation_data : tuple, optional
        What the model's ``evaluate`` takes, after every epoch.
    metrics, callbacks, verbose, workers, shards, grad_precision
        As for the models' ``fit``.

    Attributes
    ----------
    model, source, optimizer, callbacks, history, workers, shards, grad_precision
    epochs, batches : int
        How many epochs there are to be, and how many batches an epoch has.
    initial_epoch : int
        How many of the epochs are taken for done when the training begins.
    epoch, batch : int
        Epochs done, and batches done in the epoch at hand.
    means : dict of name to RunningMean
        Loss and metrics of the epoch at hand.
    rng_of_order : dict or None
        State of the model's generator before the source drew the epoch at hand.
    """

    def __init__(
        self,
        model: Trainable,
        source: BatchSource,
        optimizer: OptimizerLike = "adam",
        *,
        epochs: int,
        initial_epoch: int = 0,
        max_grad: float | None = None,
        validation_data: tuple[Any, ...] | None = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] | Callback | None = (),
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
        grad_precision: GradPrecision | None = None,
    ) -> None:
        self.model = model
        self.source = source
        self.epochs = scalars.integer("epochs", epochs, 0)
        self.initial_epoch = scalars.integer("initial_epoch", initial_epoch, 0)
        self.optimizer = make_optimizer(optimizer)
        self.max_grad = None if max_grad is None else scalars.positive("max_grad", max_grad)
        self.metrics = model.check_metrics(metrics)
        self.validation_data = validation_data
        callbacks = check_callbacks(callbacks)
        self.workers = checked_workers(workers)
        self.workers.shards_of_mine(shards)
        self.shards = shards
        self.grad_precision = _checked_grad_precision(grad_precision, shards, model)

        self.epoch = self.initial_epoch
        self.batch = 0
        self.means: dict[str, RunningMean] = {}
        self.rng_of_order: Any = None
        self._steps: StepRunner = EagerSteps(self)
        self._is_interrupted = False
        self.history = History()
        # A checkpoint holds what all other callbacks have made of the epoch, so it comes last.
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, BackupAndRestore))
        self._progress = make_progress(verbose if self.writes_files else 0)
        self._all_callbacks = [self._progress, *self.callbacks]
        for callback in self._all_callbacks:
            callback.model, callback.trainer = model, self
        self._before_batch = _overriding(self._all_callbacks, "on_train_batch_begin")
        self._after_batch = _overriding(self._all_callbacks, "on_train_batch_end")

    @property
    def batches(self) -> int:
        """How many batches the epoch at hand has; before the first, the most that one can have."""
        return len(self.source)

    @property
    def writes_files(self) -> bool:
        """Whether this worker writes files and shows the progress: callbacks run on all workers, for one of them."""
        return self.workers.rank == 0

    @property
    def log_names(self) -> tuple[str, ...]:
        """What the loop puts into the logs of an epoch."""
        names = ("loss", *self.metrics)
        return names if self.validation_data is None else (*names, *(f"val_{name}" for name in names))

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        of_callbacks = {name: value for callback in self.callbacks for name, value in callback.fingerprint().items()}
        return {
            "model": type(self.model).__name__,
            # Those of a model that is no `Model` are all saved.
            "options": getattr(self.model, "saved_options", self.model.options),
            "optimizer": type(self.optimizer).__name__,
            "max_grad": self.max_grad,
            "metrics": list(self.metrics),
            **({"shards": self.shards} if self.shards > 1 else {}),
            **({"initial_epoch": self.initial_epoch} if self.initial_epoch else {}),
            **({"grad_precision": self.grad_precision} if self.grad_precision else {}),
            **self.source.fingerprint(),
            **of_callbacks,
        }

    def run(self) -> History:
        """Train to the end."""
        self.model.stop_training = False
        check_hooks(self.callbacks)
        self._check_log_names()
        check_same(self.workers, lambda: describe_training(self))
        try:
            with SoftInterrupt(say=self.writes_files) as interrupt:
                for callback in self._all_callbacks:
                    callback.on_train_begin()
                check_same(self.workers, lambda: describe_progress(self))
                self._steps = self._make_steps()
                self._agree(interrupt)
                while self.epoch < self.epochs and not self.model.stop_training:
                    self._stop_if_interrupted()  # before an epoch begins, which it would do again when it goes on
                    self._run_epoch(interrupt)
                    self._agree(interrupt)
                self._stop_if_interrupted()
                for callback in self._all_callbacks:
                    callback.on_train_end()
        finally:
            self._steps.close()
            for callback in self._all_callbacks:
                callback.close()
        return self.history

    def _make_steps(self) -> StepRunner:
        if self.shards > 1:
            return ShardedSteps(self)
        return GraphedSteps(self) if self.model.device == "cuda" else EagerSteps(self)

    def _check_log_names(self) -> None:
        for callback in self.callbacks:
            callback.check_log_names(self.log_names)
            if not str(getattr(callback.on_epoch_end, "__module__", "")).startswith("fastlstm."):
                return  # it may add to the logs that those after it see

    def _run_epoch(self, interrupt: SoftInterrupt) -> None:
        if self.batch == 0:  # else a checkpoint from the middle of the epoch is continued
            for callback in self._all_callbacks:
                callback.on_epoch_begin(self.epoch)
            self.means = {name: self.model.make_mean(name) for name in ("loss", *self.metrics)}
        self._begin_source()
        self._agree(interrupt)
        while self.batch < self.batches:
            self._stop_if_interrupted()
            self._run_batch()
            self._agree(interrupt)
            if self.model.stop_training and self.batch < self.batches:
                return
        logs = {name: mean.value for name, mean in self.means.items()}
        if self.validation_data is not None:
            shared: dict[str, Any] = {"workers": self.workers, "shards": self.shards} if self.shards > 1 else {}
            validation = self.model.evaluate(*self.validation_data, metrics=self.metrics, **shared)
            logs |= {f"val_{name}": value for name, value in validation.items()}
        epoch = self.epoch
        self.history.append(epoch, logs)
        self.epoch, self.batch, self.means, self.rng_of_order = epoch + 1, 0, {}, None
        for callback in self._all_callbacks:
            callback.on_epoch_end(epoch, logs)

    def _begin_source(self) -> None:
        """Draw the batches of the epoch; in its middle once more, without a change of the model's generator."""
        rng = self.model.rng
        now = rng.bit_generator.state
        if self.rng_of_order is None:
            self.rng_of_order = now
            self.source.begin_epoch(self.epoch, rng)
        else:
            rng.bit_generator.state = self.rng_of_order
            self.source.begin_epoch(self.epoch, rng)
            rng.bit_generator.state = now

    def _run_batch(self) -> None:
        batch = self.batch
        for callback in self._before_batch:
            callback.on_train_batch_begin(batch)
        self._steps.run(batch)
        self.batch = batch + 1
        if self._after_batch:
            logs = self._steps.logs()
            for callback in self._after_batch:
                callback.on_train_batch_end(batch, logs)

    def step(self, inputs: tuple[Array, ...], means: Means) -> None:
        """One step of the optimiser on a batch; loss and metrics are added to ``means``."""
        self.model.train_step(inputs, self.optimizer, means, max_grad=self.max_grad)

    def _agree(self, interrupt: SoftInterrupt) -> None:
        """Have all workers stop where one is to, by Ctrl-C or by a callback."""
        self._is_interrupted, self.model.stop_training = any_of(self.workers, interrupt.asked, self.model.stop_training)

    def _stop_if_interrupted(self) -> None:
        if self._is_interrupted:
            for callback in self._all_callbacks:
                callback.on_interrupt()
            raise KeyboardInterrupt


def _checked_grad_precision(precision: Any, shards: int, model: Trainable) -> GradPrecision | None:
    """That of gradients between workers; raises where none is rounded."""
    checked = check_grad_precision("grad_precision", precision)
    if checked is not None and shards == 1:
        raise ValueError(
            f"grad_precision is {precision!r}, which is for the gradients of shards, but shards is 1: give at least as "
            "many shards as there are workers, or leave grad_precision out"
        )
    if checked is not None and model.params[0].dtype != np.float32:
        raise ValueError(
            f"grad_precision is {precision!r}, for a {model.params[0].dtype} model: only float32 gradients have it. "
            "Leave it out for exact ones"
        )
    return checked


def _overriding(callbacks: Sequence[Callback], method: str) -> list[Callback]:
    """Those that do something in ``method``: the others cost nothing in every batch."""
    return [
        callback for callback in callbacks if getattr(callback, method) != getattr(Callback, method).__get__(callback)
    ]
