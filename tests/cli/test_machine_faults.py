"""Trainings of the command line where the machine fails: killed processes, full disks, two at once."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastlstm.models import RNNLM
from fastlstm.tensor_file import locked_folder

OPTIONS = "--data text.txt --epochs 200 --hidden-size 8 --batch-size 4 --time-size 5 --threads 1 --quiet --out run"


def train(folder: Path, *options: str, preexec: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    (folder / "text.txt").write_text("the cat sat on the mat . a dog ate the cat .\n" * 40)
    return subprocess.Popen(
        [sys.executable, "-m", "fastlstm", "train", "rnnlm", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )


def test_a_second_process_in_a_run_folder_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    first = train(tmp_path, *OPTIONS.split())
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoint.safetensors").exists() and time.monotonic() < end:
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        before = (tmp_path / "run" / "config.json").read_bytes()
        second = train(tmp_path, "--resume", "run")
        _, err = second.communicate(timeout=120)
        assert second.returncode == 2
        assert "another process is at work in it" in err
        assert "run" in err
        assert len(err.splitlines()) == 1
        assert (tmp_path / "run" / "config.json").read_bytes() == before
    finally:
        first.kill()
        first.communicate()
    with locked_folder(tmp_path / "run"):
        pass


def test_lock_is_of_the_folder_and_leaves_no_file(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        with pytest.raises(BlockingIOError, match="at work"), locked_folder(tmp_path):
            pass
        (tmp_path / "other").mkdir()
        with locked_folder(tmp_path / "other"):
            pass
    with locked_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_disk_that_is_full_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit of the size of files stands for the full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    process = train(tmp_path, *OPTIONS.split(), preexec=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert "checkpoint.safetensors" in err
    assert not list((tmp_path / "run").glob("*.tmp")) if (tmp_path / "run").exists() else True


def test_model_that_does_not_fit_the_disk_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    RNNLM(9, 4, 4, seed=1).save(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"model.safetensors"):
            RNNLM(9, 4, 4, seed=2).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_ids_on_disk_that_are_replaced_while_they_are_learned(tmp_path: Path) -> None:
    """A file moved into the place of another leaves the mapped one as it is."""
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(3000, dtype=np.int32) % 7)
    mapped = np.load(path, mmap_mode="r")
    np.save(tmp_path / "other.npy", np.zeros(1, np.int32))
    os.replace(tmp_path / "other.npy", path)
    model, same = RNNLM(7, 4, 4, seed=1), RNNLM(7, 4, 4, seed=1)
    model.fit(mapped, epochs=1, batch_size=4, time_size=5, verbose=0)
    same.fit(np.arange(3000) % 7, epochs=1, batch_size=4, time_size=5, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(model.params, same.params, strict=True))
