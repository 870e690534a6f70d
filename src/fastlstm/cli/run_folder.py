"""The folder a training leaves: model, history, configuration and pictures."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import fastlstm
from fastlstm.models.tensor_file import write_atomically

MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.csv"
CONFIG = "config.json"

Options = TypeVar("Options")


def make_run_folder(out: str | None, task: str) -> Path:
    """A new folder: ``out``, or the first free of runs/TASK-1, runs/TASK-2 ..."""
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists already; choose another --out, or go on with it: --resume {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    while True:
        folder = Path("runs") / f"{task}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def write_config(folder: Path, task: str, **entries: Any) -> None:
    config = {
        "task": task,
        "fastlstm": fastlstm.__version__,
        "backend": fastlstm.get_backend(),
        "threads": fastlstm.get_num_threads(),
        **entries,
    }
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_config(folder: Path, *tasks: str) -> dict[str, Any]:
    """What `write_config` wrote; raises if the folder is no run of one of the tasks."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
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
        raise ValueError("--resume goes on with the options the run had; only --threads and --quiet go with it")


def read_options(folder: Path, task: str, kind: type[Options]) -> Options:
    """The dataclass of options that `write_config` wrote as "options"."""
    config = read_config(folder, task)
    try:
        return kind(**config["options"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged: its options do not fit ({error})") from None


def read_history(folder: Path) -> dict[str, list[float]]:
    """history.csv by column, without the epochs' numbers."""
    with open(folder / HISTORY, newline="") as file:
        names, *rows = csv.reader(file)
    return {name: [float(row[column]) for row in rows] for column, name in enumerate(names) if name != "epoch"}
