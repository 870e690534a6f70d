"""What the recurrent kernels share: their sizes, and the weights' gradients after the time loop.

The gradients of Wx, Wh and b are one product over all N T rows: [x, h_prev, 1] transposed, times dz. The forward call
writes the left factor, (D + H + 1, N T), for its tape, which therefore needs neither xs nor hs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba.compiling import inner
from fastlstm.backends.numba.products import multiply, part, transpose
from fastlstm.contract import BoolArray, FloatArray

NO_MASK = np.empty(0, np.bool_)


class Sizes(NamedTuple):
    """What a kernel has to know of the sequences; with reverse the last step comes first."""

    T: int
    D: int
    H: int
    reverse: bool


class WeightGrads(NamedTuple):
    """dWx (D, G), dWh (H, G), db (G,) for G columns of gates."""

    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray


def new_inputs(N: int, T: int, D: int, H: int, dtype: np.dtype[np.floating]) -> FloatArray:
    """Room for the transposed [x, h_prev, 1] of all N T rows.

    A row is an odd number of cache lines long, lest the rows of a tile fall into the same sets of the cache.
    """
    return np.empty((D + H + 1, 16 * (N * T // 16 + 1 | 1)), dtype)


def state(given: FloatArray | None, N: int, H: int, dtype: np.dtype[np.floating]) -> FloatArray:
    """A fresh (N, H) copy of a state or its gradient; zeros if it is None."""
    return np.zeros((N, H), dtype) if given is None else given.copy()


@inner
def keep_inputs(
    first: int,
    last: int,
    sizes: Sizes,
    xs: FloatArray,
    h0: FloatArray,
    hs: FloatArray,
    mask: BoolArray,
    inputs: FloatArray,
) -> None:
    """Write the columns of sequences first to last - 1 of the transposed [x, h_prev, 1]; x is 0 where mask is 0.

    All arrays are flat, inputs too.
    """
    T, D, H, reverse = sizes
    columns = inputs.size // (D + H + 1)
    zero, one = xs.dtype.type(0), xs.dtype.type(1)
    transpose(xs, first * T * D, (last - first) * T, D, inputs, first * T, columns)
    if mask.size:
        for row in range(first * T, last * T):
            if not mask[row]:
                for d in range(D):
                    inputs[d * columns + row] = zero
    for n in range(first, last):
        if T > 0:
            start, rest, source = n * T, n * T + 1, n * T * H
            if reverse:
                start, rest, source = n * T + T - 1, n * T, n * T * H + H
            transpose(h0, n * H, 1, H, inputs, D * columns + start, columns)
            transpose(hs, source, T - 1, H, inputs, D * columns + rest, columns)
    ones = part(inputs, (D + H) * columns + first * T, (last - first) * T)
    for row in range(ones.size):
        ones[row] = one


def weight_gradients(inputs: FloatArray, dz: FloatArray, D: int, H: int) -> WeightGrads:
    """Gradients of Wx, Wh and b.

    inputs : (D + H + 1, columns) from `keep_inputs`. dz : (N T, G).
    """
    out = np.empty((D + H + 1, dz.shape[1]), dz.dtype)
    multiply(inputs[:, : dz.shape[0]], dz, out)
    return WeightGrads(out[:D], out[D : D + H], out[D + H])
