"""Steps of a training as CUDA graphs: the same bits as without, whatever changes between two steps.

The stand-in for CuPy puts down what a step does and does it again, in the same memory: numbers of the host that were
taken into a graph, and arrays that Python has put into another's place since, show as other bits.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cuda_emulation
import definition_on_cupy
import gpu_stand_in
import numpy as np
import numpy_as_cupy
import pytest
from cuda_cases import SMALL
from numpy_as_cupy import Traffic, numbers_may_be_read
from tiny_models import MAKERS, Maker, Stop, parameters, rnnlm, seq2seq, word2vec

from fastlstm import callbacks, layers, ops, optim, use_backend
from fastlstm.contract import PaddedRowGrad, RowGrad
from fastlstm.layers.seeds import Seeds
from fastlstm.models import RNNLM, Model
from fastlstm.ops.device import to_host
from fastlstm.training import cuda_graph


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with definition_on_cupy.installed() as stand_in, use_backend("numpy"):
        yield stand_in


@pytest.fixture(autouse=True)
def _memory_is_whole() -> Iterator[None]:
    yield
    numpy_as_cupy.check_margins()


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda on: monkeypatch.setenv("FASTLSTM_CUDA_GRAPHS", "1" if on else "0")


class Changes(callbacks.Callback):
    """Calls functions after so many batches of the training."""

    def __init__(self, **after: Callable[[Any], None]) -> None:
        super().__init__()
        self.after = {int(name.removeprefix("after_")): change for name, change in after.items()}
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.batches += 1
        if self.batches in self.after:
            self.after[self.batches](self.trainer)


def fitted(maker: Maker, N: int = 21, **more: Any) -> tuple[Model, Any]:
    make, data, arguments = maker
    model = make().to("cuda")
    options = {"max_grad": 0.5, "verbose": 0, **arguments, **more}
    for name in ("callbacks", "optimizer"):  # new ones for each training
        if callable(options.get(name)):
            options[name] = options[name]()
    with numbers_may_be_read():
        return model, model.fit(*data(N), **options)


def same_with_and_without(switch: Callable[[bool], None], maker: Maker, **more: Any) -> Any:
    """Train both ways; returns the history of the training with graphs."""
    switch(False)
    plain, want = fitted(maker, **more)
    assert want.device_steps["graph"] == 0
    assert want.why_no_graph == "FASTLSTM_CUDA_GRAPHS=0 switches graphs off"
    switch(True)
    model, history = fitted(maker, **more)
    assert history.history == want.history
    assert model.rng.bit_generator.state == plain.rng.bit_generator.state
    for name, got, expected in zip(model._names, parameters(model), parameters(plain), strict=True):
        np.testing.assert_array_equal(got, expected, name)
    for got, expected in zip(model.state(), plain.state(), strict=True):
        np.testing.assert_array_equal(to_host(got), to_host(expected))
    assert sum(history.device_steps.values()) == sum(want.device_steps.values())
    return history


# --------------------------------------------------------------------------------------------
# The same bits
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_training_with_graphs_has_the_bits_of_one_without(cupy: Any, switch: Any, name: str) -> None:
    history = same_with_and_without(switch, MAKERS[name], epochs=4)
    assert history.device_steps["graph"] > 0
    assert history.why_no_graph is None


weighted = (
    "classifier",
    "seq2seq attention, bidirectional, padding",
    "tagger, two layers, bidirectional, dropout",
    "regressor rnn, steps, bidirectional",
)


@pytest.mark.parametrize("name", weighted)
def test_steps_of_weighted_rows_are_graphs_too(cupy: Any, switch: Any, name: str) -> None:
    weights = np.linspace(0.1, 2, 21)
    history = same_with_and_without(switch, MAKERS[name], epochs=4, sample_weight=weights)
    assert history.device_steps["graph"] > 0
    assert history.why_no_graph is None


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimizer_and_a_learning_rate_that_falls(cupy: Any, switch: Any, name: str) -> None:
    def halve(trainer: Any) -> None:
        trainer.optimizer.lr *= 0.5

    maker = rnnlm(num_layers=2, tie_weights=True, dropout=0.3)
    changes: dict[str, Any] = {f"after_{batch}": halve for batch in (3, 4, 7, 10)}
    history = same_with_and_without(switch, maker, optimizer=name, callbacks=lambda: [Changes(**changes)], epochs=3)
    assert history.device_steps["eager"] == cuda_graph.EAGER_STEPS


def test_word2vec_with_a_learning_rate_of_every_step(cupy: Any, switch: Any) -> None:
    for loss in ("nce", "negative_sampling", "sampled_softmax"):
        for options in ({"final_lr": 0.0001, "max_grad": 0.1}, {"max_grad": None, "optimizer": "momentum"}):
            same_with_and_without(switch, word2vec(loss=loss), N=5, epochs=1, **options)


def test_validation_schedulers_and_kept_logs(cupy: Any, switch: Any) -> None:
    kept: list[list[Any]] = []

    def several() -> list[Any]:
        kept.append([])
        return [
            callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.7**epoch),
            callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
            callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: kept[-1].append(logs)),
        ]

    maker = seq2seq(peeky=True, dropout=0.2, reverse_source=True, num_layers=2)
    same_with_and_without(switch, maker, callbacks=several, validation_split=0.3, epochs=4)
    with numbers_may_be_read():
        without, with_graphs = ([dict(logs) for logs in trained] for trained in kept)
    assert with_graphs == without
    assert len({logs["loss"] for logs in without}) > 5


@pytest.mark.parametrize("change", ["momentum", "dropout", "max_grad", "state of the optimizer", "generator"])
def test_what_else_changes_is_captured_again(cupy: Any, switch: Any, change: str) -> None:
    def make(trainer: Any) -> None:
        if change == "momentum":
            trainer.optimizer.beta1 = 0.5
        elif change == "dropout":
            for dropout in trainer.model._dropouts:
                dropout.dropout_ratio = 0.6
        elif change == "max_grad":
            trainer.max_grad = 0.01
        elif change == "generator":
            trainer.model.rng = np.random.default_rng(8)
        else:
            trainer.optimizer.set_state(*trainer.optimizer.state())
            gc.collect()

    same_with_and_without(
        switch,
        rnnlm(dropout=0.3),
        callbacks=lambda: [Changes(after_6=make)],
        epochs=3,
        optimizer=lambda: optim.Adam(0.1),
    )


def test_another_precision_is_captured_again(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition knows one only, so its bits say nothing."""
    graph = importlib.import_module("fastlstm.backends.cuda.graph")
    captures: list[Any] = []
    capture = graph.Capture.capture

    def noting(self: Any, work: Any) -> Any:
        captures.append(self)
        return capture(self, work)

    monkeypatch.setattr(graph.Capture, "capture", noting)

    def change(trainer: Any) -> None:
        for layer in trainer.model.layers.values():
            layer.set_precision("float64")

    switch(True)
    fitted(rnnlm(), epochs=3)
    before = len(captures)
    fitted(rnnlm(), callbacks=[Changes(after_6=change)], epochs=3)
    assert len(captures) - before == before + 1 == 2


def test_arrays_are_judged_by_where_they_lie(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other objects for the same memory are the same arrays; an array elsewhere is captured again."""

    def renew(trainer: Any) -> None:
        for arrays in (trainer.model.grads, *(layer.grads for layer in trainer.model.layers.values())):
            arrays[:] = [array.reshape(array.shape) for array in arrays]

    captures: list[Any] = []
    graph = importlib.import_module("fastlstm.backends.cuda.graph")
    capture = graph.Capture.capture

    def noting(*args: Any) -> Any:
        captures.append(args)
        return capture(*args)

    monkeypatch.setattr(graph.Capture, "capture", noting)
    changes: dict[str, Any] = {f"after_{batch}": renew for batch in (5, 6, 8)}
    switch(True)
    fitted(rnnlm(), callbacks=[Changes(**changes)], epochs=3)
    assert len(captures) == 1
    captured = cuda_graph.GraphedStep()
    x = cupy.zeros((2, 3))
    captured.key = (x, 0.5, None)
    assert captured.was_captured_with((x.reshape(2, 3), 0.5, None))
    for key in ((x.copy(), 0.5, None), (x.reshape(3, 2), 0.5, None), (x, 0.6, None), (0.5, x, None), (x, 0.5)):
        assert not captured.was_captured_with(key)


def test_memory_that_came_free_during_a_capture_is_not_taken_for_a_graph(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool gives back what is free, then there is enough; the graph may use what was given back."""
    capture = importlib.import_module("fastlstm.backends.cuda.graph").Capture()
    with capture.eagerly():
        cupy.zeros(10)
    tries: list[int] = []
    real = cupy.cuda.Memory

    def scarce(size: int) -> Any:
        tries.append(size)
        if len(tries) == 1:
            raise cupy.cuda.runtime.CUDARuntimeError("out of memory")
        return real(size)

    with monkeypatch.context() as patch:
        patch.setattr(cupy.cuda, "Memory", scarce)
        with pytest.raises(MemoryError, match="GPU memory ran out while work was captured"):
            capture.capture(lambda: cupy.zeros(1000))
    assert len(tries) == 2
    capture.capture(lambda: cupy.zeros(2000))
    assert capture.is_captured


def test_an_allocator_that_graphs_do_not_use_is_named(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def rmm_cupy_allocator(size: int) -> Any:
        raise AssertionError("a stand-in's name alone")

    monkeypatch.setattr(cupy.cuda, "get_allocator", lambda: rmm_cupy_allocator)
    switch(True)
    with pytest.warns(RuntimeWarning, match=r"not by .*rmm_cupy_allocator, the allocator that was set"):
        _, history = fitted(rnnlm(), epochs=3)
    assert history.device_steps["graph"] > 0
    switch(False)
    fitted(rnnlm(), epochs=1)


def test_counts_of_words_that_change_are_captured_again(cupy: Any, switch: Any) -> None:
    def change(trainer: Any) -> None:
        trainer.model.counts = np.arange(1, len(trainer.model.counts) + 1)[::-1]
        gc.collect()

    maker = word2vec(loss="negative_sampling")
    same_with_and_without(switch, maker, N=9, epochs=1, callbacks=lambda: [Changes(after_6=change)])


def test_the_device_is_done_before_the_memory_of_a_graph_goes(
    cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a step is captured again, when graphs are given up, and at the end."""
    graph = importlib.import_module("fastlstm.backends.cuda.graph")
    seen: list[str] = []

    def noting(what: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            seen.append(what)
            return function(*arguments)

        return call

    for owner, name in ((graph.Capture, "replay"), (graph, "_give_back"), (cupy.cuda.Device, "synchronize")):
        monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))
    monkeypatch.setattr(cuda_graph, "MOST_CAPTURES", 2)

    def change(trainer: Any) -> None:
        trainer.max_grad *= 0.9

    switch(True)
    with pytest.warns(RuntimeWarning, match="changes too often"):
        fitted(rnnlm(), callbacks=[Changes(after_6=change, after_8=change)], epochs=3)
    assert fitted(rnnlm(), epochs=3)[1].device_steps["graph"] > 0
    gc.collect()
    assert seen.count("_give_back") == 3
    at = [k for k, what in enumerate(seen) if what == "_give_back"]
    for k in at:
        before = [what for what in seen[:k] if what != "_give_back"]
        assert before[-1] == "synchronize"


def test_a_state_that_is_reset_or_put_back_between_two_steps(cupy: Any, switch: Any) -> None:
    kept: list[Any] = []

    def keep(trainer: Any) -> None:
        kept[:] = [array.copy() for array in trainer.model.state()]

    changes: dict[str, Any] = {
        "after_4": keep,
        "after_5": lambda trainer: trainer.model.reset_state(),
        "after_7": lambda trainer: trainer.model.set_state(list(kept)),
    }
    for cell in ("lstm", "gru", "rnn"):
        same_with_and_without(switch, rnnlm(cell=cell, num_layers=2), callbacks=lambda: [Changes(**changes)], epochs=3)


def test_what_a_training_leaves_behind_stays_when_the_memory_of_its_graphs_goes(cupy: Any, switch: Any) -> None:
    """The last step is one of those that run operator by operator in the memory of a graph: its state is there."""
    history = same_with_and_without(switch, MAKERS["rnnlm"], N=9, epochs=1)
    assert history.device_steps == {"graph": 0, "eager": 3}
    graph: Any = importlib.import_module("fastlstm.backends.cuda.graph")
    assert graph._kept
    gc.collect()
    graph.Capture()
    assert not graph._kept


def test_a_shape_that_comes_rarely_runs_operator_by_operator(cupy: Any, switch: Any) -> None:
    """Batches of 4, and one of 1 at the end of an epoch."""
    history = same_with_and_without(switch, seq2seq(), N=21, epochs=2)
    assert history.device_steps == {"graph": 2 * 5 - cuda_graph.EAGER_STEPS, "eager": cuda_graph.EAGER_STEPS + 2}
    assert history.why_no_graph is None


@pytest.mark.parametrize("name", ["rnnlm two layers, tied, dropout", "seq2seq peeky", "word2vec nce"])
@pytest.mark.parametrize("after", [1, 5, 8])
def test_a_training_that_was_interrupted_between_graphs(cupy: Any, tmp_path: Path, name: str, after: int) -> None:
    whole, want = fitted(MAKERS[name])
    backup = [callbacks.BackupAndRestore(tmp_path / "checkpoint")]
    with pytest.raises(KeyboardInterrupt):
        fitted(MAKERS[name], callbacks=[Stop(after), *backup])
    resumed, history = fitted(MAKERS[name], callbacks=[callbacks.BackupAndRestore(tmp_path / "checkpoint")])
    assert history.history == want.history
    assert history.device_steps["graph"] > 0 or after == 8  # few steps are left then
    for got, expected in zip(parameters(resumed), parameters(whole), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_one_model_and_optimizer_trained_twice(cupy: Any, switch: Any) -> None:
    """What the first training's graphs leave behind, a second one and the host can go on from."""
    make, data, arguments = rnnlm(dropout=0.3)
    results = []
    for on in (False, True):
        switch(on)
        model, optimizer = make().to("cuda"), optim.Adam(0.01)
        with numbers_may_be_read():
            for N in (21, 9):
                model.fit(*data(N), optimizer=optimizer, verbose=0, **arguments)
            assert optimizer.step_on_device is None
            assert optimizer.lr_on_device is None
            evaluated = model.evaluate(*data(7))
            assert isinstance(model, RNNLM)
            text = model.generate([1], 9, seed=1)
        model.to("cpu").fit(*data(9), optimizer=optimizer, verbose=0, **arguments)
        results.append((optimizer.step, evaluated, text.tolist(), parameters(model)))
    assert results[0][:3] == results[1][:3]
    for got, expected in zip(results[1][3], results[0][3], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_step_of_a_graph_copies_nothing_and_waits_for_nothing(cupy: Any, switch: Any) -> None:
    switch(True)
    seen: list[tuple[int, int]] = []

    def look(trainer: Any) -> None:
        seen.append((Traffic.to_host, Traffic.to_device))

    changes: dict[str, Any] = {f"after_{batch}": look for batch in range(1, 15)}
    fitted(rnnlm(dropout=0.3), callbacks=[Changes(**changes)])
    in_an_epoch = [b[0] - a[0] + b[1] - a[1] for a, b in pairwise(seen[2:6])]
    assert in_an_epoch == [0, 0, 0]


# --------------------------------------------------------------------------------------------
# Where there is no graph
# --------------------------------------------------------------------------------------------


def test_a_step_that_cannot_be_captured_goes_on_and_says_so(
    cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a capture that has drawn seeds and changed what Python holds."""
    maker = rnnlm(num_layers=2, dropout=0.3)
    switch(False)
    plain, want = fitted(maker)
    switch(True)
    real = RNNLM.batch_metrics

    def reading(self: Any, names: Any) -> Any:
        float(self._head._loss)
        return real(self, names)

    monkeypatch.setattr(RNNLM, "batch_metrics", reading)
    with pytest.warns(
        RuntimeWarning, match="not as a CUDA graph: a step cannot be captured .*a value that is read"
    ) as told:
        model, history = fitted(maker)
    assert len(told) == 1
    assert history.device_steps["graph"] == 0
    assert "a value that is read on the host" in history.why_no_graph
    assert history.history == want.history
    assert model.rng.bit_generator.state == plain.rng.bit_generator.state
    for got, expected in zip(parameters(model), parameters(plain), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_layer_with_a_generator_of_its_own_is_not_capturable(cupy: Any, switch: Any) -> None:
    """Each replay would draw what the capture drew."""
    make, data, arguments = rnnlm(dropout=0.3)

    def made() -> Model:
        model = make()
        model._dropouts[0].seeds = Seeds(np.random.default_rng(9))  # type: ignore[attr-defined]
        return model

    with pytest.warns(RuntimeWarning, match="a layer draws seeds from a generator of its own"):
        history = same_with_and_without(switch, (made, data, arguments))
    assert history.device_steps["graph"] == 0


def test_shapes_that_are_rare_take_no_graph_and_no_word(
    cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_SHAPES", 1)
    monkeypatch.setattr(cuda_graph, "RARE", 4)
    history = same_with_and_without(switch, seq2seq(), N=37, epochs=3)  # one batch of ten is smaller
    assert history.device_steps == {"graph": 3 * 9 - cuda_graph.EAGER_STEPS, "eager": cuda_graph.EAGER_STEPS + 3}


def test_settings_that_change_in_every_step(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_CAPTURES", 3)

    def change(trainer: Any) -> None:
        trainer.optimizer.beta1 *= 0.99

    changes: dict[str, Any] = {f"after_{batch}": change for batch in range(1, 19)}
    with pytest.warns(RuntimeWarning, match="what a step is captured with, .* changes too often"):
        history = same_with_and_without(switch, rnnlm(dropout=0.3), callbacks=lambda: [Changes(**changes)], epochs=3)
    assert history.device_steps == {"graph": 3, "eager": 15}


def test_gradients_of_which_only_the_rows_of_the_step_before_are_cleared(cupy: Any, switch: Any) -> None:
    def promise(trainer: Any) -> None:
        trainer.model._embedding.grads_only_scaled = True

    # After the sixth step it is captured again.
    changes: dict[str, Any] = {"after_1": promise, "after_6": lambda trainer: setattr(trainer, "max_grad", 0.1)}
    same_with_and_without(switch, rnnlm(), callbacks=lambda: [Changes(**changes)], epochs=2, time_size=2)


def test_only_the_rows_of_the_step_before_are_cleared_whichever_way_that_ran(cupy: Any, switch: Any) -> None:
    """Batches of 4 as graphs, one of 1 at the end of an epoch operator by operator; then a step of one's own."""
    make, data, arguments = seq2seq()

    def promising() -> Model:
        model = make()
        for name in ("encoder.embedding", "decoder.embedding"):
            model.layers[name].grads_only_scaled = True  # type: ignore[attr-defined]
        return model

    same_with_and_without(switch, (promising, data, arguments), epochs=3)
    model, history = fitted((promising, data, arguments), N=40)
    assert history.device_steps["graph"] > 0
    xs, ts = (cupy.asarray(array) for array in data(3))
    model.forward(xs, ts)
    model.backward()
    got = [to_host(grad) for grad in model.grads]
    for grad in model.grads:
        grad.fill(7)
    for layer in model.layers.values():
        layer._written = None  # type: ignore[attr-defined]
    model.forward(xs, ts)
    model.backward()
    for grad, want in zip(got, model.grads, strict=True):
        np.testing.assert_array_equal(grad, to_host(want))


def test_more_shapes_than_graphs(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_SHAPES", 2)
    with pytest.warns(RuntimeWarning, match="batches have more than 2 shapes"):
        history = same_with_and_without(switch, MAKERS["classifier"], epochs=4)
    assert min(history.device_steps.values()) > 0


def test_wrong_ids_in_a_captured_step_are_reported(cupy: Any, switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    switch(True)
    monkeypatch.setattr("fastlstm.models.ids.check_range", lambda *_: None)  # the host's, before training
    make, data, arguments = MAKERS["seq2seq"]
    xs, ts = data(40)
    xs[-1, 1] = 99
    with numbers_may_be_read(), pytest.raises(IndexError, match="ids holds 99, expected ids from 0 to"):
        make().to("cuda").fit(xs, ts, verbose=0, **{**arguments, "shuffle": False})


# --------------------------------------------------------------------------------------------
# With the kernels themselves, and products by the definition of cublasGemmEx
# --------------------------------------------------------------------------------------------


@pytest.fixture
def kernels() -> Iterator[Any]:
    with gpu_stand_in.installed(cuda_emulation.load()):
        module: Any = importlib.import_module("fastlstm._cuda")
        module.emulate(**SMALL, seed=0)
        yield module


@pytest.mark.parametrize(
    "name",
    [
        "rnnlm two layers, tied, dropout",
        "seq2seq reversed, two layers, dropout",
        "seq2seq peeky, attention, no cell state",
        "classifier",
        "word2vec nce",
        "word2vec negative sampling",
    ],
)
def test_the_kernels_in_graphs(kernels: Any, switch: Any, name: str) -> None:
    history = same_with_and_without(switch, MAKERS[name], N=5 if "word2vec" in name else 21, epochs=2)
    assert history.device_steps["graph"] > 0


def test_the_kernels_without_our_own_handle_of_cublas(
    kernels: Any, switch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTLSTM_CUBLAS", "cupy")
    with pytest.warns(RuntimeWarning, match="calling cuBLAS API during stream capture is currently unsupported"):
        history = same_with_and_without(switch, MAKERS["seq2seq"])
    assert history.device_steps["graph"] == 0


def test_padded_gradients_change_what_their_rows_change(kernels: Any) -> None:
    """Behind the rows stands anything: it is neither used nor counted in the norm."""
    cupy = sys.modules["cupy"]
    rng = np.random.default_rng(0)
    for dtype, of_ids in ((np.float32, np.int64), (np.float64, np.int32)):
        for shape in ((50, 33), (50, 300), (700,)):
            rows: Any = np.unique(rng.integers(0, shape[0], 20)).astype(of_ids)
            values = rng.standard_normal((len(rows), *shape[1:])).astype(dtype)
            indices, padded = np.full(40, -5, of_ids), np.full((40, *shape[1:]), np.nan, dtype)
            indices[: len(rows)], padded[: len(rows)] = rows, values
            params = [rng.standard_normal(shape).astype(dtype), rng.standard_normal((3, 4)).astype(dtype)]
            dense = cupy.asarray(np.ones((3, 4), dtype))
            results = []
            for grad in (
                RowGrad(cupy.asarray(rows), cupy.asarray(values)),
                PaddedRowGrad(
                    cupy.asarray(indices), cupy.asarray(padded), cupy.asarray(np.array([len(rows)], np.int32))
                ),
            ):
                there, optimizer = [cupy.asarray(param) for param in params], optim.Adam(0.1)
                for _ in range(2):
                    optimizer.update(there, [grad, dense], max_norm=0.5)
                norm = ops.global_norm([grad, dense])
                results.append([to_host(array) for array in (*there, norm)])
            for got, want in zip(results[1], results[0], strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-6)
            assert not np.array_equal(results[1][0], params[0])


def test_seeds_that_stand_on_the_device_are_those_of_the_host(kernels: Any) -> None:
    cupy = sys.modules["cupy"]
    numbers = importlib.import_module("fastlstm.backends.cuda.graph").GraphScalars(600)
    bits = [int(seed) for seed in np.random.default_rng(4).integers(0, 2**64, 600, np.uint64)]
    numbers.store(bits)
    assert to_host(numbers.whole).tolist() == bits
    xs = cupy.zeros((33, 7), np.float32)
    mask = ops.dropout_mask(xs, 0.3, seed=numbers.whole[2:3].reshape(()))
    np.testing.assert_array_equal(to_host(mask), to_host(ops.dropout_mask(xs, 0.3, seed=bits[2])))
    labels, table = cupy.asarray(np.array([3, 0, 9])), ops.UnigramTable(np.arange(1, 21))
    draws: tuple[Any, ...] = (
        lambda **seed: ops.log_uniform_candidates(8, 20, labels, **seed),
        lambda **seed: ops.log_uniform_candidates(8, 20, labels, unique=False, **seed),
        lambda **seed: ops.unigram_candidates(table, 8, labels, **seed),
        lambda **seed: ops.unigram_candidates(table, 8, labels, unique=True, **seed),
    )
    for draw in draws:
        want = draw(rng=np.random.default_rng(7))
        seeds = Seeds(np.random.default_rng(7))
        with seeds.in_slots(numbers.whole) as drawn:
            slot = seeds.take()
        numbers.store(drawn)
        for given in (slot, drawn[0]):
            for ours, theirs in zip(draw(seed=given), want, strict=True):
                np.testing.assert_array_equal(to_host(ours), to_host(theirs))


def test_seeds_go_into_slots_or_are_not_drawn(cupy: Any) -> None:
    seeds, alone = Seeds(np.random.default_rng(0)), np.random.default_rng(0)
    slots = cupy.zeros(1, np.uint64)
    taken: list[Any] = []
    with pytest.raises(RuntimeError, match="draws more than 1 seeds"), seeds.in_slots(slots) as drawn:
        taken.extend(seeds.take() for _ in range(2))
    want = int(alone.integers(0, 2**64, dtype=np.uint64))
    assert drawn == [want]
    assert seeds.take() == want  # as if nothing had been drawn
    other = Seeds(alone)
    with pytest.raises(RuntimeError, match="make it with rng=model.seeds"), seeds.in_slots(slots):
        other.take()
    assert other.take() == seeds.take()


def test_the_benchmark_of_whole_steps_runs_our_side(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = pytest.importorskip("benchmarks.gpu_steps", reason="the benchmarks are not beside the tests")
    with numbers_may_be_read():
        for ours in (
            benchmark.our_addition(benchmark.Addition(V=9, D=3, H=5, N=4, S=3, T=3, batches=3)),
            benchmark.our_text(benchmark.Text(V=9, H=5, layers=2, N=2, T=3, batches=3)),
        ):
            weights = benchmark.weights_of(ours.trainer)
            losses = ours.losses(5)
            assert ours.trainer.history.device_steps == {"graph": 2, "eager": 3}
            host = type(ours.trainer.model)(**ours.trainer.model.options)
            host.set_weights(weights, "the benchmark")
            update = type(ours.trainer.optimizer)(ours.trainer.optimizer.lr)
            batches = benchmark.batches_of(ours.trainer)
            for k, loss in enumerate(losses):
                want = host.forward(*batches[k % len(batches)])
                host.backward()
                update.update(host.params, host.grads, ours.trainer.max_grad)
                assert benchmark.check([loss], [want], 1e-3) < 1e-3
        with pytest.raises(AssertionError, match="losses differ by"):
            benchmark.check([1.0], [2.0], 1e-3)
        jobs = [benchmark.addition_job(n=300, epochs=1, H=4), benchmark.text_job(words=400, V=9, H=3)]
    result = {"step": "addition", "median_us": {"fastlstm": 2.0, "torch": 30.0}, "ratio": {"torch": 15.0}}
    lines = benchmark.table([result], jobs).splitlines()
    assert lines[0] == "addition step: ours 2.0 us; torch 30.0 us (15.00x)"
    assert "1 epochs of addition, 300 questions" in lines[1]
    assert "graph" in lines[2]


# --------------------------------------------------------------------------------------------
# The stand-in itself: what it would be worth nothing without
# --------------------------------------------------------------------------------------------


def test_a_layer_of_sampled_classes_on_a_gpu(cupy: Any) -> None:
    """Optimisers get gradients that nothing waited for; ``row_grads`` and ``backward`` are those of the host."""
    rng = np.random.default_rng(0)
    W, b, h, target = rng.random((20, 4)), rng.random(20), rng.random((6, 4)), np.arange(6)
    on_host = layers.NCELoss(W, b, 4, rng=np.random.default_rng(1))
    there = layers.NCELoss(cupy.asarray(W), cupy.asarray(b), 4, rng=np.random.default_rng(1))
    want = on_host.forward(h, target)
    got = there.forward(cupy.asarray(h), cupy.asarray(target))
    assert all(isinstance(grad, PaddedRowGrad) for grad in there.update_grads)
    with numbers_may_be_read():
        np.testing.assert_allclose(float(got), want)
    for ours, theirs in zip(there.row_grads, on_host.row_grads, strict=True):
        np.testing.assert_array_equal(to_host(ours.indices), theirs.indices)
        np.testing.assert_allclose(to_host(ours.values), theirs.values)
    np.testing.assert_allclose(to_host(there.backward(2.0)), on_host.backward(2.0))
    for dense, wanted in zip(there.grads, on_host.grads, strict=True):
        np.testing.assert_allclose(to_host(dense), wanted)


def test_a_capture_of_the_stand_in_computes_nothing_and_a_launch_does_all(cupy: Any) -> None:
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    x, y = cupy.asarray(np.arange(4.0)), cupy.zeros(4)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        y += cupy.where(x > 1, x * 2, x)[cupy.arange(4)]
        graph = stream.end_capture()
    assert y.host.tolist() == [0, 0, 0, 0]
    graph.launch()
    assert y.host.tolist() == [0, 1, 4, 6]
    x.fill(1)
    graph.launch()
    assert y.host.tolist() == [1, 2, 5, 7]
    del x
    gc.collect()
    with pytest.raises(AssertionError, match="a graph uses memory of 1 arrays that are gone"):
        graph.launch()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (lambda cupy, x: float(x[0]), RuntimeError),
        (lambda cupy, x: cupy.asnumpy(x), RuntimeError),
        (lambda cupy, x: cupy.asarray(np.ones(3)), RuntimeError),
        (lambda cupy, x: cupy.cuda.get_current_stream().synchronize(), RuntimeError),
        (lambda cupy, x: cupy.cuda.Device().synchronize(), RuntimeError),
        (lambda cupy, x: cupy.matmul(x, x), NotImplementedError),
        (lambda cupy, x: x @ x, NotImplementedError),
    ],
)
def test_a_capture_of_the_stand_in_refuses(cupy: Any, what: Any, kind: type[Exception]) -> None:
    stream, x = cupy.cuda.Stream(non_blocking=True), cupy.zeros((3, 3))
    with stream:
        stream.begin_capture()
        with pytest.raises(kind):
            what(cupy, x)
        if kind is RuntimeError:
            with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
                stream.end_capture()
        else:
            stream.end_capture()
