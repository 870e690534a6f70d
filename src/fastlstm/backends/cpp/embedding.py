"""Embedding: csrc/cpu/embedding/embedding.cc, and csrc/cpu/ids/segments.cc for row gradients."""

from __future__ import annotations

import numpy as np

import fastlstm._cpu as _cpu
from fastlstm.contract import FloatArray, IntArray, RowGrad


def embedding_forward(W: FloatArray, ids: IntArray) -> FloatArray:
    return _cpu.embedding_forward(W, ids)


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
    skip = -1 if padding_idx is None else padding_idx
    if accumulate:
        assert out is not None
        indices, values = _cpu.embedding_backward_rows(ids, dout)
        _cpu.scatter_add(out, indices, values, False, skip)
        return out
    if out is None:
        out = np.empty((num_embeddings, dout.shape[1]), dout.dtype)
    if touched is not None:
        _cpu.clear_rows(out, touched)
    clear = touched is None
    _cpu.scatter_add(out, ids, dout, clear, skip)
    return out


def embedding_backward_rows(ids: IntArray, dout: FloatArray) -> RowGrad:
    return RowGrad(*_cpu.embedding_backward_rows(ids, dout))


def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray) -> None:
    clear, skip = False, -1
    _cpu.scatter_add(target, ids, rows, clear, skip)
