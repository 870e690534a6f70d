"""Memory of numpy arrays between margins, for arrays that compiled code makes itself.

NumPy lets a program replace its allocator (NEP 49). The one here surrounds every block with bytes of 0xFF, NaN in every
float type, and fills fresh blocks with them, so that what is read before it is written, or outside, becomes NaN, and
what is written outside is seen.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

MARGIN = 256  # bytes, a multiple of every alignment
_FILL = 0xFF

# Places in NumPy's table of C functions (numpy/__multiarray_api.h); part of its stable binary interface.
_SET_HANDLER = 304

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]

_MALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_CALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_REALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Allocator(ctypes.Structure):
    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("malloc", _MALLOC),
        ("calloc", _CALLOC),
        ("realloc", _REALLOC),
        ("free", _FREE),
    )


class _Handler(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


_live: dict[int, int] = {}
_faults: list[str] = []


def _malloc(_ctx: Any, size: int) -> int | None:
    start = _libc.malloc(size + 2 * MARGIN)
    if not start:
        return None
    ctypes.memset(start, _FILL, size + 2 * MARGIN)
    _live[start + MARGIN] = size
    return int(start) + MARGIN


def _calloc(ctx: Any, count: int, itemsize: int) -> int | None:
    block = _malloc(ctx, count * itemsize)
    if block:
        ctypes.memset(block, 0, count * itemsize)
    return block


def _check(block: int) -> None:
    size = _live[block]
    for side, start in (("before", block - MARGIN), ("after", block + size)):
        margin = ctypes.string_at(start, MARGIN)
        if margin.strip(bytes([_FILL])):
            places = [k for k, byte in enumerate(margin) if byte != _FILL]
            _faults.append(
                f"{len(places)} bytes were written {side} an array of {size} bytes, the first at {places[0]}"
            )


def _free(_ctx: Any, block: int | None, _size: int) -> None:
    if block:
        _check(block)
        del _live[block]
        _libc.free(block - MARGIN)


def _realloc(ctx: Any, block: int | None, size: int) -> int | None:
    fresh = _malloc(ctx, size)
    if fresh and block:
        ctypes.memmove(fresh, block, min(size, _live[block]))
        _free(ctx, block, 0)
    return fresh


# Arrays call these when they are freed, at any later time: they live as long as the program.
_HANDLER = _Handler(
    b"guarded", 1, _Allocator(None, _MALLOC(_malloc), _CALLOC(_calloc), _REALLOC(_realloc), _FREE(_free))
)


def _numpy_function(place: int) -> Any:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.POINTER(ctypes.c_void_p)
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    core: Any = np._core if hasattr(np, "_core") else np.core
    address = get_pointer(core._multiarray_umath._ARRAY_API, None)[place]
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)


_set_handler = _numpy_function(_SET_HANDLER)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
_CAPSULE_NAME = ctypes.create_string_buffer(b"mem_handler")  # a capsule keeps the pointer only
_CAPSULE = _new_capsule(ctypes.addressof(_HANDLER), _CAPSULE_NAME, None)


@contextlib.contextmanager
def guarded_memory() -> Iterator[None]:
    """Arrays made inside the block, by this thread, lie between margins.

    Raises
    ------
    AssertionError
        At the end of the block, if something was written outside an array.
    """
    _faults.clear()
    before = _set_handler(_CAPSULE)
    try:
        yield
    finally:
        _set_handler(before)
    for block in list(_live):
        _check(block)
    assert not _faults, "; ".join(_faults)
