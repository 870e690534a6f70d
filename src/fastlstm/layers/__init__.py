"""Objects with ``params``, ``grads``, ``forward`` and ``backward``.

Names, constructor arguments and meanings are those of the book "Deep Learning from Scratch 2", on top of
``fastlstm.ops``. Layers remember; operators compute.
"""

from fastlstm.layers.attention import TimeAttention
from fastlstm.layers.dense import Affine, MatMul, TimeAffine
from fastlstm.layers.dropout import TimeDropout
from fastlstm.layers.embedding import Embedding, TimeEmbedding
from fastlstm.layers.layer import Layer
from fastlstm.layers.losses import (
    SigmoidWithLoss,
    SoftmaxWithLoss,
    TimeAffineWithLoss,
    TimeSigmoidWithLoss,
    TimeSoftmaxWithLoss,
)
from fastlstm.layers.recurrent import LSTM, RNN, TimeBiLSTM, TimeLSTM, TimeRNN

__all__ = [
    "LSTM",
    "RNN",
    "Affine",
    "Embedding",
    "Layer",
    "MatMul",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
    "TimeAffine",
    "TimeAffineWithLoss",
    "TimeAttention",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeLSTM",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
]
