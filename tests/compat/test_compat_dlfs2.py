"""The drop-in for the book's scripts: same printed losses, same random numbers, and whose name a name is."""

from __future__ import annotations

import codecs
import contextlib
import os
import pickle
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import fastlstm
from fastlstm import array_pickle
from fastlstm.compat import dlfs2
from fastlstm.compat.dlfs2 import (
    __main__ as runner,
)
from fastlstm.compat.dlfs2 import (
    arrays,
    base_model,
    data,
    evaluation,
    functions,
    installing,
    layers,
    negative_sampling,
    optimizer,
    trainer,
    words,
)
from fastlstm.contract import FloatArray

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "benchmarks" / "book"
SCRIPTS = (
    "ch04/train.py",
    "ch05/train.py",
    "ch06/train_rnnlm.py",
    "ch06/train_better_rnnlm.py",
    "ch07/train_seq2seq.py",
    "ch08/train.py",
)


def addition_lines(n: int) -> list[str]:
    draw = random.Random(0)
    pairs = [(draw.randrange(1000), draw.randrange(1000)) for _ in range(n)]
    return [f"{a}+{b}".ljust(7) + f"_{a + b}".ljust(5) for a, b in pairs]


def date_lines(n: int) -> list[str]:
    draw = random.Random(0)
    dates = [(draw.randrange(1970, 2020), draw.randrange(1, 13), draw.randrange(1, 29)) for _ in range(n)]
    return [f"{m}/{d}/{y}".ljust(12) + f"_{y}-{m:02}-{d:02}" for y, m, d in dates]


def printed_by(script: Path, *options: str) -> str:
    """What a script of the tree prints, from its own folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *options, script.name, "small"]
    done = subprocess.run(
        command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return re.sub(r"time \d+\[s\]", "time", done.stdout)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_prints_the_same_losses(script: str) -> None:
    theirs = printed_by(BOOK / script)
    ours = printed_by(BOOK / script, "-m", "fastlstm.compat.dlfs2")
    assert ours == theirs
    assert len(re.findall(r"loss|perplexity|val acc", theirs)) >= 3


# --------------------------------------------------------------------------------------------
# Installing
# --------------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's own common/util.py and common/layers.py at the head of the path."""
    package = tmp_path / "common"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "util.py").write_text(
        "import collections\n"
        "def clip_grads(grads, max_norm):\n    return 'their own'\n"
        "def only_theirs():\n    return clip_grads([], 1.0)\n"
    )
    (package / "layers.py").write_text("class Affine:\n    pass\nclass Mine(Affine):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "common"}
    yield tmp_path
    dlfs2.uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] in ("common", "dataset", "ch04", "ch08")]:
        del sys.modules[name]
    sys.modules.update(before)


def imported(name: str) -> Any:
    module: ModuleType = __import__(name, fromlist=["*"])
    return module


def test_what_we_have_replaces_and_what_we_lack_stays(book: Path) -> None:
    dlfs2.install()
    util = imported("common.util")
    assert util.__file__ == str(book / "common" / "util.py")
    assert util.eval_seq2seq is evaluation.eval_seq2seq
    assert util.collections is not None
    # A function of the user's own finds our clip_grads, which returns the norm.
    assert util.only_theirs() == 0.0
    assert imported("common.layers").Affine is layers.Affine
    assert imported("common.layers").Mine.__module__ == "common.layers"


def test_modules_that_the_user_does_not_have_are_there(book: Path) -> None:
    dlfs2.install()
    time_layers = imported("common.time_layers")
    assert time_layers.TimeLSTM is layers.TimeLSTM
    assert time_layers.np is np
    assert imported("common.config").GPU is False
    assert imported("ch04.negative_sampling_layer").NegativeSamplingLoss is negative_sampling.NegativeSamplingLoss
    assert imported("attention_layer").TimeAttention is layers.TimeAttention
    assert imported("dataset.ptb").load_data is data.load_ptb
    with pytest.raises(ModuleNotFoundError):
        imported("common.nothing")


def test_every_name_that_is_registered_exists_and_star_imports_work(book: Path) -> None:
    dlfs2.install()
    names: dict[str, Any] = {}
    exec("from common.time_layers import *", names)
    assert {"np", "TimeEmbedding", "TimeBiLSTM", "softmax", "sigmoid", "Affine", "Dropout"} <= set(names)
    for name, stand in installing.MODULES.items():
        module = imported(name)
        assert all(getattr(module, ours) is value for ours, value in stand.ours.items()), name


def test_uninstall_gives_all_names_back(book: Path) -> None:
    dlfs2.install()
    util = imported("common.util")
    imported("common.optimizer")
    dlfs2.uninstall()
    assert util.only_theirs() == "their own"
    assert not hasattr(util, "eval_seq2seq")
    with pytest.raises(ModuleNotFoundError):
        imported("common.optimizer")
    dlfs2.uninstall()  # nothing to give back


def test_keep(book: Path) -> None:
    with dlfs2.installed(keep=["common.util.clip_grads"]):
        assert imported("common.util").only_theirs() == "their own"
        dlfs2.install(keep=["common.util.clip_grads"])  # twice is once
        with pytest.raises(RuntimeError, match=r"installed already with keep=\['common.util.clip_grads'\]"):
            dlfs2.install()
    with pytest.raises(ValueError, match="keep has common.util.clip, which nothing of ours replaces"):
        dlfs2.install(keep=["common.util.clip"])


def test_modules_imported_before_are_replaced_with_a_warning(book: Path) -> None:
    util = imported("common.util")
    with pytest.warns(UserWarning, match=r"common\.util were imported before"):
        dlfs2.install()
    assert util.only_theirs() == 0.0


@pytest.mark.skipif("cuda" in fastlstm.available_backends(), reason="a GPU answers")
def test_without_a_gpu_the_books_switch_says_why(book: Path) -> None:
    (book / "common" / "config.py").write_text("GPU = True\n")
    dlfs2.install()
    with pytest.raises(fastlstm.BackendNotAvailable, match="backend 'cuda' cannot run here"):
        imported("common.np")


def test_source_of_the_users_own_functions_is_found(book: Path) -> None:
    import inspect

    dlfs2.install()
    assert "their own" not in inspect.getsource(imported("common.util").only_theirs)
    assert "return clip_grads" in inspect.getsource(imported("common.util").only_theirs)


def test_running_a_script(book: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = book / "script.py"
    script.write_text("import sys\nfrom common.util import eval_perplexity\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runner.main([str(script), "a", "b"])
    assert capsys.readouterr().out == "__main__ ['a', 'b']\n"
    for arguments, message in (([], "usage"), ([str(book / "none.py")], "is no file")):
        with pytest.raises(SystemExit, match=message):
            runner.main(arguments)


# --------------------------------------------------------------------------------------------
# Random numbers
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vocab_size", "sample_size"), [(7, 5), (12, 5), (200, 3), (40, 1)])
def test_negative_samples_are_those_of_choice(vocab_size: int, sample_size: int) -> None:
    """Small vocabularies: nearly every row draws a word twice and has to draw again."""
    rng = np.random.default_rng(vocab_size)
    corpus = np.concatenate((np.arange(vocab_size), np.minimum(rng.zipf(1.5, 500) - 1, vocab_size - 1)))
    target = rng.integers(0, vocab_size, 60)
    sampler = negative_sampling.UnigramSampler(corpus, 0.75, sample_size)
    np.random.seed(3)
    got = sampler.get_negative_sample(target)
    state_after = np.random.rand()

    p = np.bincount(corpus) ** 0.75
    np.random.seed(3)
    want = []
    for word in target:
        without = p.copy()
        without[word] = 0
        want.append(np.random.choice(vocab_size, sample_size, replace=False, p=without / without.sum()))
    np.testing.assert_array_equal(got, want)
    assert np.random.rand() == state_after


def test_a_sample_as_large_as_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_size is 5, expected less than the 5 different words"):
        negative_sampling.UnigramSampler(np.arange(5), 0.75, 5)


def test_a_corpus_with_a_gap_in_its_ids_is_counted_as_the_book_counts_it() -> None:
    sampler = negative_sampling.UnigramSampler([0, 2, 2, 3, 3, 3], 1.0, 1)
    assert sampler.vocab_size == 3
    np.testing.assert_allclose(sampler.word_p, [1 / 3, 0, 2 / 3])


def test_dropout_masks_are_the_books() -> None:
    x = np.ones((2, 3, 4), np.float32)
    np.random.seed(0)
    kept = np.random.rand(2, 3, 4) > 0.4
    for layer, scale in ((layers.Dropout(0.4), 1.0), (layers.TimeDropout(0.4), 1 / 0.6)):
        np.random.seed(0)
        np.testing.assert_allclose(layer.forward(x), kept * scale, rtol=1e-6)
        np.testing.assert_allclose(layer.backward(x), kept * scale, rtol=1e-6)
    np.testing.assert_allclose(layers.Dropout(0.4).forward(x, train_flg=False), 0.6 * x, rtol=1e-6)


# --------------------------------------------------------------------------------------------
# Layers, losses, optimisers
# --------------------------------------------------------------------------------------------


def floats(*shape: int) -> FloatArray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_float64_weights_and_integer_inputs_are_taken() -> None:
    W, b = floats(5, 3).astype(np.float64), np.zeros(3)
    one_hot = np.eye(5, dtype=np.int32)
    matmul, affine = layers.MatMul(W), layers.Affine(W, b)
    for layer in (matmul, affine):
        np.testing.assert_allclose(layer.forward(one_hot), W)
        layer.backward(np.ones((5, 3), np.float32))
        np.testing.assert_allclose(layer.grads[0], np.ones((5, 3)))
    affine_over_time = layers.TimeAffine(W, b)
    assert affine_over_time.forward(floats(2, 4, 5)).shape == (2, 4, 3)
    assert affine_over_time.backward(floats(2, 4, 3)).shape == (2, 4, 5)

    embedding = layers.Embedding(W)
    np.testing.assert_allclose(embedding.forward([1, 4]), W[[1, 4]])
    embedding.backward(np.ones((2, 3), np.float32))
    embedding.backward(np.ones((2, 3), np.float32))  # overwrites
    np.testing.assert_allclose(embedding.grads[0].sum(axis=1), [0, 3, 0, 0, 3])


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "bilstm"])
def test_states_over_time_are_float32(kind: str) -> None:
    D, H = 3, 4
    kinds: dict[str, tuple[Any, int, int]] = {
        "rnn": (layers.TimeRNN, 1, 1),
        "lstm": (layers.TimeLSTM, 4, 1),
        "gru": (layers.TimeGRU, 3, 1),
        "bilstm": (layers.TimeBiLSTM, 4, 2),
    }
    make, gates, times = kinds[kind]
    G = gates * H
    layer = make(*(floats(*s).astype(np.float64) for s in times * ((D, G), (H, G), (G,))), stateful=True)
    grads = [id(grad) for grad in layer.grads]
    if kind != "bilstm":
        layer.set_state(floats(2, H))
    hs = layer.forward(floats(2, 5, D))
    assert hs.dtype == np.float32
    assert layer.backward(hs).dtype == np.float32
    assert [id(grad) for grad in layer.grads] == grads
    embedding = layers.TimeEmbedding(floats(7, D).astype(np.float64))
    assert embedding.forward(np.zeros((2, 5), np.uint8)).dtype == np.float32
    assert embedding.W is embedding.params[0]


def test_a_decoder_starts_with_c_of_zeros_and_drops_its_gradient() -> None:
    H = 4
    layer = layers.TimeLSTM(floats(3, 4 * H), floats(H, 4 * H), floats(4 * H), stateful=True)
    layer.forward(floats(2, 5, 3))
    layer.set_state(floats(2, H))
    assert layer.c is None
    first = layer.forward(floats(2, 1, 3))
    layer.set_state(floats(2, H), np.zeros((2, H), np.float32))
    np.testing.assert_array_equal(layer.forward(floats(2, 1, 3)), first)


def test_ignored_targets_and_one_hot_targets() -> None:
    xs, ts = floats(2, 3, 5), np.array([[1, -1, 2], [-1, -1, 0]], np.int16)
    loss = layers.TimeSoftmaxWithLoss()
    xs[0, 1] = np.inf  # of an ignored row nothing is read
    value = loss.forward(xs, ts)
    assert np.isfinite(value)
    dxs = loss.backward()
    assert (dxs[0, 1] == 0).all()
    one_hot = layers.SoftmaxWithLoss()
    x = floats(3, 5)
    assert one_hot.forward(x, np.eye(5, dtype=int)[[1, 2, 4]]) == layers.SoftmaxWithLoss().forward(
        x, np.array([1, 2, 4])
    )
    assert layers.TimeSoftmaxWithLoss().forward(x[None], np.eye(5)[[[1, 2, 4]]]) == pytest.approx(
        one_hot.forward(x, np.array([1, 2, 4]))
    )


def test_columns_of_labels_and_rows_that_are_not_one_hot() -> None:
    x, t = floats(3, 5), np.array([1, 2, 4])
    loss = layers.SoftmaxWithLoss().forward(x, t)
    assert layers.SoftmaxWithLoss().forward(x, t[:, None].astype(np.uint8)) == loss
    assert layers.TimeSoftmaxWithLoss().forward(x[None], t[None, :, None].astype(np.uint8)) == pytest.approx(loss)
    rows = np.eye(5)[t]
    rows[0] = 0.0
    assert layers.SoftmaxWithLoss().forward(x, rows) == layers.SoftmaxWithLoss().forward(x, np.array([-1, 2, 4]))
    y = functions.softmax(x)
    assert functions.cross_entropy_error(y, rows) == pytest.approx(functions.cross_entropy_error(y[1:], t[1:]))
    with pytest.raises(ValueError, match="its rows are not one-hot"):
        layers.SoftmaxWithLoss().forward(x, y)
    with pytest.raises(ValueError, match="its rows are not one-hot"):
        layers.TimeSoftmaxWithLoss().forward(x[None], y[None])
    with pytest.raises(ValueError, match="its rows are not one-hot"):
        functions.cross_entropy_error(y, y)


@pytest.mark.parametrize("wrong", [np.array([2**64 - 1], np.uint64), np.array([0.5]), np.array([np.nan])])
def test_ids_that_a_conversion_would_change(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"ids hold {wrong[0]}, expected whole numbers"):
        layers.Embedding(floats(3, 2)).forward(wrong)
    assert layers.Embedding(floats(3, 2)).forward(np.array([2.0])).shape == (1, 2)


def test_small_layers_and_functions() -> None:
    x = floats(4, 6)
    assert functions.sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(functions.softmax(x).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(functions.softmax(x[0]), functions.softmax(x)[0])
    assert functions.relu(np.array([-1.0, 2.0])).tolist() == [0.0, 2.0]
    y, t = functions.softmax(x), np.array([0, 5, 2, 2])
    wanted = -np.log(y[np.arange(4), t] + 1e-7).mean()
    assert functions.cross_entropy_error(y, t) == pytest.approx(wanted, rel=1e-6)
    assert functions.cross_entropy_error(y, np.eye(6)[t]) == pytest.approx(wanted, rel=1e-6)
    assert functions.cross_entropy_error(y[0], np.array(0)) == pytest.approx(-np.log(y[0, 0] + 1e-7), rel=1e-6)
    from fastlstm.testing import check_gradient

    for layer in (layers.Sigmoid(), layers.Softmax()):
        x64, dout = x.astype(np.float64), floats(4, 6).astype(np.float64)
        layer.forward(x64)
        dx = layer.backward(dout)
        check_gradient(lambda x, layer=layer, dout=dout: float((layer.forward(x) * dout).sum()), {"x": x64}, {"x": dx})


def test_negative_sampling_loss_is_the_textbook_one() -> None:
    """Against six dot products with losses of their own, the book's way to compose it, on the same samples."""
    rng = np.random.default_rng(0)
    corpus, W, h = np.arange(30), floats(30, 8).astype(np.float64), rng.standard_normal((4, 8))
    target = np.array([3, 3, 7, 29])
    np.random.seed(5)
    loss = negative_sampling.NegativeSamplingLoss(W, corpus, sample_size=5)
    value = loss.forward(h, target)
    dh = loss.backward(2.0)

    np.random.seed(5)
    samples = loss.sampler.get_negative_sample(target)
    total, dh_parts, dW_parts = 0.0, [], []
    for k, ids in enumerate([target, *samples.T]):
        dot, with_loss = negative_sampling.EmbeddingDot(W), layers.SigmoidWithLoss()
        total += with_loss.forward(dot.forward(h, ids), np.full(4, int(k == 0)))
        dh_parts.append(dot.backward(with_loss.backward(2.0)))
        dW_parts.append(dot.grads[0])
    assert value == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(dh, sum(dh_parts), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(loss.grads[0], sum(dW_parts), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam"])
def test_optimisers_compute_the_books_formulas(name: str) -> None:
    lr = 0.1
    param = floats(4, 3).astype(np.float64)
    tied = floats(3, 4).astype(np.float64).T  # not C-contiguous
    mine = [param.copy(), tied.copy(order="F")]
    want = [param.copy(), tied.copy()]
    ours = getattr(optimizer, name)(lr=lr)
    v: list[Any] = [np.zeros((4, 3)) for _ in want]
    m: list[Any] = [np.zeros((4, 3)) for _ in want]
    for step in range(1, 4):
        grads = [np.sin(step + np.arange(12.0)).reshape(4, 3), np.cos(step * np.arange(12.0)).reshape(4, 3)]
        ours.update(mine, grads)
        for i, g in enumerate(grads):
            if name == "SGD":
                want[i] -= lr * g
            elif name == "Momentum":
                v[i] = 0.9 * v[i] - lr * g
                want[i] += v[i]
            elif name == "Nesterov":
                v[i] = 0.9 * v[i] - lr * g
                want[i] += 0.9 * 0.9 * v[i] - 1.9 * lr * g
            elif name == "AdaGrad":
                v[i] += g * g
                want[i] -= lr * g / (np.sqrt(v[i]) + 1e-7)
            elif name == "RMSprop":
                v[i] = 0.99 * v[i] + 0.01 * g * g
                want[i] -= lr * g / (np.sqrt(v[i]) + 1e-7)
            else:
                m[i] += 0.1 * (g - m[i])
                v[i] += 0.001 * (g**2 - v[i])
                rate = lr * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                want[i] -= rate * m[i] / (np.sqrt(v[i]) + 1e-7)
    for got, wanted in zip(mine, want, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10)


# --------------------------------------------------------------------------------------------
# Trainers
# --------------------------------------------------------------------------------------------


def test_shared_weights_are_merged_by_identity() -> None:
    W, other, b = floats(3, 3), floats(3, 3), floats(3)
    twin = W.copy()
    params = [W, b, W, W.T, twin, other]
    grads: list[FloatArray] = [np.full(p.shape, 10.0**k, np.float32) for k, p in enumerate(params)]
    grads[3] = np.arange(9, dtype=np.float32).reshape(3, 3)
    wanted = grads[0] + grads[2] + grads[3].T
    kept, merged = trainer.remove_duplicate(params, grads)
    assert [id(p) for p in kept] == [id(p) for p in (W, b, twin, other)]
    assert merged[0] is grads[0]
    np.testing.assert_array_equal(merged[0], wanted)
    np.testing.assert_array_equal(merged[2], grads[4])
    # The transposed view first.
    kept, merged = trainer.remove_duplicate([W.T, W], [np.zeros((3, 3)), grads[3]])
    np.testing.assert_array_equal(merged[0], grads[3].T)
    assert len(kept) == 1


class OneNumber:
    """A model whose loss is the mean of x and whose gradient is large."""

    def __init__(self) -> None:
        self.params, self.grads = [np.zeros(1, np.float32)], [np.zeros(1, np.float32)]
        self.seen: list[Any] = []

    def forward(self, x: Any, t: Any) -> float:
        self.seen.append((x, t))
        return float(x.mean())

    def backward(self) -> None:
        self.grads[0][...] = 30


class OwnOptimizer:
    """A user's own: it knows nothing of clipping."""

    def update(self, params: Any, grads: Any) -> None:
        params[0] -= grads[0]


@pytest.mark.parametrize("make", [lambda: optimizer.SGD(1.0), OwnOptimizer])
def test_trainer(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = OneNumber()
    train = trainer.Trainer(model, make())
    x = np.arange(20.0)
    np.random.seed(0)
    train.fit(x, x, max_epoch=2, batch_size=4, max_grad=3.0, eval_interval=4)
    np.random.seed(0)
    first = x[np.random.permutation(np.arange(20))]
    np.testing.assert_array_equal(model.seen[0][0], first[:4])
    second = first[np.random.permutation(np.arange(20))]
    np.testing.assert_array_equal(model.seen[5][0], second[:4])
    assert model.params[0][0] == pytest.approx(-30, rel=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| epoch 1 |  iter 1 / 5 | time 0[s] | loss {first[:4].mean():.2f}"
    assert len(train.loss_list) == len(lines) == 4
    train.fit(x, x, max_epoch=1, batch_size=4, eval_interval=None)
    assert capsys.readouterr().out == ""
    assert train.current_epoch == 3


def test_rnnlm_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    model = OneNumber()
    train = trainer.RnnlmTrainer(model, optimizer.SGD(0.1))
    x = np.arange(23)
    train.fit(x / 100, -x, max_epoch=1, batch_size=2, time_size=5, eval_interval=1)
    assert [t[1].tolist() for _, t in model.seen] == [[-11, -12, -13, -14, -15], [-16, -17, -18, -19, -20]]
    assert "| epoch 1 |  iter 2 / 2 | time 0[s] | perplexity 1.00" in capsys.readouterr().out
    # Around the end.
    assert train.get_batch(x, x, 2, 5)[0].tolist() == [[10, 11, 12, 13, 14], [21, 22, 0, 1, 2]]


def test_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gca().get_ylabel()))
    train, rnnlm = trainer.Trainer(None, None), trainer.RnnlmTrainer(None, None)
    train.loss_list, rnnlm.ppl_list = [2.0, 1.0], [9.0]
    train.plot()
    rnnlm.plot(ylim=(0, 500))
    assert shown == ["loss", "perplexity"]
    plt.close("all")


# --------------------------------------------------------------------------------------------
# Helpers
# --------------------------------------------------------------------------------------------


def test_texts_and_contexts() -> None:
    corpus, word_to_id, id_to_word = words.preprocess("You say goodbye and I say hello.")
    assert corpus.tolist() == [0, 1, 2, 3, 4, 1, 5, 6]
    assert id_to_word[6] == "."
    assert word_to_id["hello"] == 5
    contexts, target = words.create_contexts_target(corpus, window_size=1)
    assert contexts.tolist() == [[0, 2], [1, 3], [2, 4], [3, 1], [4, 5], [1, 6]]
    assert target.tolist() == [1, 2, 3, 4, 1, 5]
    np.testing.assert_array_equal(words.convert_one_hot(corpus, 7), np.eye(7, dtype=np.int32)[corpus])
    assert words.convert_one_hot(contexts, 7).shape == (6, 2, 7)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_near_words(dtype: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["king", "man", "queen", "woman", "car"]
    vectors = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 1], [-1, 0, 0]], dtype)
    ids = {name: i for i, name in enumerate(names)}
    words.most_similar("king", ids, dict(enumerate(names)), vectors, top=2)
    out = capsys.readouterr().out
    assert out.startswith("\n[query] king\n queen: 0.81")
    assert len(out.splitlines()) == 4
    words.analogy("man", "king", "woman", ids, dict(enumerate(names)), vectors, top=1, answer="queen")
    out = capsys.readouterr().out
    assert out.startswith("\n[analogy] man:king = woman:?\n==>queen:1.73")
    assert " queen: 1.73" in out
    words.most_similar("none", ids, dict(enumerate(names)), vectors)
    words.analogy("king", "none", "man", ids, dict(enumerate(names)), vectors)
    assert capsys.readouterr().out == "none is not found\nnone is not found\n"
    assert words.cos_similarity(vectors[0].astype(float), vectors[2].astype(float)) == pytest.approx(2 / 6**0.5)


def test_perplexity(capsys: pytest.CaptureFixture[str]) -> None:
    corpus = np.arange(25)
    seen = []

    def forward(xs: Any, ts: Any) -> float:
        seen.append((xs, ts))
        return float(np.log(7))

    def forward_without_dropout(xs: Any, ts: Any, train_flg: bool = True) -> float:
        assert not train_flg
        return forward(xs, ts)

    for model in (SimpleNamespace(forward=forward), SimpleNamespace(forward=forward_without_dropout)):
        assert evaluation.eval_perplexity(model, corpus, 2, 4) == pytest.approx(7)
    assert seen[1][0].tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]
    assert seen[1][1].tolist() == [[5, 6, 7, 8], [17, 18, 19, 20]]
    assert "\r2 / 3\n" in capsys.readouterr().out
    with pytest.raises(ValueError, match="corpus has 25 ids, expected more than batch_size \\* time_size = 35"):
        evaluation.eval_perplexity(SimpleNamespace(forward=forward), corpus, 5, 7)


def test_answers(capsys: pytest.CaptureFixture[str]) -> None:
    chars = dict(enumerate("0123456789+ _"))
    question, correct = np.array([[1, 10, 2]]), np.array([[12, 3, 11]])
    for guess, right in (([3, 11], 1), ([np.int64(4), np.int64(11)], 0)):
        model = SimpleNamespace(generate=lambda q, start, size, guess=guess: guess if (start, size) == (12, 2) else [])
        assert evaluation.eval_seq2seq(model, question, correct, chars, True, is_reverse=True) == right
    out = capsys.readouterr().out
    assert out.startswith("Q 2+1\nT 3 \n\033[92m☑\033[0m 3 \n---\n")
    assert "☒" in out


def test_arrays_of_the_host_stay_there() -> None:
    on_host = np.ones(3)
    assert arrays.to_cpu(on_host) is on_host


def test_to_gpu_needs_cupy() -> None:
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="cupy"):
            arrays.to_gpu(np.ones(3))


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


class TwoArrays(base_model.BaseModel):
    def __init__(self) -> None:
        super().__init__()
        W = floats(2, 3)
        self.params = [W, W.T, np.arange(3, dtype=np.float32)]


def test_parameters_are_saved_as_the_book_saves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = TwoArrays()
    model.save_params()
    saved = pickle.loads((tmp_path / "TwoArrays.pkl").read_bytes())
    assert [p.dtype for p in saved] == [np.float16] * 3
    other = TwoArrays()
    for p in other.params:
        p[...] = 0
    other.load_params()
    np.testing.assert_allclose(other.params[0], model.params[0], rtol=1e-3)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(saved, protocol))
        other.load_params("p.pkl")
    with pytest.raises(NotImplementedError):
        model.forward()
    with pytest.raises(NotImplementedError):
        model.backward()


def test_wrong_parameter_files(tmp_path: Path) -> None:
    path = tmp_path / "wrong.pkl"
    model = TwoArrays()
    before = model.params[0].copy()
    marker = tmp_path / "run"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    good = [p.astype(np.float16) for p in model.params]
    for content, message in (
        (pickle.dumps([Evil()]), "is no pickled list of arrays: it asks for posix.system"),
        (pickle.dumps(good)[:-20], "is no pickled list of arrays"),
        (b"", "is no pickled list of arrays"),
        (b"garbage", "is no pickled list of arrays"),
        (pickle.dumps({"W": 1}), "is no pickled list of arrays: it holds a mapping"),
        (pickle.dumps(tuple(good)), "is no pickled list of float arrays"),
        (pickle.dumps(good[:2]), r"holds arrays of shapes \[\(2, 3\), \(3, 2\)\], TwoArrays has"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            model.load_params(str(path))
    assert not marker.exists()
    np.testing.assert_array_equal(model.params[0], before)
    with pytest.raises(FileNotFoundError):
        model.load_params(str(tmp_path / "none.pkl"))


HALF = np.dtype(np.float16)


class Calls:
    """Pickled as a call, and a state to be set on what it returns."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def test_an_array_of_a_pickle_has_floats_and_as_many_bytes_as_it_says(tmp_path: Path) -> None:
    """Else bytes of the file become pointers."""
    reduced: Any = np.zeros(2).__reduce__()
    reconstruct, arguments, _ = reduced
    pointers = Calls(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    swapped = Calls(np.dtype, ("f2", False, True), (3, "?", None, None, None, -1, -1, 0))

    def array(shape: Any = (2,), dtype: Any = HALF, content: Any = b"\x41" * 4) -> Any:
        return Calls(reconstruct, arguments, (1, shape, dtype, False, content))

    path = tmp_path / "forged.pkl"
    for forged, message in (
        (array(dtype=pointers, shape=(1,), content=b"\x41" * 8), "it holds an array of 'O8', expected f2, f4 or f8"),
        (array(dtype=np.dtype("i8")), "it holds an array of 'i8'"),
        (array(dtype=np.dtype("V2")), "it holds an array of 'V2'"),
        (array(dtype=np.dtype([("a", "f2")])), "it holds a mapping or a set"),
        (array(dtype=swapped), "byte order '\\?'"),
        (array(dtype="f2"), "an array that numpy does not write so"),
        (array(content=[1.0, 2.0]), "an array that numpy does not write so"),
        (array(shape=(3,)), r"an array of shape \(3,\) has 4 bytes, expected 6"),
        (array(shape=(2**62, 4)), r"has 4 bytes, expected 36893488147419103232"),
        (array(shape=(-1, -2)), "an array of no shape"),
        (array(shape=None), "is no pickled list of arrays"),
        (Calls(reconstruct, arguments), "is no pickled list of float arrays"),
        (Calls(codecs.encode, ("x", "rot13")), "it holds bytes as 'rot13'"),
        (b"text", "is no pickled list of float arrays"),
    ):
        path.write_bytes(pickle.dumps([forged], 2))
        with pytest.raises(ValueError, match=message):
            array_pickle.read_params(path)
    path.write_bytes(pickle.dumps([array()], 2))
    (read,) = array_pickle.read_params(path)
    np.testing.assert_array_equal(read, np.frombuffer(b"\x41" * 4, np.float16))


def test_what_a_pickle_announces_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "forged.pkl"
    for content in (
        b"\x80\x04]r\xff\xff\xff\x7f.",  # the list is object 2^31 - 1 of the memo
        b"]p99999999999\n.",
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"few bytes.",
        b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"].",
    ):
        path.write_bytes(content)
        tracemalloc.start()
        with contextlib.suppress(ValueError):  # an announced frame is no error
            assert array_pickle.read_params(path) == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20


def test_few_bytes_of_a_pickle_do_not_become_many(tmp_path: Path) -> None:
    """Tuples of tuples and objects used again are written in a few bytes each."""
    path = tmp_path / "forged.pkl"
    tuples: Any = ()
    for _ in range(60):  # as text, or hashed, 2^60 pieces
        tuples = (tuples, tuples)
    reconstruct, arguments, _ = cast(Any, np.zeros(2).__reduce__())
    once = Calls(reconstruct, arguments, (1, (2**20,), np.dtype("f4"), False, bytes(2**22)))
    content = bytes(2**20)
    many = [Calls(reconstruct, arguments, (1, (2**18,), np.dtype("f4"), False, content)) for _ in range(100)]
    text = "x" * 2**20
    for forged, protocol, message in (
        (Calls(np.dtype, (tuples,)), 2, "it holds an array of tuple, expected f2, f4 or f8"),
        (Calls(np.dtype, ("f4",), (3, tuples)), 2, "it holds numbers of the byte order tuple"),
        (Calls(reconstruct, arguments, (1, tuples, np.dtype("f4"), False, b"")), 2, "an array of no shape"),
        (Calls(codecs.encode, ("x", tuples)), 2, "it holds bytes as tuple"),
        (many, 4, "several of its arrays have the same bytes"),
        ([Calls(codecs.encode, (text, "latin1")) for _ in range(100)], 2, "it makes more bytes than it has"),
    ):
        path.write_bytes(pickle.dumps(forged if isinstance(forged, list) else [forged], protocol))
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            array_pickle.read_params(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**24
    # {(): 1} with the tuples in the place of ()
    mapping = b"\x80\x02})q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"K\x01s."
    path.write_bytes(mapping)
    with pytest.raises(ValueError, match="it holds a mapping or a set"):
        array_pickle.read_params(path)
    path.write_bytes(pickle.dumps([once, once], 4))
    first, second = array_pickle.read_params(path)
    assert first is second


def test_arrays_of_every_order_and_byte_order_are_read(tmp_path: Path) -> None:
    path = tmp_path / "arrays.pkl"
    values = np.arange(6.0).reshape(2, 3)
    arrays = [values.astype(dtype) for dtype in (">f2", "<f2", ">f4", "f4", ">f8", "f8")]
    arrays += [np.asfortranarray(values), values.T, values[:, ::2], np.zeros((0, 3)), np.array(2.5)]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(arrays, protocol))
        read = array_pickle.read_params(path)
        for got, want in zip(read, arrays, strict=True):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == want.dtype.newbyteorder("=")
            assert got.flags.writeable
            assert got.flags.c_contiguous


def test_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dataset", SimpleNamespace(__path__=[str(tmp_path)]))
    monkeypatch.setattr(data, "char_to_id", {})
    monkeypatch.setattr(data, "id_to_char", {})
    lines = addition_lines(30)
    (tmp_path / "addition.txt").write_text("\n".join(lines) + "\n")
    (x_train, t_train), (x_test, t_test) = data.load_sequences()
    char_to_id, id_to_char = data.get_vocab()
    assert "".join(id_to_char[i] for i in range(4)) == "".join(dict.fromkeys("".join(lines)))[:4]
    order = np.arange(30)
    np.random.seed(1984)
    np.random.shuffle(order)
    rows = np.concatenate((np.concatenate((x_train, x_test)), np.concatenate((t_train, t_test))), axis=1)
    assert ["".join(id_to_char[i] for i in row) for row in rows.tolist()] == [lines[k] for k in order]
    assert x_test.shape == (3, 7)
    assert t_train.shape == (27, 5)
    # A second file only adds symbols.
    (tmp_path / "date.txt").write_text("\n".join(date_lines(20)) + "\n")
    data.load_sequences("date.txt", seed=None)
    assert char_to_id["/"] >= 13
    (tmp_path / "bad.txt").write_text("1+1_2\n1+10_2\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: '1\+10_2' has 4 symbols before '_'"):
        data.load_sequences("bad.txt")
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match="The book's files are in the folder dataset of github"):
        data.load_sequences("none.txt")
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    (tmp_path / "dlfs2").mkdir()
    (tmp_path / "dlfs2" / "other.txt").write_text("1+1_2\n2+2_4\n")
    assert data.load_sequences("other.txt")[0][0].shape == (2, 3)


def test_ptb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.train.txt").write_text(" a b a \n c \n")
    (tmp_path / "ptb" / "ptb.valid.txt").write_text(" c a \n")
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    ids, word_to_id, id_to_word = data.load_ptb()
    assert ids.tolist() == [0, 1, 0, 2, 3, 2]
    assert word_to_id == {"a": 0, "b": 1, "<eos>": 2, "c": 3}
    assert data.load_ptb("val")[0].tolist() == [3, 0, 2]
    assert data.load_ptb_vocab() == (word_to_id, id_to_word)
