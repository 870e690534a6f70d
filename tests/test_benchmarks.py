"""The suite's own parts: what it tells, and where `fastlstm bench` finds it. No time is judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastlstm
from fastlstm.cli import main

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="the suite is not beside the tests")


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules, imported as they are from the source tree."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    names = ("curves", "document", "measure", "regressions", "summary")
    return {name: importlib.import_module(f"benchmarks.{name}") for name in names}


def comparison(suite: Any, ours: float, torch: float, again: Any = None) -> Any:
    seconds = {"fastlstm": [ours] * 3, "torch": [torch] * 3}
    return suite["measure"].Comparison("LSTM", "small", seconds, 1e9, "cpp", 2, again=again)


def result(suite: Any, *comparisons: Any) -> dict[str, Any]:
    return {
        "run": {"date": "2020-02-02", "commit": "abc", "effort": "full", "only": [], "seconds": 3},
        "machine": {"processor": "a processor", "fastlstm": "1, backend cpp, instruction set avx512, x", "torch": "2"},
        "probe": {"multiply_add_gflops": {"1": 50.0, "2": 100.0}, "read_gb_per_second": {}},
        "figures": [],
        "cases": [c.as_json() for c in comparisons],
        "jobs": [
            {"job": "j", "unit": "s", "values": {"fastlstm": 2.0, "torch": 5.0}, "smaller_is_better": True, "how": "h"}
        ],
        "curves": [],
    }


def test_the_table_says_ratio_share_and_memory(suite: Any) -> None:
    timed = comparison(suite, 0.1, 0.15)
    timed.extra_bytes.update({"fastlstm": 2_000_000, "torch": 3_000_000})
    line = suite["summary"].operator_table(result(suite, timed)).splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["LSTM", "small", "cpp", "100 ms", "0%", "–", "1.50x", "–", "–", "10", "10%", "2.0 MB", "3.0 MB"]


def test_a_slower_case_is_told_after_a_second_run_only(suite: Any) -> None:
    find, FULL = suite["regressions"].find, suite["measure"].FULL
    old = result(suite, comparison(suite, 0.1, 0.2))
    for first, second, told in (
        ((0.12, 0.2), (0.12, 0.2), 1),
        ((0.12, 0.2), (0.1, 0.2), 0),  # not confirmed
        ((0.12, 0.24), (0.12, 0.24), 0),  # the machine was slower
        ((0.107, 0.2), (0.2, 0.2), 0),  # within the limit
    ):
        lines, common = find(old, [comparison(suite, *first, again=lambda _, s=second: comparison(suite, *s))], FULL)
        assert common == 1
        assert len(lines) == told, (first, second)


def test_a_bend_is_found_where_it_is(suite: Any) -> None:
    xs = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    place, before, behind = suite["curves"].bend(xs, np.where(xs < 16, 3.0, 3.0 * xs / 16))
    assert (place, round(before, 6), round(behind, 6)) == (16, 0, 1)
    curve = {"letter": "N", "values": xs.tolist(), "seconds": {"fastlstm": (xs * 2.0).tolist()}}
    (said,) = suite["curves"].sentences({**curve, "bytes": {}, "limit_seconds": []}, "why")
    assert said == "The time has no bend: it grows with the power 1.00 of N."


def test_page_and_readme_are_written_from_the_json(suite: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'fastlstm[train]'")
    (tmp_path / "docs").mkdir()
    source = tmp_path / "run.json"
    alone = comparison(suite, 0.1, 0.15)
    alone.family, alone.seconds = "compared with nobody", {"fastlstm": alone.seconds["fastlstm"]}
    source.write_text(json.dumps(result(suite, comparison(suite, 0.1, 0.15), alone)))
    (tmp_path / "README.md").write_text("a\n<!-- figures: begin. x -->\nold\n<!-- figures: end -->\nb\n")
    suite["document"].write_page(source, tmp_path)
    suite["document"].write_readme(source, tmp_path)
    page, readme = (tmp_path / "docs" / "benchmarks.md").read_text(), (tmp_path / "README.md").read_text()
    assert "2020-02-02 at commit abc" in page
    assert "| torch 5 |" in " ".join(page.split())
    assert (tmp_path / "docs/pictures/benchmarks/overview.png").read_bytes().startswith(b"\x89PNG")
    assert "old" not in readme
    assert "1.5x" in readme
    assert "compared with nobody" in page
    assert "compared with nobody" not in readme
    assert readme.endswith("<!-- figures: end -->\nb\n")
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match="has no lines that begin with"):
        suite["document"].write_readme(source, tmp_path)


def test_pages_are_those_of_the_kept_runs(suite: Any) -> None:
    pages = sorted((ROOT / "docs").glob("benchmarks*.md"))
    kept = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert len(pages) == len(kept)
    for page in pages:
        source = page.read_text().split("--docs ", 1)[1].split("`", 1)[0]
        assert suite["document"].page(json.loads((ROOT / source).read_text()), source) == page.read_text()
        assert all((page.parent / picture).exists() for picture in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()))


def test_every_instruction_set_has_a_page_of_its_own(suite: Any) -> None:
    names = {}
    for instructions in ("baseline", "avx2", "avx512", "avx512_bf16", "neon"):
        run = result(suite)
        run["machine"]["fastlstm"] = f"1, backend cpp, instruction set {instructions}, 2 threads"
        names[instructions] = suite["document"].page_name(run)
    assert names["avx512"] == "benchmarks"
    assert len(set(names.values())) == len(names)


def test_the_readme_names_other_machines(suite: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- figures: begin. -->\n<!-- figures: end -->\n")
    for instructions in ("avx2", "avx512"):
        run = result(suite, comparison(suite, 0.1, 0.15))
        run["cases"][0]["family"] = "LSTM forward + backward"
        run["machine"]["fastlstm"] = f"1, backend cpp, instruction set {instructions}, 2 threads"
        (tmp_path / f"cpu-{instructions}.json").write_text(json.dumps(run))
    suite["document"].write_readme(tmp_path / "cpu-avx512.json", tmp_path)
    readme = (tmp_path / "README.md").read_text()
    assert re.search(
        r"On another machine \(a processor, avx2, 2 threads, \d+ GFLOP/s a core in float32, 2020-02-02", readme
    )
    assert "PyTorch takes ([docs/benchmarks-avx2.md](docs/benchmarks-avx2.md)): LSTM forward + backward 1.5x." in readme


def test_bench_passes_its_options_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "nothing", "such"]) == 2
    assert "--only knows no nothing; expected of lstm, " in capfd.readouterr().err
    assert main(["bench", "--record", "--quick"]) == 2
    assert "--record measures everything" in capfd.readouterr().err


def test_bench_says_where_the_suite_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fastlstm, "__file__", str(tmp_path / "lib" / "fastlstm" / "__init__.py"))
    assert main(["bench"]) == 2
    assert "the benchmarks are not here" in capsys.readouterr().err


def test_a_result_of_something_else_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("[1]")
    assert main(["bench", "--compare", str(other)]) == 2
    assert "expected a file that --json wrote" in capfd.readouterr().err


def test_every_case_knows_how_it_is_made_again() -> None:
    code = (
        "from benchmarks import bench_gru, bench_lstm, bench_rnn, bench_sampling, bench_embedding, bench_losses\n"
        "for case in (bench_lstm.lstm_case((2, 3, 4, 5), peers=()), bench_embedding.dense_case(5, 4, 3, peers=()),\n"
        "             bench_lstm.cells_case((2, 3, 4, 5)), bench_rnn.step_case(2, 3),\n"
        "             *(bench_lstm.layout_case((2, 3, 4, 5), layout)\n"
        "               for layout in (bench_lstm.TIME_FIRST, bench_lstm.TORCH_WEIGHTS)),\n"
        "             bench_losses.linear_cross_entropy_case(4, 3, 7, 'fast', peers=('textbook',)),\n"
        "             bench_losses.reduction_case(4, 3, 7)):\n"
        "    again = case.recipe.make()\n"
        "    assert (again.family, again.name, list(again.sides)) == (case.family, case.name, list(case.sides))\n"
        "    again.check()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_command_for_a_gpu_measures_case_after_case(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that fails costs the others nothing; what there was no time for is counted."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    gpu_measure = importlib.import_module("benchmarks.gpu_measure")
    monkeypatch.setattr(gpu_measure, "about", lambda: {"device": "A GPU", "driver": 1, "commit": "abc"})

    class Case(NamedTuple):
        H: int

    def measure(case: Any, seconds: float) -> dict[str, Any]:
        if case.H == 2:
            raise ValueError("no")
        if case.H == 3:
            monkeypatch.setattr(gpu_measure.time, "perf_counter", lambda: 1e9)
        return {**case._asdict(), "seconds": seconds}

    def table(results: Any) -> str:
        return "/".join(str(result.get("error", result["H"])) for result in results)

    out = tmp_path / "gpu.json"
    cases = [Case(H) for H in (1, 2, 3, 4)]
    arguments = ["--seconds", "100", "--out", str(out)]
    assert gpu_measure.main("lstm", cases, measure, table, description="", seconds=5, arguments=arguments) == 1
    assert "1/ValueError: no/3" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["device"], found["not_measured"]) == ("A GPU", 1)
    assert found["lstm"][0] == {"H": 1, "seconds": pytest.approx(15)}
