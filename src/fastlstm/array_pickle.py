"""Pickled lists of arrays, as "Deep Learning from Scratch 2" saves parameters, read without running code in them."""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.tensor_file import regular_file


class _Dtype:
    """What a pickle has for numpy.dtype; numpy's own would take a state that turns bytes into object pointers."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in ("f2", "f4", "f8"):
            raise pickle.UnpicklingError(f"it holds an array of {_shown(name)}, expected f2, f4 or f8")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, order, *_ = state  # the rest is empty for numbers
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it holds numbers of the byte order {_shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """What a pickle has for an array; ``array``, once it is filled, looks at the pickle's own bytes."""

    array: FloatArray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns_first, content = state
        self.fill(content, dtype, shape, "F" if columns_first else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> Self:
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)) or order not in ("C", "F"):
            raise pickle.UnpicklingError("it holds an array that numpy does not write so")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it holds an array of no shape")
        size = math.prod(shape) * dtype.dtype.itemsize
        if len(content) != size:
            raise pickle.UnpicklingError(f"an array of shape {shape} has {len(content)} bytes, expected {size}")
        self.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)
        return self


def _shown(value: Any) -> str:
    """A value in an error. Of tuples of tuples few bytes make more than any memory holds as text."""
    return repr(value[:60]) if isinstance(value, str) else type(value).__name__


class _ArraysOnly(pickle.Unpickler):
    """A pickle can call any function of any module when it is read; here it gets stand-ins for those arrays need."""

    _MAKERS: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): lambda *_: None,
        ("numpy", "dtype"): _Dtype,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): lambda *args: _Array().fill(*args) for core in ("core", "_core")},
        ("__builtin__", "bytes"): lambda: b"",  # what old protocols call for no bytes
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._unencoded = len(content)

    def _encode(self, text: str, encoding: str) -> bytes:
        """Bytes as old protocols have them; a text may be encoded once, not as often as its writer likes."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it holds bytes as {_shown(encoding)}, expected latin1")
        self._unencoded -= len(text)
        if self._unencoded < 0:
            raise pickle.UnpicklingError("it makes more bytes than it has")
        return text.encode(encoding)

    def find_class(self, module: str, name: str) -> Any:
        maker = self._encode if (module, name) == ("_codecs", "encode") else self._MAKERS.get((module, name))
        if maker is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which arrays do not need")
        return lambda *args: maker(*args)  # a new one each time: a pickle can change what it gets


# What makes sets and mappings, whose keys are hashed, and of tuples of tuples that may take for ever.
_HASHING = {"DICT", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET"}


def _check_opcodes(content: bytes) -> None:
    """Raise if a pickle announces more than it has, or hashes: what reading it takes would be its writer's choice."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _HASHING:
            raise pickle.UnpicklingError("it holds a mapping or a set, which arrays do not need")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not (argument is not None and argument <= len(content)):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


def read_params(path: str | os.PathLike[str]) -> list[FloatArray]:
    """The arrays of a .pkl file of the book's; no code in it is run."""
    content = regular_file(path, "a .pkl file of the book").read_bytes()
    try:
        _check_opcodes(content)
        params = _ArraysOnly(content).load()
    except Exception as error:  # a pickle's instructions fail in any way
        raise ValueError(f"{path} is no pickled list of arrays: {error}") from None
    if not isinstance(params, list) or not all(
        isinstance(param, _Array) and hasattr(param, "array") for param in params
    ):
        raise ValueError(f"{path} is no pickled list of float arrays")
    different = {id(param): param.array for param in params}
    if sum(array.nbytes for array in different.values()) > len(content):
        raise ValueError(f"{path} is damaged: several of its arrays have the same bytes")
    # Copies in the processor's byte order, one of an array that the list holds twice.
    arrays = {key: array.astype(array.dtype.newbyteorder("="), order="C") for key, array in different.items()}
    return [arrays[id(param)] for param in params]
