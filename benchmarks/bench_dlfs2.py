"""Whole scripts in the style of "Deep Learning from Scratch 2", on numpy code of that style and on `compat.dlfs2`.

Each side is a process of its own, from the start of Python to its end: imports, reading, training, evaluation. The
textbook code's products are numpy's, on as many threads as its library takes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, case_maker

BOOK = Path(__file__).resolve().parent / "book"
SCRIPTS = {
    "CBOW": "ch04/train.py",
    "SimpleRnnlm": "ch05/train.py",
    "Rnnlm": "ch06/train_rnnlm.py",
    "BetterRnnlm": "ch06/train_better_rnnlm.py",
    "Seq2seq": "ch07/train_seq2seq.py",
    "AttentionSeq2seq": "ch08/train.py",
}


def run_script(script: str, side: str) -> str:
    """What it prints, without the seconds."""
    path = BOOK / script
    through = ["-m", "fastlstm.compat.dlfs2"] if side == OURS else []
    done = subprocess.run(
        [sys.executable, *through, path.name],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(BOOK.parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return re.sub(r"time \d+\[s\]", "time", done.stdout)


# Sums are rounded in another order, and training magnifies that: so many lines agree closely, the others roughly.
CLOSE_LINES = 10


def _agree(ours: str, textbook: str, tolerance: float) -> bool:
    """The same words, and numbers within a share of each other."""
    number = re.compile(r"\d+(?:\.\d+)?")
    values = [[float(value) for value in number.findall(line)] for line in (ours, textbook)]
    same_words = number.sub("", ours) == number.sub("", textbook)
    return same_words and len(values[0]) == len(values[1]) and np.allclose(*values, rtol=tolerance)


@case_maker
def script_case(name: str) -> Case:
    script = SCRIPTS[name]

    def check() -> None:
        ours, textbook = (run_script(script, side).splitlines() for side in (OURS, TEXTBOOK))
        for k, (ours_line, textbook_line) in enumerate(zip(ours, textbook, strict=True)):
            if not _agree(ours_line, textbook_line, 0.01 if k < CLOSE_LINES else 0.25):
                raise AssertionError(f"{script} prints {ours_line!r}, on the textbook code {textbook_line!r}")

    sides = {side: lambda side=side: run_script(script, side) for side in (OURS, TEXTBOOK)}
    return Case("whole script", f"{name} ({script})", sides, check, memory=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(compare: Compare, name: str) -> None:
    compare(script_case(name))
