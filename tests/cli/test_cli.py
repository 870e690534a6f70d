"""The command line and the addition data, as a user meets them."""

from __future__ import annotations

import itertools
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import error_of, interrupt_a_training, without_seconds

import fastlstm
from fastlstm import datasets
from fastlstm.cli import main
from fastlstm.cli.training_run import learning_rate
from fastlstm.datasets.addition import VOCABULARY
from fastlstm.datasets.pairs import decode
from fastlstm.models import Seq2seq

SMALL = ["--epochs", "2", "--hidden-size", "16", "--wordvec-size", "4"]
RUN_FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "config.json", "loss.png", "accuracy.png"}


def lines_of(pairs: datasets.SequencePairs) -> list[str]:
    return [decode(x, pairs.vocabulary) + decode(t, pairs.vocabulary) for x, t in zip(pairs.xs, pairs.ts, strict=True)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of sums in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    path = tmp_path / "sums.txt"
    path.write_text("\n".join(lines_of(datasets.addition(400, seed=0))) + "\n")
    return path


def train(*arguments: str | Path) -> int:
    return main(["train", "addition", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The same where argparse ends the program."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return error_of(capsys, end.value.code)


# --------------------------------------------------------------------------------------------
# fastlstm train addition
# --------------------------------------------------------------------------------------------


def test_training_leaves_a_run_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", data, *SMALL) == 0
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    assert out.count(" right\n") + out.count(" wrong, ") == 2 * 5
    assert out.splitlines()[-1] == "run folder: runs/addition-1"
    run = Path("runs/addition-1")
    assert {path.name for path in run.iterdir()} == RUN_FILES
    for name in ("loss.png", "accuracy.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    header, *rows = (run / "history.csv").read_text().splitlines()
    assert header == "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"
    assert len(rows) == 2
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["data"] == str(data)
    assert (config["options"]["reversed"], config["options"]["peeky"]) == (True, True)
    model = Seq2seq.load(run / "model.safetensors")
    assert model.options["hidden_size"] == 16
    assert model.vocabulary == VOCABULARY
    _, held_out = datasets.hold_out(datasets.read_addition(data))
    assert model.evaluate(held_out.xs, held_out.ts)["accuracy"] == config["result"]["accuracy"]


def test_options_reach_the_model(data: Path) -> None:
    assert (
        train("--data", data, *SMALL, "--quiet", "--no-reversed", "--no-peeky", "--share-embedding", "--out", "r") == 0
    )
    options = Seq2seq.load("r/model.safetensors").options
    assert not options["reverse_source"]
    assert not options["peeky"]
    assert options["share_embedding"]


def test_a_run_never_overwrites_another(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        train("--data", data, *SMALL, "--quiet")
        assert capsys.readouterr().out.endswith(f"run folder: runs/addition-{number}\n")
    before = Path("runs/addition-1/model.safetensors").read_bytes()
    code = train("--data", data, *SMALL, "--quiet", "--out", "runs/addition-1")
    assert "runs/addition-1 exists already; choose another --out" in error_of(capsys, code)
    assert Path("runs/addition-1/model.safetensors").read_bytes() == before


def test_equal_seeds_give_equal_files_for_any_number_of_threads(data: Path) -> None:
    for name, more in {"a": ["--threads", "1"], "b": ["--threads", "2"], "c": ["--seed", "1"]}.items():
        assert train("--data", data, *SMALL, "--quiet", "--out", name, *more) == 0
    a, b, c = (Path(name, "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    assert without_seconds(Path("a/history.csv")) == without_seconds(Path("b/history.csv"))


def test_compare_trains_three_models(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", data, *SMALL, "--quiet", "--compare", "--out", "three") == 0
    folder = Path("three")
    assert {path.name for path in folder.iterdir()} == {
        *("separate", "reversed", "shared"),
        *("config.json", "loss.png", "accuracy.png"),
    }
    options = {}
    for name in ("separate", "reversed", "shared"):
        assert {path.name for path in (folder / name).iterdir()} == RUN_FILES
        made = Seq2seq.load(folder / name / "model.safetensors").options
        options[name] = (made["reverse_source"], made["share_embedding"], made["peeky"])
    assert options == {
        "separate": (False, False, False),
        "reversed": (True, False, False),
        "shared": (False, True, False),
    }
    capsys.readouterr()
    # What is finished is not trained again; what is missing is.
    kept = (folder / "separate" / "model.safetensors").stat().st_mtime_ns
    (folder / "shared" / "model.safetensors").unlink()
    assert train("--resume", folder, "--quiet") == 0
    out = capsys.readouterr().out
    assert "shared embedding" in out
    assert "separate embeddings" not in out
    assert (folder / "separate" / "model.safetensors").stat().st_mtime_ns == kept
    code = main(["generate", str(folder), "1+1"])
    assert "it compares several: three/reversed, three/separate, three/shared" in error_of(capsys, code)


def test_without_matplotlib_the_run_still_finishes(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert train("--data", data, *SMALL, "--quiet", "--out", "r") == 0
    assert "pip install 'fastlstm[train]'" in capsys.readouterr().err
    assert {path.name for path in Path("r").iterdir()} == RUN_FILES - {"loss.png", "accuracy.png"}


def test_a_loss_that_is_nan_ends_the_run(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Seq2seq, "forward", lambda *_, **__: float("nan"))
    monkeypatch.setattr(Seq2seq, "backward", lambda _: None)
    monkeypatch.setattr(Seq2seq, "loss_count", 1)
    monkeypatch.setattr(Seq2seq, "batch_metrics", lambda *_: {"accuracy": (0.0, 1)})
    assert train("--data", data, *SMALL, "--quiet", "--out", "r") == 1
    assert "the loss became nan in epoch 1, batch 1" in capsys.readouterr().err
    assert not Path("r/model.safetensors").exists()


def test_the_learning_rate_falls_at_the_end() -> None:
    rates = [learning_rate(epoch, 25) for epoch in range(25)]
    assert rates[:16] == [0.001] * 16
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[15:]))
    assert rates[-1] == pytest.approx(0.0001)


# --------------------------------------------------------------------------------------------
# Ctrl-C and --resume
# --------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(data), "--epochs", "60", "--hidden-size", "16", "--quiet"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("addition", *options)
    assert Path("part/checkpoint.safetensors").exists()
    assert not Path("part/model.safetensors").exists()
    capsys.readouterr()
    assert main(["generate", "part", "1+1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1+1 = ")
    epochs = len(Path("part/history.csv").read_text().splitlines()) - 1
    assert err.startswith("fastlstm: part is not finished; this is its model ")
    assert f"after epoch {epochs}\n" in err or f"of epoch {epochs + 1}, after " in err

    assert train("--resume", "part") == 0
    assert Path("part/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert without_seconds(Path("part/history.csv")) == without_seconds(Path("whole/history.csv"))
    assert {path.name for path in Path("part").iterdir()} == RUN_FILES
    capsys.readouterr()
    assert "part is finished" in error_of(capsys, train("--resume", "part"))


def test_resume_refuses_what_it_cannot_go_on_with(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing is no run folder: it has no config.json" in error_of(capsys, train("--resume", "nothing"))
    assert "--resume goes on with the options" in error_of(capsys, train("--resume", "x", "--lr", "3"))
    Path("r").mkdir()
    for content, message in {
        "{": "is damaged: it is no JSON",
        '{"task": "sine"}': "r is no run of the task 'addition'",
        '{"task": "addition", "options": {"speed": 1}}': "is damaged: its options do not fit",
    }.items():
        Path("r/config.json").write_text(content)
        assert message in error_of(capsys, train("--resume", "r"))


# --------------------------------------------------------------------------------------------
# fastlstm generate, info, mistakes
# --------------------------------------------------------------------------------------------


def test_generate_answers_questions(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train("--data", data, *SMALL, "--quiet", "--out", "r")
    model = Seq2seq.load("r/model.safetensors")
    xs = np.array([[VOCABULARY.index(symbol) for symbol in "16+75  "]])
    said = decode(model.generate(xs, VOCABULARY.index("_"), 4)[0], VOCABULARY).strip()
    capsys.readouterr()
    assert main(["generate", "r", "16+75", "1+2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"16+75 = {said}"
    assert lines[1].startswith("1+2 = ")
    monkeypatch.setattr("sys.stdin", iter(["16+75\n"]))
    assert main(["generate", "r"]) == 0
    assert capsys.readouterr().out == f"16+75 = {said}\n"
    monkeypatch.setattr("sys.stdin", iter(["16+75\r\n", " \n", "a+1\n", "1000+1000\n", " 16+75"]))
    assert main(["generate", "r"]) == 2
    out, err = capsys.readouterr()
    assert out == f"16+75 = {said}\n\n\n\n16+75 = {said}\n"
    assert [line.partition(": the")[0].partition(" is longer")[0] for line in err.splitlines()] == [
        "fastlstm: stdin, line 3: 'a+1'",
        "fastlstm: stdin, line 4: '1000+1000'",
    ]
    monkeypatch.setattr("sys.stdin", None)  # where the caller has closed it
    assert main(["generate", "r"]) == 0
    assert capsys.readouterr().out == ""
    assert "nothing is asked" in error_of(capsys, main(["generate", "r", ""]))
    assert main(["generate", "r", "a+1", "16+75"]) == 2  # the rest are answered
    assert capsys.readouterr().out == f"\n16+75 = {said}\n"
    assert "'a+1': the model does not know 'a'" in error_of(capsys, main(["generate", "r", "a+1"]))
    assert "'1000+1000' is longer than the 7 symbols" in error_of(capsys, main(["generate", "r", "1000+1000"]))
    Path("r/model.safetensors").write_bytes(b"no model")
    assert "is no safetensors file" in error_of(capsys, main(["generate", "r", "1+1"]))
    assert "no run folder" in error_of(capsys, main(["generate", "elsewhere"]))


def test_info_shows_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    fastlstm.show_config()
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["learn"], "invalid choice: 'learn'"),
        (["train", "subtraction"], "invalid choice: 'subtraction'"),
        (["train", "addition", "--epochs", "0"], "argument --epochs: '0' is no whole number of at least 1"),
        (["train", "addition", "--batch-size", "many"], "'many' is no whole number"),
        (["train", "addition", "--max-grad", "-1"], "'-1' is no number above 0"),
        (["train", "addition", "--seed", "x"], "'x' is no whole number of at least 0"),
        (["train", "addition", "--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments)


def test_mistakes_in_what_options_name(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nowhere.txt does not exist; FASTLSTM_DATA_DIR is not set" in error_of(
        capsys, train("--data", "nowhere.txt")
    )
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(data.parent / "sets"))
    assert f"nor below FASTLSTM_DATA_DIR = {data.parent / 'sets'}" in error_of(capsys, train("--data", "nowhere.txt"))
    assert "leave it out" in error_of(capsys, train("--compare", "--reversed"))
    assert "threads" in error_of(capsys, train("--data", data, "--threads", "1000000"))
    data.write_text("1+1    _2   \n")
    assert "has 1 lines, expected at least 10" in error_of(capsys, train("--data", data))
    assert not Path("runs").exists()


# --------------------------------------------------------------------------------------------
# The data
# --------------------------------------------------------------------------------------------


def test_generated_sums_are_right_and_different() -> None:
    pairs = datasets.addition(5000, seed=3)
    lines = lines_of(pairs)
    seen = set()
    for line in lines:
        question, answer = line[:7], line[7:]
        a, b = question.strip().split("+")
        assert (len(line), question, answer) == (12, f"{a}+{b}".ljust(7), f"_{int(a) + int(b)}".ljust(5))
        seen.add(frozenset((int(a), int(b))))
    assert len(seen) == 5000
    assert lines == lines_of(datasets.addition(5000, seed=3))
    assert lines != lines_of(datasets.addition(5000, seed=4))
    lengths = [len(line.split("+")[0]) for line in lines]
    assert 0.5 < lengths.count(2) / lengths.count(3) < 1.5


def test_all_sums_can_be_generated() -> None:
    pairs = datasets.addition(500_500, seed=0)
    assert len(np.unique(pairs.xs, axis=0)) == 500_500
    for n in (0, 500_501):
        with pytest.raises(ValueError, match=f"n is {n}, expected 1 to 500500"):
            datasets.addition(n)


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz"])
def test_a_file_is_read_as_it_was_generated(suffix: str, tmp_path: Path) -> None:
    pairs = datasets.addition(200, seed=0)
    path = tmp_path / f"sums{suffix}"
    content = ("\r\n".join(lines_of(pairs)) + "\r\n").encode()
    path.write_bytes(lzma.compress(content) if suffix.endswith("xz") else content)
    read = datasets.read_addition(path)
    for got, want in zip(read, pairs, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_data_may_be_a_pipe(data: Path) -> None:
    command = [sys.executable, "-m", "fastlstm.cli", "train", "addition", *SMALL, "--quiet", "--data", "/dev/stdin"]
    with subprocess.Popen(["cat", data], stdout=subprocess.PIPE) as source:
        subprocess.run([*command, "--out", "r"], stdin=source.stdout, check=True)
    assert train("--data", data, *SMALL, "--quiet", "--out", "s") == 0
    assert without_seconds(Path("r/history.csv")) == without_seconds(Path("s/history.csv"))


def test_files_are_found_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "sums.txt").write_text("1+1    _2   ")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    assert len(datasets.read_addition("sets/sums.txt").xs) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"1+1    _2   \n\xff\xfe\n", "line 2: no UTF-8"),
        (b"1+1    _2   \n1+2     3   \n", "line 2: '1.2     3   ' is no question and answer"),
        (b"1+1    _2   \n1+2    __3  \n", "line 2: '1.2    __3  ' is no question and answer"),
        (b"_1+1    2   \n", "line 1: '_1.1    2   ' is no question and answer"),
        (b"1+1    _2   \n\n1+2    _3   \n", "line 2: '' is no question and answer"),
        (b"1+1    _2   \n1+2    _3\n", "line 2: '1.2    _3' has question and answer of 7 and 2 symbols, line 1 has 7"),
        (b"1+1    _2   \n1+2   _3    \n", "line 2: '1.2   _3    ' has question and answer of 6 and 6 symbols"),
        (b"1+1    _2   \n1-2    _3   \n", "line 2: the symbol '-' is not in the vocabulary"),
        ("1+1    _2   \n１+2    _3   \n".encode(), "line 2: the symbol '１' is not in the vocabulary"),
    ],
)
def test_bad_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sums.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        datasets.read_addition(path)
    assert str(error.value).startswith(str(path))


def test_bad_archives(tmp_path: Path) -> None:
    path = tmp_path / "sums.txt.xz"
    for content in (b"1+1    _2   \n", lzma.compress(b"1+1    _2   \n" * 100)[:-20]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no intact \.xz file"):
            datasets.read_addition(path)
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file"):
        datasets.read_addition(tmp_path)


def test_the_held_out_rows_are_those_of_the_book() -> None:
    pairs = datasets.addition(50, seed=0)
    training, held_out = datasets.hold_out(pairs)
    order = np.arange(50)
    np.random.seed(1984)  # noqa: NPY002
    np.random.shuffle(order)  # noqa: NPY002
    np.testing.assert_array_equal(training.xs, pairs.xs[order[:45]])
    np.testing.assert_array_equal(held_out.ts, pairs.ts[order[45:]])


needs_the_book_s_file = pytest.mark.skipif(
    not Path(os.environ.get("FASTLSTM_DATA_DIR", "nowhere"), "dlfs2", "addition.txt.xz").exists(),
    reason="FASTLSTM_DATA_DIR names no folder with dlfs2/addition.txt.xz",
)


@needs_the_book_s_file
def test_the_book_s_file() -> None:
    pairs = datasets.read_addition("dlfs2/addition.txt.xz")
    assert (pairs.xs.shape, pairs.ts.shape) == ((50_000, 7), (50_000, 5))
    assert lines_of(pairs)[0] == "16+75  _91  "


@pytest.mark.slow
@needs_the_book_s_file
def test_addition_is_learned(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # 9 of 25 epochs: 0.89 by then, 0.05 after four.
    assert train("--data", "dlfs2/addition.txt.xz", "--epochs", "9", "--quiet", "--out", folder) == 0
    assert json.loads((folder / "config.json").read_text())["result"]["accuracy"] >= 0.75


@pytest.mark.skipif("cuda" in fastlstm.available_backends(), reason="a GPU answers")
def test_without_a_gpu_nothing_is_written(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, train("--data", data, *SMALL, "--device", "cuda", "--out", "run"))
    assert error.startswith("fastlstm: backend 'cuda' cannot run here: ")
    assert not Path("run").exists()


def test_a_reader_of_the_output_may_stop_reading() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "fastlstm", "info"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")
