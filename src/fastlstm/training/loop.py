"""The training loop behind ``Model.fit``."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.contract import Array, IntArray
from fastlstm.layers import TimeDropout
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe
from fastlstm.optim import Optimizer, make_optimizer
from fastlstm.training.batches import Rows
from fastlstm.training.callback import Callback
from fastlstm.training.callbacks import BackupAndRestore
from fastlstm.training.device_steps import DeviceSteps, Means
from fastlstm.training.history import History
from fastlstm.training.interrupt import SoftInterrupt
from fastlstm.training.means import RunningMean, add_batch
from fastlstm.training.progress import make_progress

if TYPE_CHECKING:
    from fastlstm.models import Model

OptimizerLike = str | Optimizer


class Trainer:
    """One training: what ``Model.fit`` was asked to do, and how far it is.

    The arguments are those of ``Model.fit``.

    Attributes
    ----------
    model, optimizer, callbacks, history
    epochs, batches : int
        How many epochs there are to be, and how many batches an epoch has.
    epoch, batch : int
        Epochs done, and batches done in the epoch at hand.
    means : dict of name to RunningMean
        Loss and metrics of the epoch at hand.
    rng_of_order : dict or None
        State of the model's generator before it drew the order of the epoch at hand.
    unit : str
        What a progress bar counts.
    """

    unit = "batch"

    def __init__(
        self,
        model: Model,
        xs: Array,
        ts: Array,
        *,
        epochs: int,
        batch_size: int,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[Array, Array] | None = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        verbose: int | str = "auto",
    ) -> None:
        self.model = model
        self.epochs = scalars.integer("epochs", epochs, 0)
        self.batch_size = scalars.integer("batch_size", batch_size, 1)
        self.optimizer = make_optimizer(optimizer)
        self.max_grad = None if max_grad is None else scalars.positive("max_grad", max_grad)
        self.metrics = model.check_metrics(metrics)
        self.shuffle = shuffle
        validation_split = scalars.below_one("validation_split", validation_split)
        callbacks = check_callbacks(callbacks)
        xs, ts = self._checked(xs, ts)
        self.validation_data = None
        if validation_data is not None:
            self.validation_data = model.check_batch(*check_validation_data(validation_data))
            if not len(self.validation_data[0]):
                raise ValueError("validation_data has no rows; leave it out to train without validation")
        elif validation_split:
            split = len(xs) - int(len(xs) * validation_split)
            if len(xs) and split == len(xs):
                raise ValueError(
                    f"validation_split is {validation_split}, which holds out none of {len(xs)} rows; use a larger "
                    "one, or 0 to train without validation"
                )
            self.validation_data = xs[split:], ts[split:]
            xs, ts = xs[:split], ts[:split]
        model.require_targets(ts, "train on")
        if self.validation_data is not None:
            model.require_targets(self.validation_data[1], "validate on")
        self.xs, self.ts = xs, ts
        self.rows = self._placed(xs, ts)
        self.batches = -(-len(xs) // self.batch_size)

        self.epoch = 0
        self.batch = 0
        self.means: dict[str, RunningMean] = {}
        self.rng_of_order: Any = None
        self._steps: DeviceSteps | None = None
        self._last_logs: weakref.ref[BatchLogs] | None = None
        self.history = History()
        # A checkpoint holds what all other callbacks have made of the epoch, so it comes last.
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, BackupAndRestore))
        self._progress = make_progress(verbose)
        self._all_callbacks = [self._progress, *self.callbacks]
        for callback in self._all_callbacks:
            callback.model, callback.trainer = model, self
        self._before_batch = _overriding(self._all_callbacks, "on_train_batch_begin")
        self._after_batch = _overriding(self._all_callbacks, "on_train_batch_end")

    def _checked(self, xs: Array, ts: Array) -> tuple[Array, Array]:
        """The data to learn from; raises if it cannot be learned from."""
        return self.model.check_batch(xs, ts)

    def _placed(self, xs: Array, ts: Array) -> Rows:
        """The data where batches are taken from it."""
        return self.model.rows(xs, ts)

    @property
    def units_per_batch(self) -> float:
        """How many of ``unit`` a batch of the epoch at hand has, on average."""
        return 1

    @property
    def log_names(self) -> tuple[str, ...]:
        """What the loop puts into the logs of an epoch."""
        names = ("loss", *self.metrics)
        return names if self.validation_data is None else (*names, *(f"val_{name}" for name in names))

    @property
    def most_batches(self) -> int | None:
        """How many batches an epoch can have; None where that is not known before it begins."""
        return self.batches

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued."""
        return {
            "model": type(self.model).__name__,
            "options": self.model.options,
            "optimizer": type(self.optimizer).__name__,
            "batch_size": self.batch_size,
            "max_grad": self.max_grad,
            "shuffle": self.shuffle,
            "metrics": list(self.metrics),
            "crc32 of the training data": zlib.crc32(self.ts.data, zlib.crc32(self.xs.data)),
        }

    def run(self) -> History:
        """Train to the end."""
        self.model.stop_training = False
        self._check_log_names()
        try:
            with SoftInterrupt() as interrupt:
                for callback in self._all_callbacks:
                    callback.on_train_begin()
                if self.model.device == "cuda":
                    self._steps = DeviceSteps(self)
                while self.epoch < self.epochs and not self.model.stop_training:
                    self._stop_if(interrupt)  # before an epoch begins, which it would do again when it goes on
                    self._run_epoch(interrupt)
                self._stop_if(interrupt)
                for callback in self._all_callbacks:
                    callback.on_train_end()
        finally:
            if self._steps is not None:
                self._steps.close()
            for callback in self._all_callbacks:
                callback.close()
        return self.history

    def _check_log_names(self) -> None:
        for callback in self.callbacks:
            callback.check_log_names(self.log_names)
            if not str(getattr(callback.on_epoch_end, "__module__", "")).startswith("fastlstm."):
                return  # it may add to the logs that those after it see

    def _run_epoch(self, interrupt: SoftInterrupt) -> None:
        if self.batch == 0:  # else a checkpoint from the middle of the epoch is continued
            for callback in self._all_callbacks:
                callback.on_epoch_begin(self.epoch)
            self.means = {name: RunningMean() for name in ("loss", *self.metrics)}
        self.rows.reorder(self._order())
        while self.batch < self.batches:
            self._stop_if(interrupt)
            self._run_batch()
            if self.model.stop_training and self.batch < self.batches:
                return
        logs = {name: mean.value for name, mean in self.means.items()}
        if self.validation_data is not None:
            validation = self.model.evaluate(*self.validation_data, metrics=self.metrics)
            logs |= {f"val_{name}": value for name, value in validation.items()}
        epoch = self.epoch
        self.history.append(epoch, logs)
        self.epoch, self.batch, self.means, self.rng_of_order = epoch + 1, 0, {}, None
        for callback in self._all_callbacks:
            callback.on_epoch_end(epoch, logs)

    def _order(self) -> IntArray | None:
        """The order of the rows in this epoch; None as they stand."""
        if not self.shuffle:
            return None
        rng = self.model.rng
        if self.rng_of_order is None:
            self.rng_of_order = rng.bit_generator.state
            return self._draw_order(rng)
        now = rng.bit_generator.state
        rng.bit_generator.state = self.rng_of_order
        order = self._draw_order(rng)
        rng.bit_generator.state = now
        return order

    def _draw_order(self, rng: np.random.Generator) -> IntArray | None:
        return rng.permutation(len(self.xs))

    def _run_batch(self) -> None:
        batch = self.batch
        for callback in self._before_batch:
            callback.on_train_batch_begin(batch)
        self._learn(batch)
        self.batch = batch + 1
        if self._after_batch:
            # Of a model on a GPU they are read when somebody asks for them, and waited for.
            read_later = BatchLogs(self.means)
            logs: Mapping[str, float] = read_later
            if self.model.device == "cpu":
                logs = dict(read_later)
            else:
                self._last_logs = weakref.ref(read_later)
            for callback in self._after_batch:
                callback.on_train_batch_end(batch, logs)

    def _learn(self, batch: int) -> None:
        """One step of the optimiser; loss and metrics are added to ``means``."""
        self._begin_step(batch)
        inputs = self._inputs(batch)
        if self._steps is None:
            self.step(inputs, self.means)
            return
        if self._last_logs is not None:
            logs = self._last_logs()
            if logs is not None:  # somebody has kept them
                logs.detach()
            self._last_logs = None
        self._steps.run(inputs)

    def _begin_step(self, batch: int) -> None:
        """What of a step is the host's alone."""

    def _inputs(self, batch: int) -> tuple[Array, ...]:
        """The rows of a batch."""
        start = batch * self.batch_size
        return self.rows.batch(start, start + self.batch_size)

    def step(self, inputs: tuple[Array, ...], means: Means) -> None:
        """One step of the optimiser on a batch; loss and metrics are added to ``means``.

        On a GPU it may be captured into a graph that is run for many batches: what it takes from the host, beside the
        seeds and the learning rate, has to be the same for all of them.
        """
        model = self.model
        loss = model.forward(*inputs)
        model.backward()
        add_batch(means, model, loss, self.metrics)  # of the weights that made the loss
        self.optimizer.update(model.params, model.grads, max_norm=self.max_grad)

    def captured(self) -> tuple[Any, ...]:
        """What a captured step has been captured with: it is another step once this is not the same."""
        model = self.model
        arrays = tuple(id(array) for arrays in (model.params, model.grads) for array in arrays)
        dropouts = tuple((layer.dropout_ratio, id(layer._rng)) for layer in _dropouts(vars(model).values()))
        precisions = tuple(layer.precision for layer in model.layers.values())
        return (*arrays, *dropouts, *precisions, id(model.rng), self.max_grad, self.metrics, *self.optimizer.captured())

    def _stop_if(self, interrupt: SoftInterrupt) -> None:
        if interrupt.asked:
            for callback in self._all_callbacks:
                callback.on_interrupt()
            raise KeyboardInterrupt


def check_callbacks(callbacks: Any) -> Sequence[Callback]:
    """The callbacks as a sequence; raises if something among them is none."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {describe(callbacks)}, expected a sequence of callbacks, () for none")
    listed = tuple(callbacks)
    for i, callback in enumerate(listed):
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{i}] is {describe(callback)}, expected an object of fastlstm.callbacks, or of a class "
                "derived from its Callback"
            )
    return listed


def check_validation_data(validation_data: Any) -> Sequence[Any]:
    """The arguments of ``Model.check_batch``; raises unless there are at least two."""
    if not isinstance(validation_data, (tuple, list)):
        raise TypeError(f"validation_data is {describe(validation_data)}, expected (xs, ts)")
    if len(validation_data) < 2:
        raise ValueError(f"validation_data has {len(validation_data)} entries, expected (xs, ts)")
    return validation_data


class BatchLogs(Mapping[str, float]):
    """Loss and metrics of the epoch so far, each read when it is asked for."""

    def __init__(self, means: Mapping[str, RunningMean]) -> None:
        self._means = {name: mean.copy() for name, mean in means.items()}

    def detach(self) -> None:
        """Keep the numbers of now."""
        for mean in self._means.values():
            mean.detach()

    def __getitem__(self, name: str) -> float:
        return self._means[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._means)

    def __len__(self) -> int:
        return len(self._means)


def _dropouts(values: Iterable[Any]) -> Iterator[TimeDropout]:
    """Those that a model has as attributes, or in lists."""
    for value in values:
        if isinstance(value, TimeDropout):
            yield value
        elif isinstance(value, list):
            yield from _dropouts(value)


def _overriding(callbacks: Sequence[Callback], method: str) -> list[Callback]:
    """Those that do something in ``method``: the others cost nothing in every batch."""
    return [
        callback for callback in callbacks if getattr(callback, method) != getattr(Callback, method).__get__(callback)
    ]
