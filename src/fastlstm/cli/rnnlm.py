"""Teach a language model what comes next, word by word or character by character."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fastlstm
from fastlstm.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ReduceLROnPlateau, TerminateOnNaN
from fastlstm.cli import run_folder
from fastlstm.cli.plots import plot_perplexity
from fastlstm.contract import IntArray
from fastlstm.datasets import plain_text, ptb
from fastlstm.datasets.files import find_file
from fastlstm.datasets.text import WHERE_TO_GET_TEXT, Text, Unit
from fastlstm.models import RNNLM
from fastlstm.optim import SGD, Adam, Optimizer

TASK = "rnnlm"
PTB = "ptb"


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data. The default values are the book's Rnnlm."""

    data: str = PTB
    unit: Unit = "word"
    cell: str = "lstm"
    hidden_size: int = 100
    wordvec_size: int | None = None
    layers: int = 1
    time_size: int = 35
    batch_size: int = 20
    dropout: float = 0.0
    tie_weights: bool = False
    optimizer: str = "sgd"
    lr: float | None = None
    max_grad: float | None = None
    epochs: int = 4
    limit: int | None = None
    hold_out: float | None = None
    seed: int = 0


class Data(NamedTuple):
    """Ids to learn from, and to validate and to test on where there are some."""

    vocabulary: list[str]
    training: IntArray
    validation: IntArray | None
    test: IntArray | None


def train(args: argparse.Namespace) -> int:
    """``fastlstm train rnnlm``."""
    given = run_folder.given_options(args, Options)
    if args.threads is not None:
        fastlstm.set_num_threads(args.threads)
    if args.resume is not None:
        run_folder.check_resume(args, given)
        folder = Path(args.resume)
        options = run_folder.read_options(folder, TASK, Options)
        if (folder / run_folder.MODEL).exists():
            raise ValueError(f"{folder} is finished; there is nothing to go on with")
        data = _data(options)
        model = _model(options, data)
    else:
        options = _resolve(given)
        data = _data(options)
        model = _model(options, data)
        folder = run_folder.make_run_folder(args.out, TASK)
        run_folder.write_config(folder, TASK, options=dataclasses.asdict(options))
    try:
        return _train(folder, options, data, model, args.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: fastlstm train rnnlm --resume {folder}") from None


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    whole_ptb = options.data == PTB and options.limit is None
    if options.data == PTB and options.unit != "word":
        raise ValueError("ptb is read in words; for characters give --data the path of a text file")
    if whole_ptb and options.hold_out is not None:
        raise ValueError("ptb has a part of its own to validate on; leave --hold-out out")
    lr, max_grad = options.lr, options.max_grad
    if options.optimizer == "adam":
        lr = lr or Adam().lr
    elif options.cell == "rnn":
        lr = lr or 0.1
    else:
        lr, max_grad = lr or 20.0, max_grad or 0.25
    hold_out = options.hold_out
    if hold_out is None:
        hold_out = 0.0 if options.data == PTB or options.limit is not None else 0.1
    data = options.data
    if data != PTB:
        # As seen from anywhere: the run may be resumed from another folder.
        data = str(find_file(data, WHERE_TO_GET_TEXT).resolve())
    return dataclasses.replace(
        options,
        data=data,
        lr=lr,
        max_grad=max_grad,
        hold_out=hold_out,
        wordvec_size=options.wordvec_size or options.hidden_size,
    )


def _data(options: Options) -> Data:
    if options.data == PTB and options.limit is None:
        training = ptb("train")
        return Data(training.vocabulary, training.ids, ptb("valid").ids, ptb("test").ids)
    text = _text(options)
    held_out = int(len(text.ids) * (options.hold_out or 0.0))
    end = len(text.ids) - held_out
    if end < 2 or held_out == 1:
        raise ValueError(
            f"{options.data}: {end} ids to learn from and {held_out} to validate on, expected at least 2 of each; "
            "a longer text or another --hold-out helps"
        )
    return Data(text.vocabulary, text.ids[:end], text.ids[end:] if held_out else None, None)


def _text(options: Options) -> Text:
    if options.data == PTB:
        return ptb(limit=options.limit)
    return plain_text(options.data, options.unit, limit=options.limit)


def _model(options: Options, data: Data) -> RNNLM:
    assert options.wordvec_size is not None
    model = RNNLM(
        len(data.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        cell=options.cell,
        num_layers=options.layers,
        dropout=options.dropout,
        tie_weights=options.tie_weights,
        seed=options.seed,
    )
    model.vocabulary = data.vocabulary
    return model


def _optimizer(options: Options) -> Optimizer:
    assert options.lr is not None
    return SGD(options.lr) if options.optimizer == "sgd" else Adam(options.lr)


def _train(folder: Path, options: Options, data: Data, model: RNNLM, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    if not quiet:
        model.summary()
    nan_guard = TerminateOnNaN()
    watching: list[Callback] = []
    if data.validation is not None:
        # A quarter of the learning rate after every epoch that is not the best so far; in the end the best one counts.
        watching = [
            ReduceLROnPlateau("val_perplexity", factor=0.25, patience=1, min_delta=0.0),
            EarlyStopping("val_perplexity", patience=options.epochs, restore_best_weights=True),
        ]
    since = time.perf_counter()
    history = model.fit(
        data.training,
        epochs=options.epochs,
        time_size=options.time_size,
        batch_size=options.batch_size,
        optimizer=_optimizer(options),
        max_grad=options.max_grad,
        validation_data=data.validation,
        metrics=("loss", "perplexity", "accuracy") if options.unit == "char" else ("loss", "perplexity"),
        callbacks=[
            nan_guard,
            CSVLogger(folder / run_folder.HISTORY),
            *watching,
            BackupAndRestore(folder / run_folder.CHECKPOINT, delete_checkpoint=False),
        ],
        verbose=0 if quiet else "auto",
    ).history
    seconds = time.perf_counter() - since
    if nan_guard.message is not None:
        return 1
    result = {"perplexity": history["perplexity"][-1]}
    if data.validation is not None:
        result["val_perplexity"] = min(history["val_perplexity"])
    if data.test is not None:
        result["test_perplexity"] = model.evaluate(data.test, metrics=("perplexity",))["perplexity"]
    if options.unit == "char":
        text = data.training if data.validation is None else data.validation
        result["accuracy"] = model.evaluate(text, batch_size=options.batch_size, metrics=("accuracy",))["accuracy"]
    model.save(folder / run_folder.MODEL)
    (folder / run_folder.CHECKPOINT).unlink(missing_ok=True)  # only now is it no longer needed
    run_folder.write_config(folder, TASK, options=dataclasses.asdict(options), result=result)
    plot_perplexity(folder, f"Language model, {Path(options.data).name}", history)
    shown = {"perplexity": "training", "val_perplexity": "validation", "test_perplexity": "test"}
    figures = ", ".join(f"{of} {result[name]:.2f}" for name, of in shown.items() if name in result)
    right = f"; next character right: {result['accuracy']:.1%}" if "accuracy" in result else ""
    print(f"perplexity: {figures}{right}; {options.epochs} epochs, {seconds:.1f} s")
    print(f"run folder: {folder}")
    return 0
