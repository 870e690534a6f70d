"""The command line: which commands there are, and how mistakes are told. Each command's options are in its module.

A mistake of the user ends with one line on stderr and exit code 2, Ctrl-C with 130. Exit code 1 is a training that
diverged, or one whose pictures could not be drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import fastlstm
from fastlstm.cli import bench, data, generate, runs, selftest, training_run, worker
from fastlstm.cli.tasks import TASKS

EXIT_CODES = (
    "Exit codes: 0 done; 1 the training diverged, its pictures could not be drawn (then the model is saved), or the "
    "selftest found something wrong; "
    "2 a mistake, told in one line; 130 Ctrl-C."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {one_line}; see {self.prog} --help\n")


class _FreeOrder(_Parser):
    """Options may stand before, behind and between RUN and what follows it."""

    _is_reading = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Before Python 3.12 the method that reads them so calls this one.
        if self._is_reading or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_reading = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_reading = False


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastlstm", description="Train LSTMs on compiled kernels.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"fastlstm {fastlstm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_FreeOrder)

    train = commands.add_parser("train", help="train a model on a task", epilog=EXIT_CODES)
    tasks = train.add_subparsers(required=True, metavar="TASK", parser_class=_Parser)
    for task, shown in TASKS:
        of_task = tasks.add_parser(task.TASK, help=shown, description=task.__doc__)
        task.add_options(of_task)
        of_task.set_defaults(command=functools.partial(training_run.run, task=task))

    of_generate = commands.add_parser("generate", help="let a trained model write", description=generate.__doc__)
    generate.add_options(of_generate)
    of_generate.set_defaults(command=generate.generate)

    of_evaluate = commands.add_parser("evaluate", help="measure a trained model", description=runs.EVALUATE)
    runs.add_evaluate_options(of_evaluate)
    of_evaluate.set_defaults(command=runs.evaluate)

    of_neighbours = commands.add_parser(
        "neighbours", help="the nearest words, by word vectors", description=runs.NEIGHBOURS
    )
    runs.add_neighbours_options(of_neighbours)
    of_neighbours.set_defaults(command=runs.neighbours)

    of_plot = commands.add_parser("plot", help="draw the pictures of a run again", description=runs.PLOT)
    runs.add_plot_options(of_plot)
    of_plot.set_defaults(command=runs.plot)

    of_list = commands.add_parser("list", help="list runs and their results", description=runs.LIST)
    runs.add_list_options(of_list)
    of_list.set_defaults(command=runs.list_runs)

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
    try:
        try:
            code = _run(argv)
        finally:
            sys.stdout.flush()  # what --help says too
        return code
    except BrokenPipeError:  # whoever reads the output has seen enough, as head has
        _write_no_more()
        return 128 + signal.SIGPIPE


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _make_parser().parse_args(argv)
        return args.command(args) or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interrupt:
        if worker.is_first():
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, MemoryError, ImportError) as error:
        print(f"fastlstm: {' '.join(str(error).split()) or 'there is not enough memory'}", file=sys.stderr)
        worker.end_all_after_a_mistake(2)
        return 2


def _write_no_more() -> None:
    """Send what is still to be written nowhere: Python would try it once more at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
