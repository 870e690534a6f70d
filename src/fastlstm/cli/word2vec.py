"""Learn what words mean from the words that stand near them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.callbacks import CSVLogger
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import COUNT, NOT_NEGATIVE, POSITIVE, SAMPLE_COUNT
from fastlstm.cli.plots import plot_words
from fastlstm.cli.text_options import COLUMN, add_tokenizer, tell_if_unsplit
from fastlstm.datasets import Words, questions_words, read_words, tokenized_text, wordsim353
from fastlstm.datasets.files import find_file, from_anywhere
from fastlstm.datasets.text import WHERE_TO_GET_TEXT
from fastlstm.datasets.tokenized import sentences_of
from fastlstm.datasets.tokenizers import Tokenizer
from fastlstm.datasets.words import UNKNOWN, text8_path
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import Word2Vec
from fastlstm.models.word_vectors import Accuracy, Agreement, WordVectors
from fastlstm.ops.device import Device
from fastlstm.optim import SGD

TASK = "word2vec"
TEXT8 = "text8"
VECTORS = "vectors.txt"
WORDS = "words.png"
# Words whose neighbours are shown, of how many, and how many of them.
_ASKED, _FREQUENT, _ANSWERS = 8, 300, 8
FILES = (run_folder.MODEL, VECTORS, "loss.png", WORDS)


@dataclasses.dataclass(frozen=True)
class Options:
    """What fixes a training to the bit, together with the data. The default values are TensorFlow's tutorial's."""

    data: str = TEXT8
    loss: str = "nce"
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
    seed: int = 0
    shards: int = 1
    grad_precision: GradPrecision | None = None
    device: Device = "cpu"
    tokenizer: Tokenizer = "blanks"
    column: str | None = None


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
    add_tokenizer(parser, defaults.tokenizer, ("blanks", "words", "janome"))
    add("--column", metavar="NAME", help=COLUMN)
    add("--loss", choices=("nce", "negative_sampling", "sampled_softmax"), help=f"default {defaults.loss}")
    add("--cbow", action=switch, help="tell words by the mean of their neighbours; default no: skip-gram")
    add("--vocab-size", type=COUNT, help=f"the most frequent words, default {defaults.vocab_size:,}")
    add("--min-count", type=COUNT, help="leave rarer words out; default 1, for negative_sampling 5")
    add("--unknown", action=switch, help="other words become UNK; default yes, for negative_sampling no")
    add("--vector-size", type=COUNT, help=f"default {defaults.vector_size}")
    add("--window", type=COUNT, help=f"the farthest neighbour, default {defaults.window}")
    add(
        "--num-sampled",
        type=SAMPLE_COUNT,
        help="words drawn for a batch, default 64; for negative_sampling a pair's, 5",
    )
    add("--subsample", type=NOT_NEGATIVE, help=f"leave out frequent words, 0 for none; default {defaults.subsample:g}")
    add("--batch-size", type=COUNT, help="pairs, default 128; for negative_sampling 8192, which changes no step")
    add("--lr", type=POSITIVE, help="learning rate; default 1, for negative_sampling 0.025")
    add("--final-lr", type=POSITIVE, help="fall to it evenly; default no, for negative_sampling 0.0001")
    add("--epochs", type=COUNT, help=f"default {defaults.epochs}")
    add("--eval", action=switch, help="by wordsim353 and analogies; default if they are below FASTLSTM_DATA_DIR")
    training_run.add_run_options(parser, TASK, defaults.seed, precision=False)


def train(args: argparse.Namespace) -> int:
    """``fastlstm train word2vec``."""
    judgements = _judgements(args.eval)

    def train_and_judge(folder: Path, options: Options, prepared: tuple[Words, Word2Vec], quiet: bool) -> int:
        return _train(folder, options, *prepared, judgements, quiet)

    return training_run.run(
        args, TASK, Options, resolve=_resolve, prepare=_begin, train=train_and_judge, files=lambda _: FILES
    )


def _resolve(given: Mapping[str, Any]) -> Options:
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


def _begin(options: Options) -> tuple[Words, Word2Vec]:
    """The text and a new model for it."""
    assert options.min_count is not None
    assert options.num_sampled is not None
    cut: dict[str, Any] = {
        "max_words": options.vocab_size,
        "min_count": options.min_count,
        "unknown": bool(options.unknown),
    }
    if Path(options.data).is_dir():
        words = sentences_of(tokenized_text(options.data), **cut)
    else:
        words = read_words(options.data, tokenizer=options.tokenizer, column=options.column, **cut)
        tell_if_unsplit((words.vocabulary[i] for i in words.ids if i >= 0), options.tokenizer)
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
    model.vocabulary = words.vocabulary
    model.check_corpus(options.data, words.ids)
    return words, model


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


def _train(
    folder: Path, options: Options, words: Words, model: Word2Vec, judgements: Judgements | None, quiet: bool
) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    assert options.lr is not None
    count = int(words.counts.sum())
    if not quiet:
        print(f"{options.data}: {count:,} words of {len(words.vocabulary):,} different ones")
        model.summary()
    resumed = (folder / run_folder.CHECKPOINT).exists()
    learned = training_run.learn(
        model,
        words.ids,
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=SGD(options.lr),
        final_lr=options.final_lr,
        subsample=options.subsample or None,
        callbacks=[
            CSVLogger(folder / run_folder.HISTORY),
        ],
        shards=options.shards,
        grad_precision=options.grad_precision,
        device=options.device,
        folder=folder,
        quiet=quiet,
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    history = learned.history
    result = {"loss": history["loss"][-1]}
    lines = [f"loss: {result['loss']:.4f}; {options.epochs} epochs, {learned.took}"]
    if not resumed and learned.seconds is not None:
        result["words_per_second"] = count * options.epochs / learned.seconds
        lines[0] += f", {result['words_per_second']:,.0f} words a second"
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
    pictures = plots.of_loss(f"Word vectors, {Path(options.data).name}", "loss", {"": history})
    pictures[WORDS] = lambda path: plot_words(path, model.words, 300)
    return training_run.finish(folder, TASK, learned.code, pictures)
