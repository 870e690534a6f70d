"""Teach a SequenceClassifier which class a text belongs to: is a review for or against?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.callbacks import Callback
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, LAYER_COUNT, POSITIVE, SHARE
from fastlstm.cli.plots import Pictures
from fastlstm.cli.task import Initial, RunOptions
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray
from fastlstm.datasets import LabelledText, encode_texts, labelled_text
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.labelled import WHERE_TO_GET_IT, Longer, shorten
from fastlstm.datasets.tokenizers import Tokenizer
from fastlstm.models import SequenceClassifier, WordVectors
from fastlstm.models.sequence_encoder import CELLS
from fastlstm.optim import Adam
from fastlstm.training.progress import say

TASK = "sentiment"
FILES = (run_folder.MODEL, "loss.png", "error.png")
MODEL_OPTIONS = (
    *("vocab_size", "maxlen", "longer", "tokenizer", "wordvec_size", "hidden_size", "pooling"),
    *("cell", "num_layers", "bidirectional", "embeddings", "freeze_embeddings"),
)
DATA_OPTIONS = ("data", "text_column", "label_column", "hold_out", "limit", "validation")
IMDB = "aclimdb"
CLASSES_SHOWN = 10
IMDB_CLASSES = {"0": "negative", "1": "positive"}


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
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
    training_run.add_run_options(parser, TASK)


def files(_: Options) -> Sequence[str]:
    return FILES


def shared_epochs(options: Options) -> int:
    return options.epochs


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if (options.text_column is None) != (options.label_column is None):
        raise ValueError("--text-column and --label-column are given together or not at all")
    if options.validation is not None and options.hold_out:
        raise ValueError("--validation is validated on; leave --hold-out out")
    if options.embeddings is not None:
        if "wordvec_size" in given:
            raise ValueError("--embeddings says how wide the embeddings are; leave out --wordvec-size")
        found = find_file(options.embeddings, "Expected a file of word vectors")
        options = dataclasses.replace(options, embeddings=from_anywhere(found))
    # As seen from anywhere: the run may be resumed from another folder.
    return dataclasses.replace(options, data=from_anywhere(find_file(options.data, WHERE_TO_GET_IT)))


def prepare(options: Options, initial: Initial | None) -> tuple[Data, SequenceClassifier]:
    """The texts and a model for them."""
    begun = None if initial is None else initial.load(SequenceClassifier)
    data = _data(options, begun)
    model = _model(options, data)
    if begun is not None:
        training_run.begin_with(model, begun)
    return data, model


def describe(prepared: tuple[Data, SequenceClassifier]) -> dict[str, Any]:
    """What config.json says of the texts."""
    data, _ = prepared
    parts = {"training": data.training, "validation": data.validation, "test": data.test}
    return {"rows": {name: len(part.ts) for name, part in parts.items()}, "classes": len(data.classes)}


def _reading(options: Options) -> dict[str, Any]:
    """How texts are read, whatever they are for."""
    return {
        "maxlen": options.maxlen,
        "tokenizer": options.tokenizer,
        "text_column": options.text_column,
        "label_column": options.label_column,
    }


def _data(options: Options, begun: SequenceClassifier | None) -> Data:
    """The parts of a data set; where it has no test part, one is drawn, and where none to validate on as well.

    Words and classes are those of the model that the run begins with, if there is one.
    """
    path = Path(options.data)
    reading: dict[str, Any] = {**_reading(options), "limit": options.limit}
    train_part, test_part = _parts(path)
    if begun is None:
        known: dict[str, Any] = {"vocab_size": options.vocab_size}
    else:
        known = {"vocabulary": begun.vocabulary, "classes": _labels(path, begun)}
    text = labelled_text(train_part, longer=options.longer, **known, **reading)
    _check_labels(path, text)
    tell_if_unsplit((text.vocabulary[i] for ids in text.xs for i in ids), options.tokenizer)
    classes = [IMDB_CLASSES[name] for name in text.classes] if _is_imdb(path, text) else text.classes

    def read(file: str | Path) -> Part:
        whole = _whole(options, reading)
        labels = _labels_of(Path(file), classes)
        part = labelled_text(file, vocabulary=text.vocabulary, classes=labels, **whole)
        return Part(part.xs, part.ts)

    parts_there = {"validation": options.validation, "test": options.test or test_part}
    drawn = [name for name, file in parts_there.items() if file is None]
    hold_out = (0.05 if test_part else 0.1) if options.hold_out is None else options.hold_out
    held_out = int(len(text.xs) * hold_out) if drawn else 0
    left = len(text.xs) - len(drawn) * held_out
    if (drawn and held_out < 1) or left < 1:
        raise ValueError(
            f"{path} has {len(text.xs)} texts; --hold-out {hold_out:g} leaves {left} to learn from and {held_out} to "
            "validate on, expected some of each"
        )
    order = np.random.default_rng(options.seed).permutation(len(text.xs))
    found = {name: read(file) for name, file in parts_there.items() if file is not None}
    for number, name in enumerate(drawn):
        found[name] = _rows(text, order[number * held_out : (number + 1) * held_out])
    training = _rows(text, order[len(drawn) * held_out :])
    return Data(text.vocabulary, classes, training, found["validation"], found["test"])


def _whole(options: Options, reading: Mapping[str, Any]) -> dict[str, Any]:
    """How texts are read that are not learned from: those that are left out while training are read as a whole."""
    return {**reading, "maxlen": None} if options.longer == "drop" else {**reading, "longer": options.longer}


def _labels_of(path: Path, classes: Sequence[str]) -> list[str]:
    """What the classes are called in a file: in those of aclImdb, which call them 0 and 1, other than in its models."""
    in_imdb = IMDB in (path.name, path.parent.name) and list(classes) == list(IMDB_CLASSES.values())
    return list(IMDB_CLASSES if in_imdb else classes)


def _labels(path: Path, model: SequenceClassifier) -> list[str]:
    """The same of a model's classes."""
    return _labels_of(path, _names(model)[1])


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
    model.tokenizer = options.tokenizer
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


def train(folder: Path, options: Options, prepared: tuple[Data, SequenceClassifier], quiet: bool) -> int:
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
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=Adam(options.lr),
        shared_epochs=shared_epochs(options),
        # In the end the model of the epoch with the smallest validation error counts.
        monitor="val_error",
        best_counts=True,
        batch_size=options.batch_size,
        bucket_by_length=options.bucket_by_length,
        max_grad=options.max_grad,
        validation_data=data.validation,
        metrics=("loss", "error"),
        callbacks=[TestError(data.test, quiet=quiet)],
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    epoch = learned.best + 1
    result = {name: learned.history[name][learned.best] for name in ("error", "val_error", "test_error")}
    training_run.write_config(folder, TASK, options, result={**result, "epoch": epoch})
    names = ("training", "validation", "test")
    figures = ", ".join(f"{name} {value:.2%}" for name, value in zip(names, result.values(), strict=True))
    print(f"error: {figures}; after epoch {epoch} of {learned.epochs}, {learned.took}")
    return training_run.finish(folder, learned.code, pictures(folder, options, lambda: prepared))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:
    """How often the model of a run is wrong about the texts of a file, read as its own were."""
    model = run_folder.load_model(SequenceClassifier, folder)
    vocabulary, classes = _names(model)
    file = find_file(path, WHERE_TO_GET_IT)
    whole = _whole(options, _reading(options))
    text = labelled_text(file, vocabulary=vocabulary, classes=_labels_of(file, classes), **whole)
    return {"rows": len(text.ts), **model.evaluate(text.xs, text.ts)}


def pictures(folder: Path, options: Options, prepared: Callable[[], Any]) -> Pictures:  # noqa: ARG001
    """Loss and error by epoch."""
    return plots.of_errors(f"Sentiment, {Path(options.data).name}", run_folder.read_history(folder))


def _names(model: SequenceClassifier) -> tuple[list[str], list[str]]:
    """Words and classes of a model."""
    if model.vocabulary is None or model.classes is None:
        raise ValueError("the model has no vocabulary and classes; train it with: fastlstm train sentiment")
    return model.vocabulary, model.classes


def classifier(folder: Path, options: Options) -> Callable[[str], str]:
    """What says class and probability of a text, by the model of a run."""
    model = run_folder.load_model(SequenceClassifier, folder)
    vocabulary, classes = _names(model)

    def classify(text: str) -> str:
        (ids,) = encode_texts([text], vocabulary, options.tokenizer)
        if not len(ids):
            raise ValueError(f"{text!r} has no words")
        (p,) = model.predict([shorten(ids, options.maxlen, options.longer)])
        best = int(p.argmax())
        return f"{classes[best]} {p[best]:.1%}: {text}"

    return classify
