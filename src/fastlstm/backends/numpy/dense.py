"""Matrix products: the definition."""

from __future__ import annotations

import numpy as np

from fastlstm.contract import FloatArray, Precision


def matrix_product(
    a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None, precision: Precision
) -> FloatArray:
    product = a @ b if bias is None else a @ b + bias
    if out is None:
        return np.ascontiguousarray(product)
    out[...] = product
    return out


def batched_product(a: FloatArray, b: FloatArray, *, precision: Precision) -> FloatArray:
    products: FloatArray = a @ b
    return products
