"""Teach a Seq2seq with attention to read dates: september 27, 1994 -> 1994-09-27, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.callbacks import Callback, CSVLogger
from fastlstm.cli import run_folder, training_run
from fastlstm.cli.addition import Samples, describe
from fastlstm.cli.plots import AttentionMap, plot_attention, plot_runs
from fastlstm.contract import Precision
from fastlstm.datasets import SequencePairs, dates, hold_out, read_dates
from fastlstm.datasets.dates import START, WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.models import Seq2seq
from fastlstm.ops.device import Device

TASK = "dates"
MAPS = 6


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data. The default values are the book's AttentionSeq2seq."""

    data: str | None = None
    epochs: int = 10
    batch_size: int = 128
    hidden_size: int = 256
    wordvec_size: int = 16
    max_grad: float = 5.0
    attention: bool = True
    reversed: bool = True
    bidirectional: bool = False
    seed: int = 0
    device: Device = "cpu"
    precision: Precision | None = None


def train(args: argparse.Namespace) -> int:
    """``fastlstm train dates``."""
    return training_run.run(args, TASK, Options, resolve=_resolve, prepare=_data, train=_train, describe=describe)


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if options.data is not None:
        # As seen from anywhere: the run may be resumed from another folder.
        options = dataclasses.replace(options, data=str(find_file(options.data, WHERE_TO_GET_IT).resolve()))
    return options


def _data(options: Options) -> SequencePairs:
    pairs = dates(seed=options.seed) if options.data is None else read_dates(options.data)
    if len(pairs.xs) < 10:
        raise ValueError(f"{options.data} has {len(pairs.xs)} lines, expected at least 10: a tenth is held out")
    return pairs


def _train(folder: Path, options: Options, pairs: SequencePairs, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    training, held_out = hold_out(pairs)
    model = Seq2seq(
        len(pairs.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        reverse_source=options.reversed,
        bidirectional=options.bidirectional,
        attention=options.attention,
        seed=options.seed,
    )
    model.vocabulary = pairs.vocabulary
    if not quiet:
        model.summary()
    shown: list[Callback] = [] if quiet else [Samples(model, held_out)]
    learned = training_run.learn(
        model,
        training.xs,
        training.ts,
        epochs=options.epochs,
        batch_size=options.batch_size,
        max_grad=options.max_grad,
        validation_data=(held_out.xs, held_out.ts),
        metrics=("loss", "accuracy"),
        callbacks=[
            CSVLogger(folder / run_folder.HISTORY),
            *shown,
        ],
        device=options.device,
        precision=options.precision,
        folder=folder,
        quiet=quiet,
    )
    if learned is None:
        return 1
    training_run.save(model, folder)
    history = learned.history
    accuracy = history["val_accuracy"][-1]
    training_run.write_config(
        folder, TASK, options, **describe(pairs), result={"accuracy": accuracy, "loss": history["val_loss"][-1]}
    )
    plot_runs(folder, "Dates", {"": history})
    if options.attention:
        plot_attention(folder / "attention.png", "Dates: where the model looks", _attention_maps(model, held_out))
    right = f"{accuracy:.2%} of {len(held_out.xs):,} held-out dates right"
    print(f"{right} after {options.epochs} epochs, {learned.seconds:.1f} s")
    print(f"run folder: {folder}")
    return 0


def _attention_maps(model: Seq2seq, pairs: SequencePairs) -> list[AttentionMap]:
    """Where the model looked while it wrote the first answers."""
    xs, ts, vocabulary = pairs.xs[:MAPS], pairs.ts[:MAPS], pairs.vocabulary
    start = np.full((len(xs), 1), vocabulary.index(START))
    written = model.generate(xs, int(start[0, 0]), ts.shape[1] - 1)
    weights = model.attention_map(xs, np.concatenate((start, written), axis=1))
    return [
        AttentionMap([vocabulary[i] for i in x], [vocabulary[i] for i in said], weight)
        for x, said, weight in zip(xs, written, weights, strict=True)
    ]
