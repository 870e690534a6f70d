"""``ch04.negative_sampling_layer``: ``fastlstm.layers`` with the book's rules about dtypes and vocabularies."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastlstm import layers
from fastlstm.compat.dlfs2.arrays import ids_of, of_dtype
from fastlstm.compat.dlfs2.layers import Embedding
from fastlstm.contract import Array, FloatArray, IntArray
from fastlstm.ops.device import to_host


class EmbeddingDot(layers.EmbeddingDot):
    """Dot products of rows of W with rows of h."""

    def __init__(self, W: FloatArray) -> None:
        super().__init__(W)
        self.embed = Embedding(W)
        self.params, self.grads = self.embed.params, self.embed.grads

    def forward(self, h: FloatArray, idx: Array) -> FloatArray:
        """h (B, E), ids idx (B,) -> (B,)."""
        return super().forward(of_dtype(h, self.params[0].dtype), ids_of(idx))


class UnigramSampler(layers.UnigramSampler):
    """Draws words by their frequency, never a row's own target and none twice for a row."""

    def word_counts(self, corpus: Any) -> IntArray:
        counts = np.bincount(ids_of(to_host(corpus)))
        # As many words as the corpus has different ones: the book's rule, for ids without a gap.
        return counts[: np.count_nonzero(counts)]


class NegativeSamplingLoss(layers.NegativeSamplingLoss):
    """Binary cross entropy of the target's score and of sampled words' scores, each the mean over the batch, summed.

    Attributes
    ----------
    params, grads : list of one array
        The book has W here sample_size + 1 times, with as many gradients, whose sum this one is.
    """

    sampler_type: ClassVar[type[layers.UnigramSampler]] = UnigramSampler

    def forward(self, h: FloatArray, target: Array) -> float:
        """h (B, E), target (B,) ids -> loss."""
        return super().forward(of_dtype(h, self.params[0].dtype), ids_of(target))
