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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.callbacks import LearningRateScheduler
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, FACTOR, POSITIVE, SHARE, STEP_COUNT
from fastlstm.cli.plots import Pictures, plot_forecast
from fastlstm.cli.task import Initial, RunOptions
from fastlstm.cli.training_run import Learned
from fastlstm.contract import FloatArray
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.tables import WHERE_TO_GET_A_TABLE, read_series
from fastlstm.datasets.windows import Scaling, Windows, windows
from fastlstm.models import SequenceRegressor
from fastlstm.models.sequence_encoder import CELLS
from fastlstm.optim import Adam
from fastlstm.tensor_file import write_atomically

TASK = "series"
FORECAST = "forecast.csv"
PICTURE = "forecast.png"
FILES = (run_folder.MODEL, FORECAST, PICTURE, "loss.png")
LEAST_FORECASTS = 10  # of the held-out end, whose residuals make an interval


MODEL_OPTIONS = ("column", "steps", "cell", "hidden_size")
DATA_OPTIONS = ("data", "hold_out", "validation")


@dataclasses.dataclass(frozen=True)
class RegressionOptions(RunOptions):
    """How a SequenceRegressor learns a series."""

    hidden_size: int = 32
    batch_size: int = 32
    lr: float = 0.003
    epochs: int = 100


@dataclasses.dataclass(frozen=True)
class Options(RegressionOptions):
    """What fixes a training to the bit, together with the data."""

    data: str = ""
    column: Sequence[str] = ()
    steps: int = 24
    horizon: int = 12
    interval: float = 0.9
    cell: str = "lstm"
    hold_out: float = 0.2


class Data(NamedTuple):
    """A series (L, D), of which the first ``end`` steps are learned, its scaling and its scaled windows, the model.

    ``held_out`` is what is forecast to see how good the model is, with the steps before that it reads.
    """

    series: FloatArray
    end: int
    held_out: FloatArray
    scaling: Scaling
    training: Windows
    validation: Windows
    model: SequenceRegressor


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
    add("--cell", choices=CELLS, help=f"default {defaults.cell}")
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
    training_run.add_run_options(parser, TASK, files="a CSV file with the same columns")


def files(_: Options) -> Sequence[str]:
    return FILES


def shared_epochs(options: RegressionOptions) -> int:
    return training_run.epochs_at_full_rate(options.epochs)


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if not options.data or not options.column:
        raise ValueError("give --data, a CSV file, and --column, the name of a column of it")
    if options.validation is not None:
        if given.get("hold_out"):
            raise ValueError("--validation is validated on; leave --hold-out out")
        options = dataclasses.replace(options, hold_out=0.0)
    # As seen from anywhere: the run may be resumed from another folder.
    return dataclasses.replace(options, data=from_anywhere(find_file(options.data, WHERE_TO_GET_A_TABLE)))


def prepare(options: Options, initial: Initial | None) -> Data:
    """The series and a model for it."""
    series = read_series(options.data, options.column)
    end = len(series) - int(len(series) * options.hold_out)
    if options.validation is None:
        held_out = series[max(end - options.steps, 0) :]
    else:
        held_out = read_series(options.validation, options.column)
    forecasts = len(held_out) - options.steps - options.horizon + 1
    if end < options.steps + 1 or forecasts < LEAST_FORECASTS:
        raise ValueError(
            f"{options.data} has {len(series)} rows, {end} to learn from and {len(held_out) - options.steps} held out; "
            f"expected at least {options.steps + 1} (--steps {options.steps} and the next) and "
            f"{options.horizon + LEAST_FORECASTS - 1} ({LEAST_FORECASTS} forecasts of --horizon {options.horizon}); a "
            "longer series or other numbers help"
        )
    D = series.shape[1]
    model = SequenceRegressor(D, options.hidden_size, D, cell=options.cell, seed=options.seed)
    begun = None if initial is None else initial.load(SequenceRegressor)
    scaling = Scaling.of(series[:end]) if begun is None or begun.scaling is None else begun.scaling
    model.scaling = scaling
    if begun is not None:
        training_run.begin_with(model, begun)
    training = windows(scaling.apply(series[:end]), options.steps, 1)
    return Data(series, end, held_out, scaling, training, windows(scaling.apply(held_out), options.steps, 1), model)


def describe(data: Data) -> dict[str, Any]:
    """What config.json says of the series."""
    return {
        "rows": {"training": len(data.training.xs), "validation": len(data.validation.xs)},
        "length": len(data.series),
        "last_values": data.series[-data.training.xs.shape[1] :].tolist(),
    }


def learn(
    model: SequenceRegressor,
    xs: FloatArray,
    ts: FloatArray,
    options: RegressionOptions,
    folder: Path,
    *,
    best_counts: bool,
    quiet: bool,
    **validation: Any,
) -> Learned | None:
    """Teach a model what follows each piece of a series; also of `fastlstm.cli.sine`.

    Parameters
    ----------
    xs : (M, steps, D), ts : (M, D)
    options, folder, best_counts, quiet
        As for `training_run.learn`.
    validation
        What ``fit`` is told of it.
    """
    if not quiet:
        model.summary()
    return training_run.learn(
        model,
        xs,
        ts,
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=Adam(options.lr),
        shared_epochs=shared_epochs(options),
        monitor="val_loss",
        best_counts=best_counts,
        batch_size=options.batch_size,
        metrics=("loss", "mae"),
        callbacks=[
            # At a constant rate the weights never settle, and in 300 steps small differences add up to half a turn.
            LearningRateScheduler(lambda epoch, _: training_run.learning_rate(epoch, options.epochs, options.lr))
        ],
        **validation,
    )


def train(folder: Path, options: Options, data: Data, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    if not quiet:
        print(f"{options.data}: {len(data.series):,} steps, {data.end:,} to learn from; {', '.join(options.column)}")
    learned = learn(
        data.model,
        data.training.xs,
        data.training.ts[:, 0],
        options,
        folder,
        best_counts=True,
        quiet=quiet,
        validation_data=(data.validation.xs, data.validation.ts[:, 0]),
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    model = SequenceRegressor.load(folder / run_folder.MODEL)
    intervals = _intervals_of(model, options, data)
    forecast = continued(model, data.series, options.horizon, options.steps)
    write_atomically(folder / FORECAST, table(options.column, len(data.series), forecast, intervals).encode())
    off, naive = _errors(model, data.held_out, options)
    result: dict[str, Any] = {
        "rms_error": _by_column(options, off),
        "rms_error_of_the_last_value": _by_column(options, naive),
    }
    if options.test is not None:
        tested, _ = _errors(model, read_series(options.test, options.column), options)
        result["test_rms_error"] = _by_column(options, tested)
    training_run.write_config(
        folder,
        TASK,
        options,
        intervals={"lower": intervals.lower.tolist(), "upper": intervals.upper.tolist()},
        result=result,
    )
    for d, name in enumerate(options.column):
        print(
            f"{name}: held out, 1 step ahead {off[0, d]:.4g} off (root mean square; the last value {naive[0, d]:.4g}), "
            f"{options.horizon} steps ahead {off[-1, d]:.4g} (the last value {naive[-1, d]:.4g})"
        )
    print(learned.told)
    return training_run.finish(folder, learned.code, pictures(folder, options, lambda: data))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:
    """How far forecasts of the steps of a file are off, beside its last values."""
    series = read_series(path, options.column)
    off, naive = _errors(run_folder.load_model(SequenceRegressor, folder), series, options)
    figures: dict[str, float] = {"rows": len(series)}
    for d, name in enumerate(options.column):
        for step in {1: "1 step", options.horizon: f"{options.horizon} steps"}.items():
            figures[f"{name} {step[1]} ahead, rms error"] = float(off[step[0] - 1, d])
            figures[f"{name} {step[1]} ahead, rms error of the last value"] = float(naive[step[0] - 1, d])
    return figures


def pictures(folder: Path, options: Options, prepared: Callable[[], Data]) -> Pictures:
    """The loss by epoch, and the forecast."""
    history = run_folder.read_history(folder)
    drawn = plots.of_loss(f"Series, {Path(options.data).name}", "mean squared error", {"": history})

    def draw(path: Path) -> None:
        data = prepared()
        model = run_folder.load_model(SequenceRegressor, folder)
        forecast = continued(model, data.series, options.horizon, options.steps)
        intervals = _intervals_of(model, options, data)
        plot_forecast(
            path,
            f"{Path(options.data).name}: {options.horizon} steps ahead, with {options.interval:.0%} intervals",
            options.column,
            data.series,
            data.end,
            data.scaling.undo(model.predict(data.validation.xs))[: len(data.series) - data.end],
            forecast,
            (forecast + intervals.lower, forecast + intervals.upper),
        )

    drawn[PICTURE] = draw
    return drawn


def _forecasts(model: SequenceRegressor, series: FloatArray, options: Options) -> tuple[FloatArray, FloatArray]:
    """From every step of a series that has enough before it: forecasts and what came, both (M, horizon, D)."""
    assert model.scaling is not None
    pieces = windows(series, options.steps, options.horizon)
    return model.scaling.undo(model.generate(model.scaling.apply(pieces.xs), options.horizon)), pieces.ts


def _errors(model: SequenceRegressor, series: FloatArray, options: Options) -> tuple[FloatArray, FloatArray]:
    """Root mean squares (horizon, D) of how far forecasts are off, and of the simplest ones of all: the last value."""
    ahead, came = _forecasts(model, series, options)
    last = windows(series, options.steps, options.horizon).xs[:, -1:]
    return np.sqrt(np.square(came - ahead).mean(axis=0)), np.sqrt(np.square(came - last).mean(axis=0))


def _by_column(options: Options, errors: FloatArray) -> dict[str, dict[str, float]]:
    return {
        name: {"1 step": errors[0, d], f"{options.horizon} steps": errors[-1, d]}
        for d, name in enumerate(options.column)
    }


def _intervals_of(model: SequenceRegressor, options: Options, data: Data) -> Intervals:
    ahead, came = _forecasts(model, data.held_out, options)
    return _intervals(came - ahead, options.interval)


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
    rows: list[list[str]] = [["step", *(f"{name}{of}" for name in columns for of in ("", " lower", " upper"))]]
    for step, values in enumerate(forecast):
        row = [str(first + step)]
        for d, value in enumerate(values):
            known = step < len(intervals.lower)
            limits = [value + limit[step, d] for limit in intervals] if known else []
            row += [f"{number:.6g}" for number in (value, *limits)] + [""] * (2 - len(limits))
        rows.append(row)
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def forecast(folder: Path, config: Mapping[str, Any], data: str | None, length: int | None) -> str:
    """How the series of a run goes on, or that of another file with the same columns, as a table."""
    options = run_folder.read_options(folder, TASK, Options)
    model = run_folder.load_model(SequenceRegressor, folder)
    if model.scaling is None or "last_values" not in config:
        raise ValueError(f"{folder} has no scaling and no last values; train it with: fastlstm train series")
    values = np.array(config["last_values"]) if data is None else read_series(data, options.column)
    if len(values) < options.steps:
        raise ValueError(f"{data} has {len(values)} rows, expected at least the {options.steps} that the model reads")
    horizon = options.horizon if length is None else length
    known = config.get("intervals", {name: np.zeros((0, values.shape[1])) for name in Intervals._fields})
    intervals = Intervals(*(np.array(known[name]) for name in Intervals._fields))
    if "intervals" not in config:
        print("there are no intervals before the training is finished", file=sys.stderr)
    elif horizon > options.horizon:
        print(f"beyond {options.horizon} steps there are no intervals: --horizon of the training", file=sys.stderr)
    first = config["length"] if data is None else len(values)
    return table(options.column, first, continued(model, values, horizon, options.steps), intervals).rstrip("\n")
