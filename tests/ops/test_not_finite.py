"""What is promised of NaN and of infinite and very large numbers, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import ops, use_backend

FAMILIES = {"lstm": 4, "gru": 3, "rnn": 1}


@pytest.fixture
def on_backend(backend: str) -> Iterator[str]:
    with use_backend(backend):
        yield backend


def weights(family: str, dtype: str) -> tuple[Any, Any, Any]:
    draw, G = np.random.default_rng(3), FAMILIES[family] * 8
    return tuple(draw.standard_normal(shape).astype(dtype) for shape in ((4, G), (8, G), (G,)))  # type: ignore[return-value]


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
@pytest.mark.parametrize("N", [1, 2, 9])
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru of pytorch", "rnn"])
def test_nan_at_masked_steps_reaches_no_gradient(cell: str, N: int, precision: str) -> None:
    family, _, convention = cell.partition(" of ")
    T = 1 if N == 1 else 3  # so few rows are multiplied in another way
    dtype = "float64" if precision == "float64" else "float32"
    Wx, Wh, b = weights(family, dtype)
    options: dict[str, Any] = {"precision": "bf16"} if precision == "bf16" else {}
    if convention:
        b, options["convention"] = np.stack([b, b]), convention
    xs = np.random.default_rng(5).standard_normal((N, T, 4)).astype(dtype)
    xs[0] = np.nan
    states = {name: np.zeros((N, 8), dtype) for name in ("h0", "c0")[: 2 if family == "lstm" else 1]}
    for state in states.values():
        state[0] = np.nan
    mask = np.ones((N, T), bool)
    mask[0] = False
    forward, backward = (getattr(ops, f"{family}_{way}") for way in ("forward", "backward"))
    out = forward(xs, Wx, Wh, b, mask=mask, **states, **options)
    grads = backward(np.ones_like(out.hs), out.tape)
    assert np.isnan(out.hs[0]).all()
    assert np.isnan(out.h_n[0]).all()
    assert np.isfinite(out.hs[1:]).all()
    assert (grads.dxs[0] == 0).all()
    assert np.isfinite(grads.dxs[1:]).all()
    assert (grads.dh0[0] == T).all()
    rest = {name: state[1:] for name, state in states.items()}
    out = forward(xs[1:], Wx, Wh, b, **rest, **options)
    without = backward(np.ones_like(out.hs), out.tape)
    for name in ("dWx", "dWh", "db"):
        want = getattr(without, name)
        np.testing.assert_allclose(getattr(grads, name), want, rtol=1e-4, atol=1e-4 * np.abs(want).max(), err_msg=name)


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("cell", FAMILIES)
def test_nan_in_a_weight_reaches_no_step_that_does_not_count(cell: str, num_threads: int) -> None:
    """However the rows are dealt out to threads: masked ones between others are as those at either end."""
    N, T, D, H = 24, 4, 3, 200  # so much that several threads are used
    rng = np.random.default_rng(0)
    Wx, Wh = (rng.standard_normal((rows, FAMILIES[cell] * H)) for rows in (D, H))
    Wh[2, 3] = np.nan
    lengths = np.array([4, 0, 2, 0, 4, 1, 0, 3, 4, 0, 4, 0] * 2)
    dh_n = rng.standard_normal((N, H))
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(num_threads)
    try:
        out = getattr(ops, f"{cell}_forward")(rng.standard_normal((N, T, D)), Wx, Wh, None, lengths=lengths)
        grads = getattr(ops, f"{cell}_backward")(None, out.tape, dh_n=dh_n)
    finally:
        fastlstm.set_num_threads(before)
    ended = lengths == 0
    np.testing.assert_array_equal(grads.dh0[ended], dh_n[ended])
    np.testing.assert_array_equal(grads.dxs[np.arange(T) >= lengths[:, None]], 0)
    assert np.isnan(grads.dh0[~ended]).any()


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nan_of_a_step_is_seen_in_all_that_is_computed_from_it(family: str, dtype: str) -> None:
    xs = np.zeros((2, 3, 4), dtype)
    xs[0, 1, 2] = np.nan
    out = getattr(ops, f"{family}_forward")(xs, *weights(family, dtype))
    grads = getattr(ops, f"{family}_backward")(np.ones_like(out.hs), out.tape)
    assert np.isfinite(out.hs[0, 0]).all()
    assert np.isfinite(out.hs[1]).all()
    assert np.isnan(out.hs[0, 1:]).all()
    assert np.isnan(grads.dWx).any()
    assert np.isnan(grads.db).all()
    assert np.isnan(grads.dh0[0]).all()
    assert np.isfinite(grads.dh0[1]).all()


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinite_pre_activations_saturate(dtype: str) -> None:
    xs, Wx, Wh = np.zeros((1, 1, 2), dtype), np.zeros((2, 12), dtype), np.zeros((3, 12), dtype)
    for b, c in ((-np.inf, 0.0), (np.inf, 1.5)):
        out = ops.lstm_forward(xs, Wx, Wh, np.full(12, b, dtype), c0=np.full((1, 3), 0.5, dtype))
        np.testing.assert_allclose(out.c_n, c, atol=1e-30)
        assert np.isfinite(out.hs).all()


@pytest.mark.usefixtures("on_backend")
def test_norm_beyond_float32_is_clipped_to_what_was_asked_for() -> None:
    grads = [np.full(4, 2e38, np.float32), np.full(1, 1.0, np.float32)]
    norm = ops.clip_grad_norm(grads, 1.0)
    assert norm == pytest.approx(4e38)
    np.testing.assert_allclose(grads[0], 0.5, rtol=1e-6)
    assert grads[1][0] == pytest.approx(0, abs=1e-37)
