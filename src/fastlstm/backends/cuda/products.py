"""Large matrix products, in the precision that the caller named: cuBLAS, by a handle of our own or by CuPy's.

Ours can be captured into a graph, and is told the precision with every call. Where it cannot be had, `why_not` of
`cublas` says why, and CuPy multiplies.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from fastlstm.backends.cuda import cublas
from fastlstm.contract import FloatArray, Precision


class _Chosen(threading.local):
    precision: Precision = "float32"


_chosen = _Chosen()


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Multiplies float32 matrices exactly, or in TF32 for "tf32" and "bf16", inside the block.

    Whatever the caller or ``CUPY_TF32`` chose for other work is not asked and not changed.
    """
    if cublas.why_not() is not None:
        with _products_of_cupy_in(precision):
            yield
        return
    before, _chosen.precision = _chosen.precision, precision
    try:
        yield
    finally:
        _chosen.precision = before


def rows_of(array: FloatArray) -> FloatArray:
    """(N, T, X) as (N T, X): a view."""
    N, T, X = array.shape
    return array.reshape(N * T, X)


def product(a: FloatArray, b: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """(M, K) times (K, X), in out (M, X) if that is given; either may be a transposed view."""
    if cublas.why_not() is not None:
        by_cupy: FloatArray = cupy.matmul(a, b, out=out)
        return by_cupy
    if out is None:
        out = cupy.empty((a.shape[0], b.shape[1]), a.dtype)
    result: FloatArray = out
    cublas.gemm(a, b, result, precision=_chosen.precision)
    return result


def batched_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """(N, M, K) times (N, K, X), a product for each of the N; either may be a transposed view."""
    if cublas.why_not() is not None:
        by_cupy: FloatArray = cupy.matmul(a, b)
        return by_cupy
    made: FloatArray = cupy.empty((*a.shape[:2], b.shape[2]), a.dtype)
    cublas.gemm(a, b, made, precision=_chosen.precision)
    return made


def add_transposed_product(a: FloatArray, b: FloatArray, sums: FloatArray, *, first: bool) -> None:
    """Adds a^T b to sums (K, X) for a (M, K) and b (M, X); with first, = instead.

    sums is C-contiguous or the transpose of what is.
    """
    if cublas.why_not() is None:
        cublas.gemm(a.T, b, sums, precision=_chosen.precision, accumulate=not first)
    elif not first:
        from cupy.cublas import gemm

        gemm("T", "N", a, b, out=sums, beta=1.0)
    elif sums.flags.c_contiguous:
        cupy.matmul(a.T, b, out=sums)
    else:
        cupy.matmul(b.T, a, out=sums.T)


@contextlib.contextmanager
def _products_of_cupy_in(precision: Precision) -> Iterator[None]:
    """Sets CuPy's undocumented precision, which is one for all threads, and puts it back."""
    from cupy._core import _routines_linalg as compute_types

    float32: Any = np.dtype(np.float32)
    before = compute_types.get_compute_type(float32)
    exact = precision in ("float32", "float64")
    chosen = compute_types.COMPUTE_TYPE_DEFAULT if exact else compute_types.COMPUTE_TYPE_TF32
    compute_types.set_compute_type(float32, chosen)
    try:
        yield
    finally:
        compute_types.set_compute_type(float32, before)
