"""What the benchmarks on a GPU share: times between device events, and a command that measures case after case."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastlstm import __version__

# Of a case, a named tuple, in so many seconds: its fields, and what was found.
Measure = Callable[[Any, float], dict[str, Any]]


def milliseconds(call: Callable[[], Any], seconds: float, make_event: Callable[[], Any], elapsed: Any) -> list[float]:
    """Measures each call, between device events, warm."""
    for _ in range(3):
        call()
    times: list[float] = []
    end_of_turn = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end_of_turn and len(times) < 50):
        start, end = make_event(), make_event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(float(elapsed(start, end)))
    return times


def of_cupy(call: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of what runs on CuPy's stream."""
    import cupy

    return milliseconds(call, seconds, cupy.cuda.Event, cupy.cuda.get_elapsed_time)


def of_torch(call: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of what runs on torch's stream."""
    import torch

    return milliseconds(
        call, seconds, lambda: torch.cuda.Event(enable_timing=True), lambda start, end: start.elapsed_time(end)
    )


def in_turns(sides: Mapping[str, Callable[[], Any]], seconds: float, turns: int = 2) -> dict[str, list[float]]:
    """Milliseconds of each side's calls; the one with the name "torch" is torch's."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, call in sides.items():
            times[name] += (of_torch if name == "torch" else of_cupy)(call, seconds / turns / len(sides))
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {side: statistics.median(values) for side, values in times.items()}


def counts(times: Mapping[str, list[float]]) -> dict[str, int]:
    return {side: len(values) for side, values in times.items()}


def about() -> dict[str, Any]:
    """The device, the driver, the versions and the commit."""
    import cupy
    import torch

    device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "device": device["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "commit": git.stdout.strip() or "unknown",
        "date": dt.date.today().isoformat(),
        "versions": {
            "fastlstm": __version__,
            "cupy": cupy.__version__,
            "torch": torch.__version__,
            "cuda of torch": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        },
    }


def parser_of(description: str | None, seconds: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help="for all of it together")
    parser.add_argument("--out", type=Path, help="JSON file; by default named after the device, in benchmarks/results")
    return parser


def measure_all(cases: Sequence[Any], measure: Measure, seconds: float) -> Iterator[dict[str, Any]]:
    """What `measure` says of each case, in their order, as far as the time goes."""
    end = time.perf_counter() + seconds
    for case in cases:
        if time.perf_counter() > end:
            return
        try:
            yield measure(case, seconds / len(cases) * 0.6)
        except Exception as error:  # one that fails must not cost the others their turn
            yield {**case._asdict(), "error": f"{type(error).__name__}: {error}"}


def write(out: Path | None, family: str, report: dict[str, Any]) -> None:
    """Report, with what `about` says, to the file."""
    found = about()
    name = found["device"].lower().replace(" ", "-")
    out = out or Path(__file__).parent / "results" / f"gpu-{name}-{family}.json"
    out.write_text(json.dumps({**found, **report}, indent=1) + "\n")
    print(f"{found['device']}, driver {found['driver']}, commit {found['commit']}; all of it in {out}")


def main(
    family: str,
    cases: Sequence[Any],
    measure: Measure,
    table: Callable[[Sequence[dict[str, Any]]], str],
    *,
    description: str | None,
    seconds: float,
    arguments: Sequence[str] | None = None,
) -> int:
    """The command of a family: every case measured, into a file and a table. 1 where one failed."""
    options = parser_of(description, seconds).parse_args(arguments)
    results = list(measure_all(cases, measure, options.seconds))
    write(options.out, family, {"not_measured": len(cases) - len(results), family: results})
    print(f"{len(results)} of {len(cases)}; medians:")
    print(table(results))
    return 1 if any("error" in result for result in results) else 0
