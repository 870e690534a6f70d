"""Tables of a run, from its JSON: operator, size and backend; what was promised; whole jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import markdown_table, seconds
from benchmarks.measure import OURS, TEXTBOOK, TUNED, WAYS_OF_TORCH

HEADER = (
    *("operator", "size", "backend", "time", "±", "textbook", "PyTorch", "tuned", "Keras", "GFLOP/s", "of peak"),
    *("memory", "PyTorch's"),
)
EXPLAINED = (
    "Time: median of ours, and half the distance of the quartiles. Textbook, PyTorch (in lines of bf16 the fastest of "
    "its float32, autocast and bf16 modules), tuned (PyTorch with a common setting that may help it: time first) and "
    "Keras: how many times as long they take. Of peak: GFLOP/s of the products as a share of the multiply-add peak of "
    "float32 that was measured with as many threads. Memory: what a first call needs beside its inputs, its results "
    "included. A dash: not measured, or it says nothing there."
)
_NONE = "–"


def operator_table(result: Mapping[str, Any]) -> str:
    """Markdown, a line a case."""
    return markdown_table(HEADER, [_line(case, result["probe"]) for case in result["cases"]], left=3)


def _line(case: Mapping[str, Any], probe: Mapping[str, Any]) -> tuple[str, ...]:
    sides = case["sides"]
    ours = sides[OURS]

    def times(*peers: str) -> str:
        ratios = [sides[peer]["ratio"] for peer in peers if peer in sides]
        return f"{min(ratios):.2f}x" if ratios else _NONE

    share = peak_share(case, probe)
    return (
        case["family"],
        case["name"],
        case["backend"] + (", 1 thread" if case["threads"] == 1 else ""),
        seconds(ours["median_s"]),
        f"{ours['spread'] / 2:.0%}",
        times(TEXTBOOK, "np.add.at"),
        times(*WAYS_OF_TORCH),
        times(TUNED),
        times("keras"),
        f"{case['gflops']:.0f}" if case["gflops"] else _NONE,
        _NONE if share is None else f"{share:.0%}",
        _megabytes(ours["extra_bytes"]),
        _megabytes(sides.get("torch", {}).get("extra_bytes")),
    )


def peak_share(case: Mapping[str, Any], probe: Mapping[str, Any]) -> float | None:
    """Of the multiply-add peak with the case's threads, where both were measured."""
    peak = probe["multiply_add_gflops"].get(str(case["threads"]))
    return case["gflops"] / peak if peak and case["gflops"] else None


def _megabytes(size: int | None) -> str:
    return _NONE if size is None else f"{size / 1e6:.1f} MB"


def probe_lines(probe: Mapping[str, Any]) -> list[str]:
    """What the machine can do at most, a line each."""
    lines = [
        f"multiply-add peak, float32, {threads} thread{'s' if threads != '1' else ''}: {peak:.0f} GFLOP/s"
        for threads, peak in probe["multiply_add_gflops"].items()
    ]
    for threads, levels in probe["read_gb_per_second"].items():
        read = ", ".join(f"{level['level']} {level['gb_per_second']:.0f}" for level in levels)
        lines.append(f"reading, {threads} thread{'s' if threads != '1' else ''}, GB/s: {read}")
    return lines


def figure_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """What was promised, and what was measured."""

    def show(value: float, unit: str) -> str:
        return f"{value:.0f} %" if unit == "%" else f"{value:.2f} {unit}" if unit == "MB" else f"{value:.2f}{unit}"

    rows = [
        (f["label"], *(show(f[name], f["unit"]) for name in ("bound", "goal", "value")), f["reaches"]) for f in figures
    ]
    return markdown_table(("what", "bound", "goal", "measured", "reaches"), rows)


def job_table(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Whole jobs: ours, the other's, how many times as fast ours is, and how that was measured."""
    rows = []
    for job in jobs:
        ours = job["values"][OURS]
        peers = [(side, value) for side, value in job["values"].items() if side != OURS] or [(_NONE, None)]
        for side, value in peers:
            ratio = _NONE if value is None else f"{value / ours if job['smaller_is_better'] else ours / value:.2f}x"
            other = _NONE if value is None else f"{side} {_number(value)}"
            rows.append((job["job"], job["unit"], job["how"], _number(ours), other, ratio))
    return markdown_table(("job", "unit", "how", "fastlstm", "beside it", "ours is"), rows, left=3)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
