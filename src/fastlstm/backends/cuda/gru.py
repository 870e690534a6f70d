"""GRU: csrc/cuda/recurrent, the LSTM's kernels with the steps of gru_step.h."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Cell, Options, Saved, States
from fastlstm.backends.numpy.gru import prepare_gru as prepare_gru
from fastlstm.backends.results import put_all
from fastlstm.contract import BoolArray, Destination, FloatArray, GRUCellGrads, GRUConvention, GRUGrads, Precision


def _options(convention: GRUConvention, precision: Precision) -> Options:
    cell: Cell = "gru_reset_after" if convention.reset_after else "gru_reset_before"
    return Options(cell, precision, gate_order=convention.gate_order, z_keeps=convention.z_keeps)


def gru_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    convention: GRUConvention,
    precision: Precision,
) -> tuple[FloatArray, Saved]:
    options = _options(convention, precision)
    _, last, saved = recurrence.forward(
        options, x[:, None], Wx, Wh, b, initial=States(h_prev, None), mask=None, training=True
    )
    assert saved is not None
    return last.h, saved


def gru_cell_backward(saved: Saved, *, dh: FloatArray, into: Destination) -> GRUCellGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=None, last=States(dh, None))
    return GRUCellGrads(**put_all(into, dx=dxs[:, 0], dh_prev=first.h, dWx=dWx, dWh=dWh, db=db))


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
) -> tuple[FloatArray, FloatArray, Saved | None]:
    options = _options(convention, precision)._replace(reverse=reverse, time_major=time_major)
    hs, last, saved = recurrence.forward(options, xs, Wx, Wh, b, initial=States(h0, None), mask=mask, training=training)
    return hs, last.h, saved


def gru_backward(saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> GRUGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=dhs, last=States(dh_n, None))
    return GRUGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=first.h))
