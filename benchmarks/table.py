"""The rows of the suite: which cases are measured, and what was promised of them, bound and goal."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import geometric_mean
from typing import Any

from benchmarks import (
    bench_dlfs2,
    bench_embedding,
    bench_gru,
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
from benchmarks.measure import OURS, OURS_EXACT, TEXTBOOK, Case, Comparison, Effort

MEGABYTE = 1e6


@dataclass(frozen=True)
class Figure:
    """One number of a row with what it has to reach. ``smaller`` is better for memory."""

    label: str
    value: float
    bound: float
    goal: float
    unit: str = "x"  # "x", "%", "MB" or "", a share
    smaller: bool = False

    def verdict(self) -> str:
        if self._reaches(self.goal):
            return "goal"
        return "bound" if self._reaches(self.bound) else "below"

    def _reaches(self, limit: float) -> bool:
        return self.value <= limit if self.smaller else self.value >= limit

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "value": self.value,
            "unit": self.unit,
            "bound": self.bound,
            "goal": self.goal,
            "reaches": self.verdict(),
        }


class OutOfTimeError(Exception):
    """The run's deadline has passed."""


@dataclass
class Run:
    """One run over the table: how long to time each case, whether to take few of the sizes, and everything timed."""

    effort: Effort
    quick: bool = False
    deadline: float = math.inf  # by time.perf_counter(); no case begins after it
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def shapes(self) -> tuple[str, ...]:
        """Of the recurrent layers."""
        return bench_lstm.QUICK_SHAPES if self.quick else tuple(bench_lstm.SHAPES)

    def check_time(self) -> None:
        if time.perf_counter() > self.deadline:
            raise OutOfTimeError

    def time(self, case: Case) -> Comparison:
        self.check_time()
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
    comparisons = {name: run.time(bench_lstm.lstm_case(name)) for name in run.shapes}
    shapes = list(comparisons.values())
    figures = []
    if machine.torch_or_none():
        slowest = min(comparisons, key=lambda name: comparisons[name].ratio("torch"))
        figures += [
            Figure(
                f"LSTM forward + backward against torch, mean of {len(shapes)} shapes",
                mean_over(shapes, "torch"),
                1.5,
                2.0,
            ),
            Figure(f"the slowest of them ({slowest})", comparisons[slowest].ratio("torch"), 1.0, 1.2),
        ]
    for name in set(bench_lstm.WIDE) & set(run.shapes) if machine.can_probe() else ():
        share = 100 * comparisons[name].flops() / 1e9 / machine.fma_peak()
        figures.append(Figure(f"share of the multiply-add peak, {name}", share, 75, 90, unit="%"))
    figures.append(Figure("LSTM forward + backward against the textbook code", mean_over(shapes, TEXTBOOK), 8, 15))
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


def one_row_rows(run: Run) -> list[Figure]:
    cells, step = run.time(bench_lstm.cells_case()), run.time(bench_rnn.step_case())
    calls, times = bench_lstm.ONE_ROW[1], 1 / cells.ratio(bench_lstm.SEQUENCE)
    return [
        Figure(f"{calls} calls of the LSTM cell, times what the sequence takes", times, 4, 2, smaller=True),
        Figure("a step of the RNN against numpy's two products", step.ratio(bench_rnn.PRODUCTS), 1.0, 1.5),
    ]


def layout_rows(run: Run) -> list[Figure]:
    figures = []
    for layout in (bench_lstm.TORCH_WEIGHTS, bench_lstm.TIME_FIRST):
        comparisons = run.time_all(bench_lstm.layout_case(name, layout) for name in run.shapes)
        mean = mean_over(comparisons, bench_lstm.OUR_LAYOUT)
        figures.append(Figure(f"LSTM, {layout}, against ours, mean of {len(comparisons)} shapes", mean, 0.97, 1.0))
    return figures


def gru_row(run: Run) -> list[Figure]:
    eight = run.time_all(bench_gru.gru_case(name) for name in run.shapes)
    return [Figure("GRU forward + backward against torch, mean", mean_over(eight, "torch"), 1.5, 2.5)]


def rnn_row(run: Run) -> list[Figure]:
    eight = run.time_all(bench_rnn.rnn_case(name) for name in run.shapes)
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
    sizes = bench_losses.SIZES[: 1 if run.quick else None]
    fast, low = (
        run.time_all(bench_losses.linear_cross_entropy_case(*size, memory, peers=peers) for size in sizes)
        for memory, peers in (("fast", ("torch", TEXTBOOK)), ("low", ("torch",)))
    )
    run.time_all(bench_losses.reduction_case(*size) for size in sizes)
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
        Figure("its memory beside the gradients", beside_gradients / MEGABYTE, 4, 1, unit="MB", smaller=True),
    ]


def bf16_row(run: Run) -> list[Figure]:
    losses = run.time_all(
        bench_losses.linear_cross_entropy_case(*size, "fast", precision="bf16", peers=("torch",))
        for size in bench_losses.SIZES
    )
    run.time_all(
        bench_losses.matrix_product_case(*size, precision=precision)
        for size in bench_losses.PRODUCT_SIZES
        for precision in ("float32", "bf16")
    )
    lstm = run.time_all(bench_lstm.lstm_bf16_case(name) for name in bench_lstm.BF16_SHAPES)
    run.time(bench_gru.gru_bf16_case("ptb"))
    run.time(bench_rnn.rnn_bf16_case("ptb"))
    steps = run.time_all(make("bf16") for make in bench_training_steps.IN_BF16.values())
    if not machine.has_bf16():
        return []  # rounded in software, it is not meant to be faster

    def slowest(comparisons: list[Comparison], peer: str = OURS_EXACT) -> float:
        return min(comparison.ratio(peer) for comparison in comparisons)

    figures = [
        Figure("linear cross entropy in bf16 against ours in float32, the slower size", slowest(losses), 1.5, 1.7),
        Figure("LSTM in bf16 against ours in float32, the slowest size", slowest(lstm), 1.45, 1.75),
        Figure("whole steps in bf16 against ours in float32, the slower one", slowest(steps), 1.4, 1.7),
    ]
    if machine.torch_or_none():
        lstm_to_torch = geometric_mean(comparison.ratio_to_torch() for comparison in lstm)
        step_to_torch = min(comparison.ratio_to_torch() for comparison in steps)
        figures += [
            Figure("LSTM in bf16 against the best of torch, mean", lstm_to_torch, 1.45, 1.9),
            Figure("whole steps in bf16 against the best of torch, the slower one", step_to_torch, 1.4, 1.8),
            Figure("whole steps in bf16 against torch in float32, the slower one", slowest(steps, "torch"), 2.5, 3),
        ]
    return figures


def _megabytes(sizes: Iterable[int]) -> str:
    return " and ".join(f"{size / MEGABYTE:.1f}" for size in sizes)


def nce_row(run: Run) -> list[Figure]:
    comparison = run.time(bench_sampling.nce_case())
    return [Figure("NCE step against torch, sparse", comparison.ratio("torch"), 5, 10)]


def adam_rows(run: Run) -> list[Figure]:
    plain, clipped = (run.time(bench_optim.adam_case(clip=clip)) for clip in (False, True))
    return [
        Figure("Adam over 23.4M parameters against torch's fused", plain.ratio("torch"), 0.95, 1.0),
        Figure("Adam with clipping against torch's two calls", clipped.ratio("torch"), 0.95, 1.0),
    ]


def training_step_rows(run: Run) -> list[Figure]:
    comparisons = {
        name: run.time(make())
        for name, make in bench_training_steps.CASES.items()
        if not run.quick or name in bench_training_steps.QUICK
    }
    worst = min(comparisons, key=lambda name: comparisons[name].ratio("torch"))
    return [
        Figure("whole training steps against torch, mean", mean_over(list(comparisons.values()), "torch"), 1.4, 2.0),
        Figure(f"the worst of them ({worst})", comparisons[worst].ratio("torch"), 1.0, 1.2),
    ]


def dlfs2_row(run: Run) -> list[Figure]:
    # A script takes seconds: few rounds.
    scripts = replace(run, effort=replace(run.effort, least_rounds=3))
    comparisons = scripts.time_all(bench_dlfs2.script_case(name) for name in bench_dlfs2.SCRIPTS)
    return [
        Figure("whole scripts of the book's style against the textbook code", mean_over(comparisons, TEXTBOOK), 3, 5)
    ]


def numba_rows(run: Run) -> list[Figure]:
    lstm = run.time_all(bench_lstm.lstm_case(name, backend="numba", peers=(TEXTBOOK,)) for name in run.shapes)
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
    """One part of the suite.

    Attributes
    ----------
    word : str
        For ``--only``.
    measure : callable
        Times its cases and returns what was promised of them, maybe nothing.
    needs : tuple of str
        Packages without which it is left out.
    quick : bool
        Whether it belongs to ``--quick``.
    minutes : bool
        Whether it takes minutes: then it runs in the full table and where it is asked for alone.
    """

    word: str
    measure: Callable[[Run], list[Figure]]
    needs: tuple[str, ...] = ()
    quick: bool = True
    minutes: bool = False


ROWS = (
    Row("lstm", lstm_rows),
    Row("thread", one_thread_row, ("torch",), quick=False),
    Row("avx2", avx2_row, ("torch",), quick=False),
    Row("sine", sine_row, ("torch",)),
    Row("row", one_row_rows),
    Row("layouts", layout_rows),
    Row("gru", gru_row, ("torch",)),
    Row("rnn", rnn_row, ("torch",)),
    Row("dense", dense_embedding_row),
    Row("rows", row_gradient_row, ("torch",)),
    Row("loss", linear_cross_entropy_rows, ("torch",)),
    Row("bf16", bf16_row, quick=False),
    Row("nce", nce_row, ("torch",)),
    Row("adam", adam_rows, ("torch",)),
    Row("steps", training_step_rows, ("torch",)),
    Row("dlfs2", dlfs2_row, quick=False, minutes=True),
    Row("numba", numba_rows, ("numba",)),
)


def missing(row: Row) -> str | None:
    """The first package that the row needs and that is not installed."""
    return next((name for name in row.needs if importlib.util.find_spec(name) is None), None)
