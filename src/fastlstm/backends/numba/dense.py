"""Matrix products: numpy's, which are a library's and not numpy code."""

from __future__ import annotations

from fastlstm.backends.numpy.dense import matrix_product

__all__ = ["matrix_product"]
