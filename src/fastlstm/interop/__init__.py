"""Weights and models from and to other frameworks; each is imported when it is used.

The weights of a recurrent layer come as `LSTMWeights`, `GRUWeights` or `RNNWeights`: Wx, Wh and b as `fastlstm.ops`
takes them, and what says how they are used.
"""

from __future__ import annotations

from fastlstm.interop.book import book_to_fastlstm, fastlstm_to_book
from fastlstm.interop.keras import fastlstm_to_keras, keras_to_fastlstm
from fastlstm.interop.onnx_export import export_onnx
from fastlstm.interop.onnx_import import gru_from_onnx, lstm_from_onnx, rnn_from_onnx
from fastlstm.interop.pytorch import fastlstm_to_torch, torch_to_fastlstm
from fastlstm.interop.theano import fastlstm_to_theano, theano_to_fastlstm
from fastlstm.interop.weights import GRUWeights, LSTMWeights, RNNWeights, in_convention, in_gate_order, weights_of

__all__ = [
    "GRUWeights",
    "LSTMWeights",
    "RNNWeights",
    "book_to_fastlstm",
    "export_onnx",
    "fastlstm_to_book",
    "fastlstm_to_keras",
    "fastlstm_to_theano",
    "fastlstm_to_torch",
    "gru_from_onnx",
    "in_convention",
    "in_gate_order",
    "keras_to_fastlstm",
    "lstm_from_onnx",
    "rnn_from_onnx",
    "theano_to_fastlstm",
    "torch_to_fastlstm",
    "weights_of",
]
