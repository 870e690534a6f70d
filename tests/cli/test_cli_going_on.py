"""Runs that go on: to more epochs, from another's weights, after Ctrl-C; and what can be done with a run afterwards."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, without_seconds

from fastlstm import datasets
from fastlstm.callbacks import BackupAndRestore, EarlyStopping
from fastlstm.cli import command, main, run_folder
from fastlstm.datasets.pairs import decode
from fastlstm.models import RNNLM, SequenceClassifier, SequenceRegressor, Word2Vec

TINY = ["--hidden-size", "3", "--batch-size", "8"]
TASKS: dict[str, list[str]] = {
    "addition": ["--data", "sums.txt", *TINY, "--wordvec-size", "3"],
    "rnnlm": ["--data", "text.txt", *TINY, "--lr", "5"],
    "sentiment": ["--data", "labelled.tsv", *TINY, "--wordvec-size", "3"],
    "sine": [*TINY, "--points", "50"],
    "translate": ["--data", "pairs.tsv", *TINY, "--wordvec-size", "3", "--dropout", "0.2"],
    "word2vec": ["--data", "text.txt", "--vector-size", "3", "--no-eval"],
    "word2vec nce": ["--data", "text.txt", "--vector-size", "3", "--no-eval", "--loss", "nce", "--subsample", "0"],
}


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in an otherwise empty current folder; no time goes into pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    monkeypatch.setattr("fastlstm.cli.training_run.has_matplotlib", lambda: False)
    monkeypatch.setattr("fastlstm.cli.training_run.can_draw", lambda _: False)
    sums = datasets.addition(40, seed=0)
    lines = (decode(x, sums.vocabulary) + decode(t, sums.vocabulary) for x, t in zip(sums.xs, sums.ts, strict=True))
    Path("sums.txt").write_text("\n".join(lines))
    Path("text.txt").write_text("the cat saw a dog .\na dog saw the cat .\n" * 12)
    Path("labelled.tsv").write_text("good\ta fine film\nbad\tdreadful and dull\n" * 12)
    Path("series.csv").write_text("x\n" + "".join(f"{i % 7}\n" for i in range(80)))
    Path("pairs.tsv").write_text("".join(f"{word} .\t{word[::-1]} !\n" for word in ("go", "sit", "run", "see", "eat")))


def train(task: str, *more: str | Path) -> int:
    return main(["train", task.split()[0], *TASKS.get(task, ()), "--quiet", *map(str, more)])


def go_on(task: str, *more: str) -> int:
    return main(["train", task.split()[0], "--resume", "r", "--quiet", *more])


def models_of(folder: str) -> dict[str, bytes]:
    paths = Path(folder).rglob("model.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    capsys.readouterr()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    return out, err


# --------------------------------------------------------------------------------------------
# --resume RUN --epochs N
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_finished_run_goes_on_as_if_it_had_been_longer(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(task, "--epochs", "5", "--out", "whole") == 0
    assert train(task, "--epochs", "3", "--out", "r") == 0
    assert go_on(task, "--epochs", "5") == 0
    assert models_of("r") == models_of("whole")
    for history in Path("whole").rglob("history.csv"):
        assert without_seconds(Path("r") / history.relative_to("whole")) == without_seconds(history)
    assert json.loads(Path("r/config.json").read_text())["options"]["epochs"] == 5
    assert not [*Path("r").rglob("*earlier*"), *Path("r").rglob("*shared*")]
    capsys.readouterr()
    assert "r has learned 5 epochs; --epochs 4 is a total" in error_of(capsys, go_on(task, "--epochs", "4"))
    assert "r is finished" in error_of(capsys, go_on(task))


def test_where_the_rate_falls_the_epochs_after_that_are_learned_again(capsys: pytest.CaptureFixture[str]) -> None:
    for task, begins in (("addition", 4), ("word2vec", 0)):
        assert train(task, "--epochs", "5", "--out", task) == 0
        capsys.readouterr()
        assert main(["train", task, "--resume", task, "--epochs", "8", "--quiet"]) == 0
        assert f"all after epoch {begins} are learned again; --init-from {task}" in capsys.readouterr().err


def test_a_run_killed_while_it_goes_on_has_a_model_all_the_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("word2vec", "--epochs", "3", "--out", "whole") == 0
    assert train("word2vec", "--epochs", "2", "--out", "r") == 0
    earlier = Word2Vec.load("r/model.safetensors").vectors

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(BackupAndRestore, "on_epoch_end", die)
        with pytest.raises(Killed):
            go_on("word2vec", "--epochs", "3")
    np.testing.assert_array_equal(run_folder.load_model(Word2Vec, Path("r")).vectors, earlier)
    assert "r is not finished; this is its model of fewer epochs" in capsys.readouterr().err
    assert go_on("word2vec") == 0
    assert models_of("r") == models_of("whole")


def test_runs_that_cannot_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("rnnlm", "--epochs", "2", "--out", "r") == 0
    Path("r/checkpoint.safetensors").unlink()
    model = models_of("r")
    capsys.readouterr()
    assert "r has no checkpoint.safetensors to go on from" in error_of(capsys, go_on("rnnlm", "--epochs", "3"))
    assert models_of("r") == model


def test_patience_ends_a_training_and_a_longer_one_too(capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("addition", "sine"):
        assert train(task, "--epochs", "60", "--patience", "1", "--lr", "1e-30", "--out", task) == 0
        assert ", of which 1 was the best and counts" in capsys.readouterr().out
    assert len(Path("addition/history.csv").read_text().splitlines()) == 1 + 2
    code = main(["train", "addition", "--resume", "addition", "--epochs", "70"])
    assert "addition ended early, after epoch 2, as would a longer training" in error_of(capsys, code)
    assert "--patience 2 needs something to validate on" in error_of(capsys, train("word2vec", "--patience", "2"))


# --------------------------------------------------------------------------------------------
# --init-from
# --------------------------------------------------------------------------------------------


def test_a_run_begins_with_the_weights_and_words_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("rnnlm", "--epochs", "2", "--min-count", "13", "--out", "a") == 0
    Path("more.txt").write_text("a bird saw the cat .\n" * 30)
    options = ["--init-from", "a", "--data", "more.txt", "--epochs", "1", "--lr", "1e-30", "--quiet"]
    assert main(["train", "rnnlm", *options, "--out", "b"]) == 0
    a, b = RNNLM.load("a/model.safetensors"), RNNLM.load("b/model.safetensors")
    assert b.vocabulary == a.vocabulary
    for before, after in zip(a.params, b.params, strict=True):
        np.testing.assert_array_equal(before, after)  # at a rate of nothing
    options = ["--init-from", "a", "--data", "more.txt", "--epochs", "2", "--quiet", "--batch-size", "8"]
    assert main(["train", "rnnlm", *options, "--out", "c"]) == 0
    # The run has a copy of what it began with: the other one may go.
    assert main(["train", "rnnlm", *options, "--out", "r"]) == 0
    Path("a").rename("gone")
    for name in ("model.safetensors", "checkpoint.safetensors"):
        Path("r", name).unlink()
    assert go_on("rnnlm") == 0
    assert models_of("r") == models_of("c")
    capsys.readouterr()
    code = main(["train", "rnnlm", "--init-from", "gone", "--hidden-size", "9"])
    assert "--hidden-size is 9, but the model of gone has 3; leave it out" in error_of(capsys, code)


@pytest.mark.parametrize("task", ["addition", "sentiment", "sine", "translate", "word2vec"])
def test_every_task_begins_with_the_weights_of_another_run(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(task, "--epochs", "1", "--out", "a") == 0
    assert main(["train", task, "--init-from", "a", "--epochs", "1", "--quiet", "--out", "b"]) == 0
    assert models_of("a").keys() == models_of("b").keys()
    first = next(Path("a").rglob("history.csv")), next(Path("b").rglob("history.csv"))
    assert float(without_seconds(first[1])[1][1]) < float(without_seconds(first[0])[1][1])
    capsys.readouterr()
    other = "rnnlm" if task != "rnnlm" else "addition"
    assert f"a is no run of the task '{other}'" in error_of(capsys, main(["train", other, "--init-from", "a"]))


# --------------------------------------------------------------------------------------------
# What a run says of itself
# --------------------------------------------------------------------------------------------


def test_config_and_history_say_when_how_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sentiment", *TASKS["sentiment"], "--epochs", "3", "--out", "r", "--tensorboard"]) == 0
    config = json.loads(Path("r/config.json").read_text())
    assert config["date"][:2] == "20"
    assert {"fastlstm", "python", "numpy"} <= config["versions"].keys()
    assert {"instruction_set", "threads", "backend"} <= config.keys()
    assert config["rows"] == {"training": 20, "validation": 2, "test": 2}
    assert config["classes"] == 2
    header, *rows = without_seconds(Path("r/history.csv"))
    assert {row[header.index("learning_rate")] for row in rows} == {"0.001"}
    assert Path("r/history.csv").read_text().splitlines()[0].count("seconds") == 1
    assert any(Path("r/tensorboard/validation").iterdir())


def test_changes_of_the_learning_rate_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "addition", *TASKS["addition"], "--epochs", "5", "--lr", "0.01", "--out", "r"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert ["learning rate" in line for line in lines] == [False, False, False, False, True]
    assert "learning rate 0.005" in lines[4]
    data = ["--data", "text.txt", *TINY, "--lr", "1e-20", "--cell", "rnn"]
    assert main(["train", "rnnlm", *data, "--epochs", "3", "--out", "s"]) == 0
    assert "epoch 2: val_perplexity stands still; learning rate 2.5e-21" in capsys.readouterr().out


def test_ties_of_the_best_epoch_go_to_the_smaller_loss() -> None:
    assert run_folder.best_epoch([0.5, 0.25, 0.25, 0.25], [0.1, 0.4, 0.2, 0.3]) == 2
    assert run_folder.best_epoch([0.5, 0.75, 0.75], [0.1, 0.4, 0.2], largest=True) == 2
    assert run_folder.best_epoch([0.5, 0.5]) == 0

    losses = iter([0.4, 0.2, 0.3])

    seen: list[Any] = []

    class Scripted(SequenceClassifier):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            seen.append(self.params[0].copy())
            return {"loss": next(losses), "error": 0.25}

    model = Scripted(4, 2, 2, 2, seed=0)
    stop = EarlyStopping("val_error", patience=9, restore_best_weights=True, tie_breaker="val_loss")
    xs, ts = np.array([[1, 2], [2, 3]]), np.array([0, 1])
    model.fit(xs, ts, epochs=3, validation_data=(xs, ts), metrics=("error",), callbacks=[stop], verbose=0)
    assert stop.best_epoch == 1
    np.testing.assert_array_equal(model.params[0], seen[1])
    stop = EarlyStopping("val_error", tie_breaker="val_accuracy")
    with pytest.raises(ValueError, match="breaks ties by 'val_accuracy', but the training has only loss, error"):
        model.fit(xs, ts, epochs=1, validation_data=(xs, ts), metrics=("error",), callbacks=[stop], verbose=0)


def test_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    def options_of(task: str, *given: str) -> dict[str, Any]:
        parser = command._make_parser()
        args: argparse.Namespace = parser.parse_args(["train", task, *given])
        module = args.command.keywords["task"]
        options: dict[str, Any] = vars(module.resolve(run_folder.given_options(args, module.Options)))
        return options

    char = options_of("rnnlm", "--data", "text.txt", "--unit", "char")
    assert (char["optimizer"], char["lr"], char["max_grad"]) == ("adam", 0.003, None)
    word = options_of("rnnlm", "--data", "text.txt")
    assert (word["optimizer"], word["lr"], word["max_grad"]) == ("sgd", 20.0, 0.25)
    limited = options_of("rnnlm", "--data", "text.txt", "--limit", "50")
    assert limited["hold_out"] == 0.1
    vectors = options_of("word2vec", "--data", "text.txt")
    assert (vectors["loss"], vectors["num_sampled"], vectors["lr"]) == ("negative_sampling", 5, 0.025)


# --------------------------------------------------------------------------------------------
# generate, evaluate, plot, list, neighbours
# --------------------------------------------------------------------------------------------


def test_options_stand_where_one_likes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert train("rnnlm", "--epochs", "1", "--out", "r") == 0
    wanted, _ = ask(capsys, "generate", "--length", "4", "--seed", "1", "r", "the cat")
    for arguments in (
        ["generate", "r", "--length", "4", "--seed", "1", "the cat"],
        ["generate", "r", "the", "--seed", "1", "cat", "--length", "4"],
        ["generate", "r", "the cat", "--length=4", "--seed=1"],
    ):
        assert ask(capsys, *arguments)[0] == wanted
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
    assert ask(capsys, "generate", "r", "--length", "4", "--seed", "1")[0] == wanted
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert ask(capsys, "generate", "r", "--length", "4", "--seed", "1")[0].strip()
    with pytest.raises(SystemExit):
        main(["generate", "r", "the cat", "--no-such"])
    assert "unrecognized arguments: --no-such" in capsys.readouterr().err


def test_evaluate_reads_a_file_as_the_run_read_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def measured(run: str, file: str) -> dict[str, float]:
        lines = ask(capsys, "evaluate", run, "--data", file)[0].splitlines()
        return {
            name.strip(): float(number.replace(",", "")) for name, _, number in (line.rpartition(" ") for line in lines)
        }

    for task, file in (("addition", "sums.txt"), ("rnnlm", "text.txt"), ("sentiment", "labelled.tsv")):
        assert train(task, "--epochs", "1", "--out", task, "--test", file, "--validation", file) == 0
        figures = measured(task, file)
        config = json.loads(Path(task, "config.json").read_text())
        known = {"addition": "accuracy", "rnnlm": "perplexity", "sentiment": "error"}[task]
        assert figures[known] == pytest.approx(config["result"][f"test_{known}"], rel=1e-3)
        assert config["rows"]["validation"] == config["rows"]["test"]
    assert train("translate", "--epochs", "1", "--out", "t", "--validation", "pairs.tsv", "--test", "pairs.tsv") == 0
    assert measured("t", "pairs.tsv")["rows"] == 5
    assert train("word2vec", "--epochs", "2", "--out", "w", "--validation", "text.txt", "--test", "text.txt") == 0
    figures = measured("w", "text.txt")
    assert figures["loss"] == pytest.approx(
        json.loads(Path("w/config.json").read_text())["result"]["test_loss"], rel=1e-3
    )
    series = ["--data", "series.csv", "--column", "x", *TINY, "--steps", "6", "--horizon", "3", "--epochs", "2"]
    files = ["--validation", "series.csv", "--test", "series.csv"]
    assert main(["train", "series", *series, *files, "--quiet", "--out", "s"]) == 0
    result = json.loads(Path("s/config.json").read_text())["result"]
    tested = measured("s", "series.csv")["x 1 step ahead, rms error"]
    assert tested == pytest.approx(result["test_rms_error"]["x"]["1 step"], rel=1e-3)
    assert SequenceRegressor.load("s/model.safetensors").scaling is not None
    capsys.readouterr()
    assert "is no run folder" in error_of(capsys, main(["evaluate", "nowhere", "--data", "text.txt"]))


def test_neighbours_of_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("word2vec", "--epochs", "2", "--out", "r") == 0
    near = Word2Vec.load("r/model.safetensors").words.most_similar("cat", topn=2)
    out, _ = ask(capsys, "neighbours", "r", "cat", "--top", "2", "dog")
    first, second = out.splitlines()
    assert first == "cat: " + ", ".join(f"{word} {cosine:.3f}" for word, cosine in near)
    assert second.startswith("dog: ")
    assert main(["neighbours", "r", "cow", "cat"]) == 2
    out, err = capsys.readouterr()
    assert (
        err == f"fastlstm: 'cow' is not in the vocabulary of {len(Word2Vec.load('r/model.safetensors').words)} words\n"
    )
    assert out.splitlines()[1].startswith("cat: ")


def test_list_shows_all_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("sine", "--epochs", "2", "--out", "runs/a") == 0
    assert train("rnnlm", "--epochs", "2", "--out", "runs/below/b") == 0
    config = json.loads(Path("runs/below/b/config.json").read_text())
    del config["result"]
    Path("runs/below/b/config.json").write_text(json.dumps(config))
    header, *rows = ask(capsys, "list")[0].splitlines()
    assert header.split() == ["RUN", "TASK", "BEGAN", "EPOCHS", "RESULT"]
    assert [row.split()[:2] for row in rows] == [["runs/a", "sine"], ["runs/below/b", "rnnlm"]]
    assert "2/2     continued_rms_error lstm " in rows[0]
    assert rows[1].endswith("2/2     not finished")
    assert ask(capsys, "list", "runs/a")[0].splitlines()[1].split() == rows[0].split()
    assert "nowhere is no folder" in error_of(capsys, main(["list", "nowhere"]))


def test_plot_draws_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert train("rnnlm", "--epochs", "2", "--out", "r") == 0
    assert not Path("r/perplexity.png").exists()
    monkeypatch.setattr("fastlstm.cli.training_run.can_draw", lambda _: True)
    assert ask(capsys, "plot", "r")[0] == "r/perplexity.png\n"
    assert Path("r/perplexity.png").read_bytes().startswith(b"\x89PNG")
    Path("r/history.csv").unlink()
    assert "r has no history.csv: nothing has been learned yet" in error_of(capsys, main(["plot", "r"]))


# --------------------------------------------------------------------------------------------
# Readers that stop reading, and Ctrl-C
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["train", "rnnlm", "--help"], ["list", "."]])
def test_a_reader_may_stop_reading(arguments: list[str]) -> None:
    assert train("rnnlm", "--epochs", "1", "--out", "r") == 0
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "fastlstm", *arguments], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert done.returncode in (0, 141)  # argparse goes on after it could not write
    assert done.stderr == ""


def test_ctrl_c_twice_stops_at_once() -> None:
    """Although the first one would have waited for the end of the batch, which takes minutes here."""
    script = (
        "import sys, time, fastlstm.models as m\n"
        "from fastlstm.cli import main\n"
        "def forward(*_, **__):\n"
        "    print('in a batch', flush=True)\n"
        "    time.sleep(300)\n"
        "m.RNNLM.forward = forward\n"
        "sys.exit(main(['train', 'rnnlm', '--data', 'text.txt', '--out', 'r', '--quiet']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in a batch\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-2:] == [
        "stopping after this batch; Ctrl-C again stops at once",
        "interrupted; go on with: fastlstm train rnnlm --resume r",
    ]
