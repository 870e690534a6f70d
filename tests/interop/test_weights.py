"""The weights of one layer in other gate orders and conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm import interop, layers, ops
from fastlstm.contract import GRU_CONVENTIONS, GRUConvention

D, H = 3, 4
XS = np.random.default_rng(1).standard_normal((2, 5, D))


def draw(*shapes: Any) -> list[Any]:
    return [np.random.default_rng(0).normal(0, 0.5, shape) for shape in shapes]


def test_a_gate_order_and_back() -> None:
    layer: Any = layers.TimeBiLSTM
    lstm = interop.weights_of(layer(*draw(*2 * ((D, 4 * H), (H, 4 * H), 4 * H))))
    assert isinstance(lstm, interop.LSTMWeights)
    other = interop.in_gate_order(lstm, "oigf")
    for given, got in ((lstm, other), (lstm.backwards, other.backwards)):
        assert given is not None
        assert got is not None
        assert (given.gate_order, got.gate_order, given.reverse) == ("fgio", "oigf", got.reverse)
        want = ops.lstm_forward(XS, *given[:3], gate_order="fgio", reverse=given.reverse)
        np.testing.assert_array_equal(
            ops.lstm_forward(XS, *got[:3], gate_order="oigf", reverse=got.reverse).hs, want.hs
        )


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_convention_and_another(reset_after: bool) -> None:
    biases: Any = (2, 3 * H) if reset_after else 3 * H
    given = GRUConvention("rzn", reset_after=reset_after, z_keeps=True)
    Wx, Wh, b = draw((D, 3 * H), (H, 3 * H), biases)
    gru = interop.GRUWeights(Wx, Wh, b, given)
    other = interop.in_convention(gru, GRUConvention("nrz", reset_after=reset_after, z_keeps=False))
    want = ops.gru_forward(XS, *gru[:3], convention=given).hs
    got = ops.gru_forward(XS, *other[:3], convention=other.convention).hs
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="the GRU applies r .* the product with Wh, the other GRU .* it"):
        interop.in_convention(gru, GRU_CONVENTIONS["book" if reset_after else "keras"])


def test_other_layers_have_none() -> None:
    with pytest.raises(TypeError, match=r"Affine\(W \(3, 4\), b \(4,\)\) is no recurrent layer: expected a TimeLSTM"):
        interop.weights_of(layers.Affine(*draw((D, H), H)))
