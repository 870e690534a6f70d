"""The folder a training leaves: model, history, configuration and pictures."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import fastlstm
from fastlstm.cli import worker
from fastlstm.tensor_file import write_atomically

MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.csv"
CONFIG = "config.json"

Options = TypeVar("Options")


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
        if all(path.name == CONFIG for path in files):
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


def write_config(folder: Path, task: str, **entries: Any) -> None:
    """config.json: the task, what it runs on, and the entries. What is no finite number is null in it."""
    if not worker.is_first():
        return
    config = {
        "task": task,
        "fastlstm": fastlstm.__version__,
        "backend": fastlstm.get_backend(),
        "threads": fastlstm.get_num_threads(),
        "workers": worker.workers().size,
        **entries,
    }
    text = json.dumps(_finite_or_null(config), indent=2, allow_nan=False)
    write_atomically(folder / CONFIG, (text + "\n").encode())


def read_config(folder: Path, *tasks: str) -> dict[str, Any]:
    """What `write_config` wrote; raises if the folder is no run of one of the tasks."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error})") from None
    if not isinstance(config, dict) or config.get("task") not in tasks:
        raise ValueError(f"{folder} is no run of the task {' or '.join(map(repr, tasks))}")
    return config


def given_options(args: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """What was typed of the fields of a dataclass."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if value is not None}


def check_resume(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Raises if --resume goes with options that the run has already."""
    if given or args.out is not None:
        raise ValueError(
            "--resume goes on with the options the run had; only --threads, --workers and --quiet go with it"
        )


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


def best_epoch(values: Sequence[float]) -> int | None:
    """The epoch, from 0, of the smallest number that is finite, the first of equal ones; None if there is none."""
    finite = [(value, epoch) for epoch, value in enumerate(values) if math.isfinite(value)]
    return min(finite)[1] if finite else None


def _finite_or_null(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite_or_null(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_history(folder: Path) -> dict[str, list[float]]:
    """history.csv by column, without the epochs' numbers."""
    path = folder / HISTORY
    try:
        with open(path, newline="") as file:
            names, *rows = csv.reader(file)
        return {name: [float(row[column]) for row in rows] for column, name in enumerate(names) if name != "epoch"}
    except (ValueError, IndexError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged: it is no table of numbers with names above them ({error!s:.200})"
        ) from None
