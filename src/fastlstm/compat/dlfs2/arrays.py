"""The book's loose rules about dtypes, made to fit operators that are strict about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import Array, FloatArray, IntArray
from fastlstm.ops import checks
from fastlstm.ops.device import device_of, to_device, to_host

FLOAT32 = np.dtype(np.float32)
_ID_DTYPES = (np.dtype(np.int64), np.dtype(np.int32))


def of_dtype(array: Array, dtype: np.dtype[Any]) -> FloatArray:
    """The array itself where it has the dtype already; one-hot rows of integers and float64 inputs are converted."""
    return array if array.dtype == dtype else array.astype(dtype)


def ids_of(ids: Any) -> IntArray:
    """Ids as int32 or int64, the array itself where it is one."""
    if checks.is_array(ids):
        checks.require_array("ids", ids)
    if getattr(ids, "dtype", None) in _ID_DTYPES:
        as_they_are: IntArray = ids
        return as_they_are
    array = array_module(ids).asarray(ids)
    with np.errstate(invalid="ignore"):
        converted: IntArray = array.astype(np.int64)
    if not is_device_array(array) and (wrong := converted != array).any():
        raise ValueError(f"ids hold {array[wrong][0]}, expected whole numbers that int64 holds")
    return converted


def to_cpu(x: Any) -> Array:
    """A numpy array, of a CuPy array too."""
    return to_host(x)


def to_gpu(x: Any) -> Array:
    """A CuPy array."""
    return to_device(x, "cuda")


def beside(model: Any, *arrays: Any) -> list[Array]:
    """Arrays where a model's parameters are; as they are of a model without any."""
    params = getattr(model, "params", None)
    return [to_device(array, device_of(params[0])) for array in arrays] if params else list(arrays)


def scatter_add(a: FloatArray, slices: IntArray, value: FloatArray) -> None:
    """``numpy.scatter_add`` of CuPy before version 8: a[slices[m]] += value[m]."""
    ops.scatter_add(a, ids_of(slices), of_dtype(value, a.dtype))
