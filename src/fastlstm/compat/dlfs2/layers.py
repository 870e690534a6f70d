"""``common.layers`` and ``common.time_layers``: the layers of ``fastlstm.layers`` with the book's rules about dtypes.

Weights may be float64 and inputs integers (one-hot rows): inputs are converted to the weights' dtype. What goes from
layer to layer over time is float32, as in the book.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import layers
from fastlstm.compat.dlfs2.arrays import FLOAT32, ids_of, of_dtype
from fastlstm.compat.dlfs2.functions import sigmoid, softmax
from fastlstm.contract import Array, FloatArray
from fastlstm.layers.layer import Layer, saved
from fastlstm.layers.targets import as_ids
from fastlstm.ops.device import device_of, to_device

GRU = layers.GRU
LSTM = layers.LSTM
RNN = layers.RNN
TimeAttention = layers.TimeAttention
TimeDropout = layers.TimeDropout


class MatMul(layers.MatMul):
    """x @ W."""

    def forward(self, x: Array) -> FloatArray:
        return super().forward(of_dtype(x, self.params[0].dtype))

    def backward(self, dout: FloatArray) -> FloatArray:
        return super().backward(of_dtype(dout, self.params[0].dtype))


class Affine(layers.Affine):
    """x @ W + b."""

    def forward(self, x: Array) -> FloatArray:
        return super().forward(of_dtype(x, self.params[0].dtype))

    def backward(self, dout: FloatArray) -> FloatArray:
        return super().backward(of_dtype(dout, self.params[0].dtype))


class TimeAffine(layers.TimeAffine):
    """x @ W + b at every time step."""

    def forward(self, x: Array) -> FloatArray:
        return super().forward(of_dtype(x, self.params[0].dtype))

    def backward(self, dout: FloatArray) -> FloatArray:
        return super().backward(of_dtype(dout, self.params[0].dtype))


class Embedding(layers.Embedding):
    """Rows of W by id."""

    def forward(self, idx: Any) -> FloatArray:
        return super().forward(ids_of(idx))

    def backward(self, dout: FloatArray) -> None:
        super().backward(of_dtype(dout, self.params[0].dtype))


class TimeEmbedding(layers.TimeEmbedding):
    """Rows of W by id at every time step."""

    @property
    def W(self) -> FloatArray:
        return self.params[0]

    def forward(self, xs: Any) -> FloatArray:
        return of_dtype(super().forward(ids_of(xs)), FLOAT32)

    def backward(self, dout: FloatArray) -> None:
        super().backward(of_dtype(dout, self.params[0].dtype))


class TimeRNN(layers.TimeRNN):
    """A tanh RNN over whole sequences."""

    def forward(self, xs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().forward(of_dtype(xs, self.params[0].dtype)), FLOAT32)

    def backward(self, dhs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().backward(of_dtype(dhs, self.params[0].dtype)), FLOAT32)

    def set_state(self, h: FloatArray | None) -> None:
        super().set_state(None if h is None else of_dtype(h, self.params[0].dtype))


class TimeGRU(layers.TimeGRU):
    """A GRU over whole sequences."""

    def forward(self, xs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().forward(of_dtype(xs, self.params[0].dtype)), FLOAT32)

    def backward(self, dhs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().backward(of_dtype(dhs, self.params[0].dtype)), FLOAT32)

    def set_state(self, h: FloatArray | None) -> None:
        super().set_state(None if h is None else of_dtype(h, self.params[0].dtype))


class TimeLSTM(layers.TimeLSTM):
    """An LSTM over whole sequences."""

    def forward(self, xs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().forward(of_dtype(xs, self.params[0].dtype)), FLOAT32)

    def backward(self, dhs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().backward(of_dtype(dhs, self.params[0].dtype)), FLOAT32)

    def set_state(self, h: FloatArray | None, c: FloatArray | None = None) -> None:
        dtype = self.params[0].dtype
        super().set_state(*(None if state is None else of_dtype(state, dtype) for state in (h, c)))


class TimeBiLSTM(layers.TimeBiLSTM):
    """Two LSTMs, one forwards and one backwards over the sequence, their states side by side."""

    def forward(self, xs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().forward(of_dtype(xs, self.params[0].dtype)), FLOAT32)

    def backward(self, dhs: FloatArray) -> FloatArray:  # type: ignore[override]
        return of_dtype(super().backward(of_dtype(dhs, self.params[0].dtype)), FLOAT32)


class Sigmoid(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.out: FloatArray | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        self.out = sigmoid(x)
        return self.out

    def backward(self, dout: FloatArray) -> FloatArray:
        out = saved(self.out)
        return dout * (1 - out) * out


class Softmax(Layer):
    """Softmax of every row of x (N, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.out: FloatArray | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        self.out = softmax(x)
        return self.out

    def backward(self, dout: FloatArray) -> FloatArray:
        out = saved(self.out)
        dx = out * dout
        dx -= out * dx.sum(axis=1, keepdims=True)
        return dx


class Dropout(Layer):
    """Elements become zero with probability ``dropout_ratio``; without training all are scaled down instead."""

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.mask: Array | None = None

    def forward(self, x: FloatArray, train_flg: bool = True) -> FloatArray:
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        drawn = np.random.rand(*x.shape) > self.dropout_ratio  # noqa: NPY002
        self.mask = to_device(drawn, device_of(x))
        return x * self.mask

    def backward(self, dout: FloatArray) -> FloatArray:
        return dout * saved(self.mask)


class SoftmaxWithLoss(layers.SoftmaxWithLoss):
    """Softmax and cross entropy, the mean over the batch; targets are ids (N,) or (N, 1), or one-hot (N, V)."""

    def forward(self, x: FloatArray, t: Array) -> float:
        t = t.reshape(x.shape) if t.size == x.size else t
        return super().forward(x, ids_of(as_ids("t", t, x.ndim - 1, x.shape[-1], self.ignore_label)))


class TimeSoftmaxWithLoss(layers.TimeSoftmaxWithLoss):
    """Softmax and cross entropy at every time step; targets of ``ignore_label`` (-1) do not count."""

    def forward(self, xs: FloatArray, ts: Array) -> float:
        return super().forward(xs, ids_of(as_ids("ts", ts, xs.ndim - 1, xs.shape[-1], self.ignore_label)))


SigmoidWithLoss = layers.SigmoidWithLoss
TimeSigmoidWithLoss = layers.TimeSigmoidWithLoss
