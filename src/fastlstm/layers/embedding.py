"""Embedding, and the same over time."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.contract import FloatArray, IntArray
from fastlstm.layers.layer import Layer, saved


class Embedding(Layer):
    """Rows of W by id.

    Parameters
    ----------
    W : (V, E)

    Attributes
    ----------
    grads_only_scaled : bool
        False. With True you promise that from now on nothing but ``backward`` writes into ``grads[0]``, except to scale
        or to zero it (clipping does). Then ``backward`` clears the rows of its call before and no others, which saves a
        pass over (V, E). Leave it False where gradients of shared weights are added into ``grads[0]``, or weight decay.
    """

    param_names: ClassVar[tuple[str, ...]] = ("W",)

    def __init__(self, W: FloatArray) -> None:
        super().__init__(W)
        self.idx: IntArray | None = None
        self.grads_only_scaled = False
        # The gradient last written under that promise, and the rows that it may hold something in.
        self._written: tuple[FloatArray, IntArray] | None = None

    def forward(self, idx: IntArray) -> FloatArray:
        """Ids (...), int32 or int64, -> (..., E). Keeps the ids."""
        out = ops.embedding_forward(self.params[0], idx)
        self.idx = idx
        return out

    def backward(self, dout: FloatArray) -> None:
        """Gradient (..., E); ids that occur more than once add up. Ids have no gradient, so nothing is returned."""
        (dW,) = self.grads
        idx = saved(self.idx)
        touched = None
        if self.grads_only_scaled and self._written is not None and self._written[0] is dW:
            touched = self._written[1]
        ops.embedding_backward(idx, dout, dW.shape[0], out=dW, touched=touched)
        # A copy: the caller may fill the array of ids with the next batch.
        self._written = (dW, idx.copy()) if self.grads_only_scaled else None

    def forget_step(self) -> None:
        self._written = None


class EmbeddingBag(Embedding):
    """The means of several rows of W by id, on the host.

    Parameters
    ----------
    W : (V, E)
    """

    def __init__(self, W: FloatArray) -> None:
        super().__init__(W)
        self._bags: tuple[IntArray, FloatArray] | None = None

    def forward(self, idx: IntArray) -> FloatArray:
        """Ids (B, C), -1 where there is none -> (B, E), zeros where a row of ids has none at all."""
        (W,) = self.params
        there = idx >= 0
        counts = there.sum(axis=1)
        bag = np.repeat(np.arange(len(idx)), counts)  # of each id
        share = (1 / np.maximum(counts, 1)).astype(W.dtype)[:, None]
        self._bags = (bag, share)
        means = np.zeros((len(idx), W.shape[1]), W.dtype)
        ops.scatter_add(means, bag, super().forward(idx[there]))
        means *= share
        return means

    def spread(self, dout: FloatArray) -> FloatArray:
        """The gradient (B, E) by the means as one by the rows of all ids, one after the other."""
        bag, share = saved(self._bags)
        rows: FloatArray = (dout * share)[bag]
        return rows

    def backward(self, dout: FloatArray) -> None:
        """Gradient (B, E)."""
        super().backward(self.spread(dout))


class TimeEmbedding(Embedding):
    """Rows of W by id at every time step: ids (N, T) -> (N, T, E).

    Parameters
    ----------
    W : (V, E)
    """
