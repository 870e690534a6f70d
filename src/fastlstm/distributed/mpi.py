"""Workers that are the processes of an MPI program, through mpi4py."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from fastlstm.contract import Array, BackendNotAvailable
from fastlstm.distributed.workers import Alone, Workers

# In which a line of 10 Gbit/s carries less than the kernel holds ready for it.
SECONDS_BETWEEN_CALLS = 1e-4


def mpi(comm: Any = None) -> Workers:
    """The processes that ``mpiexec -n`` has started.

    An error that nobody catches ends all of them from then on, with its message and exit status 1: otherwise the others
    would wait for ever.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The processes that train together, all unless given. All of them make this call.

    Returns
    -------
    Workers
        One alone where the program has one process only.

    Raises
    ------
    BackendNotAvailable
        mpi4py or an MPI library is not installed.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise BackendNotAvailable(
            f"training on several processes needs mpi4py and an MPI library ({str(error).splitlines()[0]}): "
            'pip install "fastlstm[mpi]"'
        ) from None
    comm = MPI.COMM_WORLD if comm is None else comm
    if comm.Get_size() == 1:
        return Alone()
    workers = _MPIWorkers(comm.Dup())  # so that its messages and the program's own are never taken for each other
    _stop_all_after_an_error(workers)
    return workers


class _MPIWorkers(Workers):
    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm = comm
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        # Within one machine it is the processors that carry the gradients, and they have no time to spare.
        here = comm.Split_type(MPI.COMM_TYPE_SHARED)
        overlaps = np.array([here.Get_size() < self.size and MPI.Query_thread() >= MPI.THREAD_SERIALIZED])
        here.Free()
        comm.Allreduce(MPI.IN_PLACE, overlaps, MPI.LAND)
        self.overlaps = bool(overlaps[0])

    def exchange(self, sent: Sequence[Array], received: Sequence[Array]) -> None:
        # Each worker begins with the one after it, so that they do not all send to the same one at first.
        others = [(self.rank + k) % self.size for k in range(1, self.size)]
        requests = [self._comm.Irecv(received[r], r) for r in reversed(others) if received[r].size]
        requests += [self._comm.Isend(sent[r], r) for r in others if sent[r].size]
        _wait(requests)

    def gather(self, whole: Array, sizes: Sequence[int]) -> None:
        from mpi4py import MPI

        if self.overlaps:  # in whichever thread: the two kinds of calls do not go together
            _wait([self._comm.Iallgatherv(MPI.IN_PLACE, [whole, sizes])])
        else:
            self._comm.Allgatherv(MPI.IN_PLACE, [whole, sizes])

    def stop(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(code)
        raise AssertionError("MPI has ended this process")


def _wait(requests: list[Any]) -> None:
    """Until all are done. MPI moves on within its calls only, and a call that waits keeps a core busy.

    A thread beside the one that computes must not do that: it asks now and then.
    """
    from mpi4py import MPI

    if threading.current_thread() is threading.main_thread():
        MPI.Request.Waitall(requests)
    else:
        while not MPI.Request.Testall(requests):
            time.sleep(SECONDS_BETWEEN_CALLS)


def _stop_all_after_an_error(workers: Workers) -> None:
    show = sys.excepthook

    def show_and_stop(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        show(kind, error, trace)
        # Ctrl-C reaches all workers, and each ends by itself.
        if not issubclass(kind, KeyboardInterrupt):
            print(f"worker {workers.rank} ends all {workers.size} after this error", file=sys.stderr)
            workers.stop(1)

    sys.excepthook = show_and_stop
