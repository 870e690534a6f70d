"""The C++ recurrent engine: strides, layouts, given results and what is not wanted change no bit of a plain call.

That a plain call is right is checked against the definition, in test_backends.py.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from guarded_memory import guarded_memory

import fastlstm
from fastlstm.contract import GRU_CONVENTIONS, TOLERANCE, Destination, GRUConvention

if "cpp" not in fastlstm.available_backends():
    pytest.skip("the C++ backend is not built here", allow_module_level=True)

NEW = Destination({}, accumulate=False, without=())
WEIGHTS = ("dWx", "dWh", "db")


class Kind(NamedTuple):
    """A cell and its options; gates: blocks of H columns of its weights."""

    family: str
    gates: int
    options: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.family, *(str(value) for value in self.options.values())])

    @property
    def two_biases(self) -> bool:
        return self.family == "gru" and self.options["convention"].reset_after

    def function(self, name: str) -> Any:
        module = importlib.import_module(f"fastlstm.backends.cpp.{self.family}")
        return getattr(module, f"{self.family}_{name}")


LSTM = Kind("lstm", 4, {"gate_order": "fgio", "recurrent_activation": "sigmoid"})
BEFORE = Kind("gru", 3, {"convention": GRU_CONVENTIONS["book"]})
AFTER = Kind("gru", 3, {"convention": GRU_CONVENTIONS["pytorch"]})
RNN = Kind("rnn", 1, {})
KINDS = (LSTM, BEFORE, AFTER, RNN)

# N, T, D, H: one row and one or two steps have ways of their own; 100 leaves a tail of every vector.
SHAPES = [(1, 1, 20, 100), (1, 2, 7, 17), (1, 5, 9, 3), (3, 4, 17, 33), (9, 3, 70, 130), (0, 3, 4, 5), (2, 0, 4, 5)]
SMALL = (3, 4, 17, 33)

each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def arrays_of(kind: Kind, shape: tuple[int, int, int, int], dtype: str, *, mask: bool = True) -> dict[str, Any]:
    """Random arguments of a forward and a backward call."""
    rng = np.random.default_rng(5)
    N, T, D, H = shape
    G = kind.gates * H

    def floats(*sizes: int) -> Any:
        return (rng.standard_normal(sizes) / 2).astype(dtype)

    return {
        "xs": floats(N, T, D),
        "Wx": floats(D, G) / np.sqrt(D, dtype=dtype),
        "Wh": floats(H, G) / np.sqrt(H, dtype=dtype),
        "b": floats(2, G) if kind.two_biases else floats(G),
        "h0": floats(N, H),
        "c0": floats(N, H),
        "mask": rng.random((N, T)) < 0.7 if mask else None,
        "dhs": floats(N, T, H),
        "dh_n": floats(N, H),
        "dc_n": floats(N, H),
    }


def forward(kind: Kind, arrays: dict[str, Any], **options: Any) -> tuple[dict[str, Any], Any]:
    names = ("h0", "c0", "mask") if kind.family == "lstm" else ("h0", "mask")
    options = {"reverse": False, "time_major": False, "training": True, **options}
    *outputs, saved = kind.function("forward")(
        *(arrays[name] for name in ("xs", "Wx", "Wh", "b")),
        **{name: arrays[name] for name in names},
        **kind.options,
        **options,
        precision=arrays["xs"].dtype.name,
    )
    return dict(zip(("hs", "h_n", "c_n"), outputs, strict=False)), saved


def backward(kind: Kind, arrays: dict[str, Any], saved: Any, into: Destination = NEW) -> dict[str, Any]:
    names = ("dhs", "dh_n", "dc_n") if kind.family == "lstm" else ("dhs", "dh_n")
    grads = kind.function("backward")(saved, **{name: arrays[name] for name in names}, into=into)
    return dict(grads._asdict())


def both(kind: Kind, arrays: dict[str, Any], into: Destination = NEW, **options: Any) -> dict[str, Any]:
    outputs, saved = forward(kind, arrays, **options)
    return outputs | backward(kind, arrays, saved, into)


def assert_same_bits(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        if value is None:
            assert got[name] is None, name
        else:
            assert got[name].shape == value.shape, name
            assert got[name].tobytes() == value.tobytes(), name


def assert_near(got: Any, want: Any, dtype: str) -> None:
    np.testing.assert_allclose(got, want, atol=5 * TOLERANCE[dtype] * max(1, np.abs(want).max(initial=0)), rtol=0)


def layouts_of_a_sequence(array: Any) -> Iterator[Any]:
    """The same elements with other strides over N and T."""
    N, T, K = array.shape
    yield np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
    yield np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]
    spread = np.full((2 * N + 1, 3 * T + 2, K + 5), np.nan, array.dtype)
    spread[1 : 2 * N + 1 : 2, 2::3, 3 : 3 + K] = array
    yield spread[1 : 2 * N + 1 : 2, 2::3, 3 : 3 + K]


def transposed(matrix: Any) -> Any:
    return np.ascontiguousarray(matrix.T).T


@each_kind
@each_shape
@each_dtype
@pytest.mark.parametrize("reverse", [False, True])
def test_strides_and_transposes_are_read_as_their_copies_are(
    kind: Kind, shape: tuple[int, int, int, int], dtype: str, reverse: bool
) -> None:
    arrays = arrays_of(kind, shape, dtype)
    want = both(kind, arrays, reverse=reverse)
    layouts = zip(layouts_of_a_sequence(arrays["xs"]), layouts_of_a_sequence(arrays["dhs"]), strict=True)
    for (xs, dhs), turn in itertools.product(layouts, ((), ("Wx",), ("Wh",), ("Wx", "Wh"))):
        changed = arrays | {"xs": xs, "dhs": dhs} | {name: transposed(arrays[name]) for name in turn}
        assert_same_bits(both(kind, changed, reverse=reverse), want)


@each_kind
@pytest.mark.parametrize("turn", [(), ("Wx",), ("Wh",)], ids=str)
def test_new_gradients_lie_in_memory_as_their_weights(kind: Kind, turn: tuple[str, ...]) -> None:
    arrays = arrays_of(kind, SMALL, "float32")
    arrays |= {name: transposed(arrays[name]) for name in turn}
    grads = both(kind, arrays)
    for name in ("Wx", "Wh"):
        assert grads[f"d{name}"].strides == arrays[name].strides


@each_kind
@pytest.mark.parametrize("axis", [0, 1])
def test_one_row_or_step_can_stand_for_all(kind: Kind, axis: int) -> None:
    arrays = arrays_of(kind, SMALL, "float32")
    for name in ("xs", "dhs"):
        arrays[name] = np.broadcast_to(arrays[name].take([0], axis), arrays[name].shape)
    want = both(kind, arrays | {name: arrays[name].copy() for name in ("xs", "dhs")})
    assert_same_bits(both(kind, arrays), want)


@each_kind
@each_shape
@each_dtype
def test_time_first_is_a_matter_of_memory_alone(kind: Kind, shape: tuple[int, int, int, int], dtype: str) -> None:
    arrays = arrays_of(kind, shape, dtype)
    want = both(kind, arrays)
    got = both(kind, arrays, time_major=True)
    assert_same_bits(got, want)
    for name in ("hs", "dxs"):
        assert got[name].swapaxes(0, 1).flags.c_contiguous
    only_forward, _ = forward(kind, arrays, time_major=True, training=False)
    assert only_forward["hs"].swapaxes(0, 1).flags.c_contiguous
    assert_same_bits(only_forward, {name: want[name] for name in only_forward})


@each_kind
@each_shape
@each_dtype
@pytest.mark.parametrize("training", [False, True])
def test_pre_activations_in_place_of_inputs(
    kind: Kind, shape: tuple[int, int, int, int], dtype: str, training: bool
) -> None:
    arrays = arrays_of(kind, shape, dtype)
    # NaN in masked steps is never read.
    pre_activations = np.where(arrays["mask"][..., None], arrays["xs"] @ arrays["Wx"], np.nan).astype(dtype)
    replaced = arrays | {"xs": pre_activations, "Wx": None}
    want = both(kind, arrays)
    got, saved = forward(kind, replaced, training=training)
    if training:
        got |= backward(kind, arrays, saved)
        assert got["dWx"] is None
        da = got.pop("dxs")
        assert da.shape == pre_activations.shape
        assert not da[~arrays["mask"]].any()
        got["dxs"] = da @ arrays["Wx"].T
        xs = np.where(arrays["mask"][..., None], arrays["xs"], 0)
        got["dWx"] = np.tensordot(xs, da, ((0, 1), (0, 1)))
    for name, value in got.items():
        assert_near(value, want[name], dtype)


@each_kind
@each_shape
def test_no_bias_is_a_bias_of_zeros(kind: Kind, shape: tuple[int, int, int, int]) -> None:
    arrays = arrays_of(kind, shape, "float32")
    want = both(kind, arrays | {"b": np.zeros_like(arrays["b"])})
    got = both(kind, arrays | {"b": None})
    assert_same_bits(got, want | {"db": None})


def test_neither_bias_nor_input_product() -> None:
    arrays = arrays_of(LSTM, SMALL, "float64", mask=False)
    pre_activations = arrays["xs"] @ arrays["Wx"] + arrays["b"]
    want, got = both(LSTM, arrays), both(LSTM, arrays | {"xs": pre_activations, "Wx": None, "b": None})
    assert_near(got["hs"], want["hs"], "float64")
    assert_near(got["dxs"].sum((0, 1)), want["db"], "float64")


def results_like(grads: dict[str, Any], kind: str) -> dict[str, Any]:
    """Arrays for all results, of random numbers: C-contiguous or, where that is allowed, of another layout."""
    rng = np.random.default_rng(7)
    made = {}
    for name, value in grads.items():
        array = rng.standard_normal(value.shape).astype(value.dtype)
        if kind == "transposed" and value.ndim > 1 and name in ("dWx", "dWh"):
            array = transposed(array)
        if kind == "transposed" and name == "dxs":
            array = np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)
        made[name] = array
    return made


@each_kind
@each_shape
@each_dtype
@pytest.mark.parametrize("layout", ["C", "transposed"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_results_go_into_given_arrays(
    kind: Kind, shape: tuple[int, int, int, int], dtype: str, layout: str, accumulate: bool
) -> None:
    arrays = arrays_of(kind, shape, dtype)
    _, saved = forward(kind, arrays)
    want = backward(kind, arrays, saved)
    with guarded_memory():
        given = results_like(want, layout)
        before = {name: value.copy() for name, value in given.items()}
        got = backward(kind, arrays, saved, Destination(given, accumulate, ()))
        for name, value in got.items():
            assert value is given[name]
            added = accumulate and name in WEIGHTS
            expected = before[name] + want[name] if added else want[name]
            assert value.tobytes() == expected.tobytes(), name
        del value, got, given


@each_kind
def test_only_given_arrays_are_added_to(kind: Kind) -> None:
    arrays = arrays_of(kind, SMALL, "float32")
    _, saved = forward(kind, arrays)
    want = backward(kind, arrays, saved)
    dWh = np.full_like(want["dWh"], 3)
    got = backward(kind, arrays, saved, Destination({"dWh": dWh, "dWx": None}, accumulate=True, without=()))
    assert_same_bits(got, want | {"dWh": 3 + want["dWh"]})


@each_kind
@each_shape
@each_dtype
def test_what_is_not_wanted_changes_nothing_else(kind: Kind, shape: tuple[int, int, int, int], dtype: str) -> None:
    arrays = arrays_of(kind, shape, dtype)
    _, saved = forward(kind, arrays)
    want = backward(kind, arrays, saved)
    names = tuple(want)
    for count in (1, 2, len(names) - 1, len(names)):
        for without in itertools.combinations(names, count):
            got = backward(kind, arrays, saved, Destination({}, accumulate=False, without=without))
            assert_same_bits(got, want | dict.fromkeys(without))


def cell(kind: Kind, arrays: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    options = {name: value for name, value in kind.options.items() if name != "recurrent_activation"}
    states = {"h_prev": arrays["h0"]} | ({"c_prev": arrays["c0"]} if kind.family == "lstm" else {})
    *outputs, saved = kind.function("cell_forward")(
        *(arrays[name] for name in ("x", "Wx", "Wh", "b")), **states, **options, precision="float32"
    )
    return dict(zip(("h_n", "c_n"), outputs, strict=False)), saved


def cell_backward(kind: Kind, arrays: dict[str, Any], saved: Any, into: Destination) -> dict[str, Any]:
    upstream = {"dh": arrays["dh_n"]} | ({"dc": arrays["dc_n"]} if kind.family == "lstm" else {})
    return dict(kind.function("cell_backward")(saved, **upstream, into=into)._asdict())


SEQUENCE_NAMES = {"dx": "dxs", "dh_prev": "dh0", "dc_prev": "dc0"}


@each_kind
@pytest.mark.parametrize("N", [0, 1, 3])
@pytest.mark.parametrize("given", ["Wx b", "b", "Wx", ""])
def test_a_cell_is_a_sequence_of_one_step(kind: Kind, N: int, given: str) -> None:
    arrays = arrays_of(kind, (N, 1, 19, 37), "float32", mask=False) | {"dhs": None}
    if "Wx" not in given:
        arrays |= {"xs": arrays["xs"] @ arrays["Wx"], "Wx": None}
    if "b" not in given:
        arrays["b"] = None
    arrays["x"] = arrays["xs"][:, 0]
    want = both(kind, arrays)
    outputs, saved = cell(kind, arrays)
    assert_same_bits(outputs, {name: want[name] for name in outputs})
    want = {name: want[SEQUENCE_NAMES.get(name, name)] for name in cell_backward(kind, arrays, saved, NEW)}
    want["dx"] = want["dx"][:, 0]
    assert_same_bits(cell_backward(kind, arrays, saved, NEW), want)
    with guarded_memory():
        out = results_like({name: value for name, value in want.items() if value is not None}, "transposed")
        added = {name: out[name] + want[name] for name in WEIGHTS if name in out}
        got = cell_backward(kind, arrays, saved, Destination(out, accumulate=True, without=()))
        assert_same_bits(got, want | added)
        assert all(got[name] is array for name, array in out.items())
        del got, out
    for name in want:
        got = cell_backward(kind, arrays, saved, Destination({}, accumulate=False, without=(name,)))
        assert_same_bits(got, want | {name: None})


@each_kind
@each_dtype
@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("turn", [(), ("Wx", "Wh")])
def test_a_row_alone_gives_the_bits_of_a_row_of_many(kind: Kind, dtype: str, T: int, turn: tuple[str, ...]) -> None:
    many = arrays_of(kind, (5, T, 29, 51), dtype)
    many |= {name: transposed(many[name]) for name in turn}
    of_rows = ("xs", "h0", "c0", "mask", "dhs", "dh_n", "dc_n")
    want = both(kind, many)
    for n in range(5):
        got = both(kind, many | {name: many[name][n : n + 1].copy() for name in of_rows})
        for name in ("hs", "h_n", "c_n", "dxs", "dh0", "dc0"):
            assert name not in got or got[name].tobytes() == want[name][n : n + 1].tobytes(), name


@each_kind
@pytest.mark.parametrize("shape", [(1, 2, 600, 700), (16, 6, 40, 300), (48, 5, 200, 150)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(kind: Kind, shape: tuple[int, int, int, int]) -> None:
    """Work enough for a team: alone in its way, split by units, and split by rows."""
    arrays = arrays_of(kind, shape, "float32")
    arrays |= {"Wx": transposed(arrays["Wx"]), "xs": next(layouts_of_a_sequence(arrays["xs"]))}
    found = []
    for threads in (1, 2, 3):
        fastlstm.set_num_threads(threads)
        _, saved = forward(kind, arrays, time_major=True)
        given = results_like(backward(kind, arrays, saved), "transposed")
        into = Destination(given, accumulate=True, without=("dh0",))
        pre_activations = arrays | {"xs": arrays["xs"] @ arrays["Wx"], "Wx": None, "b": None}
        found.append((backward(kind, arrays, saved, into), both(kind, pre_activations)))
    for grads, of_pre_activations in found[1:]:
        assert_same_bits(grads, found[0][0])
        assert_same_bits(of_pre_activations, found[0][1])


def reordered(array: Any, order: str, other: str) -> Any:
    """The same gates' blocks of columns in another order."""
    blocks = dict(zip(order, np.split(array, len(order), axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in other], axis=-1)


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("zrn")])
@pytest.mark.parametrize("inputs", ["inputs", "pre-activations"])
@pytest.mark.parametrize("reset_after", [False, True])
def test_gates_of_a_gru_in_any_order(order: str, inputs: str, reset_after: bool) -> None:
    kinds = [
        Kind("gru", 3, {"convention": GRUConvention(some, reset_after=reset_after, z_keeps=False)})
        for some in ("zrn", order)
    ]
    arrays = arrays_of(kinds[0], SMALL, "float32")
    by_gates = ["Wx", "Wh", "b"]
    if inputs == "pre-activations":
        arrays |= {"xs": arrays["xs"] @ arrays["Wx"], "Wx": None}
        by_gates = ["xs", "Wh", "b"]
    want = both(kinds[0], arrays)
    got = both(kinds[1], arrays | {name: reordered(arrays[name], "zrn", order) for name in by_gates})
    assert_same_bits(got, want | {f"d{name}": reordered(want[f"d{name}"], "zrn", order) for name in by_gates})


@pytest.mark.parametrize("reset_after", [False, True])
@each_dtype
def test_z_may_keep_or_replace(reset_after: bool, dtype: str) -> None:
    """1 - sigmoid(a) = sigmoid(-a), wherever the reset gate stands."""
    keeps, replaces = (
        Kind("gru", 3, {"convention": GRUConvention("zrn", reset_after=reset_after, z_keeps=z_keeps)})
        for z_keeps in (True, False)
    )
    arrays = arrays_of(keeps, SMALL, dtype)
    negative = np.repeat(np.array([-1, 1, 1], dtype), SMALL[3])
    want, got = both(keeps, arrays), both(replaces, arrays | {k: arrays[k] * negative for k in ("Wx", "Wh", "b")})
    for name, value in got.items():
        assert_near(value * negative if name in WEIGHTS else value, want[name], dtype)


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("ifgo")])
def test_gates_of_pre_activations_of_an_lstm_in_any_order(order: str) -> None:
    kinds = [Kind("lstm", 4, {**LSTM.options, "gate_order": some}) for some in ("ifgo", order)]
    arrays = arrays_of(kinds[0], (2, 3, 4, 19), "float32")
    arrays |= {"xs": arrays["xs"] @ arrays["Wx"], "Wx": None}
    by_gates = ["xs", "Wh", "b"]
    want = both(kinds[0], arrays)
    got = both(kinds[1], arrays | {name: reordered(arrays[name], "ifgo", order) for name in by_gates})
    assert_same_bits(got, want | {f"d{name}": reordered(want[f"d{name}"], "ifgo", order) for name in by_gates})


@each_kind
def test_a_tape_can_be_used_again_for_other_results(kind: Kind) -> None:
    arrays = arrays_of(kind, SMALL, "float32")
    _, saved = forward(kind, arrays, time_major=True)
    want = backward(kind, arrays, saved)
    without = Destination({}, accumulate=False, without=("dxs", "dWh"))
    assert_same_bits(backward(kind, arrays, saved, without), want | {"dxs": None, "dWh": None})
    assert_same_bits(backward(kind, arrays, saved), want)
