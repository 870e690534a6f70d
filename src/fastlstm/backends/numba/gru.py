"""The gated recurrent unit, forward and backward, compiled by Numba. The definition is in ``backends/numpy/gru.py``.

Built like ``rnn.py``: the whole time loop in one kernel for a block of sequences. The weights of the state are packed
gate by gate, because the candidate's may be multiplied by r h_prev.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numba import recurrence
from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.elementary import sigmoid, tanh
from fastlstm.backends.numba.products import Rows, multiply, pack, part, product, tile_scratch
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.backends.numpy.dense import factor
from fastlstm.backends.numpy.gru import prepare_gru as prepare_gru
from fastlstm.backends.results import in_memory, new_arrays, put_all
from fastlstm.contract import BoolArray, Destination, FloatArray, GRUCellGrads, GRUConvention, GRUGrads, Precision

# Where the blocks of z, r and n begin in a row of 3H.
_Starts = tuple[int, int, int]


class _Tape(NamedTuple):
    """gates (N, T, 3H), flat: z, r, n of the steps that mask does not skip; qs (N, T, H), flat: what r meets,
    h_prev Whn + bhn, or what it makes, r h_prev; inputs: see ``recurrence``. Wx and Wh are factors already.
    """

    N: int
    T: int
    D: int
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    time_major: bool
    h0: FloatArray
    hs: FloatArray
    mask: BoolArray
    gates: FloatArray
    qs: FloatArray
    inputs: FloatArray
    reverse: bool
    convention: GRUConvention
    precision: Precision


def _starts(gate_order: str, H: int) -> _Starts:
    z, r, n = (gate_order.index(gate) * H for gate in "zrn")
    return z, r, n


@inner
def _blend(h: FloatArray, h_prev: FloatArray, z: FloatArray, n: FloatArray, z_keeps: bool) -> None:
    """h = keep h_prev + (1 - keep) n"""
    one = h.dtype.type(1)
    for j in range(h.size):
        keep = z[j] if z_keeps else one - z[j]
        h[j] = keep * h_prev[j] + (one - keep) * n[j]


class _Weights(NamedTuple):
    """Packed, and for the backward pass transposed before; Wz, Wr and Wn are the blocks of Wh."""

    Wx: FloatArray
    Wz: FloatArray
    Wr: FloatArray
    Wn: FloatArray


class _ForwardArrays(NamedTuple):
    """All arrays are flat; b (3H,), state_b (H,); hs, gates, qs and inputs are results.

    With training, gates (N, T, 3H) and qs (N, T, H) keep every step, else they have room for one step.
    """

    xs: FloatArray
    b: FloatArray
    state_b: FloatArray
    h0: FloatArray
    mask: BoolArray
    hs: FloatArray
    gates: FloatArray
    qs: FloatArray
    inputs: FloatArray


@kernel
def _forward(
    first: int,
    last: int,
    sizes: recurrence.Sizes,
    weights: _Weights,
    arrays: _ForwardArrays,
    starts: _Starts,
    reset_after: bool,
    z_keeps: bool,
    training: bool,
    bf16: bool,
) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    Wx, Wz, Wr, Wn = weights.Wx, weights.Wz, weights.Wr, weights.Wn
    xs, b, state_b, h0, mask = arrays.xs, arrays.b, arrays.state_b, arrays.h0, arrays.mask
    hs, gates, qs = arrays.hs, arrays.gates, arrays.qs
    G = 3 * H
    rows = last - first
    slots = T if training else 1
    scratch, room = tile_scratch(xs), recurrence.factor_room(xs, rows * H, bf16)
    zero = xs.dtype.type(0)
    z_at, r_at, n_at = starts
    if training:
        recurrence.times_Wx(Rows(xs, first * T * D, D), rows * T, D, Wx, Rows(gates, first * T * G, G), G, scratch)
    for step in range(T):
        t = T - 1 - step if reverse else step
        t_prev = t + 1 if reverse else t - 1
        slot = t if training else 0
        gate = (first * slots + slot) * G
        q_start = (first * slots + slot) * H
        if not training:
            recurrence.times_Wx(Rows(xs, (first * T + t) * D, T * D), rows, D, Wx, Rows(gates, gate, G), G, scratch)
        state, start, stride = (h0, first * H, H) if step == 0 else (hs, (first * T + t_prev) * H, T * H)
        states = recurrence.factors(Rows(state, start, stride), rows, H, bf16, room)
        product(states, rows, H, Wz, H, Rows(gates, gate + z_at, slots * G), True, scratch)
        product(states, rows, H, Wr, H, Rows(gates, gate + r_at, slots * G), True, scratch)
        if reset_after:
            product(states, rows, H, Wn, H, Rows(qs, q_start, slots * H), False, scratch)
        for n in range(first, last):
            row = part(gates, (n * slots + slot) * G, G)
            z, r, candidate = part(row, z_at, H), part(row, r_at, H), part(row, n_at, H)
            q = part(qs, (n * slots + slot) * H, H)
            h_prev = part(state, start + (n - first) * stride, H)
            if mask.size and not mask[n * T + t]:
                if not reset_after:
                    for j in range(H):
                        q[j] = zero  # masked steps may hold anything
                continue
            for j in range(G):
                row[j] += b[j]
            for j in range(H):
                z[j], r[j] = sigmoid(z[j]), sigmoid(r[j])
            if reset_after:
                for j in range(H):
                    q[j] += state_b[j]
                for j in range(H):
                    candidate[j] = tanh(candidate[j] + r[j] * q[j])
            else:
                for j in range(H):
                    q[j] = r[j] * h_prev[j]
        if not reset_after:
            reset = recurrence.factors(Rows(qs, q_start, slots * H), rows, H, bf16, room)
            product(reset, rows, H, Wn, H, Rows(gates, gate + n_at, slots * G), True, scratch)
        for n in range(first, last):
            row = part(gates, (n * slots + slot) * G, G)
            z, candidate = part(row, z_at, H), part(row, n_at, H)
            h, h_prev = part(hs, (n * T + t) * H, H), part(state, start + (n - first) * stride, H)
            if mask.size and not mask[n * T + t]:
                for j in range(H):
                    h[j] = h_prev[j]
            else:
                if not reset_after:
                    for j in range(H):
                        candidate[j] = tanh(candidate[j])
                _blend(h, h_prev, z, candidate, z_keeps)
    if training:
        kept = recurrence.Sizes(T, D if Wx.size else 0, H, reverse)
        recurrence.keep_inputs(first, last, kept, xs, h0, hs, mask, arrays.inputs)


@inner
def _cell_backward(
    z: FloatArray,
    r: FloatArray,
    candidate: FloatArray,
    q: FloatArray,
    h_prev: FloatArray,
    dh: FloatArray,
    dz: FloatArray,
    dr: FloatArray,
    dn: FloatArray,
    dq: FloatArray,
    reset_after: bool,
    z_keeps: bool,
) -> None:
    """One row of one step. dz, dr, dn, dq: results; dh becomes its share that goes to h_prev directly.

    Without reset_after, dr has to wait for the product of dn.
    """
    one = dh.dtype.type(1)
    for j in range(dh.size):
        keep = z[j] if z_keeps else one - z[j]
        dkeep = dh[j] * (h_prev[j] - candidate[j])
        dz[j] = (dkeep if z_keeps else -dkeep) * z[j] * (one - z[j])
        dn[j] = dh[j] * (one - keep) * (one - candidate[j] * candidate[j])
        dh[j] *= keep
    if reset_after:
        for j in range(dh.size):
            dr[j] = dn[j] * q[j] * r[j] * (one - r[j])
            dq[j] = dn[j] * r[j]


class _BackwardArrays(NamedTuple):
    """All arrays are flat.

    dh (N, H) holds dh_n and becomes dh0; da (N, T, 3H), dqs (N, T, H; with reset_after only) and dxs are results; dhs
    may be empty.
    """

    h0: FloatArray
    hs: FloatArray
    mask: BoolArray
    gates: FloatArray
    qs: FloatArray
    dhs: FloatArray
    dh: FloatArray
    da: FloatArray
    dqs: FloatArray
    dxs: FloatArray


@kernel
def _backward(
    first: int,
    last: int,
    sizes: recurrence.Sizes,
    weights: _Weights,
    arrays: _BackwardArrays,
    starts: _Starts,
    reset_after: bool,
    z_keeps: bool,
    bf16: bool,
) -> None:
    """Sequences first to last - 1."""
    T, D, H, reverse = sizes
    Wx, Wz, Wr, Wn = weights.Wx, weights.Wz, weights.Wr, weights.Wn
    h0, hs, mask, gates, qs = arrays.h0, arrays.hs, arrays.mask, arrays.gates, arrays.qs
    dhs, dh, da, dqs, dxs = arrays.dhs, arrays.dh, arrays.da, arrays.dqs, arrays.dxs
    G = 3 * H
    rows = last - first
    scratch, product_of = tile_scratch(da), np.empty(rows * H, da.dtype)
    room = recurrence.factor_room(da, rows * H, bf16)
    zero, one = da.dtype.type(0), da.dtype.type(1)
    z_at, r_at, n_at = starts
    for step in range(T - 1, -1, -1):
        t = T - 1 - step if reverse else step
        t_prev = t + 1 if reverse else t - 1
        gate = (first * T + t) * G
        for n in range(first, last):
            at = n * T + t
            dh_row, da_row = part(dh, n * H, H), part(da, at * G, G)
            dq = part(dqs, at * H, H) if reset_after else da_row
            if dhs.size:
                dhs_row = part(dhs, at * H, H)
                for j in range(H):
                    dh_row[j] += dhs_row[j]
            if mask.size and not mask[at]:
                for j in range(G):
                    da_row[j] = zero
                for j in range(dq.size):
                    dq[j] = zero
                continue
            row = part(gates, at * G, G)
            h_prev = part(h0, n * H, H) if step == 0 else part(hs, (n * T + t_prev) * H, H)
            _cell_backward(
                part(row, z_at, H),
                part(row, r_at, H),
                part(row, n_at, H),
                part(qs, at * H, H),
                h_prev,
                dh_row,
                part(da_row, z_at, H),
                part(da_row, r_at, H),
                part(da_row, n_at, H),
                dq,
                reset_after,
                z_keeps,
            )
        if reset_after:
            of_n = recurrence.factors(Rows(dqs, (first * T + t) * H, T * H), rows, H, bf16, room)
            product(of_n, rows, H, Wn, H, Rows(product_of, 0, H), False, scratch)
        else:
            of_n = recurrence.factors(Rows(da, gate + n_at, T * G), rows, H, bf16, room)
            product(of_n, rows, H, Wn, H, Rows(product_of, 0, H), False, scratch)
            for n in range(first, last):
                at = n * T + t
                if mask.size and not mask[at]:
                    continue
                r, q, dr = part(gates, at * G + r_at, H), part(qs, at * H, H), part(da, at * G + r_at, H)
                dq = part(product_of, (n - first) * H, H)
                for j in range(H):
                    dr[j] = dq[j] * q[j] * (one - r[j])  # q = r h_prev
                    dq[j] *= r[j]
        of_z = recurrence.factors(Rows(da, gate + z_at, T * G), rows, H, bf16, room)
        product(of_z, rows, H, Wz, H, Rows(product_of, 0, H), True, scratch)
        of_r = recurrence.factors(Rows(da, gate + r_at, T * G), rows, H, bf16, room)
        product(of_r, rows, H, Wr, H, Rows(product_of, 0, H), True, scratch)
        for n in range(first, last):
            if not mask.size or mask[n * T + t]:
                dh_row, new = part(dh, n * H, H), part(product_of, (n - first) * H, H)
                for j in range(H):
                    dh_row[j] += new[j]
    rounds = bf16 and Wx.size > 0
    room = recurrence.factor_room(da, rows * T * G, rounds)
    da_of_all = recurrence.factors(Rows(da, first * T * G, G), rows * T, G, rounds, room)
    recurrence.times_Wx(da_of_all, rows * T, G, Wx, Rows(dxs, first * T * D, D), D, scratch)


def _packed(Wx: FloatArray | None, Wh: FloatArray, starts: _Starts, *, transposed: bool) -> _Weights:
    H = len(Wh)
    z, r, n = (pack(Wh[:, start : start + H], transposed=transposed) for start in starts)
    return _Weights(recurrence.packed_Wx(Wx, Wh.dtype, transposed=transposed), z, r, n)


def gru_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    convention: GRUConvention,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, _Tape | None]:
    N, T, D = xs.shape
    H = Wh.shape[0]
    dtype = xs.dtype
    starts = _starts(convention.gate_order, H)
    has_bias = b is not None
    if b is None:
        b = np.zeros((2, 3 * H) if convention.reset_after else 3 * H, dtype)
    if convention.reset_after:
        n_block = slice(starts[2], starts[2] + H)
        of_inputs, state_b = b[0], b[1, n_block].copy()
        b = of_inputs + b[1]
        b[n_block] = of_inputs[n_block]
    else:
        b, state_b = flat(b), np.zeros(H, dtype)
    h_first = recurrence.state(h0, N, H, dtype)
    slots = T if training else 1
    hs = np.empty((N, T, H), dtype)
    gates, qs = np.empty(N * slots * 3 * H, dtype), np.empty(N * slots * H, dtype)
    inputs = recurrence.new_inputs(N, T, 0 if Wx is None else D, H, dtype) if training else np.empty((0, 0), dtype)
    xs, Wx, Wh = recurrence.as_factors(xs, Wx, Wh, precision)
    weights = _packed(Wx, Wh, starts, transposed=False)
    arrays = _ForwardArrays(
        xs=flat(xs),
        b=b,
        state_b=state_b,
        h0=h_first.reshape(-1),
        mask=recurrence.NO_MASK if mask is None else flat(mask),
        hs=hs.reshape(-1),
        gates=gates,
        qs=qs,
        inputs=inputs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, reverse)
    reset_after, z_keeps = convention.reset_after, convention.z_keeps

    def work(first: int, last: int) -> None:
        bf16 = precision == "bf16"
        _forward(first, last, sizes, weights, arrays, starts, reset_after, z_keeps, training, bf16)

    over_blocks(work, N, N * T * (D + H) * 3 * H)
    h_n = h_first.copy() if T == 0 else hs[:, 0 if reverse else T - 1].copy()
    if not training:
        return in_memory(hs, time_major=time_major), h_n, None
    of_caller = (N, T, D, Wx, Wh, has_bias, time_major, h_first, hs.copy())
    tape = _Tape(*of_caller, arrays.mask, gates, qs, inputs, reverse, convention, precision)
    return in_memory(hs, time_major=time_major), h_n, tape


def gru_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> GRUGrads:
    N, T, Wx, Wh, convention = saved.N, saved.T, saved.Wx, saved.Wh, saved.convention
    D, H = saved.D, Wh.shape[0]
    dtype = Wh.dtype
    starts = _starts(convention.gate_order, H)
    dh = recurrence.state(dh_n, N, H, dtype)
    da, dxs = np.empty((N * T, 3 * H), dtype), np.empty((N, T, D), dtype)
    dqs = np.empty((N * T if convention.reset_after else 0, H), dtype)
    weights = _packed(Wx, Wh, starts, transposed=True)
    arrays = _BackwardArrays(
        h0=saved.h0.reshape(-1),
        hs=saved.hs.reshape(-1),
        mask=saved.mask,
        gates=saved.gates,
        qs=saved.qs,
        dhs=np.empty(0, dtype) if dhs is None else flat(dhs),
        dh=dh.reshape(-1),
        da=da.reshape(-1),
        dqs=dqs.reshape(-1),
        dxs=dxs.reshape(-1),
    )
    sizes = recurrence.Sizes(T, D, H, saved.reverse)
    reset_after, z_keeps = convention.reset_after, convention.z_keeps

    def work(first: int, last: int) -> None:
        _backward(first, last, sizes, weights, arrays, starts, reset_after, z_keeps, saved.precision == "bf16")

    over_blocks(work, N, N * T * (D + H) * 3 * H)
    dWx, dWh, db = _weight_gradients(saved, da, dqs, 0 if Wx is None else D, H)
    made = recurrence.grads(saved, dxs, dWx, dWh, db)
    return GRUGrads(**put_all(into, **made, dh0=dh))


def gru_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    convention: GRUConvention,
    precision: Precision,
) -> tuple[FloatArray, _Tape]:
    """A sequence of one step."""
    _, h, saved = gru_forward(
        x[:, None, :],
        Wx,
        Wh,
        b,
        h0=h_prev,
        mask=None,
        reverse=False,
        time_major=False,
        convention=convention,
        training=True,
        precision=precision,
    )
    assert saved is not None
    return h, saved


def gru_cell_backward(saved: _Tape, *, dh: FloatArray, into: Destination) -> GRUCellGrads:
    dxs, dWx, dWh, db, dh_prev = gru_backward(saved, dhs=None, dh_n=dh, into=new_arrays(GRUGrads._fields))
    made = put_all(into, dx=dxs[:, 0], dh_prev=dh_prev, dWx=dWx, dWh=dWh, db=db)
    return GRUCellGrads(**made)


def _weight_gradients(
    saved: _Tape, da: FloatArray, dqs: FloatArray, D: int, H: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """dWx, dWh and db, of all steps at once: as in ``recurrence``, but for what the candidate's Wh is multiplied by."""
    inputs, convention, precision = saved.inputs[:, : len(da)], saved.convention, saved.precision
    xs, states, ones = factor(inputs[:D], precision), factor(inputs[D : D + H], precision), inputs[D + H :]
    z, r, n = (slice(start, start + H) for start in _starts(convention.gate_order, H))
    dWx, dWh = np.empty((D, 3 * H), da.dtype), np.empty((H, 3 * H), da.dtype)
    db = np.empty((2 if convention.reset_after else 1, 3 * H), da.dtype)
    multiply(ones, da, db[:1])
    if convention.reset_after:
        db[1] = db[0]
        multiply(ones, dqs, db[1:, n])
    da, dqs = factor(da, precision), factor(dqs, precision)
    multiply(xs, da, dWx)
    for block in (z, r):
        multiply(states, da[:, block], dWh[:, block])
    if convention.reset_after:
        multiply(states, dqs, dWh[:, n])
        return dWx, dWh, db
    reset = factor(saved.qs.reshape(-1, H), precision)
    multiply(np.ascontiguousarray(reset.T), da[:, n], dWh[:, n])
    return dWx, dWh, db[0]
