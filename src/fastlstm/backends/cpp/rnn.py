"""tanh RNN: csrc/cpu/recurrent, the cell in rnn.cc, the time loops in sequence_forward.h and sequence_backward.h."""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.contract import BoolArray, FloatArray, Precision, RNNGrads


def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    training: bool,
    precision: Precision,
) -> tuple[FloatArray, FloatArray, Any]:
    return _cpu.rnn_forward(xs, Wx, Wh, b, h0, mask, reverse, training)


def rnn_backward(saved: Any, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> RNNGrads:
    return RNNGrads(*saved.backward(dhs, dh_n))
