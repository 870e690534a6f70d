"""Training a model: the loop, its history, checkpoints. Users import callbacks from `fastlstm.callbacks`."""

from fastlstm.training.callback import Callback
from fastlstm.training.history import History
from fastlstm.training.loop import OptimizerLike, Trainer

__all__ = ["Callback", "History", "OptimizerLike", "Trainer"]
