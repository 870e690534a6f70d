"""The command line: which commands there are, and how mistakes are told. Each command's options are in its module.

A mistake of the user ends with one line on stderr and exit code 2, Ctrl-C with 130. Exit code 1 is a training that
diverged, or one whose pictures could not be drawn.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

import fastlstm
from fastlstm.cli import (
    addition,
    bench,
    data,
    dates,
    generate,
    rnnlm,
    selftest,
    sentiment,
    series,
    sine,
    translate,
    word2vec,
    worker,
)

EXIT_CODES = (
    "Exit codes: 0 done; 1 the training diverged, its pictures could not be drawn (then the model is saved), or the "
    "selftest found something wrong; "
    "2 a mistake, told in one line; 130 Ctrl-C."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {one_line}; see {self.prog} --help\n")


class _Task(Protocol):
    """What the module of a task has; its docstring describes the command."""

    TASK: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...

    def train(self, args: argparse.Namespace) -> int: ...


# In the order of the help, each with its line there.
TASKS: tuple[tuple[_Task, str], ...] = (
    (addition, "sums as text: 16+75 -> 91"),
    (rnnlm, "a language model of a text"),
    (dates, "september 27, 1994 -> 1994-09-27"),
    (translate, "sentences, from pairs of them"),
    (word2vec, "vectors of a text's words"),
    (sentiment, "the class of a text"),
    (series, "forecasts of the numbers of a CSV file"),
    (sine, "a sine, continued by LSTM and RNN"),
)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastlstm", description="Train LSTMs on compiled kernels.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"fastlstm {fastlstm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model on a task", epilog=EXIT_CODES)
    tasks = train.add_subparsers(required=True, metavar="TASK")
    for task, shown in TASKS:
        of_task = tasks.add_parser(task.TASK, help=shown, description=task.__doc__)
        task.add_options(of_task)
        of_task.set_defaults(command=task.train)

    of_generate = commands.add_parser("generate", help="let a trained model write", description=generate.__doc__)
    generate.add_options(of_generate)
    of_generate.set_defaults(command=generate.generate)

    of_data = commands.add_parser("data", help="make data for trainings", description=data.__doc__)
    data.add_options(of_data)

    of_bench = commands.add_parser("bench", help="measure speed beside PyTorch and numpy", description=bench.__doc__)
    bench.add_options(of_bench)
    of_bench.set_defaults(command=bench.bench)

    of_selftest = commands.add_parser(
        "selftest", help="check every operator on this machine", description=selftest.__doc__
    )
    selftest.add_options(of_selftest)
    of_selftest.set_defaults(command=selftest.run)

    info = commands.add_parser("info", help="show backends, instruction set, threads and GPU")
    info.set_defaults(command=lambda _: fastlstm.show_config())
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, sys.argv's without one, and return the exit code."""
    args = _make_parser().parse_args(argv)
    try:
        code = args.command(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the output has seen enough, as head has; Python would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        if worker.is_first():
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, MemoryError, ImportError) as error:
        print(f"fastlstm: {' '.join(str(error).split()) or 'there is not enough memory'}", file=sys.stderr)
        worker.end_all_after_a_mistake(2)
        return 2
