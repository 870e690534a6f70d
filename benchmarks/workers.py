"""Two workers of one thread beside one worker of two threads: ``mpiexec -n 2 python -m benchmarks.workers``.

Both train the same model in the same process: they take turns, a few steps each, and the second worker sleeps while the
first one trains alone. Prints medians, their ratio, and what a shard more costs one worker.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import fastlstm
from fastlstm import distributed
from fastlstm.callbacks import Callback
from fastlstm.distributed import Workers
from fastlstm.models import RNNLM, Model, Seq2seq

STEPS = 4  # a turn's, the first of which is not timed


def rnnlm() -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    corpus = np.random.default_rng(0).integers(0, 10_000, 40 * 35 * STEPS + 1)
    model = RNNLM(10_000, 650, 650, num_layers=2, dropout=0.5, seed=0)
    return model, (corpus,), {"batch_size": 40, "time_size": 35, "optimizer": "sgd", "max_grad": 5.0}


def translation() -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng(0)
    xs, ts = rng.integers(3, 8000, (64 * STEPS, 20)), rng.integers(3, 8000, (64 * STEPS, 20))
    model = Seq2seq(8000, 256, 512, attention=True, bidirectional=True, pad_id=0, seed=0)
    return model, (xs, ts), {"batch_size": 64, "optimizer": "adam", "max_grad": 5.0}


def addition() -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng(0)
    xs, ts = rng.integers(0, 13, (512 * STEPS, 7)), rng.integers(0, 13, (512 * STEPS, 5))
    model = Seq2seq(13, 16, 128, peeky=True, reverse_source=True, seed=0)
    return model, (xs, ts), {"batch_size": 512, "optimizer": "adam", "max_grad": 5.0}


CASES: Mapping[str, Callable[[], tuple[Model, tuple[Any, ...], dict[str, Any]]]] = {
    "rnnlm, 2 x 650, N 40": rnnlm,
    "translation, H 512, N 64": translation,
    "addition, H 128, N 512": addition,
}


class Clock(Callback):
    """Seconds of every batch but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._since = 0.0

    def on_train_batch_end(self, batch: int, logs: Any) -> None:  # noqa: ARG002
        now = time.perf_counter()
        if batch:
            self.seconds.append(now - self._since)
        self._since = now


def turn(case: Any, workers: Workers | None, shards: int, threads: int) -> list[float]:
    """The seconds of some steps."""
    model, data, arguments = case
    fastlstm.set_num_threads(threads)
    clock = Clock()
    model.fit(*data, **arguments, epochs=1, callbacks=[clock], workers=workers, shards=shards, verbose=0)
    return clock.seconds


def sleep_until_all_are_here(comm: Any) -> None:
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.001)


def main() -> None:
    from mpi4py import MPI

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--shards", type=int, nargs="*", default=[4, 8], help="of one worker, beside 2")
    options = parser.parse_args()
    workers, comm = distributed.mpi(), MPI.COMM_WORLD
    for name, make in CASES.items():
        seconds: dict[str, list[float]] = {}
        # Both have the same weights before each shared turn: the first one does not train them in its own.
        together, alone = make(), make()
        for _ in range(options.turns):
            seconds.setdefault("2 workers, 2 shards", []).extend(turn(together, workers, 2, 1))
            sleep_until_all_are_here(comm)
            if workers.rank == 0:
                seconds.setdefault("alone, 2 threads", []).extend(turn(alone, None, 1, 2))
                for shards in options.shards and [2, *options.shards]:
                    seconds.setdefault(f"alone, {shards} shards", []).extend(turn(alone, None, shards, 2))
            sleep_until_all_are_here(comm)
        if workers.rank == 0:
            one = statistics.median(seconds["alone, 2 threads"])
            print(f"{name}: {sum(param.nbytes for param in alone[0].params) / 1e6:.1f} MB of gradients")
            for what, of_what in seconds.items():
                median = statistics.median(of_what)
                print(f"  {what:20}  {1e3 * median:8.1f} ms a step, {one / median:.2f} of the speed alone", flush=True)


if __name__ == "__main__":
    main()
