"""Embedding: csrc/cuda/embedding. Sums are made in an order that the ids alone decide, without atomics.

Nothing synchronises but `embedding_backward_rows`, whose results have as many rows as there are unique ids: how many,
only the device knows. `padded_rows` is the same without synchronising.
"""

from __future__ import annotations

import cupy

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import address, call_on, device_of
from fastlstm.backends.results import put
from fastlstm.contract import FloatArray, IntArray, PaddedRowGrad, RowGrad


def embedding_forward(W: FloatArray, ids: IntArray) -> FloatArray:
    M, E = len(ids), W.shape[1]
    with device_of(W):
        out: FloatArray = cupy.empty((M, E), W.dtype)
        _cuda.gather_rows(
            W=address(W),
            ids=address(ids),
            out=address(out),
            M=M,
            E=E,
            float_bytes=W.itemsize,
            id_bytes=ids.itemsize,
            **call_on(W),
        )
        return out


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
    with device_of(dout):
        if accumulate:
            assert out is not None
            dW = cupy.zeros((num_embeddings, dout.shape[1]), dout.dtype)
            _sum_rows(dW, ids, dout, skip=padding_idx, accumulate=False)
            return put(out, dW, accumulate=True)
        if out is None:
            out = cupy.zeros((num_embeddings, dout.shape[1]), dout.dtype)
        elif touched is None:
            out.fill(0)
        else:
            _clear_rows(out, touched)
        _sum_rows(out, ids, dout, skip=padding_idx, accumulate=False)
        return out


def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray) -> None:
    with device_of(target):
        _sum_rows(target, ids, rows, skip=None, accumulate=True)


def padded_rows(ids: IntArray, rows: FloatArray) -> PaddedRowGrad:
    """Finds the ascending unique ids (M,) and sums their rows (M, E), without synchronising."""
    M, E = rows.shape
    with device_of(rows):
        result = PaddedRowGrad(cupy.empty(M, ids.dtype), cupy.empty((M, E), rows.dtype), cupy.zeros(1, "int32"))
        sizes = {"M": M, "E": E, "id_bytes": ids.itemsize, "float_bytes": rows.itemsize}
        workspace = cupy.empty(_cuda.unique_rows_workspace(**sizes), "uint8")
        _cuda.unique_rows(
            indices=address(result.indices),
            values=address(result.values),
            count=address(result.num_rows),
            ids=address(ids),
            rows=address(rows),
            workspace=address(workspace),
            **sizes,
            **call_on(rows),
        )
        return result


def embedding_backward_rows(ids: IntArray, dout: FloatArray) -> RowGrad:
    """Synchronises, for the number of unique ids."""
    indices, values, num_rows = padded_rows(ids, dout)
    U = int(cupy.asnumpy(num_rows)[0])
    return RowGrad(indices[:U], values[:U])


def _clear_rows(target: FloatArray, ids: IntArray) -> None:
    _cuda.clear_rows(
        target=address(target),
        ids=address(ids),
        M=len(ids),
        E=target.shape[1],
        float_bytes=target.itemsize,
        id_bytes=ids.itemsize,
        **call_on(target),
    )


def _sum_rows(target: FloatArray, ids: IntArray, rows: FloatArray, *, skip: int | None, accumulate: bool) -> None:
    M, E = rows.shape
    sizes = {"M": M, "E": E, "id_bytes": ids.itemsize, "float_bytes": rows.itemsize}
    workspace = cupy.empty(_cuda.sum_rows_workspace(**sizes), "uint8")
    _cuda.sum_rows(
        target=address(target),
        ids=address(ids),
        rows=address(rows),
        workspace=address(workspace),
        V=len(target),
        skip=-1 if skip is None else skip,
        accumulate=accumulate,
        **sizes,
        **call_on(target),
    )
