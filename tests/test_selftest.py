"""``fastlstm selftest``: that it runs everything, finds what is wrong, and says so."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

import numpy_as_cupy
import pytest
from cuda_cases import SMALL

import fastlstm
from fastlstm import ops, selftest, selftest_cases, use_backend
from fastlstm.cli import main
from fastlstm.selftest import Row

# They move numbers, and no backend has a part in it; or they are made on the way to an operator.
NOT_COMPUTED = {"pack_gates", "unpack_gates", "clip_scale", "UnigramTable"}
PREPARED = {"prepare_lstm", "prepare_gru", "prepare_rnn", "prepare_dense"}


def test_every_operator_is_among_the_cases() -> None:
    cases = [*selftest_cases.recurrent_cases(), *selftest_cases.other_cases(), *selftest_cases.sample_cases()]
    with_backward = {case.op.replace("_forward", "_backward") for case in cases if case.upstream}
    assert {case.op for case in cases} | with_backward | NOT_COMPUTED | PREPARED == set(ops.__all__)
    assert len({str(case) for case in cases}) == len(cases)


def test_the_definition_passes() -> None:
    rows = list(selftest._of_backend("numpy", "numpy"))
    whats = ["float32", "float64", "bf16 products", "same bits of prepared weights"]
    assert [row.what for row in rows] == [f"numpy, {what}" for what in whats]
    assert not [fault for row in rows for fault in row.faults]
    assert all(row.checks > 10 for row in rows)


@pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built")
def test_other_instruction_sets_run_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor has one of the lowest; a level that it has not, or that nobody knows, gives no line."""
    lowest = [row for level in ("baseline", "neon") for row in selftest._of_instruction_set(level)]
    assert re.fullmatch("cpp (baseline|neon), float32", lowest[0].what)
    assert not [fault for row in lowest for fault in row.faults]
    assert not list(selftest._of_instruction_set("mmx"))
    monkeypatch.setattr("sys.executable", "false")
    (row,) = selftest._of_instruction_set("baseline")
    assert row.faults == ["the process ended with 1: nothing on stderr"]


def test_what_is_wrong_is_told_with_what_belongs_into_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(device: str, *, everything: bool) -> Iterator[Row]:
        assert (device, everything) == ("cpu", False)
        yield Row("numba, float32", 3, [], 0.25)
        yield from selftest._of_backend("numpy", "broken")

    definition: Any = importlib.import_module("fastlstm.backends.numpy.dense")
    right = definition.matrix_product

    def wrong(a: Any, *args: Any, **options: Any) -> Any:
        if a.dtype == "float32" and len(a) == 130:
            raise ZeroDivisionError("a kernel that fails")
        return right(a, *args, **options) * (1.01 if a.dtype == "float32" and len(a) == 13 else 1)

    monkeypatch.setattr(definition, "matrix_product", wrong)
    monkeypatch.setattr(selftest, "run", rows)
    assert main(["selftest"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("fastlstm ")  # what fastlstm info prints
    lines = out.splitlines()
    assert re.search(r"^numba, float32 +3 +0 +0\.2$", out, re.MULTILINE)
    assert re.search(r"^broken, float32 +[0-9]+ +2 ", out, re.MULTILINE)
    assert re.search(r"^[0-9] of [0-9]+ checks FAILED, in [0-9.]+ s\. Please report it, with all of", out, re.MULTILINE)
    assert "- broken, float32: matrix_product-M13-K101-X77 on numpy in float32:" in out
    assert "- broken, float32: matrix_product-M130-K64-X17: ZeroDivisionError: a kernel that fails" in lines


def test_prepared_weights_of_every_kind_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[str] = set()

    def doubled(name: str, right: Any) -> Any:
        def prepare(Wx: Any, *weights: Any, **options: Any) -> Any:
            made.add(name)
            return right(2 * Wx, *weights, **options)

        return prepare

    for name in PREPARED:
        monkeypatch.setattr(ops, name, doubled(name, getattr(ops, name)))
    checks = list(selftest._same_with_prepared_weights("numpy"))
    row = selftest._row("prepared", iter(checks))
    assert made == PREPARED
    assert len(row.faults) == len(checks) > 10
    assert "hs has other bits" in row.faults[0]
    assert "the product has other bits" in row.faults[-1]


def test_numba_is_left_out_where_another_backend_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastlstm, "available_backends", lambda: ("numba", "numpy"))
    monkeypatch.setattr(selftest, "_of_backend", lambda backend, name: iter([Row(name, 1, [], 0.0)]))
    for chosen, everything, what in (
        ("numpy", False, "numba: left out, --all compiles and checks it"),
        ("numpy", True, "numba"),
        ("numba", False, "numba"),
    ):
        monkeypatch.setattr(fastlstm, "get_backend", lambda chosen=chosen: chosen)
        assert [row.what for row in selftest.run(everything=everything)] == [what, "numpy"]


def test_that_nothing_was_checked_is_no_success() -> None:
    said: list[str] = []
    assert not selftest.report([], said.append)
    assert said[-1] == "- nothing was checked"
    assert selftest.report([Row("numpy", 7, [], 1.0)], said.append)
    assert said[-1].startswith("all 7 checks passed, in ")


def test_without_a_gpu_the_reason_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in fastlstm.available_backends():
        pytest.skip("a GPU answers")
    assert main(["selftest", "--device", "cuda"]) == 2
    assert "backend 'cuda' cannot run here: " in capsys.readouterr().err


def test_a_gpu_runs_every_kernel_and_some_tiles(emulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the emulated one, which takes long for what a GPU does in a second: a few cases of all."""
    of_sequences = [selftest_cases.recurrent_case("lstm", 3, 2, 3, 9)]
    of_others = [case for case in selftest_cases.other_cases() if case.op in ("embedding_forward", "adam_update")]
    monkeypatch.setattr(selftest_cases, "recurrent_cases", lambda: of_sequences)
    monkeypatch.setattr(selftest_cases, "other_cases", lambda: of_others)
    monkeypatch.setattr(selftest, "TILES", ((16, 8), (64, 32), (80, 8)))
    monkeypatch.setattr(selftest, "CLUSTERS", ((2, 8), (4, 64)))
    emulation.emulate(**{**SMALL, "shared_bytes": 100_000}, seed=0)
    monkeypatch.setattr(selftest, "REPEATS", 2)
    with numpy_as_cupy.numbers_may_be_read(), use_backend("numpy"):
        rows = list(selftest.run("cuda"))
    numpy_as_cupy.check_margins()
    assert not [fault for row in rows for fault in row.faults]
    checks = {row.what: row.checks for row in rows}
    for precision in ("float32", "float64", "tf32", "bf16"):
        for kernel in ("plain", "step", "persistent", "cluster"):
            assert checks[f"cuda, {kernel} kernel, {precision}"] > 0
        for kernel in ("step", "persistent", "cluster"):
            assert checks[f"cuda, {kernel}, every tile, {precision}"] > 0
    assert checks["cuda, trainings as graphs"] == 2
