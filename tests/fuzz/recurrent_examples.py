"""Examples of the recurrent operators: cells, sequences, and sequences with prepared weights."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from fuzz_arrays import Source

from fastlstm.contract import (
    GRU_CONVENTIONS,
    GRUCellGrads,
    GRUConvention,
    GRUGrads,
    LSTMCellGrads,
    LSTMGrads,
    RNNCellGrads,
    RNNGrads,
)
from fastlstm.testing import Case

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
GATE_ORDERS = ["".join(order) for order in itertools.permutations("ifgo")]
CONVENTIONS = [
    GRUConvention("".join(order), after, keeps)
    for order in itertools.permutations("zrn")
    for after in (False, True)
    for keeps in (False, True)
]
_GRADS: dict[str, Any] = {"lstm": LSTMGrads, "gru": GRUGrads, "rnn": RNNGrads}
_CELL_GRADS: dict[str, Any] = {"lstm": LSTMCellGrads, "gru": GRUCellGrads, "rnn": RNNCellGrads}


def _weights(source: Source, family: str, D: int, H: int) -> dict[str, Any]:
    """Wx, Wh, b and the option that says how the gates lie."""
    options: dict[str, Any] = {}
    two_biases = False
    if family == "lstm" and source.chance(0.6):
        options["gate_order"] = source.pick(GATE_ORDERS)
    elif family == "gru":
        convention: Any = source.pick((*GRU_CONVENTIONS, source.pick(CONVENTIONS)))
        two_biases = dict[Any, GRUConvention](GRU_CONVENTIONS).get(convention, convention).reset_after
        options["convention"] = convention
    G = GATES[family] * H
    options["Wx"] = None if source.chance(0.12) else source.weights(D, G)
    options["Wh"] = source.weights(H, G)
    bias = source.floats(*((2, G) if two_biases else (G,)), scale=0.5)
    options["b"] = None if source.chance(0.12) else source.laid_out(bias)
    if source.dtype == np.float32 and source.chance(0.15):
        options["precision"] = "bf16"
    return options


def _states(source: Source, family: str, N: int, H: int, names: tuple[str, ...]) -> dict[str, Any]:
    states = {name: source.laid_out(source.floats(N, H, scale=0.7)) for name in names[: 2 if family == "lstm" else 1]}
    if len(states) == 2 and source.chance(0.1):  # one array may be read as both
        states[names[1]] = states[names[0]]
    return states


def _destination(source: Source, grads: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """out, accumulate and without, each now and then."""
    options: dict[str, Any] = {}
    if source.chance(0.25):
        names = [name for name in grads._fields if source.chance(0.4)]
        options["without"] = source.pick((tuple, list))(names)
    if source.chance(0.35):
        accumulate = source.chance(0.5)
        arrays = {}
        for name, shape in shapes.items():
            if source.chance(0.7):
                added = accumulate and name in ("dWx", "dWh", "db")
                array = source.floats(*shape, plain=True) if added else np.full(shape, np.nan, source.dtype)
                arrays[name] = source.turned(array) if name in ("dWx", "dWh") and source.chance(0.4) else array
        options["out"] = grads(**{name: arrays.get(name) for name in grads._fields})
        options["accumulate"] = accumulate
    return options


def sequence(source: Source, op: str) -> Case:
    family = op.removesuffix("_forward")
    large = source.chance(0.03)
    N = source.pick((97, 130, 200)) if large else source.count(33)
    T = source.count(4) if large else source.pick((0, 1, 1, 2, 3, 4, 6, 9, 20))
    H = source.pick((160, 257)) if source.chance(0.02) else source.width(129 if N * T < 60 else 48)
    D = source.width(100 if N * T < 60 else 33)
    inputs = _weights(source, family, D, H)
    time_major = source.chance(0.3)
    columns = D if inputs["Wx"] is not None else GATES[family] * H

    def by_time(array: Any) -> Any:
        """(N, T, ...) as the call takes it: time first where that is so, either way of memory."""
        if not time_major:
            return array
        swapped = array.swapaxes(0, 1)
        return swapped if source.chance(0.3) else np.ascontiguousarray(swapped)

    inputs["xs"] = source.laid_out(by_time(source.floats(N, T, columns)))
    if time_major:
        inputs["time_major"] = True
    if source.chance(0.7):
        inputs |= _states(source, family, N, H, ("h0", "c0"))
    if source.chance(0.35):
        inputs["mask"] = by_time(source.mask(N, T))
    elif source.chance(0.25):
        inputs["lengths"] = source.laid_out(source.rng.integers(0, T + 1, N).astype(source.pick((np.int64, np.uint8))))
    if source.chance(0.3):
        inputs["reverse"] = True
    if family == "lstm" and source.chance(0.2):
        inputs["recurrent_activation"] = "hard_sigmoid"
    if source.chance(0.15):
        inputs["training"] = False
        return Case("sequence", op, inputs)
    upstream: dict[str, Any] = {"dhs": None}
    if source.chance(0.85):
        upstream["dhs"] = source.laid_out(by_time(source.floats(N, T, H)))
    if source.chance(0.6):
        upstream |= _states(source, family, N, H, ("dh_n", "dc_n"))
    given = {name: inputs[name[1:]] for name in ("dxs", "dWx", "dWh", "db")}
    shapes = {name: array.shape for name, array in given.items() if array is not None}
    shapes |= dict.fromkeys(("dh0", "dc0")[: 2 if family == "lstm" else 1], (N, H))
    upstream |= _destination(source, _GRADS[family], shapes)
    return Case("sequence", op, inputs, upstream)


def cell(source: Source, op: str) -> Case:
    family = op.removesuffix("_cell_forward")
    N, D, H = source.count(), source.width(100), source.width()
    inputs = _weights(source, family, D, H)
    columns = D if inputs["Wx"] is not None else GATES[family] * H
    inputs["x"] = source.laid_out(source.floats(N, columns))
    inputs |= _states(source, family, N, H, ("h_prev", "c_prev"))
    upstream: dict[str, Any] = _states(source, family, N, H, ("dh", "dc"))
    given = {name: inputs.get(name[1:]) for name in _CELL_GRADS[family]._fields}
    shapes = {name: array.shape for name, array in given.items() if array is not None}
    upstream |= _destination(source, _CELL_GRADS[family], shapes)
    return Case("cell", op, inputs, upstream)
