"""What the recurrent kernels share: their sizes, and the weights' gradients after the time loop.

The gradients of Wx, Wh and b are one product over all N T rows: [x, h_prev, 1] transposed, times dz. The forward call
writes the left factor, (D + H + 1, N T), for its tape, which therefore needs neither xs nor hs.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fastlstm.backends.numba.compiling import flat, inner
from fastlstm.backends.numba.elementary import round_to_bf16
from fastlstm.backends.numba.products import Rows, multiply, pack, part, product, transpose
from fastlstm.backends.numpy.dense import factor
from fastlstm.backends.results import in_memory
from fastlstm.contract import BoolArray, FloatArray, Precision

NO_MASK = np.empty(0, np.bool_)


def packed_Wx(Wx: FloatArray | None, dtype: np.dtype[np.floating], *, transposed: bool = False) -> FloatArray:
    """Wx, or its transpose, as `times_Wx` takes it."""
    return np.empty(0, dtype) if Wx is None else pack(Wx, transposed=transposed)


def as_factors(
    xs: FloatArray, Wx: FloatArray | None, Wh: FloatArray, precision: Precision
) -> tuple[FloatArray, FloatArray | None, FloatArray]:
    """xs, Wx and Wh as they take part in products; without Wx, xs does not."""
    if Wx is None:
        return xs, None, factor(Wh, precision)
    return factor(xs, precision), factor(Wx, precision), factor(Wh, precision)


def bias(b: FloatArray | None, G: int, dtype: np.dtype[np.floating]) -> FloatArray:
    return np.zeros(G, dtype) if b is None else flat(b)


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
    """Room for the transposed [x, h_prev, 1] of all N T rows; D is 0 without Wx.

    A row is an odd number of cache lines long, lest the rows of a tile fall into the same sets of the cache.
    """
    return np.empty((D + H + 1, 16 * (N * T // 16 + 1 | 1)), dtype)


def state(given: FloatArray | None, N: int, H: int, dtype: np.dtype[np.floating]) -> FloatArray:
    """A fresh (N, H) copy of a state or its gradient; zeros if it is None."""
    return np.zeros((N, H), dtype) if given is None else given.copy()


@inner
def times_Wx(a: Rows, M: int, K: int, Wx: FloatArray, out: Rows, X: int, scratch: FloatArray) -> None:
    """M rows of out (X) = a (K) times the packed Wx, or its transpose; a itself where there is no Wx."""
    if Wx.size:
        product(a, M, K, Wx, X, out, False, scratch)
        return
    for m in range(M):
        source, target = part(a.array, a.start + m * a.distance, X), part(out.array, out.start + m * out.distance, X)
        for j in range(X):
            target[j] = source[j]


@inner
def factor_room(like: FloatArray, size: int, bf16: bool) -> FloatArray:
    """Room for `factors` of so many numbers."""
    return np.empty(size if bf16 else 0, like.dtype)


@inner
def factors(a: Rows, M: int, K: int, bf16: bool, room: FloatArray) -> Rows:
    """M rows of a (K) as they take part in products: themselves or, with bf16, rounded, in room."""
    if not bf16:
        return a
    for m in range(M):
        source, target = part(a.array, a.start + m * a.distance, K), part(room, m * K, K)
        for j in range(K):
            target[j] = round_to_bf16(source[j])
    return Rows(room, 0, K)


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
    """Write the columns of sequences first to last - 1 of the transposed [x, h_prev, 1]; x, h_prev are 0 where mask is.

    All arrays are flat, inputs too. Without Wx nothing is multiplied with x: sizes.D is 0.
    """
    T, D, H, reverse = sizes
    columns = inputs.size // (D + H + 1)
    zero, one = xs.dtype.type(0), xs.dtype.type(1)
    transpose(xs, first * T * D, (last - first) * T, D, inputs, first * T, columns)
    for n in range(first, last):
        if T > 0:
            start, rest, source = n * T, n * T + 1, n * T * H
            if reverse:
                start, rest, source = n * T + T - 1, n * T, n * T * H + H
            transpose(h0, n * H, 1, H, inputs, D * columns + start, columns)
            transpose(hs, source, T - 1, H, inputs, D * columns + rest, columns)
    if mask.size:
        for row in range(first * T, last * T):
            if not mask[row]:
                for d in range(D + H):
                    inputs[d * columns + row] = zero
    ones = part(inputs, (D + H) * columns + first * T, (last - first) * T)
    for row in range(ones.size):
        ones[row] = one


def weight_gradients(inputs: FloatArray, dz: FloatArray, H: int, precision: Precision) -> WeightGrads:
    """Gradients of Wx, Wh and b.

    inputs : (D + H + 1, columns) from `keep_inputs`. dz : (N T, G).
    """
    out = np.empty((len(inputs), dz.shape[1]), dz.dtype)
    inputs = inputs[:, : dz.shape[0]]
    if precision == "bf16":
        multiply(factor(inputs[:-1], precision), factor(dz, precision), out[:-1])
        multiply(inputs[-1:], dz, out[-1:])
    else:
        multiply(inputs, dz, out)
    D = len(inputs) - H - 1
    return WeightGrads(out[:D], out[D : D + H], out[D + H])


class _Tape(Protocol):
    @property
    def Wx(self) -> FloatArray | None: ...
    @property
    def has_bias(self) -> bool: ...
    @property
    def time_major(self) -> bool: ...


def grads(
    saved: _Tape, dxs: FloatArray, dWx: FloatArray, dWh: FloatArray, db: FloatArray
) -> dict[str, FloatArray | None]:
    """The gradients that a call with this tape has, by name."""
    return {
        "dxs": in_memory(dxs, time_major=saved.time_major),
        "dWx": None if saved.Wx is None else dWx,
        "dWh": dWh,
        "db": db if saved.has_bias else None,
    }
