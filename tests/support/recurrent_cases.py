"""The inputs of the LSTM, the GRU and the tanh RNN, cells and sequences; see ``cases``."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from draw import Draw

from fastlstm.contract import (
    GRU_CONVENTIONS,
    BoolArray,
    FloatArray,
    GRUCellGrads,
    GRUConvention,
    GRUGrads,
    LSTMCellGrads,
    LSTMGrads,
    RNNCellGrads,
    RNNGrads,
)
from fastlstm.testing import Case

ALL_GATE_ORDERS = tuple("".join(order) for order in itertools.permutations("ifgo"))
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _mask(kind: str, N: int, T: int, rng: np.random.Generator) -> BoolArray:
    if kind == "padding":
        return np.asarray(np.arange(T) < rng.integers(0, T + 1, (N, 1)))
    if kind == "left padding":
        return np.asarray(np.arange(T) >= rng.integers(0, T + 1, (N, 1)))
    if kind == "no step counts":
        return np.zeros((N, T), bool)
    mask = rng.random((N, T)) < 0.6  # holes
    mask[: N // 3] = False  # rows that do not count at all
    return mask


def _recurrent(
    op: str,
    name: str,
    shape: tuple[int, int, int, int],
    *,
    mask: str | None = None,
    lengths: bool = False,
    states: bool = True,
    upstream: tuple[str, ...] | None = None,
    **options: Any,
) -> Case:
    """A case of lstm_, gru_ or rnn_forward. ``upstream`` names the upstream gradients that are given; all if None."""
    N, T, D, H = shape
    draw = Draw(op + name)
    lstm = op == "lstm_forward"
    G = GATES[op[: op.index("_")]] * H
    two_biases = op == "gru_forward" and _convention(options).reset_after
    inputs: dict[str, Any] = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, G),
        "Wh": draw.weights(H, G),
        "b": draw.floats(2, G, scale=0.5) if two_biases else draw.floats(G, scale=0.5),
        **options,
    }
    if states:
        inputs["h0"] = draw.floats(N, H, scale=0.5)
        if lstm:
            inputs["c0"] = draw.floats(N, H)
    if mask is not None:
        inputs["mask"] = _mask(mask, N, T, draw.rng)
    if lengths:
        inputs["lengths"] = draw.rng.integers(0, T + 1, N)
    gradients = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H)}
    if lstm:
        gradients["dc_n"] = draw.floats(N, H)
    given = gradients if upstream is None else {name: gradients[name] for name in upstream}
    return Case(name, op, inputs, {"dhs": None, **given})


def _convention(options: dict[str, Any]) -> GRUConvention:
    convention = options.get("convention", "book")
    return convention if isinstance(convention, GRUConvention) else GRU_CONVENTIONS[convention]


def _padding_of_nan(case: Case) -> Case:
    """The same case with NaN in the inputs of all steps that do not count; no result may change."""
    xs = case.inputs["xs"].copy()
    xs[~case.inputs["mask"]] = np.nan
    return Case(case.name + "-of-nan", case.op, {**case.inputs, "xs": xs}, case.upstream)


def _recurrent_cases(op: str, suffix: str = "", **options_of_all: Any) -> list[Case]:
    def case(name: str, shape: tuple[int, int, int, int], **options: Any) -> Case:
        return _recurrent(op, name + suffix, shape, **options_of_all, **options)

    return [
        # Sizes.
        case("ones", (1, 1, 1, 1)),
        case("H2", (2, 3, 3, 2)),
        case("H15", (5, 3, 16, 15)),
        case("H16", (7, 3, 17, 16)),
        case("H17", (20, 3, 1, 17)),
        case("H33", (7, 5, 3, 33)),
        case("H64", (5, 4, 16, 64)),
        case("H100", (20, 3, 100, 100)),
        case("H130", (9, 2, 33, 130)),
        case("addition", (128, 7, 16, 128)),
        case("many-rows", (70, 3, 17, 33)),
        case("one-row", (1, 12, 16, 33)),
        case("long", (3, 40, 5, 20)),
        case("wide-input", (3, 2, 300, 16)),
        case("N0", (0, 3, 3, 16)),
        case("T0", (5, 0, 3, 17)),
        case("N0-T0", (0, 0, 1, 1)),
        # Which gradients and states are given.
        case("no-states", (5, 3, 3, 17), states=False),
        case("only-dhs", (5, 3, 3, 17), upstream=("dhs",)),
        case("only-dh_n", (5, 3, 3, 17), upstream=("dh_n",)),
        case("no-upstream", (2, 3, 3, 17), upstream=()),
        # Direction and masks.
        case("reverse", (7, 5, 3, 17), reverse=True),
        case("reverse-one-row", (1, 4, 3, 16), reverse=True),
        case("lengths", (20, 6, 3, 17), lengths=True),
        case("lengths-reverse", (7, 6, 16, 33), lengths=True, reverse=True),
        case("padding", (7, 6, 3, 16), mask="padding"),
        case("left-padding", (7, 6, 3, 33), mask="left padding"),
        case("holes", (20, 6, 17, 17), mask="holes"),
        case("holes-reverse", (7, 6, 3, 64), mask="holes", reverse=True),
        case("holes-no-states", (7, 6, 3, 15), mask="holes", states=False),
        case("no-step-counts", (5, 3, 3, 17), mask="no step counts"),
        case("mask-T0", (5, 0, 3, 17), mask="padding"),
        _padding_of_nan(case("holes", (20, 6, 17, 17), mask="holes")),
        _padding_of_nan(case("no-step-counts", (5, 3, 3, 17), mask="no step counts")),
    ]


def _saturated(op: str, name: str = "saturated", **options: Any) -> Case:
    """Gates pushed to exactly 0 and 1, where a careless sigmoid or tanh overflows."""
    case = _recurrent(op, name, (5, 4, 3, 17), **options)
    large = {name: case.inputs[name] * scale for name, scale in (("xs", 1e3), ("c0", 50)) if name in case.inputs}
    return Case(case.name, case.op, {**case.inputs, **large}, case.upstream)


LSTM = [
    *_recurrent_cases("lstm_forward"),
    _recurrent("lstm_forward", "only-dc_n", (5, 3, 3, 17), upstream=("dc_n",)),
    _recurrent("lstm_forward", "hard-sigmoid", (7, 4, 3, 33), recurrent_activation="hard_sigmoid"),
    _recurrent(
        "lstm_forward",
        "hard-sigmoid-holes-reverse",
        (7, 4, 16, 17),
        recurrent_activation="hard_sigmoid",
        mask="holes",
        reverse=True,
        gate_order="fgio",
    ),
    _saturated("lstm_forward"),
]
GRU = [
    *_recurrent_cases("gru_forward"),
    *_recurrent_cases("gru_forward", "-pytorch", convention="pytorch"),
    _recurrent("gru_forward", "H33-keras", (7, 5, 3, 33), convention="keras"),
    _recurrent("gru_forward", "holes-reverse-keras", (7, 6, 3, 64), convention="keras", mask="holes", reverse=True),
    _recurrent("gru_forward", "units-split", (5, 3, 20, 330)),
    _recurrent("gru_forward", "units-split-holes-pytorch", (9, 4, 70, 270), convention="pytorch", mask="holes"),
    _saturated("gru_forward"),
    _saturated("gru_forward", "saturated-pytorch", convention="pytorch"),
]
RNN = _recurrent_cases("rnn_forward")

LSTM_GATE_ORDERS = [
    _recurrent("lstm_forward", order, (5, 3, 3, 17), gate_order=order, mask="holes") for order in ALL_GATE_ORDERS
]


def _turned(array: FloatArray) -> FloatArray:
    """The same values as the transpose of a C-contiguous array."""
    return np.ascontiguousarray(array.T).T


def _layouts(op: str, name: str, shape: tuple[int, int, int, int], **options: Any) -> list[Case]:
    """One call with everything a caller may leave out or lay out in another way, one after the other and together."""
    base = _recurrent(op, name, shape, **options)
    N, T, D, H = shape
    inputs, upstream = dict(base.inputs), dict(base.upstream)
    gated = Draw(op + name + "gated").floats(N, T, GATES[op[: op.index("_")]] * H)
    turned = {"Wx": _turned(inputs["Wx"]), "Wh": _turned(inputs["Wh"])}
    wide = np.repeat(np.repeat(inputs["xs"], 2, axis=0), 3, axis=1)
    strided = {"xs": wide[::2, ::3]}
    backwards = {"xs": np.ascontiguousarray(inputs["xs"][::-1, ::-1])[::-1, ::-1]}
    by_time: dict[str, Any] = {"xs": np.ascontiguousarray(inputs["xs"].swapaxes(0, 1)), "time_major": True}
    if "mask" in inputs:
        by_time["mask"] = np.ascontiguousarray(inputs["mask"].T)
    dhs_by_time = {"dhs": np.ascontiguousarray(upstream["dhs"].swapaxes(0, 1))}
    strided_dhs = {"dhs": np.repeat(np.repeat(upstream["dhs"], 3, axis=0), 2, axis=1)[::3, ::2]}
    same = {"dhs": np.broadcast_to(upstream["dhs"][:, :1], (N, T, H))}
    variants: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "no-bias": ({"b": None}, {}),
        "gated": ({"xs": gated, "Wx": None}, {}),
        "gated-no-bias": ({"xs": gated, "Wx": None, "b": None}, {}),
        "turned": (turned, {}),
        "strided": (strided, strided_dhs),
        "backwards": (backwards, same),
        "time-major": (by_time, dhs_by_time),
        "time-major-gated-turned": (
            {**turned, **by_time, "xs": np.ascontiguousarray(gated.swapaxes(0, 1)), "Wx": None},
            dhs_by_time,
        ),
    }
    return [
        Case(f"{name}-{kind}", op, {**inputs, **some}, {**upstream, **of_some})
        for kind, (some, of_some) in variants.items()
    ]


LSTM_LAYOUTS = [
    *_layouts("lstm_forward", "layout", (7, 5, 9, 17)),
    *_layouts("lstm_forward", "layout-holes", (9, 6, 33, 20), mask="holes", reverse=True, gate_order="fgio"),
    *_layouts("lstm_forward", "layout-one-row", (1, 2, 16, 33), gate_order="ogif"),
    *_layouts("lstm_forward", "layout-units-split", (9, 4, 70, 270)),
]
GRU_LAYOUTS = [
    *_layouts("gru_forward", "layout", (7, 5, 9, 17)),
    *_layouts("gru_forward", "layout-pytorch-holes", (9, 6, 33, 20), convention="pytorch", mask="holes"),
    *_layouts("gru_forward", "layout-one-row", (1, 2, 16, 33), convention="keras", reverse=True),
    *_layouts("gru_forward", "layout-units-split", (9, 4, 70, 270)),
    *(
        _recurrent("gru_forward", f"convention-{order}-{after:d}-{keeps:d}", (5, 3, 4, 17), mask="holes", convention=c)
        for order in map("".join, itertools.permutations("zrn"))
        for after in (False, True)
        for keeps in (False, True)
        for c in [GRUConvention(order, after, keeps)]
    ),
]
RNN_LAYOUTS = [
    *_layouts("rnn_forward", "layout", (7, 5, 9, 17)),
    *_layouts("rnn_forward", "layout-holes", (9, 6, 33, 70), mask="holes", reverse=True),
    *_layouts("rnn_forward", "layout-one-row", (1, 2, 16, 33)),
]


def _cell(family: str, name: str, N: int, D: int, H: int, **options: Any) -> Case:
    draw = Draw(family + "_cell" + name)
    G = GATES[family] * H
    two_biases = family == "gru" and _convention(options).reset_after
    inputs: dict[str, Any] = {"x": draw.floats(N, D), "h_prev": draw.floats(N, H, scale=0.5)}
    if family == "lstm":
        inputs["c_prev"] = draw.floats(N, H)
    inputs |= {
        "Wx": draw.weights(D, G),
        "Wh": draw.weights(H, G),
        "b": draw.floats(2, G, scale=0.5) if two_biases else draw.floats(G, scale=0.5),
        **options,
    }
    upstream = {"dh": draw.floats(N, H)}
    if family == "lstm":
        upstream["dc"] = draw.floats(N, H)
    return Case(name, f"{family}_cell_forward", inputs, upstream)


def _cells(family: str, **options: Any) -> list[Case]:
    suffix = "".join(f"-{value}" for value in options.values())
    base = _cell(family, "turned" + suffix, 5, 9, 33, **options)
    turned = {"Wx": _turned(base.inputs["Wx"]), "Wh": _turned(base.inputs["Wh"])}
    gated = {"x": Draw(family + suffix).floats(5, GATES[family] * 33), "Wx": None, "b": None}
    return [
        _cell(family, "ones" + suffix, 1, 1, 1, **options),
        _cell(family, "H2" + suffix, 2, 3, 2, **options),
        _cell(family, "H15" + suffix, 5, 16, 15, **options),
        _cell(family, "H16" + suffix, 7, 17, 16, **options),
        _cell(family, "H17" + suffix, 20, 1, 17, **options),
        _cell(family, "H64" + suffix, 5, 16, 64, **options),
        _cell(family, "H100" + suffix, 70, 33, 100, **options),
        _cell(family, "one-row" + suffix, 1, 33, 100, **options),
        _cell(family, "N0" + suffix, 0, 3, 16, **options),
        Case(base.name, base.op, {**base.inputs, **turned}, base.upstream),
        Case("gated" + suffix, base.op, {**base.inputs, **gated}, base.upstream),
    ]


CELLS = [
    *_cells("lstm"),
    *(_cell("lstm", order, 5, 3, 17, gate_order=order) for order in ALL_GATE_ORDERS),
    *_cells("gru"),
    *_cells("gru", convention="pytorch"),
    *_cells("rnn"),
]

_GRADS: dict[str, Any] = {
    "lstm_forward": LSTMGrads,
    "gru_forward": GRUGrads,
    "rnn_forward": RNNGrads,
    "lstm_cell_forward": LSTMCellGrads,
    "gru_cell_forward": GRUCellGrads,
    "rnn_cell_forward": RNNCellGrads,
}


def _into(case: Case) -> list[Case]:
    """Gradients into arrays that hold NaN, added to what there is, and without some of them.

    Those of matrices lie in memory as they are, or as transposes.
    """
    grads = _GRADS[case.op]
    shapes = {}
    for field in grads._fields:
        given = case.inputs.get(field[1:])
        if given is not None:
            shapes[field] = given.shape
        elif field not in ("dWx", "db"):
            shapes[field] = case.upstream["dh_n"].shape
    draw = Draw(f"{case}into")
    fresh = {field: np.full(shape, np.nan) for field, shape in shapes.items()}
    held = {field: draw.floats(*shapes[field]) for field in ("dWx", "dWh", "db") if field in shapes}
    turned = {field: _turned(array) for field, array in fresh.items() if field in ("dWx", "dWh")}
    held_turned = {field: _turned(array) for field, array in held.items() if field in ("dWx", "dWh")}

    def out(**arrays: Any) -> Any:
        return grads(**{field: arrays.get(field) for field in grads._fields})

    states = tuple(field for field in grads._fields if field in ("dh0", "dc0", "dh_prev", "dc_prev"))
    of_x = grads._fields[0]
    variants: dict[str, dict[str, Any]] = {
        "into": {"out": out(**fresh)},
        "into-turned": {"out": out(**{**fresh, **turned})},
        "added": {"out": out(**held), "accumulate": True},
        "added-turned": {"out": out(**{**held, **held_turned}), "accumulate": True},
        "partly-added": {"out": out(dWh=held["dWh"]), "accumulate": True},
        "without-dx": {"without": (of_x,)},
        "without-states": {"without": (of_x, *states), "out": out(**held), "accumulate": True},
        "without-weights": {"without": ("dWx", "dWh", "db")},
        "without-dWx": {"without": ["dWx"]},
        "db-alone": {"without": (of_x, *states, "dWx", "dWh")},
        "nothing": {"without": grads._fields},
    }
    return [
        Case(f"{case.name}-{kind}", case.op, case.inputs, {**case.upstream, **options})
        for kind, options in variants.items()
    ]


_WRITTEN_INTO = {"H17", "one-row", "T0", "units-split", "layout-time-major", "layout-holes-gated"}
RECURRENT_INTO = [
    case
    for base in (*LSTM, *LSTM_LAYOUTS, *GRU, *GRU_LAYOUTS, *RNN, *RNN_LAYOUTS)
    if base.name in _WRITTEN_INTO
    for case in _into(base)
]
CELLS_INTO = [case for base in CELLS if base.name in {"H17", "one-row", "gated"} for case in _into(base)]

# Products with their factors rounded, of float32: odd D, H and numbers of rows, one row with few and many steps, masks
# and layouts.
_RECURRENT_IN_BF16 = {
    *("ones", "H15", "H17", "H64", "H130", "addition", "many-rows", "one-row", "N0", "T0"),
    *("lengths-reverse", "holes-reverse", "holes-of-nan", "hard-sigmoid-holes-reverse"),
    *("H17-pytorch", "one-row-pytorch", "holes-pytorch-of-nan", "holes-reverse-keras"),
    *("units-split", "units-split-holes-pytorch", "layout-holes-turned", "layout-holes-time-major-gated-turned"),
    *("layout-one-row-turned", "layout-one-row-gated", "layout-pytorch-holes-gated"),
    *("layout-pytorch-holes-time-major", "layout-units-split-time-major-gated-turned"),
    *("gated", "turned", "N0-pytorch", "H17-added-turned", "one-row-added", "units-split-into-turned"),
    *("H17-without-weights", "H17-db-alone"),
}
RECURRENT_BF16 = [
    dataclasses.replace(case, name=f"{case.name}-bf16", inputs={**case.inputs, "precision": "bf16"})
    for some in (LSTM, LSTM_LAYOUTS, CELLS, GRU, GRU_LAYOUTS, RNN, RNN_LAYOUTS, RECURRENT_INTO, CELLS_INTO)
    for case in some
    if case.name in _RECURRENT_IN_BF16
]
