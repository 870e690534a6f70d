"""The pairs of one long text, or the words of CBOW, as batches, drawn piece by piece, and a rate that falls meanwhile.

The text is read where it lies: it may be a ``numpy.memmap`` of a file larger than the memory.
"""

from __future__ import annotations

import functools
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.contract import FloatArray, IntArray
from fastlstm.models.ids import signed, text_pieces
from fastlstm.ops import scalars
from fastlstm.ops.device import Device, to_device
from fastlstm.training import Callback

PIECE = 1 << 16  # words whose pairs are in memory at once
CHUNK = 1 << 16  # words of the corpus that are subsampled at once


Examples = tuple[IntArray, IntArray]  # what a word is told by, and the words


class SkipgramBatches:
    """A batch is the next pairs of a text, or words with their neighbours; an epoch reads the text once.

    Parameters
    ----------
    corpus : (L,) integers
    counts : (V,) integers
        How often each word occurs, for ``subsample``.
    batch_size, window, subsample
        The arguments of ``Word2Vec`` and its ``fit``.
    cbow : bool
        Whether a batch is contexts (B, C), -1 behind those of a word, and words (B,); else words and a neighbour each.
    device : "cpu" or "cuda"
    read_again : () -> (L,) integers, optional
        The text of every epoch but the first of this training.
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
        cbow: bool = False,
        device: Device,
        read_again: Callable[[], IntArray] | None = None,
    ) -> None:
        self.batch_size = scalars.integer("batch_size", batch_size, 1)
        self.subsample = None if subsample is None else scalars.positive("subsample", subsample)
        self._corpus, self._counts = corpus, counts
        self._window = window
        self._cbow = cbow
        self._device = device
        self._read_again, self._has_begun = read_again, False
        self._piece = max(PIECE, self.batch_size)  # batches are whole, but for the last one of a piece
        most_pairs = (1 if cbow else 2 * window) * len(corpus)
        self._batches = most_pairs // self.batch_size + len(corpus) // self._piece + 1

    @property
    def units_per_batch(self) -> float:
        return len(self._corpus) / self._batches

    def __len__(self) -> int:
        return self._batches

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Draw the text of the epoch and the batches of each of its pieces."""
        if self._read_again is not None and self._has_begun:
            self._corpus = self._read_again()
        self._has_begun = True
        keep_seed, self._reach_seed = rng.integers(0, 2**64, 2, np.uint64).tolist()
        self._text = _EpochText(self._corpus, self._keep(), keep_seed)
        length = len(self._text)
        self._pieces = [range(start, min(start + self._piece, length)) for start in range(0, length, self._piece)]
        counts = (
            count_examples(self._text, piece, self._window, self._reach_seed, self._cbow) for piece in self._pieces
        )
        self._first_batches = [0, *accumulate(-(-count // self.batch_size) for count in counts)]
        self._at_hand: tuple[int, Examples] | None = None
        self._batches = self._first_batches[-1]
        if self._batches == 0 and epoch == 0:
            raise ValueError(
                f"subsampling left {length} of {len(self._corpus)} words and no pair to learn from; give a longer "
                f"text, or a larger subsample than {self.subsample:g}, None (--subsample 0) to keep all words"
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

    def batch(self, i: int) -> Examples:
        number = bisect_right(self._first_batches, i) - 1
        if self._at_hand is None or self._at_hand[0] != number:
            made = examples(self._text, self._pieces[number], self._window, self._reach_seed, self._cbow)
            self._at_hand = number, (to_device(made[0], self._device), to_device(made[1], self._device))
        start = (i - self._first_batches[number]) * self.batch_size
        xs, ts = self._at_hand[1]
        return xs[start : start + self.batch_size], ts[start : start + self.batch_size]

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


def _around(text: _EpochText, piece: range, window: int, seed: int) -> tuple[IntArray, dict[str, int]]:
    """The words of a piece with those that a window reaches, and the arguments that say which are its own."""
    first = max(piece.start - window, 0)
    words = text.words(first, min(piece.stop + window, len(text)))
    return words, {"start": piece.start - first, "stop": piece.stop - first, "seed": seed, "first": first}


def count_examples(text: _EpochText, piece: range, window: int, seed: int, cbow: bool) -> int:
    """How many `examples` a piece of a text has."""
    words, own = _around(text, piece, window, seed)
    counts = ops.skipgram_counts(words, window, **own)
    return int(np.count_nonzero(counts) if cbow else counts.sum())


def examples(text: _EpochText, piece: range, window: int, seed: int, cbow: bool) -> Examples:
    """The pairs of a piece of a text; of CBOW its words with a neighbour (M,), behind the neighbours of each (M, C)."""
    words, own = _around(text, piece, window, seed)
    pairs = ops.skipgram_pairs(words, window, **own)
    if not cbow:
        return pairs
    counts = ops.skipgram_counts(words, window, **own)
    counts = counts[counts > 0]
    contexts = np.full((len(counts), counts.max(initial=0)), -1)
    contexts[np.arange(contexts.shape[1]) < counts[:, None]] = pairs.contexts
    return contexts, pairs.centers[np.cumsum(counts) - counts]


def whole_text(corpus: IntArray, batch_size: int, window: int, seed: int, cbow: bool) -> Iterator[Examples]:
    """All examples of a text once, in batches that are whole but for the last; a piece is in memory at once."""
    batch_size = scalars.integer("batch_size", batch_size, 1)
    text = _EpochText(corpus, None, 0)
    rest: Examples | None = None
    for start in range(0, len(text), PIECE):
        made = examples(text, range(start, min(start + PIECE, len(text))), window, seed, cbow)
        xs, ts = made if rest is None else (_joined(rest[0], made[0]), np.concatenate((rest[1], made[1])))
        whole = len(ts) - len(ts) % batch_size
        for i in range(0, whole, batch_size):
            yield xs[i : i + batch_size], ts[i : i + batch_size]
        rest = xs[whole:], ts[whole:]
    if rest is not None and len(rest[1]):
        yield rest


def _joined(xs: IntArray, others: IntArray) -> IntArray:
    """Rows under rows, the narrower ones filled up with -1."""
    if xs.ndim == 2:
        width = max(xs.shape[1], others.shape[1])
        xs, others = (np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in (xs, others))
    return np.concatenate((xs, others))


class FallingLearningRate(Callback):
    """Has the learning rate fall from ``lr`` to ``final_lr``, evenly from batch to batch; None: it stays."""

    def __init__(self, lr: float, final_lr: float | None) -> None:
        super().__init__()
        self.lr = lr
        self.final_lr = None if final_lr is None else scalars.finite("final_lr", final_lr, 0)

    def fingerprint(self) -> dict[str, Any]:
        return {"final_lr": self.final_lr, **({} if self.final_lr is None else {"epochs": self.trainer.epochs})}

    def on_train_batch_begin(self, batch: int) -> None:
        trainer = self.trainer
        if self.final_lr is not None:
            done = (trainer.epoch + batch / trainer.batches) / trainer.epochs
            trainer.optimizer.lr = self.lr + (self.final_lr - self.lr) * done
