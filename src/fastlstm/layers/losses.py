"""Layers that end a network: softmax or sigmoid with cross entropy, alone and over time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import Array, BoolArray, FloatArray, PreparedWeights, Reduction
from fastlstm.layers.layer import Layer, saved
from fastlstm.layers.product import product
from fastlstm.layers.targets import as_ids
from fastlstm.ops import checks


class SoftmaxWithLoss(Layer):
    """Softmax and cross entropy, the mean over the batch.

    Attributes
    ----------
    ignore_label : int
        Targets of this value do not count; -1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ignore_label = -1
        self._dx: FloatArray | None = None

    def forward(self, x: FloatArray, t: Array) -> float:
        """Scores x (N, V), targets t -> loss. t is ids (N,), a column of ids (N, 1), or one-hot (N, V).

        A one-hot row of zeros does not count.
        """
        checks.require_array("x", x)
        targets = as_ids("t", t, x.ndim - 1, x.shape[-1], self.ignore_label)
        loss, self._dx = ops.softmax_cross_entropy(x, targets, ignore_index=self.ignore_label)
        return loss

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by the scores, of their shape."""
        dx = saved(self._dx)
        return dx if dout == 1 else dx * dx.dtype.type(dout)


class TimeSoftmaxWithLoss(SoftmaxWithLoss):
    """Softmax and cross entropy at every time step, the mean over all steps.

    Scores xs (N, T, V), targets ts (N, T) ids, (N, T, 1) ids or (N, T, V) one-hot. Steps whose target is
    ``ignore_label`` (-1), or a one-hot row of zeros, do not count.
    """


class SigmoidWithLoss(Layer):
    """Sigmoid and binary cross entropy, the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self._dx: FloatArray | None = None

    def forward(self, x: FloatArray, t: Array) -> float:
        """Scores x (N,), labels t (N,) 0 or 1 -> loss."""
        labels = _of_dtype_of(x, t)
        loss, self._dx = ops.sigmoid_cross_entropy(x, labels, normalizer=max(x.shape[0], 1))
        return loss

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by the scores, of their shape."""
        dx = saved(self._dx)
        return dx if dout == 1 else dx * dx.dtype.type(dout)


class TimeSigmoidWithLoss(Layer):
    """Sigmoid and binary cross entropy at every time step, the mean over all steps."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = SigmoidWithLoss()
        self._shape: tuple[int, ...] = ()

    def forward(self, xs: FloatArray, ts: Array) -> float:
        """Scores xs (N, T), labels ts (N, T) 0 or 1 -> loss."""
        checks.require_array("xs", xs)
        checks.require_array("ts", ts)
        checks.expect_shape("ts", ts, xs.shape, "= the shape of the scores")
        self._shape = xs.shape
        return self._steps.forward(xs.reshape(-1), ts.reshape(-1))

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by the scores, (N, T)."""
        return self._steps.backward(dout).reshape(self._shape)


class TimeAffineWithLoss(Layer):
    """TimeAffine and TimeSoftmaxWithLoss in one pass: projection to the vocabulary, softmax and cross entropy.

    Parameters
    ----------
    W : (H, V)
    b : (V,)
    """

    param_names: ClassVar[tuple[str, ...]] = ("W", "b")
    _dout: float = 1  # what the gradients have been multiplied by

    def __init__(self, W: FloatArray, b: FloatArray) -> None:
        super().__init__(W, b)
        self._dhs: FloatArray | None = None

    def scores(self, hs: FloatArray) -> FloatArray:
        """Hidden states (..., H) -> scores (..., V), without a loss."""
        return self._scores(hs, *self._for_operator(training=False))

    def _scores(self, hs: FloatArray, W: FloatArray | PreparedWeights[Any], b: FloatArray | None = None) -> FloatArray:
        H, V = self.params[0].shape
        scores = ops.matrix_product(hs.reshape(hs.size // H, H), W, bias=b, precision=self.precision)
        return scores.reshape(*hs.shape[:-1], V)

    def _prepare(self) -> PreparedWeights[Any]:
        return ops.prepare_dense(*self.params, precision=self.precision)

    def forward(
        self, hs: FloatArray, ts: Array, *, reduction: Reduction = "mean", weights: FloatArray | None = None
    ) -> float:
        """hs (N, T, H), targets ts (N, T) ids, (N, T, 1) ids, or (N, T, V) one-hot -> loss, their mean or sum.

        All gradients are computed here. Steps whose target is -1, or a one-hot row of zeros, do not count. Weights
        (N, T) are those of `ops.softmax_cross_entropy`.
        """
        checks.require_array("hs", hs)
        W, b = self.params
        targets = as_ids("ts", ts, hs.ndim - 1, W.shape[1], -1)
        dW, db = self.grads
        if weights is not None:
            scores = self._scores(hs, W, b)
            loss, dscores = ops.softmax_cross_entropy(scores, targets, reduction=reduction, weights=weights)
            H, V = W.shape
            dscores = dscores.reshape(-1, V)
            product(hs.reshape(-1, H).T, dscores, out=dW, precision=self.precision)
            array_module(dscores).sum(dscores, axis=0, out=db)
            self._dhs = product(dscores, W.T, precision=self.precision).reshape(hs.shape)
        else:
            loss, self._dhs, _, _ = ops.linear_cross_entropy(
                hs, W, b, targets, precision=self.precision, out=SimpleNamespace(dW=dW, db=db), reduction=reduction
            )
        self._dout = 1
        return loss

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by hs, (N, T, H)."""
        dhs = saved(self._dhs)
        if dout != self._dout:
            if self._dout == 0:
                raise RuntimeError(f"backward(0) has cleared the gradients; call forward again before backward({dout})")
            for grad in self.grads:
                grad *= dout / self._dout
            self._dout = dout
        return dhs if dout == 1 else dhs * dhs.dtype.type(dout)


class MeanSquaredError(Layer):
    """The mean of the squared differences, over all elements."""

    def __init__(self) -> None:
        super().__init__()
        self._dy: FloatArray | None = None

    def forward(
        self,
        y: FloatArray,
        t: FloatArray,
        *,
        mask: BoolArray | None = None,
        reduction: Reduction = "mean",
        weights: FloatArray | None = None,
    ) -> float:
        """Outputs y and targets t of one shape -> loss; with reduction="sum" the sum of the squared differences.

        Where mask, of the shape of y without its last axis, is False they do not count. Weights, of that shape, are
        those of `ops.mean_squared_error`.
        """
        t = _of_dtype_of(y, t)
        count = None
        if mask is not None:
            checks.require_array("mask", mask)
            checks.expect_shape("mask", mask, y.shape[:-1], "= the shape of y without its last axis")
            xp = array_module(y)
            t = xp.where(mask[..., None], t, y)
            if reduction == "mean":
                count = xp.maximum(xp.count_nonzero(mask), 1) * y.shape[-1]
        loss, self._dy = ops.mean_squared_error(y, t, reduction=reduction, normalizer=count, weights=weights)
        return loss

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by the outputs, of their shape."""
        dy = saved(self._dy)
        return dy if dout == 1 else dy * dy.dtype.type(dout)


def _of_dtype_of(x: FloatArray, t: Array) -> FloatArray:
    """Targets as numbers of x's dtype: labels may be integers."""
    checks.require_array("x", x)
    checks.require_array("t", t)
    return t.astype(x.dtype, copy=False)
