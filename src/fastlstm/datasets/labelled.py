"""Texts with classes, such as reviews with their sentiment, as ids of words."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file, read_lines, without_packing
from fastlstm.datasets.tables import read_columns
from fastlstm.datasets.tokenizers import UNKNOWN, Tokenizer, check_tokenizer, split_line
from fastlstm.datasets.vocabulary import checked_texts

Longer = Literal["first", "last", "drop"]
LONGER: tuple[Longer, ...] = ("first", "last", "drop")
POLARITIES = ("neg", "pos")

WHERE_TO_GET_IT = (
    "A file has a line a text, label TAB text. The reviews of Maas et al. (2011), aclImdb_v1.tar.gz, are at "
    "ai.stanford.edu/~amaas/data/sentiment, the sentences of Pang and Lee (2005), rt-polarity.pos and rt-polarity.neg, "
    "at www.cs.cornell.edu/people/pabo/movie-review-data; set FASTLSTM_DATA_DIR to the folder above them"
)


class LabelledText(NamedTuple):
    """xs: the ids of each text's words, N arrays (length,) int32; ts (N,) int64 classes.

    Id i means vocabulary[i], class c means classes[c].
    """

    xs: list[IntArray]
    ts: IntArray
    vocabulary: list[str]
    classes: list[str]


def labelled_text(
    path: str | os.PathLike[str],
    *,
    vocab_size: int | None = None,
    maxlen: int | None = None,
    longer: Longer = "last",
    vocabulary: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    tokenizer: Tokenizer = "words",
    text_column: str | None = None,
    label_column: str | None = None,
) -> LabelledText:
    """Read texts with their labels, UTF-8, plain or packed (.xz, .gz, .bz2).

    Parameters
    ----------
    path : path
        A file with a line a text: a label, a tab, the text; where there are more tabs, what is between the first and
        the last is not read. Or a folder with the folders "neg" and "pos", a file each text (the training or test part
        of aclImdb), or with two files NAME.neg and NAME.pos, a line a text (rt-polarity). Looked for as it stands and
        below FASTLSTM_DATA_DIR.
    vocab_size : int, optional
        Keep only the most frequent words, "<unk>" included: 10,000 for instance. All others get its id, 0.
    maxlen : int, optional
        At most so many words of each text.
    longer : "last", "first" or "drop"
        What becomes of longer texts: their last words are kept, their first, or the texts are left out, as Theano's
        tutorial does while training.
    vocabulary, classes : sequences of str, optional
        Those of the training part, for reading another part. Without them the words get ids by falling frequency, and
        the labels classes in ascending order.
    limit : int, optional
        Only so many texts from the beginning (of a folder's: from the beginning of each label).
    tokenizer : "blanks", "words", "char" or "janome"
        See `fastlstm.datasets.tokenizers`.
    text_column, label_column : str, optional
        Of a CSV file, the names of the columns that hold texts and labels, see `read_columns`.

    Raises
    ------
    OSError
        A file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1")
    if (text_column is None) != (label_column is None):
        raise ValueError("text_column and label_column are given together or not at all")
    path = find_file(path, WHERE_TO_GET_IT)
    if text_column is None or label_column is None:
        rows = _labelled_lines(path, limit)
    else:
        columns = read_columns(path, [label_column, text_column], limit=limit)
        rows = iter(zip(columns[label_column], columns[text_column], strict=True))
    return _labelled(str(path), rows, vocab_size, maxlen, longer, vocabulary, classes, tokenizer)


def labelled_texts(
    texts: Iterable[str],
    labels: Iterable[object],
    *,
    vocab_size: int | None = None,
    maxlen: int | None = None,
    longer: Longer = "last",
    vocabulary: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    tokenizer: Tokenizer = "words",
) -> LabelledText:
    """Texts from memory with their labels, as `labelled_text` reads them from a file.

    Parameters
    ----------
    texts : iterable of str
        A list, a column of a pandas DataFrame, anything that gives texts.
    labels : iterable
        One for each text; a class is called by its label's str.
    vocab_size, maxlen, longer, vocabulary, classes, tokenizer
        As in `labelled_text`.

    Raises
    ------
    TypeError
        texts is one string, or one of them is none.
    ValueError
        There are not as many labels as texts, or all are the same.
    """
    texts, names = list(checked_texts("texts", texts)), [str(label) for label in labels]
    if len(texts) != len(names) or not texts:
        raise ValueError(f"there are {len(texts)} texts and {len(names)} labels, expected one for each text, and some")
    rows = zip(names, texts, strict=True)
    return _labelled("texts", rows, vocab_size, maxlen, longer, vocabulary, classes, tokenizer)


def _labelled(
    path: str,
    rows: Iterator[tuple[str, str]],
    vocab_size: int | None,
    maxlen: int | None,
    longer: Longer,
    vocabulary: Sequence[str] | None,
    classes: Sequence[str] | None,
    tokenizer: Tokenizer,
) -> LabelledText:
    """Texts of a source, each with its label before it."""
    check_tokenizer(tokenizer)
    for name, value in (("vocab_size", vocab_size), ("maxlen", maxlen)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if longer not in LONGER:
        raise ValueError(f"longer is {longer!r}, expected 'last', 'first' or 'drop'")
    if vocabulary is not None and vocab_size is not None:
        raise ValueError("vocab_size is for making a vocabulary, and one is given")
    labels: list[str] = []

    def texts() -> Iterator[str]:
        for label, text in rows:
            labels.append(label)
            yield text

    if vocabulary is None:
        xs, vocabulary = _count_and_encode(texts(), vocab_size, tokenizer)
    else:
        xs = _encode(texts(), vocabulary, tokenizer)
    if classes is None:
        classes = sorted(set(labels), key=lambda label: (int(label), label) if label.isdecimal() else (0, label))
        if len(classes) < 2:
            raise ValueError(f"{path}: all {len(labels)} texts have the label {classes[0]!r}, expected at least two")
    elif unknown := set(labels) - set(classes):
        raise ValueError(f"{path}: the label {min(unknown)!r} is none of the classes {', '.join(classes)}")
    number = {name: c for c, name in enumerate(classes)}
    ts = np.array([number[label] for label in labels], np.int64)
    if maxlen is not None:
        if longer == "drop":
            kept = [i for i, ids in enumerate(xs) if len(ids) <= maxlen]
            if not kept:
                raise ValueError(f"{path}: no text has at most {maxlen} words; a larger maxlen helps")
            xs, ts = [xs[i] for i in kept], ts[kept]
        xs = [shorten(ids, maxlen, longer) for ids in xs]
    return LabelledText(xs, ts, list(vocabulary), list(classes))


def encode_texts(texts: Iterable[str], vocabulary: Sequence[str], tokenizer: Tokenizer = "words") -> list[IntArray]:
    """The ids of each text's words, by the vocabulary and the tokenizer of `labelled_text`.

    Raises
    ------
    TypeError
        texts is one string instead of several.
    ValueError
        A word is not in the vocabulary, nor is "<unk>".
    """
    check_tokenizer(tokenizer)
    return _encode(checked_texts("texts", texts), vocabulary, tokenizer)


def shorten(ids: IntArray, maxlen: int | None, longer: Longer) -> IntArray:
    """At most maxlen ids, the first or the last; with "drop" all: a text that is asked about is not left out."""
    if maxlen is None or longer == "drop":
        return ids
    return ids[:maxlen] if longer == "first" else ids[-maxlen:]


def _encode(texts: Iterable[str], vocabulary: Sequence[str], tokenizer: Tokenizer) -> list[IntArray]:
    id_of = {word: i for i, word in enumerate(vocabulary)}
    unknown = id_of.get(UNKNOWN)

    def encode(text: str) -> IntArray:
        words = split_line(text, tokenizer)
        ids = [id_of.get(word, unknown) for word in words]
        if None in ids:
            raise ValueError(
                f"{words[ids.index(None)]!r} in {text[:60]!r} is not in the vocabulary of {len(id_of):,} words, which "
                f"has no {UNKNOWN!r} for unknown ones"
            )
        return np.array(ids, np.int32)

    return list(map(encode, texts))


def _count_and_encode(
    texts: Iterable[str], vocab_size: int | None, tokenizer: Tokenizer
) -> tuple[list[IntArray], list[str]]:
    """Ids of all texts, and their vocabulary by falling frequency."""
    id_of: dict[str, int] = {}
    split = functools.partial(split_line, tokenizer=tokenizer)
    xs = [np.array([id_of.setdefault(word, len(id_of)) for word in split(text)], np.int32) for text in texts]
    counts = np.bincount(np.concatenate(xs), minlength=len(id_of))
    if UNKNOWN in id_of:
        counts[id_of[UNKNOWN]] = 0  # the unknown word itself
    by_frequency = np.argsort(-counts, kind="stable")[: None if vocab_size is None else vocab_size - 1]
    by_frequency = by_frequency[counts[by_frequency] > 0]
    new_id = np.zeros(len(id_of), np.int32)
    new_id[by_frequency] = np.arange(1, len(by_frequency) + 1)
    words = list(id_of)
    return [new_id[ids] for ids in xs], [UNKNOWN, *(words[i] for i in by_frequency)]


def _labelled_lines(path: Path, limit: int | None) -> Iterator[tuple[str, str]]:
    """Label and text, one after the other."""
    if not path.is_dir():
        for number, line in enumerate(islice(read_lines(path), limit), 1):
            label, tab, rest = line.partition("\t")
            text = rest.rpartition("\t")[2]
            if not (tab and label.strip() and text.strip()):
                raise ValueError(f"{path}, line {number}: {line[:60]!r} is no label, tab and text")
            yield label.strip(), text
        return
    for label in POLARITIES:
        if (path / label).is_dir():
            texts = sorted((path / label).glob("*.txt"))
            if not texts:
                raise FileNotFoundError(f"{path / label} holds no file NAME.txt, expected one for each text")
            for file in texts[:limit]:
                yield label, "\n".join(read_lines(file))
            continue
        files = sorted(file for file in path.iterdir() if without_packing(file.name).endswith(f".{label}"))
        if len(files) != 1:
            raise FileNotFoundError(
                f"{path} is a folder without one file NAME.{label} or a folder {label}. {WHERE_TO_GET_IT}"
            )
        for number, line in enumerate(islice(read_lines(files[0]), limit), 1):
            if not line.strip():
                raise ValueError(f"{files[0]}, line {number}: there is no text")
            yield label, line
