"""Teach a Seq2seq with attention to read dates: september 27, 1994 -> 1994-09-27, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.cli import pairs, training_run
from fastlstm.cli.pairs import PairOptions
from fastlstm.cli.plots import AttentionMap, Pictures, plot_attention
from fastlstm.datasets import SequencePairs, dates, hold_out, read_dates
from fastlstm.datasets.dates import START, WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.models import Seq2seq

TASK = "dates"
ATTENTION = "attention.png"
MAPS = 6


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
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train dates``."""
    return training_run.run(
        args,
        TASK,
        Options,
        resolve=_resolve,
        prepare=_data,
        train=_train,
        files=lambda options: [*pairs.FILES, *([ATTENTION] if options.attention else [])],
        describe=pairs.describe,
    )


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if options.data is not None:
        # As seen from anywhere: the run may be resumed from another folder.
        options = dataclasses.replace(options, data=str(find_file(options.data, WHERE_TO_GET_IT).absolute()))
    return options


def _data(options: Options) -> SequencePairs:
    return pairs.load(options, dates, read_dates)


def _train(folder: Path, options: Options, given: SequencePairs, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    model = Seq2seq(
        len(given.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        reverse_source=options.reversed,
        bidirectional=options.bidirectional,
        attention=options.attention,
        seed=options.seed,
    )

    def pictures() -> Pictures:
        if not options.attention:
            return {}
        maps = _attention_maps(model, hold_out(given)[1])
        return {ATTENTION: lambda path: plot_attention(path, "Dates: where the model looks", maps)}

    return pairs.train(folder, TASK, options, model, given, answers_are="dates", pictures=pictures, quiet=quiet)


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
