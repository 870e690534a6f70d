"""LSTM: csrc/cpu/recurrent, the cell in lstm.cc, the time loops in sequence_forward.h and sequence_backward.h.

A cell is a sequence of one step, whose arrays have no axis of steps.
"""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.contract import (
    BoolArray,
    Destination,
    FloatArray,
    LSTMCellGrads,
    LSTMGrads,
    Precision,
    RecurrentActivation,
)


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
) -> tuple[FloatArray, FloatArray, Any]:
    mask, reverse, time_major, hard_sigmoid, training, bf16 = None, False, False, False, True, precision == "bf16"
    _, h, c, tape = _cpu.lstm_forward(
        x, Wx, Wh, b, h_prev, c_prev, mask, reverse, time_major, gate_order, hard_sigmoid, training, bf16
    )
    return h, c, tape


def lstm_cell_backward(saved: Any, *, dh: FloatArray, dc: FloatArray, into: Destination) -> LSTMCellGrads:
    dx, dWx, dWh, db, dh_prev, dc_prev = saved.backward(None, dh, dc, *into)
    return LSTMCellGrads(dx, dh_prev, dc_prev, dWx, dWh, db)


def prepare_lstm(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, gate_order: str, precision: Precision
) -> tuple[Any, None, None]:
    return _cpu.prepare_lstm(Wx, Wh, b, gate_order, precision == "bf16"), None, None


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
) -> tuple[FloatArray, FloatArray, FloatArray, Any]:
    bf16 = precision == "bf16"
    hard_sigmoid = recurrent_activation == "hard_sigmoid"
    if Wh is None:
        return Wx.forward(xs, h0, c0, mask, reverse, time_major, hard_sigmoid)
    return _cpu.lstm_forward(xs, Wx, Wh, b, h0, c0, mask, reverse, time_major, gate_order, hard_sigmoid, training, bf16)


def lstm_backward(
    saved: Any,
    *,
    dhs: FloatArray | None,
    dh_n: FloatArray | None,
    dc_n: FloatArray | None,
    into: Destination,
) -> LSTMGrads:
    return LSTMGrads(*saved.backward(dhs, dh_n, dc_n, *into))
