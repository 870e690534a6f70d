"""Every backend against the definition: every operator, case, dtype and gate order, forward and backward."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace
from typing import Any

import cases
import numpy as np
import pytest
import recurrent_cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, FloatArray, IntArray
from fastlstm.testing import Case, check_backend


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_backend_agrees_with_the_definition(backend: str, case: Case, dtype: str) -> None:
    check_backend(backend, case, dtype)


def test_no_two_cases_share_a_name() -> None:
    names = [str(case) for case in cases.ALL]
    assert len(set(names)) == len(names)


def test_every_gate_order_is_among_the_cases() -> None:
    for op in ("lstm_forward", "lstm_cell_forward"):
        orders = {case.inputs.get("gate_order", "ifgo") for case in cases.ALL if case.op == op}
        assert orders == set(recurrent_cases.ALL_GATE_ORDERS)


# --------------------------------------------------------------------------------------------
# Shapes, masks and ids that nobody thought of
# --------------------------------------------------------------------------------------------

SEARCH = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@SEARCH
@given(
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(1, 35), st.integers(1, 70)),
    seed=st.integers(0, 2**16),
    density=st.sampled_from([0.0, 0.5, 1.0]),
    reverse=st.booleans(),
    gate_order=st.sampled_from(recurrent_cases.ALL_GATE_ORDERS),
    activation=st.sampled_from(["sigmoid", "hard_sigmoid"]),
)
def test_lstm_of_any_shape(
    compiled_backend: str,
    sizes: tuple[int, int, int, int],
    seed: int,
    density: float,
    reverse: bool,
    gate_order: str,
    activation: str,
) -> None:
    N, T, D, H = sizes
    rng = np.random.default_rng(seed)
    inputs = {
        "xs": rng.standard_normal((N, T, D)),
        "Wx": rng.standard_normal((D, 4 * H)) / np.sqrt(D),
        "Wh": rng.standard_normal((H, 4 * H)) / np.sqrt(H),
        "b": rng.standard_normal(4 * H),
        "h0": rng.standard_normal((N, H)),
        "c0": rng.standard_normal((N, H)),
        "mask": rng.random((N, T)) < density,
        "reverse": reverse,
        "gate_order": gate_order,
        "recurrent_activation": activation,
    }
    upstream = {
        name: rng.standard_normal(shape) for name, shape in (("dhs", (N, T, H)), ("dh_n", (N, H)), ("dc_n", (N, H)))
    }
    check_backend(compiled_backend, Case("searched", "lstm_forward", inputs, upstream), "float64")


@SEARCH
@given(
    ids=npst.arrays(
        st.sampled_from([np.int32, np.int64]),
        npst.array_shapes(min_dims=0, max_dims=3, max_side=12),
        elements=st.integers(0, 19),
    ),
    E=st.integers(1, 40),
)
def test_embedding_of_any_shape(compiled_backend: str, ids: IntArray, E: int) -> None:
    dout = np.random.default_rng(0).standard_normal((*ids.shape, E))
    for case in (
        Case("searched", "embedding_backward", {"ids": ids, "dout": dout, "num_embeddings": 20}),
        Case("searched", "embedding_backward_rows", {"ids": ids, "dout": dout}),
        Case("searched", "scatter_add", {"target": np.ones((20, E)), "ids": ids, "rows": dout}),
    ):
        check_backend(compiled_backend, case, "float32")


def test_a_wrong_claim_about_touched_rows_only_leaves_them(backend: str) -> None:
    ids, dout = np.array([1, 3, 1, 5]), np.ones((4, 5), np.float32)
    out = np.full((9, 5), 7, np.float32)
    with use_backend(backend):
        ops.embedding_backward(ids, dout, 9, out=out, touched=np.array([3, 1, 8]))
    np.testing.assert_array_equal(out[:, 0], [7, 2, 7, 1, 7, 8, 7, 7, 0])


@SEARCH
@given(
    sizes=st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(1, 300)),
    seed=st.integers(0, 2**16),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    memory=st.sampled_from(["fast", "low"]),
)
def test_linear_cross_entropy_of_any_shape(
    compiled_backend: str, sizes: tuple[int, int, int], seed: int, ignored: float, memory: str
) -> None:
    M, H, V = sizes
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random(M) < ignored, -1, rng.integers(0, V, M))
    inputs = {"h": rng.standard_normal((M, H)), "W": rng.standard_normal((H, V)), "b": rng.standard_normal(V)}
    case = Case("searched", "linear_cross_entropy", {**inputs, "targets": targets, "memory": memory})
    check_backend(compiled_backend, case, "float64")


@pytest.mark.parametrize("ignore_index", [2**32, -(2**32), 2**64])
def test_an_ignore_index_that_the_targets_cannot_hold_ignores_nothing(backend: str, ignore_index: int) -> None:
    logits, targets = np.eye(3), np.array([0, 2], np.int32)
    h, W, b = np.eye(2), np.ones((2, 3)), np.zeros(3)
    with use_backend(backend):
        want = ops.softmax_cross_entropy(logits[:2], targets)
        got = ops.softmax_cross_entropy(logits[:2], targets, ignore_index=ignore_index)
        fused = ops.linear_cross_entropy(h, W, b, targets)
        got_fused = ops.linear_cross_entropy(h, W, b, targets, ignore_index=ignore_index)
    for one, other in zip((*want, *fused), (*got, *got_fused), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["softmax_cross_entropy", "linear_cross_entropy"])
def test_the_number_of_targets_as_normalizer_gives_the_bits_of_the_mean(backend: str, op: str, dtype: str) -> None:
    some = [case for case in cases.LOSSES if case.op == op and case.name.startswith(("batch", "V1000", "ignore-0"))]
    assert some
    with use_backend(backend):
        for case in some:
            inputs: Any = case.cast(dtype).inputs
            count = np.count_nonzero(inputs["targets"] != inputs["ignore_index"])
            mean, summed = getattr(ops, op)(**inputs), getattr(ops, op)(**inputs, reduction="sum")
            for one, other in zip(mean, getattr(ops, op)(**inputs, normalizer=count), strict=True):
                np.testing.assert_array_equal(one, other)
            assert summed.loss == pytest.approx(mean.loss * count)


# --------------------------------------------------------------------------------------------
# What a tape keeps
# --------------------------------------------------------------------------------------------


def _kept(op: str) -> set[str]:
    """The arguments and results that the docstring says a tape refers to."""
    text = " ".join(inspect.getdoc(getattr(ops, op)).split())  # type: ignore[union-attr]
    found = re.search(r"The tape refers to ([\w, ]+): change none of these before the last backward call", text)
    assert found, f"{op} does not say what its tape refers to"
    return set(re.split(r", | and ", found[1]))


def _overwrite(value: Any) -> None:
    for array in value if isinstance(value, tuple) else (value,):
        if isinstance(array, np.ndarray):
            array[...] = 0 if array.dtype.kind in "bi" else np.nan


def _forward_and_twice_back(case: Case, *, overwrite: bool) -> Any:
    """The gradients, in between everything changed that the tape does not refer to."""
    arguments = case.map_arrays(np.copy).inputs
    out = getattr(ops, case.op)(**arguments)
    if overwrite:
        kept = _kept(case.op)
        assert kept <= {*inspect.signature(getattr(ops, case.op)).parameters, *out._fields}
        for name, value in {**arguments, **out._asdict()}.items():
            if name not in kept | {"tape"}:
                _overwrite(value)
    for _ in range(2):
        grads = getattr(ops, case.op.replace("forward", "backward"))(tape=out.tape, **case.upstream)
    return grads


TAPED = [*recurrent_cases.LSTM, *recurrent_cases.GRU, *recurrent_cases.RNN, *recurrent_cases.CELLS, *cases.SAMPLING]


@pytest.mark.parametrize("name", ["H17", "H17-pytorch", "holes", "holes-reverse", "lengths", "one-row", "E17"])
def test_gradients_depend_on_no_array_that_the_tape_does_not_refer_to(backend: str, name: str) -> None:
    some = [case for case in TAPED if case.name == name and case.op.endswith("_forward")]
    assert some
    with use_backend(backend):
        for case in some:
            want, got = (_forward_and_twice_back(case, overwrite=overwrite) for overwrite in (False, True))
            for array, right in zip(_leaves(got), _leaves(want), strict=True):
                np.testing.assert_array_equal(array, right)


def _leaves(value: Any) -> list[Any]:
    return [leaf for entry in value for leaf in _leaves(entry)] if isinstance(value, tuple) else [value]


# --------------------------------------------------------------------------------------------
# Results into arrays of the caller's
# --------------------------------------------------------------------------------------------


def _held(case: Case) -> Any:
    """A copy of what the case writes into."""
    return case.map_arrays(np.copy).inputs["out"]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (case, dtype)
        for some, dtypes in ((cases.LOSSES_INTO, ("float32", "float64")), (cases.BF16, ("float32",)))
        for case in some
        if case.op == "linear_cross_entropy" and case.inputs.get("out")
        for dtype in dtypes
    ],
    ids=str,
)
def test_gradients_go_into_the_arrays_given_with_the_bits_of_new_ones(backend: str, case: Case, dtype: str) -> None:
    case = case.cast(dtype)
    held, out = _held(case), _held(case)
    plain = {name: value for name, value in case.inputs.items() if name not in ("out", "accumulate")}
    with use_backend(backend):
        want = ops.linear_cross_entropy(**plain)
        got = ops.linear_cross_entropy(**{**case.inputs, "out": out})
    assert got.loss == want.loss
    for name in ("dh", "dW", "db"):
        given, before, right = getattr(out, name), getattr(held, name), getattr(want, name)
        if name in case.inputs.get("without", ()):
            assert getattr(got, name) is None
            continue
        if given is not None:
            assert getattr(got, name) is given
            if case.inputs.get("accumulate") and name != "dh":
                right = before + right
        np.testing.assert_array_equal(getattr(got, name), right)


def _plain(case: Case) -> Case:
    """The case whose gradients are all wanted, in new arrays."""
    upstream = {name: v for name, v in case.upstream.items() if name not in ("out", "accumulate", "without")}
    return Case(case.name, case.op, case.inputs, upstream)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [*recurrent_cases.RECURRENT_INTO, *recurrent_cases.CELLS_INTO], ids=str)
def test_recurrent_gradients_into_arrays_have_the_bits_of_new_ones(backend: str, case: Case, dtype: str) -> None:
    case = case.cast(dtype)
    backward = getattr(ops, case.op.replace("forward", "backward"))
    given, held = (case.map_arrays(np.copy).upstream.get("out") for _ in range(2))
    with use_backend(backend):
        tape = getattr(ops, case.op)(**case.inputs).tape
        want = backward(tape=tape, **_plain(case).upstream)
        got = backward(tape=tape, **{**case.upstream, "out": given})
    for name, right in want._asdict().items():
        array, result = getattr(given, name, None), getattr(got, name)
        if name in case.upstream.get("without", ()) or right is None:
            assert result is None
            continue
        if array is not None:
            assert result is array
            if case.upstream.get("accumulate") and name in ("dWx", "dWh", "db"):
                right = getattr(held, name) + right
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize(
    "case",
    [c for c in (*cases.LOSSES_INTO, *(case.cast("float32") for case in cases.BF16)) if "without" in c.inputs],
    ids=str,
)
def test_what_is_not_wanted_changes_no_bits_of_the_rest(backend: str, case: Case) -> None:
    inputs = {name: value for name, value in case.inputs.items() if name not in ("out", "accumulate", "without")}
    without = case.inputs["without"]
    with use_backend(backend):
        want = ops.linear_cross_entropy(**inputs)
        got = ops.linear_cross_entropy(**inputs, without=without)
    for name, value in got._asdict().items():
        if name in without:
            assert value is None
        else:
            np.testing.assert_array_equal(value, getattr(want, name))


def test_fields_of_out_may_be_missing(backend: str) -> None:
    h, W, b, targets = np.ones((2, 3)), np.ones((3, 4)), np.ones(4), np.array([1, 3])
    db = np.full(4, np.nan)
    with use_backend(backend):
        want = ops.linear_cross_entropy(h, W, b, targets)
        got = ops.linear_cross_entropy(h, W, b, targets, out=SimpleNamespace(db=db))
    assert got.db is db
    for array, right in zip(got, want, strict=True):
        np.testing.assert_array_equal(array, right)


def test_without_a_bias_nothing_is_written_for_it(backend: str) -> None:
    db = np.full(4, 7.0)
    with use_backend(backend):
        got = ops.linear_cross_entropy(
            np.ones((2, 3)), np.ones((3, 4)), None, np.array([1, 3]), out=SimpleNamespace(db=db)
        )
    assert got.db is None
    np.testing.assert_array_equal(db, 7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case", [c for c in cases.EMBEDDING if c.op == "embedding_backward" and c.inputs.get("accumulate")], ids=str
)
def test_an_embedding_gradient_is_added_once_with_its_own_bits(backend: str, case: Case, dtype: str) -> None:
    case = case.cast(dtype)
    held, out = _held(case), _held(case)
    plain = {name: value for name, value in case.inputs.items() if name not in ("out", "accumulate")}
    with use_backend(backend):
        want = held + ops.embedding_backward(**plain)
        assert ops.embedding_backward(**{**case.inputs, "out": out}) is out
    np.testing.assert_array_equal(out, want)


def test_softmax_in_place_has_the_bits_of_a_new_array(backend: str) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    with use_backend(backend):
        want = ops.softmax(logits)
        assert ops.softmax(logits, out=logits) is logits
    np.testing.assert_array_equal(logits, want)


# --------------------------------------------------------------------------------------------
# Masks and sizes at the edge
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["lstm_forward", "gru_forward", "rnn_forward"])
def test_every_byte_of_a_mask_but_zero_counts(backend: str, op: str) -> None:
    case = next(case for case in cases.ALL if (case.op, case.name) == (op, "holes"))
    mask = case.inputs["mask"]
    odd = np.where(mask, np.arange(mask.size).reshape(mask.shape) % 254 + 2, 0).astype(np.uint8).view(bool)
    assert not np.isin(odd.view(np.uint8), [0, 1]).all()
    with use_backend(backend):
        want, got = (getattr(ops, op)(**{**case.inputs, "mask": each}) for each in (mask, odd))
    np.testing.assert_array_equal(got.hs, want.hs)
    np.testing.assert_array_equal(got.h_n, want.h_n)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("op", "gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_any_number_of_steps_without_rows_is_no_work(backend: str, op: str, gates: int, reverse: bool) -> None:
    T, H = 2**40, 2
    weights = np.ones((1, gates * H)), np.ones((H, gates * H)), np.ones(gates * H)
    forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
    with use_backend(backend):
        for valid in ({}, {"mask": np.ones((0, T), bool)}, {"lengths": np.zeros(0, np.int64)}):
            out = forward(np.zeros((0, T, 1)), *weights, reverse=reverse, **valid)
            grads = backward(out.hs, out.tape)
            assert out.hs.shape == (0, T, H)
            assert grads.dxs.shape == (0, T, 1)
            assert not grads.dWh.any()


@pytest.mark.parametrize("window", [2**62, 2**63 - 1])
def test_a_window_is_as_wide_as_the_text_at_most(backend: str, window: int) -> None:
    with use_backend(backend):
        pairs = ops.skipgram_pairs(np.arange(4), window, seed=1)
    assert len(pairs.centers) == 12


# --------------------------------------------------------------------------------------------
# Arrays that stand in a list twice
# --------------------------------------------------------------------------------------------


def test_a_parameter_that_comes_twice_takes_both_gradients(backend: str) -> None:
    param, velocity, grads = np.zeros(5), np.zeros(5), [np.ones(5), np.full(5, 2.0)]
    with use_backend(backend):
        ops.sgd_update([param, param], grads, 1.0)
        np.testing.assert_array_equal(param, -3)
        ops.momentum_update([param, param], [grads[0]] * 2, [velocity, velocity], 1.0, momentum=0.5)
    np.testing.assert_array_equal(velocity, -1.5)
    np.testing.assert_array_equal(param, -5.5)


def test_a_transpose_that_comes_twice_takes_both_gradients(backend: str) -> None:
    param, velocity, grad = np.zeros((2, 3)).T, np.zeros((2, 3)).T, np.arange(6.0).reshape(3, 2)
    with use_backend(backend):
        ops.sgd_update([param, param], [grad, np.asfortranarray(grad)], 1.0)
        np.testing.assert_array_equal(param, -2 * grad)
        ops.momentum_update([param, param], [grad, grad], [velocity, velocity], 1.0, momentum=0.5)
    np.testing.assert_array_equal(velocity, -1.5 * grad)
    np.testing.assert_array_equal(param, -4.5 * grad)


def test_a_gradient_that_comes_again_as_a_view_counts_once(backend: str) -> None:
    grad = np.full((3, 4), 10.0)
    with use_backend(backend):
        again = [grad, grad[:], grad.T]
        assert ops.global_norm(again) == ops.global_norm(grad)
        assert ops.clip_grad_norm(again, 1.0) == pytest.approx(10 * 12**0.5)
        assert ops.global_norm(grad) == pytest.approx(1, rel=1e-5)


def test_clipping_a_transpose_clips_its_array(backend: str) -> None:
    grad = np.full((3, 4), 10.0)
    with use_backend(backend):
        ops.clip_grad_value([grad.T], 5.0)
        assert ops.clip_grad_norm([grad.T], 1.0) == pytest.approx(5 * 12**0.5)
    assert np.linalg.norm(grad) == pytest.approx(1, rel=1e-5)


# --------------------------------------------------------------------------------------------
# Many steps of an optimiser
# --------------------------------------------------------------------------------------------

MEANS = {"rmsprop_update": ("accumulators",), "adam_update": ("m", "v"), "adamw_update": ("m", "v")}


def _after_steps(op: str, grads: FloatArray, **options: float) -> list[FloatArray]:
    """The parameter and its state after a step for each row of ``grads``, from a state of zeros."""
    arrays = {name: np.zeros_like(grads[0]) for name in ("params", *MEANS[op])}
    for step, grad in enumerate(grads, start=1):
        count = {} if op == "rmsprop_update" else {"step": step}
        getattr(ops, op)(**arrays, grads=grad, lr=0.1, **count, **options)
    return list(arrays.values())


@pytest.mark.parametrize("rate", cases.RATES)
@pytest.mark.parametrize("op", MEANS)
def test_running_means_stay_right_for_many_steps(backend: str, op: str, rate: float) -> None:
    grads = np.random.default_rng(3).standard_normal((20, 33)).astype(np.float32)
    with use_backend(backend):
        got = _after_steps(op, grads, **cases.rates_of(op, rate))
    with use_backend("numpy"):
        want = _after_steps(op, grads.astype(np.float64), **cases.rates_of(op, rate))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE["float32"] * np.abs(other).max())


@pytest.mark.parametrize("op", MEANS)
def test_a_square_that_overflows_leaves_the_parameter_finite(backend: str, op: str) -> None:
    grads = np.ones((6, 33), np.float32)
    grads[2] = 1e20
    with np.errstate(over="ignore"):
        with use_backend(backend):
            got = _after_steps(op, grads)
        with use_backend("numpy"):
            want = _after_steps(op, grads)
    assert np.isfinite(want[0]).all()
    assert np.isinf(want[-1]).all()
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE["float32"])
