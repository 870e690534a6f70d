"""Arrays of the host and of a GPU: which of them one is, and the functions that make and take its kind."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def is_device_array(array: Any) -> bool:
    """Whether ``array`` lives on a GPU."""
    return hasattr(array, "__cuda_array_interface__")


def array_module(array: Any) -> Any:
    """numpy, or CuPy for an array on a GPU: the functions that make and take arrays of that kind."""
    return importlib.import_module("cupy") if is_device_array(array) else np
