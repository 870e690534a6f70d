"""Fused LSTM kernels for training loops written in numpy or CuPy.

``fastlstm.ops`` are the kernels, ``fastlstm.layers`` the book-style layers on top of them, ``fastlstm.models`` whole
models. ``fastlstm.contract`` explains the letters (N, T, D, H, V ...) and the result types.
"""

from __future__ import annotations

import importlib
from typing import Any

from fastlstm import blas_waiting  # noqa: F401, before numpy if that is still to come

# isort: split
from fastlstm.arrays import free_unused_memory
from fastlstm.backends import available_backends, get_backend, set_backend, use_backend
from fastlstm.config import get_num_threads, set_num_threads, show_config, synchronize
from fastlstm.contract import BackendNotAvailable

__version__ = "0.1.0"

__all__ = [
    "BackendNotAvailable",
    "__version__",
    "available_backends",
    "free_unused_memory",
    "get_backend",
    "get_num_threads",
    "load",
    "set_backend",
    "set_num_threads",
    "show_config",
    "synchronize",
    "use_backend",
]

_SUBMODULES = (
    "callbacks",
    "compat",
    "contract",
    "datasets",
    "distributed",
    "interop",
    "layers",
    "models",
    "ops",
    "optim",
    "testing",
    "torch",
    "training",
)


_SHOWN = ("callbacks", "datasets", "layers", "models", "ops", "optim")


def __dir__() -> list[str]:
    """What a user looks for first: the rooms of a model, and the public functions."""
    return sorted((*_SHOWN, *__all__))


def __getattr__(name: str) -> Any:
    """Submodules, and what stands in them, are imported when they are first used."""
    if name == "load":  # models are imported when they are first used, too
        return importlib.import_module("fastlstm.models").load
    if name in _SUBMODULES:
        return importlib.import_module(f"fastlstm.{name}")
    raise AttributeError(f"module 'fastlstm' has no attribute {name!r}")
