"""Teach a Seq2seq with attention to read dates: september 27, 1994 -> 1994-09-27, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli import pairs, run_folder, training_run
from fastlstm.cli.pairs import PairData, PairOptions
from fastlstm.cli.plots import AttentionMap, Pictures, plot_attention
from fastlstm.cli.task import Initial
from fastlstm.datasets import SequencePairs, dates, read_dates
from fastlstm.datasets.dates import START, WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.models import Seq2seq

TASK = "dates"
ATTENTION = "attention.png"
MAPS = 6


MODEL_OPTIONS = ("hidden_size", "wordvec_size", "reversed", "attention", "bidirectional")
DATA_OPTIONS = pairs.DATA_OPTIONS
describe = pairs.describe


@dataclasses.dataclass(frozen=True)
class Options(PairOptions):
    """What fixes a training to the bit, together with the data. The default values are the book's AttentionSeq2seq."""

    epochs: int = 10
    hidden_size: int = 256
    attention: bool = True
    bidirectional: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train dates``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    pairs.add_options(parser, defaults, "dates")
    add("--attention", action=switch, help="look at all states of the encoder; default yes")
    add("--reversed", action=switch, help="read the date from its end; default yes")
    add("--bidirectional", action=switch, help="read the date in both directions; default no")
    training_run.add_run_options(parser, TASK)


def files(options: Options) -> list[str]:
    return [*pairs.FILES, *([ATTENTION] if options.attention else [])]


def shared_epochs(options: Options) -> int:
    return options.epochs


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if options.data is not None:
        # As seen from anywhere: the run may be resumed from another folder.
        options = dataclasses.replace(options, data=str(find_file(options.data, WHERE_TO_GET_IT).absolute()))
    return options


def prepare(options: Options, initial: Initial | None) -> PairData:
    """Dates and a model."""

    def make_model(given: SequencePairs) -> Seq2seq:
        model = Seq2seq(
            len(given.vocabulary),
            options.wordvec_size,
            options.hidden_size,
            reverse_source=options.reversed,
            bidirectional=options.bidirectional,
            attention=options.attention,
            seed=options.seed,
        )
        model.vocabulary = given.vocabulary
        if initial is not None:
            training_run.begin_with(model, initial.load(Seq2seq))
        return model

    return pairs.load(options, dates, read_dates, make_model)


def train(folder: Path, options: Options, data: PairData, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    return pairs.train(
        folder,
        TASK,
        options,
        data,
        answers_are="dates",
        shared_epochs=shared_epochs(options),
        pictures=lambda: pictures(folder, options, lambda: data),
        quiet=quiet,
    )


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:  # noqa: ARG001
    """Loss and share of right dates."""
    return pairs.measure(folder, read_dates(path))


def pictures(folder: Path, options: Options, prepared: Callable[[], PairData]) -> Pictures:
    """The curves, and where the model looks."""
    drawn = pairs.curves(TASK, folder)
    if options.attention:
        drawn[ATTENTION] = lambda path: plot_attention(
            path,
            "Dates: where the model looks",
            _attention_maps(run_folder.load_model(Seq2seq, folder), prepared().held_out),
        )
    return drawn


def _attention_maps(model: Seq2seq, held_out: SequencePairs) -> list[AttentionMap]:
    """Where the model looked while it wrote the first answers."""
    xs, ts, vocabulary = held_out.xs[:MAPS], held_out.ts[:MAPS], held_out.vocabulary
    start = np.full((len(xs), 1), vocabulary.index(START))
    written = model.generate(xs, int(start[0, 0]), ts.shape[1] - 1)
    weights = model.attention_map(xs, np.concatenate((start, written), axis=1))
    return [
        AttentionMap([vocabulary[i] for i in x], [vocabulary[i] for i in said], weight)
        for x, said, weight in zip(xs, written, weights, strict=True)
    ]
