"""Whole models: layers put together, with ``fit``, ``evaluate``, ``generate``, ``save`` and ``load``."""

from fastlstm.models.classifier import SequenceClassifier
from fastlstm.models.loading import load
from fastlstm.models.model import Model
from fastlstm.models.regressor import SequenceRegressor
from fastlstm.models.rnnlm import RNNLM
from fastlstm.models.row_model import RowModel
from fastlstm.models.seq2seq import Seq2seq
from fastlstm.models.tagger import SequenceTagger
from fastlstm.models.word2vec import Word2Vec
from fastlstm.models.word_vectors import WordVectors

__all__ = [
    "RNNLM",
    "Model",
    "RowModel",
    "Seq2seq",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "Word2Vec",
    "WordVectors",
    "load",
]
