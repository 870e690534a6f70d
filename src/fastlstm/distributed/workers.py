"""The processes that train a model together: what is asked of them, one that is alone, and what they agree on."""

from __future__ import annotations

import abc
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from fastlstm.contract import Array
from fastlstm.distributed.shards import shards_of
from fastlstm.ops import checks, scalars


class Workers(abc.ABC):
    """Processes that run one program, each on its part of the data.

    A kind of workers has five things: rank, size, exchange, gather and stop. All workers call `exchange` and `gather`
    in the same order.

    Attributes
    ----------
    rank : int
        This worker's number, from 0. Number 0 writes the files and shows the progress.
    size : int
        How many workers there are.
    overlaps : bool
        Whether `exchange` and `gather` may run in a thread beside the computation, one call at a time, and are worth
        it. False unless a kind of workers says otherwise.
    """

    rank: int
    size: int
    overlaps: bool = False

    @abc.abstractmethod
    def exchange(self, sent: Sequence[Array], received: Sequence[Array]) -> None:
        """Send each worker an array and receive one of each.

        Parameters
        ----------
        sent, received : sequences of contiguous arrays, one a worker
            ``sent[r]`` goes to worker r, and what worker r has sent here is written into ``received[r]``, which has its
            size and dtype. Those of this worker itself are neither read nor written.
        """

    @abc.abstractmethod
    def gather(self, whole: Array, sizes: Sequence[int]) -> None:
        """Fill an array of which each worker has a part: afterwards all workers have all of it.

        Parameters
        ----------
        whole : (sum of sizes,) array, contiguous
            The workers' parts one after the other; this worker's is in its place already.
        sizes : sequence of int, one a worker
        """

    @abc.abstractmethod
    def stop(self, code: int) -> NoReturn:
        """End all workers at once, with this exit status."""

    def shards_of_mine(self, shards: int) -> range:
        """The shards that this worker computes.

        Raises
        ------
        ValueError
            There are more workers than shards.
        """
        shards = scalars.integer("shards", shards, 1)
        if shards < self.size:
            raise ValueError(
                f"shards is {shards}, but there are {self.size} workers, so that some would have none; the number of "
                "shards belongs to the training and fixes its bits: give at least as many as you will ever have workers"
            )
        return shards_of(self.rank, self.size, shards)


class Alone(Workers):
    """One worker, without others: nothing to exchange."""

    rank = 0
    size = 1

    def exchange(self, sent: Sequence[Array], received: Sequence[Array]) -> None:
        """Nothing to do."""

    def gather(self, whole: Array, sizes: Sequence[int]) -> None:
        """Nothing to do."""

    def stop(self, code: int) -> NoReturn:
        sys.exit(code)


def checked_workers(workers: Workers | None) -> Workers:
    """The workers, or one alone for None."""
    if workers is None:
        return Alone()
    if not isinstance(workers, Workers):
        raise TypeError(
            f"workers is {checks.describe(workers)}, expected what fastlstm.distributed.mpi() returns, or None for one "
            "alone"
        )
    return workers


def any_of(workers: Workers, *flags: bool) -> list[bool]:
    """For each flag, whether it is set on any of the workers. No worker goes on before all are there."""
    if workers.size == 1:
        return list(flags)
    all_flags = np.zeros((workers.size, len(flags)), np.uint8)
    all_flags[workers.rank] = flags
    workers.gather(all_flags.reshape(-1), [len(flags)] * workers.size)
    return [bool(flag.any()) for flag in all_flags.T]


def wait_for_all(workers: Workers) -> None:
    """Go on when all workers are here."""
    any_of(workers, False)


def gather_bytes(workers: Workers, part: Array) -> list[Array]:
    """What each worker has, uint8 arrays of any sizes."""
    sizes = np.zeros(workers.size, np.int64)
    sizes[workers.rank] = part.size
    workers.gather(sizes, [1] * workers.size)
    ends = sizes.cumsum()
    whole = np.empty(int(ends[-1]), np.uint8)
    parts = np.split(whole, ends[:-1])
    parts[workers.rank][...] = part
    workers.gather(whole, sizes.tolist())
    return parts


def check_same(workers: Workers, describe: Callable[[], Mapping[str, Any]]) -> None:
    """Raise, on all workers, unless all describe the same; what JSON does not hold is compared as text."""
    if workers.size == 1:
        return
    text = json.dumps(describe(), default=str)
    texts = gather_bytes(workers, np.frombuffer(text.encode(), np.uint8))
    first, *others = (json.loads(part.tobytes()) for part in texts)
    for rank, other in enumerate(others, 1):
        for name in {**first, **other}:
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"the workers differ: {name} is {first.get(name)} on worker 0 and {other.get(name)} on worker "
                    f"{rank}. All have to train the same model, made with one seed, on the same data with the same "
                    "versions of everything"
                )
