"""Objects with ``params``, ``grads``, ``forward`` and ``backward``.

Names, constructor arguments and meanings are those of the book "Deep Learning from Scratch 2", on top of
``fastlstm.ops``. Layers remember; operators compute.
"""

from fastlstm.layers.attention import TimeAttention
from fastlstm.layers.bidirectional import TimeBidirectional, TimeBiGRU, TimeBiLSTM, TimeBiRNN
from fastlstm.layers.dense import Affine, MatMul, TimeAffine
from fastlstm.layers.dropout import TimeDropout
from fastlstm.layers.embedding import Embedding, EmbeddingBag, TimeEmbedding
from fastlstm.layers.layer import Layer
from fastlstm.layers.losses import (
    MeanSquaredError,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    TimeAffineWithLoss,
    TimeSigmoidWithLoss,
    TimeSoftmaxWithLoss,
)
from fastlstm.layers.pooling import TimeMeanPooling
from fastlstm.layers.recurrent import GRU, LSTM, RNN, TimeGRU, TimeLSTM, TimeRNN
from fastlstm.layers.sampled import (
    EmbeddingDot,
    NCELoss,
    NegativeSamplingLoss,
    SampledClassesLoss,
    SampledSoftmaxLoss,
    SharedNegativeSamplingLoss,
    UnigramSampler,
)

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingDot",
    "Layer",
    "MatMul",
    "MeanSquaredError",
    "NCELoss",
    "NegativeSamplingLoss",
    "SampledClassesLoss",
    "SampledSoftmaxLoss",
    "SharedNegativeSamplingLoss",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
    "TimeAffine",
    "TimeAffineWithLoss",
    "TimeAttention",
    "TimeBiGRU",
    "TimeBiLSTM",
    "TimeBiRNN",
    "TimeBidirectional",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeMeanPooling",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "UnigramSampler",
]
