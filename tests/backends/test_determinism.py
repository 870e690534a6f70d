"""Same inputs, same bits: for any number of threads, run, thread of Python and process; tapes are independent."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cases
import digest
import numpy as np
import pytest
import recurrent_cases

import fastlstm
from fastlstm import ops, use_backend
from fastlstm.testing import Case, run_case

LSTM_CASES = [case for case in cases.SOME if case.op == "lstm_forward"]
GATED_CASES = [*LSTM_CASES, *(case for case in cases.SOME if case.op == "gru_forward")]

HERE = Path(__file__).parent


def run_digest(way: str, backend: str, **environment: str) -> list[str]:
    """Fingerprints that ``digest.py`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE.parent / "support" / "digest.py"), way],
        env={**os.environ, "FASTLSTM_BACKEND": backend, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("case", [*cases.ALL, *cases.BF16, *recurrent_cases.RECURRENT_BF16], ids=str)
def test_any_number_of_threads_gives_the_same_bits(compiled_backend: str, case: Case) -> None:
    with use_backend(compiled_backend):
        found = []
        for threads in (1, 2, 3, 8, 1, 8):
            fastlstm.set_num_threads(threads)
            found.append(digest.of_results(run_case(case.cast("float32"))))
    assert len(set(found)) == 1


def test_several_python_threads_at_once_get_the_same_bits(compiled_backend: str) -> None:
    with use_backend(compiled_backend):
        alone = digest.of_cases(cases.SOME)
    start = threading.Barrier(8)

    def work(turn: int) -> dict[str, str]:
        # The choice of a backend is a thread's own.
        with use_backend(compiled_backend):
            start.wait()
            # Each thread begins elsewhere, so that different operators meet.
            at = turn * len(cases.SOME) // 8
            return digest.of_cases([*cases.SOME[at:], *cases.SOME[:at]])

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            assert found == alone


def test_an_event_loop_goes_on_while_its_threads_compute_the_same_bits(compiled_backend: str) -> None:
    with use_backend(compiled_backend):
        alone = digest.of_cases(cases.SOME)

    def work() -> dict[str, str]:
        with use_backend(compiled_backend):
            return digest.of_cases(cases.SOME)

    async def main() -> int:
        calls = asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
        turns = 0
        while not calls.done():
            await asyncio.sleep(0)
            turns += 1
        assert await calls == [alone] * 4
        return turns

    assert asyncio.run(main()) > 10


def test_changing_the_number_of_threads_while_others_compute(compiled_backend: str) -> None:
    case = next(case for case in LSTM_CASES if case.name == "addition").cast("float32")
    stop = threading.Event()

    def change() -> None:
        n = 1
        while not stop.is_set():
            n = n % 4 + 1
            fastlstm.set_num_threads(n)
            time.sleep(0.001)

    with use_backend(compiled_backend):
        alone = digest.of_results(run_case(case))
        changer = threading.Thread(target=change)
        changer.start()
        try:
            found = {digest.of_results(run_case(case)) for _ in range(20)}
        finally:
            stop.set()
            changer.join()
    assert found == {alone}


def test_a_fresh_process_with_another_number_of_threads_gives_the_same_bits(compiled_backend: str) -> None:
    with use_backend(compiled_backend):
        here = digest.of_all()
    for threads in ("1", "3"):
        assert set(run_digest("alone", compiled_backend, FASTLSTM_NUM_THREADS=threads)) == {here}


# Numba's OpenMP layer cannot run in a forked child; its documentation says so.
@pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built")
@pytest.mark.parametrize("way", ["fork", "fork-while-others-compute", "pool-fork", "pool-spawn"])
def test_child_processes_compute_the_same_bits(way: str) -> None:
    found = run_digest(way, "cpp")
    assert len(found) == {"fork": 4, "fork-while-others-compute": 7, "pool-fork": 5, "pool-spawn": 5}[way]
    assert len(set(found)) == 1


@pytest.mark.parametrize("case", GATED_CASES, ids=str)
def test_backward_twice_on_one_tape_gives_the_same_bits(backend: str, case: Case) -> None:
    backward = getattr(ops, case.op.replace("forward", "backward"))
    with use_backend(backend):
        tape = getattr(ops, case.op)(**case.inputs).tape
        first = backward(tape=tape, **case.upstream)
        second = backward(tape=tape, **case.upstream)
    assert digest.of_results(first._asdict()) == digest.of_results(second._asdict())


def test_tapes_in_any_order_are_independent(backend: str) -> None:
    def run(order: list[int]) -> list[str]:
        tapes = [ops.lstm_forward(**case.inputs).tape for case in LSTM_CASES]
        found = {k: ops.lstm_backward(tape=tapes[k], **LSTM_CASES[k].upstream)._asdict() for k in order}
        return [digest.of_results(found[k]) for k in sorted(order)]

    n = len(LSTM_CASES)
    with use_backend(backend):
        forwards = run(list(range(n)))
        assert run(list(reversed(range(n)))) == forwards
        assert run([*range(1, n, 2), *range(0, n, 2)]) == forwards


def test_results_stay_when_the_tape_and_later_calls_come_and_go(backend: str) -> None:
    """Buffers that tapes give back may be used again, results may not."""
    case = next(case for case in LSTM_CASES if case.name == "H100")
    with use_backend(backend):
        out = ops.lstm_forward(**case.inputs)
        grads = ops.lstm_backward(tape=out.tape, **case.upstream)
        results = {**out._asdict(), **grads._asdict()}
        del results["tape"], out, grads
        before = digest.of_results(results)
        gc.collect()
        for other in [*LSTM_CASES, case]:
            run_case(other.map_arrays(lambda a: a + 1 if a.dtype.kind == "f" else a))
        assert digest.of_results(results) == before


def test_a_tape_outlives_its_thread(backend: str) -> None:
    case = next(case for case in LSTM_CASES if case.name == "H100")
    tapes: list[Any] = []

    def forward() -> None:
        with use_backend(backend):
            tapes.append(ops.lstm_forward(**case.inputs).tape)

    worker = threading.Thread(target=forward)
    worker.start()
    worker.join()
    grads = ops.lstm_backward(tape=tapes.pop(), **case.upstream)
    with use_backend(backend):
        want = ops.lstm_backward(tape=ops.lstm_forward(**case.inputs).tape, **case.upstream)
    assert digest.of_results(grads._asdict()) == digest.of_results(want._asdict())


def test_a_tape_keeps_its_backend(backend: str) -> None:
    case = LSTM_CASES[0]
    with use_backend(backend):
        tape = ops.lstm_forward(**case.inputs).tape
        want = ops.lstm_backward(tape=tape, **case.upstream)
    with use_backend("numpy"):
        got = ops.lstm_backward(tape=tape, **case.upstream)
    assert digest.of_results(got._asdict()) == digest.of_results(want._asdict())


def test_tapes_that_are_never_used_leave_no_memory_behind(backend: str) -> None:
    case = next(case for case in LSTM_CASES if case.name == "addition").cast("float32")

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc/self/statm on this system")
    with use_backend(backend):
        for _ in range(10):
            ops.lstm_forward(**case.inputs)
        gc.collect()
        before = resident()
        for _ in range(40):
            ops.lstm_forward(**case.inputs)
        gc.collect()
    # One tape of this shape is about 4 MB; forty of them would show.
    assert resident() - before < 20e6


def test_no_core_is_busy_after_the_work(compiled_backend: str) -> None:
    with use_backend(compiled_backend):
        for case in LSTM_CASES:
            run_case(case)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


ONE_OF_EACH = list({case.op: case for case in reversed(cases.ALL)}.values())


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_layouts_of_a_view_do_not_matter(backend: str, case: Case) -> None:
    """A strided, transposed, reversed, unaligned or read-only view gives the bits of its contiguous copy."""

    def strided(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]

    def backwards(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.flip(np.flip(array).copy())

    def unaligned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        view = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), offset=1)
        view[...] = array
        return view

    def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        copy = array.copy()
        copy.flags.writeable = False
        return copy

    def in_order(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What is changed in place has to be."""
        return np.array(array, order="C")

    with use_backend(backend):
        want = digest.of_results(run_case(case))
        for view in (strided, np.asfortranarray, backwards, unaligned, read_only):
            assert digest.of_results(run_case(case.map_arrays(view), copy=in_order)) == want
