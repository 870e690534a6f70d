"""Matrix products by numpy that leave the cores to the kernels."""

from __future__ import annotations

import numpy as np

from fastlstm.contract import FloatArray

# Up to so many multiplications OpenBLAS, numpy's usual engine, works in the calling thread. Above, it wakes threads of
# its own, which stay awake for milliseconds beside the kernels' threads: on two cores that made a training step four
# times slower.
_ONE_THREAD = 2**18
_MIN_ROWS = 16


def product(a: FloatArray, b: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """a (M, K) @ b (K, L) -> (M, L), small products in blocks of rows that one thread computes."""
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), np.result_type(a, b))
    rows = _ONE_THREAD // max(b.size, 1)
    if rows < _MIN_ROWS:  # so much work that OpenBLAS's threads pay
        return np.matmul(a, b, out=out)
    for start in range(0, a.shape[0], rows):
        np.matmul(a[start : start + rows], b, out=out[start : start + rows])
    return out
