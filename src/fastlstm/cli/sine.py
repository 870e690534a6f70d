"""Teach an LSTM and a tanh RNN how a sine goes on, and let both go on with it by themselves."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastlstm.callbacks import CSVLogger, LearningRateScheduler
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, NOT_NEGATIVE, POSITIVE, STEP_COUNT
from fastlstm.cli.plots import plot_series
from fastlstm.cli.training_run import Learned
from fastlstm.contract import FloatArray, Precision
from fastlstm.datasets import SeriesPieces, sine
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import SequenceRegressor
from fastlstm.ops.device import Device
from fastlstm.optim import Adam
from fastlstm.tensor_file import write_atomically

TASK = "sine"
CONTINUED = "continued.csv"
PICTURE = "continued.png"
CELLS: Mapping[str, str] = {"lstm": "LSTM", "rnn": "simple RNN"}
FILES = (*(f"{cell}/{run_folder.MODEL}" for cell in CELLS), CONTINUED, PICTURE, "loss.png")


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit."""

    points: int = 201
    period: float = 100.0
    noise: float = 0.05
    length: int = 25
    hidden_size: int = 20
    batch_size: int = 10
    lr: float = 0.003
    epochs: int = 300
    continue_steps: int = 300
    seed: int = 0
    shards: int = 1
    grad_precision: GradPrecision | None = None
    device: Device = "cpu"
    precision: Precision | None = None


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
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train sine``."""
    return training_run.run(
        args,
        TASK,
        Options,
        resolve=lambda given: Options(**given),
        prepare=_pieces,
        train=_train,
        files=lambda _: FILES,
    )


def _pieces(options: Options) -> SeriesPieces:
    n = options.points - options.length
    if n < 10:
        raise ValueError(
            f"{options.points} points make {max(n, 0)} pieces of length {options.length} with a value after them, "
            "expected at least 10: a tenth is held out; more --points or a smaller --length helps"
        )
    return sine(n, length=options.length, period=options.period, noise=options.noise, seed=options.seed)


def _train(folder: Path, options: Options, pieces: SeriesPieces, quiet: bool) -> int:
    """Train both cells, each into a folder of its own; the one that is finished stays as it is."""
    histories, continued, errors, code = {}, {}, {}, 0
    clean = np.sin(2 * np.pi * np.arange(options.length + options.continue_steps) / options.period)
    for cell, label in CELLS.items():
        run = folder / cell
        run.mkdir(exist_ok=True)
        learned = _learn(run, cell, options, pieces, quiet)
        if learned is None:
            return 1
        code = learned.code or code
        model = SequenceRegressor.load(run / run_folder.MODEL)
        histories[label] = learned.history
        continued[label] = model.generate(pieces.xs[0], options.continue_steps)[:, 0]
        errors[cell] = float(np.sqrt(np.square(continued[label] - clean[options.length :]).mean()))
        print(
            f"{label}, {model.num_parameters:,} parameters: mean squared error {histories[label]['val_loss'][-1]:.5f} "
            f"held out; {options.continue_steps} steps by itself are {errors[cell]:.3f} off (root mean square); "
            f"{learned.took}"
        )
    series = np.concatenate((pieces.xs[0, :, 0], pieces.ts[:, 0]))
    if worker.is_first():
        write_atomically(folder / CONTINUED, _table(clean, options.length, continued).encode())
    training_run.write_config(folder, TASK, options, result={"continued_rms_error": errors})
    title = f"A sine, continued from its first {options.length} values"
    pictures = plots.of_loss("Sine", "mean squared error", histories)
    pictures[PICTURE] = lambda path: plot_series(path, title, clean, series, options.length, continued)
    return training_run.finish(folder, TASK, code, pictures)


def _learn(folder: Path, cell: str, options: Options, pieces: SeriesPieces, quiet: bool) -> Learned | None:
    """Train a cell into its folder, from its checkpoint if it has one."""
    model = SequenceRegressor(1, options.hidden_size, 1, cell=cell, seed=options.seed)
    if not quiet:
        model.summary()
    return training_run.learn(
        model,
        pieces.xs,
        pieces.ts,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=Adam(options.lr),
        validation_split=0.1,
        metrics=("loss", "mae"),
        callbacks=[
            # At a constant rate the weights never settle, and in 300 steps small differences add up to half a turn.
            LearningRateScheduler(lambda epoch, _: training_run.learning_rate(epoch, options.epochs, options.lr)),
            CSVLogger(folder / run_folder.HISTORY),
        ],
        shards=options.shards,
        grad_precision=options.grad_precision,
        device=options.device,
        precision=options.precision,
        folder=folder,
        quiet=quiet,
    )


def _table(clean: FloatArray, start: int, continued: Mapping[str, FloatArray]) -> str:
    """A line a step: its number, the sine, and what each model said."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "sine", *continued])
    for i, row in enumerate(zip(clean[start:], *continued.values(), strict=True), start):
        writer.writerow([i, *(f"{value:.6f}" for value in row)])
    return text.getvalue()
