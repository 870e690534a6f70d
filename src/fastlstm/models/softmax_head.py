"""The end of a model that says classes: its output layer, and what its metrics are counted from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import BoolArray, FloatArray, IntArray, Reduction
from fastlstm.layers import TimeAffineWithLoss
from fastlstm.layers.tied_output import TiedOutput
from fastlstm.models.ids import IGNORED
from fastlstm.models.model import kept
from fastlstm.ops.device import count_true, number
from fastlstm.training.means import total_loss


class SoftmaxHead:
    """An output layer, and what it said in the last forward call.

    A training step needs no scores: they are made of the kept features once a metric asks for them.

    Parameters
    ----------
    output : layer
        It stays the model's, with its parameters.
    """

    def __init__(self, output: TimeAffineWithLoss | TiedOutput) -> None:
        self._output = output
        self._loss = 0.0
        self._reduction: Reduction = "mean"
        self._targets: IntArray | None = None
        self._features: FloatArray | None = None
        self._scores: FloatArray | None = None

    def forward(
        self,
        features: FloatArray,
        targets: IntArray,
        *,
        training: bool,
        reduction: Reduction = "mean",
        weights: FloatArray | None = None,
    ) -> float:
        """Features (..., F), ids of classes (...), -1 where none counts -> loss, their mean or sum.

        Weights (...) are those of `ops.softmax_cross_entropy`; metrics do without them.
        """
        self._targets, self._reduction = targets, reduction
        if training:
            self._features, self._scores = features, None
            self._loss = self._output.forward(features, targets, reduction=reduction, weights=weights)
        else:
            self._features, self._scores = None, self._output.scores(features)
            self._loss = ops.softmax_cross_entropy(self._scores, targets, reduction=reduction, weights=weights).loss
        return self._loss

    def backward(self) -> FloatArray:
        """Gradient by the features, (..., F)."""
        return self._output.backward()

    def forget(self) -> None:
        """Keep no array of the last forward call."""
        self._loss = 0.0
        self._targets = self._features = self._scores = None

    @property
    def loss_count(self) -> int:
        """Over how many targets the last forward call's loss is the mean."""
        return 0 if self._targets is None else count_true(self.counts())

    def counts(self) -> BoolArray:
        """Where the last forward call's targets count, (...)."""
        counts: BoolArray = kept(self._targets) != IGNORED
        return counts

    def scores(self) -> FloatArray:
        """Of the last forward call, (..., V)."""
        if self._scores is None:
            self._scores = self._output.scores(kept(self._features))
        return self._scores

    def targets(self) -> IntArray:
        """Of the last forward call, (...)."""
        return kept(self._targets)

    def right_answers(self) -> BoolArray:
        """`right_answers` of the last forward call, (...)."""
        return right_answers(self.scores(), self.targets())

    def metric_sums(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        """`Model.batch_metrics` of "accuracy", "error" and "perplexity"; of the last, the sum of the losses."""
        count = count_true(self.counts())
        sums: dict[str, float] = {}
        if "perplexity" in names:
            sums["perplexity"] = total_loss(self._loss, count, self._reduction)
        if "accuracy" in names or "error" in names:
            sums["accuracy"] = number(self.right_answers().sum())
        if "error" in names:
            sums["error"] = count - sums["accuracy"]
        return {name: (sums[name], count) for name in names}


def right_answers(scores: FloatArray, targets: IntArray) -> BoolArray:
    """Where the likeliest class by scores (..., V) is the target (...): nowhere where there are no probabilities."""
    xp = array_module(scores)
    likeliest = scores.argmax(axis=-1)  # of a row with NaN, the first that is
    best = xp.take_along_axis(scores, likeliest[..., None], axis=-1)[..., 0]
    right: BoolArray = (likeliest == targets) & (xp.abs(best) < math.inf)
    return right
