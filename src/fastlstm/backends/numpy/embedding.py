"""Embedding: the definition. ``numpy.add.at`` says what adding rows with repeated ids means."""

from __future__ import annotations

import numpy as np

from fastlstm.backends.results import put
from fastlstm.contract import FloatArray, IntArray, RowGrad


def embedding_forward(W: FloatArray, ids: IntArray) -> FloatArray:
    return W[ids]


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
    if accumulate:
        dW = embedding_backward(
            ids, dout, num_embeddings, padding_idx=padding_idx, out=None, touched=None, accumulate=False
        )
        return put(out, dW, accumulate=True)
    dW = np.empty((num_embeddings, dout.shape[1]), dout.dtype) if out is None else out
    dW[... if touched is None else touched] = 0
    np.add.at(dW, ids, dout)
    if padding_idx is not None:
        dW[padding_idx] = 0
    return dW


def embedding_backward_rows(ids: IntArray, dout: FloatArray) -> RowGrad:
    indices, place = np.unique(ids, return_inverse=True)
    values = np.zeros((len(indices), dout.shape[1]), dout.dtype)
    np.add.at(values, place, dout)
    return RowGrad(indices, values)


def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray) -> None:
    np.add.at(target, ids, rows)
