"""Teach a Seq2seq to add: 16+75 -> 91, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastlstm.callbacks import LearningRateScheduler
from fastlstm.cli import pairs, plots, run_folder, training_run, worker
from fastlstm.cli.pairs import PairData, PairOptions
from fastlstm.cli.plots import Pictures
from fastlstm.cli.task import Initial
from fastlstm.datasets import addition, read_addition
from fastlstm.datasets.addition import WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.distributed.workers import wait_for_all
from fastlstm.models import Seq2seq

TASK = "addition"


MODEL_OPTIONS = ("hidden_size", "wordvec_size", "reversed", "peeky", "share_embedding")
DATA_OPTIONS = pairs.DATA_OPTIONS
describe = pairs.describe


@dataclasses.dataclass(frozen=True)
class Options(PairOptions):
    """What fixes a training to the bit, together with the data."""

    peeky: bool = True
    share_embedding: bool = False
    compare: bool = False


# The three models of --compare: folder, label, what differs from the plain model.
COMPARED: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("separate", "separate embeddings", {}),
    ("reversed", "reversed input", {"reversed": True}),
    ("shared", "shared embedding", {"share_embedding": True}),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train addition``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    pairs.add_options(parser, defaults, "sums")
    add("--reversed", action=switch, help="read the question from its end; default yes")
    add("--peeky", action=switch, help="show the encoder's state to every decoder step; default yes, with --compare no")
    add("--share-embedding", action=switch, help="one embedding for questions and answers; default no")
    add("--compare", action="store_true", default=None, help="train separate embeddings, reversed, shared embedding")
    training_run.add_run_options(parser, TASK)


def files(options: Options) -> list[str]:
    if not options.compare:
        return [*pairs.FILES]
    _, *pictures_of_all = pairs.FILES
    return [*pictures_of_all, *(f"{name}/{file}" for name, _, _ in COMPARED for file in pairs.FILES)]


def shared_epochs(options: Options) -> int:
    return training_run.epochs_at_full_rate(options.epochs)


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    given = dict(given)
    if given.get("compare"):
        if "init_from" in given:
            raise ValueError("--compare trains several models; leave --init-from out")
        for name in ("reversed", "share_embedding"):
            if name in given:
                raise ValueError(f"--compare trains models with and without --{name.replace('_', '-')}; leave it out")
        given = {"peeky": False, **given, "reversed": False}
    if "data" in given:
        # As seen from anywhere: the run may be resumed from another folder.
        given["data"] = str(find_file(given["data"], WHERE_TO_GET_IT).absolute())
    return Options(**given)


def prepare(options: Options, initial: Initial | None) -> PairData:
    """Sums and a model; with --compare the plain one."""
    return pairs.load(options, addition, read_addition, lambda sums: _model(options, sums.vocabulary, initial))


def _model(options: Options, vocabulary: Sequence[str], initial: Initial | None = None) -> Seq2seq:
    model = Seq2seq(
        len(vocabulary),
        options.wordvec_size,
        options.hidden_size,
        reverse_source=options.reversed,
        peeky=options.peeky,
        share_embedding=options.share_embedding,
        seed=options.seed,
    )
    model.vocabulary = list(vocabulary)
    if initial is not None:
        training_run.begin_with(model, initial.load(Seq2seq))
    return model


def train(folder: Path, options: Options, data: PairData, quiet: bool) -> int:
    """Train one model into the folder, from its checkpoint if it has one; or several."""
    return (_compare if options.compare else _train)(folder, options, data, quiet)


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:  # noqa: ARG001
    """Loss and share of right sums."""
    return pairs.measure(folder, read_addition(path))


def pictures(folder: Path, options: Options, prepared: Callable[[], PairData]) -> Pictures:  # noqa: ARG001
    """The curves of one model, or of those that are compared, as far as they are."""
    if not options.compare:
        return pairs.curves(TASK, folder)
    begun = {label: folder / name for name, label, _ in COMPARED if (folder / name / run_folder.HISTORY).exists()}
    return plots.of_answers("Addition", {label: run_folder.read_history(run) for label, run in begun.items()})


def _train(folder: Path, options: Options, data: PairData, quiet: bool) -> int:
    schedule = LearningRateScheduler(lambda epoch, _: training_run.learning_rate(epoch, options.epochs, options.lr))
    return pairs.train(
        folder,
        TASK,
        options,
        data,
        answers_are="sums",
        shared_epochs=shared_epochs(options),
        callbacks=[schedule],
        pictures=lambda: pictures(folder, options, lambda: data),
        quiet=quiet,
    )


def _compare(folder: Path, options: Options, data: PairData, quiet: bool) -> int:
    """Train the models of COMPARED, each into a folder of its own; those that are finished stay as they are."""
    accuracies, code = {}, 0
    for name, label, changes in COMPARED:
        run = folder / name
        run_options = dataclasses.replace(options, compare=False, **changes)
        if worker.is_first() and not (run / run_folder.CONFIG).exists():
            run.mkdir(exist_ok=True)
            training_run.write_config(run, TASK, run_options, **describe(data))
        wait_for_all(worker.workers())
        if not training_run.is_finished(run, TASK, pairs.FILES):
            print(label)
            code = (
                _train(run, run_options, data._replace(model=_model(run_options, data.training.vocabulary)), quiet)
                or code
            )
            if not (run / run_folder.MODEL).exists():
                return code
        accuracies[name] = run_folder.read_config(run, TASK).get("result", {}).get("accuracy")
    training_run.write_config(folder, TASK, options, result={"accuracy": accuracies})
    return training_run.finish(folder, code, pictures(folder, options, lambda: data))
