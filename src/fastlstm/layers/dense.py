"""Layers that multiply by a matrix: MatMul, Affine, TimeAffine."""

from __future__ import annotations

from typing import ClassVar

from fastlstm.arrays import array_module
from fastlstm.contract import FloatArray
from fastlstm.layers.layer import Layer, saved
from fastlstm.layers.product import product


class MatMul(Layer):
    """x @ W.

    Parameters
    ----------
    W : (D, K)
    """

    param_names: ClassVar[tuple[str, ...]] = ("W",)

    def __init__(self, W: FloatArray) -> None:
        super().__init__(W)
        self.x: FloatArray | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        """(N, D) -> (N, K). Keeps x."""
        self.x = x
        return product(x, self.params[0], precision=self.precision)

    def backward(self, dout: FloatArray) -> FloatArray:
        """(N, K) -> (N, D)."""
        product(saved(self.x).T, dout, out=self.grads[0], precision=self.precision)
        return product(dout, self.params[0].T, precision=self.precision)


class Affine(Layer):
    """x @ W + b.

    Parameters
    ----------
    W : (D, K)
    b : (K,)
    """

    param_names: ClassVar[tuple[str, ...]] = ("W", "b")

    def __init__(self, W: FloatArray, b: FloatArray) -> None:
        super().__init__(W, b)
        self.x: FloatArray | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        """(N, D) -> (N, K). Keeps x."""
        W, b = self.params
        self.x = x
        return product(x, W, bias=b, precision=self.precision)

    def backward(self, dout: FloatArray) -> FloatArray:
        """(N, K) -> (N, D)."""
        dW, db = self.grads
        product(saved(self.x).T, dout, out=dW, precision=self.precision)
        array_module(dout).sum(dout, axis=0, out=db)
        return product(dout, self.params[0].T, precision=self.precision)


class TimeAffine(Affine):
    """x @ W + b at every time step.

    Parameters
    ----------
    W : (D, K)
    b : (K,)
    """

    def forward(self, x: FloatArray) -> FloatArray:
        """(N, T, D) -> (N, T, K). Keeps x."""
        N, T, D = x.shape
        return super().forward(x.reshape(N * T, D)).reshape(N, T, self.params[0].shape[1])

    def backward(self, dout: FloatArray) -> FloatArray:
        """(N, T, K) -> (N, T, D)."""
        N, T, K = dout.shape
        return super().backward(dout.reshape(N * T, K)).reshape(N, T, self.params[0].shape[0])
