"""Teach a language model what comes next, word by word or character by character."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastlstm.callbacks import Callback, LearningRateScheduler, ReduceLROnPlateau
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, FACTOR, LAYER_COUNT, POSITIVE, SHARE
from fastlstm.cli.plots import Pictures
from fastlstm.cli.task import Initial, RunOptions
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray
from fastlstm.datasets import Text, TokenizedText, plain_text, ptb, tokenized_text
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.text import WHERE_TO_GET_TEXT, encode_symbols
from fastlstm.datasets.tokenized import narrowed
from fastlstm.datasets.tokenizers import (
    END_OF_LINE,
    UNKNOWN,
    Tokenizer,
    Unit,
    join_symbols,
    split_symbols,
    tokenizer_of,
    unit_of,
)
from fastlstm.models import RNNLM
from fastlstm.models.rnnlm import CELLS
from fastlstm.optim import SGD, Adam, Optimizer

TASK = "rnnlm"
FILES = (run_folder.MODEL, "perplexity.png")
PTB = "ptb"
MODEL_OPTIONS = (
    *("unit", "tokenizer", "cell", "hidden_size", "wordvec_size", "layers", "tie_weights"),
    *("min_count", "vocab_size"),
)
DATA_OPTIONS = ("data", "column", "limit", "hold_out", "validation")
CHAR_LR = 0.003  # of Adam by characters


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
    """What fixes a training to the bit, together with the data. The default values are the book's Rnnlm.

    What is None depends on the unit, the optimizer or the data.
    """

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
    optimizer: str | None = None
    lr: float | None = None
    max_grad: float | None = None
    epochs: int = 4
    decay_after: int | None = None
    decay: float | None = None
    limit: int | None = None
    hold_out: float | None = None
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
    add("--optimizer", choices=("sgd", "adam"), help="default sgd, by characters adam")
    add(
        "--lr",
        type=POSITIVE,
        help=f"learning rate; default sgd 20 (cell rnn: 0.1), adam 0.001, by characters {CHAR_LR:g}",
    )
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
    add("--limit", type=COUNT, metavar="N", help="read the first N words or characters of each part only")
    add(
        "--hold-out",
        type=SHARE,
        metavar="SHARE",
        help="share of the text's end to validate on; default 0.1 for a file, for ptb its own part",
    )
    training_run.add_run_options(parser, TASK)


def files(_: Options) -> Sequence[str]:
    return FILES


def shared_epochs(options: Options) -> int:
    return options.epochs


def prepare(options: Options, initial: Initial | None) -> tuple[Data, RNNLM]:
    """The texts and a model for them."""
    begun = None if initial is None else initial.load(RNNLM)
    data = _data(options, None if begun is None else begun.vocabulary)
    how = "--validation FILE, or a --hold-out"
    training_run.check_patience(options, data.validation is not None, how)
    model = _model(options, data)
    if begun is not None:
        training_run.begin_with(model, begun)
    return data, model


def describe(prepared: tuple[Data, RNNLM]) -> dict[str, Any]:
    """What config.json says of the texts."""
    data, _ = prepared
    parts = {"training": data.training, "validation": data.validation, "test": data.test}
    return {
        "rows": {name: len(ids) for name, ids in parts.items() if ids is not None},
        "classes": len(data.vocabulary),
    }


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if options.data == PTB and (options.unit != "word" or options.tokenizer not in (None, "blanks")):
        raise ValueError("ptb is read in words; for characters give --data the path of a text file")
    if options.data == PTB and (options.min_count or options.vocab_size or options.column):
        raise ValueError("ptb has a vocabulary of its own; --min-count, --vocab-size and --column are for a file")
    if options.data == PTB and options.limit is None and options.hold_out is not None:
        raise ValueError("ptb has a part of its own to validate on; leave --hold-out out")
    if options.validation is not None and options.hold_out:
        raise ValueError("--validation is validated on; leave --hold-out out")
    if options.decay is not None and options.decay_after is None:
        raise ValueError("--decay needs --decay-after, the last epoch at the full learning rate")
    data, tokenizer = options.data, options.tokenizer or tokenizer_of(options.unit)
    if data != PTB:
        # As seen from anywhere: the run may be resumed from another folder.
        path = find_file(data, WHERE_TO_GET_TEXT)
        data, tokenizer = from_anywhere(path), _tokenizer(path, given)
    by_characters = tokenizer == "char"
    optimizer = options.optimizer or ("adam" if by_characters else "sgd")
    lr, max_grad = options.lr, options.max_grad
    if optimizer == "adam":
        lr = lr or (CHAR_LR if by_characters else Adam().lr)
    elif options.cell == "rnn":
        lr = lr or 0.1
    else:
        lr, max_grad = lr or 20.0, max_grad or 0.25
    hold_out = options.hold_out
    if hold_out is None and data != PTB:
        hold_out = 0.0 if options.validation is not None else 0.1
    decay = options.decay
    if options.decay_after is not None:
        decay = decay or 0.5
    return dataclasses.replace(
        options,
        data=data,
        unit=unit_of(tokenizer),
        tokenizer=tokenizer,
        optimizer=optimizer,
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


def _data(options: Options, vocabulary: Sequence[str] | None) -> Data:
    """The texts as ids, by a vocabulary of another run where it is given."""
    validation: Text | TokenizedText | None = None
    test: Text | TokenizedText | None = None
    if options.data == PTB:
        text: Text | TokenizedText = ptb(limit=options.limit)
        if UNKNOWN not in text.vocabulary:  # of a few words only
            text = Text(text.ids, [*text.vocabulary, UNKNOWN])
        if options.limit is None or options.hold_out is None:
            parts = [ptb("valid"), ptb("test")]
            validation, test = (Text(ids[: options.limit], words) for ids, words in parts)
    else:
        text = _text(options, options.data)
    if vocabulary is None:
        vocabulary = list(text.vocabulary)
    ids = _ids_by(vocabulary, text, options.data)
    held_out = int(len(ids) * (options.hold_out or 0.0))
    end = len(ids) - held_out
    if end < 2 or held_out == 1:
        raise ValueError(
            f"{options.data}: {end} ids to learn from and {held_out} to validate on, expected at least 2 of each; "
            "a longer text or another --hold-out helps"
        )
    if options.validation is not None:
        validation = _text(options, options.validation)
    if options.test is not None:
        test = _text(options, options.test)
    return Data(
        list(vocabulary),
        ids[:end],
        ids[end:]
        if held_out
        else None
        if validation is None
        else _ids_by(vocabulary, validation, options.validation or PTB),
        None if test is None else _ids_by(vocabulary, test, options.test or PTB),
    )


def _ids_by(vocabulary: Sequence[str], text: Text | TokenizedText, source: str) -> IntArray:
    """The ids of a text by another vocabulary; what that lacks is "<unk>", or an error."""
    if list(text.vocabulary) == list(vocabulary):
        return text.ids
    new_ids = encode_symbols(list(text.vocabulary), vocabulary, source).ids
    return new_ids[text.ids]


def _text(options: Options, source: str) -> Text | TokenizedText:
    """A file's text, or that of a folder of ids."""
    path, min_count = Path(source), options.min_count or 1
    # Where another vocabulary is to be used, this one is not cut.
    if path.is_dir():
        ids, vocabulary = narrowed(tokenized_text(path), min_count=min_count, max_size=options.vocab_size)
        return TokenizedText(ids[: options.limit], vocabulary)
    tokenizer = options.tokenizer or tokenizer_of(options.unit)  # a run of an earlier version has no tokenizer
    of_training = source == options.data and options.init_from is None
    text = plain_text(
        path,
        limit=options.limit,
        tokenizer=tokenizer,
        min_count=min_count if of_training else 1,
        max_size=options.vocab_size if of_training else None,
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
    model.vocabulary, model.tokenizer = data.vocabulary, options.tokenizer
    return model


def _optimizer(options: Options) -> Optimizer:
    assert options.lr is not None
    return SGD(options.lr) if options.optimizer == "sgd" else Adam(options.lr)


def _schedule(options: Options, data: Data, *, quiet: bool) -> list[Callback]:
    """The learning rate of every epoch: lr decay^k in the k-th epoch after ``decay_after``.

    Without it, and with something to validate on, every epoch that is not the best so far quarters it.
    """
    if options.decay_after is None:
        if data.validation is None:
            return []
        return [ReduceLROnPlateau("val_perplexity", factor=0.25, patience=1, min_delta=0.0, verbose=int(not quiet))]
    lr, decay, full = options.lr, options.decay, options.decay_after
    assert lr is not None
    assert decay is not None
    # From the epoch alone, so that a resumed training does not decay twice.
    return [LearningRateScheduler(lambda epoch, _: lr * decay ** max(0, epoch + 1 - full))]


def train(folder: Path, options: Options, prepared: tuple[Data, RNNLM], quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    data, model = prepared
    if not quiet:
        model.summary()
    learned = training_run.learn(
        model,
        data.training,
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=_optimizer(options),
        shared_epochs=shared_epochs(options),
        monitor=None if data.validation is None else "val_perplexity",
        best_counts=True,
        time_size=options.time_size,
        batch_size=options.batch_size,
        max_grad=options.max_grad,
        validation_data=data.validation,
        metrics=("loss", "perplexity", "accuracy") if options.unit == "char" else ("loss", "perplexity"),
        schedule=_schedule(options, data, quiet=quiet),
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    history = learned.history
    result = {"perplexity": history["perplexity"][-1]}
    if data.validation is not None:
        result["val_perplexity"] = history["val_perplexity"][learned.best]
    if data.test is not None:
        result["test_perplexity"] = model.evaluate(data.test, metrics=("perplexity",))["perplexity"]
    if options.unit == "char":
        text = data.training if data.validation is None else data.validation
        result["accuracy"] = model.evaluate(text, batch_size=options.batch_size, metrics=("accuracy",))["accuracy"]
    training_run.write_config(folder, TASK, options, result=result)
    shown = {"perplexity": "training", "val_perplexity": "validation", "test_perplexity": "test"}
    figures = ", ".join(f"{of} {result[name]:.2f}" for name, of in shown.items() if name in result)
    right = f"; next character right: {result['accuracy']:.1%}" if "accuracy" in result else ""
    print(f"perplexity: {figures}{right}; {learned.told}")
    return training_run.finish(folder, learned.code, pictures(folder, options, lambda: prepared))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:
    """How well the model of a run says a text, read as its own was."""
    model = run_folder.load_model(RNNLM, folder)
    text = _text(dataclasses.replace(options, data="", limit=None), path)
    ids = _ids_by(_vocabulary(model), text, path)
    return {"rows": len(ids), **model.evaluate(ids)}


def pictures(folder: Path, options: Options, prepared: Callable[[], Any]) -> Pictures:  # noqa: ARG001
    """The perplexity by epoch."""
    return plots.of_perplexity(f"Language model, {Path(options.data).name}", run_folder.read_history(folder))


def _vocabulary(model: RNNLM) -> list[str]:
    if not model.vocabulary:
        raise ValueError("the model has no vocabulary; train it with: fastlstm train rnnlm")
    return model.vocabulary


def continued(
    folder: Path,
    options: Options,
    start: str,
    *,
    length: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    skip: Sequence[str] = (),
    seed: int | None = None,
) -> str:
    """A text and how the language model of a run folder goes on with it."""
    model = run_folder.load_model(RNNLM, folder)
    tokenizer = options.tokenizer or tokenizer_of(options.unit)  # a run of an earlier version has no tokenizer
    vocabulary = _vocabulary(model)
    symbols = split_symbols(start, tokenizer)
    if unknown := sorted(set(symbols) - set(vocabulary)) if UNKNOWN in vocabulary else []:
        print(f"not in the vocabulary, read as {UNKNOWN}: {', '.join(unknown)}", file=sys.stderr)
    begin = symbols or [next((end for end in (END_OF_LINE, "\n") if end in vocabulary), vocabulary[0])]
    written = model.generate(
        encode_symbols(begin, vocabulary, "start text").ids,
        length,
        temperature=temperature,
        top_k=top_k,
        skip_ids=encode_symbols(skip, vocabulary, "--skip").ids,
        seed=seed,
    )
    return join_symbols([*symbols, *(vocabulary[i] for i in written)], tokenizer)
