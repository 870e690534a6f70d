"""What every side of the cases needs beside its inputs, measured in one process of its own. Linux only."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastlstm
from benchmarks import fresh_process, machine
from benchmarks.machine import say
from benchmarks.measure import Comparison, Recipe
from fastlstm import get_backend, use_backend

# Blocks from 64 KiB on come from the system and go back to it at once: what was freed before hides no need.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def add_to(comparisons: Sequence[Comparison]) -> None:
    """Fill in ``extra_bytes`` where the case can be made again; equal cases on one thread are left out."""
    chosen = [c for c in comparisons if c.recipe is not None and c.threads == machine.CORES]
    if not chosen:
        return
    if not Path("/proc/self/clear_refs").exists():
        say(f"no memory is measured: {sys.platform} does not tell a process how much it needed")
        return
    recipes = [tuple(c.recipe) for c in chosen if c.recipe is not None]
    for comparison, found in zip(
        chosen, fresh_process.call(extra_bytes, recipes, environment=_ENVIRONMENT), strict=True
    ):
        comparison.extra_bytes.update(found)


def extra_bytes(recipes: Sequence[Any]) -> list[dict[str, int]]:
    """For each case the bytes that the first call of each of its sides needs at most; for a process of its own."""
    found = []
    for recipe in recipes:
        make = Recipe(*recipe).make
        warm = make()
        with use_backend(warm.backend or get_backend()), machine.same_threads(warm.threads):
            # Threads start, code is loaded and compiled: that is paid once, not by every call.
            for call in warm.sides.values():
                call()
            del warm
            gc.collect()
            case = make()
            found.append({})
            for side, call in case.sides.items():
                fastlstm.free_unused_memory()
                found[-1][side] = fresh_process.extra_peak(call)
        del case
    return found
