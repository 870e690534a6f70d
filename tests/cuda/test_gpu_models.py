"""Models, training and the compat layer on CuPy arrays: the same numbers as on the host, and nothing waited for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import definition_on_cupy
import numpy as np
import numpy_as_cupy
import pytest
from numpy_as_cupy import Traffic, numbers_may_be_read
from tiny_models import MAKERS, Stop, V, ids, parameters

import fastlstm
from fastlstm import BackendNotAvailable, backends, callbacks, cli, layers, ops, optim, use_backend
from fastlstm.compat import dlfs2
from fastlstm.compat.dlfs2 import negative_sampling
from fastlstm.contract import Precision
from fastlstm.models import RNNLM, Seq2seq
from fastlstm.ops.device import to_host

rng = np.random.default_rng(3)


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with definition_on_cupy.installed() as stand_in, use_backend("numpy"):
        yield stand_in


@pytest.fixture(autouse=True)
def _memory_is_whole() -> Iterator[None]:
    yield
    numpy_as_cupy.check_margins()


every_model = pytest.mark.parametrize("name", MAKERS)


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


@every_model
def test_training_on_a_gpu_is_training_on_the_host(cupy: Any, name: str) -> None:
    make, data, arguments = MAKERS[name]
    results = []
    for device in ("cpu", "cuda"):
        model = make().to(device)
        assert model.device == device
        with numbers_may_be_read():
            history = model.fit(*data(10), max_grad=0.5, verbose=0, **arguments).history
            evaluated = model.evaluate(*data(7))
        results.append((history, evaluated, parameters(model)))
    (history, evaluated, params), (gpu_history, gpu_evaluated, gpu_params) = results
    assert list(gpu_history) == list(history)
    for metric, values in history.items():
        close(gpu_history[metric], values)
    assert all(type(value) is float for value in gpu_history["loss"])
    close([gpu_evaluated[metric] for metric in evaluated], list(evaluated.values()))
    for got, want in zip(gpu_params, params, strict=True):
        close(got, want)


@every_model
def test_no_step_waits_for_the_device_or_copies_to_it(cupy: Any, name: str) -> None:
    """What is copied does not grow with the number of batches."""
    make, data, arguments = MAKERS[name]
    copies = []
    for N in (24, 24, 40):  # the first makes what is kept for later trainings too
        model = make().to("cuda")
        before = Traffic.to_host, Traffic.to_device
        with numbers_may_be_read():
            model.fit(*data(N), max_grad=0.5, verbose=0, **arguments)
        copies.append((Traffic.to_host - before[0], Traffic.to_device - before[1]))
    assert copies[1] == copies[2]


def test_only_the_loss_of_a_model_is_read_where_a_user_reads_it(cupy: Any) -> None:
    """One step by hand: the walls stand, so nothing but float() waits."""
    make, data, _ = MAKERS["seq2seq attention, bidirectional, padding"]
    host, model = make(), make().to("cuda")
    optimizers = optim.Adam(), optim.Adam()
    batch = data(6)
    for _ in range(3):
        want = host.forward(*batch)
        host.backward()
        optimizers[0].update(host.params, host.grads, max_norm=0.3)
        loss = model.forward(*map(cupy.asarray, batch))
        model.backward()
        optimizers[1].update(model.params, model.grads, max_norm=0.3)
        assert (loss.shape, type(loss)) == ((), cupy.ndarray)  # type: ignore[attr-defined]
        with numbers_may_be_read():
            close(float(loss), want)


# --------------------------------------------------------------------------------------------
# Where a model is
# --------------------------------------------------------------------------------------------


@every_model
def test_a_moved_model_has_new_arrays_and_shares_what_it_shared(cupy: Any, name: str) -> None:
    model = MAKERS[name][0]()
    lists = model.params, model.grads
    before, values = list(model.params), parameters(model)
    names = [name for name, _ in model.named_parameters()]
    assert model.to("cuda") is model
    assert (model.params, model.grads) == lists
    assert not {id(array) for array in before} & {id(array) for array in model.params}
    own = {id(array) for _, array in model.named_parameters()}
    for layer in model.layers.values():
        for array in (*layer.params, *layer.grads):
            assert isinstance(array, cupy.ndarray)
        assert {id(array) for array in layer.params} <= own
    moved = list(model.params)
    assert [id(array) for array in model.to("cuda").params] == [id(array) for array in moved]
    model.to("cpu")
    assert all(isinstance(array, np.ndarray) for array in (*model.params, *model.grads))
    assert [name for name, _ in model.named_parameters()] == names
    for got, want in zip(model.params, values, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_language_model_takes_its_state_along_and_nothing_to_go_back_through(cupy: Any) -> None:
    host, model = MAKERS["rnnlm"][0](), MAKERS["rnnlm"][0]()
    assert isinstance(host, RNNLM)
    assert isinstance(model, RNNLM)
    first, second = (ids(2, 3), ids(2, 3)), (ids(2, 4), ids(2, 4))
    host.forward(*first)
    model.forward(*first)
    model.to("cuda")
    with pytest.raises(RuntimeError, match="backward was called before forward"):
        model.backward()
    with numbers_may_be_read():
        close(float(model.forward(*map(cupy.asarray, second))), host.forward(*second))
    with pytest.raises(TypeError, match="W is on a GPU but ids is on the host"):
        model.forward(*second)


@pytest.mark.parametrize("name", ["rnnlm", "seq2seq", "classifier", "regressor"])
def test_a_moved_model_has_no_metrics_of_the_forward_call_before(cupy: Any, name: str) -> None:
    make, data, arguments = MAKERS[name]
    model = make()
    batch = model.check_batch(*((ids(2, 3), ids(2, 3)) if name == "rnnlm" else data(3)))
    metrics = [metric for metric in arguments["metrics"] if metric != "loss"]
    model.forward(*batch)
    assert model.loss_count
    assert model.batch_metrics(metrics).keys() == set(metrics)
    model.to("cuda")
    assert not model.loss_count
    with pytest.raises(RuntimeError, match="batch_metrics was called before forward"):
        model.batch_metrics(metrics)


@every_model
def test_models_are_saved_and_loaded_on_any_device(cupy: Any, tmp_path: Path, name: str) -> None:
    model = MAKERS[name][0]().to("cuda")
    model.save(tmp_path / "model.safetensors")
    again = type(model).load(tmp_path / "model.safetensors")
    assert again.device == "cpu"
    for got, want in zip(again.params, parameters(model), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("seq2seq")])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("end_id", [None, 2])
def test_translations_are_those_of_the_host(cupy: Any, name: str, beam: int, end_id: int | None) -> None:
    make, data, _ = MAKERS[name]
    host, model = make(), make().to("cuda")
    assert isinstance(host, Seq2seq)
    assert isinstance(model, Seq2seq)
    xs, ts = data(5)
    want = host.generate(xs, 1, 20, beam=beam, end_id=end_id)
    before = Traffic.to_host
    got = model.generate(xs, 1, 20, beam=beam, end_id=end_id)
    np.testing.assert_array_equal(got, want)
    assert Traffic.to_host - before == (1 if end_id is None else 2)  # with one look in the middle
    close(model.predict(xs, ts), host.predict(xs, ts))
    if host.options["attention"]:
        close(model.attention_map(xs, ts), host.attention_map(xs, ts))


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 0.5, "top_k": 4, "skip_ids": [3, 5]}])
def test_texts_are_those_of_the_host(cupy: Any, options: dict[str, Any]) -> None:
    host, model = MAKERS["rnnlm"][0](), MAKERS["rnnlm"][0]().to("cuda")
    assert isinstance(host, RNNLM)
    assert isinstance(model, RNNLM)
    before = Traffic.to_host
    got = model.generate([1, 2], 30, seed=9, **options)
    assert Traffic.to_host - before == 1
    np.testing.assert_array_equal(got, host.generate([1, 2], 30, seed=9, **options))
    close(model.predict(ids(3, 4)), host.predict(ids(3, 4)))


def test_what_the_other_models_say_is_what_they_say_on_the_host(cupy: Any) -> None:
    make, data, _ = MAKERS["classifier"]
    host, model = make(), make().to("cuda")
    close(model.predict(data(5)[0], batch_size=2), host.predict(data(5)[0], batch_size=2))  # type: ignore[attr-defined]
    make, data, _ = MAKERS["regressor"]
    host, model = make(), make().to("cuda")
    close(model.generate(data(2)[0], 4), host.generate(data(2)[0], 4))  # type: ignore[attr-defined]
    close(model.predict(data(2)[0]), host.predict(data(2)[0]))  # type: ignore[attr-defined]
    make, data, _ = MAKERS["word2vec nce"]
    host, model = make(), make().to("cuda")
    close(model.predict(ids(3)), host.predict(ids(3)))  # type: ignore[attr-defined]
    assert [word for word, _ in model.most_similar(2)] == [word for word, _ in host.most_similar(2)]  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnnlm two layers, tied, dropout", "classifier", "seq2seq peeky"])
def test_an_interrupted_training_on_a_gpu_ends_with_the_same_bits(cupy: Any, tmp_path: Path, name: str) -> None:
    make, data, arguments = MAKERS[name]
    with numbers_may_be_read():
        whole = make().to("cuda")
        history = whole.fit(*data(12), verbose=0, **arguments).history
        arguments = {**arguments, "verbose": 0}
        backup = callbacks.BackupAndRestore(tmp_path / "checkpoint")
        with pytest.raises(KeyboardInterrupt):
            make().to("cuda").fit(*data(12), callbacks=[Stop(4), backup], **arguments)
        resumed = make().to("cuda")
        again = resumed.fit(*data(12), callbacks=[callbacks.BackupAndRestore(tmp_path / "checkpoint")], **arguments)
    assert again.history == history
    for got, want in zip(parameters(resumed), parameters(whole), strict=True):
        np.testing.assert_array_equal(got, want)


def test_callbacks_on_a_gpu(cupy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, data, arguments = MAKERS["classifier"]
    model: Any = make().to("cuda")
    several = [
        callbacks.TerminateOnNaN(),
        callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True),
        callbacks.ModelCheckpoint(tmp_path / "best", "loss", save_best_only=True),
        callbacks.CSVLogger(tmp_path / "history.csv"),
        callbacks.TensorBoard(tmp_path / "logs"),
        callbacks.ReduceLROnPlateau("loss", patience=1),
    ]
    with numbers_may_be_read():
        model.fit(*data(9), bucket_by_length=True, validation_split=0.3, callbacks=several, verbose=1, **arguments)
    assert "val_loss" in capsys.readouterr().out
    assert type(model).load(tmp_path / "best").device == "cpu"
    model.params[0][...] = np.nan
    guard = callbacks.TerminateOnNaN()
    with numbers_may_be_read():
        model.fit(*data(9), callbacks=[guard], verbose=0, **arguments)
    assert guard.message is not None
    assert "the loss became nan in epoch 1, batch 3" in guard.message


def test_an_optimizer_follows_its_model(cupy: Any) -> None:
    make, data, arguments = MAKERS["regressor"]
    arguments = {**arguments, "verbose": 0}
    host, model = make(), make()
    optimizers = optim.Adam(), optim.Adam()
    with numbers_may_be_read():
        for devices in ("cuda", "cpu"):
            host.fit(*data(5), optimizer=optimizers[0], **arguments)
            model.to(devices).fit(*data(5), optimizer=optimizers[1], **arguments)
    for got, want in zip(model.params, host.params, strict=True):
        close(got, want)


def test_word2vec_pair_by_pair_says_that_it_stays_on_the_host(cupy: Any) -> None:
    make, data, _ = MAKERS["word2vec negative sampling"]
    with pytest.raises(BackendNotAvailable, match="negative sampling with SGD, runs on the host only"):
        make().to("cuda").fit(*data(3), epochs=1)


# --------------------------------------------------------------------------------------------
# Ids that are out of range
# --------------------------------------------------------------------------------------------


def test_wrong_ids_are_reported_later_with_the_text_of_the_host(cupy: Any) -> None:
    W, wrong = np.ones((5, 3)), np.array([[0, 7], [4, 9]])
    with pytest.raises(IndexError) as on_host:
        ops.embedding_forward(W, wrong)
    out = ops.embedding_forward(cupy.asarray(W), cupy.asarray(wrong))
    assert out.shape == (2, 2, 3)
    with pytest.raises(IndexError) as later:
        fastlstm.synchronize()
    assert str(later.value) == str(on_host.value)
    fastlstm.synchronize()  # once is enough


def test_wrong_ids_are_reported_by_the_next_call(cupy: Any) -> None:
    logits, targets = cupy.asarray(np.ones((3, 4))), cupy.asarray(np.array([1, -1, 5]))
    ops.softmax_cross_entropy(logits, targets)
    with pytest.raises(IndexError, match=r"targets holds 5, expected 0 to 3 \(the logits have V = 4 columns\) or"):
        ops.softmax_cross_entropy(logits, cupy.asarray(np.array([1, -1, 3])))
    ops.softmax_cross_entropy(logits, cupy.asarray(np.array([1, -1, 3])))
    fastlstm.synchronize()


def test_targets_in_columns_and_one_hot_rows_are_not_waited_for(cupy: Any) -> None:
    scores, targets = rng.standard_normal((4, V)), np.array([3, -1, 0, V - 1])
    rows = np.eye(V)[targets]
    rows[1] = 0.0  # does not count
    layer = layers.SoftmaxWithLoss()
    want = layer.forward(scores, targets)
    before = Traffic.to_host
    got = [layer.forward(cupy.asarray(scores), cupy.asarray(ts)) for ts in (targets, targets[:, None], rows)]
    assert Traffic.to_host == before
    with numbers_may_be_read():
        assert [float(loss) for loss in got] == [want] * 3
    rows[2] = 0.5
    layer.forward(cupy.asarray(scores), cupy.asarray(rows))
    with pytest.raises(IndexError, match=f"targets holds {V}, expected 0 to {V - 1}"):
        fastlstm.synchronize()


def test_accuracy_of_nan_is_0_on_a_gpu(cupy: Any) -> None:
    for name in ("rnnlm", "seq2seq", "classifier"):
        make, data, _ = MAKERS[name]
        model = make().to("cuda")
        model.params[-1].fill(np.nan)
        with numbers_may_be_read():
            assert model.evaluate(*data(6))["accuracy"] == 0.0


def test_fit_and_evaluate_report_wrong_ids(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlstm.models.ids.check_range", lambda *_: None)  # the host's, before training
    make, data, arguments = MAKERS["seq2seq"]
    xs, ts = data(6)
    xs[2, 1] = V + 3
    message = f"ids holds {V + 3}, expected ids from 0 to {V - 1}"
    model = make().to("cuda")
    with numbers_may_be_read():
        with pytest.raises(IndexError, match=message):
            model.fit(xs, ts, verbose=0, **arguments)
        fastlstm.synchronize()
        with pytest.raises(IndexError, match=message):
            model.evaluate(xs, ts)


# --------------------------------------------------------------------------------------------
# The book's scripts, and the command line
@pytest.mark.parametrize("precision", ["tf32", "bf16", None])
def test_the_precision_of_a_model_reaches_all_products(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, precision: Precision | None
) -> None:
    seen: dict[str, set[Any]] = {}
    for family, names in {
        "lstm": ("lstm_forward",),
        "gru": ("gru_forward",),
        "rnn": ("rnn_forward",),
        "dense": ("matrix_product", "batched_product"),
        "losses": ("linear_cross_entropy",),
    }.items():
        module = backends.load_family("cuda", family)
        for name in names:
            _note_precision(monkeypatch, module, name, seen)
    with numbers_may_be_read():
        for cell in ("lstm", "gru", "rnn"):
            model = RNNLM(V, 3, 4, cell=cell, seed=0)
            model.to("cuda", precision=precision).fit(ids(40), epochs=1, time_size=5, batch_size=2, verbose=0)
            model.predict(ids(2, 3))
        translator = Seq2seq(V, 3, 4, attention=True, seed=0).to("cuda", precision=precision)
        translator.fit(ids(4, 3), ids(4, 4), epochs=1, batch_size=2, verbose=0)
    assert len(seen) == 6
    assert all(precisions == {precision or "float32"} for precisions in seen.values()), seen
    assert translator.to("cuda").layers["decoder.lstm1"].precision is None
    assert translator.to("cpu").evaluate(ids(4, 3), ids(4, 4))["loss"] > 0  # where no precision is taken


def _note_precision(patch: pytest.MonkeyPatch, module: Any, name: str, seen: dict[str, set[Any]]) -> None:
    function = getattr(module, name)

    def noting(*arguments: Any, **options: Any) -> Any:
        seen.setdefault(name, set()).add(options["precision"])
        return function(*arguments, **options)

    patch.setattr(module, name, noting)


def test_a_precision_that_the_place_does_not_have(cupy: Any) -> None:
    model = RNNLM(V, 3, 4, seed=0)
    with pytest.raises(ValueError, match="precision is 'fp8', expected 'tf32', 'bf16' or None"):
        model.to("cuda", precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for a float32 model on 'cpu'"):
        model.to("cpu", precision="tf32")
    with pytest.raises(ValueError, match="for a float64 model on 'cuda'"):
        RNNLM(V, 3, 4, seed=0, dtype="float64").to("cuda", precision="bf16")
    assert model.device == "cpu"


# --------------------------------------------------------------------------------------------

BOOKS_NP = """
from common.config import GPU
if GPU:
    import cupy as np
    np.add.at = np.scatter_add
else:
    import numpy as np
"""


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the book's own switch and its module for it, which asks CuPy for a name that it has no more."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "config.py").write_text("GPU = False\n")
    (tmp_path / "common" / "np.py").write_text(BOOKS_NP)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ("common", "dataset", "ch04", "ch08")
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}
    yield tmp_path
    dlfs2.uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] in names]:
        del sys.modules[name]
    sys.modules.update(before)


class BookRnnlm:
    """Chapter 5's, of whatever layers the book's modules have."""

    def __init__(self, asarray: Callable[[Any], Any]) -> None:
        time_layers = importlib.import_module("common.time_layers")
        draw = np.random.default_rng(0)
        shapes = ((V, 4), (4, 20), (5, 20), (20,), (5, V), (V,))
        E, Wx, Wh, b, W, c = (asarray((0.3 * draw.standard_normal(shape)).astype("f")) for shape in shapes)
        self.layers = [
            time_layers.TimeEmbedding(E),
            time_layers.TimeDropout(0.2),
            time_layers.TimeLSTM(Wx, Wh, b, stateful=True),
            time_layers.TimeAffine(W, c),
        ]
        self.loss_layer = time_layers.TimeSoftmaxWithLoss()
        self.params = [param for layer in self.layers for param in layer.params]
        self.grads = [grad for layer in self.layers for grad in layer.grads]

    def forward(self, xs: Any, ts: Any, train_flg: bool = True) -> Any:
        self.layers[1].train_flg = train_flg
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)

    def backward(self) -> None:
        dout = self.loss_layer.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)


def book_run(gpu: bool) -> tuple[list[float], float]:
    """Losses of a script of the book's, on the host or with its switch for a GPU."""
    dlfs2.install()
    importlib.import_module("common.config").GPU = gpu  # type: ignore[attr-defined]
    xp: Any = importlib.import_module("common.np").np
    util: Any = importlib.import_module("common.util")
    Trainer = importlib.import_module("common.trainer").RnnlmTrainer
    np.random.seed(1)  # noqa: NPY002
    corpus = ids(90)
    if gpu:
        corpus = util.to_gpu(corpus)
    model = BookRnnlm(xp.asarray)
    trainer = Trainer(model, importlib.import_module("common.optimizer").SGD(0.5))
    trainer.fit(corpus[:-1], corpus[1:], max_epoch=2, batch_size=3, time_size=4, max_grad=0.25, eval_interval=3)
    perplexity = util.eval_perplexity(model, corpus, 3, 4)
    assert all(isinstance(util.to_cpu(param), np.ndarray) for param in model.params)
    return trainer.ppl_list, perplexity


def test_the_books_switch_for_a_gpu(cupy: Any, book: Path) -> None:
    want = book_run(gpu=False)
    dlfs2.uninstall()
    for name in [name for name in sys.modules if name.split(".")[0] == "common"]:
        del sys.modules[name]
    with numbers_may_be_read():
        got = book_run(gpu=True)
    np.testing.assert_allclose([*got[0], got[1]], [*want[0], want[1]], rtol=1e-5)
    module: Any = importlib.import_module("common.np")
    assert (module.np, module.GPU) == (cupy, True)
    target, rows = cupy.asarray(np.zeros((4, 2))), cupy.asarray(np.ones((3, 2)))
    module.np.scatter_add(target, cupy.asarray(np.array([1, 3, 1])), rows)
    np.testing.assert_array_equal(cupy.asnumpy(target)[:, 0], [0, 2, 0, 1])


def test_negative_sampling_of_the_book(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    W, h, target = draw.standard_normal((V, 4)), draw.standard_normal((3, 4)), np.array([2, 0, 10])
    on_host = negative_sampling.NegativeSamplingLoss(W, np.arange(V), sample_size=2)
    on_gpu = negative_sampling.NegativeSamplingLoss(cupy.asarray(W), cupy.asarray(np.arange(V)), sample_size=2)
    np.testing.assert_array_equal(on_gpu.sampler.word_p, on_host.sampler.word_p)
    words = on_gpu.sampler.get_negative_sample(cupy.asarray(target))
    assert (words.shape, words.dtype) == ((3, 2), np.dtype(np.int32))

    monkeypatch.setattr(on_host.sampler, "get_negative_sample", lambda _: to_host(words))
    monkeypatch.setattr(on_gpu.sampler, "get_negative_sample", lambda _: words)
    loss = on_gpu.forward(cupy.asarray(h), cupy.asarray(target))
    dh = on_gpu.backward()
    with numbers_may_be_read():
        assert float(loss) == pytest.approx(on_host.forward(h, target))
    np.testing.assert_allclose(to_host(dh), on_host.backward())
    np.testing.assert_allclose(to_host(on_gpu.grads[0]), on_host.grads[0])


def test_training_on_the_command_line(cupy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 20)
    run = ["train", "rnnlm", "--data", str(text), "--hidden-size", "6", "--epochs", "1", "--quiet", "--batch-size", "4"]
    with numbers_may_be_read():
        assert cli.main([*run, "--device", "cuda", "--out", str(tmp_path / "run")]) == 0
    assert '"device": "cuda"' in (tmp_path / "run" / "config.json").read_text()
    assert RNNLM.load(tmp_path / "run" / "model.safetensors").device == "cpu"


def test_a_text_larger_than_a_gpu_holds_is_copied_batch_by_batch(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, data, arguments = MAKERS["rnnlm"]
    learned = []
    for most in (1 << 31, 0):
        monkeypatch.setattr("fastlstm.models.text_streams.MOST_ON_DEVICE", most)
        model = make().to("cuda")
        with numbers_may_be_read():
            model.fit(*data(10), verbose=0, **arguments)
        learned.append(parameters(model))
    for got, want in zip(*learned, strict=True):
        np.testing.assert_array_equal(got, want)


# --------------------------------------------------------------------------------------------
# Weights of rows
# --------------------------------------------------------------------------------------------


weighted = (
    "classifier",
    "regressor",
    "seq2seq attention, bidirectional, padding",
    "tagger, two layers, bidirectional, dropout",
    "regressor rnn, steps, bidirectional",
)


@pytest.mark.parametrize("name", weighted)
def test_weights_and_batches_on_a_gpu_are_those_on_the_host(cupy: Any, name: str) -> None:
    make, data, arguments = MAKERS[name]
    xs, ts = data(10)
    weights = rng.uniform(0, 2, {"s": ts.shape, "t": ts.shape}.get(name[0], ts.shape[: ts.ndim - 1 or 1]))
    given = [(xs[i : i + 4], ts[i : i + 4], weights[i : i + 4]) for i in range(0, 10, 4)]
    results = []
    for device in ("cpu", "cuda"):
        by_rows, by_batches = (make().to(device) for _ in range(2))
        with numbers_may_be_read():
            histories = [
                by_rows.fit(xs, ts, sample_weight=weights, max_grad=0.5, verbose=0, **arguments).history,
                by_batches.fit(given, validation_data=(xs, ts), verbose=0, epochs=2).history,
            ]
            evaluated = by_rows.evaluate(xs, ts, weights)
        results.append((histories, evaluated, parameters(by_rows), parameters(by_batches)))
    for got, want in zip(*results[::-1], strict=True):
        for one, other in zip(got, want, strict=True):
            if isinstance(one, dict):
                close([*one.values()], [*other.values()])
            elif isinstance(got, dict):
                close(got[one], want[other])
            else:
                close(one, other)
