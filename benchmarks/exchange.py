"""The sum of gradients between workers, without a training: bytes and seconds, beside what a simple model says.

``mpiexec -n 2 python -m benchmarks.exchange``; between two hosts of one machine: ``benchmarks/two_hosts.sh``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import distributed
from fastlstm.contract import RowGrad
from fastlstm.distributed.gradients import GradientSum, GradPrecision

# Float32 numbers; rows of 128.
CASES = {
    "0.9 MB": lambda _: [np.ones(225_000, np.float32)],
    "10 MB": lambda _: [np.ones(2_500_000, np.float32)],
    "79 MB": lambda _: [np.ones(19_775_200, np.float32)],
    "2 x 10,000 rows of 128": lambda rank: [_rows(10_000, rank), _rows(10_000, 2 + rank)],
}
PRECISIONS: tuple[GradPrecision | None, ...] = (None, "bf16")


def _rows(count: int, seed: int) -> RowGrad:
    ids = np.sort(np.random.default_rng(seed).choice(1_000_000, count, replace=False))
    return RowGrad(ids, np.ones((count, 128), np.float32))


def sent_bytes() -> int:
    """What has left this host through any interface but the loopback."""
    lines = (line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:])
    return sum(int(numbers.split()[8]) for name, numbers in lines if name.strip() != "lo")


def num_bytes(grads: Sequence[Any], precision: GradPrecision | None) -> int:
    """Of arrays, and of ids and values of gradients by rows, as they travel."""
    arrays = (array for grad in grads for array in (grad if isinstance(grad, RowGrad) else [grad]))
    return sum(array.nbytes // (2 if precision and array.dtype == np.float32 else 1) for array in arrays)


def timed(comm: Any, work: Callable[[], Any], steps: int) -> tuple[float, float]:
    """The median of the seconds, and the bytes a step."""
    work()
    seconds = []
    comm.Barrier()
    before = sent_bytes()
    for _ in range(steps):
        since = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - since)
    comm.Barrier()
    return statistics.median(seconds), (sent_bytes() - before) / steps


def main() -> None:
    from mpi4py import MPI

    comm, workers = MPI.COMM_WORLD, distributed.mpi()
    n = workers.size
    small, large = np.zeros(n, np.uint8), np.zeros(n * 8_000_000, np.uint8)
    latency, _ = timed(comm, lambda: workers.gather(small, [1] * n), 200)
    gathered, _ = timed(comm, lambda: workers.gather(large, [8_000_000] * n), 5)
    bandwidth = (n - 1) * 8_000_000 / (gathered - latency)
    if workers.rank == 0:
        print(f"{n} workers: a small message to all {1e3 * latency:.3f} ms, {8e-9 * bandwidth:.2f} Gbit/s each way")
    for (name, make), precision in product(CASES.items(), PRECISIONS):
        grads = make(workers.rank)
        sum_of = GradientSum(workers, n, precision)
        seconds, sent = timed(comm, lambda s=sum_of, g=grads: s([g]), 7)  # type: ignore[misc]
        # To each owner a part of what one has, and to all a part of the sum; of rows the numbers go ahead.
        owed = (n - 1) / n * (num_bytes(grads, precision) + num_bytes(sum_of([grads]), precision))
        messages = 2 if isinstance(grads[0], np.ndarray) else 5
        if workers.rank == 0:
            said = messages * latency + owed / bandwidth
            print(
                f"{name:24} {precision or 'exact':5} {1e3 * seconds:8.1f} ms "
                f"(latency and bandwidth say {1e3 * said:8.1f}), sent {sent / 1e6:7.2f} MB, "
                f"{sent / owed:.3f} of what the sum has to send"
            )


if __name__ == "__main__":
    main()
