"""Losses whose rows have weights: the definition's sum, its gradient, and what it is divided by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE
from fastlstm.testing import check_gradient

rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((4, 3, 7))
TARGETS = np.array([[0, 6, -1], [3, -1, 2], [-1, -1, -1], [5, 5, 1]])
WEIGHTS = rng.uniform(-0.5, 3, (4, 3))
Y, T = rng.standard_normal((2, 4, 3, 2))
COUNT = int((TARGETS >= 0).sum())


def cross_entropies(logits: Any) -> Any:
    """Of every target, 0 where it does not count."""
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    of_targets = np.take_along_axis(p, np.maximum(TARGETS, 0)[..., None], axis=-1)[..., 0]
    return np.where(TARGETS >= 0, -np.log(of_targets), 0.0)


@pytest.mark.parametrize(
    ("how", "divisor"),
    [
        ({}, COUNT),
        ({"reduction": "sum"}, 1),
        ({"normalizer": 2.5}, 2.5),
        ({"normalizer": WEIGHTS.sum()}, WEIGHTS.sum()),
    ],
)
def test_each_row_counts_as_often_as_its_weight_says(how: Any, divisor: float, backend: str) -> None:
    with use_backend(backend):
        loss, dlogits = ops.softmax_cross_entropy(LOGITS, TARGETS, weights=WEIGHTS, **how)
        assert loss == pytest.approx((WEIGHTS * cross_entropies(LOGITS)).sum() / divisor, rel=1e-12)
        check_gradient(
            lambda logits: ops.softmax_cross_entropy(logits, TARGETS, weights=WEIGHTS, **how).loss,
            {"logits": LOGITS},
            {"logits": dlogits},
        )
        assert not dlogits[TARGETS < 0].any()


@pytest.mark.parametrize(("how", "divisor"), [({}, Y.size), ({"reduction": "sum"}, 1), ({"normalizer": 4}, 4)])
def test_squared_errors_have_weights_by_row(how: Any, divisor: float, backend: str) -> None:
    with use_backend(backend):
        loss, dy = ops.mean_squared_error(Y, T, weights=WEIGHTS, **how)
        assert loss == pytest.approx((WEIGHTS[..., None] * (Y - T) ** 2).sum() / divisor, rel=1e-12)
        check_gradient(lambda y: ops.mean_squared_error(y, T, weights=WEIGHTS, **how).loss, {"y": Y}, {"y": dy})


OPERATORS: dict[str, Callable[..., Any]] = {
    "softmax": lambda **how: ops.softmax_cross_entropy(LOGITS.astype(np.float32), TARGETS, **how),
    "squares": lambda **how: ops.mean_squared_error(Y.astype(np.float32), T.astype(np.float32), **how),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_weights_of_one_are_none(name: str, backend: str) -> None:
    with use_backend(backend):
        (loss, grad), (plain, plain_grad) = OPERATORS[name](weights=np.ones((4, 3), np.float32)), OPERATORS[name]()
    assert loss == pytest.approx(plain, rel=1e-6)
    assert grad.dtype == np.float32
    np.testing.assert_allclose(grad, plain_grad, rtol=0, atol=TOLERANCE["float32"])


def test_rows_that_do_not_count_are_not_read() -> None:
    logits = np.where((TARGETS < 0)[..., None], np.nan, LOGITS)
    weights = np.where(TARGETS < 0, np.nan, WEIGHTS)
    wanted = ops.softmax_cross_entropy(LOGITS, TARGETS, weights=WEIGHTS)
    loss, dlogits = ops.softmax_cross_entropy(logits, TARGETS, weights=weights)
    assert loss == wanted.loss
    np.testing.assert_array_equal(dlogits, wanted.dlogits)


def test_nothing_that_counts_and_no_rows() -> None:
    for logits, targets in ((LOGITS, np.full((4, 3), -1)), (np.zeros((0, 7)), np.zeros(0, np.int64))):
        loss, dlogits = ops.softmax_cross_entropy(logits, targets, weights=np.ones(targets.shape))
        assert loss == 0.0
        assert not dlogits.any()
    loss, dy = ops.mean_squared_error(np.zeros((0, 2)), np.zeros((0, 2)), weights=np.zeros(0))
    assert (loss, dy.shape) == (0.0, (0, 2))


def test_large_losses_are_finite_and_what_is_not_a_number_shows() -> None:
    logits = np.array([[0.0, 1000.0], [-np.inf, 0.0]], np.float32)
    ones = np.ones(2, np.float32)
    assert ops.softmax_cross_entropy(logits, np.array([0, 1]), weights=ones).loss == 500.0
    logits[1, 1] = np.nan
    loss, dlogits = ops.softmax_cross_entropy(logits, np.array([0, 1]), weights=ones)
    assert np.isnan(loss)
    assert np.isnan(dlogits[1]).all()


def test_weighted_losses_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    logits, y = torch.tensor(LOGITS, requires_grad=True), torch.tensor(Y, requires_grad=True)
    each = torch.nn.functional.cross_entropy(
        logits.reshape(-1, 7), torch.tensor(TARGETS.reshape(-1)), ignore_index=-1, reduction="none"
    )
    weights = torch.tensor(WEIGHTS)
    (each * weights.reshape(-1)).sum().div(COUNT).backward()
    (((y - torch.tensor(T)) ** 2).mean(-1) * weights).mean().backward()
    assert logits.grad is not None
    assert y.grad is not None
    got = ops.softmax_cross_entropy(LOGITS, TARGETS, weights=WEIGHTS).dlogits
    np.testing.assert_allclose(got, logits.grad, rtol=0, atol=1e-14)
    np.testing.assert_allclose(ops.mean_squared_error(Y, T, weights=WEIGHTS).dy, y.grad, rtol=0, atol=1e-14)
