"""Attention of a decoder over an encoder's states."""

from __future__ import annotations

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import BoolArray, FloatArray
from fastlstm.layers.layer import Layer, saved
from fastlstm.ops import checks


class TimeAttention(Layer):
    """Dot-product attention: every decoder step gets the encoder states weighted by softmax(hs_dec . hs_enc).

    Attributes
    ----------
    attention_weights : list of (N, S), one a decoder step
        How much each of the S encoder states weighed in the last forward call.

    References
    ----------
    Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", score "dot".
    """

    def __init__(self) -> None:
        super().__init__()
        self._hs: tuple[FloatArray, FloatArray] | None = None
        self._weights: FloatArray | None = None

    @property
    def attention_weights(self) -> list[FloatArray]:
        return [] if self._weights is None else list(self._weights.swapaxes(0, 1))

    def forward(self, hs_enc: FloatArray, hs_dec: FloatArray, mask: BoolArray | None = None) -> FloatArray:
        """hs_enc (N, S, H), hs_dec (N, T, H) -> context vectors (N, T, H). Keeps both, and the attention weights.

        Where mask (N, S) is False an encoder state weighs nothing; of a row without any other all weigh the same.
        """
        hs_enc = checks.float_array("hs_enc", hs_enc, 3)
        weights = ops.batched_product(hs_dec, hs_enc.swapaxes(1, 2), precision=self.precision)
        if mask is not None:
            checks.require_array("mask", mask)
            checks.expect_shape("mask", mask, hs_enc.shape[:2], "= (N, S) of hs_enc")
            # Not minus infinity, of which a row without any valid step would become NaN.
            least = np.finfo(weights.dtype).min / 2
            weights = array_module(weights).where(mask[:, None, :], weights, least)
        ops.softmax(weights, out=weights)
        self._hs, self._weights = (hs_enc, hs_dec), weights
        return ops.batched_product(weights, hs_enc, precision=self.precision)

    def backward(self, dout: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N, T, H) -> dhs_enc (N, S, H), dhs_dec (N, T, H)."""
        (hs_enc, hs_dec), weights = saved(self._hs), saved(self._weights)
        dscores = ops.batched_product(dout, hs_enc.swapaxes(1, 2), precision=self.precision)
        dscores -= (dscores * weights).sum(axis=-1, keepdims=True)
        dscores *= weights
        dhs_enc = ops.batched_product(weights.swapaxes(1, 2), dout, precision=self.precision)
        dhs_enc += ops.batched_product(dscores.swapaxes(1, 2), hs_dec, precision=self.precision)
        return dhs_enc, ops.batched_product(dscores, hs_enc, precision=self.precision)
