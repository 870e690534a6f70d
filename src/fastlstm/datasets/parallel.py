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
from fastlstm.datasets.text import reject_string
from fastlstm.datasets.tokenizers import UNITS, UNKNOWN, Unit, split_words_beside, unescape

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
    targets are the N sentences and translations as they were read.
    """

    xs: IntArray
    ts: IntArray
    vocabulary: list[str]
    target_vocabulary: list[str]
    unit: Unit
    sources: list[str]
    targets: list[str]

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
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, expected 'char' or 'word'")
    for name, value in (("min_count", min_count), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if min_count > 1 and unit == "char":
        raise ValueError("min_count is for words; every character has an id of its own")
    if min_count > 1 and vocabulary is not None:
        raise ValueError("min_count is for making a vocabulary, and one is given")
    if (vocabulary is None) != (target_vocabulary is None):
        raise ValueError("vocabulary and target_vocabulary are given together or not at all")
    files = find_pair_files(path, target_path)
    sources, targets = read_pairs(files, limit)
    read = " and ".join(map(str, files))
    if vocabulary is None:
        vocabulary = _make_vocabulary(sources, _special_symbols(unit, target=False), unit, min_count)
    if target_vocabulary is None:
        target_vocabulary = _make_vocabulary(targets, _special_symbols(unit, target=True), unit, min_count)
    return ParallelText(
        encode_sources(sources, vocabulary, unit, read),
        _encode_targets(targets, target_vocabulary, unit, read),
        list(vocabulary),
        list(target_vocabulary),
        unit,
        sources,
        targets,
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
    sentences: Sequence[str], vocabulary: Sequence[str], unit: Unit, source: str = "the text"
) -> IntArray:
    """Sentences as a model reads them: ids (N, S), padded to the longest.

    Words that the vocabulary lacks become "<unk>" if it has that.

    Raises
    ------
    ValueError
        A symbol is not in the vocabulary; the message begins with ``source``.
    """
    reject_string("sentences", sentences)
    symbols = SYMBOLS[unit]
    around = ([], []) if unit == "char" else ([symbols.start], [symbols.end])
    return _encode(sentences, vocabulary, unit, *around, source)


def decode_target(ids: Iterable[int], target_vocabulary: Sequence[str], unit: Unit) -> str:
    """What a row of target ids says, up to the end symbol, without the special ones."""
    symbols = SYMBOLS[unit]
    said = []
    for i in ids:
        if target_vocabulary[i] == symbols.end:
            break
        if i != PAD_ID and target_vocabulary[i] != symbols.start:
            said.append(unescape(target_vocabulary[i], _MARKS))
    return ("" if unit == "char" else " ").join(said)


def split_sentence(sentence: str, unit: Unit) -> list[str]:
    """Its characters or its words, as they stand in a vocabulary."""
    return list(sentence) if unit == "char" else split_words_beside(_MARKS, sentence)


def _encode_targets(sentences: Sequence[str], vocabulary: Sequence[str], unit: Unit, source: str) -> IntArray:
    start, end = SYMBOLS[unit]
    return _encode(sentences, vocabulary, unit, [start], [end], source)


def _encode(
    sentences: Sequence[str], vocabulary: Sequence[str], unit: Unit, before: list[str], after: list[str], source: str
) -> IntArray:
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    unknown = id_of.get(UNKNOWN)
    rows = []
    for number, sentence in enumerate(sentences, 1):
        symbols = [*before, *split_sentence(sentence, unit), *after]
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


def _make_vocabulary(sentences: Sequence[str], special: Sequence[str], unit: Unit, min_count: int) -> list[str]:
    def symbols() -> Iterator[str]:
        for sentence in sentences:
            yield from split_sentence(sentence, unit)

    counts = Counter(symbols())  # in the order of appearance, which sorting by frequency keeps
    frequent = sorted((symbol for symbol, n in counts.items() if n >= min_count), key=counts.__getitem__, reverse=True)
    return [*special, *(symbol for symbol in frequent if symbol not in special)]
