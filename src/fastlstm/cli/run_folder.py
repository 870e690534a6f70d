"""The folder a training leaves: model, checkpoint, history, configuration and pictures."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import datetime as dt
import importlib
import json
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

import fastlstm
from fastlstm.backends import why_not
from fastlstm.cli import worker
from fastlstm.contract import Array
from fastlstm.models import Model
from fastlstm.tensor_file import read_tensor_file, write_atomically
from fastlstm.training.checkpoint import Place, is_checkpoint, model_in, place_of

MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
INITIAL = "initial.safetensors"  # what a run with --init-from began from
EARLIER = "model-earlier.safetensors"  # of fewer epochs, until there is that of more
HISTORY = "history.csv"
CONFIG = "config.json"
TENSORBOARD = "tensorboard"

Options = TypeVar("Options")
AnyModel = TypeVar("AnyModel", bound=Model)


def check_out(out: str | None) -> None:
    """Raises if --out names something that is there already, but for an empty folder."""
    if out is not None and (folder := Path(out)).exists() and (not folder.is_dir() or any(folder.iterdir())):
        go_on = f", or go on with it: --resume {folder}" if (folder / CONFIG).exists() else ""
        raise FileExistsError(f"{folder} exists already; choose another --out{go_on}")


@contextlib.contextmanager
def new_run_folder(out: str | None, task: str) -> Iterator[Path]:
    """A new folder: ``out``, or the first free of runs/TASK-1, runs/TASK-2 ...

    Where an error comes before anything has been learned, the folder is gone again, and its name free for another try.
    """
    folder, made = _make_free(task) if out is None else _make(Path(out))
    try:
        yield folder
    except Exception:
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        if all(path.name in (CONFIG, INITIAL) for path in files):
            for path in files:
                path.unlink()
            below = sorted((path for path in folder.rglob("*")), reverse=True)
            for path in (*below, *made):
                with contextlib.suppress(OSError):  # somebody else has put something into it meanwhile
                    path.rmdir()
        raise


def _make(folder: Path) -> tuple[Path, list[Path]]:
    """The folder, and what was made for it: itself if it was not there, and those above it."""
    check_out(str(folder))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return folder, made


def _make_free(task: str) -> tuple[Path, list[Path]]:
    runs = Path("runs")
    made = [] if runs.exists() else [runs]
    number = 1
    while True:
        folder = runs / f"{task}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder, [folder, *made]


# --------------------------------------------------------------------------------------------
# config.json and the options in it
# --------------------------------------------------------------------------------------------


def write_config(folder: Path, task: str, **entries: Any) -> None:
    """config.json: the task, when it began and what it runs on, and the entries, beside those it had.

    What is no finite number is null in it.
    """
    if not worker.is_first():
        return
    path = folder / CONFIG
    before = read_config(folder, task) if path.exists() else {}
    config = {
        "task": task,
        "date": _now(),
        **before,
        "fastlstm": fastlstm.__version__,
        "versions": {"fastlstm": fastlstm.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "backend": fastlstm.get_backend(),
        "instruction_set": _instruction_set(),
        "threads": fastlstm.get_num_threads(),
        "workers": worker.workers().size,
        **entries,
    }
    _write(path, config)


def _write(path: Path, config: Mapping[str, Any]) -> None:
    text = json.dumps(_finite_or_null(config), indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def change_epochs(folder: Path, task: str, epochs: int) -> None:
    """A run is to have another number of epochs; its result is none any more."""
    config = read_config(folder, task)
    config.pop("result", None)
    config["options"]["epochs"] = epochs
    _write(folder / CONFIG, config)


def _now() -> str:
    return dt.datetime.now().astimezone().isoformat(timespec="seconds")


def _instruction_set() -> str | None:
    """Of the compiled backend, None without it."""
    if fastlstm.get_backend() != "cpp" or why_not("cpp") is not None:
        return None
    name: str = importlib.import_module("fastlstm._cpu").isa()
    return name


def read_config(folder: Path, *tasks: str) -> dict[str, Any]:
    """What `write_config` wrote; raises if the folder is no run of one of the tasks, of any without a name."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise ValueError(f"{folder} is no run of fastlstm: {CONFIG} names no task")
    if tasks and config["task"] not in tasks:
        raise ValueError(f"{folder} is no run of the task {' or '.join(map(repr, tasks))}")
    return config


def given_options(args: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """What was typed of the fields of a dataclass."""
    values = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if value is not None}


def read_options(folder: Path, task: str, kind: type[Options]) -> Options:
    """The dataclass of options that `write_config` wrote as "options"."""
    config = read_config(folder, task)
    try:
        options = kind(**config["options"])
        for name, expected in get_type_hints(kind).items():
            if not _is_a(value := getattr(options, name), expected):
                raise TypeError(f"{name} is {value!r:.60}")
        return options
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged: its options do not fit ({error!s:.200})") from None


def _is_a(value: Any, expected: Any) -> bool:
    """Whether JSON holds what an option's type says; of types that JSON lacks, any value is."""
    if get_origin(expected) in (Union, UnionType):
        return any(_is_a(value, kind) for kind in get_args(expected))
    if get_origin(expected) is Literal:
        return value in get_args(expected)
    kinds: Any = {int: int, float: (int, float), str: str, bool: bool, NoneType: NoneType}.get(expected, object)
    return isinstance(value, kinds) and (expected in (bool, object) or not isinstance(value, bool))


def _finite_or_null(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite_or_null(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --------------------------------------------------------------------------------------------
# history.csv
# --------------------------------------------------------------------------------------------


def best_epoch(
    values: Sequence[float], tie_breakers: Sequence[float] | None = None, *, largest: bool = False
) -> int | None:
    """The epoch, from 0, of the smallest number that is finite, or of the largest; None if there is none.

    Of equal ones that with the smallest tie breaker, else the first.
    """
    ties = [0.0] * len(values) if tie_breakers is None else tie_breakers
    finite = [
        (-value if largest else value, tie if math.isfinite(tie) else math.inf, epoch)
        for epoch, (value, tie) in enumerate(zip(values, ties, strict=True))
        if math.isfinite(value)
    ]
    return min(finite)[2] if finite else None


def read_history(folder: Path) -> dict[str, list[float]]:
    """history.csv by column, without the epochs' numbers."""
    path = folder / HISTORY
    try:
        with open(path, newline="") as file:
            names, *rows = csv.reader(file)
        return {
            name: [float(row[column]) if row[column] else math.nan for row in rows]
            for column, name in enumerate(names)
            if name != "epoch"
        }
    except (ValueError, IndexError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged: it is no table of numbers with names above them ({error!s:.200})"
        ) from None


# --------------------------------------------------------------------------------------------
# The model, finished or not
# --------------------------------------------------------------------------------------------


def load_model(kind: type[AnyModel], folder: Path) -> AnyModel:
    """The model of a run; where it is not finished, that of its last checkpoint, and a line on stderr says so."""
    path = folder / MODEL
    if path.exists():
        return kind.load(path)
    path = folder / CHECKPOINT
    if not path.exists() and (folder / EARLIER).exists():
        print(f"fastlstm: {folder} is not finished; this is its model of fewer epochs", file=sys.stderr)
        return kind.load(folder / EARLIER)
    if not path.exists():
        several = sorted(str(model.parent) for model in folder.glob(f"*/{MODEL}"))
        why = f"it compares several: {', '.join(several)}" if several else "its training has not got that far"
        raise FileNotFoundError(f"{folder} has no {MODEL} and no {CHECKPOINT}; {why}")
    tensors, description = _read_checkpoint(path)
    model = kind.from_file(*model_in(tensors, description, path), path)
    print(f"fastlstm: {folder} is not finished; this is its model {place_of(description)}", file=sys.stderr)
    return model


def checkpoint_place(path: Path) -> tuple[Place, bool]:
    """How far the training of a checkpoint was, and whether it ended early."""
    _, description = _read_checkpoint(path)
    return place_of(description), description["stop_training"]


def _read_checkpoint(path: Path) -> tuple[dict[str, Array], Any]:
    tensors, description = read_tensor_file(path)
    if not is_checkpoint(description):
        raise ValueError(f"{path} is no checkpoint")
    return tensors, description
