"""What ``fit`` shows while it runs: nothing, a progress bar, or a line an epoch."""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastlstm.training.callback import Callback

Item = TypeVar("Item")


def make_progress(verbose: int | str) -> Callback:
    """The callback for ``verbose``: 0 silent, 1 a bar, 2 a line an epoch, "auto" a bar on a terminal and else lines."""
    return (Callback, ProgressBar, EpochLines)[checked_verbose(verbose)]()


def checked_verbose(verbose: int | str) -> int:
    """0, 1 or 2, which is what "auto" is without a terminal."""
    if verbose == "auto":
        return 1 if sys.stderr.isatty() else 2
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose is {verbose!r}, expected 0, 1, 2 or 'auto'")
    return int(verbose)


def shown(batches: Iterable[Item], verbose: int | str) -> Iterable[Item]:
    """The batches; with ``verbose`` of 1 a bar shows how many have been taken."""
    if checked_verbose(verbose) != 1:
        return batches
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(batches, unit="batch", total=operator.length_hint(batches) or None, dynamic_ncols=True)
    return bar


def epoch_line(epoch: int, epochs: int, logs: Mapping[str, float]) -> str:
    return f"epoch {epoch + 1}/{epochs}  {numbers_line(logs)}"


def numbers_line(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())


def say(line: str = "") -> None:
    """Print a line to stdout without tearing a progress bar apart."""
    from tqdm import tqdm

    tqdm.write(line)
    sys.stdout.flush()


class _Rates:
    """The learning rate of each epoch that had another one than the epoch before."""

    def __init__(self) -> None:
        self._last: float | None = None

    def told(self, lr: float) -> str:
        changed, self._last = self._last not in (None, lr), lr
        return f"  learning rate {lr:.3g}" if changed else ""


class ProgressBar(Callback):
    """One bar for the whole training, with the loss so far in the epoch and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._read_at = 0.0
        self._rates = _Rates()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        trainer = self.trainer
        if self._bar is None:
            from tqdm import tqdm

            unit, step = trainer.source.unit, trainer.source.units_per_batch
            done, total = trainer.epoch * trainer.batches + batch, trainer.epochs * trainer.batches
            if unit != "batch":
                done, total = round(done * step), round(total * step)
            self._bar = tqdm(total=total, initial=done, unit=unit, unit_scale=unit != "batch", dynamic_ncols=True)
        if batch == 0 and trainer.source.unit == "batch":
            self._bar.total = trainer.epochs * trainer.batches  # the first epoch may have told how many there are
        if batch == 0 or not self._bar.desc:
            self._bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.epochs}", refresh=False)
        # The loss of a model on a GPU has to be waited for, so it is read no more often than it is shown.
        now = time.perf_counter()
        if self.model.device == "cpu" or now - self._read_at > self._bar.mininterval:
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)
            self._read_at = now
        self._bar.update(trainer.source.units_per_batch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        say(epoch_line(epoch, self.trainer.epochs, logs) + self._rates.told(self.trainer.optimizer.lr))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class EpochLines(Callback):
    """A line an epoch, with its seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._since = time.perf_counter()
        self._rates = _Rates()

    def on_train_begin(self) -> None:
        self._since = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        now = time.perf_counter()
        rate = self._rates.told(self.trainer.optimizer.lr)
        say(f"{epoch_line(epoch, self.trainer.epochs, logs)}{rate}  {now - self._since:.1f} s")
        self._since = now
