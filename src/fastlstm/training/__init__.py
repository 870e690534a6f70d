"""Training a model: the loop, its history, callbacks and checkpoints."""

from fastlstm.training.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from fastlstm.training.history import History
from fastlstm.training.loop import OptimizerLike, Trainer

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "OptimizerLike",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "Trainer",
]
