"""Going on with a run: with more epochs than it had, or in a new one that begins with its weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm.cli import run_folder
from fastlstm.cli.run_folder import CHECKPOINT, CONFIG, EARLIER, INITIAL, MODEL
from fastlstm.cli.task import Initial, Task
from fastlstm.models.model import read_model_file
from fastlstm.tensor_file import write_atomically, write_tensor_file

# Of a training whose learning rate falls in the end: where it began to fall, from where a longer one goes on.
SHARED = "checkpoint-shared.safetensors"


class _Checkpoint(NamedTuple):
    """A checkpoint's file; the epochs that it has to do with, one begun included; whether the training ended early."""

    path: Path
    epochs: int
    has_ended: bool


def lengthen(folder: Path, task: Task, options: Any, epochs: int) -> str | None:
    """Have a run go on to another number of epochs, so that it ends as one that had it from the beginning.

    It goes on from the last checkpoint before which the learning rate was that of the longer training.

    Returns
    -------
    str or None
        What is to be said of it.

    Raises
    ------
    ValueError
        It has had so many epochs, has ended early, or has no checkpoint.
    """
    if epochs == options.epochs:
        return None
    shared = min(task.shared_epochs(options), task.shared_epochs(dataclasses.replace(options, epochs=epochs)))
    parts = _parts(folder)
    found = {part: _checkpoints(part) for part in parts}
    chosen = {part: [c for c in checkpoints if c.epochs <= shared] for part, checkpoints in found.items()}
    had = max(
        options.epochs if (part / MODEL).exists() else max((c.epochs for c in found[part]), default=0) for part in parts
    )
    if epochs < had:
        raise ValueError(f"{folder} has learned {had} epochs; --epochs {epochs} is a total, expected at least {had}")
    for part in parts:
        if any(c.has_ended for c in chosen[part]):
            raise ValueError(
                f"{part} ended early, after epoch {chosen[part][-1].epochs}, as would a longer training; --init-from "
                f"{folder} begins a new one with its weights"
            )
        if shared and not found[part] and (part / MODEL).exists():
            raise ValueError(
                f"{part} has no {CHECKPOINT} to go on from, as runs of earlier versions; --init-from {folder} begins a "
                "new one with its weights"
            )
    for part in parts:
        if (part / MODEL).exists():
            os.replace(part / MODEL, part / EARLIER)
        if chosen[part]:
            os.replace(chosen[part][-1].path, part / CHECKPOINT)
        else:
            (part / CHECKPOINT).unlink(missing_ok=True)
        if part != folder and (part / CONFIG).exists():
            run_folder.change_epochs(part, task.TASK, epochs)
    run_folder.change_epochs(folder, task.TASK, epochs)
    begins = min(checkpoints[-1].epochs if checkpoints else 0 for checkpoints in chosen.values())
    if begins == had:
        return None
    return (
        f"the learning rate depends on the number of epochs: all after epoch {begins} are learned again; --init-from "
        f"{folder} would go on from the weights instead"
    )


def _checkpoints(part: Path) -> list[_Checkpoint]:
    """Those of a run or of a part of it, by their epochs."""
    found = []
    for path in (part / CHECKPOINT, part / SHARED):
        if path.exists():
            place, has_ended = run_folder.checkpoint_place(path)
            found.append(_Checkpoint(path, place.epoch + (place.batch > 0), has_ended))
    return sorted(found, key=lambda checkpoint: checkpoint.epochs)


def keep_shared(folder: Path) -> None:
    """The training is at the end of the epochs that longer ones share: keep its checkpoint for them."""
    write_atomically(folder / SHARED, (folder / CHECKPOINT).read_bytes())


def settle(folder: Path, shared_epochs: int, learned: int) -> None:
    """The model is saved: of the checkpoints keep the one that a longer training would go on from, if there is one."""
    (folder / EARLIER).unlink(missing_ok=True)
    if learned > shared_epochs:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        if (folder / SHARED).exists():
            os.replace(folder / SHARED, folder / CHECKPOINT)


def _parts(folder: Path) -> list[Path]:
    """The folders of a run that have a model each: itself, or those below it."""
    names = (MODEL, CHECKPOINT, EARLIER)
    below = sorted({path.parent for name in names for path in folder.glob(f"*/{name}")})
    return [folder] if any((folder / name).exists() for name in names) or not below else below


def inherited(given: Mapping[str, Any], source: Path, task: Task) -> dict[str, Any]:
    """The options of a run that begins with the weights of another, from those that were given.

    Those of the model are the other's; those of the data too, unless one of them is given.
    """
    options = run_folder.read_options(source, task.TASK, task.Options)
    usual = task.Options()
    found = dict(given)
    for name in task.MODEL_OPTIONS:
        value = getattr(options, name)
        if name in given and given[name] != value:
            raise ValueError(
                f"--{name.replace('_', '-')} is {given[name]}, but the model of {source} has {value}; leave it out"
            )
        if value != getattr(usual, name):
            found[name] = value
    if not given.keys() & set(task.DATA_OPTIONS):
        of_data = {name: getattr(options, name) for name in task.DATA_OPTIONS}
        found |= {name: value for name, value in of_data.items() if value != getattr(usual, name)}
    return {**found, "init_from": str(source.absolute())}


def copy_models(source: Path, folder: Path) -> None:
    """Keep the models that a run begins with in its folder: the other run may go."""
    for part in _parts(source):
        path = part / (MODEL if (part / MODEL).exists() else CHECKPOINT)
        tensors, description = read_model_file(path)
        copy = folder / part.relative_to(source) / INITIAL
        copy.parent.mkdir(exist_ok=True)
        write_tensor_file(copy, tensors, description)


def check_source(source: Path, task: Task) -> Initial:
    """The run that another begins with; raises unless it has a model."""
    run_folder.read_config(source, task.TASK)
    for part in _parts(source):
        if not (part / MODEL).exists() and not (part / CHECKPOINT).exists():
            raise FileNotFoundError(f"{part} has no {MODEL} and no {CHECKPOINT}: its training has not got that far")
    return Initial(source, is_copied=False)
