"""Pure functions of arrays: the kernels to drop into a training loop of one's own."""

from fastlstm.ops.candidates import (
    UnigramTable,
    log_uniform_candidates,
    log_uniform_expected_count,
    unigram_candidates,
)
from fastlstm.ops.clipping import clip_grad_norm, clip_grad_value, clip_scale, global_norm
from fastlstm.ops.dense import batched_product, matrix_product, prepare_dense
from fastlstm.ops.dropout import dropout_mask
from fastlstm.ops.embedding import embedding_backward, embedding_backward_rows, embedding_forward, scatter_add
from fastlstm.ops.gates import pack_gates, unpack_gates
from fastlstm.ops.gru import gru_backward, gru_cell_backward, gru_cell_forward, gru_forward, prepare_gru
from fastlstm.ops.losses import (
    linear_cross_entropy,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
)
from fastlstm.ops.lstm import lstm_backward, lstm_cell_backward, lstm_cell_forward, lstm_forward, prepare_lstm
from fastlstm.ops.optim import (
    adagrad_update,
    adam_update,
    adamw_update,
    momentum_update,
    nesterov_update,
    rmsprop_update,
    sgd_update,
)
from fastlstm.ops.rnn import prepare_rnn, rnn_backward, rnn_cell_backward, rnn_cell_forward, rnn_forward
from fastlstm.ops.sampling import (
    nce_loss,
    negative_sampling_loss,
    sampled_logits_backward,
    sampled_logits_forward,
    sampled_softmax_loss,
)
from fastlstm.ops.skipgram import cbow_update, negative_sampling_update, skipgram_counts, skipgram_pairs, subsample

__all__ = [
    "UnigramTable",
    "adagrad_update",
    "adam_update",
    "adamw_update",
    "batched_product",
    "cbow_update",
    "clip_grad_norm",
    "clip_grad_value",
    "clip_scale",
    "dropout_mask",
    "embedding_backward",
    "embedding_backward_rows",
    "embedding_forward",
    "global_norm",
    "gru_backward",
    "gru_cell_backward",
    "gru_cell_forward",
    "gru_forward",
    "linear_cross_entropy",
    "log_uniform_candidates",
    "log_uniform_expected_count",
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "matrix_product",
    "mean_squared_error",
    "momentum_update",
    "nce_loss",
    "negative_sampling_loss",
    "negative_sampling_update",
    "nesterov_update",
    "pack_gates",
    "prepare_dense",
    "prepare_gru",
    "prepare_lstm",
    "prepare_rnn",
    "rmsprop_update",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
    "sampled_logits_backward",
    "sampled_logits_forward",
    "sampled_softmax_loss",
    "scatter_add",
    "sgd_update",
    "sigmoid_cross_entropy",
    "skipgram_counts",
    "skipgram_pairs",
    "softmax",
    "softmax_cross_entropy",
    "subsample",
    "unigram_candidates",
    "unpack_gates",
]
