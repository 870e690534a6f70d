"""The output layer of a language model that uses the embedding's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastlstm.contract import Array, FloatArray, Reduction
from fastlstm.layers.layer import Layer
from fastlstm.layers.losses import TimeAffineWithLoss


class TiedOutput(Layer):
    """Projection to the vocabulary by the transposed embedding, softmax and cross entropy.

    Parameters
    ----------
    W : (V, E)
        The embedding's own array; neither it nor its gradient is ever copied to be transposed.
    b : (V,)
    """

    param_names: ClassVar[tuple[str, ...]] = ("W", "b")

    def __init__(self, W: FloatArray, b: FloatArray) -> None:
        self._affine = TimeAffineWithLoss(W.T, b)
        dW, db = self._affine.grads
        self.params = [W, b]
        self.grads = [dW.T, db]

    def move(self, copy: Callable[[Array], Array]) -> None:
        super().move(copy)
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, or what was pickled: the projection uses the embedding's array again."""
        vars(self).update(state)
        self._share()

    def _share(self) -> None:
        # The projection has views, of which no copies are made.
        (W, b), (dW, db) = self.params, self.grads
        self._affine.params[:], self._affine.grads[:] = [W.T, b], [dW.T, db]

    def scores(self, hs: FloatArray) -> FloatArray:
        """Hidden states (..., E) -> scores (..., V), without a loss."""
        return self._affine.scores(hs)

    def forward(
        self, hs: FloatArray, ts: Array, *, reduction: Reduction = "mean", weights: FloatArray | None = None
    ) -> float:
        """hs (N, T, E), targets ts (N, T) -> loss, their mean or sum. Steps whose target is -1 do not count."""
        return self._affine.forward(hs, ts, reduction=reduction, weights=weights)

    def backward(self) -> FloatArray:
        """Gradient by hs, (N, T, E)."""
        return self._affine.backward()
