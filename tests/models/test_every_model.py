"""What holds for every model: copies, targets that do not count, numbers out of range, sizes beyond the data, names."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import MAKERS, V, classifier, ids, regressor, rnnlm, seq2seq, word2vec

import fastlstm
from fastlstm import callbacks
from fastlstm.models import RNNLM, Model, Seq2seq, SequenceClassifier, SequenceRegressor, Word2Vec
from fastlstm.tensor_file import write_tensor_file

ONE_OF_EACH = {
    "rnnlm": rnnlm(),
    "seq2seq": seq2seq(pad_id=0),
    "classifier": classifier(),
    "regressor": regressor(),
    "word2vec": word2vec(loss="negative_sampling"),
}


def fit(model: Model, data: tuple[Any, ...], arguments: dict[str, Any], **changed: Any) -> dict[str, list[float]]:
    return model.fit(*data, **{**arguments, "verbose": 0, **changed}).history


def weights(model: Model) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# Copies
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_copy_goes_on_as_its_model_would(kind: str, copied: Callable[[Model], Model]) -> None:
    make, data, arguments = MAKERS[kind]
    model = make()
    seen = []
    keep = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(copied(model)))
    fit(model, data(9), arguments, callbacks=[keep])
    assert weights(seen[-1]) == weights(model)
    model.evaluate(*data(9))
    if isinstance(model, RNNLM):
        model.generate(1, 3)
    elif isinstance(model, Seq2seq):
        model.generate(data(9)[0], 1, 3, beam=2)
    elif isinstance(model, Word2Vec):
        model.most_similar("1", 2)
    elif isinstance(model, SequenceClassifier):
        model.predict(data(9)[0])
    other = copied(model)
    for one in (model, other):
        fit(one, data(9), arguments)
    assert weights(other) == weights(model)
    assert other.evaluate(*data(9)) == model.evaluate(*data(9))


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if "word2vec" not in kind])
def test_training_in_bf16_goes_beside_the_one_in_float32(kind: str) -> None:
    make, data, options = MAKERS[kind]

    def losses(precision: Any) -> Any:
        model = make()
        model = type(model)(**{**model.options, "dtype": "float32"}).to("cpu", precision=precision)
        return model.fit(*data(12), verbose=0, **options).history["loss"]

    exact, rounded = losses(None), losses("bf16")
    assert exact != rounded
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


def test_a_copy_does_not_know_the_last_forward_call() -> None:
    make, data, arguments = MAKERS["classifier"]
    model = make()
    fit(model, data(4), arguments)
    with pytest.raises(TypeError, match="tape is None; call lstm_forward"):
        copy.deepcopy(model).backward()


# --------------------------------------------------------------------------------------------
# What is right, and what counts
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["rnnlm", "seq2seq", "classifier"])
def test_a_model_without_probabilities_is_right_about_nothing(kind: str, broken: float) -> None:
    make, data, _ = ONE_OF_EACH[kind]
    model = make()
    model.params[-1][...] = broken  # the bias of the output layer
    xs, *ts = data(5)
    zeros = [np.zeros_like(t) for t in ts] if kind == "classifier" else ts
    scores = model.evaluate(xs, *zeros)
    assert math.isnan(scores.pop("loss"))
    for name, right in {"accuracy": 0.0, "token_accuracy": 0.0, "error": 1.0}.items():
        assert scores.get(name, right) == right


def test_an_accuracy_does_not_keep_the_weights_of_a_model_of_nan() -> None:
    xs, ts = ids(12, 4), np.zeros(12, np.int64)
    model = SequenceClassifier(V, 3, 3, 2, seed=0)

    def break_weights(epoch: int) -> None:
        if epoch == 2:
            model.params[-1][...] = np.nan

    keep = callbacks.EarlyStopping("accuracy", patience=5, restore_best_weights=True)
    fit_options: dict[str, Any] = {"metrics": ("accuracy",), "verbose": 0, "epochs": 4, "batch_size": 4}
    breaking = callbacks.LambdaCallback(on_epoch_begin=break_weights)
    history = model.fit(xs, ts, callbacks=[breaking, keep], **fit_options).history
    assert history["accuracy"][1] > 0.0
    assert history["accuracy"][2:] == [0.0, 0.0]
    assert all(np.isfinite(param).all() for param in model.params)


@pytest.mark.parametrize(
    ("kind", "nothing", "message"),
    [
        ("rnnlm", (np.zeros((0, 3), int), np.zeros((0, 3), int)), "there are no rows to evaluate"),
        (
            "rnnlm",
            (np.zeros((2, 0), int), np.zeros((2, 0), int)),
            r"there are no targets to evaluate: none of ts, .*2, 0",
        ),
        ("rnnlm", (ids(2, 3), np.full((2, 3), -1)), "there are no targets to evaluate"),
        ("rnnlm", (ids(2, 3), np.zeros((2, 3, V))), "there are no targets to evaluate"),
        ("seq2seq", (np.zeros((0, 3), int), np.zeros((0, 3), int)), "there are no rows to evaluate"),
        ("seq2seq", (ids(2, 3), [[1, 0, -1], [1, -1, 0]]), "there are no targets to evaluate"),
        ("classifier", ([], []), "there are no rows to evaluate"),
        ("classifier", ([[1], [2]], [-1, -1]), "there are no targets to evaluate"),
        ("classifier", ([[1], [2]], np.zeros((2, 3))), "there are no targets to evaluate"),
        ("regressor", (np.zeros((0, 3, 2)), np.zeros((0, 2))), "there are no rows to evaluate"),
        ("word2vec", ([], []), "there are no rows to evaluate"),
    ],
)
def test_the_mean_of_nothing_is_no_number(kind: str, nothing: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ONE_OF_EACH[kind][0]().evaluate(*nothing)


@pytest.mark.parametrize("kind", ["seq2seq", "classifier"])
def test_targets_that_do_not_count_are_known_before_the_training(kind: str) -> None:
    make, data, arguments = ONE_OF_EACH[kind]
    model = make()
    before = weights(model)
    xs, ts = data(5)
    with pytest.raises(ValueError, match="there are no targets to train on"):
        fit(model, (xs, np.full_like(ts, -1)), arguments)
    with pytest.raises(ValueError, match="there are no targets to validate on"):
        fit(model, (xs, ts), arguments, validation_data=(xs, np.full_like(ts, -1)))
    assert weights(model) == before


def test_a_batch_in_which_nothing_counts_does_not_end_the_training() -> None:
    xs, ts = ids(4, 3), np.array([-1, -1, 1, 0])
    guard = callbacks.TerminateOnNaN()
    model = SequenceClassifier(V, 3, 3, 2, seed=0)
    seen = []
    watch = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    history = model.fit(xs, ts, epochs=2, batch_size=2, shuffle=False, callbacks=[guard, watch], verbose=0).history
    assert guard.message is None
    assert [math.isnan(loss) for loss in seen] == [True, False, True, False]
    assert np.isfinite(history["loss"]).all()


def test_an_epoch_without_pairs_has_no_loss() -> None:
    words = np.array([0, 1] * 10)
    model = Word2Vec(2, 3, num_sampled=1, seed=3)
    history = model.fit(words, epochs=40, batch_size=4, subsample=1e-3, verbose=0).history["loss"]
    without = [math.isnan(loss) for loss in history]
    assert any(without)
    assert not all(without)
    assert 0.0 not in history


# --------------------------------------------------------------------------------------------
# Ids, and sizes beyond the data
# --------------------------------------------------------------------------------------------

WRONG_IDS: dict[str, tuple[Any, type[Exception], str]] = {
    "uint64": (np.array([1, 2**64 - 1], np.uint64), IndexError, "holds 18446744073709551615, expected (0|-1) to"),
    "just above int64": (np.array([1, 2**63], np.uint64), IndexError, "holds 9223372036854775808, expected (0|-1) to"),
    "uint8": (np.array([1, 255], np.uint8), IndexError, "holds 255, expected (0|-1) to"),
    "int64": (np.array([1, 2**32 + 1]), IndexError, "holds 4294967297, expected (0|-1) to"),
    "negative": (np.array([1, -(2**63)]), IndexError, "holds -9223372036854775808"),
    "floats": (np.array([1.0, 2.5]), TypeError, "has dtype float64, expected integer .*; it holds 1.0"),
    "booleans": (np.array([False, True]), TypeError, "has dtype bool, expected integer .*; it holds False"),
    "a list": ([1, 2**64 - 1], TypeError, "expected integer .*; it holds 18446744073709551615"),
    "a list of larger ones": ([1, 2**70], TypeError, f"has dtype object, expected integer .*; it holds {2**70}"),
}


def batch_of(row: Any) -> Any:
    return [row] if isinstance(row, list) else row[None]


PAIR: Any = [1, 2]
USES: dict[str, Callable[[Any], Any]] = {
    "rnnlm, predict": lambda row: RNNLM(V, 3, 3).predict(batch_of(row)),
    "rnnlm, fit": lambda row: RNNLM(V, 3, 3).fit(row, epochs=1, verbose=0),
    "rnnlm, generate": lambda row: RNNLM(V, 3, 3).generate(row, 2),
    "rnnlm, skip_ids": lambda row: RNNLM(V, 3, 3).generate(1, 2, skip_ids=row),
    "rnnlm, evaluate": lambda row: RNNLM(V, 3, 3).evaluate(row),
    "rnnlm, targets": lambda row: RNNLM(V, 3, 3).evaluate(batch_of(PAIR), batch_of(row)),
    "seq2seq, generate": lambda row: Seq2seq(V, 3, 3).generate(batch_of(row), 0, 2),
    "seq2seq, targets": lambda row: Seq2seq(V, 3, 3).check_batch([[1]], batch_of(row)),
    "classifier": lambda row: SequenceClassifier(V, 3, 3, 2).predict(batch_of(row)),
    "classifier, rows of their own": lambda row: SequenceClassifier(V, 3, 3, 2).predict([[1], row]),
    "classifier, targets": lambda row: SequenceClassifier(V, 3, 3, 2).check_batch([[1], [2]], row),
    "word2vec, predict": lambda row: Word2Vec(V, 3, num_sampled=2).predict(row),
    "word2vec, fit": lambda row: Word2Vec(V, 3, num_sampled=2).fit(row, epochs=1, verbose=0),
    "word2vec, pairs": lambda row: Word2Vec(V, 3, num_sampled=2).evaluate(PAIR, row),
}


@pytest.mark.parametrize("wrong", WRONG_IDS)
@pytest.mark.parametrize("use", USES)
def test_ids_are_looked_at_before_they_are_converted(use: str, wrong: str) -> None:
    row, error, message = WRONG_IDS[wrong]
    if (use, wrong) == ("classifier, targets", "booleans"):
        USES[use](row)  # two classes, as Keras takes them
        return
    if isinstance(row, list) and ("targets" in use or use == "seq2seq, generate"):
        message = message.partition("; it holds")[0]  # of lists that may be one-hot, numpy's numbers are told
    if use == "classifier, rows of their own" and error is IndexError:
        message = message.partition(",")[0]
    with pytest.raises(error, match=message):
        USES[use](row)


@pytest.mark.parametrize("use", USES)
def test_a_mask_is_not_lost_in_silence(use: str) -> None:
    with pytest.raises(TypeError, match="is a masked array"):
        USES[use](np.ma.array([1, 2], mask=[False, True]))


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("method", ["forward", "evaluate"])
def test_no_batch_is_a_masked_array(kind: str, method: str) -> None:
    make, data, _ = ONE_OF_EACH[kind]
    whole = data(4) if len(data(4)) == 2 else (data(4)[0][:6], data(4)[0][1:7])
    if kind == "rnnlm":
        whole = (whole[0][None], whole[1][None])
    for k in range(2):
        batch = list(whole)
        batch[k] = np.ma.array(batch[k], mask=np.arange(batch[k].size).reshape(batch[k].shape) == 1)
        with pytest.raises(TypeError, match="is a masked array"):
            getattr(make(), method)(*batch)


def test_what_stands_behind_a_row_is_not_looked_at() -> None:
    model = SequenceClassifier(V, 3, 3, 2, seed=0)
    xs = np.array([[1, 2, 2**64 - 1], [3, 4, 5]], np.uint64)
    np.testing.assert_array_equal(model.check_sequences(xs, [2, 3]), [[1, 2, -1], [3, 4, 5]])
    with pytest.raises(IndexError, match="xs holds 18446744073709551615"):
        model.check_sequences(xs, [3, 3])


def test_negative_ids_are_no_padding_but_for_one() -> None:
    with pytest.raises(IndexError, match="holds -2"):
        SequenceClassifier(V, 3, 3, 2).forward(np.array([[1, -2]]), np.array([0]))
    with pytest.raises(IndexError, match="holds -2"):
        Seq2seq(V, 3, 3).forward(np.array([[1]]), np.array([[-2, 1]]))
    with pytest.raises(IndexError, match="holds -2"):
        Seq2seq(V, 3, 3).forward(np.array([[1, -2]]), np.array([[1, 1]]))


@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize("kind", MAKERS)
def test_data_that_are_none_are_told(kind: str, method: str) -> None:
    make, data, _ = MAKERS[kind]
    for nothing in (None, 3):
        with pytest.raises((TypeError, ValueError), match="expected"):
            getattr(make(), method)(nothing, *data(3)[1:])


def test_forward_calls_say_what_they_expected() -> None:
    rows, series = ids(2, 4), np.ones((2, 4, 1), np.float32)
    padding = Seq2seq(V, 3, 3, pad_id=0)
    steps = SequenceRegressor(1, 3, 1, return_sequences=True)
    calls: list[tuple[Model, Any, Any, str]] = [
        (RNNLM(V, 3, 3), None, rows, "xs is NoneType"),
        (RNNLM(V, 3, 3), rows[0], rows, r"xs has shape \(4,\), expected two axes"),
        (SequenceClassifier(V, 3, 3, 2), rows[0], [0, 1], r"xs has shape \(4,\), expected two axes"),
        (padding, rows, rows.astype("uint8"), "ts has dtype uint8, expected int32 or int64"),
        (padding, rows, rows[0], r"ts has shape \(4,\), expected two axes"),
        (Seq2seq(V, 3, 3, peeky=True), rows, rows[:1], "xs has 2 rows and ts 1"),
        (steps, series.tolist(), series, "xs is list"),
        (steps, series, series.repeat(2, 1), r"ts has shape \(2, 8, 1\), expected \(2, 4, 1\)"),
        (SequenceRegressor(1, 3, 1, mask_value=0), series[0], series[:, 0], r"xs has shape \(4, 1\), expected 3 axes"),
    ]
    for model, xs, ts, message in calls:
        with pytest.raises((TypeError, ValueError), match=message):
            model.forward(xs, ts)


def test_counts_that_int64_does_not_hold() -> None:
    with pytest.raises(IndexError, match=f"counts holds {2**63}, expected 0 to {2**63 - 1}"):
        Word2Vec(2, 3, num_sampled=1, counts=np.array([1, 2**63], np.uint64))


HUGE = 10**15


@pytest.mark.parametrize("kind", ["rnnlm", "seq2seq", "classifier", "regressor", "word2vec"])
def test_a_batch_beyond_the_data_is_all_of_them(kind: str) -> None:
    make, data, arguments = ONE_OF_EACH[kind]
    largest = {"rnnlm": 9 * 3 + 1, "word2vec": 9 * 8 * 10}.get(kind, 9)
    histories, left = [], []
    for size in (largest, HUGE):
        model = make()
        histories.append(fit(model, data(9), arguments, batch_size=size))
        left.append((weights(model), model.evaluate(*data(9), batch_size=size)))
    assert histories[0] == histories[1]
    assert left[0] == left[1]
    if isinstance(model, (SequenceClassifier, SequenceRegressor)):
        xs = data(9)[0]
        np.testing.assert_array_equal(model.predict(xs, batch_size=HUGE), model.predict(xs, batch_size=9))
    if isinstance(model, SequenceClassifier):
        bucketed = [make() for _ in range(2)]
        for one, size in zip(bucketed, (9, HUGE), strict=True):
            fit(one, data(9), arguments, batch_size=size, bucket_by_length=True)
        assert weights(bucketed[0]) == weights(bucketed[1])
    if isinstance(model, Seq2seq):
        xs, ts = data(9)
        np.testing.assert_array_equal(model.predict(xs, ts, batch_size=HUGE), model.predict(xs, ts, batch_size=9))


@pytest.mark.parametrize("batch_size", [4, HUGE])
def test_pieces_beyond_the_text_are_all_of_it(batch_size: int) -> None:
    text, validation = ids(30), ids(3)
    longest = -(-29 // min(batch_size, 29))
    left = []
    for time_size in (longest, longest + 1, HUGE):
        model = RNNLM(V, 3, 3, seed=0)
        options: dict[str, Any] = {"batch_size": batch_size, "time_size": time_size, "verbose": 0}
        history = model.fit(text, epochs=2, validation_data=validation, **options).history
        left.append((weights(model), history, model.evaluate(text, batch_size=batch_size, time_size=time_size)))
    assert left[0] == left[1] == left[2]


# --------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------


def test_names_become_lists_of_str(tmp_path: Any) -> None:
    model = SequenceClassifier(3, 2, 2, 2)
    assert model.classes is None
    model.classes = np.array(["bad", "good"])  # as of sklearn's LabelEncoder
    model.vocabulary = ("a", np.str_("b"))
    assert (model.classes, model.vocabulary) == (["bad", "good"], ["a", "b"])
    assert {type(name) for name in (*(model.classes or ()), *(model.vocabulary or ()))} == {str}
    model.save(tmp_path / "m.safetensors")
    loaded = SequenceClassifier.load(tmp_path / "m.safetensors")
    assert (loaded.classes, loaded.vocabulary) == (["bad", "good"], ["a", "b"])
    model.classes = None
    assert model.classes is None


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("bg", TypeError, "classes is str 'bg', expected a list of str, one for each id in their order"),
        ({"bad": 0, "good": 1}, TypeError, "classes is dict .*, expected a list of str"),
        ({"bad", "good"}, TypeError, "classes is set .*, expected a list of str"),
        (2, TypeError, "classes is int 2, expected a list of str"),
        (np.array([0, 1]), TypeError, r"classes\[0\] is int64 .*, expected a str: \[str\(name\) for name in classes\]"),
        (["bad", None], TypeError, r"classes\[1\] is NoneType None, expected a str"),
        (np.array([["bad"], ["good"]]), TypeError, r"classes\[0\] is an array of shape \(1,\)"),
        (["bad"], ValueError, r"classes has 1 names, expected 2 \(num_classes = 2\)"),
        (["bad", "so so", "good"], ValueError, r"classes has 3 names, expected 2 \(num_classes = 2\)"),
    ],
)
def test_names_that_are_none(names: Any, error: type[Exception], message: str) -> None:
    model = SequenceClassifier(3, 2, 2, 2)
    model.classes = ["a", "b"]
    with pytest.raises(error, match=message):
        model.classes = names
    assert model.classes == ["a", "b"]


def test_a_list_that_was_changed_after_it_was_set_is_not_saved(tmp_path: Any) -> None:
    """The file could not be loaded."""
    model = SequenceClassifier(3, 2, 2, 2)
    model.classes = ["bad", "good"]
    model.classes.append("so so")
    with pytest.raises(ValueError, match="classes has 3 names, expected 2"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_there_are_no_more_names_than_ids() -> None:
    model = Seq2seq(3, 2, 2, target_vocab_size=2)
    model.vocabulary, model.target_vocabulary = ["a", "b", "c"], ["a"]
    with pytest.raises(ValueError, match=r"vocabulary has 4 names, expected at most 3 \(vocab_size = 3\)"):
        model.vocabulary = list("abcd")
    with pytest.raises(ValueError, match=r"target_vocabulary has 3 names, expected at most 2"):
        model.target_vocabulary = list("abc")
    assert (model.vocabulary, model.target_vocabulary) == (["a", "b", "c"], ["a"])


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_says_which_model_it_holds(kind: str, tmp_path: Path) -> None:
    model = MAKERS[kind][0]()
    model.save(tmp_path / "m")
    loaded = fastlstm.load(tmp_path / "m")
    assert type(loaded) is type(model)
    assert loaded.saved_options == model.saved_options
    assert weights(loaded) == weights(model)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    xs, ts = np.zeros((4, 2), int), np.array([0, 1, 0, 1])
    backup = callbacks.BackupAndRestore(tmp_path / "checkpoint", delete_checkpoint=False)
    model = SequenceClassifier(3, 2, 2, 2)
    model.fit(xs, ts, callbacks=[backup], verbose=0)
    assert weights(fastlstm.load(tmp_path / "checkpoint")) == weights(model)
    write_tensor_file(tmp_path / "other", {}, {"format": 1, "class": "Transformer"})
    write_tensor_file(tmp_path / "list", {}, [1])
    (tmp_path / "text").write_text("a model")
    for name, error, message in (
        ("missing", FileNotFoundError, "missing does not exist"),
        (".", IsADirectoryError, "is a folder, expected a file"),
        ("text", ValueError, "is no safetensors file"),
        ("list", ValueError, "is a fastlstm file, but no model$"),
        (
            "other",
            ValueError,
            "holds a Transformer, expected one of .*RNNLM, .*; a class of your own has",
        ),
    ):
        with pytest.raises(error, match=message):
            fastlstm.load(tmp_path / name)
