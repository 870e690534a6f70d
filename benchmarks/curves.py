"""What work costs as it grows: time and memory over N, T, H, V and threads, beside what the arithmetic alone takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bench_losses, bench_lstm, machine, measure, memory
from benchmarks.machine import say
from benchmarks.measure import OURS, TEXTBOOK, Case, Effort

EFFORT = Effort(0.25, 3, 0.01)
QUICK = Effort(0.05, 2, 0.005)

LARGEST_BEND = 0.25  # a smaller change of the power is no bend


@dataclass(frozen=True)
class Curve:
    """One variable that grows.

    Attributes
    ----------
    letter : str
        N, T, H, V or threads.
    title : str
        What is measured, with the sizes that stay.
    values : tuple of int
    case : callable
        The case of a value.
    steeper : str
        Why the time grows faster behind a bend.
    """

    letter: str
    title: str
    values: tuple[int, ...]
    case: Callable[[int], Case]
    steeper: str = ""


def _lstm(N: int, T: int, H: int) -> Case:
    return bench_lstm.lstm_case((N, T, H, H), peers=("torch", TEXTBOOK))


CURVES = (
    Curve(
        "N",
        "LSTM forward + backward, T 35, D = H 256",
        (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128),
        lambda N: _lstm(N, 35, 256),
        "with few rows every step still reads the whole Wh, forward and backward, for little arithmetic: the time is "
        "that of reading, whatever N is; with more rows the multiply-adds decide",
    ),
    Curve(
        "T",
        "LSTM forward + backward, N 20, D = H 128",
        (1, 2, 5, 10, 20, 40, 80, 160, 320),
        lambda T: _lstm(20, T, 128),
        "a call has costs that no step adds to, such as checks, waking the threads and laying out the weights",
    ),
    Curve(
        "H",
        "LSTM forward + backward, N 20, T 20, D = H",
        (16, 32, 48, 64, 100, 128, 200, 256, 400, 512, 650, 1024),
        lambda H: _lstm(20, 20, H),
        "in a narrow layer the start of every step and the gates' functions, which grow with H, take the time, in a "
        "wide one the products, which grow with H squared",
    ),
    Curve(
        "V",
        "linear + cross entropy, M 320, H 128",
        (100, 300, 1000, 3000, 10_000, 30_000, 100_000),
        lambda V: bench_losses.linear_cross_entropy_case(320, 128, V, "fast"),
        "a small vocabulary stays in the caches of the cores, a large one is read from behind them and its gradient is "
        "written there",
    ),
)

THREAD_SHAPES = ("rnnlm", "ptb", "one")


def measure_curves(*, quick: bool) -> list[dict[str, Any]]:
    """All curves, as JSON. Every point is checked before it is timed."""
    effort = QUICK if quick else EFFORT
    curves = [replace(curve, values=curve.values[::3]) if quick else curve for curve in CURVES]
    return [*(_measure(curve, effort) for curve in curves), *_threads(effort, THREAD_SHAPES[: 1 if quick else None])]


def _measure(curve: Curve, effort: Effort) -> dict[str, Any]:
    say(f"{curve.title}: {curve.letter} from {curve.values[0]} to {curve.values[-1]}")
    comparisons = [measure.compare(curve.case(value), effort) for value in curve.values]
    memory.add_to(comparisons)
    sides = list(comparisons[0].seconds)
    peak = machine.fma_peak() * 1e9 if machine.can_probe() else None
    found = {
        "letter": curve.letter,
        "title": curve.title,
        "values": list(curve.values),
        "seconds": {side: [c.median(side) for c in comparisons] for side in sides},
        "limit_seconds": [c.operations / peak for c in comparisons] if peak else [],
        "bytes": {
            side: [c.extra_bytes[side] for c in comparisons] for side in sides if side in comparisons[0].extra_bytes
        },
    }
    return found | {"sentences": sentences(found, curve.steeper)}


def _threads(effort: Effort, shapes: Sequence[str]) -> list[dict[str, Any]]:
    """Times of every shape with one thread and more."""
    counts = list(range(1, machine.CORES + 1))
    found = []
    for shape in shapes:
        say(f"LSTM forward + backward, {shape}: 1 to {machine.CORES} threads")
        comparisons = [
            measure.compare(bench_lstm.lstm_case(shape, threads=k, peers=("torch",)), effort) for k in counts
        ]
        curve: dict[str, Any] = {
            "letter": "threads",
            "title": f"LSTM forward + backward, {bench_lstm.title(shape)}",
            "values": counts,
            "seconds": {side: [c.median(side) for c in comparisons] for side in comparisons[0].seconds},
            "limit_seconds": (
                [c.operations / machine.fma_peak(c.threads) / 1e9 for c in comparisons] if machine.can_probe() else []
            ),
            "bytes": {},
        }
        times = curve["seconds"][OURS]
        text = f"{counts[-1]} threads are {times[0] / times[-1]:.2f} times as fast as one"
        if machine.can_probe():
            gain = machine.fma_peak(counts[-1]) / machine.fma_peak(1)
            text += f"; the multiply-add peak, which needs no memory, grows {gain:.2f} times"
        found.append(curve | {"sentences": [text + "."]})
    return found


# --------------------------------------------------------------------------------------------
# Sentences
# --------------------------------------------------------------------------------------------


def bend(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float]:
    """Two straight lines in logarithmic scales that fit best: where they meet, and the powers before and behind."""
    x, y = np.log(np.asarray(xs, float)), np.log(np.asarray(ys, float))
    best = (math.inf, 0.0, 0.0, 0.0)
    for k in range(1, len(x) - 1):
        # y = a + p min(x - x_k, 0) + q max(x - x_k, 0)
        columns = np.stack([np.ones_like(x), np.minimum(x - x[k], 0), np.maximum(x - x[k], 0)], axis=1)
        solution = np.linalg.lstsq(columns, y, rcond=None)[0]
        error = float(np.square(columns @ solution - y).sum())
        if error < best[0]:
            best = (error, float(xs[k]), float(solution[1]), float(solution[2]))
    return best[1:]


def sentences(curve: Mapping[str, Any], steeper: str) -> list[str]:
    """Where time and memory of ours bend, and why; and how near the arithmetic's limit the time comes."""
    letter, values = curve["letter"], curve["values"]
    said = []
    if len(values) > 3:
        for what, ys in (("time", curve["seconds"][OURS]), ("memory", curve["bytes"].get(OURS, []))):
            if len(ys) == len(values) and min(ys) > 0:
                said.append(_on_bend(what, letter, values, ys, steeper))
    if curve["limit_seconds"]:
        shares = [limit / taken for limit, taken in zip(curve["limit_seconds"], curve["seconds"][OURS], strict=True)]
        said.append(
            f"The multiply-adds alone would take {shares[0]:.0%} of it at {letter} {values[0]:,} and {shares[-1]:.0%} "
            f"at {values[-1]:,}."
        )
    return said


def _on_bend(what: str, letter: str, values: Sequence[int], ys: Sequence[float], steeper: str) -> str:
    place, before, behind = bend(values, ys)
    if abs(behind - before) < LARGEST_BEND:
        power = float(np.polyfit(np.log(values), np.log(ys), 1)[0])
        return f"The {what} has no bend: it grows with the power {power:.2f} of {letter}."
    powers = f"before, it grows with the power {before:.2f}, behind with {behind:.2f}"
    text = f"The {what} bends near {letter} {place:,.0f}: {powers}"
    return f"{text}: {steeper}." if what == "time" and behind > before and steeper else f"{text}."


# --------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------

_COLOURS = {OURS: "C0", "torch": "C1", TEXTBOOK: "C2"}


def draw_all(curves: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """A picture for each letter; the thread curves share one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for letter in dict.fromkeys(curve["letter"] for curve in curves):
        members = [curve for curve in curves if curve["letter"] == letter]
        path = folder / f"cost-{letter}.png"
        if letter == "threads":
            _draw_threads(members, path)
        else:
            _draw(members[0], path)
        paths.append(path)
    return paths


# What a process's peak memory cannot tell from nothing: left out of the pictures.
_LEAST_MEGABYTES = 0.1


def _draw(curve: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    has_memory = bool(curve["bytes"])
    figure = Figure(figsize=(12 if has_memory else 6.5, 5), layout="constrained")
    figure.suptitle(curve["title"])
    panels = figure.subplots(1, 2) if has_memory else [figure.add_subplot()]
    for axes, what, label in zip(panels, ("seconds", "bytes"), ("ms", "MB beside the inputs"), strict=False):
        scale = 1e3 if what == "seconds" else 1e-6
        for side, ys in curve[what].items():
            seen = [scale * y if scale * y > _LEAST_MEGABYTES or what == "seconds" else math.nan for y in ys]
            axes.plot(curve["values"], seen, ".-", color=_COLOURS.get(side), label=side)
        if what == "seconds" and curve["limit_seconds"]:
            limits = [scale * y for y in curve["limit_seconds"]]
            axes.plot(curve["values"], limits, "k--", linewidth=1, label="multiply-adds alone")
        axes.set(xscale="log", yscale="log", xlabel=curve["letter"], ylabel=label)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def _draw_threads(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 4.5), layout="constrained")
    figure.suptitle("Times as fast as our one thread")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        one = curve["seconds"][OURS][0]
        for side, ys in curve["seconds"].items():
            axes.plot(curve["values"], [one / y for y in ys], ".-", color=_COLOURS.get(side), label=side)
        if curve["limit_seconds"]:
            limits = [one / y for y in curve["limit_seconds"]]
            axes.plot(curve["values"], limits, "k--", linewidth=1, label="multiply-adds alone")
        axes.set(xlabel="threads", xticks=curve["values"])
        axes.set_title(curve["title"].split(", ", 1)[1], fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=110)
