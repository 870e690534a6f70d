"""Matrix products: csrc/cpu/gemm/dense.cc. Those of many pairs at once, attention's small ones, are numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlstm._cpu as _cpu
from fastlstm.backends.numpy.dense import batched_product
from fastlstm.contract import FloatArray, Precision

__all__ = ["batched_product", "matrix_product", "prepare_dense"]


def prepare_dense(W: FloatArray, b: FloatArray | None, *, precision: Precision) -> tuple[Any, None]:
    transposed = not W.flags.c_contiguous
    return _cpu.prepare_dense(W.T if transposed else W, b, transposed, precision == "bf16"), None


def matrix_product(
    a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None, precision: Precision
) -> FloatArray:
    if not isinstance(b, np.ndarray):
        return b.product(a, out)
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    a_transposed, b_transposed = not a.flags.c_contiguous, not b.flags.c_contiguous
    bf16 = precision == "bf16"
    _cpu.product(a.T if a_transposed else a, b.T if b_transposed else b, bias, a_transposed, b_transposed, out, bf16)
    return out
