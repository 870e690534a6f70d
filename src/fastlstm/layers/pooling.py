"""Pooling over time: one vector a sequence."""

from __future__ import annotations

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import BoolArray, FloatArray
from fastlstm.layers.layer import Layer, saved


class TimeMeanPooling(Layer):
    """The mean over the steps that count: hs (N, T, H), mask (N, T) -> (N, H). Zeros for a row of which none counts."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: FloatArray | None = None

    def forward(self, hs: FloatArray, mask: BoolArray) -> FloatArray:
        """hs (N, T, H), mask (N, T) -> (N, H)."""
        xp = array_module(hs)
        counts = xp.maximum(mask.sum(axis=1, keepdims=True), 1)
        self._weights = (mask / counts).astype(hs.dtype)
        if is_device_array(hs):  # CuPy's einsum is a product of cuBLAS, which cannot be captured into a graph
            on_gpu: FloatArray = (self._weights[:, :, None] * hs).sum(axis=1)
            return on_gpu
        # einsum adds in one order in one thread; a product by OpenBLAS would not for every number of threads.
        pooled: FloatArray = xp.einsum("nt,nth->nh", self._weights, hs)
        return pooled

    def backward(self, dout: FloatArray) -> FloatArray:
        """dout (N, H) -> (N, T, H)."""
        return saved(self._weights)[:, :, None] * dout[:, None, :]
