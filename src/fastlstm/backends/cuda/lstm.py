"""LSTM: csrc/cuda/recurrent. A cell is a sequence of one step."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Options, Saved, States
from fastlstm.backends.numpy.lstm import prepare_lstm as prepare_lstm
from fastlstm.backends.results import put_all
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
) -> tuple[FloatArray, FloatArray, Saved]:
    options = Options("lstm", precision, gate_order=gate_order)
    _, (h, c), saved = recurrence.forward(
        options, x[:, None], Wx, Wh, b, initial=States(h_prev, c_prev), mask=None, training=True
    )
    assert saved is not None
    return h, c, saved


def lstm_cell_backward(saved: Saved, *, dh: FloatArray, dc: FloatArray, into: Destination) -> LSTMCellGrads:
    dxs, dWx, dWh, db, (dh_prev, dc_prev) = recurrence.backward(saved, dhs=None, last=States(dh, dc))
    return LSTMCellGrads(**put_all(into, dx=dxs[:, 0], dh_prev=dh_prev, dc_prev=dc_prev, dWx=dWx, dWh=dWh, db=db))


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
) -> tuple[FloatArray, FloatArray, FloatArray, Saved | None]:
    options = Options(
        "lstm", precision, reverse, gate_order, recurrent_activation == "hard_sigmoid", time_major=time_major
    )
    hs, (h_n, c_n), saved = recurrence.forward(
        options, xs, Wx, Wh, b, initial=States(h0, c0), mask=mask, training=training
    )
    return hs, h_n, c_n, saved


def lstm_backward(
    saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, dc_n: FloatArray | None, into: Destination
) -> LSTMGrads:
    dxs, dWx, dWh, db, (dh0, dc0) = recurrence.backward(saved, dhs=dhs, last=States(dh_n, dc_n))
    return LSTMGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=dh0, dc0=dc0))
