"""Operators run while the GPU of their arrays is the current one, whichever the caller's is.

CuPy makes a new array on the current device, copies and results of checks too, wherever those are that it is made of.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from numpy import ndarray

from fastlstm.arrays import is_device_array
from fastlstm.contract import Tape

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def on_arrays_device(op: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Makes the device of an operator's arrays the current one, once for all that its call makes and launches."""

    @functools.wraps(op)
    def run(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        # Small operators take microseconds: what is of the host goes by with a look.
        if args and type(args[0]) is ndarray:
            return op(*args, **options)
        cupy: Any = sys.modules.get("cupy")
        device = None if cupy is None else _device_of((*args, *options.values()))
        if device is None:
            return op(*args, **options)
        with cupy.cuda.Device(device):
            return op(*args, **options)

    return run


def _device_of(values: tuple[Any, ...]) -> int | None:
    """The GPU of the first array or tape among the arguments; None if that is of the host, or is no CuPy array."""
    for value in values:
        if isinstance(value, Tape):
            return value.device
        array = _first_array(value)
        if array is not None:
            return getattr(getattr(array, "device", None), "id", None) if is_device_array(array) else None
    return None


def _first_array(value: Any) -> Any:
    """The array itself, or the first of a list, a NamedTuple or a dictionary of them; None of anything else."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return _first_array(value[0]) if value else None
    return value if isinstance(value, ndarray) or is_device_array(value) else None
