"""The compiled kernels at every instruction set this processor has: the C++ part of the other files, run again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm

pytestmark = pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built")

HERE = Path(__file__).parent

_ARM = platform.machine() in ("aarch64", "arm64")
_X86 = platform.machine() in ("x86_64", "AMD64")
_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
# Lowest first, as FASTLSTM_MAX_ISA takes them, with the flags of /proc/cpuinfo that a processor needs for each.
LEVELS: dict[str, set[str]] = (
    {"baseline": set(), "avx2": {"avx2", "fma"}, "avx512": _AVX512, "avx512_bf16": {*_AVX512, "avx512_bf16"}}
    if _X86
    else {"neon": set()}
    if _ARM
    else {"baseline": set()}
)


def processor_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


SUPPORTED = [level for level, needed in LEVELS.items() if needed <= processor_flags()]


def in_a_process(*arguments: str, level: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FASTLSTM_MAX_ISA"}
    if level is not None:
        environment["FASTLSTM_MAX_ISA"] = level
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def isa(level: str | None) -> str:
    done = in_a_process("-c", "from fastlstm import _cpu; print(_cpu.isa())", level=level)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_best_level_of_the_processor_is_chosen() -> None:
    assert isa(None) == SUPPORTED[-1]


@pytest.mark.parametrize("level", LEVELS)
def test_the_level_can_be_held_down_but_not_above_the_processor(level: str) -> None:
    assert isa(level) == (level if level in SUPPORTED else SUPPORTED[-1])


# Everything else that is run has met the best level already.
@pytest.mark.parametrize("level", [level for level in LEVELS if level != SUPPORTED[-1]])
def test_kernels_agree_with_the_definition_at_this_level(level: str) -> None:
    if level not in SUPPORTED:
        pytest.skip(f"this processor has no {level}")
    files = [
        str(HERE / name) for name in ("test_backends.py", "test_bf16.py", "test_guard_bands.py", "test_determinism.py")
    ]
    # Where the best level has gone through all cases, one dtype shows the ends of this level's vectors.
    cases = "cpp and not process and not (float64 and (outside_the_arrays or any_number_of_threads))"
    done = in_a_process("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", cases, *files, level=level)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    # It did run what it is meant to run.
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
