"""LSTM cell and sequence, forward and backward, compiled by Numba. The definition is in ``backends/numpy/lstm.py``.

Forward and backward run the whole time loop in one kernel for a block of sequences, so threads (each with its block)
never wait for each other. x Wx is one product over all steps; so are dx and, after the loop, the weights' gradients
(``recurrence``). The gates stay in the caller's order: a kernel only needs to know where the block of each begins.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba import recurrence
from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.elementary import hard_sigmoid, sigmoid, tanh
from fastlstm.backends.numba.products import Rows, pack, part, product, tile_scratch
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.backends.numpy.lstm import prepare_lstm as prepare_lstm
from fastlstm.backends.results import in_memory, new_arrays, put_all
from fastlstm.contract import (
    GATES,
    BoolArray,
    Destination,
    FloatArray,
    LSTMCellGrads,
    LSTMGrads,
    Precision,
    RecurrentActivation,
)

# Where the blocks of i, f, g and o begin in a row of 4H.
_Starts = tuple[int, int, int, int]


class _Tape(NamedTuple):
    """All arrays but Wx, Wh and inputs are flat; Wx and Wh are factors already.

    gates (N, T, 4H), after their activations, in the caller's order; cs (N, T, H); c0 (N, H);
    inputs: see ``recurrence``.
    """

    N: int
    T: int
    D: int
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    time_major: bool
    c0: FloatArray
    mask: BoolArray
    gates: FloatArray
    cs: FloatArray
    inputs: FloatArray
    starts: _Starts
    reverse: bool
    hard: bool
    precision: Precision


# The loops below are short and many: LLVM vectorises a loop only if it can test at run time that its arrays do not
# overlap, and gives up when there are too many pairs to test.


@inner
def _cell_forward(
    z: FloatArray,
    b: FloatArray,
    c_prev: FloatArray,
    c: FloatArray,
    h: FloatArray,
    starts: _Starts,
    hard: bool,
) -> None:
    """One row of one step. z: x Wx + h_prev Wh, becomes the gates; c, h: results; c may be c_prev."""
    H = h.size
    i, f, g, o = part(z, starts[0], H), part(z, starts[1], H), part(z, starts[2], H), part(z, starts[3], H)
    for j in range(z.size):
        z[j] += b[j]
    if hard:
        for j in range(H):
            i[j], f[j], g[j], o[j] = hard_sigmoid(i[j]), hard_sigmoid(f[j]), tanh(g[j]), hard_sigmoid(o[j])
    else:
        for j in range(H):
            i[j], f[j], g[j], o[j] = sigmoid(i[j]), sigmoid(f[j]), tanh(g[j]), sigmoid(o[j])
    for j in range(H):
        c[j] = f[j] * c_prev[j] + i[j] * g[j]
    for j in range(H):
        h[j] = o[j] * tanh(c[j])


@inner
def _through_gate(gate: float, hard: bool) -> float:
    """d gate / d z, from the gate's value."""
    real = type(gate)
    if hard:
        # Where the gate is NaN so is its derivative.
        return real(0.2) if (gate > real(0)) & (gate < real(1)) else gate - gate
    return gate * (real(1) - gate)


@inner
def _cell_backward(
    gates: FloatArray,
    c_prev: FloatArray,
    c: FloatArray,
    dh: FloatArray,
    dc: FloatArray,
    dz: FloatArray,
    tanh_c: FloatArray,
    starts: _Starts,
    hard: bool,
) -> None:
    """One row of one step. dz: result; dc becomes dc_prev; tanh_c: room for one row."""
    H = dh.size
    one = dh.dtype.type(1)
    i, f, g, o = (
        part(gates, starts[0], H),
        part(gates, starts[1], H),
        part(gates, starts[2], H),
        part(gates, starts[3], H),
    )
    di, df, dg, do = part(dz, starts[0], H), part(dz, starts[1], H), part(dz, starts[2], H), part(dz, starts[3], H)
    for j in range(H):
        tanh_c[j] = tanh(c[j])
    for j in range(H):
        do[j] = dh[j] * tanh_c[j] * _through_gate(o[j], hard)
        dc[j] += dh[j] * o[j] * (one - tanh_c[j] * tanh_c[j])
    for j in range(H):
        di[j] = dc[j] * g[j] * _through_gate(i[j], hard)
        dg[j] = dc[j] * i[j] * (one - g[j] * g[j])
    for j in range(H):
        df[j] = dc[j] * c_prev[j] * _through_gate(f[j], hard)
        dc[j] *= f[j]


class _ForwardArrays(NamedTuple):
    """All arrays are flat, Wx and Wh packed; hs, gates, cs and inputs are results.

    With training, gates (N, T, 4H) and cs (N, T, H) keep every step, else they have room for one step.
    """

    xs: FloatArray
    Wx: FloatArray
    Wh: FloatArray
    b: FloatArray
    h0: FloatArray
    c0: FloatArray
    mask: BoolArray
    hs: FloatArray
    gates: FloatArray
    cs: FloatArray
    inputs: FloatArray


@kernel
def _forward(
    first: int,
    last: int,
    sizes: recurrence.Sizes,
    arrays: _ForwardArrays,
    starts: _Starts,
    hard: bool,
    training: bool,
    bf16: bool,
) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    xs, Wx, Wh, b, h0, c0 = arrays.xs, arrays.Wx, arrays.Wh, arrays.b, arrays.h0, arrays.c0
    mask, hs, gates, cs = arrays.mask, arrays.hs, arrays.gates, arrays.cs
    G = 4 * H
    rows = last - first
    slots = T if training else 1
    scratch, room = tile_scratch(xs), recurrence.factor_room(xs, rows * H, bf16)
    if training:
        recurrence.times_Wx(Rows(xs, first * T * D, D), rows * T, D, Wx, Rows(gates, first * T * G, G), G, scratch)
    for step in range(T):
        t = T - 1 - step if reverse else step
        t_prev = t + 1 if reverse else t - 1
        slot, slot_prev = (t, t_prev) if training else (0, 0)
        z = (first * slots + slot) * G
        if not training:
            recurrence.times_Wx(Rows(xs, (first * T + t) * D, T * D), rows, D, Wx, Rows(gates, z, G), G, scratch)
        states = Rows(h0, first * H, H) if step == 0 else Rows(hs, (first * T + t_prev) * H, T * H)
        states = recurrence.factors(states, rows, H, bf16, room)
        product(states, rows, H, Wh, G, Rows(gates, z, slots * G), True, scratch)
        for n in range(first, last):
            c_prev = part(c0, n * H, H) if step == 0 else part(cs, (n * slots + slot_prev) * H, H)
            h_prev = part(h0, n * H, H) if step == 0 else part(hs, (n * T + t_prev) * H, H)
            c, h = part(cs, (n * slots + slot) * H, H), part(hs, (n * T + t) * H, H)
            if mask.size and not mask[n * T + t]:
                for j in range(H):
                    c[j] = c_prev[j]
                for j in range(H):
                    h[j] = h_prev[j]
            else:
                _cell_forward(part(gates, (n * slots + slot) * G, G), b, c_prev, c, h, starts, hard)
    if training:
        kept = recurrence.Sizes(T, D if Wx.size else 0, H, reverse)
        recurrence.keep_inputs(first, last, kept, xs, h0, hs, mask, arrays.inputs)


class _BackwardArrays(NamedTuple):
    """All arrays are flat, Wx and Wh transposed and packed.

    dh, dc (N, H) hold dh_n, dc_n and become dh0, dc0; dz (N, T, 4H) and dxs are results; dhs may be empty.
    """

    Wx: FloatArray
    Wh: FloatArray
    c0: FloatArray
    mask: BoolArray
    gates: FloatArray
    cs: FloatArray
    dhs: FloatArray
    dh: FloatArray
    dc: FloatArray
    dz: FloatArray
    dxs: FloatArray


@kernel
def _backward(
    first: int, last: int, sizes: recurrence.Sizes, arrays: _BackwardArrays, starts: _Starts, hard: bool, bf16: bool
) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    Wx, Wh, c0, mask, gates, cs = arrays.Wx, arrays.Wh, arrays.c0, arrays.mask, arrays.gates, arrays.cs
    dhs, dh, dc, dz, dxs = arrays.dhs, arrays.dh, arrays.dc, arrays.dz, arrays.dxs
    G = 4 * H
    rows = last - first
    scratch, tanh_c = tile_scratch(dz), np.empty(H, dz.dtype)
    dh_prev, room = np.empty(rows * H, dz.dtype), recurrence.factor_room(dz, rows * G, bf16)
    zero = dz.dtype.type(0)
    for step in range(T - 1, -1, -1):
        t = T - 1 - step if reverse else step
        t_prev = t + 1 if reverse else t - 1
        for n in range(first, last):
            row = n * T + t
            dh_row, dz_row = part(dh, n * H, H), part(dz, row * G, G)
            if dhs.size:
                dhs_row = part(dhs, row * H, H)
                for j in range(H):
                    dh_row[j] += dhs_row[j]
            if mask.size and not mask[row]:
                for j in range(G):
                    dz_row[j] = zero
            else:
                c_prev = part(c0, n * H, H) if step == 0 else part(cs, (n * T + t_prev) * H, H)
                gate_row, c, dc_row = part(gates, row * G, G), part(cs, row * H, H), part(dc, n * H, H)
                _cell_backward(gate_row, c_prev, c, dh_row, dc_row, dz_row, tanh_c, starts, hard)
        dz_of_step = recurrence.factors(Rows(dz, (first * T + t) * G, T * G), rows, G, bf16, room)
        product(dz_of_step, rows, G, Wh, H, Rows(dh_prev, 0, H), False, scratch)
        for n in range(first, last):
            if not mask.size or mask[n * T + t]:
                dh_row, new = part(dh, n * H, H), part(dh_prev, (n - first) * H, H)
                for j in range(H):
                    dh_row[j] = new[j]
    rounds = bf16 and Wx.size > 0
    room = recurrence.factor_room(dz, rows * T * G, rounds)
    dz_of_all = recurrence.factors(Rows(dz, first * T * G, G), rows * T, G, rounds, room)
    recurrence.times_Wx(dz_of_all, rows * T, G, Wx, Rows(dxs, first * T * D, D), D, scratch)


def lstm_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h0: FloatArray | None,
    c0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    gate_order: str,
    recurrent_activation: RecurrentActivation,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, FloatArray, _Tape | None]:
    N, T, D = xs.shape
    H = Wh.shape[0]
    dtype = xs.dtype
    h_first, c_first = recurrence.state(h0, N, H, dtype), recurrence.state(c0, N, H, dtype)
    i, f, g, o = (gate_order.index(gate) * H for gate in GATES)
    starts = (i, f, g, o)
    hard = recurrent_activation == "hard_sigmoid"
    slots = T if training else 1
    hs = np.empty((N, T, H), dtype)
    gates, cs = np.empty(N * slots * 4 * H, dtype), np.empty((N, slots, H), dtype)
    inputs = recurrence.new_inputs(N, T, 0 if Wx is None else D, H, dtype) if training else np.empty((0, 0), dtype)
    xs, Wx, Wh = recurrence.as_factors(xs, Wx, Wh, precision)
    arrays = _ForwardArrays(
        xs=flat(xs),
        Wx=recurrence.packed_Wx(Wx, dtype),
        Wh=pack(Wh),
        b=recurrence.bias(b, 4 * H, dtype),
        h0=h_first.reshape(-1),
        c0=c_first.reshape(-1),
        mask=recurrence.NO_MASK if mask is None else flat(mask),
        hs=hs.reshape(-1),
        gates=gates,
        cs=cs.reshape(-1),
        inputs=inputs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, reverse)

    def work(first: int, last: int) -> None:
        _forward(first, last, sizes, arrays, starts, hard, training, precision == "bf16")

    if T > 0:
        over_blocks(work, N, N * T * (D + H) * 4 * H)
        last_step = 0 if reverse else T - 1
        h_n, c_n = hs[:, last_step].copy(), cs[:, last_step if training else 0].copy()
    else:
        h_n, c_n = h_first, c_first
    if not training:
        return in_memory(hs, time_major=time_major), h_n, c_n, None
    tape = _Tape(
        N,
        T,
        D,
        Wx,
        Wh,
        b is not None,
        time_major,
        arrays.c0,
        arrays.mask,
        gates,
        arrays.cs,
        inputs,
        starts,
        reverse,
        hard,
        precision,
    )
    return in_memory(hs, time_major=time_major), h_n, c_n, tape


def lstm_backward(
    saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, dc_n: FloatArray | None, into: Destination
) -> LSTMGrads:
    N, T, Wx, Wh = saved.N, saved.T, saved.Wx, saved.Wh
    D, H = saved.D, Wh.shape[0]
    dtype = Wh.dtype
    dh, dc = recurrence.state(dh_n, N, H, dtype), recurrence.state(dc_n, N, H, dtype)
    dz, dxs = np.empty((N * T, 4 * H), dtype), np.empty((N, T, D), dtype)
    arrays = _BackwardArrays(
        Wx=recurrence.packed_Wx(Wx, dtype, transposed=True),
        Wh=pack(Wh, transposed=True),
        c0=saved.c0,
        mask=saved.mask,
        gates=saved.gates,
        cs=saved.cs,
        dhs=np.empty(0, dtype) if dhs is None else flat(dhs),
        dh=dh.reshape(-1),
        dc=dc.reshape(-1),
        dz=dz.reshape(-1),
        dxs=dxs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, saved.reverse)

    def work(first: int, last: int) -> None:
        _backward(first, last, sizes, arrays, saved.starts, saved.hard, saved.precision == "bf16")

    over_blocks(work, N, N * T * (D + H) * 4 * H)
    weights = recurrence.weight_gradients(saved.inputs, dz, H, saved.precision)
    made = recurrence.grads(saved, dxs, *weights)
    return LSTMGrads(**put_all(into, **made, dh0=dh, dc0=dc))


def lstm_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    c_prev: FloatArray,
    gate_order: str,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, _Tape]:
    """A sequence of one step."""
    _, h, c, saved = lstm_forward(
        x[:, None, :],
        Wx,
        Wh,
        b,
        h0=h_prev,
        c0=c_prev,
        mask=None,
        reverse=False,
        time_major=False,
        gate_order=gate_order,
        recurrent_activation="sigmoid",
        training=True,
        precision=precision,
    )
    assert saved is not None
    return h, c, saved


def lstm_cell_backward(saved: _Tape, *, dh: FloatArray, dc: FloatArray, into: Destination) -> LSTMCellGrads:
    dxs, dWx, dWh, db, dh_prev, dc_prev = lstm_backward(
        saved, dhs=None, dh_n=dh, dc_n=dc, into=new_arrays(LSTMGrads._fields)
    )
    made = put_all(into, dx=dxs[:, 0], dh_prev=dh_prev, dc_prev=dc_prev, dWx=dWx, dWh=dWh, db=db)
    return LSTMCellGrads(**made)
