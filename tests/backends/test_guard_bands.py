"""Every array stands between margins of NaN, 4 or 8 bytes off alignment: nothing reads or writes outside.

What is read from a margin shows as NaN or as another sum, what is written there as another bit pattern. Arrays that an
operator makes itself get their margins from ``guarded_memory``.
"""

from __future__ import annotations

import ctypes
from typing import Any

import cases
import numpy as np
import pytest
import recurrent_cases
from guarded_memory import guarded_memory

import fastlstm
from fastlstm import use_backend
from fastlstm.testing import Case, run_case

# dtype and offset of the arrays, in elements from an aligned address. Numba compiles one source for both dtypes.
LAYOUTS = {"cpp": [("float32", 0), ("float32", 1), ("float64", 1)], "numba": [("float32", 1)]}
RUNS = [
    (name, case, dtype, offset)
    for name, layouts in LAYOUTS.items()
    if name in fastlstm.available_backends()
    for dtype, offset in layouts
    for case in (*cases.ALL, *((*cases.BF16, *recurrent_cases.RECURRENT_BF16) if dtype == "float32" else ()))
]

_MARGIN = 64  # elements on either side; as long as the widest tile
_ALIGNMENT = 64

# NaNs of an unusual bit pattern, so that an ordinary NaN written over them shows too.
_FILL: dict[str, bytes] = {
    "float32": np.uint32(0x7FC0BEEF).tobytes(),
    "float64": np.uint64(0x7FF800000000BEEF).tobytes(),
    # An id of 0 is in range: reading one too many adds a row to the sums instead of crashing.
    "int32": bytes(4),
    "int64": bytes(8),
    "bool": b"\1",
}


class Guards:
    """Makes guarded copies of arrays and remembers their margins."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.margins: list[tuple[np.ndarray[Any, Any], bytes]] = []

    def guard(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A copy of the same layout, ``offset`` elements behind an aligned address, between two margins."""
        if array.ndim > 1 and not array.flags.c_contiguous and (swapped := array.swapaxes(-1, -2)).flags.c_contiguous:
            return self.guard(swapped).swapaxes(-1, -2)
        fill, itemsize = _FILL[array.dtype.name], array.itemsize
        size = _MARGIN + self.offset + array.size + _MARGIN
        raw = np.empty(size * itemsize + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        raw = raw[start : start + size * itemsize]
        raw[:] = np.frombuffer(fill * size, np.uint8)
        first = (_MARGIN + self.offset) * itemsize
        before, after = raw[:first], raw[first + array.nbytes :]
        self.margins += [(before, before.tobytes()), (after, after.tobytes())]
        inside: np.ndarray[Any, Any] = raw[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        return inside

    def check(self) -> None:
        for margin, was in self.margins:
            assert margin.tobytes() == was, "something was written outside an array"


def _bits(results: dict[str, Any]) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in results.items()}


@pytest.mark.parametrize(("name", "case", "dtype", "offset"), RUNS, ids=str)
def test_nothing_outside_the_arrays_is_read_or_written(name: str, case: Case, dtype: str, offset: int) -> None:
    guards = Guards(offset)
    plain = case.cast(dtype)
    guarded = plain.map_arrays(guards.guard)
    before = [inside.tobytes() for inside in _arrays(guarded)]
    with use_backend(name):
        want = _bits(run_case(plain))
        with guarded_memory():
            got = _bits(run_case(guarded, copy=guards.guard))
    guards.check()
    assert [inside.tobytes() for inside in _arrays(guarded)] == before
    # The same bits, wherever the arrays lie.
    assert [name for name in want if got[name] != want[name]] == []


def _arrays(case: Case) -> list[np.ndarray[Any, Any]]:
    found: list[np.ndarray[Any, Any]] = []
    case.map_arrays(found.append)
    return found


def test_guarded_memory_sees_a_write_outside() -> None:
    guard = guarded_memory()
    guard.__enter__()
    array = np.zeros(10, np.float32)
    assert array.ctypes.data % 16 == 0
    ctypes.memset(array.ctypes.data + array.nbytes, 0, 4)
    with pytest.raises(AssertionError, match="4 bytes were written after an array of 40 bytes, the first at 0"):
        guard.__exit__(None, None, None)
    ctypes.memset(array.ctypes.data + array.nbytes, 0xFF, 4)  # or the next test would see it


def test_guarded_memory_fills_fresh_arrays_with_nan() -> None:
    with guarded_memory():
        assert np.isnan(np.empty(1000)).all()
        assert not np.zeros(1000).any()
