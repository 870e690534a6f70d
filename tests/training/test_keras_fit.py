"""What a user of Keras writes: weights of rows and classes, batches from generators, its names and spellings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thread_workers import ThreadWorkers, on_workers
from tiny_models import V, classifier, ids, padded, regressor, seq2seq, series_regressor, tagger, with_start

from fastlstm import callbacks, optim
from fastlstm.models import RNNLM, Model, Seq2seq, SequenceClassifier, SequenceRegressor, Word2Vec
from fastlstm.testing import check_gradient

rng = np.random.default_rng(4)
N = 6
PER_ROW = rng.uniform(0.1, 3, N)
PER_STEP = rng.uniform(0.1, 3, (N, 4))
IGNORING = np.array([0, 2, -1, 1, 1, 0])
XS = padded(N, 7, -1)

# Name: the model, its data, weights.
WEIGHTED: dict[str, tuple[Callable[[], Model], tuple[Any, Any], Any]] = {
    "classifier": (classifier()[0], (XS, IGNORING), PER_ROW),
    "regressor": (regressor()[0], regressor()[1](N), PER_ROW),
    "seq2seq": (seq2seq()[0], (ids(N, 5), with_start(ids(N, 3))), PER_ROW),
    "seq2seq by step": (
        seq2seq(pad_id=0)[0],
        (padded(N, 6, 0), with_start(padded(N, 3, 0))),
        PER_STEP,
    ),
}
WEIGHTED["tagger"] = tagger()[0], tagger()[1](N), PER_ROW
WEIGHTED["tagger by step"] = tagger()[0], tagger()[1](N), rng.uniform(0.1, 3, (N, 6))
WEIGHTED["series"] = series_regressor()[0], series_regressor()[1](N), PER_ROW
WEIGHTED["series by step"] = series_regressor()[0], series_regressor()[1](N), rng.uniform(0.1, 3, (N, 5))
weighted = pytest.mark.parametrize("name", WEIGHTED)


def count(model: Any, *data: Any) -> int:
    """How many targets count."""
    model.forward(*data, training=False)
    return int(model.loss_count)


def bits(model: Model) -> bytes:
    return b"".join(weights.tobytes() for weights in model.get_weights())


def make(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(V, 5, 4, 3, seed=5, dtype="float64", **options)


# --------------------------------------------------------------------------------------------
# Weights
# --------------------------------------------------------------------------------------------


@weighted
def test_the_loss_is_the_weighted_sum_over_how_many_targets_count(name: str) -> None:
    make, (xs, ts), weights = WEIGHTED[name]
    model: Any = make()

    def sum_of_losses(xs: Any, ts: Any) -> float:
        loss = model.forward(xs, ts, training=False)
        return loss * model.loss_count if model.loss_count else 0.0

    total = 0.0
    for n in range(N):
        row = xs[n : n + 1], ts[n : n + 1]
        if weights.ndim == 1:
            total += weights[n] * sum_of_losses(*row)
        elif name == "series by step":
            outputs, counts = model.predict(row[0])[0], (row[0][0] != 9).any(axis=1)
            total += (weights[n, counts, None] * (outputs[counts] - row[1][0, counts]) ** 2).sum()
        else:
            steps = np.arange(ts.shape[1])
            for t in range(name.startswith("seq2seq"), len(steps)):  # what a target adds to those before it
                with_it, without = (np.where(steps < end, row[1], -1) for end in (t + 1, t))
                total += weights[n, t] * (sum_of_losses(row[0], with_it) - sum_of_losses(row[0], without))
    assert model.evaluate(xs, ts, weights)["loss"] == pytest.approx(total / count(model, xs, ts), rel=1e-9)
    plain = model.evaluate(xs, ts)
    assert {**model.evaluate(xs, ts, weights), "loss": 0} == pytest.approx({**plain, "loss": 0})  # metrics without
    assert model.evaluate(xs, ts, np.full(N, 2.0))["loss"] == pytest.approx(2 * plain["loss"])


@weighted
def test_the_gradient_is_that_of_the_weighted_loss(name: str) -> None:
    make, data, weights = WEIGHTED[name]
    model = make()

    def loss(**params: Any) -> float:
        model.set_weights(params, "the test")
        return model.forward(*data, weights)  # type: ignore[call-arg]

    at = {name: param.copy() for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, {name: grad.copy() for name, grad in zip(at, model.grads, strict=True)})


@weighted
def test_weights_travel_with_their_rows(name: str) -> None:
    """Whole numbers as weights are rows that stand there so often, where the mean is over the same count."""
    make, (xs, ts), _ = WEIGHTED[name]
    times = np.array([1, 3, 2, 1, 2, 3])
    repeated = np.repeat(np.arange(N), times)
    results = []
    for data, weights in (((xs, ts), times), ((xs[repeated], ts[repeated]), None)):
        model: Any = make()
        # A step over all rows: the sum of the weights does not divide, so the learning rate does.
        lr = 0.1 * (count(model, xs, ts) / count(model, xs[repeated], ts[repeated]) if weights is not None else 1)
        model.fit(*data, sample_weight=weights, optimizer=optim.SGD(lr), batch_size=99, verbose=0)
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@weighted
def test_shuffled_and_sharded_trainings_have_the_bits_of_one_worker(name: str) -> None:
    make, data, weights = WEIGHTED[name]

    def work(workers: ThreadWorkers | None) -> Any:
        model = make()
        lengths = (None,) if name.startswith(("classifier", "tagger", "series")) else ()
        held_out = {"validation_data": (*data, *lengths, weights)}
        fitted: Any = {"epochs": 2, "batch_size": 4, "verbose": 0, "sample_weight": weights, **held_out}
        return model.fit(*data, workers=workers, shards=3, **fitted).history, bits(model)

    wanted = work(None)
    assert wanted[0]["val_loss"] != wanted[0]["loss"]
    for n in (2, 3):
        assert on_workers(n, work) == [wanted] * n


def test_class_weights_are_the_weights_of_their_rows() -> None:
    by_class, by_row = make(), make()
    by_class.fit(XS, IGNORING, class_weight={0: 2.0, 2: 0.25}, epochs=2, batch_size=4, verbose=0)
    by_row.fit(XS, IGNORING, sample_weight=[2, 0.25, 7, 1, 1, 2], epochs=2, batch_size=4, verbose=0)
    assert bits(by_class) == bits(by_row)
    named = make()
    named.classes = ["neg", "neutral", "pos"]
    named.fit(XS, IGNORING, class_weight={"neg": 2.0, 2: 0.25}, epochs=2, batch_size=4, verbose=0)
    assert bits(named) == bits(by_row)


def test_class_weights_of_words_that_are_written() -> None:
    xs, ts = ids(N, 5), with_start(ids(N, 3))
    by_class, by_step = (Seq2seq(V, 5, 4, seed=1, dtype="float64") for _ in range(2))
    by_class.fit(xs, ts, class_weight={3: 0.5}, verbose=0)
    by_step.fit(xs, ts, sample_weight=np.where(ts == 3, 0.5, 1), verbose=0)
    assert bits(by_class) == bits(by_step)


def test_validation_split_takes_the_weights_along() -> None:
    model, weights = make(), np.array([1, 1, 1, 1, 5, 0.5])
    history = model.fit(XS, IGNORING, sample_weight=weights, validation_split=0.34, optimizer="sgd", verbose=0).history
    assert history["val_loss"] == [model.evaluate(XS[4:], IGNORING[4:], weights[4:])["loss"]]
    # Class weights are for learning.
    history = model.fit(XS, IGNORING, class_weight={0: 3}, validation_split=0.34, optimizer="sgd", verbose=0).history
    assert history["val_loss"] == [model.evaluate(XS[4:], IGNORING[4:])["loss"]]


def test_a_weight_of_zero_is_no_row() -> None:
    with_zero, without = make(), make()
    weights = np.array([1, 0, 1, 1, 0, 1.0])
    kept = weights > 0
    with_zero.fit(XS, IGNORING, sample_weight=weights[:, None], optimizer=optim.SGD(0.1 * 5 / 3), verbose=0)
    without.fit(XS[kept], IGNORING[kept], optimizer=optim.SGD(0.1), verbose=0)
    for one, other in zip(with_zero.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


class Unweighted(SequenceRegressor):
    """A model of one's own that was written before there were weights."""

    def forward(self, xs: Any, ts: Any, *, training: bool = True, reduction: Any = "mean") -> float:  # type: ignore[override]
        return super().forward(xs, ts, training=training, reduction=reduction)


class UnweightedClasses(SequenceClassifier):
    """Another."""

    def forward(self, xs: Any, ts: Any, **how: Any) -> float:  # type: ignore[override]
        return super().forward(xs, ts, **how)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(5)}, r"sample_weight has shape \(5,\), expected a number a row, \(6,\)"),
        ({"sample_weight": [1, 1, np.nan, 1, 1, 1]}, "sample_weight holds nan, expected finite numbers"),
        ({"sample_weight": ["a"] * 6}, "sample_weight has dtype <U1, expected numbers"),
        ({"class_weight": {0: 1}, "sample_weight": np.ones(6)}, "sample_weight and class_weight are both given"),
        ({"class_weight": {3: 1.0}}, "class_weight has the class 3, expected 0 to 2"),
        ({"class_weight": {"good": 1.0}}, "class_weight has the class 'good'; the model's classes have no names"),
        ({"class_weight": {0: np.inf}}, r"class_weight\[0\] is inf, expected a finite number"),
        ({"class_weight": [1, 2, 3]}, "class_weight is list .*expected a dictionary such as"),
        ({"class_weight": {0.5: 1}}, r"a class of class_weight is float 0\.5"),
        ({"steps_per_epoch": 2}, "steps_per_epoch is 2, but xs holds rows"),
        ({"validation_data": (XS, IGNORING, None, np.ones(5))}, r"sample_weight has shape \(5,\)"),
        ({"validation_data": (XS, IGNORING, np.ones(6))}, r"expected integers; weights stand fourth"),
        ({"validation_data": (XS, IGNORING, None, None, None)}, "validation_data has 5 entries"),
        ({"initial_epoch": -1}, "initial_epoch is -1, expected at least 0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    model = make()
    before = bits(model)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(XS, IGNORING, verbose=0, **options)
    assert bits(model) == before


def test_models_without_classes_or_weights_say_so() -> None:
    xs, ts = regressor()[1](4)
    with pytest.raises(ValueError, match="SequenceRegressor knows no classes that class_weight could weigh"):
        regressor()[0]().fit(xs, ts, class_weight={0: 1.0})
    with pytest.raises(TypeError, match="forward of Unweighted takes no sample_weight"):
        Unweighted(2, 5, 2).fit(xs, ts, sample_weight=np.ones(4))
    Unweighted(2, 5, 2).fit(xs, ts, verbose=0)
    with pytest.raises(TypeError, match="forward of UnweightedClasses takes no sample_weight"):
        UnweightedClasses(V, 5, 4, 3).fit(XS, IGNORING, class_weight={0: 1.0})
    with pytest.raises(ValueError, match="validation_data has 4 entries"):
        regressor()[0]().fit(xs, ts, validation_data=(xs, ts, np.ones(4), None))


# --------------------------------------------------------------------------------------------
# Targets as people have them
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda ts: ts[:, None],
        lambda ts: ts.astype(np.float32),
        lambda ts: ts.astype(float)[:, None],
        lambda ts: ts.astype(bool),
        lambda ts: [bool(t) for t in ts],
        lambda ts: [float(t) for t in ts],
        lambda ts: ts.astype(np.uint8),
        lambda ts: np.eye(2)[ts],
    ],
)
def test_binary_targets(convert: Callable[[Any], Any]) -> None:
    ts = np.array([0, 1, 1, 0, 1, 0])
    model, other = (SequenceClassifier(V, 5, 4, 2, seed=1) for _ in range(2))
    history = model.fit(XS, ts, metrics=["accuracy"], verbose=0).history
    assert other.fit(XS, convert(ts), metrics=["accuracy"], verbose=0).history == history
    assert bits(model) == bits(other)
    assert other.evaluate(XS, convert(ts)) == model.evaluate(XS, ts)


class Column:
    """As a column of pandas comes: it becomes an array when somebody asks."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __array__(self, *_: Any, **__: Any) -> Any:
        return np.array(self._values, object)

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize(
    "convert", [list, np.array, lambda ts: np.array(ts)[:, None], lambda ts: [[name] for name in ts], Column]
)
def test_targets_that_are_names(convert: Callable[[Any], Any]) -> None:
    ts = ["no", "yes", "yes", "no", "yes", "no"]
    model, other = (SequenceClassifier(V, 5, 4, 2, seed=1) for _ in range(2))
    model.fit(XS, [int(t == "yes") for t in ts], verbose=0)
    other.fit(XS, convert(ts), verbose=0)
    assert other.classes == ["no", "yes"]
    assert bits(model) == bits(other)


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf, 2.0**60])
def test_targets_that_are_no_whole_numbers(wrong: float) -> None:
    with pytest.raises(TypeError, match="ts has dtype float64, expected integer classes"):
        make().fit(XS, [0.0, 1, 1, 0, 1, wrong])


@pytest.mark.parametrize(
    "convert", [lambda ts: ts[:, 0], lambda ts: [bool(t) for t in ts], lambda ts: ts.astype(np.int8)]
)
def test_numbers_to_learn(convert: Callable[[Any], Any]) -> None:
    xs, ts = rng.standard_normal((N, 3, 2)), np.array([[0], [1], [1], [0], [1], [0]])
    model, other = (SequenceRegressor(2, 5, 1, seed=1) for _ in range(2))
    assert model.fit(xs, ts, verbose=0).history == other.fit(xs, convert(ts), verbose=0).history
    assert other.predict(xs).shape == (N, 1)
    with pytest.raises(ValueError, match=r"ts has shape \(6,\), expected \(examples, 2\)"):
        SequenceRegressor(2, 5, 2).fit(xs, ts[:, 0])  # nothing is broadcast


# --------------------------------------------------------------------------------------------
# Batches that come one by one
# --------------------------------------------------------------------------------------------


def batches(size: int = 4) -> list[tuple[Any, ...]]:
    return [(XS[i : i + size], IGNORING[i : i + size]) for i in range(0, N, size)]


def endless(given: list[Any]) -> Iterator[Any]:
    while True:
        yield from given


class Loader:
    """As a data loader: it can be read again, and may know its length."""

    def __init__(self, given: list[Any]) -> None:
        self._given = given
        self.times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return iter(self._given)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (lambda: batches(), {}),
        (lambda: Loader(batches()), {}),
        (lambda: (batch for batch in batches() * 3), {"steps_per_epoch": 2}),
        (lambda: endless(batches()), {"steps_per_epoch": 2}),
        (lambda: Loader(batches()), {"steps_per_epoch": 2}),  # begins again at its end
    ],
)
def test_batches_are_learned_as_they_come(given: Callable[[], Any], options: Any) -> None:
    by_rows, by_batches = make(), make()
    wanted = by_rows.fit(XS, IGNORING, epochs=3, batch_size=4, shuffle=False, metrics=["accuracy"], verbose=0)
    history = by_batches.fit(given(), epochs=3, metrics=["accuracy"], verbose=0, **options)
    assert history.history == wanted.history
    assert bits(by_batches) == bits(by_rows)


def test_a_generator_is_read_once_and_no_further_than_needed() -> None:
    read = []

    def generator() -> Iterator[Any]:
        for i, batch in enumerate(batches(1) * 2):
            read.append(i)
            yield batch

    source = generator()
    make().fit(source, epochs=2, steps_per_epoch=3, verbose=0)
    assert len(read) == 6
    assert len(make().fit(source, verbose=0).epoch) == 1  # the rest is one epoch
    assert len(read) == 12


def test_batches_with_weights_and_classes() -> None:
    by_rows, by_batches, by_class = make(), make(), make()
    by_rows.fit(XS, IGNORING, sample_weight=PER_ROW, batch_size=4, shuffle=False, verbose=0)
    by_batches.fit([(*batches()[0], PER_ROW[:4]), (*batches()[1], PER_ROW[4:])], verbose=0)
    assert bits(by_rows) == bits(by_batches)
    by_rows.fit(XS, IGNORING, class_weight={0: 3}, batch_size=4, shuffle=False, optimizer="sgd", verbose=0)
    by_class.set_weights(by_batches.get_weights())
    by_class.fit(iter(batches()), class_weight={0: 3}, optimizer="sgd", verbose=0)
    assert bits(by_rows) == bits(by_class)


def test_validation_and_evaluation_by_batches() -> None:
    model = make()
    wanted = model.evaluate(XS, IGNORING)
    assert model.evaluate(iter(batches())) == pytest.approx(wanted)
    assert model.evaluate([(*batch, None) for batch in batches()]) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="there are no batches to evaluate"):
        model.evaluate([])
    loader = Loader(batches())
    history = model.fit(batches(), validation_data=loader, epochs=2, verbose=0).history
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(XS, IGNORING)["loss"])
    assert loader.times == 2


def test_workers_read_the_same_batches() -> None:
    def work(workers: ThreadWorkers | None) -> Any:
        model = make()
        loader: Any = Loader(batches())
        return model.fit(
            batches(), epochs=2, workers=workers, shards=3, validation_data=loader, verbose=0
        ).history, bits(model)

    wanted = work(None)
    for n in (2, 3):
        assert on_workers(n, work) == [wanted] * n


def test_the_end_of_a_generator_ends_the_training() -> None:
    model = make()
    with pytest.warns(
        UserWarning, match="no more batches after 1 of epoch 2, where steps_per_epoch is 2 and epochs is 9"
    ):
        history = model.fit(iter(batches(2)), epochs=9, steps_per_epoch=2, verbose=0)
    assert history.epoch == [0, 1]
    with pytest.warns(UserWarning, match="no more batches after 3 of epoch 1"):
        history = model.fit(iter(batches(2)), epochs=2, steps_per_epoch=3, verbose=0)
    assert history.epoch == [0]


def test_an_interrupted_training_on_batches_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    given: Any = batches(2)
    whole, begun, resumed = make(), make(), make()
    history = whole.fit(given, epochs=2, verbose=0).history

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if self.trainer.epoch == 1 and batch == 1:
                self.trainer.callbacks[-1].on_interrupt()
                raise KeyboardInterrupt

    backup = callbacks.BackupAndRestore(tmp_path / "new" / "checkpoint")
    with pytest.raises(KeyboardInterrupt):
        begun.fit(given, epochs=2, callbacks=[Stop(), backup], verbose=0)
    assert resumed.fit(given, epochs=2, callbacks=[backup], verbose=0).history == history
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (iter([]), {}, "there are no batches to train on"),
        ([], {}, "there are no batches to train on"),
        (iter(batches()), {"epochs": 2}, "an iterator, which can be read once, for 2 epochs: give steps_per_epoch="),
        (batches(), {"steps_per_epoch": 0}, "steps_per_epoch is 0, expected at least 1"),
        (batches(), {"sample_weight": PER_ROW}, "sample_weight is given, but xs gives batches"),
        (batches(), {"validation_split": 0.5}, "validation_split is given, but xs gives batches"),
        (batches(), {"bucket_by_length": True}, "bucket_by_length is given, but xs gives batches"),
        (batches(), {"validation_data": iter(batches())}, "validation_data is an iterator, which can be read once"),
        ([XS], {}, r"a batch is an array .*expected \(xs, ts\) or \(xs, ts, sample_weight\)"),
        ([(XS, IGNORING[:2])], {}, "xs has 6 rows and ts 2"),
        ([(XS, IGNORING, np.ones(2))], {}, r"sample_weight has shape \(2,\)"),
        ([(XS, IGNORING, np.ones(6))], {"class_weight": {0: 1}}, "a batch has weights and class_weight is given"),
        (XS, {}, "xs is an array of shape .* and there is no ts; expected both"),
        (
            iter(batches()),
            {"callbacks": [callbacks.BackupAndRestore("never")]},
            "cannot go on with batches that nobody",
        ),
    ],
)
def test_bad_batches(given: Any, options: Any, message: str) -> None:
    model = make()
    before = bits(model)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(given, **{"epochs": 1, "verbose": 0, **options})
    assert bits(model) == before


class Exhausted(Loader):
    """No iterator, and yet it can be read only once."""

    def __iter__(self) -> Iterator[Any]:
        given, self._given = self._given, []
        return iter(given)


def test_what_gives_nothing_when_it_is_read_again() -> None:
    with pytest.raises(ValueError, match="there are no more batches after epoch 1: what was given could be read once"):
        make().fit(Exhausted(batches()), epochs=2, verbose=0)


# --------------------------------------------------------------------------------------------
# Epochs, names and spellings
# --------------------------------------------------------------------------------------------


def test_epochs_go_on_where_the_first_training_ended() -> None:
    whole, parts = make(), make()
    options: dict[str, Any] = {"batch_size": 4, "shuffle": False, "verbose": 0}
    whole.fit(XS, IGNORING, epochs=5, **options)
    optimizer, seen = optim.Adam(), []
    schedule = callbacks.LearningRateScheduler(lambda epoch, lr: seen.append(epoch) or lr)  # type: ignore[func-returns-value]
    first = parts.fit(XS, IGNORING, epochs=2, optimizer=optimizer, callbacks=[schedule], **options)
    then = parts.fit(XS, IGNORING, epochs=5, initial_epoch=2, optimizer=optimizer, callbacks=[schedule], **options)
    assert (first.epoch, then.epoch, seen) == ([0, 1], [2, 3, 4], [0, 1, 2, 3, 4])
    assert bits(parts) == bits(whole)
    assert parts.fit(XS, IGNORING, epochs=2, initial_epoch=2, **options).history == {}


def test_a_training_from_a_later_epoch_is_resumed(tmp_path: Path) -> None:
    backup = callbacks.BackupAndRestore(tmp_path / "checkpoint", delete_checkpoint=False)
    model = make()
    options: dict[str, Any] = {"batch_size": 4, "initial_epoch": 2, "callbacks": backup, "verbose": 0}
    model.fit(XS, IGNORING, epochs=4, **options)
    assert make().fit(XS, IGNORING, epochs=5, **options).epoch == [2, 3, 4]
    with pytest.raises(ValueError, match="initial_epoch was 2, now it is None"):
        make().fit(XS, IGNORING, epochs=5, **{**options, "initial_epoch": 0})


def test_a_text_is_read_once_unless_said_otherwise() -> None:
    model = RNNLM(V, 4, 4)
    assert model.fit(ids(50), verbose=0).epoch == [0]
    assert model.fit(ids(50), epochs=3, initial_epoch=1, verbose=0).epoch == [1, 2]
    words = Word2Vec(V, 4, num_sampled=3)
    assert words.fit(ids(50), subsample=None, verbose=0).epoch == [0]
    assert words.fit(ids(50), subsample=None, epochs=3, initial_epoch=1, verbose=0).epoch == [1, 2]


def test_optimizers_by_keras_names() -> None:
    for name, kind in (("Adam", optim.Adam), ("SGD", optim.SGD), ("RMSprop", optim.RMSprop), ("AdamW", optim.AdamW)):
        assert type(optim.make_optimizer(name)) is kind
    assert type(optim.make_optimizer("Adagrad")) is optim.AdaGrad
    with pytest.raises(ValueError, match="unknown optimizer 'Nadam'; expected one of sgd"):
        optim.make_optimizer("Nadam")
    with pytest.raises(TypeError, match=r"optimizer is type .*Adam.*, expected a name such as 'adam' or an object"):
        optim.make_optimizer(optim.Adam)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [optim.SGD, optim.Momentum, optim.Nesterov, optim.AdaGrad, optim.RMSprop, optim.AdamW])
def test_the_learning_rate_by_its_long_name(kind: Any) -> None:
    optimizer = kind(learning_rate=0.5)
    assert (optimizer.lr, optimizer.learning_rate) == (0.5, 0.5)
    optimizer.learning_rate = 0.25
    assert optimizer.lr == 0.25
    assert kind().lr == kind(lr=None).lr > 0
    with pytest.raises(TypeError, match="lr and learning_rate are the same; give one of them"):
        kind(lr=0.1, learning_rate=0.1)
    with pytest.raises(ValueError, match="lr is -1"):
        kind(learning_rate=-1)


def test_metrics_by_keras_names() -> None:
    model = make()
    history = model.fit(XS, IGNORING, metrics=["acc", "accuracy"], validation_split=0.5, verbose=0).history
    assert list(history) == ["loss", "acc", "accuracy", "val_loss", "val_acc", "val_accuracy"]
    assert history["acc"] == history["accuracy"]
    xs, ts = regressor()[1](6)
    numbers = regressor()[0]()
    got = numbers.evaluate(xs, ts, metrics=["mse", "mae", "mean_squared_error", "mean_absolute_error"])
    assert got["mse"] == got["mean_squared_error"] == pytest.approx(got["loss"])
    assert got["mae"] == got["mean_absolute_error"]
    assert list(numbers.evaluate(xs, ts)) == ["loss", "mae"]
    assert numbers.evaluate(xs, ts, 2 * np.ones(6), metrics=["mse"])["mse"] == pytest.approx(got["mse"])
    with pytest.raises(ValueError, match="unknown metric 'acc'; SequenceRegressor has loss, mae, mse"):
        numbers.fit(xs, ts, metrics=["acc"])


def test_evaluation_and_prediction_as_keras_calls_them(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = make()
    result = model.evaluate(XS, IGNORING, batch_size=2, verbose=0, return_dict=True)
    assert capsys.readouterr() == ("", "")
    loss, accuracy = model.evaluate(XS, IGNORING, batch_size=2, metrics=["accuracy"], verbose=2, return_dict=False)
    assert (loss, accuracy) == (result["loss"], result["accuracy"])
    assert capsys.readouterr() == (f"loss {loss:.4f}  accuracy {accuracy:.4f}\n", "")
    model.evaluate(XS, IGNORING, batch_size=2, verbose=1)
    out, err = capsys.readouterr()
    assert out.startswith("loss ")
    assert "3/3" in err
    with pytest.raises(ValueError, match="verbose is 3, expected 0, 1, 2 or 'auto'"):
        model.evaluate(XS, IGNORING, verbose=3)
    text: Any = RNNLM(V, 4, 4)
    assert text.evaluate(ids(50), verbose=0, return_dict=False) == list(text.evaluate(ids(50)).values())


def test_weights_as_a_list() -> None:
    model, other = make(), SequenceClassifier(V, 5, 4, 3, seed=8)
    weights: list[Any] = model.get_weights()
    assert [array.shape for array in weights] == [param.shape for param in model.params]
    weights[0][:] = 0
    assert model.params[0].any()  # they are copies
    other.set_weights(weights)  # of another dtype
    np.testing.assert_array_equal(other.get_weights()[1], weights[1].astype(np.float32))
    before = bits(model)
    with pytest.raises(ValueError, match="the list of weights has 2 arrays, expected 6: embedding.W, lstm.Wx"):
        model.set_weights(weights[:2])
    with pytest.raises(ValueError, match=r"lstm.Wx has shape \(2,\)"):
        model.set_weights([weights[0], [1.0, 2.0], *weights[2:]])
    with pytest.raises(TypeError, match=r"output.b has dtype <U1, expected numbers"):
        model.set_weights([*weights[:-1], ["a", "b", "c"]])
    assert bits(model) == before


# --------------------------------------------------------------------------------------------
# Callbacks
# --------------------------------------------------------------------------------------------


def test_one_callback_needs_no_list_and_none_is_none() -> None:
    make().fit(XS, IGNORING, callbacks=None, verbose=0)
    stopped = make().fit(XS, IGNORING, epochs=9, callbacks=callbacks.EarlyStopping("loss", min_delta=9), verbose=0)
    assert len(stopped.epoch) < 9
    given = (callback for callback in [callbacks.EarlyStopping("loss", min_delta=9)])
    assert len(make().fit(batches(), epochs=9, callbacks=given, verbose=0).epoch) < 9  # type: ignore[arg-type]


lambda_callback: Any = callbacks.LambdaCallback


def callback(**methods: Any) -> callbacks.Callback:
    kind: Any = type("Own", (callbacks.Callback,), methods)
    return kind()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (callback(on_epoch_ends=lambda self, epoch, logs: None), "Own.on_epoch_ends is never called: is on_epoch_end"),
        (callback(on_batch_end=lambda self, batch, logs: None), "is never called: is on_train_batch_end meant"),
        (callback(on_xyz=lambda self: None), "Own.on_xyz is never called: there are on_train_begin, on_train_end"),
        (
            callback(on_train_begin=lambda self, logs: None),
            r"Own.on_train_begin\(logs\) is called with \(\); give logs a default: logs=None",
        ),
        (callback(on_epoch_end=lambda self, epoch: None), r"Own.on_epoch_end\(epoch\) is called with \(epoch, logs\)"),
        (lambda_callback(on_epoch_end=lambda logs: None), r"LambdaCallback.on_epoch_end\(logs\) is called with"),
        (callbacks.EarlyStopping("val_acuracy"), "watches 'val_acuracy', but the training has only loss, accuracy"),
        (callbacks.ReduceLROnPlateau("val_los"), "watches 'val_los'"),
        (callbacks.ModelCheckpoint("x/{val_loss}"), "filepath is 'x/{val_loss}', but the training has only"),
    ],
)
def test_mistakes_are_found_before_the_first_epoch(wrong: Any, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model, begun = make(), []
    before = bits(model)
    first = callbacks.TerminateOnNaN()
    first.on_train_begin = lambda: begun.append(1)  # type: ignore[method-assign]
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(XS, IGNORING, metrics=["accuracy"], callbacks=[first, wrong], verbose=0)
    assert bits(model) == before
    assert not begun
    assert not list(tmp_path.iterdir())


def test_hooks_as_keras_users_write_them() -> None:
    calls = []

    class Own(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            calls.append(logs)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            calls.append((epoch, logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            calls.append((epoch, sorted(logs)))

    make().fit(XS, IGNORING, callbacks=[Own()], verbose=0)
    assert calls == [None, (0, None), (0, ["loss"])]


def test_a_schedule_by_the_epoch_alone() -> None:
    optimizer = optim.SGD(1.0)
    schedule = callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))
    make().fit(XS, IGNORING, epochs=2, optimizer=optimizer, callbacks=[schedule], verbose=0)
    assert optimizer.lr == 0.05
    with pytest.raises(TypeError, match=r"schedule is float 0\.1, expected a function"):
        callbacks.LearningRateScheduler(0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"schedule\(\) is called with \(epoch, lr\), or with \(epoch\)"):
        callbacks.LearningRateScheduler(lambda: 0.1)


def test_callbacks_make_the_folders_they_write_to(tmp_path: Path) -> None:
    written = [
        callbacks.CSVLogger(tmp_path / "a" / "b" / "history.csv"),
        callbacks.ModelCheckpoint(tmp_path / "c" / "{epoch}" / "d" / "model"),
        callbacks.TensorBoard(tmp_path / "e" / "f"),
        callbacks.BackupAndRestore(tmp_path / "g" / "h" / "checkpoint", delete_checkpoint=False),
    ]
    make().fit(XS, IGNORING, callbacks=written, verbose=0)
    for name in ("a/b/history.csv", "c/1/d/model", "e/f/train", "g/h/checkpoint"):
        assert (tmp_path / name).exists(), name


def test_a_prediction_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    series, pairs = regressor()[1](4)[0], seq2seq()[1](4)
    for predict in (
        lambda **how: make().predict(XS[:4], **how),
        lambda **how: regressor()[0]().predict(series, **how),  # type: ignore[attr-defined]
        lambda **how: seq2seq()[0]().predict(*pairs, **how),  # type: ignore[attr-defined]
    ):
        predict(verbose=0, batch_size=2)
        assert capsys.readouterr() == ("", "")
        predict(verbose=1, batch_size=2)
        assert "2/2" in capsys.readouterr().err
