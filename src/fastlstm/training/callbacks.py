"""Callbacks with Keras's names and meanings."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastlstm.contract import FloatArray
from fastlstm.distributed.workers import wait_for_all
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe
from fastlstm.ops.device import to_device
from fastlstm.tensor_file import make_folder, make_place, write_atomically
from fastlstm.training.callback import Callback, Logs, takes
from fastlstm.training.checkpoint import load_checkpoint, save_checkpoint
from fastlstm.training.event_file import EventWriter
from fastlstm.training.progress import say

Mode = Literal["auto", "min", "max"]


class LambdaCallback(Callback):
    """Callbacks from functions, with the arguments of the methods of `Callback`."""

    def __init__(
        self,
        on_epoch_begin: Callable[[int], Any] | None = None,
        on_epoch_end: Callable[[int, Logs], Any] | None = None,
        on_train_begin: Callable[[], Any] | None = None,
        on_train_end: Callable[[], Any] | None = None,
        on_train_batch_begin: Callable[[int], Any] | None = None,
        on_train_batch_end: Callable[[int, Logs], Any] | None = None,
    ) -> None:
        super().__init__()
        for name, function in list(locals().items()):
            if name.startswith("on_") and function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends the training as soon as the loss is NaN or infinite, and says where.

    Of a model on a GPU, it looks after every 50th batch and at the end of an epoch.
    """

    batches_between_looks = 50  # on a GPU; what is NaN once stays so in the epoch's mean

    def __init__(self) -> None:
        super().__init__()
        self.message: str | None = None

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        trainer = self.trainer
        is_last = batch + 1 == trainer.batches
        if self.model.device == "cpu" or is_last or (batch + 1) % self.batches_between_looks == 0:
            self._look(batch, logs)

    def _look(self, batch: int, logs: Logs) -> None:
        # The mean of an epoch of which nothing has counted yet is NaN too.
        if not math.isfinite(logs["loss"]) and self.trainer.means["loss"].count:
            self.message = (
                f"the loss became {logs['loss']} in epoch {self.trainer.epoch + 1}, batch {batch + 1}; training "
                "stopped. A smaller learning rate or a smaller max_grad may help"
            )
            if self.trainer.writes_files:
                print(self.message, file=sys.stderr)
            self.model.stop_training = True


class CSVLogger(Callback):
    """Writes every finished epoch into a CSV file; epochs count from 1.

    Parameters
    ----------
    filename : path
        The folders above it are made when training begins.
    separator : str
        One character.
    append : bool
        Keep what the file held before. A resumed training never needs it: its earlier epochs are written again.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        if not isinstance(separator, str) or len(separator) != 1 or separator in '\r\n"':
            raise ValueError(f"separator is {separator!r}, expected one character such as ',' or ';'")
        self.path = Path(filename)
        self.separator = separator
        self.append = append
        self._before = ""

    def on_train_begin(self) -> None:
        if self.trainer.writes_files:
            make_place(self.path)
            self._before = self.path.read_text() if self.append and self.path.exists() else ""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002, the history holds them all
        if not self.trainer.writes_files:
            return
        lines = self.trainer.history.to_csv(self.separator)
        if self._before:
            lines = lines.partition("\n")[2]
        write_atomically(self.path, (self._before + lines).encode())


class TensorBoard(Callback):
    """Writes loss, metrics and learning rate where TensorBoard reads them; it needs neither TensorFlow nor TensorBoard.

    As Keras does, it writes into the folders "train" and "validation", epochs counted from 0: "epoch_loss",
    "epoch_learning_rate" ... Show them with ``tensorboard --logdir LOG_DIR``.

    Parameters
    ----------
    log_dir : path
        Made when training begins.
    update_freq : "epoch", "batch" or int
        Besides, after every batch or every so many: "batch_loss" ..., averaged since the epoch began.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] = "logs", *, update_freq: Literal["epoch", "batch"] | int = "epoch"
    ) -> None:
        super().__init__()
        self.log_dir = Path(log_dir)
        if update_freq == "batch":
            update_freq = 1
        if update_freq != "epoch" and (not isinstance(update_freq, int) or update_freq < 1):
            raise ValueError(f"update_freq is {update_freq!r}, expected 'epoch', 'batch' or a number of batches")
        self.update_freq = update_freq
        self._writers: dict[str, EventWriter] = {}

    def on_train_begin(self) -> None:
        for part in self._parts():
            make_folder(self.log_dir / part)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        step = self.trainer.epoch * self.trainer.batches + batch
        if self.update_freq != "epoch" and (step + 1) % self.update_freq == 0:
            self._write("train", {f"batch_{name}": value for name, value in logs.items()}, step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        training = {f"epoch_{name}": value for name, value in logs.items() if not name.startswith("val_")}
        self._write("train", {**training, "epoch_learning_rate": self.trainer.optimizer.lr}, epoch)
        validation = {f"epoch_{name[4:]}": value for name, value in logs.items() if name.startswith("val_")}
        if validation:
            self._write("validation", validation, epoch)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _parts(self) -> tuple[str, ...]:
        """The folders that this worker writes into."""
        if not self.trainer.writes_files:
            return ()
        return ("train",) if self.trainer.validation_data is None else ("train", "validation")

    def _write(self, part: str, values: Logs, step: int) -> None:
        if part not in self._parts():
            return
        if part not in self._writers:
            self._writers[part] = EventWriter(self.log_dir / part)
        self._writers[part].write(values, step)


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch: ``lr = schedule(epoch, lr)``, epochs counted from 0.

    As in Keras, a schedule of one argument is given the epoch alone.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"schedule is {describe(schedule)}, expected a function: schedule(epoch, lr)")
        self._knows_lr = takes(schedule, "epoch", "lr")
        if not self._knows_lr and not takes(schedule, "epoch"):
            raise TypeError(f"schedule{signature(schedule)} is called with (epoch, lr), or with (epoch)")
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int) -> None:
        given = (epoch, self.trainer.optimizer.lr) if self._knows_lr else (epoch,)
        lr = float(self.schedule(*given))
        self.trainer.optimizer.lr = lr
        if self.verbose and self.trainer.writes_files:
            say(f"epoch {epoch + 1}: learning rate {lr:g}")


class _Monitor(Callback):
    """Watches one number of the epochs' logs."""

    def __init__(self, monitor: str, mode: Mode, min_delta: float) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode is {mode!r}, expected 'auto', 'min' or 'max'")
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" or (mode == "auto" and "acc" in monitor) else -1.0
        self.min_delta = abs(scalars.real("min_delta", min_delta))

    def check_log_names(self, names: Sequence[str]) -> None:
        self.value(dict.fromkeys(names, 0.0))

    def check_state(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            if value is None if name != "best" else not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{name} of {type(self).__name__} is {describe(value)}, which it cannot be")

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another, or than none; what has diverged is never better."""
        if not math.isfinite(value):
            return False
        return than is None or self.sign * (value - than) > self.min_delta

    def value(self, logs: Logs) -> float:
        if self.monitor not in logs:
            raise ValueError(
                f"{type(self).__name__} watches {self.monitor!r}, but the training has only {', '.join(logs)}; "
                "val_ numbers need validation_split or validation_data"
            )
        return logs[self.monitor]


class EarlyStopping(_Monitor):
    """Ends the training when a number has not become better for ``patience`` epochs.

    Parameters
    ----------
    monitor, min_delta, patience, mode, baseline, restore_best_weights, start_from_epoch
        As in Keras.
    verbose : 0 or 1
    tie_breaker : str, optional
        Of epochs with the same number, the best is the one where this one is smallest: "val_loss", where few examples
        are validated on and "val_error" takes few values. It does not count against patience. Without it the first.
    """

    state_names: ClassVar[tuple[str, ...]] = ("wait", "best", "best_epoch", "stopped_epoch", "best_weights")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: float = 0,
        verbose: int = 0,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
        tie_breaker: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = scalars.real("patience", patience)
        self.verbose = verbose
        self.tie_breaker = tie_breaker
        self.baseline = None if baseline is None else scalars.real("baseline", baseline)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = scalars.integer("start_from_epoch", start_from_epoch)
        self.on_train_begin()

    def check_log_names(self, names: Sequence[str]) -> None:
        super().check_log_names(names)
        if self.tie_breaker is not None and self.tie_breaker not in names:
            raise ValueError(
                f"EarlyStopping breaks ties by {self.tie_breaker!r}, but the training has only {', '.join(names)}"
            )

    def on_train_begin(self) -> None:
        self.wait = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.stopped_epoch = 0
        self.best_weights: list[FloatArray] = []

    def check_state(self, state: Mapping[str, Any]) -> None:
        super().check_state(state)
        saved = [(array.shape, array.dtype) for array in state["best_weights"]]
        if saved and saved != [(param.shape, param.dtype) for param in self.model.params]:
            raise ValueError("best_weights of EarlyStopping do not fit the model's weights")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = self.value(logs)
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        better = self.better(value, self.best)
        if better or self._wins_tie(value, logs):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = [param.copy() for param in self.model.params]
        if better:
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _wins_tie(self, value: float, logs: Logs) -> bool:
        """Whether an epoch is as good as the best one, and better by the tie breaker, which the history has of both."""
        if self.tie_breaker is None or value != self.best:
            return False
        history = self.trainer.history
        return logs[self.tie_breaker] < history.history[self.tie_breaker][history.epoch.index(self.best_epoch)]

    def on_train_end(self) -> None:
        if self.stopped_epoch and self.verbose and self.trainer.writes_files:
            best = "never a finite number" if self.best is None else f"best in epoch {self.best_epoch + 1}"
            print(f"epoch {self.stopped_epoch + 1}: {self.monitor} was {best}; stopped")
        if self.best_weights:
            for param, weights in zip(self.model.params, self.best_weights, strict=True):
                param[...] = to_device(weights, self.model.device)


class ReduceLROnPlateau(_Monitor):
    """Multiplies the learning rate by ``factor`` when a number has not become better for ``patience`` epochs.

    Parameters
    ----------
    monitor, factor, patience, mode, min_delta, cooldown, min_lr
        As in Keras.
    verbose : 0 or 1
    """

    state_names: ClassVar[tuple[str, ...]] = ("wait", "best", "cooldown_left")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor is {factor}, expected between 0 and 1")
        self.factor = factor
        self.patience = scalars.real("patience", patience)
        self.verbose = verbose
        self.cooldown = scalars.integer("cooldown", cooldown)
        self.min_lr = scalars.real("min_lr", min_lr)
        self.on_train_begin()

    def on_train_begin(self) -> None:
        self.wait = 0
        self.best: float | None = None
        self.cooldown_left = 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = self.value(logs)
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_left == 0:
            self.wait += 1
            optimizer = self.trainer.optimizer
            if self.wait >= self.patience and optimizer.lr > self.min_lr:
                optimizer.lr = max(optimizer.lr * self.factor, self.min_lr)
                self.cooldown_left, self.wait = self.cooldown, 0
                if self.verbose and self.trainer.writes_files:
                    say(f"epoch {epoch + 1}: {self.monitor} stands still; learning rate {optimizer.lr:g}")


class ModelCheckpoint(_Monitor):
    """Saves the model every ``period`` epochs, or whenever a number is the best so far.

    Parameters
    ----------
    filepath : path
        May hold fields such as "{epoch:02d}-{val_loss:.3f}"; epochs count from 1. Folders are made as they are needed.
    monitor, verbose, save_best_only, mode
        As in Keras.
    period : int
        Epochs between two savings.
    """

    state_names: ClassVar[tuple[str, ...]] = ("best",)

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        mode: Mode = "auto",
        period: int = 1,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.period = scalars.integer("period", period, 1)
        self.best: float | None = None

    def check_log_names(self, names: Sequence[str]) -> None:
        if self.save_best_only:
            super().check_log_names(names)
        self._path(0, dict.fromkeys(names, 0.0))

    def on_train_begin(self) -> None:
        if not self.trainer.writes_files:
            return
        before_fields = re.split("[{}]", self.filepath)[0]
        if before_fields == self.filepath:
            make_place(self.filepath)
        else:
            make_folder(os.path.dirname(before_fields))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.period:
            return
        if self.save_best_only:
            value = self.value(logs)
            if not self.better(value, self.best):
                return
            self.best = value
        path = self._path(epoch, logs)
        if self.trainer.writes_files:
            os.makedirs(os.path.dirname(os.path.realpath(path)), exist_ok=True)
            self.model.save(path)
        wait_for_all(self.trainer.workers)
        if self.verbose and self.trainer.writes_files:
            print(f"epoch {epoch + 1}: saved {path}")

    def _path(self, epoch: int, logs: Logs) -> str:
        try:
            return self.filepath.format(epoch=epoch + 1, **logs)
        except LookupError as error:
            raise ValueError(
                f"ModelCheckpoint's filepath is {self.filepath!r}, but the training has only epoch, {', '.join(logs)}: "
                f"no {error}"
            ) from None
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"ModelCheckpoint's filepath is {self.filepath!r}, which is no format: {error}") from None


class BackupAndRestore(Callback):
    """Keeps a checkpoint of the whole training; a new ``fit`` with it goes on where the last one was interrupted.

    Ctrl-C writes one too, in the middle of an epoch. A resumed training ends with the same bits as one that was never
    interrupted. A checkpoint that cannot be written, on a full disk for instance, leaves the one before as it is.

    Parameters
    ----------
    filepath : path
        The checkpoint file. The folders above it are made when training begins.
    save_freq : "epoch" or int
        Write a checkpoint after every epoch, or, as in Keras, after every so many batches.
    delete_checkpoint : bool
        Remove the file when training is done.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        save_freq: Literal["epoch"] | int = "epoch",
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(f"save_freq is {save_freq!r}, expected 'epoch' or a number of batches, at least 1")
        self.path = Path(filepath)
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint

    def on_train_begin(self) -> None:
        if self.trainer.writes_files:
            make_place(self.path)
        if self.path.exists():
            load_checkpoint(self.path, self.trainer)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:  # noqa: ARG002
        if self.save_freq == "epoch" or self.model.stop_training:
            return
        if (self.trainer.epoch * self.trainer.batches + batch + 1) % self.save_freq == 0:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002
        if self.save_freq == "epoch":
            self._save()

    def on_interrupt(self) -> None:
        self._save()

    def _save(self) -> None:
        """Write a checkpoint; no worker goes on before it is on the disk."""
        if self.trainer.writes_files:
            save_checkpoint(self.path, self.trainer)
        wait_for_all(self.trainer.workers)

    def on_train_end(self) -> None:
        if self.delete_checkpoint and self.trainer.writes_files:
            self.path.unlink(missing_ok=True)
