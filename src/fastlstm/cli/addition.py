"""Teach a Seq2seq to add: 16+75 -> 91, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastlstm.callbacks import Callback, CSVLogger, LearningRateScheduler
from fastlstm.cli import run_folder, training_run
from fastlstm.cli.generate import answers
from fastlstm.cli.plots import plot_runs
from fastlstm.contract import Precision
from fastlstm.datasets import SequencePairs, addition, hold_out, read_addition
from fastlstm.datasets.addition import WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.datasets.pairs import decode
from fastlstm.models import Seq2seq
from fastlstm.ops.device import Device
from fastlstm.optim import Adam
from fastlstm.training.progress import say

TASK = "addition"
SAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data."""

    data: str | None = None
    epochs: int = 25
    batch_size: int = 128
    hidden_size: int = 128
    wordvec_size: int = 16
    max_grad: float = 5.0
    reversed: bool = True
    peeky: bool = True
    share_embedding: bool = False
    compare: bool = False
    seed: int = 0
    device: Device = "cpu"
    precision: Precision | None = None


# The three models of --compare: folder, label, what differs from the plain model.
COMPARED: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("separate", "separate embeddings", {}),
    ("reversed", "reversed input", {"reversed": True}),
    ("shared", "shared embedding", {"share_embedding": True}),
)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train addition``."""
    return training_run.run(args, TASK, Options, resolve=_resolve, prepare=_data, train=_begin, describe=describe)


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    given = dict(given)
    if given.get("compare"):
        for name in ("reversed", "share_embedding"):
            if name in given:
                raise ValueError(f"--compare trains models with and without --{name.replace('_', '-')}; leave it out")
        given = {"peeky": False, **given, "reversed": False}
    if "data" in given:
        # As seen from anywhere: the run may be resumed from another folder.
        given["data"] = str(find_file(given["data"], WHERE_TO_GET_IT).resolve())
    return Options(**given)


def _data(options: Options) -> SequencePairs:
    pairs = addition(seed=options.seed) if options.data is None else read_addition(options.data)
    if len(pairs.xs) < 10:
        raise ValueError(f"{options.data} has {len(pairs.xs)} lines, expected at least 10: a tenth is held out")
    return pairs


def describe(pairs: SequencePairs) -> dict[str, Any]:
    """What config.json says of the pairs."""
    return {"question_length": pairs.xs.shape[1], "answer_length": pairs.ts.shape[1]}


def _begin(folder: Path, options: Options, pairs: SequencePairs, quiet: bool) -> int:
    return (_compare if options.compare else _train)(folder, options, pairs, quiet)


def _train(folder: Path, options: Options, pairs: SequencePairs, quiet: bool) -> int:
    """Train one model into the folder, from its checkpoint if it has one."""
    training, held_out = hold_out(pairs)
    model = Seq2seq(
        len(pairs.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        reverse_source=options.reversed,
        peeky=options.peeky,
        share_embedding=options.share_embedding,
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
            LearningRateScheduler(lambda epoch, _: learning_rate(epoch, options.epochs)),
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
    plot_runs(folder, "Addition", {"": history})
    right = f"{accuracy:.2%} of {len(held_out.xs):,} held-out sums right"
    print(f"{right} after {options.epochs} epochs, {learned.seconds:.1f} s")
    print(f"run folder: {folder}")
    return 0


def learning_rate(epoch: int, epochs: int, start: float = Adam().lr) -> float:
    """The rate to start with, Adam's usual one; in the last two fifths it falls linearly.

    At a constant rate the accuracy falls back by several percent in one epoch out of four, maybe in the last.
    """
    return start * min(1.0, (epochs - epoch) / (0.4 * epochs))


def _compare(folder: Path, options: Options, pairs: SequencePairs, quiet: bool) -> int:
    """Train the models of COMPARED, each into a folder of its own; those that are finished stay as they are."""
    histories = {}
    for name, label, changes in COMPARED:
        run = folder / name
        run_options = dataclasses.replace(options, compare=False, **changes)
        if not (run / run_folder.MODEL).exists():
            run.mkdir(exist_ok=True)
            training_run.write_config(run, TASK, run_options, **describe(pairs))
            print(label)
            if code := _train(run, run_options, pairs, quiet):
                return code
        histories[label] = run_folder.read_history(run)
    plot_runs(folder, "Addition", histories)
    print(f"run folder: {folder}")
    return 0


class Samples(Callback):
    """Prints a few held-out sums after each epoch, with the model's answers."""

    def __init__(self, model: Seq2seq, pairs: SequencePairs) -> None:
        super().__init__()
        self._model = model
        self._xs, self._ts = pairs.xs[:SAMPLES], pairs.ts[:SAMPLES]
        self._vocabulary = pairs.vocabulary

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:  # noqa: ARG002
        said = answers(self._model, self._xs, self._ts.shape[1] - 1)
        lines = []
        for x, t, got in zip(self._xs, self._ts[:, 1:], said, strict=True):
            question, right = decode(x, self._vocabulary), decode(t, self._vocabulary).strip()
            lines.append(f"  {question} = {got:5} {'right' if got == right else f'wrong, {right}'}")
        say("\n".join(lines))
