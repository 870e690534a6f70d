"""Trainings of the command line where the machine fails: killed processes, full disks, two at once."""

from __future__ import annotations

import os
import resource
import shutil
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


def in_namespace(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount; what it has mounted goes with it."""
    unshare = shutil.which("unshare")
    enter = [unshare or "", "--map-root-user", "--mount", "sh", "-ec"]
    probe = "mkdir probe && mount -t tmpfs -o size=8k tmpfs probe"
    if unshare is None or subprocess.run([*enter, probe], cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("no namespaces in which a user may mount")
    (folder / "text.txt").write_text("the cat sat on the mat . a dog ate the cat .\n" * 40)
    train = f"train() {{ {sys.executable} -m fastlstm train rnnlm --threads 1 --quiet $* || echo exit code $?; }}\n"
    return subprocess.run([*enter, train + script], cwd=folder, capture_output=True, text=True, timeout=300, check=True)


SHORT = "--data text.txt --epochs 3 --hidden-size 8 --batch-size 4 --time-size 5"


def test_run_goes_on_when_the_full_disk_has_room_again(tmp_path: Path) -> None:
    """The disk takes one checkpoint, not the next."""
    script = f"""
        mkdir run
        mount -t tmpfs -o size=24k tmpfs run
        train {SHORT} --out run
        ls run
        mount -o remount,size=1m run
        train --resume run
        train {SHORT} --out whole
        cmp run/model.safetensors whole/model.safetensors
    """
    done = in_namespace(tmp_path, script)
    assert done.stdout.split("\n")[:4] == ["exit code 2", "checkpoint.safetensors", "config.json", "history.csv"]
    assert done.stdout.count("exit code") == 1
    assert "No space left on device" in done.stderr.split("\n")[0]
    assert "checkpoint.safetensors" in done.stderr.split("\n")[0]


def test_read_only_run_folder_is_one_line_and_can_be_read(tmp_path: Path) -> None:
    script = f"""
        mkdir run
        train {SHORT} --out finished
        for folder in run finished; do mount --bind $folder $folder; mount -o remount,ro,bind $folder; done
        train {SHORT} --out run
        train --resume finished --epochs 4
        ls run
        echo generated
        {sys.executable} -m fastlstm generate finished the --length 3
    """
    done = in_namespace(tmp_path, script)
    assert done.stdout.count("exit code 2\n") == 2
    assert done.stdout.split("generated\n")[1].startswith("the ")
    errors = [line for line in done.stderr.split("\n") if line]
    assert len(errors) == 2
    assert all(line.startswith("fastlstm: [Errno 30] Read-only file system: ") for line in errors)
    assert "run/config.json" in errors[0]


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
