"""Arrays of the host and of a GPU: which of them one is, and the functions that make and take its kind."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
from numpy import ndarray

# Types of what memory belongs to, each object with memory of its own: numpy's arrays, and what a backend adds.
OWNERS: list[type] = [ndarray]


def is_device_array(array: Any) -> bool:
    """Whether ``array`` lives on a GPU.

    The type says it of numpy's and CuPy's arrays: to ask CuPy's for their interface makes a dictionary each time.
    """
    kind = type(array)
    if kind is ndarray:
        return False
    cupy = sys.modules.get("cupy")
    return kind is getattr(cupy, "ndarray", None) or hasattr(array, "__cuda_array_interface__")


def array_module(array: Any) -> Any:
    """numpy, or CuPy for an array on a GPU: the functions that make and take arrays of that kind."""
    return importlib.import_module("cupy") if is_device_array(array) else np


def free_unused_memory() -> int:
    """Give memory that the compiled kernels keep for their next calls back to the system.

    Tapes, large results and workspaces return to a pool when they are released, because fresh memory is slow. The pool
    keeps 1 GiB at most.

    Returns
    -------
    int
        How many bytes that were.
    """
    extension = sys.modules.get("fastlstm._cpu")
    return extension.free_unused_buffers() if extension is not None else 0
