"""Between the host and a GPU: where arrays live, how they get there, and what waits for it.

On a GPU, nothing that operators, layers and models do for a step of a training waits for the device. What is a Python
number on the host, a loss for instance, is an array without axes there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.backends import check_can_run, get_backend
from fastlstm.contract import Array, PaddedRowGrad, RowGrad
from fastlstm.ops import checks
from fastlstm.ops.current_device import on_arrays_device

Device: TypeAlias = Literal["cpu", "cuda"]


def device_of(array: Any) -> Device:
    """Where an array lives."""
    return "cuda" if is_device_array(array) else "cpu"


def check_device(device: Device) -> None:
    """Raise `BackendNotAvailable` if nothing can be computed on the device here; the message says why."""
    if device == "cuda":
        check_can_run("cuda")


def what_computes() -> dict[str, str]:
    """What the bits of results on the host depend on, beside the arguments."""
    backend = get_backend()
    return {
        "version of fastlstm": sys.modules["fastlstm"].__version__,
        "version of numpy": np.__version__,
        "backend": backend,
        "instruction set": importlib.import_module("fastlstm._cpu").isa() if backend == "cpp" else "none of its own",
    }


def to_device(array: Any, device: Device) -> Array:
    """An array on the device: itself if it lives there. Copying from a GPU waits for it."""
    if device == "cuda":
        import cupy

        checks.refuse_masked("the array", array)
        on_gpu: Array = cupy.asarray(array)
        return on_gpu
    return to_host(array)


def to_host(array: Any) -> Array:
    """A numpy array: itself, or its copy from a GPU, which waits for it.

    Raises
    ------
    IndexError
        By now it is known that ids of an earlier call on the GPU were out of range.
    """
    checks.refuse_masked("the array", array)
    if not is_device_array(array):
        return np.asarray(array)
    import cupy

    on_host: Array = cupy.asnumpy(array)
    checks.raise_if_ids_were_wrong()
    return on_host


def copier_to(device: Device) -> Callable[[Array], Array]:
    """A function that copies arrays to the device; what stands in several places has one copy."""
    copies: dict[int, tuple[Array, Array]] = {}

    def copy(array: Array) -> Array:
        if id(array) not in copies:
            made = to_device(array, device)
            # Both are kept, so that no other array gets their numbers.
            copies[id(array)] = (array, made)
            copies[id(made)] = (made, made)
        return copies[id(array)][1]

    return copy


def number(value: Any) -> Any:
    """A number as an operator of its device returns it: a float of the host's, an array without axes on a GPU."""
    return value if is_device_array(value) else float(value)


def read(value: Any) -> float:
    """A number as a float. Of a GPU's this waits.

    Raises
    ------
    IndexError
        By now it is known that ids of an earlier call on the GPU were out of range.
    """
    on_host = float(value)
    if is_device_array(value):
        checks.raise_if_ids_were_wrong()
    return on_host


def row_grad(grad: RowGrad | PaddedRowGrad) -> RowGrad:
    """A gradient by rows, with as many as there are: of a PaddedRowGrad only the device knows, so this synchronises."""
    if isinstance(grad, RowGrad):
        return grad
    U = int(to_host(grad.num_rows)[0])
    return RowGrad(grad.indices[:U], grad.values[:U])


@on_arrays_device
def count_true(mask: Any) -> Any:
    """How many elements are True: an int on the host, an array without axes on a GPU."""
    count = array_module(mask).count_nonzero(mask)
    return count if is_device_array(mask) else int(count)
