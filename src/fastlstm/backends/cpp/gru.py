"""GRU: csrc/cpu/recurrent, the cell and the forward loop in gru.cc, the backward one in sequence_backward.h."""

from __future__ import annotations

from typing import Any

import fastlstm._cpu as _cpu
from fastlstm.backends.cpp import recurrence
from fastlstm.backends.results import in_memory, of_cell, of_one_step
from fastlstm.contract import BoolArray, Destination, FloatArray, GRUCellGrads, GRUConvention, GRUGrads, Precision


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
    given = recurrence.inputs(x[:, None], Wx, Wh, b, two_biases=convention.reset_after)
    _, h, tape = _cpu.gru_forward(*given, h_prev, None, False, *convention, True)
    return h, recurrence.Saved(tape, Wx is not None, b is not None, time_major=False)


def gru_cell_backward(saved: recurrence.Saved, *, dh: FloatArray, into: Destination) -> GRUCellGrads:
    grads = gru_backward(saved, dhs=None, dh_n=dh, into=of_one_step(into))
    return GRUCellGrads(**of_cell(into, grads))


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
    given = recurrence.inputs(xs, Wx, Wh, b, two_biases=convention.reset_after)
    hs, h_n, tape = _cpu.gru_forward(*given, h0, mask, reverse, *convention, training)
    saved = recurrence.Saved(tape, Wx is not None, b is not None, time_major) if training else None
    return in_memory(hs, time_major=time_major), h_n, saved


def gru_backward(
    saved: recurrence.Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination
) -> GRUGrads:
    computed = saved.tape.backward(recurrence.upstream(dhs), dh_n)
    return GRUGrads(**recurrence.grads(saved, into, GRUGrads._fields, computed))
