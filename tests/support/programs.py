"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

START = '''
import os, sys, threading, time
import numpy as np
import fastlstm
from fastlstm import ops

CORES = sorted(os.sched_getaffinity(0))
rng = np.random.default_rng(0)

def numbers(*shape):
    return rng.standard_normal(shape, np.float32)

def team_comes():
    """Whether a region gets two threads again: a while after somebody kept the cores busy."""
    from fastlstm import _cpu
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if _cpu.team_size(2) == 2:
            return True
        time.sleep(0.01)
    return False

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

'''


def run(program: str, *, start: str = START, **environment: str | None) -> str:
    """What a program prints in a process of its own, behind ``start``. A variable that is None is not set."""
    changed = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(program)],
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
