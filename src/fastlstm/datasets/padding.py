"""Rows of ids of different lengths as one array: the convention of padding that all models take.

-1 is padding, at any place of a row: no step of what is read, and no target. A model that has a ``pad_id`` takes that
for the same. No id of a word is padding by itself, 0 neither: what Keras has padded with 0 is told by ``lengths``, or
by ``pad_id=0`` where no word has the id 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from fastlstm.contract import IntArray
from fastlstm.ops import scalars
from fastlstm.ops.array_likes import integers
from fastlstm.ops.checks import INTS, check_choice, describe

PADDING = -1  # an id of this value is no step
Side = Literal["post", "pre"]
SIDES = ("post", "pre")


def pad_sequences(rows: Iterable[Any], *, value: int = PADDING, padding: Side = "post") -> IntArray:
    """Rows of ids of different lengths as one array.

    Parameters
    ----------
    rows : iterable of (length,) ids
        Not negative; lists or arrays of integers.
    value : int
        What fills up shorter rows: -1, which all models take for padding; or a ``pad_id``, which no row may hold.
    padding : "post" or "pre"
        Fill them up at their ends or at their beginnings.

    Returns
    -------
    (N, T) int64, or int32 if all rows are int32
        T is the length of the longest row.

    Raises
    ------
    IndexError, TypeError, ValueError
        A row is no row of ids, or an argument does not fit.

    Warns
    -----
    UserWarning
        A row holds ``value``, which would be taken for padding.
    """
    check_choice("padding", padding, SIDES)
    return padded("rows", rows, scalars.integer("value", value, PADDING), padding)


def padded(name: str, rows: Iterable[Any], value: int = PADDING, padding: Side = "post") -> IntArray:
    """As `pad_sequences`, with a name for errors."""
    if not isinstance(rows, Iterable):
        raise TypeError(f"{name} is {describe(rows)}, expected an array of ids, or a sequence of rows")
    arrays = []
    for i, row in enumerate(rows):
        array = integers(f"{name}[{i}]", row, 1, "one axis of ids, (time steps,)")
        if array.size and array.min() < 0:
            raise IndexError(f"{name}[{i}] holds {array.min()}; ids start at 0, and a list needs no padding")
        if array.size and array.max() >= 2**63:
            raise IndexError(f"{name}[{i}] holds {array.max()}, expected 0 to {2**63 - 1}")
        if value >= 0 and (array == value).any():
            warnings.warn(
                f"{name}[{i}] holds {value}, with which shorter rows are padded, so that it is padding too; let no "
                "word have this id, or leave value out",
                UserWarning,
                stacklevel=3,
            )
        arrays.append(array)
    T = max(map(len, arrays), default=0)
    narrow = all(array.dtype == INTS[1] for array in arrays)
    out = np.full((len(arrays), T), value, np.int32 if narrow else np.int64)
    for row, array in zip(out, arrays, strict=True):
        row[slice(0, len(array)) if padding == "post" else slice(T - len(array), T)] = array
    return out


def is_ragged(rows: Any) -> bool:
    """Whether a list or tuple holds rows of different lengths, of which numpy makes no array."""
    return isinstance(rows, (list, tuple)) and len({np.size(row) for row in rows}) > 1


def warn_of_zeros(name: str, ids: IntArray, vocabulary: Sequence[str] | None, hint: str) -> None:
    """Warn if rows (N, T) look filled up with 0, as Keras does: many begin or end with two zeros, and none has -1.

    Not where the vocabulary says that 0 is a word, such as the blanks that fill up the rows of the book.
    """
    if vocabulary and vocabulary[0].strip("<[]>").lower() not in ("", "pad"):
        return
    if ids.ndim != 2 or ids.shape[1] < 4 or len(ids) < 4 or (ids < 0).any():
        return
    if any(np.mean((ids[:, ends] == 0).all(axis=1)) > 0.25 for ends in (slice(2), slice(-2, None))):
        warnings.warn(
            f"many rows of {name} begin or end with 0, as Keras pads, and 0 is a word here; if it is padding, say so: "
            f"{hint}; if it is a symbol, model.vocabulary = [...] says which",
            UserWarning,
            stacklevel=4,
        )
