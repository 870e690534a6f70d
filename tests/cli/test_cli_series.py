"""``fastlstm train series``: forecasts of a table's columns, with intervals that hold what comes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import error_of

from fastlstm.cli import main
from fastlstm.models import SequenceRegressor

L = 240
SMALL = ["--steps", "12", "--horizon", "6", "--hidden-size", "12", "--epochs", "30", "--lr", "0.01", "--quiet"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    t, rng = np.arange(L), np.random.default_rng(0)
    wave = 500 + 100 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 5, L)
    ramp = 1e-3 * t
    rows = [f"{i},{a:.6f},{b:.6f}" for i, (a, b) in enumerate(zip(wave, ramp, strict=True))]
    Path("t.csv").write_text("\n".join(["day,wave,ramp", *rows]))
    return tmp_path / "t.csv"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_a_series_is_forecast_in_its_own_units(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "series", "--data", "t.csv", "--column", "wave", "--out", "r", *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.startswith("wave: held out, 1 step ahead ")
    assert {path.name for path in Path("r").iterdir()} >= {
        *("model.safetensors", "history.csv", "config.json", "forecast.csv", "forecast.png", "loss.png")
    }
    config = json.loads(Path("r/config.json").read_text())
    error, naive = config["result"]["rms_error"]["wave"], config["result"]["rms_error_of_the_last_value"]["wave"]
    assert error["1 step"] < 0.5 * naive["1 step"]
    assert error["6 steps"] < 0.3 * naive["6 steps"]  # half a turn later
    t = np.arange(L, L + 6)
    comes = 500 + 100 * np.sin(2 * np.pi * t / 12)
    forecast = rows_of(Path("r/forecast.csv").read_text())
    assert [int(row["step"]) for row in forecast] == t.tolist()
    np.testing.assert_allclose([float(row["wave"]) for row in forecast], comes, atol=40)
    for row in forecast:
        assert float(row["wave lower"]) < float(row["wave upper"])
    scaling = SequenceRegressor.load("r/model.safetensors").scaling
    assert scaling is not None
    assert scaling.mean[0] == pytest.approx(500, abs=3)
    # generate says the same, further on, and for another file.
    assert main(["generate", "r"]) == 0
    shown = rows_of(capsys.readouterr().out)
    assert [row["wave"] for row in shown] == [row["wave"] for row in forecast]
    assert [int(row["step"]) for row in shown] == t.tolist()
    assert main(["generate", "r", "--length", "8", "--data", "t.csv"]) == 0
    out, err = capsys.readouterr()
    assert [row["wave"] for row in rows_of(out)][:6] == [row["wave"] for row in forecast]
    assert rows_of(out)[7]["wave lower"] == ""
    assert err == "beyond 6 steps there are no intervals: --horizon of the training\n"


def test_several_columns_and_resuming(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["--column", "ramp", "--column", "wave"]
    options = ["--data", "t.csv", *columns, *SMALL[:-5], "--cell", "gru", "--epochs", "3", "--quiet"]
    assert main(["train", "series", *options, "--out", "r"]) == 0
    forecast = Path("r/forecast.csv").read_bytes()
    assert forecast.startswith(b"step,ramp,ramp lower,ramp upper,wave,wave lower,wave upper\n240,")
    for name in ("forecast.csv", "forecast.png"):
        Path("r", name).unlink()
    assert main(["train", "series", "--resume", "r", "--quiet"]) == 0
    assert Path("r/forecast.csv").read_bytes() == forecast
    capsys.readouterr()
    assert main(["generate", "r", "a text"]) == 2
    assert "r goes on with a series; it takes --length and --data, and no text" in error_of(capsys, 2)


def test_intervals_hold_the_share_of_what_comes() -> None:
    from fastlstm.cli.series import _intervals

    residuals = np.random.default_rng(0).normal(3, 2, (4000, 2, 1))
    lower, upper = _intervals(residuals, 0.8)
    np.testing.assert_allclose(lower, 3 - 1.2816 * 2, atol=0.2)
    np.testing.assert_allclose(upper, 3 + 1.2816 * 2, atol=0.2)


def test_series_that_cannot_be_learned(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (["--data", "t.csv"], "give --data, a CSV file, and --column, the name of a column of it"),
        (["--data", "t.csv", "--column", "x"], "has no column 'x'; its columns are 'day', 'wave', 'ramp'"),
        (["--data", "no.csv", "--column", "x"], "no.csv does not exist"),
        (["--data", "t.csv", "--column", "wave", "--horizon", "50"], "and 48 held out; expected at least 25"),
    ):
        assert main(["train", "series", *options]) == 2
        assert message in error_of(capsys, 2)
    assert not Path("runs").exists()
