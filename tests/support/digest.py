"""A fingerprint of every bit the kernels compute, and programs that take it in other processes.

``python digest.py fork`` prints the fingerprints of a process and of its children, made in the way of that name.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

import cases
import numpy as np

import fastlstm
from fastlstm.testing import Case, run_case


def of_results(results: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in results.items():
        digest.update(name.encode())
        digest.update(np.asarray(value).tobytes())
    return digest.hexdigest()


def of_cases(some: Iterable[Case]) -> dict[str, str]:
    """A fingerprint for each case in float32, by its name."""
    return {str(case): of_results(run_case(case.cast("float32"))) for case in some}


def of_all(_: int = 0) -> str:
    """One fingerprint of ``cases.SOME``; takes and ignores an argument so that a pool can map it."""
    return hashlib.sha256(repr(of_cases(cases.SOME)).encode()).hexdigest()


def _in_forked_child() -> str:
    """Fork while the kernels' threads exist; the child computes and sends its fingerprint through a pipe."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, of_all().encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else f"the child ended with status {status}"


def _compute_until(stop: threading.Event) -> None:
    while not stop.is_set():
        of_all()


def main(way: str) -> None:
    if fastlstm.get_backend() == "cpp":
        importlib.import_module("fastlstm._cpu").set_teams_always(True)
    fastlstm.set_num_threads(2)
    print(of_all())
    if way == "fork":
        print(_in_forked_child())
        print(_in_forked_child())
    elif way == "fork-while-others-compute":
        stop = threading.Event()
        others = [threading.Thread(target=_compute_until, args=(stop,)) for _ in range(2)]
        for other in others:
            other.start()
        print(*(_in_forked_child() for _ in range(5)), sep="\n")
        stop.set()
        for other in others:
            other.join()
    elif way.startswith("pool-"):
        with multiprocessing.get_context(way.removeprefix("pool-")).Pool(2) as pool:
            print(*pool.map(of_all, range(3)), sep="\n")
    print(of_all())


if __name__ == "__main__":
    main(sys.argv[1])
