"""Gradients by rows: their sums, and how they travel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray, RowGrad
from fastlstm.distributed.bf16 import from_bf16, round_to_bf16, to_bf16


def add_rows(a: RowGrad, b: RowGrad) -> RowGrad:
    """Rows that both have are added, the others stay as they are."""
    indices = np.concatenate((a.indices, b.indices))
    order = indices.argsort(kind="stable")  # of a row that both have, a's comes first
    indices = indices[order]
    again = np.zeros(len(indices), np.bool_)
    again[1:] = indices[1:] == indices[:-1]
    values = np.concatenate((a.values, b.values))[order]
    places = np.flatnonzero(again)
    values[places - 1] += values[places]
    return RowGrad(indices[~again], values[~again])


def add_rounded_rows(a: RowGrad, b: RowGrad) -> RowGrad:
    total = add_rows(a, b)
    if total.values.dtype == np.float32:
        round_to_bf16(total.values)
    return total


def rows_among(grads: Sequence[FloatArray | RowGrad]) -> Iterator[RowGrad]:
    return (grad for grad in grads if isinstance(grad, RowGrad))


def owned_rows(rows: RowGrad, rank: int, size: int) -> RowGrad:
    """The rows of which a worker owns the sum: every ``size``-th id, since frequent ids tend to stand together."""
    mine = rows.indices % size == rank
    return RowGrad(rows.indices[mine], rows.values[mine])


def joined_rows(parts: Sequence[RowGrad]) -> RowGrad:
    """Rows of different owners as one gradient."""
    indices: IntArray = np.concatenate([part.indices for part in parts])
    order = indices.argsort()
    return RowGrad(indices[order], np.concatenate([part.values for part in parts])[order])


def packed_rows(grads: Sequence[RowGrad], halved: bool) -> Array:
    """Gradients by rows as bytes: the number of rows of each, then ids and values; halved: float32 ones as bfloat16."""
    counts = np.array([len(grad.indices) for grad in grads], np.int64)
    arrays: list[Array] = [counts]
    for indices, values in grads:
        values = np.ascontiguousarray(values)
        arrays += [indices, to_bf16(values) if halved and values.dtype == np.float32 else values]
    return np.concatenate([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays])


def unpacked_rows(message: Array, like: Sequence[RowGrad], halved: bool) -> list[RowGrad]:
    """What `packed_rows` has made of gradients of these shapes and dtypes; nothing of an empty message."""
    if not message.size:
        return []
    counts = np.frombuffer(message, np.int64, len(like)).tolist()
    start = 8 * len(like)

    def take(dtype: Any, shape: tuple[int, ...]) -> Array:
        nonlocal start
        array = np.frombuffer(message, dtype, int(np.prod(shape)), start).reshape(shape)
        start += array.nbytes
        return array

    found = []
    for grad, count in zip(like, counts, strict=True):
        indices, shape = take(grad.indices.dtype, (count,)), (count, *grad.values.shape[1:])
        if halved and grad.values.dtype == np.float32:
            found.append(RowGrad(indices, from_bf16(take(np.uint16, shape))))
        else:
            found.append(RowGrad(indices, take(grad.values.dtype, shape)))
    return found
