"""Matrix products of layers."""

from __future__ import annotations

from fastlstm import ops
from fastlstm.backends import family_for, is_device_array
from fastlstm.contract import FloatArray, Precision
from fastlstm.ops.checks import precision_option


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


def batched_product(a: FloatArray, b: FloatArray, *, precision: Precision | None = None) -> FloatArray:
    """a (N, M, K) @ b (N, K, L) -> (N, M, L). Either may be a transposed view."""
    if is_device_array(a):  # not by CuPy's operator, whose products cannot be captured into a graph
        options = precision_option(precision, a)
        on_gpu: FloatArray = family_for(a, "dense").batched_product(a, b, **options)
        return on_gpu
    on_host: FloatArray = a @ b
    return on_host
