"""Workers that are threads of one process: what tests of many of them need no MPI for. They count what they send."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from fastlstm.contract import Array
from fastlstm.distributed import Workers

Result = TypeVar("Result")


class ThreadWorkers(Workers):
    """One of them; barrier and places are shared by all."""

    def __init__(self, rank: int, barrier: threading.Barrier, places: list[Any]) -> None:
        self.rank, self.size = rank, len(places)
        self._barrier, self._places = barrier, places
        self.bytes_sent = 0

    def exchange(self, sent: Sequence[Array], received: Sequence[Array]) -> None:
        self.bytes_sent += sum(part.nbytes for r, part in enumerate(sent) if r != self.rank)
        for r, theirs in enumerate(self._all(sent)):
            if r != self.rank:
                assert (theirs[self.rank].shape, theirs[self.rank].dtype) == (received[r].shape, received[r].dtype)
                received[r][...] = theirs[self.rank]
        self._barrier.wait()

    def gather(self, whole: Array, sizes: Sequence[int]) -> None:
        starts = [sum(sizes[:r]) for r in range(self.size + 1)]
        assert starts[-1] == len(whole)
        mine = slice(starts[self.rank], starts[self.rank + 1])
        # In a ring, every worker passes on all but the part of the one after it.
        self.bytes_sent += (len(whole) - sizes[(self.rank + 1) % self.size]) * whole.itemsize
        for r, part in enumerate(self._all(whole[mine].copy())):
            whole[starts[r] : starts[r + 1]] = part
        self._barrier.wait()

    def stop(self, code: int) -> NoReturn:
        sys.exit(code)

    def _all(self, mine: Any) -> list[Any]:
        """What all have put into their places; until the barrier is passed again, nobody puts anything else there."""
        self._places[self.rank] = mine
        self._barrier.wait()
        return list(self._places)


def on_workers(n: int, work: Callable[[ThreadWorkers], Result]) -> list[Result]:
    """What ``work`` returns on each of n workers; raises what the first one raises that does."""
    barrier, places = threading.Barrier(n), [None] * n
    results: list[Any] = [None] * n
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorkers(rank, barrier, places))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert not errors
    return results
