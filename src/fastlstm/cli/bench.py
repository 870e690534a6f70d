"""Run the benchmark suite: every case checked, then timed beside PyTorch, Keras and from-scratch numpy code.

The suite lives in the source tree, in the folder benchmarks; it is not installed with the package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import fastlstm

# The cores are chosen before numpy starts its threads: that takes a process of its own.
_CHILD = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('benchmarks', run_name='__main__')"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm bench`` and of ``python -m benchmarks``."""
    add = parser.add_argument
    add("--quick", action="store_true", help="less than two minutes: shorter timings, more noise, no slow rows")
    add("--only", metavar="WORD", nargs="+", help="only these rows, such as lstm gru loss steps numba")
    add("--json", metavar="FILE", help="write all figures and times")
    add("--compare", metavar="OLD.json", help="tell what became slower by more than 8 %%, in two runs; exit code 1")
    add("--curves", metavar="DIR", help="cost over N, T, H, V and threads, too: measure, and draw into DIR")
    add("--jobs", action="store_true", help="whole jobs, too: time to an accuracy, tokens and sentences per second")
    add("--record", action="store_true", help="all of it, into benchmarks/results, the page of docs and its pictures")
    add("--docs", metavar="RESULT.json", help="only write that page and its pictures, from such a file")
    add("--readme", metavar="RESULT.json", help="only write the figures of the README, from such a file")


def bench(args: argparse.Namespace) -> int:
    """``fastlstm bench``."""
    words: list[str] = []
    names = argparse.ArgumentParser()
    add_options(names)
    for name in vars(names.parse_args([])):
        value = getattr(args, name)
        if value is True:
            words.append(f"--{name}")
        elif value:
            words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    return subprocess.run([sys.executable, "-c", _CHILD, str(find_suite()), *words], check=False).returncode


def find_suite() -> Path:
    """The folder that holds ``benchmarks``: the source tree the package runs from, or the current folder."""
    for folder in (Path(fastlstm.__file__).resolve().parents[2], Path.cwd()):
        if (folder / "benchmarks" / "textbook.py").exists():
            return folder
    raise ValueError(
        f"the benchmarks are not here: {Path.cwd()} has no folder benchmarks of fastlstm's source tree, and the "
        "installed package does not bring it; run fastlstm bench where you have unpacked or cloned the source"
    )
