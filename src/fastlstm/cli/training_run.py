"""What the trainings of the command line share: how a run begins, goes on after an interruption, learns and ends."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

import fastlstm
from fastlstm.backends import check_can_run
from fastlstm.callbacks import BackupAndRestore, Callback, TerminateOnNaN
from fastlstm.cli import run_folder, worker
from fastlstm.cli.option_types import COUNT, SEED
from fastlstm.cli.plots import Pictures, can_draw, has_matplotlib
from fastlstm.contract import Precision
from fastlstm.distributed.workers import wait_for_all
from fastlstm.models import Word2Vec
from fastlstm.models.memory import check_room
from fastlstm.ops.device import Device, to_host
from fastlstm.optim import Adam, Optimizer, make_optimizer
from fastlstm.tensor_file import locked_folder, read_tensor_file

if TYPE_CHECKING:
    from fastlstm.models import Model
    from fastlstm.training import OptimizerLike

Options = TypeVar("Options")
Prepared = TypeVar("Prepared")


def add_run_options(parser: argparse.ArgumentParser, task: str, seed: int, *, precision: bool = True) -> None:
    """The options that all trainings have; seed: the default one."""
    add = parser.add_argument
    add("--seed", type=SEED, help=f"default {seed}; the same seed gives the same bits")
    add("--device", choices=("cpu", "cuda"), help="cuda trains on a GPU; default cpu")
    if precision:
        add("--precision", choices=("tf32", "bf16"), help="of products, tf32 on a GPU only; default exact")
    add("--threads", type=COUNT, help="default: all cores, which workers on one machine share")
    add("--workers", choices=("mpi",), help="train on all processes that mpiexec has started")
    add("--shards", type=COUNT, help="pieces of a batch for workers to share out, at least one each; default 1")
    add("--grad-precision", choices=("bf16",), help="of gradients between workers, half of the bytes; default exact")
    add("--out", metavar="DIR", help=f"run folder to make; default runs/{task}-1, -2 ...")
    add("--resume", metavar="RUN", help="go on with an interrupted run, with the options it had")
    add("--quiet", action="store_true", help="print the result only")


def run(
    args: argparse.Namespace,
    task: str,
    kind: type[Options],
    *,
    resolve: Callable[[dict[str, Any]], Options],
    prepare: Callable[[Options], Prepared],
    train: Callable[[Path, Options, Prepared, bool], int],
    files: Callable[[Options], Sequence[str]],
    describe: Callable[[Prepared], Mapping[str, Any]] = lambda _: {},
) -> int:
    """Begin a run in a new folder, or go on with the one of ``--resume``.

    Parameters
    ----------
    args : Namespace
        What was typed: the fields of ``kind``, threads, out, resume, quiet.
    task : str
    kind : dataclass
        The options that fix a training.
    resolve : given -> options
        The options of a new run from those that were given.
    prepare : options -> prepared
        Data and model; raises before there is a folder if something is wrong with them.
    train : (folder, options, prepared, quiet) -> exit code
        Begins, or goes on with what is in the folder.
    files : options -> names
        Of the files that a finished run has; pictures only count where they can be drawn.
    describe : prepared -> entries of config.json beside the options
    """
    given = run_folder.given_options(args, kind)
    if args.threads is not None:
        fastlstm.set_num_threads(args.threads)
    workers = worker.start(args.workers, args.threads)
    if args.resume is not None:
        run_folder.check_resume(args, given)
        folder = Path(args.resume)
        options = run_folder.read_options(folder, task, kind)
        if is_finished(folder, task, files(options)):
            raise ValueError(f"{folder} is finished; there is nothing to go on with")
        check_can_train(options)
        wait_for_all(workers)  # all have seen the folder as it was
        return _train(task, folder, lambda: train(folder, options, prepare(options), args.quiet))
    run_folder.check_out(args.out)
    options = resolve(given)
    check_can_train(options)
    prepared = prepare(options)
    wait_for_all(workers)
    with worker.in_folder(run_folder.new_run_folder(args.out, task)) as folder:
        write_config(folder, task, options, **describe(prepared))
        return _train(task, folder, lambda: train(folder, options, prepared, args.quiet))


def _train(task: str, folder: Path, train: Callable[[], int]) -> int:
    try:
        with locked_folder(folder) if worker.is_first() else contextlib.nullcontext():
            return train()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: fastlstm train {task} --resume {folder}") from None


def is_finished(folder: Path, task: str, files: Sequence[str]) -> bool:
    """Whether a run has its result and all its files, pictures where they can be drawn."""
    if "result" not in run_folder.read_config(folder, task):
        return False
    expected = files if has_matplotlib() else [name for name in files if not name.endswith(".png")]
    return all((folder / name).exists() for name in expected)


def check_can_train(options: Any) -> None:
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
    elif getattr(options, "precision", None) == "tf32":
        raise ValueError("--precision tf32 needs --device cuda: on the processor it is bf16, or exact without")


def write_config(folder: Path, task: str, options: Any, **entries: Any) -> None:
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
    """

    history: dict[str, list[float]]
    seconds: float | None
    code: int

    @property
    def took(self) -> str:
        """How long it took, for people."""
        return "learned before" if self.seconds is None else f"{self.seconds:.1f} s"


def learn(
    model: Model,
    *data: Any,
    optimizer: OptimizerLike = "adam",
    device: Device,
    precision: Precision | None = None,
    folder: Path,
    quiet: bool,
    callbacks: Sequence[Callback],
    **arguments: Any,
) -> Learned | None:
    """``model.fit`` on the device, and the model's file in the folder; None, and none, if the loss is NaN or infinite.

    There is a checkpoint in the folder while it learns, from which it goes on if there was one. If the model's file is
    there, the model is read from it.
    """
    file = folder / run_folder.MODEL
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
        since = time.perf_counter()
        history = model.fit(
            *data,
            optimizer=optimizer,
            callbacks=[
                nan_guard,
                *callbacks,
                BackupAndRestore(folder / run_folder.CHECKPOINT, delete_checkpoint=False),
            ],
            verbose=0 if quiet else "auto",
            workers=worker.workers(),
            **arguments,
        ).history
        seconds = time.perf_counter() - since
        if nan_guard.message is not None:
            return None
    code = _tell_divergence(history, model)
    if not math.isfinite(history["loss"][-1]):
        return None
    if worker.is_first():
        if seconds is not None:
            model.save(file)
        (folder / run_folder.CHECKPOINT).unlink(missing_ok=True)  # only now is it no longer needed
    wait_for_all(worker.workers())
    return Learned(history, seconds, code)


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


def learning_rate(epoch: int, epochs: int, start: float = Adam().lr) -> float:
    """The rate to start with, Adam's usual one; in the last two fifths it falls linearly.

    At a constant rate the accuracy falls back by several percent in one epoch out of four, maybe in the last.
    """
    return start * min(1.0, (epochs - epoch) / (0.4 * epochs))


def finish(folder: Path, task: str, code: int, pictures: Pictures) -> int:
    """Draw the pictures, say where everything is, and return the exit code: that of the training, or 1.

    Of a picture that cannot be drawn a line on stderr tells, whatever the reason: the model is saved, and the other
    pictures are drawn.
    """
    if not worker.is_first():
        return code
    for name, draw in pictures.items() if can_draw() else ():
        try:
            draw(folder / name)
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            print(
                f"fastlstm: {folder / name} could not be drawn: {' '.join(str(reason).split())}. The model is saved; "
                f"to draw it: fastlstm train {task} --resume {folder}",
                file=sys.stderr,
            )
            code = 1
    print(f"run folder: {folder}")
    return code
