"""Embedding: gather rows, gradients of the gather (dense or by rows), and scatter_add."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

from fastlstm.arrays import array_module
from fastlstm.backends import device_family, family_for
from fastlstm.contract import Array, FloatArray, IntArray, PaddedRowGrad, RowGrad
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device


@on_arrays_device
def embedding_forward(W: FloatArray, ids: IntArray) -> FloatArray:
    """Rows of W: out[...] = W[ids[...]].

    Parameters
    ----------
    W : (V, E) float32 or float64
    ids : (...) int32 or int64
        From 0 to V - 1.

    Returns
    -------
    (..., E) array
        A new array of W's dtype.

    Raises
    ------
    IndexError
        An id lies outside 0 to V - 1.
    TypeError, ValueError
        A dtype or a shape does not fit.
    """
    checks.same_device("W ids", W, ids)
    W = checks.float_array("W", W, 2)
    V, E = W.shape
    if V == 0 or E == 0:
        raise ValueError(f"W has shape {W.shape} = (V, E): both must be at least 1")
    flat = checks.int_ids("ids", ids, V, "W has V = {} rows")
    out = family_for(W, "embedding").embedding_forward(W, flat)
    return out if ids.ndim == 1 else out.reshape(*ids.shape, E)


@on_arrays_device
def embedding_backward(
    ids: IntArray,
    dout: FloatArray,
    num_embeddings: int,
    *,
    padding_idx: int | None = None,
    out: FloatArray | None = None,
    touched: IntArray | None = None,
    accumulate: bool = False,
) -> FloatArray:
    """Dense gradient of `embedding_forward`: dW[v] is the sum of dout over the places where ids is v.

    Parameters
    ----------
    ids : (...) int32 or int64
        From 0 to num_embeddings - 1.
    dout : (..., E) float32 or float64
        Gradient of the loss by the rows.
    num_embeddings : int
        V, the number of rows of W.
    padding_idx : int, optional
        This row gets a zero gradient.
    out : (V, E), optional
        Overwritten with the gradient and returned; C-contiguous, of dout's dtype.
    touched : (...) int32 or int64, optional
        The rows of ``out`` that may hold something, in any order: usually the ids of the call before with this
        ``out``. All other rows must be zero; they are taken to be, and not written, which saves a pass over (V, E).
    accumulate : bool
        The gradient is added to what ``out`` holds: each element once, as the very number that the call without it
        returns.

    Returns
    -------
    (V, E) array
        dW: ``out`` if it was given, else a new array.

    Raises
    ------
    IndexError
        An id, a touched row or padding_idx lies outside 0 to V - 1.
    TypeError, ValueError
        A dtype or a shape does not fit, out is read-only or overlaps another array, or touched or accumulate is given
        without out, or both are. Nothing is changed then.
    """
    checks.same_device("dout ids out touched", dout, ids, out, touched)
    V = scalars.size("num_embeddings", num_embeddings)
    dout, E = _rows_of(dout, ids)
    flat = checks.int_ids("ids", ids, V, "num_embeddings = {}")
    if padding_idx is not None:
        padding_idx = scalars.integer("padding_idx", padding_idx)
        if not 0 <= padding_idx < V:
            raise IndexError(
                f"padding_idx is {padding_idx}, expected 0 to {V - 1} (num_embeddings = {V}); "
                "negative ids do not count from the end"
            )
    if out is not None:
        out = checks.changed_array("out", out, dout.dtype, "dout")
        checks.expect_shape("out", out, (V, E), "= (V, E)", "V is num_embeddings, E the last axis of dout")
    if touched is not None:
        if out is None:
            raise ValueError("touched is given without out: it says which rows of out may hold something; give both")
        if accumulate:
            raise ValueError("accumulate is given with touched, whose rows of out would be zeroed; give one of them")
        touched = checks.int_ids("touched", touched, V, "num_embeddings = {}")
    if accumulate and out is None:
        raise ValueError("accumulate is given without out, to which the gradient is added; give both")
    if out is not None:
        checks.expect_apart("out", out, "dout ids touched", dout, flat, touched)
    if touched is not None and touched.size >= V:  # then clearing all rows is less work
        touched = None
    return family_for(dout, "embedding").embedding_backward(
        flat, dout, V, padding_idx=padding_idx, out=out, touched=touched, accumulate=bool(accumulate)
    )


@overload
def embedding_backward_rows(ids: IntArray, dout: FloatArray, *, padded: Literal[False] = False) -> RowGrad: ...
@overload
def embedding_backward_rows(ids: IntArray, dout: FloatArray, *, padded: Literal[True]) -> PaddedRowGrad: ...
@overload
def embedding_backward_rows(ids: IntArray, dout: FloatArray, *, padded: bool) -> RowGrad | PaddedRowGrad: ...
@on_arrays_device
def embedding_backward_rows(ids: IntArray, dout: FloatArray, *, padded: bool = False) -> RowGrad | PaddedRowGrad:
    """The gradient of `embedding_forward` as the rows it touches; no array of V rows is made.

    Parameters
    ----------
    ids : (...) int32 or int64
        Not negative.
    dout : (..., E) float32 or float64
        Gradient of the loss by the rows.
    padded : bool
        For arrays on a GPU: as PaddedRowGrad, in arrays of M rows with U on the device, so that nothing synchronises.

    Returns
    -------
    RowGrad, or PaddedRowGrad
        indices (U,), the ascending unique ids, of the ids' dtype, and values (U, E), the sums of their rows. On a GPU
        the call synchronises unless padded: only the device knows U.

    Raises
    ------
    IndexError
        An id is negative.
    TypeError, ValueError
        A dtype or a shape does not fit, or padded is given for arrays on the host.
    """
    checks.same_device("dout ids", dout, ids)
    dout, _ = _rows_of(dout, ids)
    flat = checks.int_ids("ids", ids, None, "")
    if checks.rows_are_padded(padded, "dout", dout):
        return device_family("embedding").padded_rows(flat, dout)
    return family_for(dout, "embedding").embedding_backward_rows(flat, dout)


@on_arrays_device
def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray) -> None:
    """target[ids[m]] += rows[m], in place; rows with the same id add up (numpy.add.at).

    Parameters
    ----------
    target : (V, ...) float32 or float64
        Changed in place; C-contiguous. Any shape after the first axis, for instance (V,) or (V, E).
    ids : (...) int32 or int64
        From 0 to V - 1.
    rows : (*ids.shape, *target.shape[1:])
        Of target's dtype. May overlap target: all rows are read before target changes.

    Raises
    ------
    IndexError
        An id lies outside 0 to V - 1.
    TypeError, ValueError
        A dtype or a shape does not fit, or target is read-only or overlaps ids. Nothing is changed then.
    """
    checks.same_device("target ids rows", target, ids, rows)
    target = checks.changed_array("target", target)
    checks.require_array("ids", ids)
    checks.require_array("rows", rows)
    if target.ndim == 0:
        raise ValueError("target has shape (), expected at least one axis: (V,) or (V, E)")
    rows = checks.float_array("rows", rows, rows.ndim, target.dtype, "target")
    checks.expect_shape("rows", rows, ids.shape + target.shape[1:], "= ids.shape + target.shape[1:]")
    V, E = target.shape[0], math.prod(target.shape[1:])
    flat = checks.int_ids("ids", ids, V, "target has V = {} rows")
    if rows.size == 0:
        return
    checks.expect_apart("target", target, "ids", flat)
    if array_module(target).may_share_memory(target, rows):
        rows = rows.copy()
    family_for(target, "embedding").scatter_add(target.reshape(V, E), flat, rows.reshape(flat.size, E))


def _rows_of(dout: Any, ids: Array) -> tuple[FloatArray, int]:
    """dout (*ids.shape, E) flattened to (M, E), and E."""
    checks.require_array("ids", ids)
    checks.require_array("dout", dout)
    if dout.ndim != ids.ndim + 1 or dout.shape[:-1] != ids.shape:
        raise ValueError(f"dout has shape {dout.shape}, expected {ids.shape} + (E,): the shape of ids and one axis")
    E = dout.shape[-1]
    if E == 0:
        raise ValueError(f"dout has shape {dout.shape}: E must be at least 1")
    rows = checks.float_array("dout", dout, dout.ndim)
    return (rows if rows.ndim == 2 else rows.reshape(ids.size, E)), E
