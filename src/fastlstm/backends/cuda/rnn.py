"""tanh RNN: csrc/cuda/recurrent, the same kernels as the LSTM's with one gate."""

from __future__ import annotations

from fastlstm.backends.cuda import recurrence
from fastlstm.backends.cuda.recurrence import Options, Saved, States
from fastlstm.backends.numpy.rnn import prepare_rnn as prepare_rnn
from fastlstm.backends.results import put_all
from fastlstm.contract import BoolArray, Destination, FloatArray, Precision, RNNCellGrads, RNNGrads


def rnn_cell_forward(
    x: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    h_prev: FloatArray,
    precision: Precision,
) -> tuple[FloatArray, Saved]:
    options = Options("rnn", precision)
    _, last, saved = recurrence.forward(
        options, x[:, None], Wx, Wh, b, initial=States(h_prev, None), mask=None, training=True
    )
    assert saved is not None
    return last.h, saved


def rnn_cell_backward(saved: Saved, *, dh: FloatArray, into: Destination) -> RNNCellGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=None, last=States(dh, None))
    return RNNCellGrads(**put_all(into, dx=dxs[:, 0], dh_prev=first.h, dWx=dWx, dWh=dWh, db=db))


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
) -> tuple[FloatArray, FloatArray, Saved | None]:
    options = Options("rnn", precision, reverse, time_major=time_major)
    hs, last, saved = recurrence.forward(options, xs, Wx, Wh, b, initial=States(h0, None), mask=mask, training=training)
    return hs, last.h, saved


def rnn_backward(saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination) -> RNNGrads:
    dxs, dWx, dWh, db, first = recurrence.backward(saved, dhs=dhs, last=States(dh_n, None))
    return RNNGrads(**put_all(into, dxs=dxs, dWx=dWx, dWh=dWh, db=db, dh0=first.h))
