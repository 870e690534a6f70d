"""Everything again and again for some minutes: the memory stays what it is.

``python -m tests.fuzz.soak --minutes 30`` trains, saves and loads small models in several threads, forks now and then,
and prints the resident memory once a minute. The exit code is 1 if the last quarter of the time needs over 3 % and
4 MiB more than the quarter after the first.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastlstm
from fastlstm import ops
from fastlstm.callbacks import BackupAndRestore
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier, Word2Vec

IDS = np.arange(600) % 11
LIBC = ctypes.CDLL(None)


def rnnlm(folder: Path) -> None:
    model = RNNLM(11, 8, 8, num_layers=2, dropout=0.2, tie_weights=True, seed=1)
    backup = BackupAndRestore(folder / "checkpoint.safetensors")
    model.fit(IDS, epochs=2, batch_size=4, time_size=5, callbacks=[backup], verbose=0)
    model.save(folder / "model.safetensors")
    RNNLM.load(folder / "model.safetensors").generate([1], 20)


def word2vec(_: Path) -> None:
    Word2Vec(11, 8, num_sampled=4, seed=1).fit(IDS, epochs=1, batch_size=64, subsample=None, verbose=0)


def classifier(_: Path) -> None:
    model = SequenceClassifier(11, 8, 8, 3, seed=1)
    model.fit(IDS.reshape(60, 10), IDS[:60] % 3, epochs=1, batch_size=8, verbose=0)
    model.predict(IDS.reshape(60, 10))


def seq2seq(_: Path) -> None:
    model = Seq2seq(11, 8, 8, attention=True, seed=1)
    model.fit(IDS[:300].reshape(60, 5), IDS[:240].reshape(60, 4), epochs=1, batch_size=8, verbose=0)


def operators(_: Path) -> None:
    rng = np.random.default_rng()
    N, T, H = (int(n) for n in rng.integers(1, 40, 3))
    xs, W = rng.standard_normal((N, T, H), np.float32), rng.standard_normal((H, 4 * H), np.float32)
    forward = ops.lstm_forward(xs, W, W, None)
    ops.lstm_backward(forward.hs, forward.tape)
    ops.linear_cross_entropy(xs[:, 0], W, None, rng.integers(0, 4 * H, N))


def fork(_: Path) -> None:
    child = os.fork()
    if child == 0:
        operators(_)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a forked child failed")


def give_back() -> None:
    """What nobody uses, to the system: objects in cycles, buffers of the kernels, free parts of the heap."""
    gc.collect()
    if fastlstm.get_backend() == "cpp":
        importlib.import_module("fastlstm._cpu").free_unused_buffers()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    fastlstm.set_num_threads(2)
    begin, calls = time.monotonic(), [0]
    faults: list[BaseException] = []
    end = begin + 60 * args.minutes

    def again(work: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            while time.monotonic() < end and not faults:
                try:
                    work(Path(folder))
                except BaseException as error:
                    faults.append(error)
                    raise
                calls[0] += 1

    works = (rnnlm, word2vec, classifier, seq2seq, operators)
    with tempfile.TemporaryDirectory() as folder:
        for work in works:  # imports, too: a child forked while another thread imports waits for Python's lock of it
            work(Path(folder))
    threads = [threading.Thread(target=again, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    told = begin
    while time.monotonic() < end and not faults:
        fork(Path())
        time.sleep(args.minutes / 10)
        give_back()
        seen.append(resident())
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(
                f"{(told - begin) / 60:4.0f} min  {seen[-1] / 2**20:6.1f} MiB  {calls[0]:,} trainings and calls",
                flush=True,
            )
    for thread in threads:
        thread.join()
    quarter = len(seen) // 4
    early, late = max(seen[quarter : 2 * quarter]), max(seen[-quarter:])
    print(f"{calls[0]:,} trainings and calls, {len(seen)} forks; {early / 2**20:.1f} MiB, then {late / 2**20:.1f} MiB")
    return 1 if faults or late > max(1.03 * early, early + (4 << 20)) else 0


if __name__ == "__main__":
    sys.exit(main())
