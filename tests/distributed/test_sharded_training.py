"""Trainings whose batches are cut into shards: what they compute, and that the number of workers changes no bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thread_workers import ThreadWorkers, on_workers
from tiny_models import MAKERS, Stop, parameters, rnnlm, word2vec

from fastlstm import callbacks, optim
from fastlstm.contract import BackendNotAvailable
from fastlstm.distributed import Alone, Workers
from fastlstm.distributed.gradients import _LastShard
from fastlstm.models import RNNLM, Model, Word2Vec

SHARDS = 4
# Eight rows in batches of three or four: shards of one row and of none.
ROWS = 7


def train(kind: str, workers: Workers | None = None, **changed: Any) -> tuple[Model, dict[str, list[float]]]:
    make, data, arguments = MAKERS[kind]
    model = make()
    arguments = {"max_grad": 0.1, **arguments, "verbose": 0, "workers": workers, **changed}
    return model, model.fit(*data(ROWS), **arguments).history


def bits(model: Model) -> tuple[bytes, bytes, Any]:
    """Weights, carried state and the state of the generator."""
    return (
        b"".join(param.tobytes() for param in parameters(model)),
        b"".join(array.tobytes() for array in model.state()),
        model.rng.bit_generator.state,
    )


def validated(kind: str) -> dict[str, Any]:
    """An argument of fit: data to validate on."""
    data = MAKERS[kind][1](5)
    return {"validation_data": data if len(data) > 1 else data[0]}


@pytest.mark.parametrize("kind", MAKERS)
def test_any_number_of_workers_has_the_bits_of_one(kind: str) -> None:
    def work(workers: ThreadWorkers | None) -> Any:
        model, history = train(kind, workers, shards=SHARDS, **validated(kind))
        return bits(model), history

    wanted = work(None)
    for n in (2, 3, 4):
        assert on_workers(n, work) == [wanted] * n


LAYERED = [kind for kind in MAKERS if kind.startswith(("rnnlm", "seq2seq"))]


@pytest.mark.parametrize("kind", LAYERED)
def test_gradients_that_travel_while_others_are_computed_have_the_same_bits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlstm.distributed.gradients.WORTH_SENDING", 1)
    early: list[int] = []
    add = _LastShard.add

    def noted(last: _LastShard, grads: Any, first: int) -> slice:
        early.append(first)
        return add(last, grads, first)

    def work(workers: ThreadWorkers) -> Any:
        workers.overlaps = True
        return bits(train(kind, workers, shards=SHARDS)[0])

    wanted = bits(train(kind, shards=SHARDS)[0])
    monkeypatch.setattr(_LastShard, "add", noted)
    for n in (2, 3):
        assert on_workers(n, work) == [wanted] * n
    assert len(set(early)) >= 3  # of the output, of the layers below, and the rest


@pytest.mark.parametrize("kind", LAYERED)
def test_what_is_said_to_be_final_is(kind: str) -> None:
    make, data, _ = MAKERS[kind]
    model = make()
    said: list[tuple[int, list[Any]]] = []
    model.on_final = lambda first: said.append((first, [grad.copy() for grad in model.grads[first:]]))
    batch = data(4) if "seq2seq" in kind else (data(4)[0][:12].reshape(3, 4), data(4)[0][1:13].reshape(3, 4))
    model.forward(*batch)
    model.backward()
    assert [first for first, _ in said] == sorted({first for first, _ in said}, reverse=True)
    assert said[0][1]
    assert any(grad.any() for grad in said[0][1])
    for first, grads in said:
        for then, now in zip(grads, model.grads[first:], strict=True):
            np.testing.assert_array_equal(then, now)


def train_rounded(workers: Workers | None, **changed: Any) -> Model:
    model = RNNLM(11, 6, 6, num_layers=2, tie_weights=True, seed=5)
    given = {"epochs": 2, "batch_size": 4, "time_size": 4, "shards": SHARDS, "grad_precision": "bf16", "verbose": 0}
    model.fit(MAKERS["rnnlm"][1](ROWS)[0], **{**given, **changed}, workers=workers)
    return model


def test_rounded_gradients_have_the_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    alone = train_rounded(None)
    wanted = bits(alone)
    for n in (2, 3, 4):
        assert on_workers(n, lambda workers: bits(train_rounded(workers))) == [wanted] * n
    exact = train_rounded(None, grad_precision=None)
    assert bits(exact) != wanted
    for param, same in zip(alone.params, exact.params, strict=True):
        np.testing.assert_allclose(param, same, atol=0.01)

    def backup() -> list[Any]:
        return [callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)]

    train_rounded(None, callbacks=backup())
    with pytest.raises(ValueError, match="another training: grad_precision was bf16, now it is None"):
        train_rounded(None, grad_precision=None, callbacks=backup())


def test_gradients_by_rows_are_rounded_too() -> None:
    def work(workers: ThreadWorkers | None) -> Any:
        model = Word2Vec(11, 4, num_sampled=5, seed=5)
        arguments = MAKERS["word2vec nce"][2]
        model.fit(*MAKERS["word2vec nce"][1](ROWS), **arguments, shards=3, workers=workers, grad_precision="bf16")
        return bits(model)

    wanted = work(None)
    assert on_workers(2, work) == [wanted] * 2


def test_gradients_that_are_not_rounded() -> None:
    with pytest.raises(ValueError, match="grad_precision is 'bf16', which is for the gradients of shards, but shards"):
        train_rounded(None, shards=1)
    with pytest.raises(ValueError, match="grad_precision is 'tf32', expected 'bf16', or None"):
        train_rounded(None, grad_precision="tf32")
    with pytest.raises(ValueError, match="for a float64 model: only float32 gradients have it"):
        train("rnnlm", shards=2, grad_precision="bf16")


@pytest.mark.parametrize("kind", MAKERS)
def test_one_shard_is_the_training_without_shards(kind: str) -> None:
    (model, history), (other, others) = train(kind), train(kind, Alone(), shards=1)
    assert bits(model) == bits(other)
    assert history == others


DRAWS = ("classifier", *(kind for kind in MAKERS if "dropout" in kind or "word2vec" in kind))


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind not in DRAWS])
def test_shards_have_the_gradient_of_the_batch(kind: str) -> None:
    """Where no step draws, the same up to rounding."""
    given = {"epochs": 1, **validated(kind)}  # the rows' order in the next depends on the batches' seeds
    (model, history), (other, others) = (train(kind, shards=shards, **given) for shards in (1, SHARDS))
    for param, same in zip(parameters(model), parameters(other), strict=True):
        np.testing.assert_allclose(param, same, rtol=1e-6, atol=1e-9)
    for name, values in history.items():
        np.testing.assert_allclose(values, others[name], rtol=1e-9)


def test_sampled_words_are_those_of_a_shard() -> None:
    """A batch's gradient is the sum of what its shards say alone, each with words that its number draws."""
    make, _, _ = word2vec()
    xs, ts = np.arange(10), np.arange(1, 11)
    model, alone = make(), make()
    alone.rng.bit_generator.state = model.rng.bit_generator.state
    seed = alone.seeds.draw()
    total = np.zeros_like(alone.params[0])
    for k, rows in enumerate((slice(0, 5), slice(5, 10))):
        alone.rng = np.random.default_rng((seed, k))
        alone.forward(xs[rows], ts[rows])
        alone.backward()
        total += 5 * alone.grads[0]
    before = model.params[0].copy()

    class Pairs:
        unit, units_per_batch = "pair", 10

        def begin_epoch(self, epoch: int, rng: Any) -> None: ...

        def __len__(self) -> int:
            return 1

        def batch(self, i: int) -> Any:
            return xs, ts

        def fingerprint(self) -> dict[str, Any]:
            return {}

    from fastlstm.training import Trainer

    Trainer(model, Pairs(), optim.SGD(1.0), epochs=1, shards=2, verbose=0).run()
    np.testing.assert_allclose(before - model.params[0], total / 10, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("max_norm", [None, 0.5, 50.0])
def test_an_update_by_the_gradients_of_a_sum_is_that_by_those_of_the_mean(max_norm: float | None) -> None:
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    params = [[np.ones((3, 4)), np.ones(5)] for _ in range(2)]
    by_mean, by_sum = optim.Adam(0.1), optim.Adam(0.1)
    for _ in range(3):
        by_mean.update(params[0], grads, max_norm)
        by_sum.update(params[1], [8 * grad for grad in grads], max_norm, grad_scale=1 / 8)
    for one, other in zip(*params, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_other_numbers_of_shards_draw_other_masks() -> None:
    kind = "classifier"
    assert bits(train(kind, shards=2)[0]) != bits(train(kind, shards=3)[0])


@pytest.mark.parametrize("kind", ["rnnlm two layers, tied, dropout", "seq2seq", "word2vec nce"])
def test_evaluate_is_shared_out(kind: str) -> None:
    make, data, _ = MAKERS[kind]

    def work(workers: ThreadWorkers | None) -> Any:
        model = make()
        before = bits(model)
        found = model.evaluate(*data(9), batch_size=4, workers=workers, shards=3)
        assert bits(model) == before
        return found

    wanted = work(None)
    assert on_workers(2, work) == [wanted] * 2
    whole = make().evaluate(*data(9), batch_size=4)
    if "word2vec" not in kind:
        assert wanted == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kind", ["rnnlm", "classifier", "word2vec nce"])
def test_a_checkpoint_goes_on_with_any_number_of_workers(kind: str, tmp_path: Path) -> None:
    def arguments() -> dict[str, Any]:
        return {
            "shards": SHARDS,
            "epochs": 3,
            "callbacks": [callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)],
        }

    wanted = bits(train(kind, epochs=3, shards=SHARDS)[0])
    for n, after in ((2, 2), (3, 1)):

        def interrupted(workers: ThreadWorkers, after: int = after) -> None:
            given = arguments()
            with pytest.raises(KeyboardInterrupt):
                train(kind, workers, **{**given, "callbacks": [Stop(after), *given["callbacks"]]})

        on_workers(n, interrupted)
    assert bits(train(kind, **arguments())[0]) == wanted
    with pytest.raises(ValueError, match="belongs to another training: shards was 4, now it is 5"):
        train(kind, **{**arguments(), "shards": 5})


@pytest.mark.parametrize("kind", ["rnnlm", "regressor"])
def test_checkpoints_that_name_no_shards_are_of_one(kind: str, tmp_path: Path) -> None:
    from fastlstm.tensor_file import read_tensor_file

    given: dict[str, Any] = {"callbacks": [callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)]}
    train(kind, **given)
    _, description = read_tensor_file(tmp_path / "b")
    assert isinstance(description, dict)
    assert "shards" not in description["training"]
    train(kind, **given)
    with pytest.raises(ValueError, match="shards was 1, now it is 2"):
        train(kind, **given, shards=2)


class OnePerWorker(callbacks.Callback):
    """Notes on which worker it ran, and stops the training on one of them."""

    def __init__(self, stops: bool) -> None:
        super().__init__()
        self.batches = 0
        self.stops = stops

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.batches += 1
        if self.stops and self.batches == 2:
            self.model.stop_training = True


def test_one_worker_that_stops_stops_all_after_the_same_batch() -> None:
    def work(workers: ThreadWorkers) -> int:
        noted = OnePerWorker(workers.rank == 1)
        train("classifier", workers, shards=3, epochs=5, callbacks=[noted])
        return noted.batches

    assert on_workers(3, work) == [2, 2, 2]


def test_worker_0_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(workers: ThreadWorkers) -> Any:
        folder = tmp_path / str(workers.rank)
        given: list[Any] = [
            callbacks.CSVLogger(folder / "history.csv"),
            callbacks.TensorBoard(folder / "logs", update_freq=1),
            callbacks.ModelCheckpoint(folder / "models" / "{epoch}", verbose=1),
            callbacks.LearningRateScheduler(lambda epoch, lr: lr, verbose=1),
            callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=99, verbose=1),
            callbacks.EarlyStopping("loss", patience=1, min_delta=99, verbose=1),
            callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False),
        ]
        return train("classifier", workers, shards=2, epochs=3, verbose=2, callbacks=given)[1]

    first, second = on_workers(2, work)
    assert first == second
    names = {"backup", "history.csv", "logs", "models"}
    assert {path.name for path in (tmp_path / "0").iterdir()} == names
    assert not (tmp_path / "1").exists()
    assert capsys.readouterr().out.count("epoch 1/3") == 1


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 3}, "batch_size is 4 on worker 0 and 3 on worker 1"),
        ({"epochs": 7}, "epochs is 2 on worker 0 and 7 on worker 1"),
        ({"optimizer": optim.Adam(0.5)}, "optimizer is"),
        ({"max_grad": 9.0}, "max_grad is"),
        ({"shards": 3}, "shards is 2 on worker 0 and 3 on worker 1"),
        ({"callbacks": [callbacks.TerminateOnNaN()]}, "callbacks is"),
    ],
)
def test_workers_that_do_something_else_are_told_before_the_first_step(changed: dict[str, Any], named: str) -> None:
    def work(workers: ThreadWorkers) -> None:
        noted = OnePerWorker(False)
        given: dict[str, Any] = {"shards": 2, "callbacks": [noted], **(changed if workers.rank == 1 else {})}
        with pytest.raises(ValueError, match=f"the workers differ: {named}"):
            train("classifier", workers, **given)
        assert noted.batches == 0

    on_workers(2, work)


def test_other_data_and_other_weights_are_told() -> None:
    make, data, arguments = MAKERS["classifier"]

    def work(workers: ThreadWorkers, change_data: bool) -> None:
        model, (xs, ts) = make(), data(ROWS)
        if workers.rank == 1 and change_data:
            xs[0, 0] += 1
        elif workers.rank == 1:
            model.params[0][0, 0] += 1
        what = "crc32 of the training data" if change_data else "crc32 of the weights embedding.W"
        with pytest.raises(ValueError, match=f"the workers differ: {what}"):
            model.fit(xs, ts, **arguments, workers=workers, shards=2, verbose=0)

    on_workers(2, lambda workers: work(workers, True))
    on_workers(2, lambda workers: work(workers, False))


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="workers is .*, expected what fastlstm.distributed.mpi"):
        train("regressor", workers="mpi")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shards is 0, expected at least 1"):
        train("regressor", shards=0)
    with pytest.raises(ValueError, match="learns pair by pair"):
        train("word2vec negative sampling", shards=2, optimizer="sgd", max_grad=None)
    with pytest.raises(ValueError, match="shards is 0"):
        rnnlm()[0]().evaluate([1, 2, 3], shards=0)


def test_on_a_gpu_there_is_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlstm.models.Model.device", "cuda")
    from fastlstm.training.sharded import Shards

    with pytest.raises(BackendNotAvailable, match="shards is 2, which trains on the host only"):
        Shards(rnnlm()[0](), ("loss",), Alone(), 2)


def test_the_description_that_workers_compare_is_plain(tmp_path: Path) -> None:
    """What is compared as text has to be the same text in every process."""
    from fastlstm.training.checkpoint import describe_progress, describe_training

    seen: list[str] = []

    class Look(callbacks.Callback):
        def on_train_begin(self) -> None:
            seen.append(json.dumps([describe_training(self.trainer), describe_progress(self.trainer)]))

    train("rnnlm", callbacks=[Look()])
    assert seen
