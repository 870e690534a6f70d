"""The pairs of one long text as batches, drawn piece by piece, and a learning rate that falls while it is read."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs
from fastlstm.ops import scalars
from fastlstm.ops.device import Device, to_device
from fastlstm.training import Callback

PIECE = 1 << 16  # words whose pairs are in memory at once


class SkipgramBatches:
    """A batch is the next pairs of a text; an epoch reads the text once.

    Parameters
    ----------
    corpus : (L,) ids
    counts : (V,) integers
        How often each word occurs, for ``subsample``.
    batch_size, window, subsample
        The arguments of ``Word2Vec`` and its ``fit``.
    device : "cpu" or "cuda"
    """

    unit = "word"

    def __init__(
        self,
        corpus: IntArray,
        counts: IntArray,
        batch_size: int,
        *,
        window: int,
        subsample: float | None,
        device: Device,
    ) -> None:
        self.batch_size = scalars.integer("batch_size", batch_size, 1)
        self.subsample = None if subsample is None else scalars.positive("subsample", subsample)
        self._corpus, self._counts = corpus, counts
        self._window = window
        self._device = device
        self._piece = max(PIECE, self.batch_size)  # batches are whole, but for the last one of a piece
        most_pairs = 2 * window * len(corpus)
        self._batches = most_pairs // self.batch_size + len(corpus) // self._piece + 1

    @property
    def units_per_batch(self) -> float:
        return len(self._corpus) / self._batches

    def __len__(self) -> int:
        return self._batches

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Draw the text of the epoch and the batches of each of its pieces."""
        keep_seed, reach_seed = rng.integers(0, 2**64, 2, np.uint64).tolist()
        text = self._corpus
        if self.subsample is not None:
            text = ops.subsample(text, self._keep(self.subsample), seed=keep_seed)
        pieces = [slice(start, min(start + self._piece, len(text))) for start in range(0, len(text), self._piece)]
        pairs = [
            int(ops.skipgram_counts(text, self._window, start=own.start, stop=own.stop, seed=reach_seed).sum())
            for own in pieces
        ]
        self._text, self._reach_seed, self._pieces = text, reach_seed, pieces
        self._first_batches = [0, *accumulate(-(-count // self.batch_size) for count in pairs)]
        self._at_hand: tuple[int, SkipgramPairs] | None = None
        self._batches = self._first_batches[-1]
        if self._batches == 0 and epoch == 0:
            raise ValueError(
                f"subsampling left {len(text)} of {len(self._corpus)} words and no pair to learn from; give a longer "
                f"text, or a larger subsample than {self.subsample:g}, None to keep all words"
            )

    def _keep(self, subsample: float) -> FloatArray:
        """With what probability each word stays, (V,)."""
        share = self._counts / self._counts.sum()
        with np.errstate(divide="ignore"):  # a word that is not there stays
            ratio = subsample / share
        keep: FloatArray = np.sqrt(ratio) + ratio
        return keep

    def batch(self, i: int) -> SkipgramPairs:
        number = bisect_right(self._first_batches, i) - 1
        if self._at_hand is None or self._at_hand[0] != number:
            own = self._pieces[number]
            pairs = ops.skipgram_pairs(self._text, self._window, start=own.start, stop=own.stop, seed=self._reach_seed)
            self._at_hand = number, SkipgramPairs(*(to_device(words, self._device) for words in pairs))
        start = (i - self._first_batches[number]) * self.batch_size
        centers, contexts = self._at_hand[1]
        return SkipgramPairs(centers[start : start + self.batch_size], contexts[start : start + self.batch_size])

    def fingerprint(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "shuffle": True,  # what is drawn for an epoch is the words to keep and their reach
            "crc32 of the training data": zlib.crc32(self._corpus.data, zlib.crc32(self._corpus.data)),
            "subsample": self.subsample,
        }


class FallingLearningRate(Callback):
    """Has the learning rate fall from ``lr`` to ``final_lr``, evenly from batch to batch; None: it stays."""

    def __init__(self, lr: float, final_lr: float | None) -> None:
        super().__init__()
        self.lr = lr
        self.final_lr = None if final_lr is None else scalars.finite("final_lr", final_lr, 0)

    def fingerprint(self) -> dict[str, Any]:
        return {"epochs": self.trainer.epochs, "final_lr": self.final_lr}

    def on_train_batch_begin(self, batch: int) -> None:
        trainer = self.trainer
        if self.final_lr is not None:
            done = (trainer.epoch + batch / trainer.batches) / trainer.epochs
            trainer.optimizer.lr = self.lr + (self.final_lr - self.lr) * done
