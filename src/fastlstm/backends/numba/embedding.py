"""Embedding gradients compiled by Numba. The definition is in ``backends/numpy/embedding.py``.

Threads share the columns, not the rows: each adds all rows to its own columns in the order of the ids, which gives the
sums of ``numpy.add.at`` bit for bit and an equal share of the work however often some ids occur.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.products import part
from fastlstm.backends.numba.workers import over_blocks

# Gathering rows copies memory, and numpy's own loop does that as fast.
from fastlstm.backends.numpy.embedding import embedding_forward
from fastlstm.contract import FloatArray, IntArray, RowGrad

__all__ = ["embedding_backward", "embedding_backward_rows", "embedding_forward", "scatter_add"]

_LINE = 16  # columns of a thread begin at multiples of this: one or two cache lines
_RADIX_BITS = 8
_RADIX = 1 << _RADIX_BITS
_COST = 8  # an addition in memory, in units of `over_blocks`


@kernel
def _add_rows(
    first: int,
    last: int,
    target: FloatArray,
    E: int,
    ids: IntArray,
    rows: FloatArray,
    skipped: int,
    cleared: IntArray,
) -> None:
    """In columns first to last - 1: target[cleared] = 0, then target[ids[m]] += rows[m] but for the id ``skipped``.

    target and rows are flat, with E columns.
    """
    width = last - first
    for m in range(cleared.size):
        part(target, cleared[m] * E + first, width)[:] = 0
    for m in range(ids.size):
        if ids[m] != skipped:
            into, row = part(target, ids[m] * E + first, width), part(rows, m * E + first, width)
            for j in range(width):
                into[j] += row[j]


@kernel
def _fill_zeros(first: int, last: int, target: FloatArray) -> None:
    part(target, first, last - first)[:] = 0


class Runs(NamedTuple):
    """Which ids occur, ascending (U,), and where: id indices[u] at places[starts[u] : starts[u + 1]], ascending."""

    indices: IntArray
    places: IntArray
    starts: IntArray


@inner
def _sort_places(ids: IntArray, places: IntArray) -> None:
    """Order places 0, 1 ... by their ids, equal ids in ascending places: a radix sort, digit after digit."""
    for m in range(ids.size):
        places[m] = m
    highest = np.int64(0)
    for m in range(ids.size):
        highest = ids[m] if ids[m] > highest else highest
    source, target = places, np.empty_like(places)
    shift = 0
    while highest >> shift:
        ends = np.zeros(_RADIX, np.int64)
        for m in range(ids.size):
            ends[(ids[m] >> shift) & (_RADIX - 1)] += 1
        end = 0
        for digit in range(_RADIX):
            end += ends[digit]
            ends[digit] = end
        for m in range(ids.size - 1, -1, -1):
            digit = (ids[source[m]] >> shift) & (_RADIX - 1)
            ends[digit] -= 1
            target[ends[digit]] = source[m]
        source, target = target, source
        shift += _RADIX_BITS
        if shift > 62:
            break
    places[:] = source


@kernel
def _find_runs(ids: IntArray, indices: IntArray, places: IntArray, starts: IntArray) -> int:
    """Fill the fields of `Runs`; returns U."""
    _sort_places(ids, places)
    U = 0
    for m in range(ids.size):
        if m == 0 or ids[places[m]] != ids[places[m - 1]]:
            indices[U] = ids[places[m]]
            starts[U] = m
            U += 1
    starts[U] = ids.size
    return U


def runs_of(ids: IntArray) -> Runs:
    """The runs of equal ids (M,), as they stand when sorted."""
    M = len(ids)
    indices, places, starts = np.empty(M, ids.dtype), np.empty(M, np.int64), np.empty(M + 1, np.int64)
    U = _find_runs(flat(ids), indices, places, starts)
    return Runs(indices[:U].copy(), places, starts[: U + 1])


@kernel
def _sum_runs(
    first: int, last: int, values: FloatArray, E: int, places: IntArray, starts: IntArray, rows: FloatArray
) -> None:
    """Row u of values becomes the sum of the rows of run u, in columns first to last - 1."""
    width = last - first
    for u in range(starts.size - 1):
        total = part(values, u * E + first, width)
        for m in range(starts[u], starts[u + 1]):
            row = part(rows, places[m] * E + first, width)
            if m == starts[u]:
                for j in range(width):
                    total[j] = row[j]
            else:
                for j in range(width):
                    total[j] += row[j]


def _add(target: FloatArray, ids: IntArray, rows: FloatArray, skipped: int, cleared: IntArray) -> None:
    E = target.shape[1]
    into, ids, added, cleared = target.reshape(-1), flat(ids), flat(rows), flat(cleared)
    over_blocks(
        lambda first, last: _add_rows(first, last, into, E, ids, added, skipped, cleared),
        E,
        _COST * (ids.size + cleared.size) * E,
        multiple=_LINE,
    )


def embedding_backward(
    ids: IntArray,
    dout: FloatArray,
    num_embeddings: int,
    *,
    padding_idx: int | None,
    out: FloatArray | None,
    touched: IntArray | None,
    accumulate: bool,
) -> FloatArray:
    skipped = -1 if padding_idx is None else padding_idx
    if accumulate:
        assert out is not None
        indices, values = embedding_backward_rows(ids, dout)
        _add(out, indices, values, skipped, ids[:0])
        return out
    cleared = ids[:0] if touched is None else touched.astype(ids.dtype, copy=False)
    if out is None:
        # The system hands over zeroed memory; only the rows that are touched then cost anything.
        dW = np.zeros((num_embeddings, dout.shape[1]), dout.dtype)
    else:
        dW = out
        if touched is None:
            elements = dW.reshape(-1)
            over_blocks(lambda first, last: _fill_zeros(first, last, elements), dW.size, dW.size, multiple=1024)
    _add(dW, ids, dout, skipped, cleared)
    return dW


def embedding_backward_rows(ids: IntArray, dout: FloatArray) -> RowGrad:
    E = dout.shape[1]
    indices, places, starts = runs_of(ids)
    values = np.empty((len(indices), E), dout.dtype)
    into, rows = values.reshape(-1), flat(dout)
    over_blocks(
        lambda first, last: _sum_runs(first, last, into, E, places, starts, rows),
        E,
        _COST * dout.size,
        multiple=_LINE,
    )
    return RowGrad(indices, values)


def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray) -> None:
    _add(target, ids, rows, -1, ids[:0])
