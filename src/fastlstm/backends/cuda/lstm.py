"""LSTM: csrc/cuda/recurrent. A cell is a sequence of one step."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Options, Saved, States
from fastlstm.contract import (
    BoolArray,
    FloatArray,
    LSTMCellGrads,
    LSTMGrads,
    Precision,
    RecurrentActivation,
)


def lstm_cell_forward(
    x: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h_prev: FloatArray,
    c_prev: FloatArray,
    gate_order: str,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, Saved]:
    options = Options("lstm", precision, gate_order=gate_order)
    _, (h, c), saved = recurrence.forward(
        options, x[:, None], Wx, Wh, b, initial=States(h_prev, c_prev), mask=None, training=True
    )
    assert saved is not None
    return h, c, saved


def lstm_cell_backward(saved: Saved, *, dh: FloatArray, dc: FloatArray) -> LSTMCellGrads:
    grads = recurrence.backward(saved, dhs=None, last=States(dh, dc))
    dh_prev, dc_prev = grads.initial
    return LSTMCellGrads(grads.dxs[:, 0], dh_prev, dc_prev, grads.dWx, grads.dWh, grads.db)


def lstm_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None,
    c0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    gate_order: str,
    recurrent_activation: RecurrentActivation,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, FloatArray, Saved | None]:
    options = Options("lstm", precision, reverse, gate_order, recurrent_activation == "hard_sigmoid")
    hs, (h_n, c_n), saved = recurrence.forward(
        options, xs, Wx, Wh, b, initial=States(h0, c0), mask=mask, training=training
    )
    return hs, h_n, c_n, saved


def lstm_backward(
    saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, dc_n: FloatArray | None
) -> LSTMGrads:
    dxs, dWx, dWh, db, (dh0, dc0) = recurrence.backward(saved, dhs=dhs, last=States(dh_n, dc_n))
    return LSTMGrads(dxs, dWx, dWh, db, dh0, dc0)
