"""The tanh recurrent network, cell and sequence, forward and backward: the definition. Elman (1990).

::

    h = tanh(x Wx + h_prev Wh + b)

Where mask is 0 the step carries h over unchanged and never reads x. Without Wx, x is x Wx; without b, b is 0.

With precision="bf16" the factors of all products are rounded, as in ``lstm``: x, Wx, h_prev, Wh and, in those of the
gradients, dz, which is the gradient of what tanh is taken of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numpy.dense import product
from fastlstm.backends.numpy.lstm import bias, times_Wx
from fastlstm.backends.results import new_arrays, new_sequence, put_all, snapshot
from fastlstm.contract import BoolArray, Destination, FloatArray, Precision, RNNCellGrads, RNNGrads


class _CellTape(NamedTuple):
    x: FloatArray
    h_prev: FloatArray
    h: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
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


def rnn_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    precision: Precision,
) -> tuple[FloatArray, _CellTape]:
    h = np.tanh(times_Wx(x, Wx, precision) + product(h_prev, Wh, precision) + bias(b, x))
    return h, _CellTape(x, h_prev, h, Wx, Wh, b is not None, precision)


def rnn_cell_backward(saved: _CellTape, *, dh: FloatArray, into: Destination) -> RNNCellGrads:
    x, h_prev, h, Wx, Wh, has_bias, precision = saved
    dz = dh * (1 - h**2)
    made = put_all(
        into,
        dx=dz if Wx is None else product(dz, Wx.T, precision),
        dh_prev=product(dz, Wh.T, precision),
        dWx=None if Wx is None else product(x.T, dz, precision),
        dWh=product(h_prev.T, dz, precision),
        db=dz.sum(axis=0) if has_bias else None,
    )
    return RNNCellGrads(**made)


def prepare_rnn(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, precision: Precision
) -> tuple[FloatArray | None, FloatArray, FloatArray | None]:
    return snapshot(Wx, Wh, b)


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
        h_new, cell = rnn_cell_forward(xs[:, t], Wx, Wh, b, h_prev=h_prev, precision=precision)
        h = np.where(valid, h_new, h)
        hs[:, t] = h
        if training:
            cells.append(cell)
    return hs, h.copy(), _Tape(cells, steps, mask, time_major, xs, Wx, Wh, b is not None) if training else None


def rnn_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> RNNGrads:
    cells, steps, mask, time_major, xs, Wx, Wh, has_bias = saved
    N, T, D = xs.shape
    H = Wh.shape[0]
    dh = np.zeros((N, H), xs.dtype) if dh_n is None else dh_n.copy()
    dxs = new_sequence(N, T, D, xs.dtype, time_major=time_major)
    dWx = None if Wx is None else np.zeros(Wx.shape, xs.dtype)
    dWh = np.zeros(Wh.shape, xs.dtype)
    db = np.zeros(H, xs.dtype) if has_bias else None
    of_a_step = new_arrays(RNNCellGrads._fields)
    for t, cell in zip(reversed(steps), reversed(cells), strict=True):
        if dhs is not None:
            dh = dh + dhs[:, t]
        valid = np.ones((N, 1), bool) if mask is None else mask[:, t, None]
        grads = rnn_cell_backward(cell, dh=np.where(valid, dh, 0), into=of_a_step)
        dh = np.where(valid, grads.dh_prev, dh)
        dxs[:, t] = np.where(valid, grads.dx, 0)  # whatever the state was
        if dWx is not None:
            dWx += grads.dWx
        dWh += grads.dWh
        if db is not None:
            db += grads.db
    return RNNGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=dh))
