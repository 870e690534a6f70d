"""Read by mypy alone: a module of a backend that has not the functions of its family's protocol is an error here."""

from __future__ import annotations

import fastlstm.backends.cpp.dense
import fastlstm.backends.cpp.dropout
import fastlstm.backends.cpp.embedding
import fastlstm.backends.cpp.gru
import fastlstm.backends.cpp.losses
import fastlstm.backends.cpp.lstm
import fastlstm.backends.cpp.optim
import fastlstm.backends.cpp.rnn
import fastlstm.backends.cpp.sampling
import fastlstm.backends.cpp.skipgram
import fastlstm.backends.cuda.dense
import fastlstm.backends.cuda.dropout
import fastlstm.backends.cuda.embedding
import fastlstm.backends.cuda.gru
import fastlstm.backends.cuda.ids
import fastlstm.backends.cuda.losses
import fastlstm.backends.cuda.lstm
import fastlstm.backends.cuda.optim
import fastlstm.backends.cuda.rnn
import fastlstm.backends.cuda.sampling
import fastlstm.backends.numba.dense
import fastlstm.backends.numba.dropout
import fastlstm.backends.numba.embedding
import fastlstm.backends.numba.gru
import fastlstm.backends.numba.losses
import fastlstm.backends.numba.lstm
import fastlstm.backends.numba.optim
import fastlstm.backends.numba.rnn
import fastlstm.backends.numba.sampling
import fastlstm.backends.numba.skipgram
import fastlstm.backends.numpy.dense
import fastlstm.backends.numpy.dropout
import fastlstm.backends.numpy.embedding
import fastlstm.backends.numpy.gru
import fastlstm.backends.numpy.losses
import fastlstm.backends.numpy.lstm
import fastlstm.backends.numpy.optim
import fastlstm.backends.numpy.rnn
import fastlstm.backends.numpy.sampling
import fastlstm.backends.numpy.skipgram
from fastlstm.contract import (
    DenseFamily,
    DeviceEmbeddingFamily,
    DeviceIdsFamily,
    DeviceOptimFamily,
    DeviceSamplingFamily,
    DropoutFamily,
    EmbeddingFamily,
    GRUFamily,
    LossesFamily,
    LSTMFamily,
    OptimFamily,
    RNNFamily,
    SamplingFamily,
    SkipgramFamily,
)

cpp_dense: DenseFamily = fastlstm.backends.cpp.dense
cpp_dropout: DropoutFamily = fastlstm.backends.cpp.dropout
cpp_embedding: EmbeddingFamily = fastlstm.backends.cpp.embedding
cpp_gru: GRUFamily = fastlstm.backends.cpp.gru
cpp_losses: LossesFamily = fastlstm.backends.cpp.losses
cpp_lstm: LSTMFamily = fastlstm.backends.cpp.lstm
cpp_optim: OptimFamily = fastlstm.backends.cpp.optim
cpp_rnn: RNNFamily = fastlstm.backends.cpp.rnn
cpp_sampling: SamplingFamily = fastlstm.backends.cpp.sampling
cpp_skipgram: SkipgramFamily = fastlstm.backends.cpp.skipgram

numba_dense: DenseFamily = fastlstm.backends.numba.dense
numba_dropout: DropoutFamily = fastlstm.backends.numba.dropout
numba_embedding: EmbeddingFamily = fastlstm.backends.numba.embedding
numba_gru: GRUFamily = fastlstm.backends.numba.gru
numba_losses: LossesFamily = fastlstm.backends.numba.losses
numba_lstm: LSTMFamily = fastlstm.backends.numba.lstm
numba_optim: OptimFamily = fastlstm.backends.numba.optim
numba_rnn: RNNFamily = fastlstm.backends.numba.rnn
numba_sampling: SamplingFamily = fastlstm.backends.numba.sampling
numba_skipgram: SkipgramFamily = fastlstm.backends.numba.skipgram

numpy_dense: DenseFamily = fastlstm.backends.numpy.dense
numpy_dropout: DropoutFamily = fastlstm.backends.numpy.dropout
numpy_embedding: EmbeddingFamily = fastlstm.backends.numpy.embedding
numpy_gru: GRUFamily = fastlstm.backends.numpy.gru
numpy_losses: LossesFamily = fastlstm.backends.numpy.losses
numpy_lstm: LSTMFamily = fastlstm.backends.numpy.lstm
numpy_optim: OptimFamily = fastlstm.backends.numpy.optim
numpy_rnn: RNNFamily = fastlstm.backends.numpy.rnn
numpy_sampling: SamplingFamily = fastlstm.backends.numpy.sampling
numpy_skipgram: SkipgramFamily = fastlstm.backends.numpy.skipgram

cuda_dense: DenseFamily = fastlstm.backends.cuda.dense
cuda_dropout: DropoutFamily = fastlstm.backends.cuda.dropout
cuda_embedding: DeviceEmbeddingFamily = fastlstm.backends.cuda.embedding
cuda_gru: GRUFamily = fastlstm.backends.cuda.gru
cuda_ids: DeviceIdsFamily = fastlstm.backends.cuda.ids
cuda_losses: LossesFamily = fastlstm.backends.cuda.losses
cuda_lstm: LSTMFamily = fastlstm.backends.cuda.lstm
cuda_optim: DeviceOptimFamily = fastlstm.backends.cuda.optim
cuda_rnn: RNNFamily = fastlstm.backends.cuda.rnn
cuda_sampling: DeviceSamplingFamily = fastlstm.backends.cuda.sampling
