"""What the tests of the command line share."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def error_of(capsys: pytest.CaptureFixture[str], code: int | None) -> str:
    """The one line on stderr that goes with exit code 2."""
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def without_seconds(history: str | bytes | Path) -> list[list[str]]:
    """The cells of a history.csv, without the column that no two runs have in common."""
    if isinstance(history, Path):
        history = history.read_bytes()
    text = history.decode() if isinstance(history, bytes) else history
    names, *rows = csv.reader(text.splitlines())
    return [[cell for name, cell in zip(names, row, strict=True) if name != "seconds"] for row in (names, *rows)]


def interrupt_a_training(task: str, *options: str, history: str = "part/history.csv") -> None:
    """Train into the folder "part" of the current one, with Ctrl-C as soon as there is a history."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastlstm.cli", "train", task, *options, "--out", "part"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches a program that the shell started in the foreground.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not Path(history).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"interrupted; go on with: fastlstm train {task} --resume part"
