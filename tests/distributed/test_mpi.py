"""Trainings under mpiexec: the bits of one process, and how all end when one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi_program
import pytest
from mpi_command import SUPPORT, find_mpiexec, start

from fastlstm import distributed


@pytest.fixture(scope="module")
def mpiexec() -> str:
    return find_mpiexec()


def start_program(mpiexec: str, n: int, mode: str, folder: Path) -> subprocess.Popen[str]:
    return start(mpiexec, n, [SUPPORT / "mpi_program.py", mode, folder])


def wait_for_batches(file: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone() -> dict[str, int]:
    """The digests of one process without MPI."""
    return mpi_program.train_all(None)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_models_have_the_bits_of_one_process(mpiexec: str, n: int, alone: dict[str, int], tmp_path: Path) -> None:
    process = start_program(mpiexec, n, "all", tmp_path)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    for rank in range(n):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_a_worker_that_raises_ends_all(mpiexec: str, tmp_path: Path) -> None:
    process = start_program(mpiexec, 3, "fail", tmp_path)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "RuntimeError: out of luck" in output
    assert "ends all 3 after this error" in output


def test_killed_interrupted_and_resumed(mpiexec: str, tmp_path: Path) -> None:
    """Two workers, of which one is killed; then three, until Ctrl-C; then one process without MPI."""
    batches = tmp_path / "batches"
    process = start_program(mpiexec, 2, "long", tmp_path)
    wait_for_batches(batches, 4, process)
    os.kill(int((tmp_path / "1.pid").read_text()), signal.SIGKILL)
    since = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - since < 10
    killed_after = len(batches.read_text().splitlines())
    assert killed_after < 13

    process = start_program(mpiexec, 3, "long", tmp_path)
    wait_for_batches(batches, killed_after + 2, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "KeyboardInterrupt" in output
    done = batches.read_text().splitlines()
    assert done[-1] != "4 2"  # the last one
    # Every batch stands in the checkpoint but, perhaps, the one after which the worker was killed.
    assert len(set(done)) >= len(done) - 1

    resumed = mpi_program.long_training(None, tmp_path)
    (tmp_path / "other").mkdir()
    whole = mpi_program.long_training(None, tmp_path / "other")
    assert mpi_program.digest(resumed) == mpi_program.digest(whole)


def test_without_mpi4py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'needs mpi4py and an MPI library .*: pip install "fastlstm\[mpi\]"'):
        distributed.mpi()
