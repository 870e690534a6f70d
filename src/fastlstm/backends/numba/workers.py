"""A few threads that run kernels side by side.

Not Numba's parallel=True: its default threading layer aborts the process when two Python threads enter it at once, and
hangs after a fork. Kernels here release the GIL, so ordinary threads serve; they sleep when idle, any number of Python
threads may call, and a forked child starts its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from fastlstm.backends.threads import get_num_threads, run_on_all_processors

# Multiply-adds, or as much other arithmetic, below which handing work to a thread costs more than it saves.
_WORTH_A_THREAD = 4_000_000

_Task = Callable[[], None]


class _Workers:
    """Threads that take tasks from one queue. A task never waits for another, so the queue always drains."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[_Task, SimpleQueue[BaseException | None]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0

    def run(self, tasks: Sequence[_Task]) -> None:
        self._start(len(tasks) - 1)
        done: SimpleQueue[BaseException | None] = SimpleQueue()
        for task in tasks[1:]:
            self._queue.put((task, done))
        try:
            tasks[0]()
        finally:
            errors = [done.get() for _ in tasks[1:]]
        for error in errors:
            if error is not None:
                raise error

    def _start(self, count: int) -> None:
        if self._started < count:
            with self._lock:
                while self._started < count:
                    threading.Thread(target=self._serve, name="fastlstm-numba", daemon=True).start()
                    self._started += 1

    def _serve(self) -> None:
        run_on_all_processors()
        while True:
            task, done = self._queue.get()
            try:
                task()
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)
            del task, done  # an idle thread must not keep a call's arrays alive


_workers = _Workers()


def _forget_workers() -> None:
    """A forked child has none of its parent's threads."""
    global _workers
    _workers = _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


def over_blocks(work: Callable[[int, int], None], count: int, operations: int, *, multiple: int = 1) -> None:
    """Call work(first, last) on blocks that cover range(count), on several threads if that pays.

    Parameters
    ----------
    work : callable
        Computes the outputs first to last - 1, each in the same way whatever the block it is in.
    count : int
        How many outputs there are; with 0 nothing is called.
    operations : int
        How much arithmetic all of it is, to choose the number of blocks.
    multiple : int
        Blocks start at multiples of this.
    """
    if count <= 0:
        return
    units = -(-count // multiple)
    parts = min(get_num_threads(), units, 1 + operations // _WORTH_A_THREAD)
    bounds = [min(count, part * units // parts * multiple) for part in range(parts + 1)]
    if parts == 1:
        work(0, count)
        return

    def task(first: int, last: int) -> _Task:
        return lambda: work(first, last)

    _workers.run([task(first, last) for first, last in zip(bounds, bounds[1:], strict=False)])
