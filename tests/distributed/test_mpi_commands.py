"""``fastlstm train`` under mpiexec: one run folder, with the bits of one process."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from command_line import without_seconds
from mpi_command import find_mpiexec, start

from fastlstm.cli import main

ADDITION = ("addition", "--epochs", "2", "--batch-size", "6", "--hidden-size", "8", "--shards", "4")


@pytest.fixture(scope="module")
def mpiexec() -> str:
    return find_mpiexec()


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a few sums, in the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{a}+{b}".ljust(7) + "_" + str(a + b).ljust(4) for a in range(5, 12) for b in range(7, 14)]
    (tmp_path / "sums").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(mpiexec: str, n: int, folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(mpiexec, n, ["-m", "fastlstm", "train", *arguments], folder)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


@pytest.mark.slow
def test_one_run_folder_with_the_bits_of_one_process(mpiexec: str, sums: Path) -> None:
    arguments = (*ADDITION, "--data", "sums")
    code, output = run(mpiexec, 3, sums, *arguments, "--out", "three", "--workers", "mpi", "--threads", "1")
    assert code == 0, output
    assert output.count("run folder: three") == 1
    assert output.count("held-out sums right") == 1
    assert main(["train", *arguments, "--out", "one", "--quiet"]) == 0
    assert (sums / "three/model.safetensors").read_bytes() == (sums / "one/model.safetensors").read_bytes()
    assert without_seconds(sums / "three/history.csv") == without_seconds(sums / "one/history.csv")
    assert {path.name for path in (sums / "three").iterdir()} == {path.name for path in (sums / "one").iterdir()}
    assert json.loads((sums / "three/config.json").read_text())["workers"] == 3


@pytest.mark.slow
def test_a_task_of_several_trainings(mpiexec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("sine", "--epochs", "2", "--points", "61", "--hidden-size", "4", "--shards", "2", "--quiet")
    code, output = run(mpiexec, 2, tmp_path, *arguments, "--out", "two", "--workers", "mpi")
    assert code == 0, output
    assert main(["train", *arguments, "--out", "one"]) == 0
    for name in ("lstm/model.safetensors", "rnn/model.safetensors", "continued.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.slow
def test_interrupted_and_resumed_by_one(mpiexec: str, sums: Path) -> None:
    more = ("--data", "sums", "--epochs", "40", "--quiet")
    arguments = (*ADDITION, *more)
    process = start(mpiexec, 2, ["-m", "fastlstm", "train", *arguments, "--out", "part", "--workers", "mpi"], sums)
    deadline = time.monotonic() + 60
    while not (sums / "part/history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert output.count("interrupted; go on with: fastlstm train addition --resume part") == 1
    assert main(["train", "addition", "--resume", "part", "--quiet"]) == 0
    assert main(["train", *arguments, "--out", "whole"]) == 0
    assert (sums / "part/model.safetensors").read_bytes() == (sums / "whole/model.safetensors").read_bytes()


def test_a_mistake_ends_all(mpiexec: str, sums: Path) -> None:
    code, output = run(mpiexec, 2, sums, "addition", "--data", "sums", "--workers", "mpi", "--out", "none")
    assert code != 0
    assert "shards is 1, but there are 2 workers" in output
    assert not (sums / "none").exists()


def test_rounded_gradients_belong_to_the_run(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("train", *ADDITION, "--data", "sums", "--quiet", "--grad-precision", "bf16")
    assert main([*arguments, "--out", "rounded"]) == 0
    assert json.loads((sums / "rounded/config.json").read_text())["options"]["grad_precision"] == "bf16"
    assert main([*arguments, "--out", "none", "--shards", "1"]) == 2
    assert "--grad-precision bf16 is for the gradients of shards" in capsys.readouterr().err
    assert not (sums / "none").exists()


def test_shards_belong_to_the_run(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *ADDITION, "--data", "sums", "--out", "one", "--quiet"]) == 0
    assert json.loads((sums / "one/config.json").read_text())["options"]["shards"] == 4
    capsys.readouterr()
    assert main(["train", "addition", "--resume", "one", "--shards", "2"]) == 2
    assert "only --epochs, --threads, --workers and --quiet go with it" in capsys.readouterr().err
