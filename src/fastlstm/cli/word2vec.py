"""Learn what words mean from the words that stand near them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, NOT_NEGATIVE, POSITIVE, SAMPLE_COUNT
from fastlstm.cli.plots import Pictures, plot_words
from fastlstm.cli.task import Initial, RunOptions
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray
from fastlstm.datasets import Words, questions_words, read_words, tokenized_text, wordsim353
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.datasets.tokenized import sentences_of
from fastlstm.datasets.tokenizers import Tokenizer
from fastlstm.datasets.words import SENTENCE_END, UNKNOWN, text8_path
from fastlstm.models import Word2Vec
from fastlstm.models.word_vectors import Accuracy, Agreement, WordVectors
from fastlstm.optim import SGD

TASK = "word2vec"
TEXT8 = "text8"
VECTORS = "vectors.txt"
WORDS = "words.png"
# Words whose neighbours are shown, of how many, and how many of them.
_ASKED, _FREQUENT, _ANSWERS = 8, 300, 8
FILES = (run_folder.MODEL, VECTORS, "loss.png", WORDS)
WHY_IT_ROSE = (
    "the loss may rise while the vectors get better: that of a pair is taken before its step, and while the learning "
    "rate is high the words at hand have just been learned. That of vectors that stand still falls: --validation FILE"
)
MODEL_OPTIONS = (
    "loss",
    "cbow",
    "vector_size",
    "window",
    "num_sampled",
    "vocab_size",
    "min_count",
    "unknown",
    "tokenizer",
)
TOKENIZERS = ("blanks", "words", "janome")
DATA_OPTIONS = ("data", "column", "validation")


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
    """What fixes a training to the bit, together with the data. What is None depends on the loss.

    The default values are those of word2vec and gensim, those of the other losses TensorFlow's tutorial's.
    """

    data: str = TEXT8
    loss: str = "negative_sampling"
    cbow: bool = False
    vocab_size: int = 50_000
    min_count: int | None = None
    unknown: bool | None = None
    vector_size: int = 128
    window: int = 5
    num_sampled: int | None = None
    subsample: float = 1e-3
    batch_size: int | None = None
    lr: float | None = None
    final_lr: float | None = None
    epochs: int = 5
    tokenizer: Tokenizer = "blanks"
    column: str | None = None
    eval: bool | None = None


class Prepared(NamedTuple):
    """A text and what is validated on; what finished vectors are judged by; the model."""

    words: Words
    validation: IntArray | None
    judgements: Judgements | None
    model: Word2Vec


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train word2vec``: none has a default here, so that it can be told which were given."""
    switch = argparse.BooleanOptionalAction
    defaults = Options()
    add = parser.add_argument
    add(
        "--data",
        metavar="FILE",
        help="a UTF-8 text, plain or packed, a sentence a line, - for stdin; or a folder "
        "of fastlstm data tokenize; default text8",
    )
    add_tokenizer(parser, defaults.tokenizer, TOKENIZERS)
    add("--column", metavar="NAME", help=COLUMN)
    add("--loss", choices=("nce", "negative_sampling", "sampled_softmax"), help=f"default {defaults.loss}")
    add("--cbow", action=switch, help="tell words by the mean of their neighbours; default no: skip-gram")
    add("--vocab-size", type=COUNT, help=f"the most frequent words, default {defaults.vocab_size:,}")
    add("--min-count", type=COUNT, help="leave rarer words out; default 5, for other losses 1")
    add("--unknown", action=switch, help="other words become UNK; default no, for other losses yes")
    add("--vector-size", type=COUNT, help=f"default {defaults.vector_size}")
    add("--window", type=COUNT, help=f"the farthest neighbour, default {defaults.window}")
    add(
        "--num-sampled",
        type=SAMPLE_COUNT,
        help="words drawn for a pair, default 5; for other losses a batch's, 64",
    )
    add("--subsample", type=NOT_NEGATIVE, help=f"leave out frequent words, 0 for none; default {defaults.subsample:g}")
    add(
        "--batch-size",
        type=COUNT,
        help="pairs, default 8192, which changes no step of negative_sampling; for other losses 128",
    )
    add("--lr", type=POSITIVE, help="learning rate; default 0.025, for other losses 1")
    add("--final-lr", type=POSITIVE, help="fall to it evenly; default 0.0001, for other losses no")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add("--eval", action=switch, help="by wordsim353 and analogies; default if they are below FASTLSTM_DATA_DIR")
    training_run.add_run_options(parser, TASK, precision=False)


def files(_: Options) -> Sequence[str]:
    return FILES


def shared_epochs(options: Options) -> int:
    """None where the learning rate falls from the first batch to the last."""
    return options.epochs if options.final_lr is None else 0


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    if options.loss == "negative_sampling" and options.shards > 1:
        raise ValueError(
            f"--shards {options.shards}: negative sampling learns pair by pair, each step waits for the one before; "
            "leave --shards out, or give another --loss"
        )
    if options.cbow and options.device == "cuda":
        raise ValueError("--cbow runs on the processor only; leave --device cuda out, or --cbow")
    # As seen from anywhere: the run may be resumed from another folder.
    path = text8_path() if options.data == TEXT8 else find_file(options.data, WHERE_TO_GET_TEXT)
    if path.is_dir() and (given.keys() & {"tokenizer", "column"}):
        raise ValueError(f"{path} holds ids; leave --tokenizer and --column out")
    negative_sampling = options.loss == "negative_sampling"
    usual: dict[str, Any] = (
        {"min_count": 5, "unknown": False, "num_sampled": 5, "batch_size": 8192, "lr": 0.025, "final_lr": 1e-4}
        if negative_sampling
        else {"min_count": 1, "unknown": True, "num_sampled": 64, "batch_size": 128, "lr": 1.0}
    )
    unset = {name: value for name, value in usual.items() if getattr(options, name) is None}
    return dataclasses.replace(options, data=from_anywhere(path), **unset)


def prepare(options: Options, initial: Initial | None) -> Prepared:
    """The texts and a new model."""
    judgements = _judgements(options.eval)
    assert options.num_sampled is not None
    begun = None if initial is None else initial.load(Word2Vec)
    words = _words(options, options.data, learned=begun is None)
    if begun is not None:
        words = _words_of(begun, words)
    has_validation = options.validation is not None
    training_run.check_patience(options, has_validation, "--validation FILE")
    model = Word2Vec(
        len(words.vocabulary),
        options.vector_size,
        loss=options.loss,
        num_sampled=options.num_sampled,
        window=options.window,
        counts=words.counts,
        sg=0 if options.cbow else 1,
        seed=options.seed,
    )
    model.vocabulary, model.tokenizer = words.vocabulary, options.tokenizer
    model.check_corpus(options.data, words.ids)
    if begun is not None:
        training_run.begin_with(model, begun)
    validation = None
    if options.validation is not None:
        validation = _words_of(model, _words(options, options.validation, learned=False)).ids
        model.check_corpus(options.validation, validation)
    return Prepared(words, validation, judgements, model)


def describe(prepared: Prepared) -> dict[str, Any]:
    """What config.json says of the texts."""
    words, validation, *_ = prepared
    rows = {"training": int(words.counts.sum())}
    if validation is not None:
        rows["validation"] = int(np.count_nonzero(validation >= 0))
    return {"rows": rows, "classes": len(words.vocabulary)}


def _words(options: Options, source: str, *, learned: bool) -> Words:
    """The words of a file or of a folder of ids; all of them if its vocabulary is not the one that is learned."""
    cut: dict[str, Any] = {"min_count": 1, "max_words": None, "unknown": False}
    if learned:
        cut = {"min_count": options.min_count, "max_words": options.vocab_size, "unknown": bool(options.unknown)}
    if Path(source).is_dir():
        return sentences_of(tokenized_text(source), **cut)
    words = read_words(source, tokenizer=options.tokenizer, column=options.column, **cut)
    tell_if_unsplit((words.vocabulary[i] for i in words.ids if i >= 0), options.tokenizer, TOKENIZERS)
    return words


def _words_of(model: Word2Vec, words: Words) -> Words:
    """A text by the vocabulary of a model; what that lacks is UNK, or left out."""
    vocabulary = _vocabulary(model)
    id_of = {word: i for i, word in enumerate(vocabulary)}
    outside = id_of.get(UNKNOWN, SENTENCE_END - 1)
    new_ids = np.array([*(id_of.get(word, outside) for word in words.vocabulary), SENTENCE_END], np.int64)
    ids = new_ids[words.ids]  # the last of them is what -1 becomes
    ids = ids[ids >= SENTENCE_END]
    counts = np.bincount(ids[ids >= 0], minlength=len(vocabulary))
    if not counts.any():
        raise ValueError("none of the words of the text is in the vocabulary of the model")
    return Words(ids, vocabulary, counts)


def _vocabulary(model: Word2Vec) -> list[str]:
    if not model.vocabulary:
        raise ValueError("the model has no vocabulary; train it with: fastlstm train word2vec")
    return model.vocabulary


class Judgements:
    """What the finished vectors are measured by."""

    def __init__(self) -> None:
        self.pairs = wordsim353()
        try:
            self.questions = questions_words()
        except FileNotFoundError:
            self.questions = []

    def measure(self, model: Word2Vec) -> tuple[Agreement, Accuracy | None]:
        return model.words.agreement(self.pairs), model.words.accuracy(self.questions) if self.questions else None


def neighbours_of_some(words: WordVectors, seed: int) -> list[str]:
    """Lines with the neighbours of some frequent words, drawn by the seed."""
    frequent = [word for word in words.vocabulary[:_FREQUENT] if word != UNKNOWN]
    drawn = np.random.default_rng(seed).permutation(len(frequent))[:_ASKED]
    return [
        f"near {frequent[i]}: {', '.join(word for word, _ in words.most_similar(frequent[i], topn=_ANSWERS))}"
        for i in sorted(drawn)
    ]


def _judgements(asked: bool | None) -> Judgements | None:
    """None where they are not wanted, or not there and not asked for."""
    if asked is False:
        return None
    try:
        return Judgements()
    except FileNotFoundError:
        if asked:
            raise
        return None


def train(folder: Path, options: Options, prepared: Prepared, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    words, validation, judgements, model = prepared
    assert options.lr is not None
    count = int(words.counts.sum())
    if not quiet:
        print(f"{options.data}: {count:,} words of {len(words.vocabulary):,} different ones")
        model.summary()
    resumed = (folder / run_folder.CHECKPOINT).exists()
    learned = training_run.learn(
        model,
        words.ids,
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=SGD(options.lr),
        shared_epochs=shared_epochs(options),
        monitor=None if validation is None else "val_loss",
        batch_size=options.batch_size,
        final_lr=options.final_lr,
        subsample=options.subsample or None,
        validation_data=validation,
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    names = ("loss", "val_loss")
    result = {name: learned.history[name][learned.best] for name in names if name in learned.history}
    lines = [f"loss: {result['loss']:.4f}; {learned.told}"]
    if not resumed and learned.seconds is not None:
        result["words_per_second"] = count * learned.epochs / learned.seconds
        lines[0] += f", {result['words_per_second']:,.0f} words a second"
    losses = learned.history["loss"]
    if options.final_lr is not None and losses[-1] > min(losses):
        lines.insert(0, WHY_IT_ROSE)
    if options.test is not None:
        result["test_loss"] = _loss(model, options, options.test)["loss"]
        lines.append(f"test: loss {result['test_loss']:.4f}")
    if judgements is not None:
        agreement, accuracy = judgements.measure(model)
        asked = agreement.used + agreement.unknown
        result |= {"wordsim353": agreement.spearman, "wordsim353_pairs": agreement.used}
        lines.append(f"wordsim353: Spearman {agreement.spearman:.3f} over {agreement.used} of {asked} pairs")
        if accuracy is not None:
            result |= {"analogies": accuracy.accuracy, "analogies_asked": accuracy.used}
            lines.append(f"analogies: {accuracy.accuracy:.1%} right of {accuracy.used:,} with known words")
    if not quiet:
        lines = [*neighbours_of_some(model.words, options.seed), *lines]
    model.save_word2vec_format(folder / VECTORS)
    training_run.write_config(folder, TASK, options, result=result)
    print("\n".join(lines))
    return training_run.finish(folder, learned.code, pictures(folder, options, lambda: prepared))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:
    """The loss of a run's model on a text, all of whose pairs are taken once."""
    return _loss(run_folder.load_model(Word2Vec, folder), options, path)


def _loss(model: Word2Vec, options: Options, path: str) -> dict[str, float]:
    ids = _words_of(model, _words(options, path, learned=False)).ids
    return {"rows": int(np.count_nonzero(ids >= 0)), **model.evaluate(ids)}


def pictures(folder: Path, options: Options, prepared: Callable[[], Any]) -> Pictures:  # noqa: ARG001
    """The loss by epoch, and the most frequent words in a plane."""
    history = run_folder.read_history(folder)
    drawn = plots.of_loss(f"Word vectors, {Path(options.data).name}", "loss", {"": history})
    drawn[WORDS] = lambda path: plot_words(path, run_folder.load_model(Word2Vec, folder).words, 300)
    return drawn
