"""What the trainings on made questions and answers share: sums and dates, a tenth of them held out."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastlstm.callbacks import Callback, CSVLogger
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.generate import answers
from fastlstm.cli.option_types import COUNT, POSITIVE
from fastlstm.cli.plots import Pictures
from fastlstm.contract import Precision
from fastlstm.datasets import SequencePairs, hold_out
from fastlstm.datasets.pairs import decode
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import Seq2seq
from fastlstm.ops.device import Device
from fastlstm.training.progress import say

SAMPLES = 5
FILES = (run_folder.MODEL, "loss.png", "accuracy.png")


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """What fixes a training to the bit, together with the data."""

    data: str | None = None
    epochs: int = 25
    batch_size: int = 128
    hidden_size: int = 128
    wordvec_size: int = 16
    max_grad: float = 5.0
    reversed: bool = True
    seed: int = 0
    shards: int = 1
    grad_precision: GradPrecision | None = None
    device: Device = "cpu"
    precision: Precision | None = None


def add_options(parser: argparse.ArgumentParser, defaults: PairOptions, pairs: str) -> None:
    """The options that both have, without defaults; pairs: what they are called."""
    add = parser.add_argument
    add("--data", metavar="FILE", help=f"read the {pairs} from a file, plain or packed, instead of generating 50,000")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=COUNT, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--max-grad", type=POSITIVE, help=f"clip the gradients' norm, default {defaults.max_grad:g}")


def load(
    options: PairOptions, make: Callable[..., SequencePairs], read: Callable[[str], SequencePairs]
) -> SequencePairs:
    """The pairs of the file, or as many as `make` makes."""
    pairs = make(seed=options.seed) if options.data is None else read(options.data)
    if len(pairs.xs) < 10:
        raise ValueError(f"{options.data} has {len(pairs.xs)} lines, expected at least 10: a tenth is held out")
    return pairs


def describe(pairs: SequencePairs) -> dict[str, Any]:
    """What config.json says of the pairs."""
    return {"question_length": pairs.xs.shape[1], "answer_length": pairs.ts.shape[1]}


def train(
    folder: Path,
    task: str,
    options: PairOptions,
    model: Seq2seq,
    pairs: SequencePairs,
    *,
    answers_are: str,
    callbacks: Sequence[Callback] = (),
    pictures: Callable[[], Pictures] = dict,
    quiet: bool,
) -> int:
    """Train the model into the folder, from its checkpoint if it has one; ``pictures`` are more to draw of it then."""
    training, held_out = hold_out(pairs)
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
        callbacks=[*callbacks, CSVLogger(folder / run_folder.HISTORY), *shown],
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
    history = learned.history
    accuracy = history["val_accuracy"][-1]
    training_run.write_config(
        folder, task, options, **describe(pairs), result={"accuracy": accuracy, "loss": history["val_loss"][-1]}
    )
    right = f"{accuracy:.2%} of {len(held_out.xs):,} held-out {answers_are} right"
    print(f"{right} after {options.epochs} epochs, {learned.took}")
    curves = plots.of_answers(task.capitalize(), {"": history})
    return training_run.finish(folder, task, learned.code, {**curves, **pictures()})


class Samples(Callback):
    """Prints a few held-out questions after each epoch, with the model's answers."""

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
