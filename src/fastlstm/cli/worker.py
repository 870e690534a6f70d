"""Which of the processes of a training this one is: the first one alone makes and writes files, draws and prints."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm.distributed import Alone, Workers, mpi
from fastlstm.distributed.workers import gather_bytes

_workers: Workers = Alone()


def start(kind: str | None, threads: int | None) -> Workers:
    """Meet the other processes: those of "mpi", or none. All but the first one print nothing from then on.

    Without a number of ``threads`` those on one machine share its cores.
    """
    global _workers
    if kind == "mpi":
        _workers = mpi()
    if threads is None and _workers.size > 1:
        here = _share(socket.gethostname())
        fastlstm.set_num_threads(max(1, fastlstm.get_num_threads() // here.count(here[_workers.rank])))
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    return _workers


def workers() -> Workers:
    """All processes of this training."""
    return _workers


def is_first() -> bool:
    """Whether this one writes the files."""
    return _workers.rank == 0


@contextlib.contextmanager
def in_folder(make: AbstractContextManager[Path]) -> Iterator[Path]:
    """The folder of a run, which the first one makes."""
    if is_first():
        with make as folder:
            _share(str(folder))
            yield folder
    else:
        yield Path(_share("")[0])


def end_all_after_a_mistake(code: int) -> None:
    """Others would wait for ever for one that has told of a mistake."""
    if _workers.size > 1:
        _workers.stop(code)


def _share(text: str) -> list[str]:
    """What each one has."""
    return [part.tobytes().decode() for part in gather_bytes(_workers, np.frombuffer(text.encode(), np.uint8))]
