"""Whole models: layers put together, with ``fit``, ``evaluate``, ``generate``, ``save`` and ``load``."""

from fastlstm.models.model import Model
from fastlstm.models.rnnlm import RNNLM
from fastlstm.models.seq2seq import Seq2seq

__all__ = ["RNNLM", "Model", "Seq2seq"]
