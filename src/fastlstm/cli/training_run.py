"""What the trainings of the command line share: how a run begins, goes on after an interruption, learns and ends."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import fastlstm
from fastlstm.backends import check_can_run
from fastlstm.callbacks import BackupAndRestore, Callback, TerminateOnNaN
from fastlstm.cli import run_folder
from fastlstm.contract import Precision
from fastlstm.ops.device import Device

if TYPE_CHECKING:
    from fastlstm.models import Model

Options = TypeVar("Options")
Prepared = TypeVar("Prepared")


def run(
    args: argparse.Namespace,
    task: str,
    kind: type[Options],
    *,
    resolve: Callable[[dict[str, Any]], Options],
    prepare: Callable[[Options], Prepared],
    train: Callable[[Path, Options, Prepared, bool], int],
    describe: Callable[[Prepared], Mapping[str, Any]] = lambda _: {},
    last_file: str = run_folder.MODEL,
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
    describe : prepared -> entries of config.json beside the options
    last_file : str
        With this file in it a run is finished.
    """
    given = run_folder.given_options(args, kind)
    if args.threads is not None:
        fastlstm.set_num_threads(args.threads)
    if args.resume is not None:
        run_folder.check_resume(args, given)
        folder = Path(args.resume)
        options = run_folder.read_options(folder, task, kind)
        if (folder / last_file).exists():
            raise ValueError(f"{folder} is finished; there is nothing to go on with")
        check_device(options)
        prepared = prepare(options)
    else:
        options = resolve(given)
        check_device(options)
        prepared = prepare(options)
        folder = run_folder.make_run_folder(args.out, task)
        write_config(folder, task, options, **describe(prepared))
    try:
        return train(folder, options, prepared, args.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: fastlstm train {task} --resume {folder}") from None


def check_device(options: Any) -> None:
    """Raises an error, before anything is written, if the device of the options cannot run here as they say."""
    if options.device == "cuda":
        check_can_run("cuda")
    elif getattr(options, "precision", None) is not None:
        raise ValueError(f"--precision {options.precision} needs --device cuda: on the processor products are exact")


def write_config(folder: Path, task: str, options: Any, **entries: Any) -> None:
    run_folder.write_config(folder, task, options=dataclasses.asdict(options), **entries)


class Learned(NamedTuple):
    """history: a list of each metric, an entry an epoch. seconds: how long it took."""

    history: dict[str, list[float]]
    seconds: float


def learn(
    model: Model,
    *data: Any,
    device: Device,
    precision: Precision | None = None,
    folder: Path,
    quiet: bool,
    callbacks: Sequence[Callback],
    **arguments: Any,
) -> Learned | None:
    """``model.fit`` on the device; None if the loss is NaN.

    There is a checkpoint in the folder, from which it goes on if there was one.
    """
    model.to(device, precision=precision)
    nan_guard = TerminateOnNaN()
    since = time.perf_counter()
    history = model.fit(
        *data,
        callbacks=[
            nan_guard,
            *callbacks,
            BackupAndRestore(folder / run_folder.CHECKPOINT, delete_checkpoint=False),
        ],
        verbose=0 if quiet else "auto",
        **arguments,
    ).history
    seconds = time.perf_counter() - since
    return None if nan_guard.message is not None else Learned(history, seconds)


def save(model: Model, folder: Path) -> None:
    """The model's file in the place of the checkpoint."""
    model.save(folder / run_folder.MODEL)
    (folder / run_folder.CHECKPOINT).unlink(missing_ok=True)  # only now is it no longer needed
