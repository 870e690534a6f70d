"""Dense products: cuBLAS, exact in the arrays' dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import cupy

from fastlstm.backends.cuda.products import batched_product as _batched_product
from fastlstm.backends.cuda.products import product, products_in
from fastlstm.contract import FloatArray, Precision


def matrix_product(a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None) -> FloatArray:
    with _exactly_on_device_of(a):
        result = product(a, b, out=out)
        if bias is not None:
            result += bias
    return result


def batched_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """(N, M, K) times (N, K, X); either may be a transposed view."""
    with _exactly_on_device_of(a):
        return _batched_product(a, b)


@contextlib.contextmanager
def _exactly_on_device_of(array: Any) -> Iterator[None]:
    exact: Precision = "float64" if array.dtype.char == "d" else "float32"
    with cupy.cuda.Device(array.device.id), products_in(exact):
        yield
