"""tanh RNN: csrc/cpu/recurrent, the cell in rnn.cc, the time loops in sequence_forward.h and sequence_backward.h.

A cell is a sequence of one step, whose arrays have no axis of steps.
"""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.contract import BoolArray, Destination, FloatArray, Precision, RNNCellGrads, RNNGrads


def rnn_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    precision: Precision,
) -> tuple[FloatArray, Any]:
    mask, reverse, time_major, training, bf16 = None, False, False, True, precision == "bf16"
    _, h, tape = _cpu.rnn_forward(x, Wx, Wh, b, h_prev, mask, reverse, time_major, training, bf16)
    return h, tape


def rnn_cell_backward(saved: Any, *, dh: FloatArray, into: Destination) -> RNNCellGrads:
    dx, dWx, dWh, db, dh_prev, _ = saved.backward(None, dh, None, *into)
    return RNNCellGrads(dx, dh_prev, dWx, dWh, db)


def prepare_rnn(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, precision: Precision
) -> tuple[Any, None, None]:
    return _cpu.prepare_rnn(Wx, Wh, b, precision == "bf16"), None, None


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
) -> tuple[FloatArray, FloatArray, Any]:
    bf16 = precision == "bf16"
    if Wh is None:
        return Wx.forward(xs, h0, None, mask, reverse, time_major, False)
    return _cpu.rnn_forward(xs, Wx, Wh, b, h0, mask, reverse, time_major, training, bf16)


def rnn_backward(saved: Any, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> RNNGrads:
    *grads, _ = saved.backward(dhs, dh_n, None, *into)
    return RNNGrads(*grads)
