"""The tanh recurrent network, forward and backward, compiled by Numba. The definition is in ``backends/numpy/rnn.py``.

Built like ``lstm.py``: the whole time loop in one kernel for a block of sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba import recurrence
from fastlstm.backends.numba.compiling import flat, kernel
from fastlstm.backends.numba.elementary import tanh
from fastlstm.backends.numba.products import Rows, pack, part, product, tile_scratch
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.backends.numpy.rnn import prepare_rnn as prepare_rnn
from fastlstm.backends.results import in_memory, new_arrays, put_all
from fastlstm.contract import BoolArray, Destination, FloatArray, Precision, RNNCellGrads, RNNGrads


class _Tape(NamedTuple):
    """tanhs (N, T, H), flat: tanh(z) of the steps that mask does not skip; inputs: see ``recurrence``.

    Wx and Wh are factors already.
    """

    N: int
    T: int
    D: int
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    time_major: bool
    mask: BoolArray
    tanhs: FloatArray
    inputs: FloatArray
    reverse: bool
    precision: Precision


class _ForwardArrays(NamedTuple):
    """All arrays are flat, Wx and Wh packed; hs, zs and inputs are results.

    zs becomes tanh(z): (N, T, H) with training, else it has room for one step.
    """

    xs: FloatArray
    Wx: FloatArray
    Wh: FloatArray
    b: FloatArray
    h0: FloatArray
    mask: BoolArray
    hs: FloatArray
    zs: FloatArray
    inputs: FloatArray


@kernel
def _forward(
    first: int, last: int, sizes: recurrence.Sizes, arrays: _ForwardArrays, training: bool, bf16: bool
) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    xs, Wx, Wh, b, h0 = arrays.xs, arrays.Wx, arrays.Wh, arrays.b, arrays.h0
    mask, hs, zs = arrays.mask, arrays.hs, arrays.zs
    rows = last - first
    slots = T if training else 1
    scratch, room = tile_scratch(xs), recurrence.factor_room(xs, rows * H, bf16)
    if training:
        recurrence.times_Wx(Rows(xs, first * T * D, D), rows * T, D, Wx, Rows(zs, first * T * H, H), H, scratch)
    for step in range(T):
        t = T - 1 - step if reverse else step
        t_prev = t + 1 if reverse else t - 1
        slot = t if training else 0
        z_start = (first * slots + slot) * H
        if not training:
            recurrence.times_Wx(Rows(xs, (first * T + t) * D, T * D), rows, D, Wx, Rows(zs, z_start, H), H, scratch)
        states = Rows(h0, first * H, H) if step == 0 else Rows(hs, (first * T + t_prev) * H, T * H)
        states = recurrence.factors(states, rows, H, bf16, room)
        product(states, rows, H, Wh, H, Rows(zs, z_start, slots * H), True, scratch)
        for n in range(first, last):
            h = part(hs, (n * T + t) * H, H)
            if mask.size and not mask[n * T + t]:
                h_prev = part(h0, n * H, H) if step == 0 else part(hs, (n * T + t_prev) * H, H)
                for j in range(H):
                    h[j] = h_prev[j]
            else:
                z = part(zs, (n * slots + slot) * H, H)
                for j in range(H):
                    z[j] = tanh(z[j] + b[j])
                for j in range(H):
                    h[j] = z[j]
    if training:
        kept = recurrence.Sizes(T, D if Wx.size else 0, H, reverse)
        recurrence.keep_inputs(first, last, kept, xs, h0, hs, mask, arrays.inputs)


class _BackwardArrays(NamedTuple):
    """All arrays are flat, Wx and Wh transposed and packed.

    dh (N, H) holds dh_n and becomes dh0; dz (N, T, H) and dxs are results; dhs may be empty.
    """

    Wx: FloatArray
    Wh: FloatArray
    mask: BoolArray
    tanhs: FloatArray
    dhs: FloatArray
    dh: FloatArray
    dz: FloatArray
    dxs: FloatArray


@kernel
def _backward(first: int, last: int, sizes: recurrence.Sizes, arrays: _BackwardArrays, bf16: bool) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    Wx, Wh, mask, tanhs = arrays.Wx, arrays.Wh, arrays.mask, arrays.tanhs
    dhs, dh, dz, dxs = arrays.dhs, arrays.dh, arrays.dz, arrays.dxs
    rows = last - first
    scratch, dh_prev = tile_scratch(dz), np.empty(rows * H, dz.dtype)
    room = recurrence.factor_room(dz, rows * H, bf16)
    zero, one = dz.dtype.type(0), dz.dtype.type(1)
    for step in range(T - 1, -1, -1):
        t = T - 1 - step if reverse else step
        for n in range(first, last):
            row = n * T + t
            dh_row, dz_row = part(dh, n * H, H), part(dz, row * H, H)
            if dhs.size:
                dhs_row = part(dhs, row * H, H)
                for j in range(H):
                    dh_row[j] += dhs_row[j]
            if mask.size and not mask[row]:
                for j in range(H):
                    dz_row[j] = zero
            else:
                h = part(tanhs, row * H, H)
                for j in range(H):
                    dz_row[j] = dh_row[j] * (one - h[j] * h[j])
        dz_of_step = recurrence.factors(Rows(dz, (first * T + t) * H, T * H), rows, H, bf16, room)
        product(dz_of_step, rows, H, Wh, H, Rows(dh_prev, 0, H), False, scratch)
        for n in range(first, last):
            if not mask.size or mask[n * T + t]:
                dh_row, new = part(dh, n * H, H), part(dh_prev, (n - first) * H, H)
                for j in range(H):
                    dh_row[j] = new[j]
    rounds = bf16 and Wx.size > 0
    room = recurrence.factor_room(dz, rows * T * H, rounds)
    dz_of_all = recurrence.factors(Rows(dz, first * T * H, H), rows * T, H, rounds, room)
    recurrence.times_Wx(dz_of_all, rows * T, H, Wx, Rows(dxs, first * T * D, D), D, scratch)


def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, _Tape | None]:
    N, T, D = xs.shape
    H = Wh.shape[0]
    dtype = xs.dtype
    h_first = recurrence.state(h0, N, H, dtype)
    hs, zs = np.empty((N, T, H), dtype), np.empty(N * (T if training else 1) * H, dtype)
    inputs = recurrence.new_inputs(N, T, 0 if Wx is None else D, H, dtype) if training else np.empty((0, 0), dtype)
    xs, Wx, Wh = recurrence.as_factors(xs, Wx, Wh, precision)
    arrays = _ForwardArrays(
        xs=flat(xs),
        Wx=recurrence.packed_Wx(Wx, dtype),
        Wh=pack(Wh),
        b=recurrence.bias(b, H, dtype),
        h0=h_first.reshape(-1),
        mask=recurrence.NO_MASK if mask is None else flat(mask),
        hs=hs.reshape(-1),
        zs=zs,
        inputs=inputs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, reverse)

    def work(first: int, last: int) -> None:
        _forward(first, last, sizes, arrays, training, precision == "bf16")

    over_blocks(work, N, N * T * (D + H) * H)
    h_n = h_first if T == 0 else hs[:, 0 if reverse else T - 1].copy()
    tape = None
    if training:
        has_bias = b is not None
        tape = _Tape(N, T, D, Wx, Wh, has_bias, time_major, arrays.mask, zs, inputs, reverse, precision)
    return in_memory(hs, time_major=time_major), h_n, tape


def rnn_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> RNNGrads:
    N, T, Wx, Wh = saved.N, saved.T, saved.Wx, saved.Wh
    D, H = saved.D, Wh.shape[0]
    dtype = Wh.dtype
    dh = recurrence.state(dh_n, N, H, dtype)
    dz, dxs = np.empty((N * T, H), dtype), np.empty((N, T, D), dtype)
    arrays = _BackwardArrays(
        Wx=recurrence.packed_Wx(Wx, dtype, transposed=True),
        Wh=pack(Wh, transposed=True),
        mask=saved.mask,
        tanhs=saved.tanhs,
        dhs=np.empty(0, dtype) if dhs is None else flat(dhs),
        dh=dh.reshape(-1),
        dz=dz.reshape(-1),
        dxs=dxs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, saved.reverse)

    def work(first: int, last: int) -> None:
        _backward(first, last, sizes, arrays, saved.precision == "bf16")

    over_blocks(work, N, N * T * (D + H) * H)
    weights = recurrence.weight_gradients(saved.inputs, dz, H, saved.precision)
    made = recurrence.grads(saved, dxs, *weights)
    return RNNGrads(**put_all(into, **made, dh0=dh))


def rnn_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    precision: Precision,
) -> tuple[FloatArray, _Tape]:
    """A sequence of one step."""
    _, h, saved = rnn_forward(
        x[:, None, :],
        Wx,
        Wh,
        b,
        h0=h_prev,
        mask=None,
        reverse=False,
        time_major=False,
        training=True,
        precision=precision,
    )
    assert saved is not None
    return h, saved


def rnn_cell_backward(saved: _Tape, *, dh: FloatArray, into: Destination) -> RNNCellGrads:
    dxs, dWx, dWh, db, dh_prev = rnn_backward(saved, dhs=None, dh_n=dh, into=new_arrays(RNNGrads._fields))
    made = put_all(into, dx=dxs[:, 0], dh_prev=dh_prev, dWx=dWx, dWh=dWh, db=db)
    return RNNCellGrads(**made)
