"""LSTM: csrc/cpu/recurrent, the cell in lstm.cc, the time loops in sequence_forward.h and sequence_backward.h.

A cell is a sequence of one step.
"""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.backends.cpp import recurrence
from fastlstm.backends.results import in_memory, of_cell, of_one_step
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
    mask, reverse, hard_sigmoid, training = None, False, False, True
    given = recurrence.inputs(x[:, None], Wx, Wh, b)
    _, h, c, tape = _cpu.lstm_forward(*given, h_prev, c_prev, mask, reverse, gate_order, hard_sigmoid, training)
    return h, c, recurrence.Saved(tape, Wx is not None, b is not None, time_major=False)


def lstm_cell_backward(saved: recurrence.Saved, *, dh: FloatArray, dc: FloatArray, into: Destination) -> LSTMCellGrads:
    grads = lstm_backward(saved, dhs=None, dh_n=dh, dc_n=dc, into=of_one_step(into))
    return LSTMCellGrads(**of_cell(into, grads))


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
    hard_sigmoid = recurrent_activation == "hard_sigmoid"
    given = recurrence.inputs(xs, Wx, Wh, b)
    hs, h_n, c_n, tape = _cpu.lstm_forward(*given, h0, c0, mask, reverse, gate_order, hard_sigmoid, training)
    saved = recurrence.Saved(tape, Wx is not None, b is not None, time_major) if training else None
    return in_memory(hs, time_major=time_major), h_n, c_n, saved


def lstm_backward(
    saved: recurrence.Saved,
    *,
    dhs: FloatArray | None,
    dh_n: FloatArray | None,
    dc_n: FloatArray | None,
    into: Destination,
) -> LSTMGrads:
    computed = saved.tape.backward(recurrence.upstream(dhs), dh_n, dc_n)
    return LSTMGrads(**recurrence.grads(saved, into, LSTMGrads._fields, computed))
