"""Factors rounded to bfloat16: the rounding, number by number, and products of them on every backend."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import cases
import numpy as np
import pytest
import recurrent_cases

import fastlstm
from fastlstm import ops, use_backend
from fastlstm.backends.numpy import dense, losses
from fastlstm.backends.numpy.dense import round_to_bf16
from fastlstm.backends.results import new_arrays
from fastlstm.contract import TOLERANCE, FloatArray, LinearLossGrads
from fastlstm.testing import Case, check_backend, run_case

SMALLEST_NORMAL = 2.0**-126


def _every_upper_half() -> FloatArray:
    """Each of the 2^16 upper halves of a float32, NaN and infinities among them, with lower halves about the tie."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper[:, None] | lower).reshape(-1).view(np.float32)


def _nearest(x: FloatArray) -> FloatArray:
    """The nearer of the two bfloat16 that x lies between, with their distances in float64."""
    bits = x.view(np.uint32)
    below = bits & 0xFFFF0000
    above = below + np.uint32(0x10000)
    wide = x.astype(np.float64)
    numbers = [half.view(np.float32).astype(np.float64) for half in (below, above)]
    # Beyond the largest number the exponent would go on.
    numbers[1] = np.where(np.isinf(numbers[1]), np.copysign(2.0**128, wide), numbers[1])
    to_below, to_above = (np.abs(number - wide) for number in numbers)
    above_is_even = (above >> 16) % 2 == 0
    up = (to_above < to_below) | ((to_above == to_below) & above_is_even)
    return np.where(up, above, below).view(np.float32)


def _same_numbers(got: FloatArray, want: FloatArray) -> None:
    assert got.dtype == want.dtype
    assert np.array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(got, want)


def test_the_definition_rounds_to_the_nearest() -> None:
    x = _every_upper_half()
    finite = x[np.isfinite(x)]
    _same_numbers(round_to_bf16(finite), _nearest(finite))
    _same_numbers(round_to_bf16(finite.reshape(-1, 2).T), _nearest(finite).reshape(-1, 2).T)
    assert np.isnan(round_to_bf16(x[np.isnan(x)])).all()
    infinite = np.array([np.inf, -np.inf], np.float32)
    _same_numbers(round_to_bf16(infinite), infinite)
    largest = np.array([np.finfo(np.float32).max], np.float32)
    _same_numbers(round_to_bf16(-largest), -infinite[:1])


def test_the_definition_rounds_float64_that_are_float32_alike() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    _same_numbers(round_to_bf16(x.astype(np.float64)), round_to_bf16(x).astype(np.float64))


def test_the_definition_rounds_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    x = _every_upper_half()
    _same_numbers(round_to_bf16(x), torch.from_numpy(x).bfloat16().float().numpy())


# The number is first or second of a pair, or the half of one; a factor of either side, as it is or transposed.
@pytest.mark.parametrize("pair", [(0,), (0, 1), (1, 0)], ids=["alone", "first", "second"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("side", ["a", "b"])
def test_kernels_round_every_number_as_the_definition(
    backend: str, side: str, transposed: bool, pair: tuple[int, ...]
) -> None:
    x = _every_upper_half()
    at = pair.index(0)
    rows = np.zeros((len(x), len(pair)), np.float32)
    rows[:, at] = x
    one = np.zeros((len(pair), 1), np.float32)
    one[at] = 1
    with use_backend(backend), np.errstate(invalid="ignore"):
        if side == "a":
            rows = np.asfortranarray(rows) if transposed else rows
            got = ops.matrix_product(rows, one, precision="bf16")[:, 0]
        else:
            columns = rows.T if transposed else np.ascontiguousarray(rows.T)
            got = ops.matrix_product(np.ascontiguousarray(one.T), columns, precision="bf16")[0]
    want = round_to_bf16(x)
    if backend == "cpp":
        # Denormal numbers are zero in its kernels, in every precision. Those that are rounded to the smallest normal
        # number are that or zero, as the processor has it.
        want[np.abs(want) < SMALLEST_NORMAL] = 0
        rounded_up = (np.abs(x) < SMALLEST_NORMAL) & (want != 0)
        assert rounded_up.sum() == 6
        assert set(np.abs(got[rounded_up]).tolist()) in ({0.0}, {SMALLEST_NORMAL})
        want[rounded_up] = got[rounded_up]
    _same_numbers(got, want)


def _exact(case: Case) -> Case:
    """The case without its precision."""
    return dataclasses.replace(case, inputs={k: v for k, v in case.inputs.items() if k != "precision"})


def _in_hardware() -> bool:
    from fastlstm import _cpu

    return _cpu.bf16_in_hardware()


@pytest.mark.parametrize("case", [*cases.BF16, *recurrent_cases.RECURRENT_BF16], ids=str)
def test_products_are_near_the_exact_ones(backend: str, case: Case) -> None:
    check_backend(backend, _exact(case), "float32", precision="bf16")


def _defined(case: Case) -> dict[str, Any]:
    """The definition's results in float64 of the same float32 inputs, whose factors are rounded too."""
    inputs: dict[str, Any] = {**case.cast("float32").cast("float64").inputs}
    if case.op != "linear_cross_entropy":
        if case.op == "matrix_product":
            inputs["out"] = None
        return {"out": getattr(dense, case.op)(**inputs)}
    h, targets = inputs["h"], inputs["targets"]
    inputs |= {"h": h.reshape(-1, h.shape[-1]), "targets": targets.reshape(-1), "normalizer": _divisor(case)}
    inputs.pop("reduction", None)
    without = () if inputs["b"] is not None else ("db",)
    made = losses.linear_cross_entropy(**inputs, into=new_arrays(LinearLossGrads._fields)._replace(without=without))
    defined = {**made._asdict(), "dh": made.dh.reshape(h.shape)}
    return {name: value for name, value in defined.items() if name not in without}


def _divisor(case: Case) -> float:
    """What a case of a loss divides the sum over its rows by."""
    if case.inputs.get("reduction") == "sum":
        return 1.0
    counted = np.count_nonzero(case.inputs["targets"] != case.inputs["ignore_index"])
    return float(case.inputs.get("normalizer", max(int(counted), 1)))


CLOSE = [case for case in cases.BF16 if not isinstance(case.inputs.get("out"), tuple) and "without" not in case.inputs]


@pytest.mark.parametrize("case", CLOSE, ids=str)
def test_products_are_those_of_the_same_rounded_factors(backend: str, case: Case) -> None:
    with use_backend(backend):
        got = run_case(case.cast("float32"))
    defined = _defined(case)
    assert set(got) == set(defined)
    for name, want in defined.items():
        difference = np.abs(np.asarray(got[name], np.float64) - want)
        if difference.size == 0:
            continue
        limit = TOLERANCE["float32"] * max(1.0, float(np.abs(want).max()))
        if name in ("dh", "dW"):
            # Gradients of logits that float32 puts on the other side of a tie are rounded the other way: few.
            assert (difference > limit).mean() < 0.05, f"{name} differs in many places"
            factor = case.inputs["W" if name == "dh" else "h"]
            limit += 2.0**-8 * float(np.abs(factor).max(initial=0)) / _divisor(case)
        assert difference.max() <= limit, f"{name} differs by {difference.max():.2g}, allowed {limit:.2g}"


def test_products_in_bf16_are_not_exact_ones(backend: str) -> None:
    """Without this, the tests above could pass if rounding were forgotten in all backends."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((40, 64), (64, 50)))
    with use_backend(backend):
        exact, rounded = (ops.matrix_product(a, b, precision=precision) for precision in ("float32", "bf16"))
    assert 1e-3 < np.abs(exact - rounded).max() < 0.2


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_nan_reaches_what_it_reaches_in_float32(backend: str, memory: Any) -> None:
    rng = np.random.default_rng(0)
    h, W, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((7, 5), (5, 130), (130,)))
    targets = rng.integers(0, 130, 7)
    h[3, 2] = np.nan
    with use_backend(backend), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        exact, rounded = (
            ops.linear_cross_entropy(h, W, b, targets, memory=memory, precision=precision)
            for precision in ("float32", "bf16")
        )
    assert np.isnan(rounded.loss)
    for name in ("dh", "dW", "db"):
        assert np.array_equal(np.isnan(getattr(rounded, name)), np.isnan(getattr(exact, name)))


def test_db_is_the_sum_of_gradients_that_are_not_rounded(backend: str) -> None:
    """In float32 products the numbers of bfloat16 give the same logits; only what is rounded after them differs."""
    rng = np.random.default_rng(1)
    h, W, b = (round_to_bf16(rng.standard_normal(shape, dtype=np.float32)) for shape in ((60, 4), (4, 100), (100,)))
    targets = rng.integers(0, 100, 60)
    with use_backend(backend):
        exact, rounded = (
            ops.linear_cross_entropy(h, W, b, targets, precision=precision) for precision in ("float32", "bf16")
        )
    np.testing.assert_allclose(rounded.db, exact.db, rtol=0, atol=1e-7)
    assert np.abs(rounded.dW - exact.dW).max() > 1e-6


# --------------------------------------------------------------------------------------------
# Recurrent networks
# --------------------------------------------------------------------------------------------


def _mean_square(array: FloatArray) -> float:
    return float(np.square(array, dtype=np.float64).mean()) if array.size else 0.0


@pytest.mark.parametrize("case", recurrent_cases.RECURRENT_BF16, ids=str)
def test_what_is_rounded_is_what_the_definition_says(compiled_backend: str, case: Case) -> None:
    """A factor that is not rounded, or a number that is and is no factor, takes much of the distance to exact results.

    States and gradients that another order of sums puts on the other side of a tie take little: they are few.
    """
    with use_backend("numpy"):
        want, exact = run_case(case.cast("float32")), run_case(_exact(case).cast("float32"))
    with use_backend(compiled_backend):
        got = run_case(case.cast("float32"))
    assert set(got) == set(want)
    H = case.inputs["Wh"].shape[0]
    for name, defined in want.items():
        blocks = defined.shape[-1] // H if name in ("dWx", "dWh", "db") else 1  # of the gates
        for gate, (a, b, c) in enumerate(
            zip(*(np.split(x[name], blocks, -1) for x in (got, want, exact)), strict=True)
        ):
            error, of_rounding = (_mean_square(x.astype(np.float64) - b) ** 0.5 for x in (a, c))
            limit = 0.25 * of_rounding + TOLERANCE["float32"] / 10 * max(1.0, float(np.abs(defined).max(initial=0)))
            assert error <= limit, f"{name}, block {gate}: off by {error:.2g}, the exact ones by {of_rounding:.2g}"


def test_an_rnn_by_hand(backend: str) -> None:
    """Two steps and their gradients, written out: what is rounded, and what is not."""
    rng = np.random.default_rng(2)
    N, D, H = 5, 3, 7
    xs, Wx, Wh, b, h0, dhs = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((N, 2, D), (D, H), (H, H), (H,), (N, H), (N, 2, H))
    )
    with use_backend(backend):
        out = ops.rnn_forward(xs, Wx, Wh, b, h0=h0, precision="bf16")
        grads = ops.rnn_backward(dhs, out.tape)
    x1, x2, wx, wh = (round_to_bf16(a).astype(np.float64) for a in (xs[:, 0], xs[:, 1], Wx, Wh))
    h1 = np.tanh(x1 @ wx + round_to_bf16(h0).astype(np.float64) @ wh + b)
    h2 = np.tanh(x2 @ wx + round_to_bf16(h1) @ wh + b)
    d2 = dhs[:, 1] * (1 - h2**2)
    d1 = (dhs[:, 0] + round_to_bf16(d2) @ wh.T) * (1 - h1**2)
    r1, r2 = round_to_bf16(d1), round_to_bf16(d2)
    want = {
        "dxs": np.stack([r1 @ wx.T, r2 @ wx.T], axis=1),
        "dWx": x1.T @ r1 + x2.T @ r2,
        "dWh": round_to_bf16(h0).T @ r1 + round_to_bf16(h1).T @ r2,
        "db": d1.sum(axis=0) + d2.sum(axis=0),
        "dh0": r1 @ wh.T,
    }
    np.testing.assert_allclose(out.hs, np.stack([h1, h2], axis=1), rtol=0, atol=2e-6)
    for name, value in want.items():
        np.testing.assert_allclose(getattr(grads, name), value, rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("shape", [(1, 2, 7, 17), (1, 5, 7, 17), (5, 4, 21, 330), (9, 3, 5, 33)], ids=str)
@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
def test_without_a_tape_states_have_the_same_bits(
    compiled_backend: str, family: str, shape: tuple[int, int, int, int]
) -> None:
    """Inputs are packed a step ahead then, and all at once with a tape; threads own units or rows."""
    N, T, D, H = shape
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[family]
    rng = np.random.default_rng(4)
    xs, Wx, Wh, b = (
        rng.standard_normal(size).astype(np.float32) / 4
        for size in ((N, T, D), (D, gates * H), (H, gates * H), (gates * H,))
    )
    with use_backend(compiled_backend):
        for reverse, threads in ((False, 1), (True, 3)):
            fastlstm.set_num_threads(threads)
            options: dict[str, Any] = {"reverse": reverse, "precision": "bf16"}
            kept, plain = (
                getattr(ops, f"{family}_forward")(xs, Wx, Wh, b, training=training, **options)
                for training in (True, False)
            )
            assert plain.tape is None
            for name in set(kept._fields) - {"tape"}:
                np.testing.assert_array_equal(getattr(kept, name), getattr(plain, name))


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
def test_a_row_with_nan_gives_the_nan_that_float32_has(backend: str, family: str) -> None:
    """Odd D and H: the halves of a pair that are none are zeros, and do not meet what is not finite."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[family]
    rng = np.random.default_rng(3)
    xs, Wx, Wh, b, dhs = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((9, 3, 5), (5, gates * 17), (17, gates * 17), (gates * 17,), (9, 3, 17))
    )
    xs[4, 1, 4] = np.nan
    dhs[2, 2, 16] = np.inf
    found = []
    for precision in ("float32", "bf16"):
        with use_backend(backend), np.errstate(invalid="ignore"):
            out = getattr(ops, f"{family}_forward")(xs, Wx, Wh, b, precision=precision)
            grads = getattr(ops, f"{family}_backward")(dhs, out.tape)
        arrays = {name: value for name, value in {**out._asdict(), **grads._asdict()}.items() if name != "tape"}
        found.append({name: (np.isnan(value), np.isposinf(value)) for name, value in arrays.items()})
    for name, exact in found[0].items():
        for one, other in zip(exact, found[1][name], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
    assert found[0]["hs"][0].any()
    assert found[0]["dWx"][0].any()


def test_the_configuration_says_who_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    fastlstm.show_config()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("bf16 products:"))
    in_hardware = "cpp" in fastlstm.available_backends() and _in_hardware()
    assert ("the processor's own" in line) == in_hardware
    assert ("rounded in software" in line) != in_hardware
