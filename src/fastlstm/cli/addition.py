"""Teach a Seq2seq to add: 16+75 -> 91, symbol by symbol."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastlstm.callbacks import LearningRateScheduler
from fastlstm.cli import pairs, plots, run_folder, training_run, worker
from fastlstm.cli.pairs import PairOptions
from fastlstm.datasets import SequencePairs, addition, read_addition
from fastlstm.datasets.addition import WHERE_TO_GET_IT
from fastlstm.datasets.files import find_file
from fastlstm.distributed.workers import wait_for_all
from fastlstm.models import Seq2seq

TASK = "addition"


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
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train addition``."""
    return training_run.run(
        args,
        TASK,
        Options,
        resolve=_resolve,
        prepare=_data,
        train=_begin,
        files=_files,
        describe=pairs.describe,
    )


def _files(options: Options) -> list[str]:
    if not options.compare:
        return [*pairs.FILES]
    _, *pictures = pairs.FILES
    return [*pictures, *(f"{name}/{file}" for name, _, _ in COMPARED for file in pairs.FILES)]


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
        given["data"] = str(find_file(given["data"], WHERE_TO_GET_IT).absolute())
    return Options(**given)


def _data(options: Options) -> SequencePairs:
    return pairs.load(options, addition, read_addition)


def _begin(folder: Path, options: Options, sums: SequencePairs, quiet: bool) -> int:
    return (_compare if options.compare else _train)(folder, options, sums, quiet)


def _train(folder: Path, options: Options, sums: SequencePairs, quiet: bool) -> int:
    """Train one model into the folder, from its checkpoint if it has one."""
    model = Seq2seq(
        len(sums.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        reverse_source=options.reversed,
        peeky=options.peeky,
        share_embedding=options.share_embedding,
        seed=options.seed,
    )
    schedule = LearningRateScheduler(lambda epoch, _: training_run.learning_rate(epoch, options.epochs))
    return pairs.train(folder, TASK, options, model, sums, answers_are="sums", callbacks=[schedule], quiet=quiet)


def _compare(folder: Path, options: Options, sums: SequencePairs, quiet: bool) -> int:
    """Train the models of COMPARED, each into a folder of its own; those that are finished stay as they are."""
    histories, accuracies, code = {}, {}, 0
    for name, label, changes in COMPARED:
        run = folder / name
        run_options = dataclasses.replace(options, compare=False, **changes)
        if worker.is_first() and not (run / run_folder.CONFIG).exists():
            run.mkdir(exist_ok=True)
            training_run.write_config(run, TASK, run_options, **pairs.describe(sums))
        wait_for_all(worker.workers())
        if not training_run.is_finished(run, TASK, pairs.FILES):
            print(label)
            code = _train(run, run_options, sums, quiet) or code
            if not (run / run_folder.MODEL).exists():
                return code
        histories[label] = run_folder.read_history(run)
        accuracies[name] = histories[label]["val_accuracy"][-1]
    training_run.write_config(folder, TASK, options, **pairs.describe(sums), result={"accuracy": accuracies})
    return training_run.finish(folder, TASK, code, plots.of_answers("Addition", histories))
