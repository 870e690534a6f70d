"""The book's loose rules about dtypes, made to fit operators that are strict about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.contract import Array, FloatArray, IntArray

FLOAT32 = np.dtype(np.float32)
_ID_DTYPES = (np.dtype(np.int64), np.dtype(np.int32))


def of_dtype(array: Array, dtype: np.dtype[Any]) -> FloatArray:
    """The array itself where it has the dtype already; one-hot rows of integers and float64 inputs are converted."""
    return array if array.dtype == dtype else array.astype(dtype)


def ids_of(ids: Any) -> IntArray:
    """Ids as int32 or int64, the array itself where it is one."""
    if getattr(ids, "dtype", None) in _ID_DTYPES:
        as_they_are: IntArray = ids
        return as_they_are
    return np.asarray(ids).astype(np.int64)


def to_cpu(x: Any) -> Array:
    """A numpy array, of a CuPy array too."""
    return x if isinstance(x, np.ndarray) else x.get()


def to_gpu(x: Any) -> Array:
    """A CuPy array."""
    import cupy

    on_device: Array = cupy.asarray(x)
    return on_device
