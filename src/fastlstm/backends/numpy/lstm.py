"""LSTM cell and sequence, forward and backward: the definition.

Gers, Schmidhuber, Cummins (2000), "Learning to forget", without peepholes::

    z = x Wx + h_prev Wh + b                 four blocks of H columns, in gate_order
    i, f, o = sigmoid(z_i, z_f, z_o)         g = tanh(z_g)
    c = f * c_prev + i * g                   h = o * tanh(c)

Where mask is 0 the step carries h and c over unchanged and never reads x. Without Wx, x is x Wx; without b, b is 0.

With precision="bf16" the factors of all products are rounded (`dense.product`): x and Wx, h_prev and Wh in z; dz and
Wx^T, dz and Wh^T in dx and dh_prev; x^T and dz, h_prev^T and dz in dWx and dWh. Everything else is as it is without:
the sums, the gates, h and c as states, results and in the gradients of the gates, db, which sums dz, and dx where it is
dz.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numpy.dense import product
from fastlstm.backends.results import new_arrays, new_sequence, put_all, snapshot
from fastlstm.contract import (
    BoolArray,
    Destination,
    FloatArray,
    LSTMCellGrads,
    LSTMGrads,
    Precision,
    RecurrentActivation,
)


class _CellTape(NamedTuple):
    x: FloatArray
    h_prev: FloatArray
    c_prev: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    gates: dict[str, FloatArray]
    tanh_c: FloatArray
    gate_order: str
    recurrent_activation: RecurrentActivation
    precision: Precision


class _Tape(NamedTuple):
    cells: list[_CellTape]
    steps: range
    mask: BoolArray | None
    time_major: bool
    xs: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool


def sigmoid(z: FloatArray) -> FloatArray:
    e = np.exp(-np.abs(z))
    s: FloatArray = np.where(z >= 0, 1, e) / (1 + e)
    return s


def hard_sigmoid(z: FloatArray) -> FloatArray:
    """Keras 1 and 2: clip(0.2 z + 0.5, 0, 1)."""
    return np.clip(z.dtype.type(0.2) * z + z.dtype.type(0.5), 0, 1)


def times_Wx(x: FloatArray, Wx: FloatArray | None, precision: Precision) -> FloatArray:
    return x if Wx is None else product(x, Wx, precision)


def bias(b: FloatArray | None, like: FloatArray) -> FloatArray:
    return np.zeros(1, like.dtype) if b is None else b


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
    recurrent_activation: RecurrentActivation = "sigmoid",
) -> tuple[FloatArray, FloatArray, _CellTape]:
    gate = hard_sigmoid if recurrent_activation == "hard_sigmoid" else sigmoid
    sums = times_Wx(x, Wx, precision) + product(h_prev, Wh, precision) + bias(b, x)
    z = dict(zip(gate_order, np.split(sums, 4, axis=-1), strict=True))
    gates = {"i": gate(z["i"]), "f": gate(z["f"]), "g": np.tanh(z["g"]), "o": gate(z["o"])}
    c = gates["f"] * c_prev + gates["i"] * gates["g"]
    tanh_c = np.tanh(c)
    h = gates["o"] * tanh_c
    kept = (x, h_prev, c_prev, Wx, Wh, b is not None, gates, tanh_c)
    return h, c, _CellTape(*kept, gate_order, recurrent_activation, precision)


def lstm_cell_backward(saved: _CellTape, *, dh: FloatArray, dc: FloatArray, into: Destination) -> LSTMCellGrads:
    x, h_prev, c_prev, Wx, Wh, has_bias, gates, tanh_c, gate_order, recurrent_activation, precision = saved
    i, f, g, o = (gates[name] for name in "ifgo")

    def through_gate(s: FloatArray) -> FloatArray:
        """d gate / d z, from the gate's value."""
        if recurrent_activation == "hard_sigmoid":
            return np.where((s > 0) & (s < 1), s.dtype.type(0.2), np.where(np.isnan(s), s, s.dtype.type(0)))
        return s * (1 - s)

    dc = dc + dh * o * (1 - tanh_c**2)
    dz_of = {
        "i": dc * g * through_gate(i),
        "f": dc * c_prev * through_gate(f),
        "g": dc * i * (1 - g**2),
        "o": dh * tanh_c * through_gate(o),
    }
    dz = np.concatenate([dz_of[name] for name in gate_order], axis=-1)
    made = put_all(
        into,
        dx=dz if Wx is None else product(dz, Wx.T, precision),
        dh_prev=product(dz, Wh.T, precision),
        dc_prev=dc * f,
        dWx=None if Wx is None else product(x.T, dz, precision),
        dWh=product(h_prev.T, dz, precision),
        db=dz.sum(axis=0) if has_bias else None,
    )
    return LSTMCellGrads(**made)


def prepare_lstm(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, gate_order: str, precision: Precision
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    return snapshot(Wx, Wh, b)


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
    N, T, _ = xs.shape
    H = Wh.shape[0]
    h = np.zeros((N, H), xs.dtype) if h0 is None else h0.copy()
    c = np.zeros((N, H), xs.dtype) if c0 is None else c0.copy()
    if mask is not None:
        xs = np.where(mask[:, :, None], xs, xs.dtype.type(0))  # padding may hold anything, NaN too
    steps = range(T - 1, -1, -1) if reverse else range(T)
    if N == 0:
        steps = range(0)
    hs = new_sequence(N, T, H, xs.dtype, time_major=time_major)
    cells = []
    for t in steps:
        h_prev, c_prev = h, c
        if mask is not None:  # states may be NaN, and the gradients of weights nevertheless not
            valid = mask[:, t, None]
            h_prev, c_prev = np.where(valid, h, 0), np.where(valid, c, 0)
        h_new, c_new, cell = lstm_cell_forward(
            xs[:, t],
            Wx,
            Wh,
            b,
            h_prev=h_prev,
            c_prev=c_prev,
            gate_order=gate_order,
            precision=precision,
            recurrent_activation=recurrent_activation,
        )
        if mask is not None:
            h_new, c_new = np.where(valid, h_new, h), np.where(valid, c_new, c)
        h, c = h_new, c_new
        hs[:, t] = h
        if training:
            cells.append(cell)
    return hs, h, c, _Tape(cells, steps, mask, time_major, xs, Wx, Wh, b is not None) if training else None


def lstm_backward(
    saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, dc_n: FloatArray | None, into: Destination
) -> LSTMGrads:
    cells, steps, mask, time_major, xs, Wx, Wh, has_bias = saved
    N, T, D = xs.shape
    H = Wh.shape[0]
    dh = np.zeros((N, H), xs.dtype) if dh_n is None else dh_n.copy()
    dc = np.zeros((N, H), xs.dtype) if dc_n is None else dc_n.copy()
    dxs = new_sequence(N, T, D, xs.dtype, time_major=time_major)
    dWx = None if Wx is None else np.zeros(Wx.shape, xs.dtype)
    dWh = np.zeros(Wh.shape, xs.dtype)
    db = np.zeros(4 * H, xs.dtype) if has_bias else None
    of_a_step = new_arrays(LSTMCellGrads._fields)
    for t, cell in zip(reversed(steps), reversed(cells), strict=True):
        if dhs is not None:
            dh = dh + dhs[:, t]
        dh_cell, dc_cell = dh, dc
        if mask is not None:
            valid = mask[:, t, None]
            dh_cell, dc_cell = np.where(valid, dh, 0), np.where(valid, dc, 0)
        grads = lstm_cell_backward(cell, dh=dh_cell, dc=dc_cell, into=of_a_step)
        dh_prev, dc_prev = grads.dh_prev, grads.dc_prev
        if mask is not None:
            dh_prev, dc_prev = np.where(valid, dh_prev, dh), np.where(valid, dc_prev, dc)
        dh, dc = dh_prev, dc_prev
        dxs[:, t] = grads.dx if mask is None else np.where(valid, grads.dx, 0)  # whatever the state was
        if dWx is not None:
            dWx += grads.dWx
        dWh += grads.dWh
        if db is not None:
            db += grads.db
    return LSTMGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=dh, dc0=dc))
