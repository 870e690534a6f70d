"""Rows of different lengths, and what all models take for padding."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from fastlstm.datasets import pad_sequences
from fastlstm.models import Seq2seq, SequenceClassifier

ROWS = [[3, 1], [], [2, 4, 5]]


def test_shorter_rows_are_filled_up() -> None:
    np.testing.assert_array_equal(pad_sequences(ROWS), [[3, 1, -1], [-1, -1, -1], [2, 4, 5]])
    np.testing.assert_array_equal(pad_sequences(ROWS, value=0, padding="pre"), [[0, 3, 1], [0, 0, 0], [2, 4, 5]])
    assert pad_sequences(ROWS).dtype == np.int64
    assert pad_sequences([np.array(row, np.int32) for row in ROWS]).dtype == np.int32
    assert pad_sequences([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([[1], [[2]]], {}, ValueError, r"rows\[1\] has shape \(1, 1\), expected one axis of ids"),
        ([[1], [0.5]], {}, TypeError, r"rows\[1\] has dtype float64, expected integer ids"),
        ([[1, -1]], {}, IndexError, r"rows\[0\] holds -1; ids start at 0"),
        ([[2**63]], {}, IndexError, r"rows\[0\] holds 9223372036854775808, expected 0 to"),
        ([[1]], {"padding": "both"}, ValueError, "padding is 'both', expected one of 'post', 'pre'"),
        ([[1]], {"value": -2}, ValueError, "value is -2"),
    ],
)
def test_rows_that_are_none(rows: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pad_sequences(rows, **options)


def test_a_word_with_the_id_of_the_padding_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"rows\[1\] holds 0, with which shorter rows are padded"):
        pad_sequences([[1], [2, 0]], value=0)


@pytest.mark.parametrize("padding", ["post", "pre"])
def test_all_models_take_minus_one_for_padding(padding: Any) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, length).tolist() for length in (4, 2, 3, 1)]
    padded = pad_sequences(rows, padding=padding)
    classifier = SequenceClassifier(9, 3, 4, 2, seed=0, dtype="float64")
    np.testing.assert_array_equal(classifier.predict(padded), classifier.predict(rows))
    ts = np.tile([[1, 5, 7]], (4, 1))
    for options in ({}, {"attention": True}, {"bidirectional": True, "reverse_source": True}):
        model = Seq2seq(9, 3, 4, seed=0, dtype="float64", **options)
        with_pad_id = Seq2seq(9, 3, 4, seed=0, dtype="float64", pad_id=0, **options)
        singly = np.concatenate([model.generate(np.array([row]), 1, 5) for row in rows])
        zeros = pad_sequences(rows, value=0, padding=padding)
        for one, xs in ((model, padded), (with_pad_id, padded), (with_pad_id, zeros)):
            np.testing.assert_array_equal(one.generate(xs, 1, 5), singly)
        assert model.evaluate(padded, ts) == pytest.approx(with_pad_id.evaluate(zeros, ts))
        fitted = [
            one.fit(xs, ts, epochs=2, batch_size=2, verbose=0).history["loss"]
            for one, xs in ((model, padded), (with_pad_id, zeros))
        ]
        np.testing.assert_allclose(fitted[0], fitted[1], rtol=1e-12)


def test_zeros_that_look_like_padding_are_warned_about() -> None:
    xs = np.array([[5, 3, 0, 0], [1, 2, 4, 0], [7, 0, 0, 0], [2, 1, 3, 4]])
    model = SequenceClassifier(9, 3, 4, 2, seed=0)
    with pytest.warns(UserWarning, match="begin or end with 0, as Keras pads, and 0 is a word here"):
        model.predict(xs)
    with pytest.warns(UserWarning, match="and 0 is a word here"):
        Seq2seq(9, 3, 4, seed=0).generate(xs[:, ::-1], 1, 2)
    model.vocabulary = ["<pad>", *map(str, range(1, 9))]
    with pytest.warns(UserWarning, match="and 0 is a word here"):
        model.predict(xs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(xs, lengths=np.array([2, 3, 1, 4]))
        model.predict(np.where(xs == 0, -1, xs))
        Seq2seq(9, 3, 4, pad_id=0, seed=0).generate(xs, 1, 2)
        model.vocabulary = [" ", *map(str, range(1, 9))]  # the book pads with a blank, which is a symbol
        model.predict(xs)
