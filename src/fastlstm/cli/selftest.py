"""Check every operator on this machine against the definition, in less than a minute.

The table says what was checked and what was wrong; the exit code is 1 if anything was. What is printed is what belongs
into a report of a fault.
"""

from __future__ import annotations

import argparse

import fastlstm
from fastlstm import selftest


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm selftest``."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what computes (default: cpu)")
    parser.add_argument("--all", action="store_true", help="Numba's kernels, too, which are compiled first: minutes")


def run(args: argparse.Namespace) -> int:
    """``fastlstm selftest``."""
    fastlstm.show_config()
    print()
    rows = selftest.run(args.device, everything=args.all)
    return 0 if selftest.report(rows, lambda line: print(line, flush=True)) else 1
