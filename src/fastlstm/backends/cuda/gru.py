"""GRU: csrc/cuda/recurrent, the LSTM's kernels with the steps of gru_step.h."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Options, Saved, States
from fastlstm.contract import BoolArray, FloatArray, GRUConvention, GRUGrads, Precision


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
) -> tuple[FloatArray, FloatArray, Saved | None]:
    options = Options(
        "gru_reset_after" if convention.reset_after else "gru_reset_before",
        precision,
        reverse,
        convention.gate_order,
        z_keeps=convention.z_keeps,
    )
    hs, last, saved = recurrence.forward(options, xs, Wx, Wh, b, initial=States(h0, None), mask=mask, training=training)
    return hs, last.h, saved


def gru_backward(saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> GRUGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=dhs, last=States(dh_n, None))
    return GRUGrads(dxs, dWx, dWh, db, first.h)
