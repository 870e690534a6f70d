"""The table of what was promised: bound, goal and what this machine measures.

``python -m benchmarks`` measures every row and prints it; ``--quick`` takes less time for each, ``--only WORD`` picks
rows, ``--json FILE`` writes all figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks import (
    bench_embedding,
    bench_losses,
    bench_lstm,
    bench_optim,
    bench_rnn,
    bench_sampling,
    bench_training_steps,
    fresh_process,
    machine,
    measure,
)
from benchmarks.machine import say
from benchmarks.measure import FULL, OURS, QUICK, TEXTBOOK, Case, Comparison, Effort

MEGABYTE = 1e6


@dataclass(frozen=True)
class Figure:
    """One number of a row with what it has to reach. ``smaller`` is better for memory."""

    label: str
    value: float
    bound: float
    goal: float
    unit: str = "x"
    smaller: bool = False

    def verdict(self) -> str:
        if self._reaches(self.goal):
            return "goal"
        return "bound" if self._reaches(self.bound) else "below"

    def _reaches(self, limit: float) -> bool:
        return self.value <= limit if self.smaller else self.value >= limit

    def show(self, value: float) -> str:
        return f"{value:.0f} %" if self.unit == "%" else f"{value:.2f}{self.unit}"


@dataclass
class Run:
    """One run over the table: how long to time each case, and everything timed so far."""

    effort: Effort
    comparisons: list[Comparison] = field(default_factory=list)

    def time(self, case: Case) -> Comparison:
        comparison = measure.compare(case, self.effort)
        self.add(comparison)
        return comparison

    def add(self, comparison: Comparison) -> None:
        say(f"  {comparison.line()}")
        self.comparisons.append(comparison)

    def time_all(self, cases: Iterable[Case]) -> list[Comparison]:
        return [self.time(case) for case in cases]


def mean_over(comparisons: Sequence[Comparison], peer: str, side: str = OURS) -> float:
    return geometric_mean(comparison.ratio(peer, side) for comparison in comparisons)


# --------------------------------------------------------------------------------------------
# Rows. Each times its cases and returns its figures; bound and goal are those of the project.
# --------------------------------------------------------------------------------------------


def lstm_rows(run: Run) -> list[Figure]:
    comparisons = {name: run.time(bench_lstm.lstm_case(name)) for name in bench_lstm.SHAPES}
    eight = list(comparisons.values())
    peak = machine.fma_peak()
    say(f"  multiply-add peak of {machine.CORES} cores: {peak:.0f} GFLOP/s")
    figures = []
    if machine.torch_or_none():
        slowest = min(comparisons, key=lambda name: comparisons[name].ratio("torch"))
        figures += [
            Figure("LSTM forward + backward against torch, mean of eight shapes", mean_over(eight, "torch"), 1.5, 2.0),
            Figure(f"the slowest of them ({slowest})", comparisons[slowest].ratio("torch"), 1.0, 1.2),
        ]
    for name in bench_lstm.WIDE:
        share = 100 * comparisons[name].flops() / 1e9 / peak
        figures.append(Figure(f"share of the multiply-add peak, {name}", share, 75, 90, unit="%"))
    figures.append(Figure("LSTM forward + backward against the textbook code", mean_over(eight, TEXTBOOK), 8, 15))
    return figures


def one_thread_row(run: Run) -> list[Figure]:
    eight = run.time_all(bench_lstm.lstm_case(name, threads=1, peers=("torch",)) for name in bench_lstm.SHAPES)
    return [Figure("the same at one thread against torch", mean_over(eight, "torch"), 1.2, 1.5)]


def avx2_row(run: Run) -> list[Figure]:
    eight = bench_lstm.compare_with_avx2_only(list(bench_lstm.SHAPES), run.effort)
    for comparison in eight:
        run.add(comparison)
    return [Figure("the same with AVX2 only on both sides", mean_over(eight, "torch"), 1.15, 1.5)]


def sine_row(run: Run) -> list[Figure]:
    comparison = run.time(bench_lstm.lstm_case("sine"))
    return [Figure("sine-sized calls against torch", comparison.ratio("torch"), 5, 10)]


def rnn_row(run: Run) -> list[Figure]:
    eight = run.time_all(bench_rnn.rnn_case(name, peers=("torch",)) for name in bench_lstm.SHAPES)
    return [Figure("tanh RNN forward + backward against torch, mean", mean_over(eight, "torch"), 1.5, 2.5)]


def dense_embedding_row(run: Run) -> list[Figure]:
    comparisons = run.time_all(bench_embedding.dense_case(*size) for size in bench_embedding.SIZES)
    figures = []
    for peer, bound, goal in (("np.add.at", 5, 20), ("torch", 2.5, 10)):
        if peer in comparisons[0].seconds:
            for side, how in ((bench_embedding.ALL_ZEROED, "all rows zeroed"), (OURS, "touched rows zeroed")):
                mean = mean_over(comparisons, peer, side)
                figures.append(Figure(f"dense embedding gradient, {how}, against {peer}, mean", mean, bound, goal))
    return figures


def row_gradient_row(run: Run) -> list[Figure]:
    comparisons = run.time_all(bench_embedding.rows_case(*size) for size in bench_embedding.SIZES)
    return [Figure("row gradient against torch's dense one, mean", mean_over(comparisons, "torch"), 3, 20)]


def linear_cross_entropy_rows(run: Run) -> list[Figure]:
    sizes = bench_losses.SIZES
    fast, low = (
        run.time_all(bench_losses.linear_cross_entropy_case(*size, memory, peers=("torch",)) for size in sizes)
        for memory in ("fast", "low")
    )
    extra = {
        side: [fresh_process.call(bench_losses.extra_memory, side, *size) for size in sizes]
        for side in ("fast", "low", "torch")
    }
    for side, extra_bytes in extra.items():
        beside = [b - bench_losses.gradient_bytes(*size) for b, size in zip(extra_bytes, sizes, strict=True)]
        say(f"  {side} needs {_megabytes(extra_bytes)} MB beside its inputs, {_megabytes(beside)} beside the gradients")
    beside_gradients = max(b - bench_losses.gradient_bytes(*size) for b, size in zip(extra["low"], sizes, strict=True))
    memory_ratio = max(ours / torch for ours, torch in zip(extra["fast"], extra["torch"], strict=True))
    return [
        Figure("linear cross entropy, fast, against torch, mean", mean_over(fast, "torch"), 1.05, 1.3),
        Figure("its peak memory as a share of torch's", memory_ratio, 0.7, 0.5, unit="", smaller=True),
        Figure("linear cross entropy, low memory, against torch, mean", mean_over(low, "torch"), 0.75, 0.9),
        Figure("its memory beside the gradients", beside_gradients / MEGABYTE, 4, 1, unit=" MB", smaller=True),
    ]


def _megabytes(sizes: Iterable[int]) -> str:
    return " and ".join(f"{size / MEGABYTE:.1f}" for size in sizes)


def nce_row(run: Run) -> list[Figure]:
    comparison = run.time(bench_sampling.nce_case(peers=("torch",)))
    return [Figure("NCE step against torch, sparse", comparison.ratio("torch"), 5, 10)]


def adam_rows(run: Run) -> list[Figure]:
    plain, clipped = (run.time(bench_optim.adam_case(clip=clip, peers=("torch",))) for clip in (False, True))
    return [
        Figure("Adam over 23.4M parameters against torch's fused", plain.ratio("torch"), 0.95, 1.0),
        Figure("Adam with clipping against torch's two calls", clipped.ratio("torch"), 0.95, 1.0),
    ]


def training_step_rows(run: Run) -> list[Figure]:
    comparisons = {name: run.time(make()) for name, make in bench_training_steps.CASES.items()}
    worst = min(comparisons, key=lambda name: comparisons[name].ratio("torch"))
    return [
        Figure("whole training steps against torch, mean", mean_over(list(comparisons.values()), "torch"), 1.4, 2.0),
        Figure(f"the worst of them ({worst})", comparisons[worst].ratio("torch"), 1.0, 1.2),
    ]


def numba_rows(run: Run) -> list[Figure]:
    lstm = run.time_all(bench_lstm.lstm_case(name, backend="numba", peers=(TEXTBOOK,)) for name in bench_lstm.SHAPES)
    embedding = run.time_all(
        bench_embedding.dense_case(*size, backend="numba", peers=("np.add.at",)) for size in bench_embedding.SIZES
    )
    nce = run.time(bench_sampling.nce_case(backend="numba", peers=(TEXTBOOK,)))
    return [
        Figure("Numba: LSTM against the textbook code, mean", mean_over(lstm, TEXTBOOK), 2, 4),
        Figure("Numba: dense embedding gradient against np.add.at, mean", mean_over(embedding, "np.add.at"), 4, 10),
        Figure("Numba: NCE step against the textbook code", nce.ratio(TEXTBOOK), 3, 6),
    ]


@dataclass(frozen=True)
class Row:
    """A word for ``--only``, what measures the row, and the backends and packages it needs."""

    word: str
    measure: Callable[[Run], list[Figure]]
    needs: tuple[str, ...] = ()


ROWS = (
    Row("lstm", lstm_rows),
    Row("thread", one_thread_row, ("torch",)),
    Row("avx2", avx2_row, ("torch",)),
    Row("sine", sine_row, ("torch",)),
    Row("rnn", rnn_row, ("torch",)),
    Row("dense", dense_embedding_row),
    Row("rows", row_gradient_row, ("torch",)),
    Row("loss", linear_cross_entropy_rows, ("torch",)),
    Row("nce", nce_row, ("torch",)),
    Row("adam", adam_rows, ("torch",)),
    Row("steps", training_step_rows, ("torch",)),
    Row("numba", numba_rows, ("numba",)),
)


def missing(row: Row) -> str | None:
    """The first package that the row needs and that is not installed."""
    import importlib.util

    return next((name for name in row.needs if importlib.util.find_spec(name) is None), None)


def show(figures: Sequence[Figure]) -> str:
    """A Markdown table."""
    cells = [("what", "bound", "goal", "measured", "reaches")] + [
        (f.label, f.show(f.bound), f.show(f.goal), f.show(f.value), f.verdict()) for f in figures
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = [
        f"| {row[0]:{widths[0]}} | {row[1]:>{widths[1]}} | {row[2]:>{widths[2]}} | {row[3]:>{widths[3]}} "
        f"| {row[4]:{widths[4]}} |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less time for each case, more noise")
    parser.add_argument("--only", metavar="WORD", nargs="+", choices=[row.word for row in ROWS], help="these rows")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures and times")
    options = parser.parse_args(arguments)

    start = time.perf_counter()
    described = machine.describe()
    for name, value in described.items():
        say(f"{name}: {value}")
    run = Run(QUICK if options.quick else FULL)
    figures: list[Figure] = []
    for row in ROWS:
        if options.only and row.word not in options.only:
            continue
        say(f"{row.word}, {time.perf_counter() - start:.0f} s")
        package = missing(row)
        if package:
            say(f"  left out: {package} is not installed")
            continue
        figures += row.measure(run)
    print(show(figures))
    say(f"{time.perf_counter() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(as_json(described, figures, run), indent=1) + "\n")


def as_json(described: dict[str, str], figures: Sequence[Figure], run: Run) -> dict[str, Any]:
    return {
        "machine": described,
        "figures": [
            {"label": f.label, "value": f.value, "unit": f.unit.strip(), "bound": f.bound, "goal": f.goal}
            | {"reaches": f.verdict()}
            for f in figures
        ],
        "cases": [comparison.as_json() for comparison in run.comparisons],
    }
