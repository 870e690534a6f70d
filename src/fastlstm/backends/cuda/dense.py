"""Dense products: cuBLAS through CuPy, exact in the arrays' dtype."""

from __future__ import annotations

from typing import Any

import cupy

from fastlstm.backends.cuda.products import product, products_in
from fastlstm.contract import FloatArray, Precision


def matrix_product(a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None) -> FloatArray:
    on: Any = a
    exact: Precision = "float64" if a.dtype.char == "d" else "float32"
    with cupy.cuda.Device(on.device.id), products_in(exact):
        result = product(a, b, out=out)
        if bias is not None:
            result += bias
    return result
