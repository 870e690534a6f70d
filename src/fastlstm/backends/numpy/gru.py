"""The gated recurrent unit, forward and backward: the definition.

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

Where mask is 0 the step carries h over unchanged and never reads x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.backends.numpy.lstm import sigmoid
from fastlstm.contract import BoolArray, FloatArray, GRUConvention, GRUGrads, Precision


class _Step(NamedTuple):
    """product: what r meets, h_prev Whn + bhn, or what it makes, r h_prev. keep: the share of h_prev in h."""

    t: int
    h_prev: FloatArray
    z: FloatArray
    r: FloatArray
    n: FloatArray
    product: FloatArray
    keep: FloatArray


class _Tape(NamedTuple):
    steps: list[_Step]
    mask: BoolArray | None
    xs: FloatArray
    Wx: FloatArray
    Wh: FloatArray
    convention: GRUConvention


def _by_gate(array: FloatArray, gate_order: str) -> dict[str, FloatArray]:
    """The blocks of H columns, as views."""
    return dict(zip(gate_order, np.split(array, 3, axis=-1), strict=True))


def gru_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    convention: GRUConvention,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, _Tape | None]:
    N, T, _ = xs.shape
    H = Wh.shape[0]
    both_biases = b if convention.reset_after else np.stack([b, np.zeros_like(b)])
    W, U, bx, bh = (_by_gate(array, convention.gate_order) for array in (Wx, Wh, *both_biases))
    h = np.zeros((N, H), xs.dtype) if h0 is None else h0.copy()
    if mask is not None:
        xs = np.where(mask[:, :, None], xs, xs.dtype.type(0))  # padding may hold anything, NaN too
    hs = np.empty((N, T, H), xs.dtype)
    steps = []
    order = range(T - 1, -1, -1) if reverse else range(T)
    for t in order if N else ():
        x, h_prev = xs[:, t], h
        z = sigmoid(x @ W["z"] + bx["z"] + h_prev @ U["z"] + bh["z"])
        r = sigmoid(x @ W["r"] + bx["r"] + h_prev @ U["r"] + bh["r"])
        if convention.reset_after:
            product = h_prev @ U["n"] + bh["n"]
            n = np.tanh(x @ W["n"] + bx["n"] + r * product)
        else:
            product = r * h_prev
            n = np.tanh(x @ W["n"] + bx["n"] + product @ U["n"])
        keep = z if convention.z_keeps else 1 - z
        h_new = keep * h_prev + (1 - keep) * n
        h = h_new if mask is None else np.where(mask[:, t, None], h_new, h_prev)
        hs[:, t] = h
        if training:
            steps.append(_Step(t, h_prev, z, r, n, product, keep))
    return hs, h, _Tape(steps, mask, xs, Wx, Wh, convention) if training else None


def gru_backward(saved: _Tape, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> GRUGrads:
    steps, mask, xs, Wx, Wh, convention = saved
    N, H = xs.shape[0], Wh.shape[0]
    order = convention.gate_order
    U = _by_gate(Wh, order)
    dh = np.zeros((N, H), xs.dtype) if dh_n is None else dh_n.copy()
    dxs, dWx, dWh = np.zeros_like(xs), np.zeros_like(Wx), np.zeros_like(Wh)
    dbx, dbh = np.zeros(3 * H, xs.dtype), np.zeros(3 * H, xs.dtype)
    dU = _by_gate(dWh, order)
    for t, h_prev, z, r, n, product, keep in reversed(steps):
        if dhs is not None:
            dh = dh + dhs[:, t]
        valid = np.ones((N, 1), bool) if mask is None else mask[:, t, None]
        dh_new = np.where(valid, dh, 0)
        dkeep = dh_new * (h_prev - n)
        # By the pre-activations: those that x goes into, and the sums that h_prev goes into.
        dz = (dkeep if convention.z_keeps else -dkeep) * z * (1 - z)
        dn = dh_new * (1 - keep) * (1 - n**2)
        if convention.reset_after:
            dn_state = dn * r
            dr = dn * product * r * (1 - r)
            dh_prev = dn_state @ U["n"].T
            dU["n"] += h_prev.T @ dn_state
        else:
            dn_state = dn
            dproduct = dn @ U["n"].T
            dr = dproduct * h_prev * r * (1 - r)
            dh_prev = dproduct * r
            dU["n"] += product.T @ dn
        dU["z"] += h_prev.T @ dz
        dU["r"] += h_prev.T @ dr
        dh_prev = dh_prev + dh_new * keep + dz @ U["z"].T + dr @ U["r"].T
        dh = np.where(valid, dh_prev, dh)
        of_x = {"z": dz, "r": dr, "n": dn}
        of_state = {"z": dz, "r": dr, "n": dn_state}
        da = np.concatenate([of_x[gate] for gate in order], axis=1)
        dxs[:, t] = da @ Wx.T
        dWx += xs[:, t].T @ da
        dbx += da.sum(axis=0)
        dbh += np.concatenate([of_state[gate] for gate in order], axis=1).sum(axis=0)
    db = np.stack([dbx, dbh]) if convention.reset_after else dbx
    return GRUGrads(dxs, dWx, dWh, db, dh)
