"""``common.base_model``: a model that saves its parameters as the book does."""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from fastlstm.compat.dlfs2.arrays import to_cpu
from fastlstm.contract import FloatArray
from fastlstm.ops import scalars
from fastlstm.ops.device import device_of, to_device


class BaseModel:
    """Base of the book's models: ``params`` and ``grads`` are set by the subclass."""

    def __init__(self) -> None:
        self.params: list[FloatArray] = []
        self.grads: list[FloatArray] = []

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def backward(self, *args: Any) -> Any:
        raise NotImplementedError

    def save_params(self, file_name: str | None = None) -> None:
        """Write the parameters as a pickled list of float16 arrays, "ClassName.pkl" unless named."""
        params = [to_cpu(param.astype(np.float16)) for param in self.params]
        with open(file_name or f"{type(self).__name__}.pkl", "wb") as file:
            pickle.dump(params, file)

    def load_params(self, file_name: str | None = None) -> None:
        """Read what ``save_params`` wrote, here or with the book's code. Nothing changes unless all of it fits.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no list of arrays, or they do not fit the model.
        """
        path = file_name or f"{type(self).__name__}.pkl"
        params = read_params(path)
        shapes, wanted = [param.shape for param in params], [param.shape for param in self.params]
        if shapes != wanted:
            raise ValueError(f"{path} holds arrays of shapes {shapes}, {type(self).__name__} has {wanted}")
        for param, value in zip(self.params, params, strict=True):
            param[...] = to_device(value.astype(param.dtype), device_of(param))


class _Dtype:
    """What a pickle has for numpy.dtype; numpy's own would take a state that turns bytes into object pointers."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in ("f2", "f4", "f8"):
            raise pickle.UnpicklingError(f"it holds an array of {name!r}, expected f2, f4 or f8")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, order, *_ = state  # the rest is empty for numbers
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it holds numbers of the byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """What a pickle has for an array; ``array``, once it is filled, a copy in the processor's byte order."""

    array: FloatArray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns_first, content = state
        self.fill(content, dtype, shape, "F" if columns_first else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> Self:
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)) or order not in ("C", "F"):
            raise pickle.UnpicklingError("it holds an array that numpy does not write so")
        size = math.prod(scalars.integer("an axis", n, 0) for n in shape) * dtype.dtype.itemsize
        if len(content) != size:
            raise pickle.UnpicklingError(f"an array of shape {shape} has {len(content)} bytes, expected {size}")
        numbers = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)
        self.array = numbers.astype(dtype.dtype.newbyteorder("="), order="C")
        return self


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as old protocols have them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding!r}, expected latin1")
    return text.encode(encoding)


class _ArraysOnly(pickle.Unpickler):
    """A pickle can call any function of any module when it is read; here it gets stand-ins for those arrays need."""

    _MAKERS: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): lambda *_: None,
        ("numpy", "dtype"): _Dtype,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): lambda *args: _Array().fill(*args) for core in ("core", "_core")},
        ("_codecs", "encode"): _encode,
        ("__builtin__", "bytes"): lambda: b"",  # what old protocols call for no bytes
    }

    def find_class(self, module: str, name: str) -> Any:
        maker = self._MAKERS.get((module, name))
        if maker is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays do not need")
        return lambda *args: maker(*args)  # a new one each time: a pickle can change what it gets


def _check_sizes(content: bytes) -> None:
    """Raise if a pickle announces more than it has: what it takes to read it would be its writer's to choose."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not (argument is not None and argument <= len(content)):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


def read_params(path: str | os.PathLike[str]) -> list[FloatArray]:
    """The arrays of a .pkl file of the book's; no code in it is run."""
    content = Path(path).read_bytes()
    try:
        _check_sizes(content)
        params = _ArraysOnly(io.BytesIO(content)).load()
    except Exception as error:  # a pickle's instructions fail in any way
        raise ValueError(f"{path} is no pickled list of arrays: {error}") from None
    if not isinstance(params, list) or not all(
        isinstance(param, _Array) and hasattr(param, "array") for param in params
    ):
        raise ValueError(f"{path} is no pickled list of float arrays")
    return [param.array for param in params]
