"""SequenceTagger: labels of every form, what does not count, accuracy and the F1 of chunks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import callbacks, optim
from fastlstm.models import SequenceTagger
from fastlstm.models.chunks import chunks, count_chunks
from fastlstm.testing import check_gradient

V = 8
CHUNKS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def sentences(N: int = 60) -> tuple[list[list[int]], list[list[str]]]:
    """A name is 1 or 2, a title (3) makes a person of it, a preposition (4) a place; more of them go on with it."""
    rng = np.random.default_rng(0)
    xs: list[list[int]] = []
    ts: list[list[str]] = []
    for _ in range(N):
        ids, labels = [5], ["O"]
        for _ in range(rng.integers(1, 4)):
            kind = int(rng.integers(2))
            ids += [3 + kind, *rng.integers(1, 3, length := int(rng.integers(1, 3))).tolist(), int(rng.integers(5, 8))]
            name = ("PER", "LOC")[kind]
            labels += ["O", f"B-{name}", *[f"I-{name}"] * (length - 1), "O"]
        xs.append(ids)
        ts.append(labels)
    return xs, ts


def learned(**options: Any) -> tuple[SequenceTagger, Any]:
    model = SequenceTagger(V, 8, 12, len(CHUNKS), bidirectional=True, seed=0, **options)
    xs, ts = sentences()
    history = model.fit(
        xs[:45],
        ts[:45],
        epochs=25,
        batch_size=8,
        optimizer=optim.Adam(0.02),
        bucket_by_length=True,
        validation_data=(xs[45:], ts[45:]),
        metrics=("accuracy", "f1"),
        verbose=0,
    )
    return model, history.history


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_names_are_learned_as_names(cell: str, tmp_path: Path) -> None:
    model, history = learned(cell=cell)
    assert model.classes == CHUNKS
    assert list(history) == ["loss", "accuracy", "f1", "val_loss", "val_accuracy", "val_f1"]
    assert history["val_f1"][0] < 0.5 < 0.95 < history["val_f1"][-1]
    xs, ts = sentences()
    scores = model.evaluate(xs, ts)
    assert list(scores) == ["loss", "accuracy", "error", "f1"]
    assert model.score(xs, ts) == scores["accuracy"]
    model.save(tmp_path / "m")
    loaded = fastlstm.load(tmp_path / "m")
    assert isinstance(loaded, SequenceTagger)
    said = loaded.predict_names(xs)
    assert np.mean([a == b for row, want in zip(said, ts, strict=True) for a, b in zip(row, want, strict=True)]) == (
        pytest.approx(scores["accuracy"])
    )
    want = [conlleval(row, wanted) for row, wanted in zip(said, ts, strict=True)]
    right, guessed, gold = (sum(counts) for counts in zip(*want, strict=True))
    assert scores["f1"] == pytest.approx(2 * right / (guessed + gold))


def conlleval(said: list[str], wanted: list[str]) -> tuple[int, int, int]:
    """Chunks found, said and there, by regular expressions over letters: B or I, then all I of the same kind."""

    def spans(labels: list[str]) -> set[tuple[int, int, str]]:
        found = set()
        for kind in {label[2:] for label in labels if label != "O"}:
            letters = "".join(label[0] if label[2:] == kind else "." for label in labels)
            found |= {(*match.span(), kind) for match in re.finditer("[BI]I*", letters)}
        return found

    got, want = spans(said), spans(wanted)
    return len(got & want), len(got), len(want)


def test_chunks_are_those_of_conlleval() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        said, wanted = (list(rng.choice(CHUNKS, 8)) for _ in range(2))
        ids = np.array([[CHUNKS.index(label) for label in row] for row in (said, wanted)])
        right, guessed, gold = conlleval(said, wanted)
        assert count_chunks(ids[:1], ids[1:], CHUNKS) == (2 * right, guessed + gold)
    assert chunks(["S-A", "S-A", "B-A", "I-A", "E-A", "I-A", "O", "E-B"]) == {
        *[("A", 0, 1), ("A", 1, 2), ("A", 2, 5), ("A", 5, 6), ("B", 7, 8)]
    }
    assert chunks(["U-A", "B-A", "L-A", "L-A"]) == {("A", 0, 1), ("A", 1, 3), ("A", 3, 4)}


def test_steps_that_do_not_count_are_left_out() -> None:
    answers, targets = np.array([[0, 2, 4, 1]]), np.array([[0, 2, -1, -1]])
    assert count_chunks(answers, targets, CHUNKS) == (2, 2)
    model = SequenceTagger(V, 3, 4, 3, seed=0)
    xs, ts = np.array([[1, 2, 3, -1], [4, -1, -1, -1]]), np.array([[0, -1, 2, 1], [1, 2, 2, 2]])
    alone = model.evaluate(xs, np.where(xs < 0, -1, ts))
    assert model.evaluate(xs, ts) == alone
    want = [model.predict(xs)[n, t, ts[n, t]] for n, t in ((0, 0), (0, 2), (1, 0))]
    assert alone["loss"] == pytest.approx(-np.mean(np.log(want)), rel=1e-6)
    with pytest.raises(ValueError, match="there are no targets to train on"):
        model.fit(xs, np.full_like(ts, -1), verbose=0)


def test_labels_of_every_form_are_the_same() -> None:
    xs = [[1, 2, 3], [4], [5, 6]]
    names = [["x", "y", "x"], ["z"], ["z", "y"]]
    padded_xs = np.array([[1, 2, 3], [4, -1, -1], [5, 6, -1]])
    ids = np.array([[0, 1, 0], [2, -1, -1], [2, 1, -1]])
    made = []
    for data in (
        (xs, names),
        (padded_xs, names),
        (padded_xs, ids),
        (padded_xs, ids.astype(np.int32)),
        (xs, [[0, 1, 0], [2], [2, 1]]),
        (padded_xs, np.where(ids[..., None] == np.arange(3), 1, 0)),
        (padded_xs, np.array([["x", "y", "x"], ["z", "x", "x"], ["z", "y", "x"]])),
    ):
        model = SequenceTagger(V, 3, 4, 3, seed=0)
        model.classes = ["x", "y", "z"]
        model.fit(*data, epochs=2, batch_size=2, verbose=0)
        made.append(b"".join(param.tobytes() for param in model.params))
    assert set(made) == {made[0]}
    np.testing.assert_array_equal(model.classes_, ["x", "y", "z"])
    np.testing.assert_array_equal(model.predict_classes(xs) < 0, padded_xs < 0)


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (([[1, 2]], [[0]]), {}, ValueError, r"ts\[0\] has 1 classes, but xs\[0\] 2 steps"),
        ((np.array([[1, 2]]), np.array([[0]])), {}, ValueError, r"ts has shape \(1, 1\), expected \(1, 2\)"),
        (([[1, 2]], [[0, 3]]), {}, IndexError, "ts holds 3, expected 0 to 2"),
        (([[1, 2]], [["a", "b"]]), {}, ValueError, "classes has 2 names, expected 3"),
        (([[1, 2]], [["a", 1]]), {}, TypeError, r"ts\[0\] has dtype"),
        (([[1, 2]], [[0, 1], [1]]), {}, ValueError, "xs has 1 rows and ts 2"),
        (([[1, 2]], [0]), {}, ValueError, r"ts has shape \(1,\), expected classes, \(examples, time steps\)"),
        (([[1, 2]], [[0, 1]]), {"metrics": ("f1",)}, ValueError, "f1 is of chunks, .* the model's are numbers"),
    ],
)
def test_labels_that_do_not_fit(data: Any, options: Any, error: type[Exception], message: str) -> None:
    model = SequenceTagger(V, 3, 4, 3)
    with pytest.raises(error, match=message):
        model.fit(*data, verbose=0, **options)
    assert model.classes is None


def test_names_that_the_model_has_not() -> None:
    model = SequenceTagger(V, 3, 4, 3)
    with pytest.raises(ValueError, match="the model's classes have no names"):
        model.predict_names([[1]])
    model.classes = ["a", "b", "c"]
    with pytest.raises(ValueError, match="ts holds 'd', expected one of the model's classes: a, b, c"):
        model.evaluate([[1]], [["d"]])
    with pytest.raises(ValueError, match="the model's are a, b, c. Set model.classes, or take the accuracy"):
        model.evaluate([[1]], [["a"]], metrics=("f1",))
    assert list(model.evaluate([[1]], [["a"]])) == ["loss", "accuracy", "error"]


def test_gradients() -> None:
    model = SequenceTagger(V, 3, 4, 3, num_layers=2, bidirectional=True, cell="rnn", seed=0, dtype="float64")
    xs, ts = model.check_batch([[1, 2, 3], [4], [5, 6]], [[0, 1, 2], [1], [-1, 2]])

    def loss(**params: Any) -> float:
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(xs, ts)

    at = {name: param + 0.3 for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))


def test_an_interrupted_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    xs, ts = sentences(20)
    whole, part, resumed = (SequenceTagger(V, 4, 4, 5, dropout=0.5, num_layers=2, seed=0) for _ in range(3))
    options: dict[str, Any] = {"epochs": 3, "batch_size": 4, "verbose": 0, "metrics": ("f1",)}
    whole.fit(xs, ts, **options)
    backup = callbacks.BackupAndRestore(tmp_path / "checkpoint", delete_checkpoint=False)
    part.fit(xs, ts, **{**options, "epochs": 1}, callbacks=[backup])
    resumed.fit(xs, ts, **options, callbacks=[callbacks.BackupAndRestore(tmp_path / "checkpoint")])
    for got, want in zip(resumed.params, whole.params, strict=True):
        np.testing.assert_array_equal(got, want)
