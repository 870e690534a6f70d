"""Ids that callers pass, checked as they came: what a conversion would change is an error before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastlstm.contract import Array, IntArray
from fastlstm.ops import checks
from fastlstm.ops.array_likes import host_array as host_array
from fastlstm.ops.array_likes import integers as integers

IGNORED = -1  # a target of this value does not count
IDS_AT_ONCE = 1 << 20  # of a text that may lie in a file


def check_range(name: str, ids: IntArray, low: int, upper: int, limits: str) -> None:
    """Raise unless all integers of an array of the host, of any shape and dtype, are from low to upper - 1."""
    if ids.size and (ids.min() < low or ids.max() >= upper):
        wrong = ids[(ids < low) | (ids >= upper)][0]
        raise IndexError(f"{name} holds {wrong}, expected {limits}")


def text_pieces(ids: IntArray) -> Iterator[IntArray]:
    """A text (L,) piece by piece, each int32 or int64: nothing of a text's size is made of a ``numpy.memmap``."""
    return (signed(ids[start : start + IDS_AT_ONCE]) for start in range(0, len(ids), IDS_AT_ONCE))


def check_text(name: str, ids: IntArray, option: str, V: int, low: int = 0) -> None:
    """Raise unless all integers of a text (L,) are from low to V - 1, where ``option`` of the model says V."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        piece = ids[start : start + IDS_AT_ONCE]
        check_range(name, piece, low, V, f"{low} to {V - 1} ({option} = {V})")


def expect_ids(name: str, ids: Array) -> None:
    """Raise unless ids are an array (N, T), int32 or int64, as forward calls take it; on a GPU too."""
    checks.require_integers(name, ids)
    if ids.ndim != 2:
        raise ValueError(f"{name} has shape {ids.shape}, expected two axes, (examples, time steps)")


def signed(ids: IntArray) -> IntArray:
    """Ids as int32 or int64, C-contiguous."""
    return np.ascontiguousarray(ids if ids.dtype in checks.INTS else ids.astype(np.int64))


def class_ids(name: str, ids: IntArray, option: str, V: int, *, low: int = 0, minus_one: str = "") -> IntArray:
    """Ids of the host as int32 or int64, C-contiguous; raises unless all are from low to V - 1.

    Parameters
    ----------
    name : str
    ids : integers of any shape and dtype
    option : str
        Of the model, which says V.
    V, low : int
    minus_one : str
        What -1 is there for, where it may stand beside them: "to ignore it" for instance.
    """
    beside = f", or -1 {minus_one}" if minus_one else ""
    check_range(name, ids, -1 if minus_one else low, V, f"{low} to {V - 1} ({option} = {V}){beside}")
    return signed(ids)


def whole_numbers(targets: Array) -> Array:
    """Targets that are bool, or floats without a fraction, as integers; others as they came, for the check of ids."""
    kind = targets.dtype.kind
    if kind == "b" or (kind == "f" and bool((np.abs(targets) < 2**53).all()) and bool((targets % 1 == 0).all())):
        return targets.astype(np.int64)
    return targets
