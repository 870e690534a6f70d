"""Matrix products: the definition, and that of what precision="bf16" does to the factors of any product."""

from __future__ import annotations

import numpy as np

from fastlstm.contract import FloatArray, Precision


def round_to_bf16(array: FloatArray) -> FloatArray:
    """Returns array with every number rounded to the nearest bfloat16, ties to even, in the dtype it has.

    bfloat16 is the upper half of a float32: sign, exponent and 7 bits of the mantissa. NaN stays NaN and infinity
    infinity; what is nearer to 2^128 than to the largest number becomes infinity.
    """
    bits = array.astype(np.float32).view(np.uint32)
    is_odd = (bits >> 16) & 1
    rounded = (bits + 0x7FFF + is_odd) & 0xFFFF0000
    return np.where(np.isnan(array), array, rounded.view(np.float32)).astype(array.dtype)


def factor(array: FloatArray, precision: Precision) -> FloatArray:
    """Returns array as it takes part in products."""
    return round_to_bf16(array) if precision == "bf16" else array


def product(a: FloatArray, b: FloatArray, precision: Precision) -> FloatArray:
    made: FloatArray = factor(a, precision) @ factor(b, precision)
    return made


def matrix_product(
    a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None, precision: Precision
) -> FloatArray:
    made = product(a, b, precision)
    if bias is not None:
        made += bias
    if out is None:
        return np.ascontiguousarray(made)
    out[...] = made
    return out


def prepare_dense(W: FloatArray, b: FloatArray | None, *, precision: Precision) -> tuple[FloatArray, FloatArray | None]:
    return W.copy(order="K"), None if b is None else b.copy()


def batched_product(a: FloatArray, b: FloatArray, *, precision: Precision) -> FloatArray:
    return product(a, b, precision)
