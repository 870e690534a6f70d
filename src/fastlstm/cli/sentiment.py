"""Teach a SequenceClassifier which class a text belongs to: is a review for or against?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.callbacks import Callback, CSVLogger, EarlyStopping
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, LAYER_COUNT, POSITIVE, SHARE
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray, Precision
from fastlstm.datasets import LabelledText, encode_texts, labelled_text
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.labelled import WHERE_TO_GET_IT, Longer, shorten
from fastlstm.datasets.tokenizers import Tokenizer
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import SequenceClassifier, WordVectors
from fastlstm.models.sequence_encoder import CELLS
from fastlstm.ops.device import Device
from fastlstm.optim import Adam
from fastlstm.training.progress import say

TASK = "sentiment"
FILES = (run_folder.MODEL, "loss.png", "error.png")
IMDB = "aclimdb"
CLASSES_SHOWN = 10
IMDB_CLASSES = {"0": "negative", "1": "positive"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data. The sizes are those of Theano's tutorial."""

    data: str = IMDB
    vocab_size: int = 10_000
    maxlen: int = 100
    longer: Longer = "last"
    wordvec_size: int = 128
    hidden_size: int = 128
    pooling: str = "mean"
    cell: str = "lstm"
    num_layers: int = 1
    bidirectional: bool = False
    embeddings: str | None = None
    freeze_embeddings: bool = False
    dropout: float = 0.5
    bucket_by_length: bool = True
    batch_size: int = 16
    lr: float = Adam().lr
    max_grad: float | None = None
    epochs: int = 5
    hold_out: float | None = None
    limit: int | None = None
    seed: int = 0
    shards: int = 1
    grad_precision: GradPrecision | None = None
    device: Device = "cpu"
    precision: Precision | None = None
    tokenizer: Tokenizer = "words"
    text_column: str | None = None
    label_column: str | None = None


class Part(NamedTuple):
    """Texts as ids, and their classes (N,)."""

    xs: list[IntArray]
    ts: IntArray


class Data(NamedTuple):
    """Texts to learn from, to validate and to test on."""

    vocabulary: list[str]
    classes: list[str]
    training: Part
    validation: Part
    test: Part


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train sentiment``: none has a default here, so that it can be told which were given."""
    defaults = Options()
    add = parser.add_argument
    add(
        "--data",
        metavar="DATA",
        help="aclimdb (default), rt_polarity, a folder like them, or a file with lines LABEL TAB TEXT, or a CSV file, "
        "plain or packed",
    )
    add_tokenizer(parser, defaults.tokenizer)
    add("--text-column", metavar="NAME", help=COLUMN)
    add("--label-column", metavar="NAME", help="and the one that holds the label")
    add("--vocab-size", type=COUNT, help=f"most frequent words that are told apart, default {defaults.vocab_size}")
    add("--maxlen", type=COUNT, help=f"words of a text that are read, default {defaults.maxlen}")
    add("--longer", choices=("last", "first", "drop"), help="of longer texts: their last words (default), first, none")
    add("--hidden-size", type=COUNT, help=f"default {defaults.hidden_size}")
    add(
        "--wordvec-size",
        type=COUNT,
        help=f"width of the embeddings, default {defaults.wordvec_size}, or that of --embeddings",
    )
    add("--pooling", choices=("mean", "last"), help="classify by the mean of all states (default) or by the last")
    add("--cell", choices=CELLS, help="kind of the recurrent layers, default lstm")
    add(
        "--num-layers",
        "--layers",
        type=LAYER_COUNT,
        metavar="N",
        help=f"recurrent layers, default {defaults.num_layers}",
    )
    add("--bidirectional", action="store_true", default=None, help="read texts from both ends")
    add("--embeddings", metavar="FILE", help="begin with its word vectors, of word2vec or gensim; a .bin is binary")
    add("--freeze-embeddings", action="store_true", default=None, help="and leave the embeddings as they begin")
    add("--dropout", type=SHARE, help=f"default {defaults.dropout:g}")
    add(
        "--bucket-by-length",
        action=argparse.BooleanOptionalAction,
        help="batches of texts of similar lengths; default yes",
    )
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--lr", type=POSITIVE, help=f"learning rate of Adam, default {defaults.lr:g}")
    add("--max-grad", type=POSITIVE, help="clip the gradients' norm; default no clipping")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add(
        "--hold-out",
        type=SHARE,
        metavar="SHARE",
        help="share to validate on, default 0.05; without a test part 0.1, and as much again to test on",
    )
    add("--limit", type=COUNT, metavar="N", help="read the first N texts of a file only")
    training_run.add_run_options(parser, TASK, defaults.seed)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train sentiment``."""
    return training_run.run(
        args, TASK, Options, resolve=_resolve, prepare=_prepare, train=_train, files=lambda _: FILES
    )


def _resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if (options.text_column is None) != (options.label_column is None):
        raise ValueError("--text-column and --label-column are given together or not at all")
    # As seen from anywhere: the run may be resumed from another folder.
    if options.embeddings is not None:
        if "wordvec_size" in given:
            raise ValueError("--embeddings says how wide the embeddings are; leave out --wordvec-size")
        found = find_file(options.embeddings, "Expected a file of word vectors")
        options = dataclasses.replace(options, embeddings=from_anywhere(found))
    return dataclasses.replace(options, data=from_anywhere(find_file(options.data, WHERE_TO_GET_IT)))


def _prepare(options: Options) -> tuple[Data, SequenceClassifier]:
    data = _data(options)
    return data, _model(options, data)


def _data(options: Options) -> Data:
    """The parts of a data set; where it has no test part, one is drawn, and where none to validate on as well."""
    path = Path(options.data)
    reading: dict[str, Any] = {
        "maxlen": options.maxlen,
        "limit": options.limit,
        "tokenizer": options.tokenizer,
        "text_column": options.text_column,
        "label_column": options.label_column,
    }
    train_part, test_part = _parts(path)
    text = labelled_text(train_part, vocab_size=options.vocab_size, longer=options.longer, **reading)
    _check_labels(path, text)
    tell_if_unsplit((text.vocabulary[i] for ids in text.xs for i in ids), options.tokenizer)
    drawn_parts = 1 if test_part else 2
    hold_out = (0.05 if test_part else 0.1) if options.hold_out is None else options.hold_out
    held_out = int(len(text.xs) * hold_out)
    left = len(text.xs) - drawn_parts * held_out
    if held_out < 1 or left < 1:
        raise ValueError(
            f"{path} has {len(text.xs)} texts; --hold-out {hold_out:g} leaves {left} to learn from and {held_out} to "
            "validate on, expected some of each"
        )
    order = np.random.default_rng(options.seed).permutation(len(text.xs))
    validation = _rows(text, order[:held_out])
    training = _rows(text, order[drawn_parts * held_out :])
    if test_part:
        # Texts that are left out while training are read as a whole in the test.
        whole = {**reading, "maxlen": None} if options.longer == "drop" else {**reading, "longer": options.longer}
        read = labelled_text(test_part, vocabulary=text.vocabulary, classes=text.classes, **whole)
        test = Part(read.xs, read.ts)
    else:
        test = _rows(text, order[held_out : 2 * held_out])
    classes = [IMDB_CLASSES[name] for name in text.classes] if _is_imdb(path, text) else text.classes
    return Data(text.vocabulary, classes, training, validation, test)


def _check_labels(path: Path, text: LabelledText) -> None:
    """Raises if there is nothing to learn from, since hardly a label comes twice."""
    if 2 * len(text.classes) > len(text.xs):
        swapped = len({ids.tobytes() for ids in text.xs}) < len(text.classes)
        hint = ", and the columns look swapped" if swapped else ""
        raise ValueError(
            f"{path} has {len(text.classes):,} different labels for {len(text.xs):,} texts, expected several texts of "
            f"each; a line is LABEL TAB TEXT{hint}"
        )


def _parts(path: Path) -> tuple[Path, Path | None]:
    """The training part and, if there is one, the test part of a data set."""
    for suffix in (".tsv.xz", ".tsv", ""):
        parts = path / f"train{suffix}", path / f"test{suffix}"
        if all(part.exists() for part in parts):
            return parts
    return path, None


def _is_imdb(path: Path, text: LabelledText) -> bool:
    return path.name == IMDB and text.classes == list(IMDB_CLASSES)


def _rows(text: LabelledText, rows: IntArray) -> Part:
    return Part([text.xs[i] for i in rows], text.ts[rows])


def _model(options: Options, data: Data) -> SequenceClassifier:
    vectors, width = None, options.wordvec_size
    if options.embeddings is not None:
        vectors = WordVectors.load_word2vec_format(options.embeddings, binary=options.embeddings.endswith(".bin"))
        width = vectors.vectors.shape[1]
    model = SequenceClassifier(
        len(data.vocabulary),
        width,
        options.hidden_size,
        len(data.classes),
        pooling=options.pooling,
        cell=options.cell,
        num_layers=options.num_layers,
        bidirectional=options.bidirectional,
        embeddings=vectors,
        freeze_embeddings=options.freeze_embeddings,
        vocabulary=data.vocabulary,
        dropout=options.dropout,
        seed=options.seed,
    )
    model.classes = data.classes
    return model


class TestError(Callback):
    """Adds the error on the test part to every epoch of the history."""

    def __init__(self, test: Part, *, quiet: bool) -> None:
        super().__init__()
        self._test = test
        self._quiet = quiet

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        assert isinstance(self.model, SequenceClassifier)
        workers, shards = self.trainer.workers, self.trainer.shards
        error = self.model.evaluate(*self._test, metrics=("error",), workers=workers, shards=shards)["error"]
        self.trainer.history.history.setdefault("test_error", []).append(error)
        if not self._quiet:
            rows = (("training", logs["error"]), ("validation", logs["val_error"]), ("test", error))
            say(f"  epoch {epoch + 1}: error " + ", ".join(f"{name} {value:.2%}" for name, value in rows))


def _describe_classes(data: Data) -> str:
    """How many there are, and which, with the number of their texts."""
    ts = np.concatenate((data.training.ts, data.validation.ts, data.test.ts))
    counts = np.bincount(ts, minlength=len(data.classes))
    named = [f"{name} ({count:,} texts)" for name, count in zip(data.classes, counts, strict=True)]
    shown = named if len(named) <= CLASSES_SHOWN else [*named[:CLASSES_SHOWN], "..."]
    return f"{len(named):,}: {', '.join(shown)}"


def _train(folder: Path, options: Options, prepared: tuple[Data, SequenceClassifier], quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    data, model = prepared
    if not quiet:
        model.summary()
        sizes = f"{len(data.training.ts):,} to learn from, {len(data.validation.ts):,} to validate on"
        print(f"texts: {sizes}, {len(data.test.ts):,} to test on; {len(data.vocabulary):,} words")
        print(f"classes: {_describe_classes(data)}")
    learned = training_run.learn(
        model,
        *data.training,
        epochs=options.epochs,
        batch_size=options.batch_size,
        bucket_by_length=options.bucket_by_length,
        optimizer=Adam(options.lr),
        max_grad=options.max_grad,
        validation_data=data.validation,
        metrics=("loss", "error"),
        callbacks=[
            TestError(data.test, quiet=quiet),
            CSVLogger(folder / run_folder.HISTORY),
            # In the end the model of the epoch with the smallest validation error counts.
            EarlyStopping("val_error", patience=options.epochs, restore_best_weights=True),
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
    best = run_folder.best_epoch(history["val_error"])
    # Where no epoch is the best one, the model is that of the last.
    epoch = options.epochs if best is None else best + 1
    result = {name: history[name][epoch - 1] for name in ("error", "val_error", "test_error")}
    training_run.write_config(folder, TASK, options, result={**result, "epoch": epoch})
    names = ("training", "validation", "test")
    figures = ", ".join(f"{name} {value:.2%}" for name, value in zip(names, result.values(), strict=True))
    print(f"error: {figures}; after epoch {epoch} of {options.epochs}, {learned.took}")
    pictures = plots.of_errors(f"Sentiment, {Path(options.data).name}", history)
    return training_run.finish(folder, TASK, learned.code, pictures)


def classifier(path: Path) -> Callable[[str], str]:
    """What says class and probability of a text, by the model in a run folder's file."""
    model = SequenceClassifier.load(path)
    if model.vocabulary is None or model.classes is None:
        raise ValueError("the model has no vocabulary and classes; train it with: fastlstm train sentiment")
    vocabulary, classes = model.vocabulary, model.classes
    options = run_folder.read_options(path.parent, TASK, Options)

    def classify(text: str) -> str:
        (ids,) = encode_texts([text], vocabulary, options.tokenizer)
        if not len(ids):
            raise ValueError(f"{text!r} has no words")
        (p,) = model.predict([shorten(ids, options.maxlen, options.longer)])
        best = int(p.argmax())
        return f"{classes[best]} {p[best]:.1%}: {text}"

    return classify
