"""Pages of figures, with their pictures, and the figures of the README: written from the JSON of runs, never by hand.

docs/benchmarks.md is that of the instruction set avx512; others have docs/benchmarks-avx2.md and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks import curves, regressions, summary
from benchmarks.machine import say
from benchmarks.markdown import markdown_table, seconds
from benchmarks.measure import OURS, TEXTBOOK, WAYS_OF_TORCH

PAGES, PICTURES, OVERVIEW = Path("docs"), Path("docs/pictures"), "overview.png"
BEGIN, END = "<!-- figures: begin", "<!-- figures: end -->"
TRAINING_STEP = "training step"  # the family of whole steps of models
# What the README says of machines other than that of its table.
MENTIONED = (TRAINING_STEP, *(f"{cell} forward + backward" for cell in ("LSTM", "GRU", "tanh RNN")))

Result = Mapping[str, Any]


def page_name(result: Result) -> str:
    """Of the page, without its ending, and of the folder of its pictures; each kept result has its own."""
    instructions = _instructions(result).split(",")[0]
    return "benchmarks" if instructions == "avx512" else f"benchmarks-{instructions}"


def _instructions(result: Result) -> str:
    """The instruction set and the number of threads."""
    return str(result["machine"]["fastlstm"]).split("instruction set ")[1]


def write_page(path: Path, root: Path) -> None:
    """The page and all pictures, from the result in ``path``, below ``root``."""
    result = regressions.read(path)
    pictures = root / PICTURES / page_name(result)
    pictures.mkdir(parents=True, exist_ok=True)
    draw_overview(result, pictures / OVERVIEW)
    curves.draw_all(result["curves"], pictures)
    written = root / PAGES / f"{page_name(result)}.md"
    written.write_text(page(result, path.resolve().relative_to(root).as_posix()))
    say(f"written: {written} and pictures in {pictures}")


def page(result: Result, source: str) -> str:
    """docs/benchmarks.md, or that of another instruction set."""
    run = result["run"]
    pictures = f"pictures/{page_name(result)}"
    parts = [
        "# Benchmarks",
        f"<!-- Written by `python -m benchmarks --docs {source}`. Change nothing here by hand. -->",
        _where_from(result, source),
        "\n".join(f"- {name}: {value}" for name, value in result["machine"].items()),
        "\n".join(f"- {line}" for line in summary.probe_lines(result["probe"])),
        f"![times as fast as PyTorch and as from-scratch numpy code]({pictures}/{OVERVIEW})",
    ]
    if run["effort"] == "quick" or run["only"]:
        parts.insert(2, "**A short or partial run: these figures are not those of the project.**")
    if result["cases"]:
        parts += ["## Operators and training steps", summary.EXPLAINED, summary.operator_table(result)]
    if result["figures"]:
        parts += ["## What was promised", summary.figure_table(result["figures"])]
    if result["jobs"]:
        parts += ["## Whole jobs", summary.job_table(result["jobs"])]
    if result["curves"]:
        parts.append("## Cost as work grows")
        parts.append(
            "Dashed: what the multiply-adds alone would take at the measured peak. The sentences are written from the "
            "points: two straight lines in logarithmic scales are fitted to them, and where their powers differ by "
            f"more than {curves.LARGEST_BEND}, that is called a bend."
        )
        for letter in dict.fromkeys(curve["letter"] for curve in result["curves"]):
            parts.append(f"![cost over {letter}]({pictures}/cost-{letter}.png)")
            for curve in result["curves"]:
                if curve["letter"] == letter:
                    parts.append(f"{curve['title']}. {' '.join(curve['sentences'])}")
    return "\n\n".join(parts) + "\n"


def _where_from(result: Result, source: str) -> str:
    run = result["run"]
    return (
        f"Measured on {run['date']} at commit {run['commit']} in {run['seconds']} seconds, kept in "
        f"[{source}](../{source}). `fastlstm bench` in the source tree measures your machine; how to read the figures "
        "stands in [CONTRIBUTING.md](../CONTRIBUTING.md)."
    )


# --------------------------------------------------------------------------------------------
# Overview
# --------------------------------------------------------------------------------------------


def groups(result: Result, *, each_step: bool = True) -> list[dict[str, Any]]:
    """Operators and training steps with the geometric mean of their sizes; the fastest backend, all threads.

    each_step : every training step by itself.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    best = str(result["machine"]["fastlstm"]).split("backend ")[1].split(",")[0]
    for case in result["cases"]:
        if case["backend"] == best and case["threads"] > 1:
            name = case["family"]
            if each_step and name == TRAINING_STEP:
                name += f": {case['name'].split(' V')[0]}"
            if case["name"].endswith(" bf16"):
                name += ", bf16"
            found.setdefault(name, []).append(case)
    return [{"name": name, "cases": cases, "ratios": _ratios(cases)} for name, cases in found.items()]


def _ratios(cases: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    ratios = {}
    for label, peers in (("PyTorch", WAYS_OF_TORCH), ("numpy from scratch", (TEXTBOOK, "np.add.at"))):
        found = [[case["sides"][peer]["ratio"] for peer in peers if peer in case["sides"]] for case in cases]
        if values := [min(of_case) for of_case in found if of_case]:
            ratios[label] = geometric_mean(values)
    return ratios


def draw_overview(result: Result, path: Path) -> None:
    """Bars: how many times as fast as PyTorch and as from-scratch code."""
    from matplotlib.figure import Figure

    shown = [group for group in groups(result) if group["ratios"]][::-1]
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(shown)), layout="constrained")
    axes = figure.add_subplot(title="Times as fast as the same work in", xscale="log")
    for k, (label, colour) in enumerate((("numpy from scratch", "C2"), ("PyTorch", "C1"))):
        places = [
            (row + 0.38 * k - 0.19, group["ratios"][label])
            for row, group in enumerate(shown)
            if label in group["ratios"]
        ]
        bars = axes.barh(
            [place for place, _ in places], [value for _, value in places], 0.36, color=colour, label=label
        )
        axes.bar_label(bars, [f"{value:.1f}" for _, value in places], padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [group["name"] for group in shown])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(which="minor", labelbottom=False)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=2, reverse=True)
    figure.savefig(path, dpi=110)


# --------------------------------------------------------------------------------------------
# README
# --------------------------------------------------------------------------------------------


def write_readme(path: Path, root: Path) -> None:
    """Replace what stands between the marks of the README's figures."""
    readme = root / "README.md"
    text = readme.read_text()
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise ValueError(f"{readme} has no lines that begin with {BEGIN!r} and {END!r}, in this order")
    begin = text.index("\n", begin) + 1
    others = [regressions.read(other) for other in sorted(path.parent.glob("cpu-*.json")) if other.name != path.name]
    readme.write_text(text[:begin] + readme_figures(regressions.read(path), others) + text[end:])
    say(f"written: {readme}")


def readme_figures(result: Result, others: Sequence[Result]) -> str:
    """One picture and a line for every operator, whole training steps first; a sentence for every other machine."""
    machine, run = result["machine"], result["run"]
    rows = []
    for group in sorted(groups(result, each_step=False), key=lambda group: group["name"] != TRAINING_STEP):
        ratios = [group["ratios"].get(label) for label in ("PyTorch", "numpy from scratch")]
        if not any(ratios):  # compared with our own other ways alone
            continue
        cases = group["cases"]
        longest = max(cases, key=lambda case: case["sides"][OURS]["median_s"])
        times = seconds(longest["sides"][OURS]["median_s"])
        what = "models" if group["name"] == TRAINING_STEP else "sizes"
        sizes = f", mean of {len(cases)} {what}" if len(cases) > 1 else ""
        rows.append((group["name"] + sizes, times, *("" if ratio is None else f"{ratio:.1f}x" for ratio in ratios)))
    header = ("work", "longest call", "PyTorch takes", "numpy from scratch takes")
    page = f"{PAGES}/{page_name(result)}.md"
    elsewhere = "".join(f"{_of_another_machine(other)}\n\n" for other in others)
    return (
        f"{machine['processor']}, {_peak(result)}; fastlstm {machine['fastlstm']}; torch {machine['torch']}; "
        f"float32, {run['date']}, commit {run['commit']}. Results are compared before anything is timed, sides take "
        "turns, medians; in lines of bf16 PyTorch is the fastest of its float32, autocast and bf16 modules:\n\n"
        f"![times as fast as PyTorch and as from-scratch numpy code]({PICTURES}/{page_name(result)}/{OVERVIEW})\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"{elsewhere}"
        '`fastlstm bench` in the source tree prints the whole table on your machine (`pip install ".[bench]"`,\n'
        "and torch for its column), `--quick` in less than two minutes; `pytest benchmarks/ --benchmark-only` times\n"
        "every case with pytest-benchmark. All figures, curves and whole jobs:\n"
        f"[{page}]({page}). Where a goal was not reached, and why:\n"
        "[docs/results.md](docs/results.md).\n"
    )


def _of_another_machine(result: Result) -> str:
    machine, run, page = result["machine"], result["run"], f"{PAGES}/{page_name(result)}.md"
    means = {group["name"]: group["ratios"] for group in groups(result, each_step=False)}
    ratios = ", ".join(
        f"{name} {means[name]['PyTorch']:.1f}x" for name in MENTIONED if "PyTorch" in means.get(name, {})
    )
    return (
        f"On another machine ({machine['processor']}, {_instructions(result)}, {_peak(result)}, {run['date']}, "
        f"commit {run['commit']}) PyTorch takes ([{page}]({page})): {ratios}."
    )


def _peak(result: Result) -> str:
    """What decides how much is left to gain beside the products."""
    return f"{result['probe']['multiply_add_gflops']['1']:.0f} GFLOP/s a core in float32"
