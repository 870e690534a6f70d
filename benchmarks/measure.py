"""Times of several sides of one comparison, taken in turn, and what follows from them.

Three things make a naive loop lie. The machine changes while it runs: so the sides take turns, A B A B, and medians are
compared. And the threads of torch and of OpenBLAS go on spinning after a call (10 ms and 100 ms were measured), on the
core that the other side's next call needs: so before every turn there is a pause in which they fall asleep, and one
call that is not timed, which wakes the threads of the side whose turn it is. And glibc hands large blocks back to the
system after each call, or keeps them, according to what was freed before: torch's LSTM took 40 or 57 ms at H = 650. So
a large block is freed first, after which it keeps them, as in a process that trains with a large vocabulary.
"""

from __future__ import annotations

import functools
import importlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.markdown import seconds as in_unit
from fastlstm import get_backend, use_backend
from fastlstm.contract import Array

OURS = "fastlstm"
OURS_EXACT = "fastlstm, float32"  # beside ours in another precision

TEXTBOOK = "textbook"
TUNED = "torch, tuned"  # with a common setting that helps torch here
# How a user of torch may compute: in float32, under bf16 autocast, with a module of bf16 weights.
AUTOCAST, TORCH_IN_BF16 = "torch, autocast", "torch, bf16 module"
WAYS_OF_TORCH = ("torch", AUTOCAST, TORCH_IN_BF16)

# A way of torch that takes so many times as long as another is not timed: without instructions for bf16, minutes.
FAR_SLOWER = 4

# Seconds until a side's threads sleep.
PAUSE = 0.02
PAUSE_AFTER_OPENBLAS = 0.15

LARGE_BLOCK = 31 << 20  # bytes; glibc's thresholds follow freed blocks of less than 32 MiB

LEAST_CALLS, MOST_CALLS = 3, 100
SLOW_CALL = 0.1  # seconds; of such calls a turn is one
MOST_ROUNDS = 25


@dataclass(frozen=True)
class Effort:
    """How long a case is timed.

    Attributes
    ----------
    seconds : float
        About so long in all, if the sides have taken turns ``least_rounds`` times by then.
    least_rounds : int
    turn : float
        Seconds that the calls of a turn fill, unless one call is slow or there are very many.
    """

    seconds: float
    least_rounds: int
    turn: float


FULL = Effort(2.0, 5, 0.02)
QUICK = Effort(0.2, 3, 0.01)


class Recipe(NamedTuple):
    """The call that makes a case: it can be made again, in another process too."""

    module: str
    function: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def make(self) -> Case:
        function = getattr(importlib.import_module(self.module), self.function)
        # JSON, which carries recipes to other processes, knows no tuples.
        arguments = (tuple(value) if isinstance(value, list) else value for value in self.arguments)
        case: Case = function(*arguments, **self.keywords)
        return case


def case_maker(function: Callable[..., Case]) -> Callable[..., Case]:
    """Decorates a function that makes a case of numbers and words: the case then knows how it was made."""

    @functools.wraps(function)
    def make(*arguments: Any, **keywords: Any) -> Case:
        case = function(*arguments, **keywords)
        case.recipe = Recipe(function.__module__, function.__name__, arguments, keywords)
        return case

    return make


@dataclass
class Case:
    """One comparison: the same work done by several sides.

    Attributes
    ----------
    family, name : str
        What is compared, and at which size.
    sides : dict of name to callable
        Each does the work once. The first is ours.
    check : callable
        Raises AssertionError unless the sides compute the same; called before anything is timed.
    operations : float
        Floating-point operations of the products in one call; 0 where they say nothing.
    backend : str or None
        Ours; None is the one that fastlstm chooses.
    threads : int
        Of every side.
    memory : bool
        Whether the memory of a side's first call says something: not where one side keeps what another gets.
    recipe : Recipe or None
        How it was made, by `case_maker`.
    """

    family: str
    name: str
    sides: dict[str, Callable[[], Any]]
    check: Callable[[], None]
    operations: float = 0.0
    backend: str | None = None
    threads: int = machine.CORES
    memory: bool = True
    recipe: Recipe | None = None


@dataclass
class Comparison:
    """The times of a case, in seconds.

    Attributes
    ----------
    family, name, operations, backend, threads
        Those of the case; the backend is the one that ran.
    recipe : Recipe or None
        The case's, if the memory of its sides says something.
    seconds : dict of side to list of float
    again : callable or None
        Measures the case once more, with the given effort.
    extra_bytes : dict of side to int
        Memory that a first call needs beside its inputs, its results included, where that was measured.
    """

    family: str
    name: str
    seconds: Mapping[str, list[float]]
    operations: float = 0.0
    backend: str = ""
    threads: int = machine.CORES
    recipe: Recipe | None = None
    again: Callable[[Effort], Comparison] | None = None
    extra_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is compared, without the size."""
        words = [self.family, self.backend or "", "1 thread" if self.threads == 1 else ""]
        return ", ".join(word for word in words if word)

    def median(self, side: str = OURS) -> float:
        return statistics.median(self.seconds[side])

    def spread(self, side: str) -> float:
        """Distance of the quartiles, as a share of the median."""
        lower, _, upper = statistics.quantiles(self.seconds[side], n=4, method="inclusive")
        return (upper - lower) / self.median(side)

    def ratio(self, peer: str, side: str = OURS) -> float:
        """How many times faster than the peer a side is."""
        return self.median(peer) / self.median(side)

    def ratio_to_torch(self) -> float:
        """How many times faster ours is than the fastest way of torch that was measured."""
        return min(self.ratio(way) for way in WAYS_OF_TORCH if way in self.seconds)

    def flops(self) -> float:
        """Ours, operations a second."""
        return self.operations / self.median()

    def line(self) -> str:
        sides = [
            f"{side} {in_unit(self.median(side))} ±{self.spread(side) / 2:.0%}"
            + ("" if side == OURS else f", {self.ratio(side):.2f}x")
            for side in self.seconds
        ]
        if self.operations:
            sides.insert(1, f"{self.flops() / 1e9:.0f} GFLOP/s")
        return f"{self.title}, {self.name}: {'; '.join(sides)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "name": self.name,
            "backend": self.backend,
            "threads": self.threads,
            "sides": {
                side: {
                    "median_s": self.median(side),
                    "spread": self.spread(side),
                    "calls": len(self.seconds[side]),
                    "ratio": self.ratio(side),
                    "extra_bytes": self.extra_bytes.get(side),
                }
                for side in self.seconds
            },
            "gflops": self.flops() / 1e9,
        }


# --------------------------------------------------------------------------------------------
# Timing
# --------------------------------------------------------------------------------------------


def take_turn(case: Case, side: str, *, wake: bool = True) -> None:
    """Let the threads of the side before fall asleep and, unless told not to, wake those of this one."""
    sides = list(case.sides)
    before = sides[sides.index(side) - 1]
    time.sleep(PAUSE_AFTER_OPENBLAS if before == TEXTBOOK else PAUSE)
    if wake:
        case.sides[side]()


def time_calls(call: Callable[[], Any], calls: int) -> list[float]:
    """Seconds of each of ``calls`` calls in a row."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class Plan:
    """How many rounds, and how many calls of each side in a turn. Where that is one call, waking threads is nothing."""

    rounds: int
    calls: Mapping[str, int]

    def take_turn(self, case: Case, side: str) -> None:
        take_turn(case, side, wake=self.calls[side] > 1)

    def turn(self, case: Case, side: str) -> list[float]:
        self.take_turn(case, side)
        return time_calls(case.sides[side], self.calls[side])


def plan(case: Case, effort: Effort) -> Plan:
    """Rounds that take about as long as they should: a call of each side is timed to know."""
    once = {}
    for side, call in case.sides.items():
        take_turn(case, side)
        (once[side],) = time_calls(call, 1)
    calls = {side: _calls_in_a_turn(call_seconds, effort) for side, call_seconds in once.items()}
    a_round = sum(PAUSE + (1 + calls[side]) * once[side] for side in once)
    return Plan(min(max(math.ceil(effort.seconds / a_round), effort.least_rounds), MOST_ROUNDS), calls)


def _calls_in_a_turn(once: float, effort: Effort) -> int:
    return 1 if once > SLOW_CALL else min(max(math.ceil(effort.turn / once), LEAST_CALLS), MOST_CALLS)


def check(case: Case) -> None:
    """Compare the sides' results. Leaves no thread spinning, and an allocator that keeps large blocks."""
    case.check()
    np.zeros(LARGE_BLOCK, np.uint8)
    time.sleep(PAUSE_AFTER_OPENBLAS)  # numpy computed the definition


def compare(case: Case, effort: Effort) -> Comparison:
    """Check a case, then time its sides in turn."""
    with use_backend(case.backend or get_backend()), machine.same_threads(case.threads):
        check(case)
        rounds = plan(case, effort)
        times: dict[str, list[float]] = {side: [] for side in case.sides}
        for _ in range(rounds.rounds):
            for side in case.sides:
                times[side] += rounds.turn(case, side)
        return record(case, times)


def record(case: Case, times: Mapping[str, list[float]]) -> Comparison:
    """What was measured of a case, with the backend that is chosen now."""
    recipe = case.recipe if case.memory else None
    again = case.recipe and (lambda effort, make=case.recipe.make: compare(make(), effort))
    return Comparison(
        case.family, case.name, times, case.operations, case.backend or get_backend(), case.threads, recipe, again
    )


# --------------------------------------------------------------------------------------------
# Checking
# --------------------------------------------------------------------------------------------


def ways_of_torch(make: Callable[[str], Callable[[], Any]], ways: Sequence[str] = WAYS_OF_TORCH) -> dict[str, Any]:
    """What ``make`` makes for each of the ways, without those that do not run here or take far longer."""
    sides: dict[str, Any] = {}
    least = math.inf
    for way in ways:
        peer = make(way)
        start = time.perf_counter()
        try:
            peer()
        except RuntimeError as error:  # oneDNN has no primitive for this processor
            machine.say(f"{type(peer).__name__}, {way}, is left out: {error}")
            continue
        seconds = time.perf_counter() - start
        if seconds > FAR_SLOWER * least:
            machine.say(f"{type(peer).__name__}, {way}, is left out: it takes {seconds / least:.0f} times as long")
            continue
        least = min(least, seconds)
        sides[way] = make(way)  # a training step of its own weights
    return sides


def agree(what: str, got: Mapping[str, Array], want: Mapping[str, Array], tolerance: float) -> None:
    """Every array of ``want`` stands in ``got``, equal within ``tolerance * max(1, max|want|)``."""
    for name, expected in want.items():
        expected = np.asarray(expected)
        difference = float(np.abs(np.asarray(got[name], np.float64) - expected).max(initial=0.0))
        limit = tolerance * max(1.0, float(np.abs(expected).max(initial=0.0)))
        # A NaN fails too.
        if not difference <= limit:
            raise AssertionError(f"{what}: {name} differs by {difference:.3g}, allowed are {limit:.3g}")
