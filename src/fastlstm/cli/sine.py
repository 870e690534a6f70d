"""Teach an LSTM and a tanh RNN how a sine goes on, and let both go on with it by themselves: an example of `series`."""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.cli import plots, run_folder, series, training_run, worker
from fastlstm.cli.option_types import COUNT, NOT_NEGATIVE, POSITIVE, STEP_COUNT
from fastlstm.cli.plots import Pictures, plot_series
from fastlstm.cli.series import RegressionOptions
from fastlstm.cli.task import Initial
from fastlstm.contract import FloatArray
from fastlstm.datasets import SeriesPieces, sine
from fastlstm.models import SequenceRegressor
from fastlstm.tensor_file import write_atomically

TASK = "sine"
CONTINUED = "continued.csv"
PICTURE = "continued.png"
HELD_OUT = 0.1
CELLS: Mapping[str, str] = {"lstm": "LSTM", "rnn": "simple RNN"}
FILES = (*(f"{cell}/{run_folder.MODEL}" for cell in CELLS), CONTINUED, PICTURE, "loss.png")


MODEL_OPTIONS = ("hidden_size",)
DATA_OPTIONS = ("points", "period", "noise", "length")


@dataclasses.dataclass(frozen=True)
class Options(RegressionOptions):
    """What fixes a training to the bit."""

    points: int = 201
    period: float = 100.0
    noise: float = 0.05
    length: int = 25
    hidden_size: int = 20
    batch_size: int = 10
    epochs: int = 300
    continue_steps: int = 300


class Data(NamedTuple):
    """Pieces of the sine, and the two models by their cells."""

    pieces: SeriesPieces
    models: Mapping[str, SequenceRegressor]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train sine``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add = parser.add_argument
    add("--points", type=STEP_COUNT, help=f"values of the series, default {defaults.points}")
    add("--period", type=POSITIVE, help=f"steps of a full turn, default {defaults.period:g}")
    add("--noise", type=NOT_NEGATIVE, help=f"up to so much is added to every value, default {defaults.noise:g}")
    add("--length", type=STEP_COUNT, help=f"values that are read to say the next, default {defaults.length}")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--lr", type=POSITIVE, help=f"learning rate of Adam, falling at the end, default {defaults.lr:g}")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add(
        "--continue-steps",
        type=STEP_COUNT,
        help=f"steps the models go on by themselves, default {defaults.continue_steps}",
    )
    training_run.add_run_options(parser, TASK, files=None)


def files(_: Options) -> Sequence[str]:
    return FILES


def shared_epochs(options: Options) -> int:
    return series.shared_epochs(options)


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    return Options(**given)


def prepare(options: Options, initial: Initial | None) -> Data:
    """The pieces of the sine, and both models."""
    n = options.points - options.length
    if n < 10:
        raise ValueError(
            f"{options.points} points make {max(n, 0)} pieces of length {options.length} with a value after them, "
            "expected at least 10: a tenth is held out; more --points or a smaller --length helps"
        )
    models = {cell: SequenceRegressor(1, options.hidden_size, 1, cell=cell, seed=options.seed) for cell in CELLS}
    if initial is not None:
        for cell, model in models.items():
            training_run.begin_with(model, initial.load(SequenceRegressor, cell))
    return Data(sine(n, length=options.length, period=options.period, noise=options.noise, seed=options.seed), models)


def describe(data: Data) -> dict[str, Any]:
    """What config.json says of the pieces."""
    n = len(data.pieces.xs)
    held_out = int(n * HELD_OUT)
    return {"rows": {"training": n - held_out, "validation": held_out}}


def train(folder: Path, options: Options, data: Data, quiet: bool) -> int:
    """Train both cells, each into a folder of its own; the one that is finished stays as it is."""
    pieces, code = data.pieces, 0
    continued, errors = {}, {}
    clean = _clean(options)
    for cell, label in CELLS.items():
        run = folder / cell
        run.mkdir(exist_ok=True)
        learned = series.learn(
            data.models[cell],
            pieces.xs,
            pieces.ts,
            options,
            run,
            best_counts=False,
            quiet=quiet,
            validation_split=HELD_OUT,
        )
        if learned is None:
            return 1
        code = learned.code or code
        model = SequenceRegressor.load(run / run_folder.MODEL)
        continued[label] = model.generate(pieces.xs[0], options.continue_steps)[:, 0]
        errors[cell] = float(np.sqrt(np.square(continued[label] - clean[options.length :]).mean()))
        print(
            f"{label}, {model.num_parameters:,} parameters: mean squared error "
            f"{learned.history['val_loss'][learned.best]:.5f} held out; {options.continue_steps} steps by itself are "
            f"{errors[cell]:.3f} off (root mean square); {learned.told}"
        )
    if worker.is_first():
        rows = zip(range(options.length, len(clean)), clean[options.length :], *continued.values(), strict=True)
        lines = [[str(step), *(f"{value:.6f}" for value in values)] for step, *values in rows]
        write_atomically(folder / CONTINUED, series.csv_text([["step", "sine", *continued], *lines]).encode())
    training_run.write_config(folder, TASK, options, result={"continued_rms_error": errors})
    return training_run.finish(folder, code, pictures(folder, options, lambda: data))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:  # noqa: ARG001
    """There is no file of what it learns."""
    raise ValueError(
        f"{folder} has learned a sine that was made for it, and no file; what train series learns can be evaluated"
    )


def pictures(folder: Path, options: Options, prepared: Callable[[], Data]) -> Pictures:
    """The losses of both cells by epoch, as far as they are, and how both go on."""
    begun = {label: folder / cell for cell, label in CELLS.items() if (folder / cell / run_folder.HISTORY).exists()}
    histories = {label: run_folder.read_history(run) for label, run in begun.items()}
    drawn = plots.of_loss("Sine", "mean squared error", histories)

    def draw(path: Path) -> None:
        pieces = prepared().pieces
        learned = np.concatenate((pieces.xs[0, :, 0], pieces.ts[:, 0]))
        title = f"A sine, continued from its first {options.length} values"
        with open(folder / CONTINUED, newline="") as file:
            names, *rows = csv.reader(file)
        columns = np.array(rows, np.float64).T
        continued = {name: columns[names.index(name)] for name in CELLS.values()}
        plot_series(path, title, _clean(options), learned, options.length, continued)

    if (folder / CONTINUED).exists():
        drawn[PICTURE] = draw
    return drawn


def _clean(options: Options) -> FloatArray:
    """The sine without noise, as far as it is continued."""
    clean: FloatArray = np.sin(2 * np.pi * np.arange(options.length + options.continue_steps) / options.period)
    return clean
