"""One case of every operator on the compiled backend, for emulators and valgrind, which are fifty times slower.

    python tests/support/short_set.py [INSTRUCTION_SET]

The cases are those of the selftest; with an argument, that instruction set has to be the one that runs.
"""

from __future__ import annotations

import sys

from fastlstm import _cpu, selftest_cases
from fastlstm.testing import Case, check_backend


def short_set() -> list[Case]:
    """The first case of each operator: tails, masks, states and upstream gradients are in it."""
    cases = [*selftest_cases.recurrent_cases(), *selftest_cases.other_cases()]
    return list({case.op: case for case in reversed(cases)}.values())


def main() -> None:
    expected = sys.argv[1:] or [_cpu.isa()]
    if [_cpu.isa()] != expected:
        sys.exit(f"{_cpu.isa()} runs, expected {expected[0]}")
    cases = short_set()
    for case in cases:
        for dtype in ("float32", "float64"):
            check_backend("cpp", case, dtype)
        if case.op in selftest_cases.IN_BF16:
            check_backend("cpp", case, "float32", precision="bf16")
    print(f"{_cpu.isa()}: {len(cases)} operators agree with the definition in float32 and float64")


if __name__ == "__main__":
    main()
