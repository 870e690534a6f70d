"""What can be done with finished runs, and with those that are not: list, plot, evaluate, neighbours."""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastlstm.cli import run_folder, training_run, word2vec
from fastlstm.cli.answering import answer_each
from fastlstm.cli.option_types import COUNT
from fastlstm.cli.task import Initial
from fastlstm.cli.tasks import task_of
from fastlstm.models import Word2Vec

EVALUATE = """Measure the model of a run on the data of a file, which is read as the run's own data were.

Of a run that is not finished it is the model of its last checkpoint. What is printed is a name and a number a line.
"""

PLOT = """Draw the pictures of a run again: once there is matplotlib or a font, or while it is learning.
"""

LIST = """List the runs below a folder: their tasks, when they began, how many epochs they have, and their results.
"""

NEIGHBOURS = """Show the words whose vectors are nearest to those of the words given, or of each line of stdin.
"""


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm evaluate``."""
    parser.add_argument("run", metavar="RUN", help="run folder that train left")
    parser.add_argument(
        "--data", metavar="FILE", required=True, help="of the kind that the run was trained on; its columns if any"
    )


def evaluate(args: argparse.Namespace) -> int:
    """``fastlstm evaluate``."""
    folder = Path(args.run)
    task, options = task_of(folder)
    figures = task.measure(folder, options, args.data)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {_number(value)}")
    return 0


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm plot``."""
    parser.add_argument("run", metavar="RUN", help="run folder that train left, or is at work on")


def plot(args: argparse.Namespace) -> int:
    """``fastlstm plot``."""
    folder = Path(args.run)
    task, options = task_of(folder)
    initial = None if options.init_from is None else Initial(folder, is_copied=True)
    prepared = functools.cache(lambda: task.prepare(options, initial))
    if not any(folder.rglob(run_folder.HISTORY)):
        raise ValueError(f"{folder} has no {run_folder.HISTORY}: nothing has been learned yet")
    pictures = task.pictures(folder, options, prepared)
    code = training_run.draw(folder, pictures)
    for name in pictures:
        if (folder / name).exists():
            print(folder / name)
    return code


def add_list_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm list``."""
    parser.add_argument("folder", nargs="?", default="runs", metavar="DIR", help="default runs")


def list_runs(args: argparse.Namespace) -> int:
    """``fastlstm list``."""
    top = Path(args.folder)
    if not top.is_dir():
        raise FileNotFoundError(f"{top} is no folder; fastlstm train makes runs, and their results are listed here")
    rows = [("RUN", "TASK", "BEGAN", "EPOCHS", "RESULT")]
    code = 0
    for folder in _run_folders(top):
        try:
            rows.append(_row(folder))
        except (OSError, ValueError) as error:
            print(f"fastlstm: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
    if len(rows) == 1:
        print(f"no runs below {top}", file=sys.stderr)
        return code
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return code


def add_neighbours_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm neighbours``."""
    parser.add_argument("run", metavar="RUN", help="run folder of train word2vec")
    parser.add_argument("words", nargs="*", default=(), metavar="WORD", help="without any stdin is read, a word a line")
    parser.add_argument("--top", type=COUNT, default=10, metavar="N", help="how many are shown, default 10")


def neighbours(args: argparse.Namespace) -> int:
    """``fastlstm neighbours``."""
    folder = Path(args.run)
    run_folder.read_config(folder, word2vec.TASK)
    words = run_folder.load_model(Word2Vec, folder).words

    def answer(text: str) -> str:
        word = text.strip()
        near = words.most_similar(word, topn=args.top)
        return f"{word}: " + ", ".join(f"{other} {cosine:.3f}" for other, cosine in near)

    return answer_each(args.words, answer)


def _run_folders(top: Path) -> Iterator[Path]:
    """Those at or below a folder; not those within others, which are parts of them."""
    if (top / run_folder.CONFIG).is_file():
        yield top
        return
    for below in sorted(path for path in top.iterdir() if path.is_dir() and not path.is_symlink()):
        yield from _run_folders(below)


def _row(folder: Path) -> tuple[str, str, str, str, str]:
    config = run_folder.read_config(folder)
    date = str(config.get("date", ""))[:16].replace("T", " ")
    result = config.get("result")
    options = config.get("options")
    total = options.get("epochs") if isinstance(options, dict) else None
    done = max((_epochs_in(path) for path in folder.rglob(run_folder.HISTORY)), default=0)
    state = _result(result) if isinstance(result, dict) else "not finished"
    return str(folder), config["task"], date, f"{done}/{total}", state


def _epochs_in(path: Path) -> int:
    return len(path.read_text().splitlines()) - 1


def _result(result: Mapping[str, Any], prefix: str = "") -> str:
    """The numbers of a result, those within others too, on a line."""
    parts = []
    for name, value in result.items():
        if isinstance(value, Mapping):
            parts.append(_result(value, f"{prefix}{name} "))
        elif value is None or isinstance(value, (int, float)):
            parts.append(f"{prefix}{name} {_number(math.nan if value is None else value)}")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
