"""GRU: csrc/cpu/recurrent, the cell and the forward loop in gru.cc, the backward one in sequence_backward.h.

A cell is a sequence of one step, whose arrays have no axis of steps.
"""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.contract import (
    BoolArray,
    Destination,
    FloatArray,
    GRUCellGrads,
    GRUConvention,
    GRUGrads,
    Precision,
)


def gru_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    convention: GRUConvention,
    precision: Precision,
) -> tuple[FloatArray, Any]:
    mask, reverse, time_major, training, bf16 = None, False, False, True, precision == "bf16"
    _, h, tape = _cpu.gru_forward(x, Wx, Wh, b, h_prev, mask, reverse, time_major, *convention, training, bf16)
    return h, tape


def gru_cell_backward(saved: Any, *, dh: FloatArray, into: Destination) -> GRUCellGrads:
    dx, dWx, dWh, db, dh_prev, _ = saved.backward(None, dh, None, *into)
    return GRUCellGrads(dx, dh_prev, dWx, dWh, db)


def prepare_gru(
    Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, convention: GRUConvention, precision: Precision
) -> tuple[Any, None, None]:
    return _cpu.prepare_gru(Wx, Wh, b, *convention, precision == "bf16"), None, None


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
) -> tuple[FloatArray, FloatArray, Any]:
    bf16 = precision == "bf16"
    if Wh is None:
        return Wx.forward(xs, h0, None, mask, reverse, time_major, False)
    return _cpu.gru_forward(xs, Wx, Wh, b, h0, mask, reverse, time_major, *convention, training, bf16)


def gru_backward(saved: Any, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> GRUGrads:
    *grads, _ = saved.backward(dhs, dh_n, None, *into)
    return GRUGrads(*grads)
