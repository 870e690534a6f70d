"""Matrix products of layers."""

from __future__ import annotations

from fastlstm import ops
from fastlstm.contract import FloatArray, Precision


def product(
    a: FloatArray,
    b: FloatArray,
    *,
    bias: FloatArray | None = None,
    out: FloatArray | None = None,
    precision: Precision | None = None,
) -> FloatArray:
    """a (M, K) @ b (K, L) + bias (L,) -> (M, L). ``out`` may be the transpose of a C-contiguous array."""
    if out is not None and not out.flags.c_contiguous:
        ops.matrix_product(b.T, a.T, out=out.T, precision=precision)
        return out
    return ops.matrix_product(a, b, bias=bias, out=out, precision=precision)
