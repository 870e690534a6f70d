"""Capture of what is given to one stream, and its replay: CUDA graphs, through CuPy.

What a graph's kernels read and write stays where it was when they were captured. So the work runs a few times first, on
the stream and with the memory of the capture: then CuPy has compiled its kernels, the pool has what the work needs, and
cuBLAS its workspace. The pool belongs to the graph: nothing else takes memory from it once it has been captured.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cupy
import numpy as np

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda import cublas, ids
from fastlstm.backends.cuda.calls import address, call_on


class Capture:
    """A graph of a piece of work, on the device that is current when this is made.

    The caller's current stream waits for what `eagerly` runs, and is the one that `replay` launches on. The memory of a
    graph goes with it: synchronise before you drop one that may still run.
    """

    def __init__(self) -> None:
        self._device = cupy.cuda.Device()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._memory = _Memory()
        self._pool = cupy.cuda.MemoryPool(self._memory.allocate)
        cublas.look_again()
        self._workspace = None if cublas.why_not() else cublas.new_workspace()
        self._graph: Any = None
        weakref.finalize(self, _give_back, self._device, self._pool).atexit = False
        with self._device, self._stream:
            ids.prepare()

    @contextlib.contextmanager
    def eagerly(self) -> Iterator[None]:
        """Runs what is inside the block at once, where the graph will run, after what the caller's stream has to do."""
        caller = cupy.cuda.get_current_stream()
        self._stream.wait_event(caller.record(_event()))
        with self._where_it_runs():
            yield
        caller.wait_event(self._stream.record(_event()))

    def capture(self, work: Callable[[], None]) -> None:
        """Makes a graph of what work() does, which does not run. All that work() raises comes through."""
        self._memory.ran_out = False
        with self._where_it_runs():
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                # A capture that CUDA has found wanting ends with an error of its own, which says less.
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        if self._memory.ran_out:
            # CuPy then gives back what is free at the moment, and tries again; the graph may use what it gave back.
            raise MemoryError("GPU memory ran out while work was captured")
        self._graph = graph

    @property
    def is_captured(self) -> bool:
        return self._graph is not None

    def replay(self) -> None:
        """Runs the work on the caller's current stream, without synchronising."""
        self._graph.launch(cupy.cuda.get_current_stream())

    @contextlib.contextmanager
    def _where_it_runs(self) -> Iterator[None]:
        with self._device, self._stream, cupy.cuda.using_allocator(self._pool.malloc), contextlib.ExitStack() as stack:
            if self._workspace is not None:
                stack.enter_context(cublas.workspace_of(self._device.id, self._workspace))
            yield


class _Memory:
    """Where the pool of a capture has its memory from: the driver, as CuPy's own pools."""

    def __init__(self) -> None:
        self.ran_out = False

    def allocate(self, size: int) -> Any:
        try:
            return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
        except cupy.cuda.runtime.CUDARuntimeError:
            self.ran_out = True
            raise


def bypassed_allocator() -> str | None:
    """The name of an allocator that somebody has set, from which graphs do not take their memory; None if it is CuPy's.

    What a graph uses has to stay its own as long as it lives, which pools such as RMM's know nothing of.
    """
    allocator = cupy.cuda.get_allocator()
    owner = getattr(allocator, "__self__", None)
    if isinstance(owner, cupy.cuda.MemoryPool):
        return None
    return f"{getattr(allocator, '__module__', None)}.{getattr(allocator, '__qualname__', allocator)}"


# Devices and pools of captures that are gone, in whose memory something still lives.
_kept: list[tuple[Any, Any]] = []


def _give_back(device: Any, pool: Any) -> None:
    """Frees a pool's memory, but for what is in use, such as a carried state: CuPy 13 would free that with the pool."""
    kept = [*_kept, (device, pool)]
    for one in kept:
        with one[0]:
            one[1].free_all_blocks()
    _kept[:] = [one for one in kept if _is_used(*one)]


def _is_used(device: Any, pool: Any) -> bool:
    with device:
        used: int = pool.used_bytes()
    return used > 0


def _event() -> Any:
    return cupy.cuda.Event(disable_timing=True)


class GraphScalars:
    """Scalars of the host's that a graph reads on the device: 64 bits each, written by a launch before the graph's.

    Attributes
    ----------
    floats, whole : (count,) float64 and uint64 arrays
        The same memory.
    """

    def __init__(self, count: int) -> None:
        self.whole: Any = cupy.zeros(count, np.uint64)
        self.floats: Any = self.whole.view(np.float64)

    def store(self, bits: list[int]) -> None:
        """Writes the first scalars, on the caller's current stream, without copying from memory or synchronising."""
        _cuda.store_scalars(target=address(self.whole), values=bits, **call_on(self.whole))
