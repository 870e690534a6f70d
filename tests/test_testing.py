"""The checks themselves: they pass what is right and name what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import recurrent_cases

from fastlstm import contract
from fastlstm.backends import load_family
from fastlstm.testing import Case, check_backend, check_gradient

CASE = next(case for case in recurrent_cases.LSTM if case.name == "H17")


def numpy_lstm() -> Any:
    """The module as it runs: not the definition's, but with its functions on our threads."""
    return load_family("numpy", "lstm")


def _break_float32(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the numpy backend be wrong in float32 only; the definition runs in float64."""
    right = numpy_lstm().lstm_backward

    def backward(saved: Any, **upstream: Any) -> Any:
        grads = right(saved, **upstream)
        return change(grads) if grads.dxs.dtype == np.float32 else grads

    monkeypatch.setattr(numpy_lstm(), "lstm_backward", backward)


def test_check_backend_names_the_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(grads: Any) -> Any:
        grads.dWh[1, 2] += 1e-2
        return grads

    _break_float32(monkeypatch, change)
    with pytest.raises(AssertionError, match=r"lstm_forward-H17 on numpy in float32:\n  dWh\[1, 2\] is .* 1 of 1156"):
        check_backend("numpy", CASE, "float32")


def test_check_backend_sees_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(grads: Any) -> Any:
        grads.dh0[3, 2] = np.nan
        return grads

    _break_float32(monkeypatch, change)
    with pytest.raises(AssertionError, match=r"dh0\[3, 2\] is nan"):
        check_backend("numpy", CASE, "float32")


def test_check_backend_sees_a_shared_array(monkeypatch: pytest.MonkeyPatch) -> None:
    _break_float32(monkeypatch, lambda grads: grads._replace(dc0=grads.dh0))
    with pytest.raises(AssertionError, match="shares memory with"):
        check_backend("numpy", CASE, "float32")


def test_check_backend_sees_a_wrong_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    _break_float32(monkeypatch, lambda grads: grads._replace(db=grads.db.astype(np.float64)))
    with pytest.raises(AssertionError, match=r"db is ndarray \(68,\) float64, expected \(68,\) float32"):
        check_backend("numpy", CASE, "float32")


def test_check_backend_sees_a_changed_input(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numpy_lstm().lstm_forward

    def forward(xs: Any, *args: Any, **options: Any) -> Any:
        out = right(xs, *args, **options)
        xs[0, 0, 0] = 0
        return out

    monkeypatch.setattr(numpy_lstm(), "lstm_forward", forward)
    with pytest.raises(AssertionError, match="xs was changed"):
        check_backend("numpy", CASE, "float32")


def test_check_gradient_takes_the_right_gradient_only() -> None:
    x, y = np.array([0.5, -1.0, 2.0]), np.array([[3.0]])

    def loss(x: Any, y: Any) -> float:
        return float((x**3).sum() * y.sum())

    right = {"x": 3 * x**2 * 3, "y": (x**3).sum() * np.ones((1, 1))}
    check_gradient(loss, {"x": x, "y": y}, right)
    with pytest.raises(AssertionError, match="d loss / d y"):
        check_gradient(loss, {"x": x, "y": y}, {**right, "y": right["y"] * 1.0001})
    with pytest.raises(AssertionError, match="d loss / d x"):
        check_gradient(loss, {"x": x, "y": y}, {**right, "x": np.full(3, np.nan)})
    with pytest.raises(AssertionError, match="the gradient of y has shape"):
        check_gradient(loss, {"x": x, "y": y}, {**right, "y": np.ones(1)})
    with pytest.raises(AssertionError, match="differences need float64"):
        check_gradient(loss, {"x": x.astype(np.float32)}, {"x": x})


def test_cast_leaves_ids_and_masks_alone() -> None:
    inputs = {"W": np.ones((2, 2)), "ids": np.array([1]), "mask": np.array([True])}
    rows = contract.RowGrad(np.array([0]), np.ones((1, 2)))
    case = Case("c", "op", {**inputs, "grads": [rows]}, {"dout": np.ones(3)}).cast("float32")
    assert [case.inputs[name].dtype for name in inputs] == [np.float32, np.int64, np.bool_]
    assert case.inputs["grads"][0].values.dtype == np.float32
    assert case.upstream["dout"].dtype == np.float32
