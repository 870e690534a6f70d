"""The tanh recurrent network, forward and backward: the definition. Elman (1990).

::

    h = tanh(x Wx + h_prev Wh + b)

Where mask is 0 the step carries h over unchanged and never reads x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.contract import BoolArray, FloatArray, Precision, RNNGrads


class _Step(NamedTuple):
    t: int
    h_prev: FloatArray
    h: FloatArray


class _Tape(NamedTuple):
    steps: list[_Step]
    mask: BoolArray | None
    xs: FloatArray
    Wx: FloatArray
    Wh: FloatArray


def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, _Tape | None]:
    N, T, _ = xs.shape
    H = Wh.shape[0]
    h = np.zeros((N, H), xs.dtype) if h0 is None else h0.copy()
    if mask is not None:
        xs = np.where(mask[:, :, None], xs, xs.dtype.type(0))  # padding may hold anything, NaN too
    hs = np.empty((N, T, H), xs.dtype)
    steps = []
    order = range(T - 1, -1, -1) if reverse else range(T)
    for t in order if N else ():
        h_prev = h
        h_new = np.tanh(xs[:, t] @ Wx + h_prev @ Wh + b)
        h = h_new if mask is None else np.where(mask[:, t, None], h_new, h_prev)
        hs[:, t] = h
        if training:
            steps.append(_Step(t, h_prev, h))
    return hs, h, _Tape(steps, mask, xs, Wx, Wh) if training else None


def rnn_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> RNNGrads:
    steps, mask, xs, Wx, Wh = saved
    N, H = xs.shape[0], Wh.shape[0]
    dh = np.zeros((N, H), xs.dtype) if dh_n is None else dh_n.copy()
    dxs, dWx, dWh = np.zeros_like(xs), np.zeros_like(Wx), np.zeros_like(Wh)
    db = np.zeros(H, xs.dtype)
    for t, h_prev, h in reversed(steps):
        if dhs is not None:
            dh = dh + dhs[:, t]
        dz = dh * (1 - h**2)
        if mask is not None:
            valid = mask[:, t, None]
            dz = np.where(valid, dz, 0)
            dh = np.where(valid, dz @ Wh.T, dh)
        else:
            dh = dz @ Wh.T
        dxs[:, t] = dz @ Wx.T
        dWx += xs[:, t].T @ dz
        dWh += h_prev.T @ dz
        db += dz.sum(axis=0)
    return RNNGrads(dxs, dWx, dWh, db, dh)
