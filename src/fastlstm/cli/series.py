"""Teach a SequenceRegressor how the numbers of a CSV file go on, and forecast them, with intervals.

The model reads --steps values and says the next one; with its own answers it goes on to the --horizon. Intervals are by
residuals: how far its forecasts of the held-out end, as many steps ahead, were from what came.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.callbacks import CSVLogger, EarlyStopping, LearningRateScheduler
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, FACTOR, POSITIVE, SHARE, STEP_COUNT
from fastlstm.cli.plots import plot_forecast
from fastlstm.contract import FloatArray, Precision
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.tables import WHERE_TO_GET_A_TABLE, read_series
from fastlstm.datasets.windows import Scaling, Windows, windows
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import SequenceRegressor
from fastlstm.ops.device import Device
from fastlstm.optim import Adam
from fastlstm.tensor_file import write_atomically

TASK = "series"
FORECAST = "forecast.csv"
PICTURE = "forecast.png"
FILES = (run_folder.MODEL, FORECAST, PICTURE, "loss.png")
LEAST_FORECASTS = 10  # of the held-out end, whose residuals make an interval


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data."""

    data: str = ""
    column: Sequence[str] = ()
    steps: int = 24
    horizon: int = 12
    interval: float = 0.9
    cell: str = "lstm"
    hidden_size: int = 32
    batch_size: int = 32
    lr: float = 0.003
    epochs: int = 100
    hold_out: float = 0.2
    seed: int = 0
    device: Device = "cpu"
    precision: Precision | None = None
    shards: int = 1
    grad_precision: GradPrecision | None = None


class Data(NamedTuple):
    """A series (L, D), of which the first ``end`` steps are learned, its scaling and its scaled windows."""

    series: FloatArray
    end: int
    scaling: Scaling
    training: Windows
    validation: Windows


class Intervals(NamedTuple):
    """What is added to a forecast for its limits: (horizon, D) each, in the units of the series."""

    lower: FloatArray
    upper: FloatArray


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train series``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add = parser.add_argument
    add("--data", metavar="FILE.csv", help="a table with the names of its columns in the first line, a row a time step")
    add("--column", action="append", metavar="NAME", help="what to learn; several are learned together")
    add("--steps", type=STEP_COUNT, help=f"values that are read to say the next, default {defaults.steps}")
    add("--horizon", type=STEP_COUNT, help=f"steps to forecast, default {defaults.horizon}")
    add("--interval", type=FACTOR, metavar="SHARE", help=f"of what comes within it, default {defaults.interval:g}")
    add("--cell", choices=("lstm", "rnn"), help=f"default {defaults.cell}")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--lr", type=POSITIVE, help=f"learning rate of Adam, falling at the end, default {defaults.lr:g}")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}; the best one counts")
    add(
        "--hold-out",
        type=SHARE,
        metavar="SHARE",
        help=f"share of the series' end to validate on and to make intervals of, default {defaults.hold_out:g}",
    )
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train series``."""
    return training_run.run(
        args,
        TASK,
        Options,
        resolve=_resolve,
        prepare=_prepare,
        train=_train,
        files=lambda _: FILES,
    )


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if not options.data or not options.column:
        raise ValueError("give --data, a CSV file, and --column, the name of a column of it")
    # As seen from anywhere: the run may be resumed from another folder.
    return dataclasses.replace(options, data=from_anywhere(find_file(options.data, WHERE_TO_GET_A_TABLE)))


def _prepare(options: Options) -> Data:
    series = read_series(options.data, options.column)
    end = len(series) - int(len(series) * options.hold_out)
    forecasts = len(series) - end - options.horizon + 1
    if end < options.steps + 1 or forecasts < LEAST_FORECASTS:
        raise ValueError(
            f"{options.data} has {len(series)} rows, {end} to learn from and {len(series) - end} held out; expected at "
            f"least {options.steps + 1} (--steps {options.steps} and the next) and "
            f"{options.horizon + LEAST_FORECASTS - 1} ({LEAST_FORECASTS} forecasts of --horizon {options.horizon}); a "
            "longer series or other numbers help"
        )
    scaling = Scaling.of(series[:end])
    scaled = scaling.apply(series)
    return Data(
        series,
        end,
        scaling,
        windows(scaled[:end], options.steps, 1),
        windows(scaled[end - options.steps :], options.steps, 1),
    )


def _train(folder: Path, options: Options, data: Data, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    D = data.series.shape[1]
    model = SequenceRegressor(D, options.hidden_size, D, cell=options.cell, seed=options.seed)
    model.scaling = data.scaling
    if not quiet:
        print(f"{options.data}: {len(data.series):,} steps, {data.end:,} to learn from; {', '.join(options.column)}")
        model.summary()
    learned = training_run.learn(
        model,
        data.training.xs,
        data.training.ts[:, 0],
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=Adam(options.lr),
        validation_data=(data.validation.xs, data.validation.ts[:, 0]),
        metrics=("loss", "mae"),
        callbacks=[
            LearningRateScheduler(lambda epoch, _: training_run.learning_rate(epoch, options.epochs, options.lr)),
            CSVLogger(folder / run_folder.HISTORY),
            EarlyStopping("val_loss", patience=options.epochs, restore_best_weights=True),
        ],
        shards=options.shards,
        grad_precision=options.grad_precision,
        device=options.device,
        precision=options.precision,
        folder=folder,
        quiet=quiet,
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    model = SequenceRegressor.load(folder / run_folder.MODEL)
    ahead, came = _held_out_forecasts(model, options, data)
    intervals = _intervals(came - ahead, options.interval)
    errors = np.sqrt(np.square(came - ahead).mean(axis=0))
    naive = np.sqrt(np.square(came - _last_values(options, data)[:, None]).mean(axis=0))
    forecast = continued(model, data.series, options.horizon, options.steps)
    write_atomically(folder / FORECAST, table(options.column, len(data.series), forecast, intervals).encode())
    result = {
        "rms_error": {
            name: {"1 step": errors[0, d], f"{options.horizon} steps": errors[-1, d]}
            for d, name in enumerate(options.column)
        },
        "rms_error_of_the_last_value": {
            name: {"1 step": naive[0, d], f"{options.horizon} steps": naive[-1, d]}
            for d, name in enumerate(options.column)
        },
    }
    training_run.write_config(
        folder,
        TASK,
        options,
        length=len(data.series),
        last_values=data.series[-options.steps :].tolist(),
        intervals={"lower": intervals.lower.tolist(), "upper": intervals.upper.tolist()},
        result=result,
    )
    for d, name in enumerate(options.column):
        print(
            f"{name}: held out, 1 step ahead {errors[0, d]:.4g} off (root mean square; the last value "
            f"{naive[0, d]:.4g}), {options.horizon} steps ahead {errors[-1, d]:.4g} (the last value "
            f"{naive[-1, d]:.4g})"
        )
    print(f"{options.epochs} epochs, the best one counts; {learned.took}")
    pictures = plots.of_loss(f"Series, {Path(options.data).name}", "mean squared error", {"": learned.history})
    pictures[PICTURE] = lambda path: plot_forecast(
        path,
        f"{Path(options.data).name}: {options.horizon} steps ahead, with {options.interval:.0%} intervals",
        options.column,
        data.series,
        data.end,
        data.scaling.undo(model.predict(data.validation.xs)),
        forecast,
        (forecast + intervals.lower, forecast + intervals.upper),
    )
    return training_run.finish(folder, TASK, learned.code, pictures)


def _held_out_forecasts(model: SequenceRegressor, options: Options, data: Data) -> tuple[FloatArray, FloatArray]:
    """Forecasts from every step of the held-out end and what came, both (M, horizon, D)."""
    ends = windows(data.series[data.end - options.steps :], options.steps, options.horizon)
    scaled = data.scaling.apply(ends.xs)
    return data.scaling.undo(model.generate(scaled, options.horizon)), ends.ts


def _last_values(options: Options, data: Data) -> FloatArray:
    """What came last before each of the forecasts, (M, D): the simplest forecast of all."""
    ends = windows(data.series[data.end - options.steps :], options.steps, options.horizon)
    return ends.xs[:, -1]


def _intervals(residuals: FloatArray, share: float) -> Intervals:
    """The limits between which the share of the residuals (M, horizon, D) of each step lies."""
    tail = (1 - share) / 2
    return Intervals(np.quantile(residuals, tail, axis=0), np.quantile(residuals, 1 - tail, axis=0))


def continued(model: SequenceRegressor, values: FloatArray, length: int, steps: int) -> FloatArray:
    """How a series (L, D) goes on, (length, D): what the model says to its last ``steps`` values."""
    assert model.scaling is not None
    scaled = model.scaling.apply(values[-steps:])
    return model.scaling.undo(model.generate(scaled, length))


def table(columns: Sequence[str], first: int, forecast: FloatArray, intervals: Intervals) -> str:
    """A line a step: its number, and of each column the forecast and its limits, as far as there are some."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(f"{name}{of}" for name in columns for of in ("", " lower", " upper"))])
    for step, values in enumerate(forecast):
        row: list[str] = []
        for d, value in enumerate(values):
            known = step < len(intervals.lower)
            limits = [value + limit[step, d] for limit in intervals] if known else []
            row += [f"{number:.6g}" for number in (value, *limits)] + [""] * (2 - len(limits))
        writer.writerow([first + step, *row])
    return text.getvalue()


def forecast(folder: Path, config: Mapping[str, Any], data: str | None, length: int | None) -> str:
    """How the series of a run goes on, or that of another file with the same columns, as a table."""
    options = run_folder.read_options(folder, TASK, Options)
    model = SequenceRegressor.load(folder / run_folder.MODEL)
    if model.scaling is None or "intervals" not in config:
        raise ValueError(f"{folder} has no scaling and no intervals; train it with: fastlstm train series")
    values = np.array(config["last_values"]) if data is None else read_series(data, options.column)
    if len(values) < options.steps:
        raise ValueError(f"{data} has {len(values)} rows, expected at least the {options.steps} that the model reads")
    horizon = options.horizon if length is None else length
    if horizon > options.horizon:
        print(f"beyond {options.horizon} steps there are no intervals: --horizon of the training", file=sys.stderr)
    intervals = Intervals(*(np.array(config["intervals"][name]) for name in Intervals._fields))
    first = config["length"] if data is None else len(values)
    return table(options.column, first, continued(model, values, horizon, options.steps), intervals).rstrip("\n")
