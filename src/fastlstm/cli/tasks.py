"""The tasks of ``fastlstm train``, in the order of its help, each with its line there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastlstm.cli import addition, dates, rnnlm, run_folder, sentiment, series, sine, translate, word2vec
from fastlstm.cli.task import Task

TASKS: tuple[tuple[Task, str], ...] = (
    (addition, "sums as text: 16+75 -> 91"),
    (rnnlm, "a language model of a text"),
    (dates, "september 27, 1994 -> 1994-09-27"),
    (translate, "sentences, from pairs of them"),
    (word2vec, "vectors of a text's words"),
    (sentiment, "the class of a text"),
    (series, "forecasts of the numbers of a CSV file"),
    (sine, "a sine, continued by LSTM and RNN: an example of series"),
)


def task_of(folder: Path) -> tuple[Task, Any]:
    """The task of a run folder, and the options that it was trained with."""
    name = run_folder.read_config(folder)["task"]
    for task, _ in TASKS:
        if name == task.TASK:
            return task, run_folder.read_options(folder, name, task.Options)
    raise ValueError(f"{folder} is a run of the task {name!r}, which this version of fastlstm does not know")
