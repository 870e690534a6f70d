"""What the trainings of the command line share: how a run begins, goes on after an interruption, learns and ends."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

import fastlstm
from fastlstm.backends import check_can_run
from fastlstm.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, TensorBoard, TerminateOnNaN
from fastlstm.cli import going_on, run_folder, worker
from fastlstm.cli.option_types import COUNT, SEED
from fastlstm.cli.plots import Pictures, can_draw, has_matplotlib
from fastlstm.cli.task import Initial, RunOptions, Task
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.distributed.workers import wait_for_all
from fastlstm.models import Word2Vec
from fastlstm.models.memory import check_room
from fastlstm.ops.device import to_host
from fastlstm.optim import Adam, Optimizer, make_optimizer
from fastlstm.tensor_file import locked_folder, read_tensor_file

if TYPE_CHECKING:
    from fastlstm.models import Model
    from fastlstm.training import OptimizerLike

RunOptionsT = TypeVar("RunOptionsT", bound=RunOptions)


def add_run_options(
    parser: argparse.ArgumentParser, task: str, *, precision: bool = True, files: str | None = "a file like --data"
) -> None:
    """The options that all trainings have; files: what --validation and --test are, None where there are none."""
    add = parser.add_argument
    add("--patience", type=COUNT, metavar="EPOCHS", help="end when validation has not got better for so many")
    if files is not None:
        add("--validation", metavar="FILE", help=f"validate on {files}, in the place of a part that is held out")
        add("--test", metavar="FILE", help=f"test the finished model on {files}")
    add("--tensorboard", action="store_true", default=None, help="write what TensorBoard shows into the run folder")
    add("--seed", type=SEED, help=f"default {RunOptions.seed}; the same seed gives the same bits")
    add("--device", choices=("cpu", "cuda"), help="cuda trains on a GPU; default cpu")
    if precision:
        add("--precision", choices=("tf32", "bf16"), help="of products, tf32 on a GPU only; default exact")
    add("--threads", type=COUNT, help="default: all cores, which workers on one machine share")
    add("--workers", choices=("mpi",), help="train on all processes that mpiexec has started")
    add("--shards", type=COUNT, help="pieces of a batch for workers to share out, at least one each; default 1")
    add("--grad-precision", choices=("bf16",), help="of gradients between workers, half of the bytes; default exact")
    add("--out", metavar="DIR", help=f"run folder to make; default runs/{task}-1, -2 ...")
    add("--init-from", metavar="RUN", help="begin with the weights of another run, and with its vocabulary")
    add(
        "--resume",
        metavar="RUN",
        help="go on with a run, with the options it had: an interrupted one, or with --epochs N a finished one to a "
        "total of N",
    )
    add("--quiet", action="store_true", help="print the result only")


def run(args: argparse.Namespace, task: Task) -> int:
    """Begin a run in a new folder, or go on with the one of ``--resume``; returns the exit code.

    Parameters
    ----------
    args : Namespace
        What was typed: the fields of the task's options, threads, workers, out, resume, init_from, quiet.
    task : module
    """
    given = run_folder.given_options(args, task.Options)
    if args.threads is not None:
        fastlstm.set_num_threads(args.threads)
    workers = worker.start(args.workers, args.threads)
    if args.resume is not None:
        return _resume(args, task, given)
    run_folder.check_out(args.out)
    initial = None
    if args.init_from is not None:
        initial = going_on.check_source(Path(args.init_from), task)
        given = going_on.inherited(given, initial.folder, task)
    options = _with_found_files(task.resolve(given))
    check_can_train(options)
    prepared = task.prepare(options, initial)
    wait_for_all(workers)
    with worker.in_folder(run_folder.new_run_folder(args.out, task.TASK)) as folder:
        write_config(folder, task.TASK, options, **task.describe(prepared))
        if initial is not None and worker.is_first():
            going_on.copy_models(initial.folder, folder)
        return _train(task, folder, options, prepared, args.quiet)


def _resume(args: argparse.Namespace, task: Task, given: dict[str, Any]) -> int:
    epochs = given.pop("epochs", None)
    if given or args.out is not None:
        raise ValueError(
            "--resume goes on with the options the run had; only --epochs, --threads, --workers and --quiet go with it"
        )
    folder = Path(args.resume)
    options = run_folder.read_options(folder, task.TASK, task.Options)
    if epochs in (None, options.epochs) and is_finished(folder, task.TASK, task.files(options)):
        more = "; --epochs N goes on to a total of N" if epochs is None else ""
        raise ValueError(f"{folder} is finished; there is nothing to go on with{more}")
    check_can_train(options)
    said = None
    wait_for_all(worker.workers())  # all have seen the folder as it was
    if epochs is not None:
        if worker.is_first():
            with locked_folder(folder):
                said = going_on.lengthen(folder, task, options, epochs)
        options = dataclasses.replace(options, epochs=epochs)
        wait_for_all(worker.workers())
    if said is not None:
        print(f"fastlstm: {said}", file=sys.stderr)
    initial = None if options.init_from is None else Initial(folder, is_copied=True)
    return _train(task, folder, options, task.prepare(options, initial), args.quiet)


def _train(task: Task, folder: Path, options: Any, prepared: Any, quiet: bool) -> int:
    try:
        with locked_folder(folder) if worker.is_first() else contextlib.nullcontext():
            return task.train(folder, options, prepared, quiet)
    except BrokenPipeError:
        if any(folder.rglob(run_folder.CHECKPOINT)):
            again = f"fastlstm train {task.TASK} --resume {folder}"
            print(f"stopped, for nobody reads the output any more; go on with: {again}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: fastlstm train {task.TASK} --resume {folder}") from None


def _with_found_files(options: RunOptionsT) -> RunOptionsT:
    """The options with the files as seen from anywhere: the run may be resumed from another folder."""
    found: dict[str, Any] = {
        name: from_anywhere(find_file(file, WHERE_TO_GET_TEXT))
        for name in ("validation", "test")
        if (file := getattr(options, name)) is not None
    }
    return dataclasses.replace(options, **found)


def is_finished(folder: Path, task: str, files: Sequence[str]) -> bool:
    """Whether a run has its result and all its files, pictures where they can be drawn."""
    if "result" not in run_folder.read_config(folder, task):
        return False
    expected = files if has_matplotlib() else [name for name in files if not name.endswith(".png")]
    return all((folder / name).exists() for name in expected)


def check_can_train(options: RunOptions) -> None:
    """Raises an error, before anything is written, if device or workers cannot run here as the options say."""
    worker.workers().shards_of_mine(options.shards)
    if options.grad_precision is not None and options.shards == 1:
        raise ValueError(
            f"--grad-precision {options.grad_precision} is for the gradients of shards: give --shards too, at least as "
            "many as there are workers"
        )
    if options.shards > 1 and options.device != "cpu":
        raise ValueError(f"--shards {options.shards} trains on the processor; leave --device {options.device} out")
    if options.device == "cuda":
        check_can_run("cuda")
    elif options.precision == "tf32":
        raise ValueError("--precision tf32 needs --device cuda: on the processor it is bf16, or exact without")


def check_patience(options: RunOptions, has_validation: bool, how: str) -> None:
    """Raises if --patience is to look at a validation that is not there."""
    if options.patience is not None and not has_validation:
        raise ValueError(f"--patience {options.patience} needs something to validate on: {how}")


def write_config(folder: Path, task: str, options: RunOptions, **entries: Any) -> None:
    run_folder.write_config(folder, task, options=dataclasses.asdict(options), **entries)


class Learned(NamedTuple):
    """What a training was.

    Attributes
    ----------
    history : dict of name to list
        Of each metric, an entry an epoch.
    seconds : float or None
        How long it took; None if the model was there already.
    code : int
        Exit code: 1 if it diverged, so that a number of the last epoch is infinite or NaN, else 0.
    best : int
        The epoch, from 0, whose weights the model has.
    """

    history: dict[str, list[float]]
    seconds: float | None
    code: int
    best: int

    @property
    def epochs(self) -> int:
        """How many epochs there were."""
        return len(self.history["loss"])

    @property
    def took(self) -> str:
        """How long it took, for people."""
        return "learned before" if self.seconds is None else f"{self.seconds:.1f} s"

    @property
    def told(self) -> str:
        """Epochs and time, for people."""
        counts = "" if self.best == self.epochs - 1 else f", of which {self.best + 1} was the best and counts"
        return f"{self.epochs} epochs{counts}, {self.took}"


def learn(
    model: Model,
    *data: Any,
    options: RunOptions,
    folder: Path,
    quiet: bool,
    optimizer: OptimizerLike = "adam",
    shared_epochs: int,
    monitor: str | None = None,
    best_counts: bool = False,
    callbacks: Sequence[Callback] = (),
    schedule: Sequence[Callback] = (),
    **arguments: Any,
) -> Learned | None:
    """``model.fit`` as the options say; None, and no model's file, if the loss is NaN or infinite.

    There is a checkpoint in the folder while it learns, from which it goes on if there was one. If the model's file is
    there, the model is read from it.

    Parameters
    ----------
    shared_epochs : int
        How many of the first epochs longer trainings have in common with this one.
    monitor : str, optional
        Of the epochs' numbers that by which the best one is known, in the end and for ``options.patience``; of equal
        ones that with the smallest "val_loss".
    best_counts : bool
        In the end the model has the weights of the best epoch, without a patience too.
    callbacks, schedule : sequences of callbacks
        The latter change the learning rate.
    arguments
        Of ``fit``.
    """
    file = folder / run_folder.MODEL
    device, precision = options.device, options.precision
    stops_early = monitor is not None and (best_counts or options.patience is not None)
    seconds = None
    if file.exists():
        model = _read_into(model, file).to(device, precision=precision)
        history = run_folder.read_history(folder)
    else:
        optimizer = make_optimizer(optimizer)
        if device == "cpu":
            _check_room(model, optimizer)
        model.to(device, precision=precision)
        nan_guard = TerminateOnNaN()
        stop: list[Callback] = []
        if monitor is not None and stops_early:
            # Without a patience it never ends: however many epochs there are to be, the same ones come first.
            patience = math.inf if options.patience is None else options.patience
            stop = [EarlyStopping(monitor, patience=patience, restore_best_weights=True, tie_breaker="val_loss")]
        board = [TensorBoard(folder / run_folder.TENSORBOARD)] if options.tensorboard else []
        since = time.perf_counter()
        history = model.fit(
            *data,
            epochs=options.epochs,
            optimizer=optimizer,
            callbacks=[
                nan_guard,
                *board,
                *callbacks,
                RatesAndSeconds(),
                *schedule,
                CSVLogger(folder / run_folder.HISTORY),
                *stop,
                RunCheckpoint(folder, shared_epochs),
            ],
            verbose=0 if quiet else "auto",
            workers=worker.workers(),
            shards=options.shards,
            grad_precision=options.grad_precision,
            **arguments,
        ).history
        seconds = time.perf_counter() - since
        if nan_guard.message is not None:
            return None
    code = _tell_divergence(history, model)
    epochs = len(history["loss"])
    if not epochs or not math.isfinite(history["loss"][-1]):
        return None
    if worker.is_first():
        if seconds is not None:
            model.save(file)
        going_on.settle(folder, shared_epochs, epochs)
    wait_for_all(worker.workers())
    best = None
    if monitor is not None and stops_early:
        best = run_folder.best_epoch(history[monitor], history["val_loss"], largest="acc" in monitor)
    return Learned(history, seconds, code, epochs - 1 if best is None else best)


class RatesAndSeconds(Callback):
    """Adds to the history the learning rate that each epoch ended with, and how long it took.

    An epoch that was interrupted took as long as after it went on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0

    def on_train_begin(self) -> None:
        self._since = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:  # noqa: ARG002
        now = time.perf_counter()
        history = self.trainer.history.history
        for name, value in {"learning_rate": self.trainer.optimizer.lr, "seconds": now - self._since}.items():
            values = history.setdefault(name, [])
            values += [math.nan] * (epoch - len(values))  # of epochs that an earlier version has learned
            values.append(value)
        self._since = now


class RunCheckpoint(BackupAndRestore):
    """The checkpoint of a run, and one after the epochs that longer runs have in common with it."""

    def __init__(self, folder: Path, shared_epochs: int) -> None:
        super().__init__(folder / run_folder.CHECKPOINT, delete_checkpoint=False)
        self._folder = folder
        self._shared_epochs = shared_epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        super().on_epoch_end(epoch, logs)
        if epoch + 1 == self._shared_epochs < self.trainer.epochs and self.trainer.writes_files:
            going_on.keep_shared(self._folder)


def _read_into(model: Model, file: Path) -> Model:
    """The model with the weights of a file."""
    tensors, _ = read_tensor_file(file)
    model.set_weights(tensors, str(file))
    return model


def _check_room(model: Model, optimizer: Optimizer) -> None:
    """Raises MemoryError if there is no room for the gradients and the optimiser's state."""
    arrays = len(optimizer.slot_names) + (not isinstance(model, Word2Vec))  # whose gradients are a few rows
    needed = arrays * sum(param.nbytes for param in model.params)
    check_room(f"learning {model.num_parameters:,} parameters (their gradients, and what the optimiser keeps)", needed)


def _tell_divergence(history: Mapping[str, Sequence[float]], model: Model) -> int:
    """1 if a number of the last epoch or a weight is infinite or NaN, and a line on stderr says which; else 0."""
    wrong = [
        f"{name} is {values[-1]} in epoch {len(values)}"
        for name, values in history.items()
        if not math.isfinite(values[-1])
    ]
    wrong += [
        f"{name} has weights that are not finite"
        for name, param in model.named_parameters()
        if not np.isfinite(to_host(param)).all()
    ]
    if wrong and worker.is_first():
        print(
            f"fastlstm: the training diverged: {wrong[0]}. A smaller learning rate or a smaller max_grad may help",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def begin_with(model: Model, initial: Model) -> None:
    """Give a new model the weights of another; raises unless it has the same vocabularies and shapes."""
    for name in model.vocabulary_names:
        if name != "word_counts" and getattr(model, name) != getattr(initial, name):
            raise ValueError(f"the model of --init-from has another {name.replace('_', ' ')} than these data")
    model.set_weights(dict(initial.named_parameters()), "the model of --init-from")


def learning_rate(epoch: int, epochs: int, start: float = Adam().lr) -> float:
    """The rate to start with, Adam's usual one; in the last two fifths it falls linearly.

    At a constant rate the accuracy falls back by several percent in one epoch out of four, maybe in the last.
    """
    return start * min(1.0, (epochs - epoch) / (0.4 * epochs))


def epochs_at_full_rate(epochs: int) -> int:
    """Before `learning_rate` falls: a longer training has them in common."""
    return sum(learning_rate(epoch, epochs, 1.0) == 1.0 for epoch in range(epochs))


def finish(folder: Path, code: int, pictures: Pictures) -> int:
    """Draw the pictures, say where everything is, and return the exit code: that of the training, or 1."""
    if not worker.is_first():
        return code
    code = draw(folder, pictures) or code
    print(f"run folder: {folder}")
    return code


def draw(folder: Path, pictures: Pictures) -> int:
    """Draw pictures of a run into its folder, and return 0, or 1 if there was one that could not be drawn.

    Of such a picture a line on stderr tells, whatever the reason: the model is saved, and the other pictures are drawn.
    """
    code = 0
    for name, draw_into in pictures.items() if can_draw(folder) else ():
        try:
            draw_into(folder / name)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            print(
                f"fastlstm: {folder / name} could not be drawn: {' '.join(str(reason).split())}. The model is saved; "
                f"to draw it: fastlstm plot {folder}",
                file=sys.stderr,
            )
            code = 1
    return code
