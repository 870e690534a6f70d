"""Weights gate by gate and side by side."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from fastlstm import ops
from fastlstm.contract import GRU_CONVENTIONS


def drawn(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("order", ["ifgo", "fgio", "zrn", "rzn"])
@pytest.mark.parametrize(("shape", "axis"), [((5,), -1), ((3, 5), -1), ((5, 3), 0), ((2, 5), 1), ((0, 5), -1)])
def test_gates_stand_in_their_order_along_the_axis(order: str, shape: tuple[int, ...], axis: int) -> None:
    gates = {gate: drawn(*shape) + k for k, gate in enumerate(sorted(order))}
    packed = ops.pack_gates(gates, gate_order=order, axis=axis)
    assert packed.flags.c_contiguous
    assert packed.dtype == np.float32
    for k, gate in enumerate(order):
        np.testing.assert_array_equal(np.split(packed, len(order), axis)[k], gates[gate])
    unpacked = ops.unpack_gates(packed, gate_order=order, axis=axis)
    assert list(unpacked) == list(order)
    for gate, array in unpacked.items():
        np.testing.assert_array_equal(array, gates[gate])
        assert array.flags.carray
        assert not np.may_share_memory(array, packed)


def test_transposes_and_slices_are_packed_into_rows() -> None:
    wide = drawn(6, 8)
    gates = {gate: wide.T[:, k : k + 3] for k, gate in enumerate("ifgo")}
    packed = ops.pack_gates(gates)
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packed, np.concatenate(list(gates.values()), axis=1))


def test_an_lstm_in_columns_is_that_in_rows() -> None:
    """A loop that keeps a matrix (H, D) a gate, and updates each by itself."""
    D, H = 3, 4
    Wx, Wh = ({gate: drawn(H, width) * (k + 1) for k, gate in enumerate("ifgo")} for width in (D, H))
    b = {gate: drawn(H) - k for k, gate in enumerate("ifgo")}
    xs, order = drawn(2, 5, D), "ogif"
    columns: Any = [ops.pack_gates(W, gate_order=order, axis=0).T for W in (Wx, Wh)]
    rows: Any = [ops.pack_gates({gate: w.T for gate, w in W.items()}) for W in (Wx, Wh)]
    got = ops.lstm_forward(xs, columns[0], columns[1], ops.pack_gates(b, gate_order=order), gate_order=order)
    want = ops.lstm_forward(xs, rows[0], rows[1], ops.pack_gates(b))
    np.testing.assert_allclose(got.hs, want.hs, atol=1e-6)
    of_columns = ops.lstm_backward(got.hs, got.tape)
    of_rows = ops.lstm_backward(want.hs, want.tape)
    for gate, dW in ops.unpack_gates(of_columns.dWh, gate_order=order).items():
        np.testing.assert_allclose(dW, ops.unpack_gates(of_rows.dWh)[gate], atol=1e-5)
    ops.sgd_update(Wh["f"].T, ops.unpack_gates(of_rows.dWh)["f"], 0.1)


def test_a_gru_has_the_order_of_its_convention() -> None:
    H, xs = 4, drawn(2, 5, 3)
    Wx, Wh = ({gate: drawn(width, H) * (k + 1) for k, gate in enumerate("zrn")} for width in (3, H))
    b = {gate: drawn(2, H) - k for k, gate in enumerate("zrn")}
    outputs: list[Any] = []
    for convention in ("pytorch", "keras"):
        order = GRU_CONVENTIONS[convention].gate_order
        weights: Any = [ops.pack_gates(gates, gate_order=order) for gates in (Wx, Wh, b)]
        outputs.append(ops.gru_forward(xs, *weights, convention=convention).hs)
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_gates_on_a_gpu_stay_there(emulation: Any) -> None:
    cupy = sys.modules["cupy"]
    gates = {gate: drawn(3, 5) + k for k, gate in enumerate("ifgo")}
    packed = ops.pack_gates({gate: cupy.asarray(array) for gate, array in gates.items()})
    assert isinstance(packed, cupy.ndarray)
    for gate, array in ops.unpack_gates(packed).items():
        assert isinstance(array, cupy.ndarray)
        np.testing.assert_array_equal(cupy.asnumpy(array), gates[gate])
