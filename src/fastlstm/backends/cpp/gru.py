"""GRU: csrc/cpu/recurrent, the cell and the forward loop in gru.cc, the backward one in sequence_backward.h."""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
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
) -> tuple[FloatArray, FloatArray, Any]:
    return _cpu.gru_forward(xs, Wx, Wh, b, h0, mask, reverse, *convention, training)


def gru_backward(saved: Any, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> GRUGrads:
    return GRUGrads(*saved.backward(dhs, dh_n))
