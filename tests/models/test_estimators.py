"""SequenceClassifier and SequenceRegressor in the hands of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.models import SequenceClassifier, SequenceRegressor

NAMES = ["bad", "good", "so so"]


def texts(N: int = 30) -> tuple[Any, Any]:
    """The class is the id that a text begins with."""
    ts = np.arange(N) % 3
    return np.concatenate([np.repeat(ts[:, None], 3, axis=1), np.full((N, 1), -1)], axis=1), ts


def series(N: int = 30) -> tuple[Any, Any]:
    xs = np.random.default_rng(0).standard_normal((N, 4, 2))
    return xs, np.stack([xs[:, -1, 0], -xs[:, -1, 1]], axis=1)


def classifier(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(4, 6, 6, 3, seed=0, **options)


def test_parameters_are_read_and_set() -> None:
    model = classifier(dropout=0.25)
    xs, ts = texts()
    model.fit(xs, ts, verbose=0)
    assert model.get_params() == model.options
    trained = model.params
    assert model.set_params() is model
    assert model.params is trained
    with pytest.raises(ValueError, match="unknown parameters deep; SequenceClassifier has vocab_size, wordvec_size"):
        model.set_params(deep=3)
    with pytest.raises(ValueError, match="hidden_size is 0"):
        model.set_params(dropout=0.5, hidden_size=0)
    assert model.params is trained
    assert model.set_params(dropout=0.5, hidden_size=7) is model
    made = SequenceClassifier(4, 6, 7, 3, seed=0, dropout=0.5)
    assert model.options == made.options
    for param, want in zip(model.params, made.params, strict=True):
        np.testing.assert_array_equal(param, want)
    model.fit(xs, ts, epochs=2, verbose=0)
    made.fit(xs, ts, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.predict(xs), made.predict(xs))


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, object)])
def test_targets_may_be_names(kind: Any) -> None:
    xs, ts = texts()
    names = kind([NAMES[t] for t in ts])
    model, numbers = classifier(), classifier()
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    history = model.fit(xs, names, epochs=3, validation_data=(xs, names), verbose=0)
    assert model.classes == NAMES
    np.testing.assert_array_equal(model.classes_, NAMES)
    same = numbers.fit(xs, ts, epochs=3, validation_data=(xs, ts), verbose=0)
    assert history.history == same.history
    assert model.score(xs, names) == numbers.score(xs, ts) == np.mean(numbers.predict_classes(xs) == ts)
    np.testing.assert_array_equal(model.classes_[model.predict_classes(xs)] == names, numbers.predict_classes(xs) == ts)


def test_names_that_do_not_fit() -> None:
    xs, ts = texts()
    model = classifier()
    names = [NAMES[t] for t in ts]
    with pytest.raises(ValueError, match="ts holds names such as 'bad', but the model's classes have none"):
        model.evaluate(xs, names)
    with pytest.raises(ValueError, match="classes has 2 names, expected 3"):
        model.fit(xs[:2], names[:2], verbose=0)
    with pytest.raises(ValueError, match="xs has 30 rows and ts 29"):
        model.fit(xs, names[:-1], verbose=0)
    assert model.classes is None
    model.classes = NAMES
    with pytest.raises(ValueError, match="ts holds 'worse', expected one of the model's classes: bad, good, so so"):
        model.fit(xs, [*names[:-1], "worse"], verbose=0)


def test_score_of_a_regressor_is_r2() -> None:
    xs, ts = series()
    model = SequenceRegressor(2, 5, 2, seed=0)
    errors = ((model.predict(xs) - ts) ** 2).sum(axis=0)
    assert model.score(xs, ts) == pytest.approx(np.mean(1 - errors / ((ts - ts.mean(axis=0)) ** 2).sum(axis=0)))
    constant = np.zeros_like(ts)
    assert model.score(xs, constant) == 0
    for param in model.params[-2:]:
        param[...] = 0
    assert model.score(xs, constant) == 1
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    assert model.score(xs, ts) == pytest.approx(metrics.r2_score(ts, model.predict(xs)))


def test_scikit_learn_clones_and_cross_validates() -> None:
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    for model in (classifier(dropout=0.1, dtype="float64"), SequenceRegressor(2, 5, 2)):
        copy = base.clone(model)
        assert copy.options == model.options
        assert base.is_classifier(copy) is isinstance(model, SequenceClassifier)
        assert base.is_regressor(copy) is isinstance(model, SequenceRegressor)
    xs, ts = texts()
    names = np.array(NAMES)[ts]
    how = {"epochs": 60, "batch_size": 4, "verbose": 0}
    scores = selection.cross_val_score(classifier(), xs, names, cv=3, params=how)
    assert scores.shape == (3,)
    assert scores.min() > 0.9
    scores = selection.cross_val_score(
        SequenceRegressor(2, 8, 2, seed=0), *series(), cv=2, params={**how, "epochs": 150}
    )
    assert scores.min() > 0.1
    assert selection.cross_val_score(classifier(), xs, ts, cv=2).shape == (2,)
    search = selection.GridSearchCV(classifier(), {"hidden_size": [3, 6]}, cv=2)
    search.fit(xs, names, epochs=2, verbose=0)
    assert search.best_params_["hidden_size"] in (3, 6)
