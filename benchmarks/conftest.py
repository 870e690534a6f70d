"""Both sides on two cores; the machine in the header; every comparison and the geometric means at the end."""

from __future__ import annotations

# The cores are chosen before numpy starts its threads.
from benchmarks import machine

machine.pin_to_two_cores()
machine.let_numpy_choose_its_kernels()

import itertools  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402

from benchmarks import measure  # noqa: E402
from benchmarks.measure import OURS, Case, Comparison  # noqa: E402
from fastlstm import get_backend, use_backend  # noqa: E402

_compared = pytest.StashKey[list[Comparison]]()

Compare = Callable[[Case], Comparison | None]
Report = Callable[[Comparison], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_compared] = []


def pytest_report_header() -> list[str]:
    return [f"{name}: {value}" for name, value in machine.describe().items()]


@pytest.fixture
def report(benchmark: Any, request: pytest.FixtureRequest) -> Report:
    """Adds a comparison to the summary, and its ratios to pytest-benchmark's record."""

    def add(comparison: Comparison) -> None:
        request.config.stash[_compared].append(comparison)
        for peer in comparison.seconds:
            if peer != OURS:
                benchmark.extra_info[f"{peer} median s"] = comparison.median(peer)
                benchmark.extra_info[f"times faster than {peer}"] = comparison.ratio(peer)

    return add


@pytest.fixture
def compare(benchmark: Any, report: Report) -> Compare:
    """Checks a case and times it, unless timing is off: our calls by pytest-benchmark, the peers' in turn with them."""

    def check_and_time(case: Case) -> Comparison | None:
        benchmark.group = f"{case.family}, {case.name}"
        with use_backend(case.backend or get_backend()), machine.same_threads(case.threads):
            measure.check(case)
            if benchmark.disabled:
                benchmark(case.sides[OURS])
                return None
            comparison = _time(benchmark, case)
        report(comparison)
        return comparison

    return check_and_time


def _time(benchmark: Any, case: Case) -> Comparison:
    plan = measure.plan(case, measure.FULL)
    times: dict[str, list[float]] = {side: [] for side in case.sides}
    calls = itertools.count()

    def peers_in_turn() -> None:
        if next(calls) % plan.calls[OURS] == 0:
            for peer in list(case.sides)[1:]:
                times[peer] += plan.turn(case, peer)
            plan.take_turn(case, OURS)

    benchmark.pedantic(case.sides[OURS], setup=peers_in_turn, rounds=plan.rounds * plan.calls[OURS], iterations=1)
    times[OURS] = list(benchmark.stats.stats.data)
    return measure.record(case, times)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    compared = config.stash[_compared]
    if not compared:
        return
    terminalreporter.section("how many times faster than the peers")
    for family, members in itertools.groupby(compared, lambda comparison: comparison.title):
        comparisons = list(members)
        for comparison in comparisons:
            terminalreporter.write_line(comparison.line())
        for peer in comparisons[0].seconds:
            if peer != OURS and len(comparisons) > 1:
                ratios = [comparison.ratio(peer) for comparison in comparisons if peer in comparison.seconds]
                mean = statistics.geometric_mean(ratios)
                terminalreporter.write_line(f"{family}: geometric mean {mean:.2f}x {peer}, lowest {min(ratios):.2f}x")
