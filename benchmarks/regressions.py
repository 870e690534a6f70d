"""Which cases became slower than in an older run, told only if a second run says so too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.machine import say
from benchmarks.measure import OURS, Comparison, Effort

LIMIT = 0.08

Key = tuple[str, str, str, int]


def read(path: Path) -> dict[str, Any]:
    """The JSON that ``--json`` wrote."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(result, dict) or "probe" not in result:
            raise ValueError("no result of this suite")
    except ValueError as error:
        raise ValueError(f"{path} is {error}; expected a file that --json wrote") from None
    return result


def find(old: Mapping[str, Any], new: Sequence[Comparison], effort: Effort) -> tuple[list[str], int]:
    """A line for each case that is slower by more than 8 %, and how many cases both runs have.

    A case counts as slower if our median grew and so did our share of what the peers take: where those grew as much,
    the machine was slower. It is then timed once more, in turns with its peers, and told if that confirms it.
    """
    before = {_key(case): case["sides"] for case in old["cases"]}
    common = [comparison for comparison in new if _key(comparison.as_json()) in before]
    lines = []
    for comparison in common:
        sides = before[_key(comparison.as_json())]
        first = slowdown(sides, comparison)
        if first <= 1 + LIMIT or comparison.again is None:
            continue
        say(f"  {comparison.title}, {comparison.name}: {first - 1:.0%} slower than before; once more")
        second = slowdown(sides, comparison.again(effort))
        if second > 1 + LIMIT:
            now = f"{first - 1:.0%} and {second - 1:.0%} slower"
            lines.append(f"{comparison.title}, {comparison.name}: {now} than {sides[OURS]['median_s'] * 1e3:.3g} ms")
    return lines, len(common)


def slowdown(before: Mapping[str, Any], now: Comparison) -> float:
    """How many times as long ours takes, or ours in relation to the peers, if that is less."""
    grown = {side: now.median(side) / before[side]["median_s"] for side in now.seconds if side in before}
    peers = [grown[side] for side in grown if not side.startswith(OURS)]
    return grown[OURS] / max(1.0, geometric_mean(peers)) if peers else grown[OURS]


def _key(case: Mapping[str, Any]) -> Key:
    return case["family"], case["name"], case["backend"], case["threads"]
