"""Texts as one long array of ids: any file, by words or characters, and the Penn Treebank."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file
from fastlstm.datasets.tables import text_lines
from fastlstm.datasets.tokenizers import UNKNOWN, Tokenizer, Unit, check_tokenizer, split_lines, tokenizer_of
from fastlstm.datasets.vocabulary import checked_texts, most_frequent

SPLITS = ("train", "valid", "test")

WHERE_TO_GET_PTB = (
    "fastlstm data get ptb fetches it. "
    "The Penn Treebank of Mikolov's language models, ptb.train.txt, ptb.valid.txt and ptb.test.txt, is in the folder "
    "data of github.com/tomsercu/lstm; put the files, plain or as .xz, into a folder ptb and set FASTLSTM_DATA_DIR to "
    "the folder above"
)
WHERE_TO_GET_TEXT = "Any UTF-8 text will do, plain or packed (.xz, .gz, .bz2)"


class Text(NamedTuple):
    """ids (L,) int64 of a text's words or characters; id i means vocabulary[i]."""

    ids: IntArray
    vocabulary: list[str]


def plain_text(
    path: str | os.PathLike[str],
    unit: Unit = "char",
    *,
    vocabulary: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Tokenizer | None = None,
    min_count: int = 1,
    max_size: int | None = None,
    column: str | None = None,
) -> Text:
    r"""Read a UTF-8 file, plain or packed (.xz, .gz, .bz2).

    Parameters
    ----------
    path : path
        Looked for as it stands and below FASTLSTM_DATA_DIR; "-" is stdin.
    unit : "char" or "word"
        Characters, line ends included (but for the file's last); or what stands between blanks, and "<eos>" at the end
        of every line. Where the text itself has the word "<eos>", that is another word, "\<eos>".
    vocabulary : sequence of str, optional
        That of another text; what it lacks is "<unk>" where it has that. Without it the words get ids in the order in
        which they appear.
    limit : int, optional
        Only so many words or characters from the beginning.
    tokenizer : "blanks", "words", "char" or "janome", optional
        In the place of unit, see `fastlstm.datasets.tokenizers`.
    min_count, max_size
        As in `Vocabulary.from_texts`: where one is given, rarer words become "<unk>", id 0, and the others get ids by
        falling frequency.
    column : str, optional
        The text is the column of this name in a CSV file, see `read_columns`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or has a symbol that the vocabulary lacks.
    """
    path = find_file(path, WHERE_TO_GET_TEXT)
    options = _Options(tokenizer_of(unit) if tokenizer is None else tokenizer, vocabulary, limit, min_count, max_size)
    return _encode_lines(text_lines(path, column), str(path), options)


def plain_texts(
    texts: Iterable[str],
    unit: Unit = "char",
    *,
    vocabulary: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Tokenizer | None = None,
    min_count: int = 1,
    max_size: int | None = None,
) -> Text:
    """Texts from memory, one after the other, as `plain_text` reads a file's: the end of a text is a line's end.

    Parameters
    ----------
    texts : iterable of str
        A list, a column of a pandas DataFrame, anything that gives texts; read once.
    unit, vocabulary, limit, tokenizer, min_count, max_size
        As in `plain_text`.

    Raises
    ------
    TypeError
        texts is one string, or one of them is none.
    ValueError
        There are no symbols, or one that the vocabulary lacks.
    """
    options = _Options(tokenizer_of(unit) if tokenizer is None else tokenizer, vocabulary, limit, min_count, max_size)
    lines = (line for text in checked_texts("texts", texts) for line in text.removesuffix("\n").split("\n"))
    return _encode_lines(lines, "texts", options)


class _Options(NamedTuple):
    """What `plain_text` and `plain_texts` have in common."""

    tokenizer: Tokenizer
    vocabulary: Sequence[str] | None
    limit: int | None
    min_count: int
    max_size: int | None


def _encode_lines(lines: Iterator[str], source: str, options: _Options) -> Text:
    check_tokenizer(options.tokenizer)
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"limit is {options.limit}, expected at least 1")
    cut = options.min_count != 1 or options.max_size is not None
    if cut and options.vocabulary is not None:
        raise ValueError("min_count and max_size are for making a vocabulary, and one is given")
    symbols = _characters(lines) if options.tokenizer == "char" else split_lines(lines, options.tokenizer)
    ids, vocabulary = encode_symbols(islice(symbols, options.limit), options.vocabulary, source)
    if not len(ids):
        raise ValueError(f"{source} has no symbols, expected a text")
    if cut:
        counts = np.bincount(ids, minlength=len(vocabulary))
        order = most_frequent(vocabulary, counts, options.min_count, options.max_size)
        new_ids = np.zeros(len(vocabulary), np.int64)
        new_ids[order] = np.arange(1, len(order) + 1)
        ids, vocabulary = new_ids[ids], [UNKNOWN, *(vocabulary[i] for i in order)]
    return Text(ids, vocabulary)


def ptb(split: str = "train", *, limit: int | None = None) -> Text:
    """Read a part of the Penn Treebank, in words: 929,589 to train on, of 10,000 different ones.

    The files are ptb/ptb.SPLIT.txt or ptb/ptb.SPLIT.txt.xz below FASTLSTM_DATA_DIR. All parts have the vocabulary of
    the training part: ids in the order in which the words appear there.

    Parameters
    ----------
    split : "train", "valid" or "test"
    limit : int, optional
        Only so many words from the beginning of the training part, and a vocabulary of these.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message says where to get it.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected 'train', 'valid' or 'test'")
    if limit is not None and split != "train":
        raise ValueError(f"limit is for the training part, split is {split!r}")
    train = plain_text(_ptb_file("train"), "word", limit=limit)
    if split == "train":
        return train
    path = _ptb_file(split)
    # Rare words are "<unk>" already: another one that the training part lacks is a mistake.
    symbols = split_lines(text_lines(path, None), "blanks")
    return encode_symbols(symbols, train.vocabulary, str(path), known_only=True)


def _ptb_file(split: str) -> Path:
    return find_file(f"ptb/ptb.{split}.txt", WHERE_TO_GET_PTB)


def encode_symbols(
    symbols: Iterator[str] | Sequence[str],
    vocabulary: Sequence[str] | None,
    source: str,
    *,
    known_only: bool = False,
) -> Text:
    """Ids of symbols; without a vocabulary, in the order in which they appear.

    Those that a vocabulary lacks are "<unk>" if it has that, and an error if it has not, or with ``known_only``.
    """
    if vocabulary is None:
        id_of: dict[str, int] = {}
        ids = np.fromiter((id_of.setdefault(symbol, len(id_of)) for symbol in symbols), np.int64)
        return Text(ids, list(id_of))
    id_of = {symbol: i for i, symbol in enumerate(vocabulary)}
    if UNKNOWN in id_of and not known_only:
        unknown_id = id_of[UNKNOWN]
        id_of = defaultdict(lambda: unknown_id, id_of)
    try:
        return Text(np.fromiter((id_of[symbol] for symbol in symbols), np.int64), list(vocabulary))
    except KeyError as unknown:
        raise ValueError(f"{source}: {unknown} is not in the vocabulary of {len(id_of):,} symbols") from None


def _characters(lines: Iterator[str]) -> Iterator[str]:
    yield from next(lines, "")
    for line in lines:
        yield "\n"
        yield from line
