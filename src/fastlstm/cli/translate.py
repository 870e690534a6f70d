"""Teach a Seq2seq to translate from pairs of sentences, character by character or word by word."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm.callbacks import Callback, ModelCheckpoint
from fastlstm.cli import plots, run_folder, training_run, worker
from fastlstm.cli.option_types import BEAM_WIDTH, COUNT, LAYER_COUNT, POSITIVE, SHARE
from fastlstm.cli.plots import AttentionMap, Pictures, plot_attention
from fastlstm.cli.task import Initial, RunOptions
from fastlstm.cli.text_options import add_tokenizer, tell_if_unsplit
from fastlstm.contract import IntArray
from fastlstm.datasets import ParallelText, parallel_text
from fastlstm.datasets.bleu import bleu
from fastlstm.datasets.files import from_anywhere
from fastlstm.datasets.parallel import (
    NAMED,
    PAD_ID,
    SYMBOLS,
    decode_target,
    encode_sources,
    find_pair_files,
    pair_of_tokenizers,
    split_sentence,
)
from fastlstm.datasets.tokenizers import TOKENIZERS, UNKNOWN, Tokenizer, Unit, unit_of
from fastlstm.models import Seq2seq
from fastlstm.optim import Adam, Optimizer, RMSprop
from fastlstm.tensor_file import write_atomically
from fastlstm.training.progress import say

TASK = "translate"
CHECKPOINTS = "checkpoints"
TRANSLATIONS = "translations.txt"
LAYERS = "layers.png"
ATTENTION = "attention.png"
SAMPLES = 3  # decoded after each epoch, of each part
SHOWN = 8  # decoded at the end, of each part
SCORED = 1000  # decoded at the end, of the last part: BLEU is of these
MAPS = 4  # sentences whose attention is drawn
TRAINING = "training"  # name of the first part


MODEL_OPTIONS = (
    *("unit", "tokenizer", "target_tokenizer", "min_count", "hidden_size", "wordvec_size", "layers"),
    *("bidirectional", "attention", "reversed"),
)
DATA_OPTIONS = ("data", "target", "limit", "source_column", "target_column", "validation", "validation_split")


@dataclasses.dataclass(frozen=True)
class Options(RunOptions):
    """What fixes a training to the bit, together with the data. What is None depends on the unit or the data."""

    data: str = "jpn_eng"
    target: str | None = None
    unit: Unit | None = None
    limit: int | None = None
    min_count: int = 1
    hidden_size: int | None = None
    wordvec_size: int = 256
    layers: int = 1
    bidirectional: bool = False
    attention: bool = False
    reversed: bool = False
    dropout: float = 0.0
    optimizer: str | None = None
    lr: float = 0.001
    max_grad: float | None = None
    batch_size: int = 64
    epochs: int | None = None  # type: ignore[assignment]
    validation_split: float = 0.2
    checkpoint_every: int = 5
    beam: int = 1
    tokenizer: Tokenizer | None = None
    target_tokenizer: Tokenizer | None = None
    source_column: str | None = None
    target_column: str | None = None


# By characters as in Keras's lstm_seq2seq, by words as in articles on its functional interface.
BY_UNIT: dict[Unit, dict[str, Any]] = {
    "char": {"hidden_size": 256, "optimizer": "rmsprop", "epochs": 100},
    "word": {"hidden_size": 1024, "optimizer": "adam", "epochs": 10},
}


class Part(NamedTuple):
    """Sentences, the same as ids, and their translations by people."""

    name: str
    sources: list[str]
    xs: IntArray
    references: list[str]


class Prepared(NamedTuple):
    """What a training needs; pairs that are validated on, where they are not the last of all."""

    pairs: ParallelText
    parts: Sequence[Part]
    validation: ParallelText | None
    model: Seq2seq


class Decoding(NamedTuple):
    """How sentences are translated; the tokenizer is that of the translations."""

    tokenizer: Tokenizer
    max_len: int
    beam: int


class Decoded(NamedTuple):
    """Sentences of a part, their translations by people and by the model."""

    name: str
    sources: list[str]
    references: list[str]
    translations: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm train translate``: none has a default here, so that it can be told which were given."""
    switch = argparse.BooleanOptionalAction
    defaults, char, word = Options(), BY_UNIT["char"], BY_UNIT["word"]

    def by_unit(name: str) -> str:
        return f"default {char[name]} for characters, {word[name]} for words"

    add = parser.add_argument
    add(
        "--data",
        metavar="DATA",
        help="jpn_eng (default), small_parallel_enja, a file with lines SOURCE TAB TARGET, or with --target one of "
        "sources, plain or packed",
    )
    add("--target", metavar="FILE", help="the translations, line by line")
    add("--unit", choices=("char", "word"), help="default char; small_parallel_enja: word")
    add_tokenizer(parser, "by --unit, words by blanks")
    add("--target-tokenizer", choices=TOKENIZERS, help="of the translations; default --tokenizer")
    add("--source-column", metavar="NAME", help="of a CSV file, the column that holds the sentences")
    add("--target-column", metavar="NAME", help="and the one that holds the translations")
    add("--limit", type=COUNT, metavar="N", help="only the first N pairs; default for jpn_eng 5000")
    add("--min-count", type=COUNT, metavar="N", help="rarer words become <unk>, default 1")
    add("--hidden-size", type=COUNT, help=by_unit("hidden_size"))
    add("--wordvec-size", type=COUNT, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--layers", type=LAYER_COUNT, help=f"LSTMs of encoder and decoder, default {defaults.layers}")
    add("--bidirectional", action=switch, help="read the source in both directions; default no")
    add("--attention", action=switch, help="look at all states of the encoder; default no")
    add("--reversed", action=switch, help="read the source from its end; default no")
    add("--dropout", type=SHARE, help=f"default {defaults.dropout:g}")
    add("--optimizer", choices=("rmsprop", "adam"), help=by_unit("optimizer"))
    add("--lr", type=POSITIVE, help=f"learning rate, default {defaults.lr:g}")
    add("--max-grad", type=POSITIVE, help="clip the gradients' norm; default no clipping")
    add("--batch-size", type=COUNT, help=f"default {defaults.batch_size}")
    add("--epochs", type=COUNT, help=by_unit("epochs"))
    add(
        "--validation-split",
        type=SHARE,
        metavar="SHARE",
        help=f"share of the last pairs to validate on, default {defaults.validation_split:g}",
    )
    add("--checkpoint-every", type=COUNT, metavar="N", help=f"epochs, default {defaults.checkpoint_every}")
    add("--beam", type=BEAM_WIDTH, help="candidates kept while translating; default 1, the likeliest symbol every time")
    training_run.add_run_options(parser, TASK, files="a file of pairs, SOURCE TAB TARGET or a table,")


def files(options: Options) -> list[str]:
    names = [run_folder.MODEL, TRANSLATIONS, "loss.png", "accuracy.png", LAYERS]
    return [*names, ATTENTION] if options.attention else names


def shared_epochs(options: Options) -> int:
    assert options.epochs is not None
    return options.epochs


def prepare(options: Options, initial: Initial | None) -> Prepared:
    """The pairs and a model for them."""
    begun = None if initial is None else initial.load(Seq2seq)
    pairs, parts, validation = _data(options, begun)
    has_validation = validation is not None or options.validation_split > 0
    training_run.check_patience(options, has_validation, "--validation FILE, or a --validation-split")
    model = _model(options, pairs)
    if begun is not None:
        training_run.begin_with(model, begun)
    return Prepared(pairs, parts, validation, model)


def resolve(given: Mapping[str, Any]) -> Options:
    """The options of a new run from those that were given."""
    options = Options(**given)
    known = options.data in NAMED and options.target is None
    if (options.source_column is None) != (options.target_column is None):
        raise ValueError("--source-column and --target-column are given together or not at all")
    if options.validation is not None and "validation_split" in given and options.validation_split:
        raise ValueError("--validation is validated on; leave --validation-split out")
    unit: Unit = options.unit or ("word" if options.data == "small_parallel_enja" else "char")
    asked = options.tokenizer or options.target_tokenizer
    if options.unit and asked and unit_of(asked) != unit:
        raise ValueError(f"--unit {unit} and --tokenizer {asked} do not go together; leave one out")
    unit = unit if asked is None else unit_of(asked)
    tokenizers = pair_of_tokenizers(unit, options.tokenizer, options.target_tokenizer)
    paths = find_pair_files(options.data, options.target)
    if not known:
        # As seen from anywhere: the run may be resumed from another folder.
        data, *target = map(from_anywhere, paths)
        options = dataclasses.replace(options, data=data, target=target[0] if target else None)
    usual = {name: value for name, value in BY_UNIT[unit].items() if getattr(options, name) is None}
    limit = 5_000 if options.limit is None and options.data == "jpn_eng" and known else options.limit
    tokenizer, target_tokenizer = tokenizers
    if options.validation is not None:
        usual["validation_split"] = 0.0
    return dataclasses.replace(
        options, unit=unit, tokenizer=tokenizer, target_tokenizer=target_tokenizer, limit=limit, **usual
    )


def _data(options: Options, begun: Seq2seq | None) -> tuple[ParallelText, list[Part], ParallelText | None]:
    """All pairs, of which the last are validated on; parts of which sentences are shown, training first; validation.

    Vocabularies are those of the model that the run begins with, if there is one.
    """
    assert options.unit is not None
    vocabularies: dict[str, Any] = {"min_count": options.min_count}
    if begun is not None:
        vocabularies = _named_vocabularies(begun)
    pairs = parallel_text(options.data, options.target, limit=options.limit, **_reading(options), **vocabularies)
    for sentences, tokenizer in ((pairs.sources, pairs.tokenizer), (pairs.targets, pairs.target_tokenizer)):
        tell_if_unsplit((word for text in sentences for word in split_sentence(text, tokenizer)), tokenizer)
    known: dict[str, Any] = {"vocabulary": pairs.vocabulary, "target_vocabulary": pairs.target_vocabulary}
    held_out = int(len(pairs.xs) * options.validation_split)
    if options.validation_split and not held_out:
        raise ValueError(
            f"--validation-split {options.validation_split:g} holds out none of {len(pairs.xs)} pairs; give a larger "
            "one, or 0 to train without validation"
        )
    end = len(pairs.xs) - held_out
    parts = [Part(TRAINING, pairs.sources[:end], pairs.xs[:end], pairs.targets[:end])]
    validation = None
    if options.validation is not None:
        validation = parallel_text(options.validation, **_reading(options), **known)
        parts.append(Part("held out", validation.sources, validation.xs, validation.targets))
    if held_out:
        parts.append(Part("held out", pairs.sources[end:], pairs.xs[end:], pairs.targets[end:]))
    if options.test is not None:
        given = parallel_text(options.test, **_reading(options), **known)
        parts.append(Part("test", given.sources, given.xs, given.targets))
    elif test := _test_part(options, pairs):
        parts.append(test)
    return pairs, parts, validation


def _reading(options: Options) -> dict[str, Any]:
    """How pairs are read, whatever they are for."""
    columns = None
    if options.source_column is not None and options.target_column is not None:
        columns = options.source_column, options.target_column
    return {
        "unit": options.unit,
        "tokenizer": options.tokenizer,
        "target_tokenizer": options.target_tokenizer,
        "columns": columns,
    }


def _named_vocabularies(model: Seq2seq) -> dict[str, Any]:
    return {"vocabulary": model.vocabulary, "target_vocabulary": model.target_vocabulary}


def _test_part(options: Options, pairs: ParallelText) -> Part | None:
    """The test part of small_parallel_enja, if it is there; by characters it has some that training has not."""
    if options.data != "small_parallel_enja" or options.target is not None or pairs.unit == "char":
        return None
    try:
        test = parallel_text(
            *("small_parallel_enja/test.en", "small_parallel_enja/test.ja"),
            tokenizer=pairs.tokenizer,
            target_tokenizer=pairs.target_tokenizer,
            vocabulary=pairs.vocabulary,
            target_vocabulary=pairs.target_vocabulary,
        )
    except FileNotFoundError:
        return None
    return Part("test", test.sources, test.xs, test.targets)


def _model(options: Options, pairs: ParallelText) -> Seq2seq:
    assert options.hidden_size is not None
    model = Seq2seq(
        len(pairs.vocabulary),
        options.wordvec_size,
        options.hidden_size,
        target_vocab_size=len(pairs.target_vocabulary),
        num_layers=options.layers,
        reverse_source=options.reversed,
        bidirectional=options.bidirectional,
        attention=options.attention,
        dropout=options.dropout,
        pad_id=PAD_ID,
        seed=options.seed,
    )
    model.vocabulary, model.target_vocabulary = pairs.vocabulary, pairs.target_vocabulary
    model.tokenizer = pairs.tokenizer
    return model


def _optimizer(options: Options) -> Optimizer:
    # Keras's RMSprop forgets faster than the one that is usual here.
    return RMSprop(options.lr, decay_rate=0.9) if options.optimizer == "rmsprop" else Adam(options.lr)


def describe(prepared: Prepared) -> dict[str, Any]:
    """What config.json says of the pairs."""
    pairs, parts, validation, _ = prepared
    rows = {part.name.replace("held out", "validation"): len(part.sources) for part in parts}
    return {
        "rows": rows,
        "classes": len(pairs.target_vocabulary),
        "target_length": max(pairs.ts.shape[1], 0 if validation is None else validation.ts.shape[1]) - 1,
    }


def train(folder: Path, options: Options, prepared: Prepared, quiet: bool) -> int:
    """Train the model into the folder, from its checkpoint if it has one."""
    pairs, parts, validation, model = prepared
    if not quiet:
        model.summary()
    scored = can_score()
    decoding = Decoding(pairs.target_tokenizer, pairs.ts.shape[1] - 1, options.beam)
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    shown: list[Callback] = [] if quiet else [Samples(model, parts, decoding)]
    saved = ModelCheckpoint(folder / CHECKPOINTS / "epoch-{epoch:03d}.safetensors", period=options.checkpoint_every)
    learned = training_run.learn(
        model,
        pairs.xs,
        pairs.ts,
        options=options,
        folder=folder,
        quiet=quiet,
        optimizer=_optimizer(options),
        shared_epochs=shared_epochs(options),
        monitor="val_loss" if validation is not None or options.validation_split else None,
        batch_size=options.batch_size,
        max_grad=options.max_grad,
        validation_split=options.validation_split,
        validation_data=None if validation is None else (validation.xs, validation.ts),
        metrics=("loss", "token_accuracy"),
        callbacks=[saved, *shown],
    )
    if learned is None:
        return 1
    if not worker.is_first():
        return learned.code
    names = ("loss", "token_accuracy", "val_loss", "val_token_accuracy")
    result = {name: learned.history[name][learned.best] for name in names if name in learned.history}
    # Of the last part as many as are scored, of those before some to look at.
    decoded = [_decode(model, part, SCORED if part is parts[-1] else SHOWN, decoding) for part in parts]
    write_atomically(folder / TRANSLATIONS, "\n".join(map(_table, decoded)).encode())
    said = decoded[-1]
    if scored and said.name != TRAINING:
        result["bleu"] = _bleu(said, pairs.target_tokenizer)
    training_run.write_config(folder, TASK, options, result=result)
    symbols = _symbols(options)
    if not quiet:
        print("\n".join(_table(one, SHOWN) for one in decoded))
    figures = [f"{symbols} right {result['token_accuracy']:.1%}"]
    if "val_token_accuracy" in result:
        figures.append(f"held out {result['val_token_accuracy']:.1%}")
    if "bleu" in result:
        figures.append(f"BLEU {result['bleu']:.2f} of {len(said.sources)} sentences, {said.name}")
    print(f"{', '.join(figures)}; {learned.told}")
    return training_run.finish(folder, learned.code, pictures(folder, options, lambda: prepared))


def measure(folder: Path, options: Options, path: str) -> dict[str, float]:
    """Loss and symbols right of a run's model on the pairs of a file, and with sacrebleu BLEU."""
    model = run_folder.load_model(Seq2seq, folder)
    pairs = parallel_text(path, **_reading(options), **_named_vocabularies(model))
    measured = {"rows": len(pairs.xs), **model.evaluate(pairs.xs, pairs.ts, metrics=("loss", "token_accuracy"))}
    if can_score():
        length = run_folder.read_config(folder, TASK)["target_length"]
        part = Part("test", pairs.sources, pairs.xs, pairs.targets)
        said = _decode(model, part, SCORED, Decoding(pairs.target_tokenizer, length, options.beam))
        measured["bleu"] = _bleu(said, pairs.target_tokenizer)
    return measured


def pictures(folder: Path, options: Options, prepared: Callable[[], Prepared]) -> Pictures:
    """The curves, the model's layers, and where it looks."""
    title = f"Translation, {Path(options.data).name}"
    history = run_folder.read_history(folder)
    load = functools.cache(lambda: run_folder.load_model(Seq2seq, folder))
    drawn: Pictures = {
        LAYERS: lambda path: load().plot(path),
        **plots.of_token_accuracy(title, _symbols(options), history),
    }
    if options.attention:

        def draw(path: Path) -> None:
            pairs, parts, *_ = prepared()
            decoding = Decoding(pairs.target_tokenizer, pairs.ts.shape[1] - 1, options.beam)
            plot_attention(path, title, _attention_maps(load(), parts[-1], decoding))

        drawn[ATTENTION] = draw
    return drawn


def _symbols(options: Options) -> str:
    return "characters" if options.unit == "char" else "words"


def _bleu(said: Decoded, tokenizer: Tokenizer) -> float:
    """BLEU of the symbols that a text is cut into."""
    if tokenizer in ("char", "blanks"):
        return bleu(said.translations, said.references, unit=unit_of(tokenizer))
    both = said.translations, said.references
    translations, references = ([" ".join(split_sentence(text, tokenizer)) for text in texts] for texts in both)
    return bleu(translations, references, unit="word")


def can_score() -> bool:
    """Whether there is sacrebleu; without it say how to install it."""
    if importlib.util.find_spec("sacrebleu") is not None:
        return True
    print("sacrebleu is not installed, so there is no BLEU; run: pip install 'fastlstm[bleu]'", file=sys.stderr)
    return False


def translations(model: Seq2seq, xs: IntArray, decoding: Decoding, *, batch_size: int = 100) -> list[str]:
    """What the model says to sources xs (N, S)."""
    tokenizer, max_len, beam = decoding
    _, vocabulary = _vocabularies(model, unit_of(tokenizer))
    start, end = (vocabulary.index(symbol) for symbol in SYMBOLS[unit_of(tokenizer)])
    said = []
    for first in range(0, len(xs), batch_size):
        ids = model.generate(xs[first : first + batch_size], start, max_len, beam=beam, end_id=end)
        said += [decode_target(row, vocabulary, tokenizer) for row in ids]
    return said


def translator(folder: Path, config: Mapping[str, Any], beam: int | None) -> Callable[[str], str]:
    """What translates a sentence by the model of a run."""
    options = config["options"]
    # A run of an earlier version has no tokenizers.
    tokenizers = pair_of_tokenizers(options["unit"], options.get("tokenizer"), options.get("target_tokenizer"))
    model = run_folder.load_model(Seq2seq, folder)
    vocabulary, _ = _vocabularies(model, unit_of(tokenizers[0]))
    known = set(vocabulary)
    decoding = Decoding(tokenizers[1], config["target_length"], beam or options["beam"])

    def translate(sentence: str) -> str:
        if not sentence.strip():
            raise ValueError(f"{sentence!r} is no sentence")
        xs = encode_sources([sentence], vocabulary, tokenizers[0])
        if unknown := [word for word in split_sentence(sentence, tokenizers[0]) if word not in known]:
            print(f"not in the vocabulary, read as {UNKNOWN}: {', '.join(unknown)}", file=sys.stderr)
        (said,) = translations(model, xs, decoding)
        return f"{sentence}\t{said}"

    return translate


def _vocabularies(model: Seq2seq, unit: Unit) -> tuple[list[str], list[str]]:
    """Those of source and target."""
    source, target = model.vocabulary, model.target_vocabulary
    if source is None or target is None or not set(SYMBOLS[unit]) <= set(target):
        raise ValueError("the model has no vocabularies with start and end; train it with: fastlstm train translate")
    return source, target


def _decode(model: Seq2seq, part: Part, count: int, decoding: Decoding) -> Decoded:
    """Translate up to ``count`` sentences of a part, evenly spread."""
    rows = _spread(len(part.sources), count)
    said = translations(model, part.xs[rows], decoding)
    return Decoded(part.name, [part.sources[i] for i in rows], [part.references[i] for i in rows], said)


def _attention_maps(model: Seq2seq, part: Part, decoding: Decoding) -> list[AttentionMap]:
    """Where the model looks while it translates a few sentences, greedily."""
    unit = unit_of(decoding.tokenizer)
    vocabulary, target_vocabulary = _vocabularies(model, unit)
    start, end = (target_vocabulary.index(symbol) for symbol in SYMBOLS[unit])
    maps = []
    for row in _spread(len(part.sources), MAPS):
        xs = part.xs[row, part.xs[row] != PAD_ID][None]
        (written,) = model.generate(xs, start, decoding.max_len, end_id=end).tolist()
        written = written[: written.index(end) + 1] if end in written else written
        weights = model.attention_map(xs, np.array([[start, *written]]))[0]
        maps.append(AttentionMap([vocabulary[i] for i in xs[0]], [target_vocabulary[i] for i in written], weights))
    return maps


def _spread(n: int, count: int) -> IntArray:
    """Up to ``count`` rows of n, evenly spread."""
    return np.linspace(0, n - 1, min(n, count)).astype(np.int64)


def _table(decoded: Decoded, count: int = SCORED) -> str:
    lines = [f"{decoded.name}:"]
    for i in _spread(len(decoded.sources), count):
        lines += [f"  {decoded.sources[i]}", f"    reference  {decoded.references[i]}"]
        lines += [f"    decoded    {decoded.translations[i]}"]
    return "\n".join([*lines, ""])


class Samples(Callback):
    """Prints a few sentences after each epoch, with their references and what the model says."""

    def __init__(self, model: Seq2seq, parts: Sequence[Part], decoding: Decoding) -> None:
        super().__init__()
        self._model = model
        self._parts = parts
        self._decoding = decoding._replace(beam=1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:  # noqa: ARG002
        for part in self._parts:
            # Not the first and the last: sorted files have their extremes there.
            rows = _spread(len(part.sources), SAMPLES + 2)[1:-1]
            if not len(rows):
                continue
            said = translations(self._model, part.xs[rows], self._decoding)
            for row, answer in zip(rows, said, strict=True):
                reference = part.references[row]
                verdict = "right" if answer == reference else f"reference {reference}"
                say(f"  {part.name}: {part.sources[row]} -> {answer}  ({verdict})")
