"""The gated recurrent unit, cell and sequence, forward and backward: the definition.

Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder", in the conventions that `GRUConvention`
describes. With the reset gate before the product (the book, Chung et al. 2014)::

    z = sigmoid(x Wxz + h_prev Whz + bz)
    r = sigmoid(x Wxr + h_prev Whr + br)
    n = tanh(x Wxn + (r h_prev) Whn + bn)
    h = (1 - z) h_prev + z n

and after it (PyTorch, cuDNN, Keras), with biases bx of the inputs and bh of the state::

    z = sigmoid(x Wxz + bxz + h_prev Whz + bhz)
    r = sigmoid(x Wxr + bxr + h_prev Whr + bhr)
    n = tanh(x Wxn + bxn + r (h_prev Whn + bhn))
    h = z h_prev + (1 - z) n

Where mask is 0 the step carries h over unchanged and never reads x. Without Wx, x is x Wx; without b, all biases are 0.

With precision="bf16" the factors of all products are rounded, as in ``lstm``: x, Wx, h_prev, Wh, and r h_prev where it
is one; in those of the gradients dz, dr, dn, and r dn where it is one. All else is as it is without: h_prev and r
beside the products, and db, the sums of dz, dr, dn and r dn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numpy.dense import product
from fastlstm.backends.numpy.lstm import sigmoid, times_Wx
from fastlstm.backends.results import new_arrays, new_sequence, put_all, snapshot
from fastlstm.contract import BoolArray, Destination, FloatArray, GRUCellGrads, GRUConvention, GRUGrads, Precision


class _CellTape(NamedTuple):
    """q: what r meets, h_prev Whn + bhn, or what it makes, r h_prev. keep: the share of h_prev in h."""

    x: FloatArray
    h_prev: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    z: FloatArray
    r: FloatArray
    n: FloatArray
    q: FloatArray
    keep: FloatArray
    convention: GRUConvention
    precision: Precision


class _Tape(NamedTuple):
    cells: list[_CellTape]
    steps: range
    mask: BoolArray | None
    time_major: bool
    xs: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    b: FloatArray | None


def _by_gate(array: FloatArray, gate_order: str) -> dict[str, FloatArray]:
    """The blocks of H columns, as views."""
    return dict(zip(gate_order, np.split(array, 3, axis=-1), strict=True))


def gru_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    convention: GRUConvention,
    precision: Precision,
) -> tuple[FloatArray, _CellTape]:
    bx = bh = np.zeros(Wh.shape[1], x.dtype)
    if b is not None:
        bx, bh = b if convention.reset_after else (b, bh)
    of_x = _by_gate(times_Wx(x, Wx, precision) + bx, convention.gate_order)
    U, b_of = _by_gate(Wh, convention.gate_order), _by_gate(bh, convention.gate_order)
    z = sigmoid(of_x["z"] + product(h_prev, U["z"], precision) + b_of["z"])
    r = sigmoid(of_x["r"] + product(h_prev, U["r"], precision) + b_of["r"])
    if convention.reset_after:
        q = product(h_prev, U["n"], precision) + b_of["n"]
        n = np.tanh(of_x["n"] + r * q)
    else:
        q = r * h_prev
        n = np.tanh(of_x["n"] + product(q, U["n"], precision))
    keep = z if convention.z_keeps else 1 - z
    h = keep * h_prev + (1 - keep) * n
    return h, _CellTape(x, h_prev, Wx, Wh, b is not None, z, r, n, q, keep, convention, precision)


def gru_cell_backward(saved: _CellTape, *, dh: FloatArray, into: Destination) -> GRUCellGrads:
    x, h_prev, Wx, Wh, has_bias, z, r, n, q, keep, convention, precision = saved
    U = _by_gate(Wh, convention.gate_order)
    dkeep = dh * (h_prev - n)
    # By the pre-activations: those that x goes into, and the sums that h_prev goes into.
    dz = (dkeep if convention.z_keeps else -dkeep) * z * (1 - z)
    dn = dh * (1 - keep) * (1 - n**2)
    if convention.reset_after:
        dn_state, state_of_n = dn * r, h_prev
        dr = dn * q * r * (1 - r)
        dh_prev = product(dn_state, U["n"].T, precision)
    else:
        dn_state, state_of_n = dn, q
        dq = product(dn, U["n"].T, precision)
        dr = dq * h_prev * r * (1 - r)
        dh_prev = dq * r
    dU = {
        "z": product(h_prev.T, dz, precision),
        "r": product(h_prev.T, dr, precision),
        "n": product(state_of_n.T, dn_state, precision),
    }
    of_x = {"z": dz, "r": dr, "n": dn}
    of_state = {"z": dz, "r": dr, "n": dn_state}
    da, da_state = (np.concatenate([of[gate] for gate in convention.gate_order], axis=1) for of in (of_x, of_state))
    dbx, dbh = da.sum(axis=0), da_state.sum(axis=0)
    made = put_all(
        into,
        dx=da if Wx is None else product(da, Wx.T, precision),
        dh_prev=dh_prev + dh * keep + product(dz, U["z"].T, precision) + product(dr, U["r"].T, precision),
        dWx=None if Wx is None else product(x.T, da, precision),
        dWh=np.concatenate([dU[gate] for gate in convention.gate_order], axis=1),
        db=None if not has_bias else np.stack([dbx, dbh]) if convention.reset_after else dbx,
    )
    return GRUCellGrads(**made)


def prepare_gru(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, convention: GRUConvention, precision: Precision
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    return snapshot(Wx, Wh, b)


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
    N, T, _ = xs.shape
    H = Wh.shape[0]
    h = np.zeros((N, H), xs.dtype) if h0 is None else h0.copy()
    if mask is not None:
        xs = np.where(mask[:, :, None], xs, xs.dtype.type(0))  # padding may hold anything, NaN too
    steps = range(T - 1, -1, -1) if reverse else range(T)
    if N == 0:
        steps = range(0)
    hs = new_sequence(N, T, H, xs.dtype, time_major=time_major)
    cells = []
    for t in steps:
        valid = np.ones((N, 1), bool) if mask is None else mask[:, t, None]
        h_prev = np.where(valid, h, 0)  # it may be NaN, and the gradients of weights nevertheless not
        h_new, cell = gru_cell_forward(xs[:, t], Wx, Wh, b, h_prev=h_prev, convention=convention, precision=precision)
        h = np.where(valid, h_new, h)
        hs[:, t] = h
        if training:
            cells.append(cell)
    return hs, h, _Tape(cells, steps, mask, time_major, xs, Wx, Wh, b) if training else None


def gru_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> GRUGrads:
    cells, steps, mask, time_major, xs, Wx, Wh, b = saved
    N, T, D = xs.shape
    dh = np.zeros((N, Wh.shape[0]), xs.dtype) if dh_n is None else dh_n.copy()
    dxs = new_sequence(N, T, D, xs.dtype, time_major=time_major)
    dWx, db = (None if array is None else np.zeros(array.shape, xs.dtype) for array in (Wx, b))
    dWh = np.zeros(Wh.shape, xs.dtype)
    of_a_step = new_arrays(GRUCellGrads._fields)
    for t, cell in zip(reversed(steps), reversed(cells), strict=True):
        if dhs is not None:
            dh = dh + dhs[:, t]
        valid = np.ones((N, 1), bool) if mask is None else mask[:, t, None]
        grads = gru_cell_backward(cell, dh=np.where(valid, dh, 0), into=of_a_step)
        dh = np.where(valid, grads.dh_prev, dh)
        dxs[:, t] = np.where(valid, grads.dx, 0)  # whatever the state was
        if dWx is not None:
            dWx += grads.dWx
        dWh += grads.dWh
        if db is not None:
            db += grads.db
    return GRUGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=dh))
