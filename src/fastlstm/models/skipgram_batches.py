"""The pairs of one long text as batches, drawn piece by piece, and a learning rate that falls while it is read.

The text is read where it lies: it may be a ``numpy.memmap`` of a file larger than the memory.
"""

from __future__ import annotations

import functools
import zlib
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.contract import FloatArray, IntArray, SkipgramPairs
from fastlstm.models.ids import signed, text_pieces
from fastlstm.ops import scalars
from fastlstm.ops.device import Device, to_device
from fastlstm.training import Callback

PIECE = 1 << 16  # words whose pairs are in memory at once
CHUNK = 1 << 16  # words of the corpus that are subsampled at once


class SkipgramBatches:
    """A batch is the next pairs of a text; an epoch reads the text once.

    Parameters
    ----------
    corpus : (L,) integers
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
        keep_seed, self._reach_seed = rng.integers(0, 2**64, 2, np.uint64).tolist()
        self._text = _EpochText(self._corpus, self._keep(), keep_seed)
        length = len(self._text)
        self._pieces = [range(start, min(start + self._piece, length)) for start in range(0, length, self._piece)]
        pairs = [
            int(ops.skipgram_counts(text, self._window, **own).sum()) for text, own in map(self._around, self._pieces)
        ]
        self._first_batches = [0, *accumulate(-(-count // self.batch_size) for count in pairs)]
        self._at_hand: tuple[int, SkipgramPairs] | None = None
        self._batches = self._first_batches[-1]
        if self._batches == 0 and epoch == 0:
            raise ValueError(
                f"subsampling left {length} of {len(self._corpus)} words and no pair to learn from; give a longer "
                f"text, or a larger subsample than {self.subsample:g}, None to keep all words"
            )

    def _keep(self) -> FloatArray | None:
        """With what probability each word stays, (V,); None: all stay."""
        if self.subsample is None:
            return None
        share = self._counts / self._counts.sum()
        with np.errstate(divide="ignore"):  # a word that is not there stays
            ratio = self.subsample / share
        keep: FloatArray = np.sqrt(ratio) + ratio
        return keep

    def _around(self, own: range) -> tuple[IntArray, dict[str, int]]:
        """The words of a piece with those that a window reaches, and the arguments that say which are its own."""
        first = max(own.start - self._window, 0)
        text = self._text.words(first, min(own.stop + self._window, len(self._text)))
        return text, {"start": own.start - first, "stop": own.stop - first, "seed": self._reach_seed, "first": first}

    def batch(self, i: int) -> SkipgramPairs:
        number = bisect_right(self._first_batches, i) - 1
        if self._at_hand is None or self._at_hand[0] != number:
            text, own = self._around(self._pieces[number])
            pairs = ops.skipgram_pairs(text, self._window, **own)
            self._at_hand = number, SkipgramPairs(*(to_device(words, self._device) for words in pairs))
        start = (i - self._first_batches[number]) * self.batch_size
        centers, contexts = self._at_hand[1]
        return SkipgramPairs(centers[start : start + self.batch_size], contexts[start : start + self.batch_size])

    def fingerprint(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "shuffle": True,  # what is drawn for an epoch is the words to keep and their reach
            "crc32 of the training data": self._checksum,
            "subsample": self.subsample,
        }

    @functools.cached_property
    def _checksum(self) -> int:
        checksum = 0
        for _ in range(2):
            for ids in text_pieces(self._corpus):
                checksum = zlib.crc32(ids.astype(np.int64, copy=False).data, checksum)
        return checksum


class _EpochText:
    """The words of a corpus that subsampling leaves in an epoch, drawn again whenever some of them are read.

    Only how many are left of each chunk of the corpus is kept.
    """

    def __init__(self, corpus: IntArray, keep: FloatArray | None, seed: int) -> None:
        self._corpus, self._keep, self._seed = corpus, keep, seed
        self._ends = (
            [] if keep is None else list(accumulate(len(self._left(c)) for c in range(-(-len(corpus) // CHUNK))))
        )

    def __len__(self) -> int:
        return len(self._corpus) if self._keep is None else self._ends[-1] if self._ends else 0

    def words(self, start: int, stop: int) -> IntArray:
        """The words at the positions start to stop - 1 of what is left, int64."""
        if self._keep is None:
            return signed(self._corpus[start:stop]).astype(np.int64, copy=False)
        chunk = bisect_right(self._ends, start)
        position = self._ends[chunk - 1] if chunk else 0
        parts = [np.zeros(0, np.int64)]
        while position < stop:
            left = self._left(chunk)
            parts.append(left[max(start - position, 0) : stop - position])
            chunk, position = chunk + 1, position + len(left)
        return np.concatenate(parts)

    def _left(self, chunk: int) -> IntArray:
        """What is left of a chunk of the corpus."""
        first = chunk * CHUNK
        assert self._keep is not None
        return ops.subsample(signed(self._corpus[first : first + CHUNK]), self._keep, seed=self._seed, first=first)


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
