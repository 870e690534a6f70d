"""``dataset.sequence``, and ``dataset.ptb`` for who has no copy of the book's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastlstm import datasets
from fastlstm.contract import IntArray
from fastlstm.datasets.files import find_file, read_lines

Rows = tuple[IntArray, IntArray]

WHERE_TO_GET_IT = (
    "The book's files are in the folder dataset of github.com/oreilly-japan/deep-learning-from-scratch-2; put them "
    "into a folder dataset beside the scripts, or into a folder dlfs2 and set FASTLSTM_DATA_DIR to the folder above"
)

# Grow with every file that is read, as in the book.
id_to_char: dict[int, str] = {}
char_to_id: dict[str, int] = {}


def load_sequences(file_name: str = "addition.txt", seed: int | None = 1984) -> tuple[Rows, Rows]:
    """Questions and answers as ids: ((x_train, t_train), (x_test, t_test)), a tenth of the rows for the test.

    A line of the file is a question and, from "_" on, its answer, padded to one length each. The file is looked for in
    the user's own folder ``dataset``, then in dlfs2 below FASTLSTM_DATA_DIR, plain or .xz. Unless seed is None, numpy's
    global generator is seeded with it, before it shuffles the rows.

    Raises
    ------
    FileNotFoundError
        The message says where to get it.
    ValueError
        The file is no such table.
    """
    path = _find(file_name)
    lines = list(read_lines(path))
    width, start = len(lines[0]), lines[0].find("_")
    for number, line in enumerate(lines, 1):
        if len(line) != width or line.find("_") != start or start < 1:
            raise ValueError(
                f"{path}, line {number}: {line!r} has {line.find('_')} symbols before '_' and {len(line)} in all, "
                f"line 1 has {start} and {width}; pad with blanks"
            )
    symbols = np.frombuffer("".join(lines).encode("utf-32-le"), np.uint32)
    different, first, inverse = np.unique(symbols, return_index=True, return_inverse=True)
    # New symbols get their ids in the order in which they appear.
    for k in np.argsort(first):
        symbol = chr(different[k])
        if symbol not in char_to_id:
            id_to_char[len(char_to_id)] = symbol
            char_to_id[symbol] = len(char_to_id)
    id_of = np.array([char_to_id[chr(symbol)] for symbol in different])
    ids = id_of[inverse].reshape(len(lines), width)

    order = np.arange(len(ids))
    if seed is not None:
        np.random.seed(seed)  # noqa: NPY002
    np.random.shuffle(order)  # noqa: NPY002
    x, t = ids[order, :start], ids[order, start:]
    split = len(ids) - len(ids) // 10
    return (x[:split], t[:split]), (x[split:], t[split:])


def get_vocab() -> tuple[dict[str, int], dict[int, str]]:
    """char_to_id, id_to_char: of all files read so far."""
    return char_to_id, id_to_char


def _find(file_name: str) -> Path:
    # The user's own package, if there is one, says where the data are.
    for folder in getattr(sys.modules.get("dataset"), "__path__", ()):
        if (path := Path(folder) / file_name).exists():
            return path
    name = f"dlfs2/{file_name}"
    try:
        return find_file(f"{name}.xz", WHERE_TO_GET_IT)
    except FileNotFoundError:
        return find_file(name, WHERE_TO_GET_IT)


def load_ptb(data_type: str = "train") -> tuple[IntArray, dict[str, int], dict[int, str]]:
    """A part of the Penn Treebank, "train", "valid" (or "val") or "test": ids (L,), word to id, id to word."""
    text = datasets.ptb("valid" if data_type == "val" else data_type)
    return text.ids, *_both_ways(text.vocabulary)


def load_ptb_vocab() -> tuple[dict[str, int], dict[int, str]]:
    """Word to id and id to word of the Penn Treebank."""
    return _both_ways(datasets.ptb("train").vocabulary)


def _both_ways(vocabulary: list[str]) -> tuple[dict[str, int], dict[int, str]]:
    return {word: i for i, word in enumerate(vocabulary)}, dict(enumerate(vocabulary))
