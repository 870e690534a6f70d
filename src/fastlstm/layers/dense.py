"""Layers that multiply by a matrix: MatMul, Affine, TimeAffine."""

from __future__ import annotations

from typing import ClassVar

from fastlstm.arrays import array_module
from fastlstm.contract import FloatArray
from fastlstm.layers.layer import Layer, saved
from fastlstm.layers.product import product
from fastlstm.ops import checks


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
        out = product(x, self.params[0], precision=self.precision)
        self.x = x
        return out

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
        out = product(x, W, bias=b, precision=self.precision)
        self.x = x
        return out

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

    def __init__(self, W: FloatArray, b: FloatArray) -> None:
        super().__init__(W, b)
        self._shape: tuple[int, ...] | None = None

    def forward(self, x: FloatArray) -> FloatArray:
        """(N, T, D) -> (N, T, K). Keeps x."""
        x = checks.float_array("x", x, 3)
        N, T, D = x.shape
        out = super().forward(x.reshape(N * T, D)).reshape(N, T, self.params[0].shape[1])
        self._shape = out.shape
        return out

    def backward(self, dout: FloatArray) -> FloatArray:
        """(N, T, K) -> (N, T, D)."""
        dout = checks.float_array("dout", dout, 3)
        N, T, K = saved(self._shape)
        checks.expect_shape("dout", dout, (N, T, K), "= (N, T, K) of the forward call")
        return super().backward(dout.reshape(N * T, K)).reshape(N, T, self.params[0].shape[0])
