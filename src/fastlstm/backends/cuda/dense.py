"""Dense products: cuBLAS."""

from __future__ import annotations

from fastlstm.backends.cuda.calls import device_of
from fastlstm.backends.cuda.products import batched_product as _batched_product
from fastlstm.backends.cuda.products import product, products_in
from fastlstm.backends.numpy.dense import prepare_dense as prepare_dense
from fastlstm.contract import FloatArray, Precision


def matrix_product(
    a: FloatArray,
    b: FloatArray,
    *,
    bias: FloatArray | None,
    out: FloatArray | None,
    precision: Precision,
) -> FloatArray:
    with device_of(a), products_in(precision):
        result = product(a, b, out=out)
        if bias is not None:
            result += bias
    return result


def batched_product(a: FloatArray, b: FloatArray, *, precision: Precision) -> FloatArray:
    with device_of(a), products_in(precision):
        return _batched_product(a, b)
