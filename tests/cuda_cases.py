"""What the tests of the CUDA backend run, on an emulated GPU and on a real one."""

from __future__ import annotations

from typing import Any

import cases

from fastlstm.contract import Precision
from fastlstm.testing import Case, check_backend

H200 = {"multiprocessors": 132, "shared_bytes": 232448}
# So few and so small that short sequences take several units, several groups of rows, weights that do not fit, and
# several passes one after the other.
SMALL = {"multiprocessors": 12, "shared_bytes": 60_000}

RUNS: list[tuple[str, Precision]] = [
    ("step", "float32"),
    ("step", "float64"),
    ("step", "tf32"),
    ("step", "bf16"),
    ("persistent", "float32"),
    ("persistent", "float64"),
    ("persistent", "tf32"),
    ("persistent", "bf16"),
    ("rows", "float32"),
]
# Families without a choice of kernels, in the precisions of the arrays.
POINTWISE = {"dense": cases.DENSE, "optim": cases.OPTIM}
RECURRENT = [*cases.LSTM, *cases.GRU, *cases.RNN, *cases.LSTM_CELL, *cases.LSTM_GATE_ORDERS]


def fits(case: Case, kernel: str, precision: str) -> bool:
    """Whether the kernel takes the case on the SMALL device, in bearable time."""
    H = case.inputs["Wh"].shape[0]
    if case.name == "addition" or (precision in ("tf32", "bf16") and case.name == "saturated"):
        return False  # the emulation is slow; inputs of 1000 leave no digits to compare
    if kernel == "rows":
        return case.op.startswith("lstm") and H < 100  # wider ones have their own test
    if kernel == "persistent" and case.op == "gru_forward" and H > 12 * 20:
        return False  # a multiprocessor takes 21 units, of three columns each
    return not (kernel == "persistent" and precision == "float64" and H >= 100)


def in_precision(case: Case, precision: Precision) -> None:
    dtype = "float64" if precision == "float64" else "float32"
    check_backend("cuda", case, dtype, precision=precision)


def gru_case(N: int, T: int, D: int, H: int, convention: str, **options: Any) -> Case:
    """A GRU with a mask, a state and all upstream gradients."""
    draw = cases.Draw(f"cuda gru {N} {T} {D} {H}")
    bias = draw.floats(2, 3 * H, scale=0.5)
    inputs = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, 3 * H),
        "Wh": draw.weights(H, 3 * H),
        "b": bias[0] if convention == "book" else bias,
        "h0": draw.floats(N, H, scale=0.5),
        "mask": draw.rng.random((N, T)) < 0.8,
        "convention": convention,
        **options,
    }
    upstream = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H)}
    return Case(f"N{N}-T{T}-D{D}-H{H}-{convention}", "gru_forward", inputs, upstream)


def recurrent_case(N: int, T: int, D: int, H: int, **options: Any) -> Case:
    """An LSTM with a mask, states and all upstream gradients."""
    draw = cases.Draw(f"cuda {N} {T} {D} {H}")
    inputs = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, 4 * H),
        "Wh": draw.weights(H, 4 * H),
        "b": draw.floats(4 * H, scale=0.5),
        "h0": draw.floats(N, H, scale=0.5),
        "c0": draw.floats(N, H),
        "mask": draw.rng.random((N, T)) < 0.8,
        **options,
    }
    upstream = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H), "dc_n": draw.floats(N, H)}
    return Case(f"N{N}-T{T}-D{D}-H{H}", "lstm_forward", inputs, upstream)
