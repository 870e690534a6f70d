"""Run folders of every task: none after a failed start, whole after a kill at any stage, right where training fails."""

from __future__ import annotations

import csv
import errno
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, without_seconds

from fastlstm import callbacks, datasets, tensor_file
from fastlstm.cli import command, dates, main, plots, run_folder, training_run, translate
from fastlstm.cli.training_run import write_config
from fastlstm.datasets.pairs import decode
from fastlstm.models import RNNLM, Model, memory

SMALL = ["--epochs", "2", "--hidden-size", "8", "--batch-size", "16"]
ARGUMENTS: dict[str, list[str]] = {
    "addition": ["--data", "sums.txt", *SMALL, "--wordvec-size", "4"],
    "dates": ["--data", "dates.txt", *SMALL, "--wordvec-size", "4"],
    "rnnlm": ["--data", "text.txt", *SMALL],
    "sentiment": ["--data", "labelled.tsv", *SMALL, "--wordvec-size", "4"],
    "series": ["--data", "series.csv", "--column", "x", *SMALL, "--steps", "6", "--horizon", "3"],
    "sine": SMALL,
    "translate": ["--data", "pairs.tsv", *SMALL, "--wordvec-size", "4", "--attention"],
    "word2vec": ["--data", "text.txt", "--epochs", "2", "--vector-size", "4", "--num-sampled", "2", "--no-eval"],
}
ARGUMENTS["addition --compare"] = [*ARGUMENTS["addition"], "--compare"]


def lines_of(pairs: datasets.SequencePairs) -> str:
    return "".join(
        decode(x, pairs.vocabulary) + decode(t, pairs.vocabulary) + "\n"
        for x, t in zip(pairs.xs, pairs.ts, strict=True)
    )


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file for each task in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    Path("sums.txt").write_text(lines_of(datasets.addition(60, seed=0)))
    Path("dates.txt").write_text(lines_of(datasets.dates(60, seed=0)))
    Path("text.txt").write_text("the cat saw a dog .\na dog saw the cat .\n" * 20)
    Path("labelled.tsv").write_text("good\ta fine film\nbad\tdreadful and dull\n" * 20)
    Path("series.csv").write_text("x\n" + "".join(f"{i % 7}\n" for i in range(80)))
    Path("pairs.tsv").write_text("".join(f"{word} .\t{word[::-1]} !\n" for word in ("go", "sit", "run", "see", "eat")))


@pytest.fixture
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One map of attention where there are several, few dots, no search for room: most of a short run is drawing."""
    from matplotlib.figure import Figure

    savefig = Figure.savefig

    def save_small(figure: Figure, file: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        savefig(figure, file, **{**options, "dpi": 20})

    monkeypatch.setattr(Figure, "savefig", save_small)
    for module in (dates, translate):
        monkeypatch.setattr(module, "MAPS", 1)


def train(task: str, *more: str | Path) -> int:
    return main(["train", command_of(task), *ARGUMENTS[task], "--quiet", "--out", "r", *map(str, more)])


def resume(task: str) -> int:
    return main(["train", command_of(task), "--resume", "r", "--quiet"])


def command_of(task: str) -> str:
    return task.split()[0]


def contents(folder: str | Path) -> dict[str, Any]:
    """Files by their names; of a history what two runs have in common, of a checkpoint, which has it too, nothing."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): content_of(path) for path in files}


def content_of(path: Path) -> Any:
    if path.name == "history.csv":
        return without_seconds(path)
    return b"" if path.name == "checkpoint.safetensors" else path.read_bytes()


# --------------------------------------------------------------------------------------------
# What can be known before the training
# --------------------------------------------------------------------------------------------


def number_options() -> list[tuple[str, str]]:
    """Every option of every task whose type is a number, after its task."""

    def choices(parser: Any) -> Any:
        return parser._subparsers._group_actions[0].choices

    return [
        (task, action.option_strings[0])
        for task, parser in choices(choices(command._make_parser())["train"]).items()
        for action in parser._actions
        if action.type is not None
    ]


@pytest.mark.parametrize(("task", "option"), number_options())
def test_a_number_that_no_training_can_use(task: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    zero_is_good = {"--seed", "--dropout", "--subsample", "--noise", "--hold-out", "--validation-split"}
    values = ["inf", "-inf", "nan", "-1", "1e99", "9" * 40, "1" * 5000, "", "x", "١e999"]
    for value in [*values, *([] if option in zero_is_good else ["0"])]:
        with pytest.raises(SystemExit) as end:
            train(task, f"{option}={value}")
        line = error_of(capsys, end.value.code)  # type: ignore[arg-type]
        names, _, what = line.partition("argument ")[2].partition(": ")
        assert option in names.split("/")
        assert what.startswith(f"{value!r:.60} is no ")
    assert not Path("r").exists()


def test_the_numbers_of_all_tasks_are_tried() -> None:
    assert len(number_options()) > 70


TOO_LARGE = [
    ("addition", "--hidden-size", "99999999"),
    ("addition", "--wordvec-size", "2147483647"),
    ("dates", "--hidden-size", "2147483647"),
    ("rnnlm", "--hidden-size", "2147483647"),
    ("rnnlm", "--wordvec-size", "2147483647"),
    ("sentiment", "--hidden-size", "2147483647"),
    ("sentiment", "--wordvec-size", "2147483647"),
    ("sine", "--hidden-size", "2147483647"),
    ("translate", "--hidden-size", "2147483647"),
    ("translate", "--wordvec-size", "2147483647"),
    ("word2vec", "--vector-size", "2147483647"),
]


@pytest.mark.parametrize(("task", "option", "value"), TOO_LARGE)
def test_a_model_that_memory_has_no_room_for(
    task: str, option: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2**33)
    before = set(Path().iterdir())
    line = error_of(capsys, train(task, option, value))
    assert f"{value})" in line or f"({value}" in line or f"{4 * int(value)})" in line
    assert " GiB of memory, 8.0 GiB are free" in line
    assert set(Path().iterdir()) == before


def test_a_model_that_cannot_be_trained_in_the_memory_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights alone would fit."""
    monkeypatch.setattr(memory, "free_memory", lambda: 2**23)
    line = error_of(capsys, train("addition", "--hidden-size", "256"))
    wanted = "learning 803,445 parameters (their gradients, and what the optimiser keeps) needs 9 MiB of memory, 8 MiB"
    assert line == f"fastlstm: {wanted} are free"
    assert not Path("r").exists()


def test_memory_that_runs_out_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: Any, **__: Any) -> float:
        raise MemoryError

    monkeypatch.setattr(RNNLM, "forward", run_out)
    assert error_of(capsys, train("rnnlm")) == "fastlstm: there is not enough memory"
    assert not Path("r").exists()


@pytest.mark.skipif(memory.free_memory() is None, reason="the system does not say how much memory is free")
def test_free_memory_is_what_the_system_says() -> None:
    free = memory.free_memory()
    assert free is not None
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free > 0
    assert free < 64 * pages


def test_where_the_system_says_nothing_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", Path("nowhere"))
    assert memory.free_memory() is None
    memory.check_room("all", 2**80)
    Path("meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2048 kB\nHugePages_Total: 0\nSwapFree: 1024 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", Path("meminfo"))
    assert memory.free_memory() == 3 * 2**20
    memory.check_room("this", 3 * 2**20)
    with pytest.raises(MemoryError, match=r"this needs 128 MiB of memory, 3 MiB are free"):
        memory.check_room("this", 2**27)


@pytest.mark.parametrize("task", ARGUMENTS)
def test_a_run_folder_that_cannot_be_made(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/of").write_text("something")
    before = contents(".")
    for out, message in {
        "full": "full exists already; choose another --out",
        "text.txt": "text.txt exists already",
        "text.txt/below": "text.txt",
        "/proc/nowhere/run": "/proc/nowhere",
        "a" * 300: "File name too long",
        "": "exists already",
    }.items():
        said = error_of(capsys, train(task, "--out", out))
        assert message in said, out
        assert "--resume" not in said  # there is no run to go on with
    assert contents(".") == before


@pytest.mark.parametrize("task", ARGUMENTS)
def test_a_start_that_fails_leaves_the_name_free(
    task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that only the training itself finds wrong."""
    before = set(Path().iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.TerminateOnNaN, "on_train_begin", lambda _: (_ for _ in ()).throw(ValueError("no")))
        assert error_of(capsys, train(task, "--out", "a/b/r")) == "fastlstm: no"
        assert set(Path().iterdir()) == before
        Path("r").mkdir()  # this one is the user's
        assert error_of(capsys, train(task)) == "fastlstm: no"
        assert list(Path("r").iterdir()) == []
        assert error_of(capsys, main(["train", command_of(task), *ARGUMENTS[task]])) == "fastlstm: no"
        assert not Path("runs").exists()


def test_a_config_that_cannot_be_written_leaves_no_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(run_folder, "write_atomically", full)
    assert error_of(capsys, train("rnnlm")) == "fastlstm: [Errno 28] No space left on device: 'r/config.json'"
    assert not Path("r").exists()


def test_what_a_run_killed_in_its_first_epoch_leaves_can_be_gone_on_with() -> None:
    assert train("rnnlm") == 0
    whole = contents("r")
    for name in whole:
        if name != "config.json":
            Path("r", name).unlink()
    config = json.loads(whole["config.json"])
    del config["result"]
    Path("r/config.json").write_text(json.dumps(config))
    assert resume("rnnlm") == 0
    assert contents("r") == whole


# --------------------------------------------------------------------------------------------
# Killed between the stages of the end
# --------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no code looks for."""


def die(*_: Any, **__: Any) -> Any:
    raise Killed


def save_and_die(model: Model, path: Path) -> None:
    tensor_file.write_tensor_file(path, dict(model.named_parameters()), model.description())
    raise Killed


def die_with_a_result(folder: Path, task: str, options: Any, **entries: Any) -> None:
    if "result" in entries:
        raise Killed
    write_config(folder, task, options, **entries)


# Where training is ended, and what with.
STAGES = {
    "before the model": ("fastlstm.models.Model.save", die),
    "before the checkpoint goes": ("fastlstm.models.Model.save", save_and_die),
    "before the result": ("fastlstm.cli.training_run.write_config", die_with_a_result),
    "before the pictures": ("fastlstm.cli.training_run.finish", die),
    "in a picture": ("fastlstm.cli.plots.write_picture", die),
}


@functools.cache
def whole_run(task: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a run that nothing happened to leaves, as `contents` has it and as it is."""
    assert train(task) == 0
    Path("r").rename("whole")
    files = {str(path.relative_to("whole")): path for path in Path("whole").rglob("*") if path.is_file()}
    return contents("whole"), {name: path.read_bytes() for name, path in files.items()}


def result_of(run: dict[str, Any]) -> Any:
    result = json.loads(run["config.json"])["result"]
    result.pop("words_per_second", None)  # of a training in one go
    return result


@pytest.mark.usefixtures("_small_pictures")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("task", ARGUMENTS)
def test_a_run_killed_at_its_end_becomes_whole(
    task: str, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _ = whole_run(task)
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage])
        with pytest.raises(Killed):
            train(task)
    assert contents("r").keys() != whole.keys()
    assert resume(task) == 0
    part = contents("r")
    assert part.keys() == whole.keys()
    assert not [name for name in whole if not name.endswith("config.json") and part[name] != whole[name]]
    assert result_of(part) == result_of(whole)
    capsys.readouterr()
    assert "r is finished" in error_of(capsys, resume(task))
    assert contents("r") == part


@pytest.mark.usefixtures("_small_pictures")
@pytest.mark.parametrize("task", ARGUMENTS)
def test_every_file_that_is_missing_is_made_again(task: str) -> None:
    whole, files = whole_run(task)
    for name, content in files.items():
        Path("r", name).parent.mkdir(parents=True, exist_ok=True)
        Path("r", name).write_bytes(content)
    made_again = ("continued.csv", "translations.txt", "vectors.txt", "attention.png", "loss.png", "perplexity.png")
    for name in whole:
        if Path(name).name in made_again:
            Path("r", name).unlink()
            assert resume(task) == 0
            assert contents("r")[name] == whole[name]


def test_pictures_are_drawn_once_there_is_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        assert train("rnnlm") == 0
        assert not Path("r/perplexity.png").exists()
        capsys.readouterr()
        assert "r is finished" in error_of(capsys, resume("rnnlm"))
    assert resume("rnnlm") == 0
    assert "learned before" in capsys.readouterr().out
    assert Path("r/perplexity.png").exists()


# --------------------------------------------------------------------------------------------
# Pictures that cannot be drawn
# --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_pictures")
@pytest.mark.parametrize("task", ARGUMENTS)
def test_a_full_disk_while_drawing_costs_the_pictures_only(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = tensor_file.write_atomically

    def full_for_pictures(path: Path, content: bytes) -> None:
        if Path(path).suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("fastlstm.models.layer_graph.write_atomically", full_for_pictures)
        assert train(task) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "run folder: r"
    left = contents("r")
    assert "result" in json.loads(left["config.json"])
    again = "The model is saved; to draw it: fastlstm plot r"
    lines = [line for line in err.splitlines() if line.startswith("fastlstm: ")]
    assert resume(task) == 0
    drawn = contents("r").keys() - left.keys()
    assert drawn
    assert all(name.endswith(".png") for name in drawn)
    for name in drawn:
        (line,) = [line for line in lines if line.startswith(f"fastlstm: r/{name} could not be drawn: ")]
        assert "No space left on device" in line
        if "/" not in name:
            assert line.endswith(again)


def test_an_error_of_matplotlib_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert train("rnnlm") == 1
    assert "fastlstm: r/perplexity.png could not be drawn: two lines. The model is saved" in capsys.readouterr().err
    assert "perplexity.png" not in contents("r")


NAMES = [
    "a$x",
    "$_{",
    "$x$_{y",
    "a $\\x{$ b",
    "\\frac",
    "日本語",
    "a_b%#&~^",
    "\udcff",
    "😀$",
    "हिन्दी",
    "x" * 200,
    "two\nlines",
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_can_stand_in_a_title(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    history = {"perplexity": [3.0, 2.0], "loss": [3.0, 2.0], "error": [0.5, 0.4]}
    maps = [plots.AttentionMap([name], ["$", "$x$"], np.full((2, 1), 0.5))]
    drawn: plots.Pictures = {
        **plots.of_perplexity(name, history),
        **plots.of_errors(name, history),
        "attention.png": lambda path: plots.plot_attention(path, name, maps),
    }
    for file, draw in drawn.items():
        draw(Path(file))
        assert Path(file).read_bytes().startswith(b"\x89PNG")
    assert "Traceback" not in capsys.readouterr().err


def titles_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles that the next pictures show, as matplotlib's parser of mathematics leaves them."""
    shown: list[str] = []

    def remember(path: Path, figure: Any, **_: Any) -> None:
        for text in figure.findobj(lambda artist: hasattr(artist, "get_parse_math")):
            shown.append(text.get_text() if not text.get_parse_math() else "")

    monkeypatch.setattr(plots, "write_picture", remember)
    return shown


def test_a_dollar_is_a_dollar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = titles_of(monkeypatch)
    plots.of_perplexity("a $x$ b", {"perplexity": [2.0]})["perplexity.png"](Path("p.png"))
    assert "a $x$ b" in shown
    maps = [plots.AttentionMap(["$a$", "b"], ["$", "c$"], np.full((2, 2), 0.5))]
    plots.plot_attention(Path("a.png"), "$t$", maps)
    assert {"$t$", "$a$", "$", "c$"} <= set(shown)


def test_numbers_stand_beside_axes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither 1e6 nor +3e6 above an axis, nor powers of ten."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(plots, "write_picture", lambda _, figure, **__: figures.append(figure))
    large = [3e6 + 0.1 * i for i in range(6)]
    series = np.array(large)[:, None]
    plots.of_loss("title", "loss", {"": {"loss": large}})["loss.png"](Path("loss.png"))
    plots.of_perplexity("title", {"perplexity": [5e6, 300.0, 20.0]})["perplexity.png"](Path("perplexity.png"))
    plots.of_errors("title", {"loss": [1e-7, 2e-7], "error": [0.1]})["loss.png"](Path("loss.png"))
    plots.plot_forecast(Path("f.png"), "title", ["a"], series, 3, series[3:], series[:2], (series[:2], series[:2]))
    plots.plot_series(Path("s.png"), "title", series[:, 0], series[:3, 0], 3, {"lstm": series[3:, 0]})
    shown = []
    for figure in figures:
        figure.canvas.draw()
        axis = figure.axes[0].yaxis
        shown.append([label.get_text() for label in axis.get_ticklabels() if label.get_text()])
        assert axis.get_offset_text().get_text() == ""
    assert len(shown) == 5
    assert all(len(labels) >= 3 and not any(sign in "e^$" for sign in "".join(labels)) for labels in shown), shown
    assert "3,000,000.2" in shown[0]
    assert {"100", "1,000", "1,000,000"} <= set(shown[1])
    assert "3000000.2" in shown[3]


def test_a_picture_takes_several_fonts_and_says_once_which_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    font, unknown = plots._font_for(Path("a.png"), ["abc \u2a0b"])  # DejaVu Sans has none, STIX, beside it, has
    capsys.readouterr()
    if not unknown:
        assert len(font.get("fontfamily", [1, 2])) >= 2
    _, unknown = plots._font_for(Path("a.png"), ["\ue000"])
    assert unknown == {"\ue000"}
    capsys.readouterr()
    maps = [plots.AttentionMap(["\ue000"], ["a"], np.ones((1, 1)))]
    plots.plot_attention(Path("a.png"), "\ue001", maps)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "a.png: no installed font has \ue000\ue001; with one, such as of the package fonts-noto-core"
    )
    assert plots._package_for("\u8a9e") == plots._package_for("\ud55c") == "fonts-noto-cjk"


def test_words_with_dollars_and_without_a_font_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastlstm.models import WordVectors

    words = ["$x$", "_", "\ue000", "日本", "a$b", "\\"]
    vectors = WordVectors(words, np.eye(6, dtype=np.float32))
    plots.plot_words(Path("words.png"), vectors, 300)
    assert Path("words.png").read_bytes().startswith(b"\x89PNG")
    assert "words.png: no installed font has " in capsys.readouterr().err
    shown = titles_of(monkeypatch)
    plots.plot_words(Path("words.png"), vectors, 300)
    assert {"$x$", "_", "a$b", "\\"} <= set(shown)


# --------------------------------------------------------------------------------------------
# Divergence
# --------------------------------------------------------------------------------------------


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_training_that_diverges_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("rnnlm", "--lr", "1e6", "--time-size", "1000", "--epochs", "1") == 1
    out, err = capsys.readouterr()
    assert "the training diverged: val_" in err
    assert "A smaller learning rate" in err
    config = strict(Path("r/config.json").read_text())
    assert config["result"]["val_perplexity"] is None
    assert Path("r/model.safetensors").exists()
    assert "inf" in Path("r/history.csv").read_text() or "nan" in Path("r/history.csv").read_text()
    assert Path("r/perplexity.png").exists()
    assert "r is finished" in error_of(capsys, resume("rnnlm"))


@pytest.mark.parametrize("task", ["word2vec", "rnnlm"])
def test_weights_that_are_not_finite_are_a_divergence(
    task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although every number of the history is of the weights before the last step."""
    monkeypatch.setattr(
        callbacks.BackupAndRestore, "on_train_end", lambda self: self.model.params[0].__setitem__(0, math.inf)
    )
    assert train(task) == 1
    assert "the training diverged: embedding.W has weights that are not finite" in capsys.readouterr().err
    strict(Path("r/config.json").read_text())


def test_the_best_epoch_is_one_that_is_finite(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the first is infinite, and the last: the weights are those of the second."""
    weights: list[bytes] = []
    said = iter([math.inf, 3.0, math.nan])

    def evaluate(model: RNNLM, *_: Any, **__: Any) -> dict[str, float]:
        weights.append(model.params[0].tobytes())
        return {"loss": 1.0, "perplexity": next(said)}

    monkeypatch.setattr(RNNLM, "evaluate", evaluate)
    assert train("rnnlm", "--epochs", "3") == 1
    assert "the training diverged: val_perplexity is nan in epoch 3" in capsys.readouterr().err
    assert strict(Path("r/config.json").read_text())["result"]["val_perplexity"] == 3.0
    assert RNNLM.load("r/model.safetensors").params[0].tobytes() == weights[1]


def test_best_epoch() -> None:
    assert run_folder.best_epoch([math.nan, math.inf, 2.0, 1.0, 1.0, -math.inf]) == 3
    assert run_folder.best_epoch([math.inf, math.nan]) is None
    assert run_folder.best_epoch([]) is None


@pytest.mark.parametrize("task", ["rnnlm", "sine"])
def test_config_json_is_strict(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = training_run.write_config

    def with_infinity(folder: Path, task: str, options: Any, **entries: Any) -> None:
        write(folder, task, options, **entries, more={"a": [math.inf], "b": {"c": -math.inf, "d": np.float64("nan")}})

    monkeypatch.setattr(training_run, "write_config", with_infinity)
    assert train(task) == 0
    assert strict(Path("r/config.json").read_text())["more"] == {"a": [None], "b": {"c": None, "d": None}}


def test_a_history_of_infinities_is_drawn() -> None:
    for values in ([math.inf, math.inf], [math.nan], [1.0, math.inf, 2.0], [0.0, 0.0]):
        for draw in (
            *plots.of_perplexity("t", {"perplexity": values, "val_perplexity": values}).items(),
            *plots.of_errors("t", {"loss": values, "error": values}).items(),
        ):
            name, function = draw
            function(Path(name))
            assert Path(name).read_bytes().startswith(b"\x89PNG")


# --------------------------------------------------------------------------------------------
# python -m fastlstm
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["fastlstm", "fastlstm.cli"])
def test_the_package_runs_as_the_command(module: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=120, check=False
        )

    shown = run("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: fastlstm ")
    assert "Exit codes: 0 done; 1 the training diverged" in " ".join(shown.stdout.split())
    wrong = run("train", "rnnlm", "--lr", "inf")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("fastlstm train rnnlm: argument --lr: 'inf' is no number above 0")
    assert run("train", *["rnnlm", *ARGUMENTS["rnnlm"]], "--quiet", "--out", "r").returncode == 0
    with open("r/history.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 3
