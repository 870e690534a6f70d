"""Teach a language model what comes next, word by word or character by character."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
)
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, FACTOR, LAYER_COUNT, POSITIVE, SHARE
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray, Precision
from fastlstm.datasets import Text, TokenizedText, plain_text, ptb, tokenized_text
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.datasets.tokenized import narrowed
from fastlstm.datasets.tokenizers import Tokenizer, Unit, tokenizer_of, unit_of
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import RNNLM
from fastlstm.models.rnnlm import CELLS
from fastlstm.ops.device import Device
from fastlstm.optim import SGD, Adam, Optimizer

TASK = "rnnlm"
FILES = (run_folder.MODEL, "perplexity.png")
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
    init_scale: float | None = None
    optimizer: str = "sgd"
    lr: float | None = None
    max_grad: float | None = None
    epochs: int = 4
    decay_after: int | None = None
    decay: float | None = None
    limit: int | None = None
    hold_out: float | None = None
    seed: int = 0
    shards: int = 1
    grad_precision: GradPrecision | None = None
    device: Device = "cpu"
    precision: Precision | None = None
    tokenizer: Tokenizer | None = None
    min_count: int | None = None
    vocab_size: int | None = None
    column: str | None = None


class Data(NamedTuple):
    """Ids to learn from, and to validate and to test on where there are some."""

    vocabulary: list[str]
    training: IntArray
    validation: IntArray | None
    test: IntArray | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train rnnlm``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add = parser.add_argument
    add(
        "--data",
        metavar="FILE",
        help="a UTF-8 text, plain or packed, - for stdin; or a folder of fastlstm data tokenize; default ptb, the Penn "
        "Treebank",
    )
    add("--unit", choices=("word", "char"), help=f"default {defaults.unit}")
    add_tokenizer(parser, "blanks")
    add("--column", metavar="NAME", help=COLUMN)
    add("--min-count", type=COUNT, help="rarer words become <unk>; default 1, none")
    add("--vocab-size", type=COUNT, help="most frequent words, <unk> included; default all")
    add("--cell", choices=CELLS, help=f"default {defaults.cell}")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=COUNT, help="width of the embeddings, default the hidden size")
    add("--layers", type=LAYER_COUNT, help=f"recurrent layers, default {defaults.layers}")
    add("--time-size", type=COUNT, help=f"steps to go back, default {defaults.time_size}")
    add("--batch-size", type=COUNT, help=f"streams read side by side, default {defaults.batch_size}")
    add("--dropout", type=SHARE, help=f"default {defaults.dropout:g}")
    add("--tie-weights", action=argparse.BooleanOptionalAction, help="project with the embedding's weights; default no")
    add(
        "--init-scale",
        type=POSITIVE,
        metavar="S",
        help="draw all weights uniformly from -S to S; default normal, by 1/sqrt(inputs)",
    )
    add("--optimizer", choices=("sgd", "adam"), help=f"default {defaults.optimizer}")
    add("--lr", type=POSITIVE, help="learning rate; default sgd 20 (cell rnn: 0.1), adam 0.001")
    add("--max-grad", type=POSITIVE, help="clip the gradients' norm; default 0.25 for sgd, none for adam and cell rnn")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add(
        "--decay-after",
        type=COUNT,
        metavar="EPOCHS",
        help="multiply the learning rate by --decay in every epoch after that many; "
        "default: quarter it when validation does not improve",
    )
    add("--decay", type=FACTOR, metavar="FACTOR", help="default 0.5")
    add("--limit", type=COUNT, metavar="N", help="learn from the first N words or characters only")
    add(
        "--hold-out",
        type=SHARE,
        metavar="SHARE",
        help="share of the text's end to validate on; default 0.1 for a file",
    )
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train rnnlm``."""
    return training_run.run(
        args, TASK, Options, resolve=_resolve, prepare=_prepare, train=_train, files=lambda _: FILES
    )


def _prepare(options: Options) -> tuple[Data, RNNLM]:
    data = _data(options)
    return data, _model(options, data)


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    whole_ptb = options.data == PTB and options.limit is None
    if options.data == PTB and (options.unit != "word" or options.tokenizer not in (None, "blanks")):
        raise ValueError("ptb is read in words; for characters give --data the path of a text file")
    if options.data == PTB and (options.min_count or options.vocab_size or options.column):
        raise ValueError("ptb has a vocabulary of its own; --min-count, --vocab-size and --column are for a file")
    if whole_ptb and options.hold_out is not None:
        raise ValueError("ptb has a part of its own to validate on; leave --hold-out out")
    if options.decay is not None and options.decay_after is None:
        raise ValueError("--decay needs --decay-after, the last epoch at the full learning rate")
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
    decay = options.decay
    if options.decay_after is not None:
        decay = decay or 0.5
    data, tokenizer = options.data, options.tokenizer or tokenizer_of(options.unit)
    if data != PTB:
        # As seen from anywhere: the run may be resumed from another folder.
        path = find_file(data, WHERE_TO_GET_TEXT)
        data, tokenizer = from_anywhere(path), _tokenizer(path, given)
    return dataclasses.replace(
        options,
        data=data,
        unit=unit_of(tokenizer),
        tokenizer=tokenizer,
        lr=lr,
        max_grad=max_grad,
        decay=decay,
        hold_out=hold_out,
        wordvec_size=options.wordvec_size or options.hidden_size,
    )


def _tokenizer(path: Path, given: Mapping[str, Any]) -> Tokenizer:
    """That of a folder of ids is known; raises if another was asked for."""
    unit, tokenizer = given.get("unit"), given.get("tokenizer")
    if unit and tokenizer and unit_of(tokenizer) != unit:
        raise ValueError(f"--unit {unit} and --tokenizer {tokenizer} do not go together; leave one out")
    if not path.is_dir():
        return tokenizer or tokenizer_of(unit or Options.unit)
    found = tokenized_text(path).vocabulary.tokenizer
    if tokenizer not in (None, found):
        raise ValueError(f"{path} holds ids by {found}, --tokenizer is {tokenizer}; leave it out")
    if unit not in (None, unit_of(found)):
        raise ValueError(f"{path} holds ids of {unit_of(found)}s, --unit is {unit}; leave it out")
    if given.get("column"):
        raise ValueError(f"{path} holds ids, and no column; leave --column out")
    return found


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
    return Data(list(text.vocabulary), text.ids[:end], text.ids[end:] if held_out else None, None)


def _text(options: Options) -> Text | TokenizedText:
    if options.data == PTB:
        return ptb(limit=options.limit)
    path, min_count = Path(options.data), options.min_count or 1
    if path.is_dir():
        ids, vocabulary = narrowed(tokenized_text(path), min_count=min_count, max_size=options.vocab_size)
        return TokenizedText(ids[: options.limit], vocabulary)
    tokenizer = options.tokenizer or tokenizer_of(options.unit)  # a run of an earlier version has no tokenizer
    text = plain_text(
        path,
        limit=options.limit,
        tokenizer=tokenizer,
        min_count=min_count,
        max_size=options.vocab_size,
        column=options.column,
    )
    tell_if_unsplit((text.vocabulary[i] for i in text.ids), tokenizer)
    return text


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
        init_scale=options.init_scale,
        seed=options.seed,
    )
    model.vocabulary = data.vocabulary
    return model


def _optimizer(options: Options) -> Optimizer:
    assert options.lr is not None
    return SGD(options.lr) if options.optimizer == "sgd" else Adam(options.lr)


def _schedule(options: Options) -> list[Callback]:
    """The learning rate of every epoch: lr decay^k in the k-th epoch after ``decay_after``."""
    if options.decay_after is None:
        return []
    lr, decay, full = options.lr, options.decay, options.decay_after
    assert lr is not None
    assert decay is not None
    # From the epoch alone, so that a resumed training does not decay twice.
    return [LearningRateScheduler(lambda epoch, _: lr * decay ** max(0, epoch + 1 - full))]


def _best_epoch(options: Options, data: Data) -> list[Callback]:
    """The best epoch counts in the end; without a schedule, every other one quarters the learning rate."""
    if data.validation is None:
        return []
    best = EarlyStopping("val_perplexity", patience=options.epochs, restore_best_weights=True)
    if options.decay_after is not None:
        return [best]
    return [ReduceLROnPlateau("val_perplexity", factor=0.25, patience=1, min_delta=0.0), best]


def _train(folder: Path, options: Options, prepared: tuple[Data, RNNLM], quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    data, model = prepared
    if not quiet:
        model.summary()
    learned = training_run.learn(
        model,
        data.training,
        epochs=options.epochs,
        time_size=options.time_size,
        batch_size=options.batch_size,
        optimizer=_optimizer(options),
        max_grad=options.max_grad,
        validation_data=data.validation,
        metrics=("loss", "perplexity", "accuracy") if options.unit == "char" else ("loss", "perplexity"),
        callbacks=[
            CSVLogger(folder / run_folder.HISTORY),
            *_schedule(options),
            *_best_epoch(options, data),
        ],
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
    result = {"perplexity": history["perplexity"][-1]}
    if data.validation is not None:
        best = run_folder.best_epoch(history["val_perplexity"])
        result["val_perplexity"] = math.nan if best is None else history["val_perplexity"][best]
    if data.test is not None:
        result["test_perplexity"] = model.evaluate(data.test, metrics=("perplexity",))["perplexity"]
    if options.unit == "char":
        text = data.training if data.validation is None else data.validation
        result["accuracy"] = model.evaluate(text, batch_size=options.batch_size, metrics=("accuracy",))["accuracy"]
    training_run.write_config(folder, TASK, options, result=result)
    shown = {"perplexity": "training", "val_perplexity": "validation", "test_perplexity": "test"}
    figures = ", ".join(f"{of} {result[name]:.2f}" for name, of in shown.items() if name in result)
    right = f"; next character right: {result['accuracy']:.1%}" if "accuracy" in result else ""
    print(f"perplexity: {figures}{right}; {options.epochs} epochs, {learned.took}")
    pictures = plots.of_perplexity(f"Language model, {Path(options.data).name}", history)
    return training_run.finish(folder, TASK, learned.code, pictures)
