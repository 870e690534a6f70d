"""Ids are checked on the GPU, csrc/cuda/ids/check_ids.h, without synchronising: what is wrong is known later.

A check copies the ids, with 0 in the place of those out of range, so that kernels never read or write elsewhere. The
first check that finds something leaves it in a record in pinned memory, which the host looks at whenever it comes by.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import cupy
import numpy as np

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import address, call_on, current_stream, device_of
from fastlstm.contract import IdSource, IntArray

_FIELDS = ("full", "source", "value")  # struct Fault
_SHARED = (np.iinfo(np.int64).max, 0)  # struct Shared: nothing found, no block has finished


class _Record:
    """What the GPU writes for the host. Pinned memory has one address for both."""

    def __init__(self) -> None:
        size = len(_FIELDS) * 8
        self._memory = cupy.cuda.alloc_pinned_memory(size)
        self._numbers = np.frombuffer(self._memory, np.int64, len(_FIELDS))
        self._numbers[...] = 0
        self.address: int = self._memory.ptr

    def take(self) -> tuple[int, int] | None:
        """Returns the number of the source, and the id; afterwards there is room for the next fault."""
        if not self._numbers[0]:
            return None
        _, source, value = self._numbers.tolist()
        self._numbers[0] = 0
        return source, value


@functools.cache
def _record() -> _Record:
    return _Record()


# What faults are told by: numbers on the GPU. There are as many as there are different texts of errors.
_numbers: dict[IdSource, int] = {}
_sources: list[IdSource] = []


def _shared(device: int, stream: int) -> Any:
    """What the blocks of a check share: for each stream its own, because two streams run at the same time."""
    # The stream that each thread has for itself has one address for all of them.
    of_thread = stream == cupy.cuda.Stream.ptds.ptr
    return _shared_of(device, stream, threading.get_ident() if of_thread else 0)


@functools.cache
def _shared_of(device: int, stream: int, thread: int) -> Any:  # noqa: ARG001
    with cupy.cuda.using_allocator(None):  # of no pool: a graph's is gone one day
        made = cupy.empty(len(_SHARED), np.int64)
    for k, value in enumerate(_SHARED):
        made[k : k + 1].fill(value)
    return made


def prepare() -> None:
    """Sets up what checks on the current stream need, which has to be there before the stream is captured."""
    _record()
    _shared(device=cupy.cuda.Device().id, stream=current_stream())


def check(ids: Any, *, upper: int | None, ignore_index: int | None, source: IdSource) -> IntArray:
    number = _numbers.get(source)
    if number is None:
        number = _numbers[source] = len(_sources)
        _sources.append(source)
    with device_of(ids):
        checked = cupy.empty(ids.shape, ids.dtype)
        place = call_on(ids)
        _cuda.check_ids(
            ids=address(ids),
            checked=address(checked),
            wide=ids.itemsize == 8,
            count=ids.size,
            upper=upper,
            ignore_index=ignore_index,
            source=number,
            shared=address(_shared(**place)),
            fault=_record().address,
            **place,
        )
    result: IntArray = checked
    return result


def raise_fault() -> None:
    taken = _record().take()
    if taken is not None:
        number, value = taken
        raise _sources[number].error(value)
