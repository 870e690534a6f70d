"""The files of examples/: they run, and what is written by hand there agrees with what runs on the operators."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thread_workers import on_workers

from fastlstm import distributed

EXAMPLES = Path(__file__).parent.parent / "examples"
BY_HAND_AND_OURS = ("min_char_rnn", "char_lstm")

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not beside the tests")


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of that name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(request.param)


def losses(output: str) -> dict[str, list[float]]:
    """What was printed, in order, by who computed it."""
    return {
        who: [float(loss) for loss in re.findall(rf"^{who} +step +\d+, loss (\S+)$", output, re.MULTILINE)]
        for who in ("by_hand", "ours")
    }


@pytest.mark.parametrize("example", BY_HAND_AND_OURS, indirect=True)
def test_losses_by_hand_and_ours_agree_and_fall(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(example.TEXT, steps=60)
    output = capsys.readouterr().out
    found = losses(output)
    assert len(found["ours"]) == 5
    np.testing.assert_allclose(found["ours"], found["by_hand"], rtol=0, atol=1e-5)
    assert found["ours"][-1] < 0.8 * found["ours"][0]
    assert re.search(r": \d+\.\d times as fast$", output, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND_AND_OURS)
def test_they_run_on_a_file(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Ein Tag ist kurz, zwei Tage sind länger.\n" * 9)
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", text], capture_output=True, text=True, timeout=300, check=True
    )
    found = losses(done.stdout)
    assert found["by_hand"][-1] < found["by_hand"][0]
    assert found["ours"][-1] < found["ours"][0]


@pytest.mark.parametrize("name", BY_HAND_AND_OURS)
def test_one_lecture_is_under_80_lines(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("example", ["data_parallel"], indirect=True)
def test_several_workers_end_with_the_bits_of_one(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    alone = example.train(distributed.Alone(), steps=100)
    found = re.findall(r"^step (\d+): loss (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert float(found[-1][1]) < 0.9 * np.log(8)  # what a guess has
    assert on_workers(3, lambda workers: example.train(workers, steps=100)) == [alone] * 3


def test_onnxruntime_alone_writes_what_the_model_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("onnx_seq2seq").main(epochs=1, examples=500)
    assert capsys.readouterr().out.endswith("equal ids: 100%\n")


@pytest.mark.parametrize("example", ["rnn_layers"], indirect=True)
def test_layers_of_the_course_check_themselves(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    assert capsys.readouterr().out.count("agree with central differences") == 7


@pytest.mark.parametrize("example", ["rnn_layers"], indirect=True)
def test_layers_of_the_course_compute_its_formulas(example: Any) -> None:
    N, T, D, H = 3, 4, 5, 2
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((N, T, D)), rng.standard_normal((N, H))
    Wx, Wh, b = rng.standard_normal((D, 4 * H)), rng.standard_normal((H, 4 * H)), rng.standard_normal(4 * H)
    hs, cache = example.lstm_forward(x, h0, Wx, Wh, b)
    h, c = h0, np.zeros((N, H))
    for t in range(T):
        a = x[:, t] @ Wx + h @ Wh + b
        i, f, o = (1 / (1 + np.exp(-a[:, k * H : (k + 1) * H])) for k in range(3))
        step = example.lstm_step_forward(x[:, t], h, c, Wx, Wh, b)
        c = f * c + i * np.tanh(a[:, 3 * H :])
        h = o * np.tanh(c)
        np.testing.assert_allclose(hs[:, t], h, atol=1e-12)
        np.testing.assert_allclose(step[0], h, atol=1e-12)
        np.testing.assert_allclose(step[1], c, atol=1e-12)

    scores, y, mask = rng.standard_normal((N, T, D)), rng.integers(0, D, (N, T)), rng.random((N, T)) < 0.5
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    want = -sum(log_p[n, t, y[n, t]] for n in range(N) for t in range(T) if mask[n, t]) / N
    assert example.temporal_softmax_loss(scores, y, mask)[0] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("example", ["own_model"], indirect=True)
def test_a_model_of_ones_own_learns_and_is_loaded(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(epochs=20, examples=400) > 0.9
    assert "of other waves are told right" in capsys.readouterr().out


@pytest.mark.parametrize("example", ["tag_words"], indirect=True)
def test_names_are_tagged_by_both_sides(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([], epochs=12, sentences=400)["f1"] > 0.9
    assert re.search(r"^  \w+ +B-(PER|LOC|ORG)$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("example", ["tag_words"], indirect=True)
def test_files_of_conll_are_read(example: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n")
    words, labels = example.read_conll(path)
    assert words == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert labels == [["B-ORG", "O"], ["B-PER", "I-PER"]]
    path.write_text("EU NNP\nrejects VBZ\n\nPeter NNP\n\n" * 6)  # parts of speech
    assert set(example.main([str(path), str(path)], epochs=1)) == {"loss", "accuracy", "error"}
    path.write_text("EU B-ORG\nrejects\n")
    with pytest.raises(ValueError, match="line 2: 'rejects' has one column, expected a word and a label"):
        example.read_conll(path)


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", ["torch_word_lm", "torch_char_rnn", "torch_classifier"])
def test_scripts_of_torch_learn_the_same_with_one_line_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module(name)
    for size in {"BATCH", "STEPS"} & vars(example).keys():
        monkeypatch.setattr(example, size, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine PyTorch's threads wait for each other
    try:
        ours, by_torch = (example.main(example.TEXT, steps=4, by_torch=by_torch) for by_torch in (False, True))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(ours, by_torch, rtol=1e-3)
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 90
