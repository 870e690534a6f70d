"""tanh RNN: csrc/cpu/recurrent, the cell in rnn.cc, the time loops in sequence_forward.h and sequence_backward.h."""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.backends.cpp import recurrence
from fastlstm.backends.results import in_memory, of_cell, of_one_step
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
    given = recurrence.inputs(x[:, None], Wx, Wh, b)
    _, h, tape = _cpu.rnn_forward(*given, h_prev, None, False, True)
    return h, recurrence.Saved(tape, Wx is not None, b is not None, time_major=False)


def rnn_cell_backward(saved: recurrence.Saved, *, dh: FloatArray, into: Destination) -> RNNCellGrads:
    grads = rnn_backward(saved, dhs=None, dh_n=dh, into=of_one_step(into))
    return RNNCellGrads(**of_cell(into, grads))


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
    given = recurrence.inputs(xs, Wx, Wh, b)
    hs, h_n, tape = _cpu.rnn_forward(*given, h0, mask, reverse, training)
    saved = recurrence.Saved(tape, Wx is not None, b is not None, time_major) if training else None
    return in_memory(hs, time_major=time_major), h_n, saved


def rnn_backward(
    saved: recurrence.Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination
) -> RNNGrads:
    computed = saved.tape.backward(recurrence.upstream(dhs), dh_n)
    return RNNGrads(**recurrence.grads(saved, into, RNNGrads._fields, computed))
