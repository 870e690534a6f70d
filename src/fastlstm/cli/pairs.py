"""What the trainings on made questions and answers share: sums and dates, a tenth of them held out."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm.callbacks import Callback
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, POSITIVE
from fastlstm.cli.plots import Pictures
from fastlstm.cli.task import RunOptions
from fastlstm.contract import IntArray
from fastlstm.datasets import SequencePairs, hold_out
from fastlstm.datasets.addition import START
from fastlstm.datasets.pairs import decode, encode
from fastlstm.models import Seq2seq
from fastlstm.optim import Adam
from fastlstm.training.progress import say

SAMPLES = 5
FILES = (run_folder.MODEL, "loss.png", "accuracy.png")
DATA_OPTIONS = ("data", "validation")


@dataclasses.dataclass(frozen=True)
class PairOptions(RunOptions):
    """What fixes a training to the bit, together with the data."""

    data: str | None = None
    epochs: int = 25
    batch_size: int = 128
    hidden_size: int = 128
    wordvec_size: int = 16
    lr: float = Adam().lr
    max_grad: float = 5.0
    reversed: bool = True


class PairData(NamedTuple):
    """Pairs to learn from, to validate and to test on, and the model."""

    training: SequencePairs
    held_out: SequencePairs
    test: SequencePairs | None
    model: Seq2seq


def add_options(parser: argparse.ArgumentParser, defaults: PairOptions, pairs: str) -> None:
    """The options that both have, without defaults; pairs: what they are called."""
    add = parser.add_argument
    add("--data", metavar="FILE", help=f"read the {pairs} from a file, plain or packed, instead of generating 50,000")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=COUNT, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--lr", type=POSITIVE, help=f"learning rate of Adam, default {defaults.lr:g}")
    add("--max-grad", type=POSITIVE, help=f"clip the gradients' norm, default {defaults.max_grad:g}")


def load(
    options: PairOptions,
    make: Callable[..., SequencePairs],
    read: Callable[[str], SequencePairs],
    model: Callable[[SequencePairs], Seq2seq],
) -> PairData:
    """The pairs of the file, or as many as `make` makes, and a model for them."""
    pairs = make(seed=options.seed) if options.data is None else read(options.data)
    if options.validation is not None:
        parts = pairs, read(options.validation)
    elif len(pairs.xs) < 10:
        raise ValueError(f"{options.data} has {len(pairs.xs)} lines, expected at least 10: a tenth is held out")
    else:
        parts = hold_out(pairs)
    return PairData(*parts, None if options.test is None else read(options.test), model(pairs))


def describe(data: PairData) -> dict[str, Any]:
    """What config.json says of the pairs."""
    training, held_out, test, _ = data
    return {
        "rows": {
            "training": len(training.xs),
            "validation": len(held_out.xs),
            **({} if test is None else {"test": len(test.xs)}),
        },
        "classes": len(training.vocabulary),
        "question_length": training.xs.shape[1],
        "answer_length": training.ts.shape[1],
    }


def train(
    folder: Path,
    task: str,
    options: PairOptions,
    data: PairData,
    *,
    answers_are: str,
    shared_epochs: int,
    callbacks: Sequence[Callback] = (),
    pictures: Callable[[], Pictures],
    quiet: bool,
) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    training, held_out, test, model = data
    if not quiet:
        model.summary()
    shown: list[Callback] = [] if quiet else [Samples(model, held_out)]
    learned = training_run.learn(
        model,
        training.xs,
        training.ts,
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=Adam(options.lr),
        shared_epochs=shared_epochs,
        monitor="val_accuracy",
        batch_size=options.batch_size,
        max_grad=options.max_grad,
        validation_data=(held_out.xs, held_out.ts),
        metrics=("loss", "accuracy"),
        callbacks=[*callbacks, *shown],
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    accuracy, loss = (learned.history[name][learned.best] for name in ("val_accuracy", "val_loss"))
    result = {"accuracy": accuracy, "loss": loss}
    right = f"{accuracy:.2%} of {len(held_out.xs):,} held-out {answers_are} right"
    if test is not None:
        measured = model.evaluate(test.xs, test.ts)
        result |= {f"test_{name}": measured[name] for name in ("accuracy", "loss")}
        right = f"{measured['accuracy']:.2%} of {len(test.xs):,} {answers_are} to test on, {right}"
    training_run.write_config(folder, task, options, result=result)
    print(f"{right} after {learned.told}")
    return training_run.finish(folder, learned.code, pictures())


def measure(folder: Path, pairs: SequencePairs) -> dict[str, float]:
    """Loss and share of right answers of a run's model."""
    model = run_folder.load_model(Seq2seq, folder)
    if model.vocabulary != pairs.vocabulary:
        raise ValueError(f"the model of {folder} has other symbols than {''.join(pairs.vocabulary)!r}")
    measured = model.evaluate(pairs.xs, pairs.ts)
    return {"rows": len(pairs.xs), "loss": measured["loss"], "accuracy": measured["accuracy"]}


def curves(task: str, folder: Path) -> Pictures:
    """loss.png and accuracy.png of a run."""
    return plots.of_answers(task.capitalize(), {"": run_folder.read_history(folder)})


def answers(model: Seq2seq, xs: IntArray, length: int) -> list[str]:
    """What the model says to each question, without the blanks at the end."""
    vocabulary = known_symbols(model)
    return [decode(ids, vocabulary).strip() for ids in model.generate(xs, vocabulary.index(START), length)]


def known_symbols(model: Seq2seq) -> list[str]:
    """The model's vocabulary; raises if it is not that of sums or dates."""
    if model.vocabulary is None or START not in model.vocabulary:
        raise ValueError("the model has no vocabulary with the start symbol; train it with: fastlstm train addition")
    return model.vocabulary


def answerer(folder: Path, config: Mapping[str, Any]) -> Callable[[str], str]:
    """What answers a question by the model of a run."""
    model = run_folder.load_model(Seq2seq, folder)
    vocabulary = known_symbols(model)

    def answer(question: str) -> str:
        question = question.strip()
        (said,) = answers(model, _encode(question, vocabulary, config["question_length"]), config["answer_length"] - 1)
        return f"{question} = {said}"

    return answer


def _encode(question: str, vocabulary: Sequence[str], length: int) -> IntArray:
    if not question:
        raise ValueError("nothing is asked, expected a question such as those of the training")
    if unknown := set(question) - set(vocabulary):
        raise ValueError(f"{question!r}: the model does not know {min(unknown)!r}, only {''.join(vocabulary)!r}")
    if len(question) > length:
        raise ValueError(f"{question!r} is longer than the {length} symbols the model was trained on")
    return encode([question.ljust(length)], vocabulary)


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
