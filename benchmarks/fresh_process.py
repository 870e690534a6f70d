"""Functions that need a process of their own: another environment at import, or untouched memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent

_CHILD = """
import importlib, json, sys
from benchmarks import machine
machine.pin_to_two_cores()
module, function, arguments = json.loads(sys.argv[1])
print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))
"""


def call(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """What ``function``, of the top level of a module, returns in a new process; arguments and result go as JSON."""
    request = json.dumps([function.__module__, function.__name__, arguments])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, request],
        cwd=_ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def extra_peak(step: Callable[[], Any]) -> int:
    """Bytes by which ``step`` raises this process's memory at most, its results included. Linux only.

    Run it in a process of its own, with the inputs made and the threads started: what is resident then does not count.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = _resident_peak()
    step()
    return _resident_peak() - before


def _resident_peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")
