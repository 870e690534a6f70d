"""tanh RNN: csrc/cuda/recurrent, the same kernels as the LSTM's with one gate."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Options, Saved, States
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
) -> tuple[FloatArray, FloatArray, Saved | None]:
    hs, last, saved = recurrence.forward(
        Options("rnn", precision, reverse), xs, Wx, Wh, b, initial=States(h0, None), mask=mask, training=training
    )
    return hs, last.h, saved


def rnn_backward(saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None) -> RNNGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=dhs, last=States(dh_n, None))
    return RNNGrads(dxs, dWx, dWh, db, first.h)
