"""SequenceRegressor: gradients, PyTorch, going on with a series; the sine; the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import interrupt_a_training, without_seconds

import fastlstm
from fastlstm import callbacks, datasets, optim
from fastlstm.cli import main
from fastlstm.contract import FloatArray
from fastlstm.layers import MeanSquaredError
from fastlstm.models import SequenceClassifier, SequenceRegressor
from fastlstm.testing import check_gradient

N, T, D, H, K = 5, 6, 3, 4, 2
RNG = np.random.default_rng(0)
XS, TS = RNG.standard_normal((N, T, D)), RNG.standard_normal((N, K))


def make(cell: str = "lstm", **options: Any) -> SequenceRegressor:
    sizes = {"input_size": D, "hidden_size": H, "output_size": K, "seed": 1, "dtype": "float64"}
    model = SequenceRegressor(**{**sizes, "cell": cell, **options})
    rng = np.random.default_rng(2)
    for param in model.params:
        param += 0.5 * rng.standard_normal(param.shape)
    return model


def weights(model: SequenceRegressor) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# The model
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_gradients(cell: str) -> None:
    model = make(cell)

    def loss(**params: FloatArray) -> float:
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(XS, TS)

    at = {name: param.copy() for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_backends_agree(cell: str, compiled_backend: str) -> None:
    losses, grads = {}, {}
    for backend in ("numpy", compiled_backend):
        with fastlstm.use_backend(backend):
            model = make(cell)
            losses[backend] = model.forward(XS, TS)
            model.backward()
            grads[backend] = [grad.copy() for grad in model.grads]
    assert losses[compiled_backend] == pytest.approx(losses["numpy"], rel=1e-11)
    for a, b in zip(grads[compiled_backend], grads["numpy"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.needs_torch
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_loss_and_gradients_are_those_of_torch(cell: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = make(cell)
    loss = model.forward(XS, TS)
    model.backward()
    p = dict(model.named_parameters())
    recurrent = (torch.nn.LSTM if cell == "lstm" else torch.nn.RNN)(D, H, batch_first=True, dtype=torch.float64)
    output = torch.nn.Linear(H, K, dtype=torch.float64)
    with torch.no_grad():
        recurrent.weight_ih_l0.copy_(torch.tensor(p[f"{cell}.Wx"].T))
        recurrent.weight_hh_l0.copy_(torch.tensor(p[f"{cell}.Wh"].T))
        recurrent.bias_ih_l0.copy_(torch.tensor(p[f"{cell}.b"]))
        recurrent.bias_hh_l0.zero_()
        output.weight.copy_(torch.tensor(p["output.W"].T))
        output.bias.copy_(torch.tensor(p["output.b"]))
    said = output(recurrent(torch.tensor(XS))[0][:, -1])
    wanted = torch.nn.functional.mse_loss(said, torch.tensor(TS))
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(model.predict(XS), said.detach().numpy(), atol=1e-12)
    for got, want in zip(
        model.grads,
        [
            recurrent.weight_ih_l0.grad.T,
            recurrent.weight_hh_l0.grad.T,
            recurrent.bias_ih_l0.grad,
            output.weight.grad.T,
            output.bias.grad,
        ],
        strict=True,
    ):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-12)


def test_mean_squared_error_scales_its_gradient() -> None:
    layer = MeanSquaredError()
    assert layer.forward(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])) == 2.5
    np.testing.assert_array_equal(layer.backward(), [[1.0, -2.0]])
    np.testing.assert_array_equal(layer.backward(2), [[2.0, -4.0]])
    with pytest.raises(ValueError, match=r"t has shape \(2,\), expected \(2, 1\)"):
        layer.forward(np.zeros((2, 1)), np.zeros(2))


@pytest.mark.parametrize(
    ("cell", "recurrent", "formula"),
    [("lstm", 1760, "lstm: 4 gates x (20 x (1 + 20) + 20) = 1,760"), ("rnn", 440, "rnn: 20 x (1 + 20) + 20 = 440")],
)
def test_summary_counts_gates(cell: str, recurrent: int, formula: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = SequenceRegressor(1, 20, 1, cell=cell)
    table = model.summary()
    assert capsys.readouterr().out == table + "\n"
    assert formula in table
    assert model.num_parameters == recurrent + 20 + 1
    assert table.splitlines()[-1] == f"{model.num_parameters:,} parameters"


def test_evaluation_is_the_mean_over_all_rows() -> None:
    model = make()
    off = model.predict(XS, batch_size=2) - TS
    assert model.evaluate(XS, TS, batch_size=2) == {
        "loss": pytest.approx((off**2).mean()),
        "mae": pytest.approx(np.abs(off).mean()),
    }


def test_lists_and_integers_are_numbers_too() -> None:
    model = make()
    xs, ts = np.round(XS).astype(int), np.round(TS).astype(int)
    assert model.evaluate(xs.tolist(), ts.tolist()) == model.evaluate(xs.astype(float), ts.astype(float))


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_each_output_becomes_the_next_input(cell: str) -> None:
    model = make(cell, output_size=D)
    got = model.generate(XS, 4)
    for row, said in zip(XS, got, strict=True):
        series = list(row)
        for value in said:
            np.testing.assert_allclose(value, model.predict([series[-T:]])[0], atol=1e-12)
            series.append(value)
        np.testing.assert_array_equal(model.generate(row, 4), model.generate(row[None], 4)[0])
    assert model.generate(XS[0], 0).shape == (0, D)


def test_fit_as_in_keras(tmp_path: Path) -> None:
    pieces = datasets.sine(60, length=10, period=30)
    model = SequenceRegressor(1, 8, 1, seed=0)
    stop = callbacks.EarlyStopping("val_loss", patience=5)
    csv_file = callbacks.CSVLogger(tmp_path / "history.csv")
    history = model.fit(
        *pieces,
        epochs=40,
        batch_size=10,
        optimizer=optim.Adam(0.01),
        validation_split=0.1,
        metrics=("mae",),
        callbacks=[stop, csv_file],
        verbose=0,
    ).history
    assert list(history) == ["loss", "mae", "val_loss", "val_mae"]
    assert history["loss"][-1] < 0.05 < 0.2 < history["loss"][0]
    assert history["val_loss"][-1] == model.evaluate(pieces.xs[54:], pieces.ts[54:])["loss"]


def test_equal_seeds_give_equal_bits_for_any_number_of_threads() -> None:
    pieces = datasets.sine(100)
    made = []
    for threads in (1, 2, 3):
        fastlstm.set_num_threads(threads)
        model = SequenceRegressor(1, 20, 1, seed=0)
        model.fit(*pieces, epochs=2, batch_size=10, verbose=0)
        made.append(weights(model))
    assert made[0] == made[1] == made[2]


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = make("rnn")
    model.save(tmp_path / "model")
    loaded = SequenceRegressor.load(tmp_path / "model")
    assert loaded.options == model.options
    np.testing.assert_array_equal(loaded.predict(XS), model.predict(XS))
    with pytest.raises(ValueError, match="holds a SequenceRegressor, expected a SequenceClassifier"):
        SequenceClassifier.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input_size is 0, expected at least 1"),
        ({"hidden_size": 0}, "hidden_size is 0, expected at least 1"),
        ({"cell": "elman"}, "cell is 'elman', expected 'lstm', 'gru' or 'rnn'"),
        ({"dtype": "float16"}, "dtype is float16, expected float32 or float64"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("xs", "ts", "error", "message"),
    [
        (XS[..., :1], TS, ValueError, r"xs has shape \(5, 6, 1\), expected \(examples, time steps, 3\)"),
        (XS, TS[:, 0], ValueError, r"ts has shape \(5,\), expected \(examples, 2\)"),
        (XS[1:], TS, ValueError, "xs has 4 rows and ts 5; they belong together row by row"),
        (XS, TS.astype(complex), TypeError, "ts has dtype complex128, expected numbers"),
        (XS[:0], TS[:0], ValueError, "there are no rows to train on"),
    ],
)
def test_bad_arguments_of_fit(xs: Any, ts: Any, error: type[Exception], message: str) -> None:
    model = make()
    before = weights(model)
    with pytest.raises(error, match=message):
        model.fit(xs, ts, epochs=1, batch_size=2, verbose=0)
    assert weights(model) == before


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match=r"xs has shape \(5, 6\).*One number each is xs\[\.\.\., None\]"):
        SequenceRegressor(1, 4, 1).predict(XS[..., 0])
    with pytest.raises(ValueError, match="outputs of width 2 cannot be inputs of width 3"):
        make().generate(XS[0], 3)
    with pytest.raises(ValueError, match="start is empty"):
        make(output_size=D).generate(XS[0, :0], 3)
    with pytest.raises(ValueError, match="length is -1, expected at least 0"):
        make(output_size=D).generate(XS[0], -1)
    with pytest.raises(RuntimeError, match="batch_metrics was called before forward"):
        make().batch_metrics(("mae",))


# --------------------------------------------------------------------------------------------
# The sine
# --------------------------------------------------------------------------------------------


def test_pieces_of_a_sine_and_what_follows_them() -> None:
    xs, ts = datasets.sine(50, length=7, period=20)
    assert (xs.shape, ts.shape, xs.dtype.name, ts.dtype.name) == ((50, 7, 1), (50, 1), "float32", "float32")
    t = np.arange(50)[:, None] + np.arange(8)
    wanted = np.sin(2 * np.pi * t / 20)
    np.testing.assert_allclose(xs[:, :, 0], wanted[:, :7], atol=1e-6)
    np.testing.assert_allclose(ts, wanted[:, 7:], atol=1e-6)
    assert datasets.sine().xs.shape == (176, 25, 1)


def test_noise() -> None:
    clean, noisy, again = datasets.sine(2000), datasets.sine(2000, noise=0.1, seed=0), datasets.sine(2000, noise=0.1)
    off = noisy.ts - clean.ts
    assert 0.09 < np.abs(off).max() <= 0.1 + 1e-6
    assert abs(off.mean()) < 0.01
    np.testing.assert_array_equal(noisy.xs[1:, -1], noisy.ts[:-1])  # one series, cut
    np.testing.assert_array_equal(noisy.xs, datasets.sine(2000, noise=0.1, seed=0).xs)
    assert not np.array_equal(noisy.xs, again.xs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"length": 0}, "length is 0, expected at least 1"),
        ({"period": 0.0}, "period is 0.0, expected a positive number"),
        ({"noise": -1.0}, "noise is -1.0, expected at least 0"),
    ],
)
def test_bad_sines(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.sine(**options)


# --------------------------------------------------------------------------------------------
# fastlstm train sine
# --------------------------------------------------------------------------------------------

SMALL = ["--epochs", "3", "--continue-steps", "30", "--hidden-size", "8"]


def train(*arguments: str | Path) -> int:
    return main(["train", "sine", *map(str, arguments)])


def test_training_leaves_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*SMALL) == 0
    out = capsys.readouterr().out
    assert "lstm: 4 gates x (8 x (1 + 8) + 8) = 320" in out
    assert "LSTM, 329 parameters: mean squared error " in out
    assert out.splitlines()[-1] == "run folder: runs/sine-1"
    run = Path("runs/sine-1")
    assert {path.name for path in run.iterdir()} == {
        *("lstm", "rnn", "config.json", "continued.csv", "continued.png", "loss.png")
    }
    for name in ("loss.png", "continued.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    with open(run / "continued.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "sine", "LSTM", "simple RNN"]
    table = np.array(rows, float)
    np.testing.assert_array_equal(table[:, 0], range(25, 55))
    np.testing.assert_allclose(table[:, 1], np.sin(2 * np.pi * table[:, 0] / 100), atol=1e-6)
    errors = json.loads((run / "config.json").read_text())["result"]["continued_rms_error"]
    start = datasets.sine(176, noise=0.05, seed=0).xs[0]
    for column, cell in enumerate(("lstm", "rnn"), 2):
        assert {path.name for path in (run / cell).iterdir()} == {
            *("model.safetensors", "checkpoint.safetensors", "history.csv")
        }
        model = SequenceRegressor.load(run / cell / "model.safetensors")
        assert model.options["cell"] == cell
        np.testing.assert_allclose(model.generate(start, 30)[:, 0], table[:, column], atol=1e-6)
        assert errors[cell] == pytest.approx(np.sqrt(((table[:, column] - table[:, 1]) ** 2).mean()), abs=1e-5)


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "40", "--hidden-size", "8", "--quiet"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("sine", *options, history="part/rnn/history.csv")
    finished = Path("part/lstm/model.safetensors").stat().st_mtime_ns
    assert train("--resume", "part") == 0
    assert Path("part/lstm/model.safetensors").stat().st_mtime_ns == finished
    for name in ("lstm/model.safetensors", "rnn/model.safetensors", "continued.csv"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes(), name
    assert without_seconds(Path("part/rnn/history.csv")) == without_seconds(Path("whole/rnn/history.csv"))
    capsys.readouterr()
    assert train("--resume", "part") == 2
    assert "part is finished" in capsys.readouterr().err


def test_mistakes_leave_no_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("--points", "30") == 2
    assert "30 points make 5 pieces of length 25 with a value after them, expected at least 10" in (
        capsys.readouterr().err
    )
    assert not Path("runs").exists()


@pytest.mark.slow
def test_the_lstm_goes_on_with_the_sine(tmp_path: Path) -> None:
    assert train("--quiet", "--continue-steps", "100", "--out", tmp_path / "run") == 0
    errors = json.loads((tmp_path / "run" / "config.json").read_text())["result"]["continued_rms_error"]
    assert errors["lstm"] < 0.1
