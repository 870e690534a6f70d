"""Steps of two hosts with gradients that travel after the way back, beside it, and as bfloat16; in turns.

``benchmarks/two_hosts.sh 1gbit 0.2ms benchmarks.overlap``, or ``mpiexec -n 2 python -m benchmarks.overlap`` within one.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np

import fastlstm
from benchmarks.workers import CASES, STEPS, Clock
from fastlstm import distributed
from fastlstm.models import RNNLM, Model


def small() -> tuple[Model, tuple[Any, ...], dict[str, Any]]:
    corpus = np.random.default_rng(0).integers(0, 5000, 40 * 20 * STEPS + 1)
    model = RNNLM(5000, 256, 256, num_layers=2, seed=0)
    return model, (corpus,), {"batch_size": 40, "time_size": 20, "optimizer": "sgd", "max_grad": 5.0}


ALL_CASES = {**CASES, "rnnlm, 2 x 256, N 40": small}

WAYS: dict[str, tuple[bool, dict[str, Any]]] = {
    "afterwards": (False, {}),
    "meanwhile": (True, {}),
    "afterwards, bf16": (False, {"grad_precision": "bf16"}),
    "meanwhile, bf16": (True, {"grad_precision": "bf16"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(ALL_CASES))), help="numbers, from 0")
    options = parser.parse_args()
    workers = distributed.mpi()
    fastlstm.set_num_threads(1)
    for name in [list(ALL_CASES)[case] for case in options.cases]:
        model, data, arguments = ALL_CASES[name]()
        seconds: dict[str, list[float]] = {}
        for _ in range(options.turns):
            for way, (workers.overlaps, rounded) in WAYS.items():
                clock = Clock()
                shared = {"workers": workers, "shards": workers.size, **rounded}
                model.fit(*data, **arguments, epochs=1, callbacks=[clock], verbose=0, **shared)
                seconds.setdefault(way, []).extend(clock.seconds)
        if workers.rank == 0:
            print(f"{name}: {sum(param.nbytes for param in model.params) / 1e6:.1f} MB of gradients")
            for way, of_way in seconds.items():
                median, shortest = 1e3 * statistics.median(of_way), 1e3 * min(of_way)
                print(f"  {way:18} {median:8.1f} ms a step, the shortest {shortest:8.1f}", flush=True)


if __name__ == "__main__":
    main()
