"""The suite's command line: ``python -m benchmarks``, the same as ``fastlstm bench``."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import curves, document, jobs, machine, memory, regressions, summary, table
from benchmarks.machine import say
from benchmarks.measure import FULL, QUICK, Effort
from fastlstm.cli.bench import add_options

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# Of --record: all of it within eight minutes.
RECORD = Effort(1.0, 5, 0.02)

# After so many seconds --quick begins no further case: on a busy machine a part is better than an hour.
QUICK_SECONDS = 80.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        sys.exit(_run(options))
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except (OSError, ValueError) as error:
        say(f"benchmarks: {error}")
        sys.exit(2)


def _run(options: argparse.Namespace) -> int:
    if options.docs or options.readme:
        if options.docs:
            document.write_page(Path(options.docs), ROOT)
        if options.readme:
            document.write_readme(Path(options.readme), ROOT)
        return 0
    unknown = sorted(set(options.only or ()) - {row.word for row in table.ROWS})
    if unknown:
        raise ValueError(f"--only knows no {unknown[0]}; expected of {', '.join(row.word for row in table.ROWS)}")
    if options.record and (options.quick or options.only):
        raise ValueError("--record measures everything; leave --quick and --only out")
    old = regressions.read(Path(options.compare)) if options.compare else None
    if options.json:
        Path(options.json).touch()  # better now than after minutes

    effort = QUICK if options.quick else RECORD if options.record else FULL
    result, run = _measure(options, effort)
    path = Path(options.json) if options.json else None
    if options.record:
        path = RESULTS / f"cpu-{machine.instruction_set()}-{machine.CORES}-threads.json"
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")
        say(f"written: {path}")
    if options.record and path:
        document.write_page(path, ROOT)
    if options.curves and result["curves"]:
        for picture in curves.draw_all(result["curves"], Path(options.curves)):
            say(f"written: {picture}")
    slower = _compare(old, result, run, effort) if old else []
    print(_text(result), flush=True)
    if slower:
        print("\nslower than before, in two runs:\n" + "\n".join(slower))
    return 1 if slower else 0


def _measure(options: argparse.Namespace, effort: Effort) -> tuple[dict[str, Any], table.Run]:
    """Everything that was asked for, as JSON."""
    start = time.perf_counter()
    described = machine.describe()
    for name, value in described.items():
        say(f"{name}: {value}")
    probe = machine.probe()
    for line in summary.probe_lines(probe):
        say(line)
    run = table.Run(effort, options.quick, start + QUICK_SECONDS if options.quick else math.inf)
    figures: list[table.Figure] = []
    for row in table.ROWS:
        if not _is_wanted(row, options):
            continue
        say(f"{row.word}, {time.perf_counter() - start:.0f} s")
        package = table.missing(row)
        if package:
            say(f"  left out: {package} is not installed")
            continue
        try:
            figures += row.measure(run)
        except table.OutOfTimeError:
            say(f"  --quick ends here after {QUICK_SECONDS:.0f} s: this row and those after it are not complete")
            break
    if time.perf_counter() < run.deadline:
        say(f"memory, {time.perf_counter() - start:.0f} s")
        memory.add_to(run.comparisons)
    result = {
        "run": _describe_run(options),
        "machine": described,
        "probe": probe,
        "figures": [figure.as_json() for figure in figures],
        "cases": [comparison.as_json() for comparison in run.comparisons],
        "jobs": jobs.measure_jobs(run.comparisons, effort, quick=options.quick) if _wants("jobs", options) else [],
        "curves": curves.measure_curves(quick=options.quick) if _wants("curves", options) else [],
    }
    result["run"]["seconds"] = round(time.perf_counter() - start)
    say(f"{result['run']['seconds']} s")
    return result, run


def _is_wanted(row: table.Row, options: argparse.Namespace) -> bool:
    if options.only:
        return row.word in options.only
    return row.quick if options.quick else not (options.record and row.minutes)


def _wants(what: str, options: argparse.Namespace) -> bool:
    return bool(options.record or getattr(options, what))


def _describe_run(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "effort": "quick" if options.quick else "record" if options.record else "full",
        "only": options.only or [],
    }


def _commit() -> str:
    """Of the source tree, with "+" if files were changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!benchmarks/results")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _compare(old: dict[str, Any], result: dict[str, Any], run: table.Run, effort: Effort) -> list[str]:
    differing = [name for name in ("processor", "fastlstm", "torch") if old["machine"][name] != result["machine"][name]]
    for name in differing:
        say(f"{name} differs: {old['machine'][name]} there, {result['machine'][name]} here")
    slower, common = regressions.find(old, run.comparisons, effort)
    if not common:
        raise ValueError("the older run has none of these cases")
    say(f"compared {common} cases: {len(slower)} slower by more than {regressions.LIMIT:.0%} in two runs")
    return slower


def _text(result: dict[str, Any]) -> str:
    parts = []
    if result["figures"]:
        parts.append(summary.figure_table(result["figures"]))
    if result["jobs"]:
        parts.append(summary.job_table(result["jobs"]))
    parts.append("\n".join(summary.probe_lines(result["probe"])))
    if result["cases"]:
        parts.append(f"{summary.operator_table(result)}\n\n{summary.EXPLAINED}")
    return "\n\n".join(parts)
