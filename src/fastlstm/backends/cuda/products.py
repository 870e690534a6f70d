"""Large matrix products: cuBLAS through CuPy, in the precision that the caller named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import cupy
import numpy as np
from cupy._core import _routines_linalg as compute_types

from fastlstm.contract import FloatArray, Precision

_FLOAT32 = np.dtype(np.float32)


@contextlib.contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let CuPy multiply float32 matrices exactly, or in TF32 for "tf32" and "bf16", inside the block.

    Said for every product and put back afterwards, whatever the caller or ``CUPY_TF32`` chose for other work. CuPy
    keeps one setting for all threads.
    """
    before = compute_types.get_compute_type(_FLOAT32)
    exact = precision in ("float32", "float64")
    compute_types.set_compute_type(
        _FLOAT32, compute_types.COMPUTE_TYPE_DEFAULT if exact else compute_types.COMPUTE_TYPE_TF32
    )
    try:
        yield
    finally:
        compute_types.set_compute_type(_FLOAT32, before)


def rows_of(array: FloatArray) -> FloatArray:
    """(N, T, X) as (N T, X): a view."""
    N, T, X = array.shape
    return array.reshape(N * T, X)


def product(a: FloatArray, b: FloatArray, *, out: FloatArray | None = None) -> FloatArray:
    """(M, K) times (K, X), in out if that is given; either factor may be a transposed view."""
    result: FloatArray = cupy.matmul(a, b, out=out)
    return result
