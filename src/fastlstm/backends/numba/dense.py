"""Matrix products: numpy's, which are a library's and not numpy code; bf16 is rounded to before."""

from __future__ import annotations

from fastlstm.backends.numpy.dense import batched_product, matrix_product, prepare_dense

__all__ = ["batched_product", "matrix_product", "prepare_dense"]
