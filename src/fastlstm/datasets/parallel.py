"""Sentences with their translations, by characters or by words.

By characters as in the example lstm_seq2seq of Keras: the target begins with a tab and ends with a line's end. By words
with Keras's usual four symbols for padding, unknown words, begin and end around both sides.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file, read_lines
from fastlstm.datasets.tables import read_columns
from fastlstm.datasets.tokenizers import (
    UNKNOWN,
    Tokenizer,
    Unit,
    check_tokenizer,
    join_symbols,
    named_tokenizer,
    split_line,
    split_words_beside,
    tokenizer_of,
    unescape,
    unit_of,
)
from fastlstm.datasets.vocabulary import checked_texts, reject_string

PAD = "<pad>"  # fills up shorter rows; its id is 0
PAD_ID = 0


class Symbols(NamedTuple):
    """What stands before and after a sentence."""

    start: str
    end: str


SYMBOLS: dict[Unit, Symbols] = {"char": Symbols("\t", "\n"), "word": Symbols("<s>", "</s>")}
_MARKS = (PAD, *SYMBOLS["word"])  # words that are written like these are others: "\\<s>"

# Data sets known by name: the files of each, the first that is there.
NAMED: dict[str, tuple[tuple[str, ...], ...]] = {
    "jpn_eng": (("jpn_eng/jpn.txt",), ("jpn_eng/jpn.10k.tsv",)),
    "small_parallel_enja": (("small_parallel_enja/train.en", "small_parallel_enja/train.ja"),),
}
WHERE_TO_GET_IT = {
    "jpn_eng": (
        "The pairs of manythings.org and tatoeba.org, jpn.txt, are in jpn-eng.zip at www.manythings.org/anki; put the "
        "file, plain or as .xz, into a folder jpn_eng and set FASTLSTM_DATA_DIR to the folder above"
    ),
    "small_parallel_enja": (
        "fastlstm data get small_parallel_enja fetches it. "
        "It is at github.com/odashi/small_parallel_enja; put train.en and train.ja (and dev and test), plain or as "
        ".xz, into a folder small_parallel_enja and set FASTLSTM_DATA_DIR to the folder above"
    ),
}
WHERE_TO_GET_A_FILE = (
    "A file has a line a pair, SOURCE TAB TARGET; or two files have a sentence a line, line i of one translated in "
    f"line i of the other. Known by name: {', '.join(NAMED)}"
)


class ParallelText(NamedTuple):
    """xs (N, S) and ts (N, T): ids of sentences and of their translations, the start symbol first.

    Shorter rows end with id 0, the padding. Id i of xs means vocabulary[i], of ts target_vocabulary[i]. sources and
    targets are the N sentences and translations as they were read, and the tokenizers how they were cut.
    """

    xs: IntArray
    ts: IntArray
    vocabulary: list[str]
    target_vocabulary: list[str]
    unit: Unit
    sources: list[str]
    targets: list[str]
    tokenizer: Tokenizer = "char"
    target_tokenizer: Tokenizer = "char"

    @property
    def start_id(self) -> int:
        """What a decoder reads first."""
        return self.target_vocabulary.index(SYMBOLS[self.unit].start)

    @property
    def end_id(self) -> int:
        """What it says last."""
        return self.target_vocabulary.index(SYMBOLS[self.unit].end)


def parallel_text(
    path: str | os.PathLike[str],
    target_path: str | os.PathLike[str] | None = None,
    *,
    unit: Unit = "char",
    min_count: int = 1,
    vocabulary: Sequence[str] | None = None,
    target_vocabulary: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Tokenizer | None = None,
    target_tokenizer: Tokenizer | None = None,
    columns: tuple[str, str] | None = None,
) -> ParallelText:
    """Read pairs of sentences, UTF-8, plain or packed (.xz, .gz, .bz2).

    Parameters
    ----------
    path : path
        A file with a line a pair, source and target with a tab between them (more columns are not read); or, with
        target_path, the sources' sentences, one a line; or the name of a data set, "jpn_eng" or "small_parallel_enja".
        Looked for as it stands, with .xz behind it, and below FASTLSTM_DATA_DIR.
    target_path : path, optional
        The translations, one a line.
    unit : "char" or "word"
        Characters, or what stands between blanks. Of the special symbols, a sentence itself can hold "<unk>" only; a
        word that is written like another is a word of its own, with a backslash in the vocabulary.
    min_count : int
        Rarer words become "<unk>".
    vocabulary, target_vocabulary : sequences of str, optional
        Those of the training part, for reading another part. Without them: the special symbols, then what occurs, by
        falling frequency.
    limit : int, optional
        Only so many pairs from the beginning.
    tokenizer, target_tokenizer : "blanks", "words", "char" or "janome", optional
        In the place of unit, see `fastlstm.datasets.tokenizers`; that of the targets is that of the sources unless
        given. Both cut into words, or both into characters.
    columns : (source, target), optional
        Of a CSV file, the names of the columns that hold them, see `read_columns`.

    Returns
    -------
    ParallelText

    Raises
    ------
    OSError
        A file cannot be read; the message says where to get the data.
    ValueError
        A file is empty or no UTF-8, lines have no partner or no tab, or a character is not in the vocabulary.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1")
    tokenizers = pair_of_tokenizers(unit, tokenizer, target_tokenizer)
    if columns is None:
        files = find_pair_files(path, target_path)
        sources, targets = read_pairs(files, limit)
        read = " and ".join(map(str, files))
    elif target_path is not None:
        raise ValueError("columns are those of one file; leave target_path out")
    else:
        table = read_columns(path, columns, limit=limit)
        sources, targets = (table[column] for column in columns)
        read = os.fspath(path)
    return _parallel(sources, targets, read, tokenizers, min_count, vocabulary, target_vocabulary)


def parallel_texts(
    sources: Iterable[str],
    targets: Iterable[str],
    *,
    unit: Unit = "char",
    min_count: int = 1,
    vocabulary: Sequence[str] | None = None,
    target_vocabulary: Sequence[str] | None = None,
    tokenizer: Tokenizer | None = None,
    target_tokenizer: Tokenizer | None = None,
) -> ParallelText:
    """Pairs of sentences from memory, as `parallel_text` reads them from files.

    Parameters
    ----------
    sources, targets : iterables of str
        Lists, columns of a pandas DataFrame, anything that gives texts; one target a source.
    unit, min_count, vocabulary, target_vocabulary, tokenizer, target_tokenizer
        As in `parallel_text`.

    Raises
    ------
    TypeError
        One of them is a string, or a text is none.
    ValueError
        There are not as many sources as targets, or none.
    """
    sources, targets = list(checked_texts("sources", sources)), list(checked_texts("targets", targets))
    if len(sources) != len(targets) or not sources:
        raise ValueError(f"there are {len(sources)} sources and {len(targets)} targets, expected one each, and some")
    tokenizers = pair_of_tokenizers(unit, tokenizer, target_tokenizer)
    return _parallel(sources, targets, "sources and targets", tokenizers, min_count, vocabulary, target_vocabulary)


def pair_of_tokenizers(
    unit: Unit, tokenizer: Tokenizer | None, target_tokenizer: Tokenizer | None
) -> tuple[Tokenizer, Tokenizer]:
    """Those of sources and of targets; raises unless both cut into words or both into characters."""
    source = tokenizer_of(unit) if tokenizer is None else tokenizer
    target = source if target_tokenizer is None else target_tokenizer
    for name in (source, target):
        check_tokenizer(name)
    if (source == "char") != (target == "char"):
        raise ValueError(f"tokenizer is {source!r} and target_tokenizer {target!r}; both cut into words or into 'char'")
    return source, target


def _parallel(
    sources: list[str],
    targets: list[str],
    read: str,
    tokenizers: tuple[Tokenizer, Tokenizer],
    min_count: int,
    vocabulary: Sequence[str] | None,
    target_vocabulary: Sequence[str] | None,
) -> ParallelText:
    tokenizer, target_tokenizer = tokenizers
    unit = unit_of(tokenizer)
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}, expected at least 1")
    if min_count > 1 and unit == "char":
        raise ValueError("min_count is for words; every character has an id of its own")
    if min_count > 1 and vocabulary is not None:
        raise ValueError("min_count is for making a vocabulary, and one is given")
    if (vocabulary is None) != (target_vocabulary is None):
        raise ValueError("vocabulary and target_vocabulary are given together or not at all")
    if vocabulary is None:
        vocabulary = _make_vocabulary(sources, _special_symbols(unit, target=False), tokenizer, min_count)
    if target_vocabulary is None:
        target_vocabulary = _make_vocabulary(targets, _special_symbols(unit, target=True), target_tokenizer, min_count)
    return ParallelText(
        encode_sources(sources, vocabulary, tokenizer, read),
        _encode(targets, target_vocabulary, target_tokenizer, [SYMBOLS[unit].start], [SYMBOLS[unit].end], read),
        list(vocabulary),
        list(target_vocabulary),
        unit,
        sources,
        targets,
        tokenizer,
        target_tokenizer,
    )


def find_pair_files(path: str | os.PathLike[str], target_path: str | os.PathLike[str] | None = None) -> list[Path]:
    """The one file of pairs, or the two files of sentences, that `parallel_text` reads."""
    if target_path is not None:
        return [_find(name, WHERE_TO_GET_A_FILE) for name in (path, target_path)]
    name = os.fspath(path)
    if name not in NAMED:
        return [_find(path, WHERE_TO_GET_A_FILE)]
    for files in NAMED[name]:
        with contextlib.suppress(FileNotFoundError):
            return [_find(file, WHERE_TO_GET_IT[name]) for file in files]
    return [_find(file, WHERE_TO_GET_IT[name]) for file in NAMED[name][0]]  # raises


def _find(name: str | os.PathLike[str], where_to_get_it: str) -> Path:
    try:
        return find_file(name, where_to_get_it)
    except FileNotFoundError:
        try:
            return find_file(f"{os.fspath(name)}.xz", where_to_get_it)
        except FileNotFoundError:
            pass
        raise  # of the name as it was given


def read_pairs(files: Sequence[Path], limit: int | None = None) -> tuple[list[str], list[str]]:
    """Sources and targets as text, from one file with tabs or from two files of lines."""
    if len(files) == 1:
        (path,) = files
        sources, targets = [], []
        for number, line in enumerate(islice(read_lines(path), limit), 1):
            source, tab, rest = line.partition("\t")
            target = rest.partition("\t")[0]
            if not (tab and source.strip() and target.strip()):
                raise ValueError(f"{path}, line {number}: {line[:60]!r} is no source, tab and target")
            sources.append(source)
            targets.append(target)
        return sources, targets
    sources, targets = (list(islice(read_lines(path), limit)) for path in files)
    if len(sources) != len(targets):
        read = "" if limit is None else f" of the first {limit:,}"
        raise ValueError(
            f"{files[0]} has {len(sources):,} lines, {files[1]} has {len(targets):,}{read}; line i of one belongs to "
            "line i of the other"
        )
    for path, lines, others in ((files[0], sources, targets), (files[1], targets, sources)):
        for number, (line, other) in enumerate(zip(lines, others, strict=True), 1):
            if not line.strip():
                raise ValueError(f"{path}, line {number}: empty, its partner is {other[:60]!r}")
            if "\t" in line:
                raise ValueError(f"{path}, line {number}: {line[:60]!r} has a tab; two files have a sentence a line")
    return sources, targets


def encode_sources(
    sentences: Sequence[str], vocabulary: Sequence[str], tokenizer: Tokenizer | Unit, source: str = "the text"
) -> IntArray:
    """Sentences as a model reads them: ids (N, S), padded to the longest.

    Words that the vocabulary lacks become "<unk>" if it has that.

    Raises
    ------
    ValueError
        A symbol is not in the vocabulary; the message begins with ``source``.
    """
    reject_string("sentences", sentences)
    tokenizer = named_tokenizer(tokenizer)
    symbols = SYMBOLS[unit_of(tokenizer)]
    around = ([], []) if tokenizer == "char" else ([symbols.start], [symbols.end])
    return _encode(sentences, vocabulary, tokenizer, *around, source)


def decode_target(ids: Iterable[int], target_vocabulary: Sequence[str], tokenizer: Tokenizer | Unit) -> str:
    """What a row of target ids says, up to the end symbol, without the special ones."""
    tokenizer = named_tokenizer(tokenizer)
    symbols = SYMBOLS[unit_of(tokenizer)]
    said = []
    for i in ids:
        if target_vocabulary[i] == symbols.end:
            break
        if i != PAD_ID and target_vocabulary[i] != symbols.start:
            said.append(unescape(target_vocabulary[i], _MARKS))
    return " ".join(said) if tokenizer == "blanks" else join_symbols(said, tokenizer)


def split_sentence(sentence: str, tokenizer: Tokenizer) -> list[str]:
    """Its characters or its words, as they stand in a vocabulary."""
    return split_words_beside(_MARKS, sentence) if tokenizer == "blanks" else split_line(sentence, tokenizer)


def _encode(
    sentences: Sequence[str],
    vocabulary: Sequence[str],
    tokenizer: Tokenizer,
    before: list[str],
    after: list[str],
    source: str,
) -> IntArray:
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    unknown = id_of.get(UNKNOWN)
    rows = []
    for number, sentence in enumerate(sentences, 1):
        symbols = [*before, *split_sentence(sentence, tokenizer), *after]
        ids = [id_of.get(symbol, unknown) for symbol in symbols]
        if None in ids:
            raise ValueError(
                f"{source}, sentence {number}: {symbols[ids.index(None)]!r} in {sentence[:60]!r} is not in the "
                f"vocabulary of {len(id_of):,} symbols"
            )
        rows.append(ids)
    lengths = [len(ids) for ids in rows]
    padded = np.full((len(rows), max(lengths, default=0)), PAD_ID, np.int64)
    in_text = np.arange(padded.shape[1]) < np.array(lengths, np.int64)[:, None]
    padded[in_text] = np.fromiter(chain.from_iterable(rows), np.int64, sum(lengths))
    return padded


def _special_symbols(unit: Unit, *, target: bool) -> list[str]:
    if unit == "char":
        return [PAD, *SYMBOLS[unit]] if target else [PAD]
    return [PAD, UNKNOWN, *SYMBOLS[unit]]


def _make_vocabulary(
    sentences: Sequence[str], special: Sequence[str], tokenizer: Tokenizer, min_count: int
) -> list[str]:
    def symbols() -> Iterator[str]:
        for sentence in sentences:
            yield from split_sentence(sentence, tokenizer)

    counts = Counter(symbols())  # in the order of appearance, which sorting by frequency keeps
    frequent = sorted((symbol for symbol, n in counts.items() if n >= min_count), key=counts.__getitem__, reverse=True)
    return [*special, *(symbol for symbol in frequent if symbol not in special)]
