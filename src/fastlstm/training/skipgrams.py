"""Training word vectors on one long text, whose pairs are drawn piece by piece."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.contract import Array, BackendNotAvailable, FloatArray, IntArray, SkipgramPairs
from fastlstm.models.rows import Rows
from fastlstm.models.word2vec import Word2Vec
from fastlstm.ops import scalars
from fastlstm.ops.device import to_device
from fastlstm.ops.device_steps import padded_row_gradients
from fastlstm.optim import SGD
from fastlstm.training.device_steps import Means
from fastlstm.training.loop import OptimizerLike, Trainer

PIECE = 1 << 16  # words whose pairs are in memory at once


class SkipgramTrainer(Trainer):
    """The training loop where a batch is the next pairs of a text; an epoch reads the text once.

    Parameters
    ----------
    model : Word2Vec
    corpus : (L,) ids
    batch_size, optimizer, final_lr, subsample, validation_data, options
        The arguments of ``Word2Vec.fit``.
    """

    unit = "word"

    def __init__(
        self,
        model: Word2Vec,
        corpus: IntArray,
        *,
        batch_size: int | None,
        optimizer: OptimizerLike | None,
        final_lr: float | None,
        subsample: float | None,
        validation_data: IntArray | None,
        max_grad: float | None,
        **options: Any,
    ) -> None:
        negative_sampling = model.options["loss"] == "negative_sampling"
        if optimizer is None:
            optimizer = SGD(0.025 if negative_sampling else 1.0)
            if negative_sampling and final_lr is None:
                final_lr = 1e-4
        self.by_pairs = negative_sampling and max_grad is None and (optimizer == "sgd" or type(optimizer) is SGD)
        if self.by_pairs and model.device == "cuda":
            raise BackendNotAvailable(
                "word2vec's rule pair by pair, negative sampling with SGD, runs on the host only: each step waits for "
                "the one before. Call model.to('cpu'), or give another optimizer, which learns batch by batch"
            )
        if batch_size is None:
            batch_size = 8192 if self.by_pairs else 128
        self.final_lr = None if final_lr is None else scalars.finite("final_lr", final_lr, 0)
        self.subsample = None if subsample is None else scalars.positive("subsample", subsample)
        super().__init__(
            model,
            corpus,
            corpus,
            batch_size=batch_size,
            optimizer=optimizer,
            max_grad=max_grad,
            shuffle=True,  # what is drawn for an epoch is the words to keep and their reach
            **options,
        )
        self.model: Word2Vec = model
        if validation_data is not None:
            self.validation_data = (validation_data,)  # type: ignore[assignment] # what evaluate takes
        if model.counts is None:
            model.counts = np.bincount(corpus[corpus >= 0], minlength=model.options["vocab_size"])
        self._first_lr = self.optimizer.lr

    def _checked(self, xs: IntArray, ts: IntArray) -> tuple[IntArray, IntArray]:
        return xs, ts  # one checked text

    def _placed(self, xs: IntArray, ts: IntArray) -> Rows:
        return Rows(xs, ts, "cpu")  # the text; its pairs go to the model piece by piece

    @property
    def units_per_batch(self) -> float:
        return len(self.xs) / self.batches

    @property
    def most_batches(self) -> None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "epochs": self.epochs, "final_lr": self.final_lr, "subsample": self.subsample}

    def _draw_order(self, rng: np.random.Generator) -> None:
        """The text of this epoch and the batches of each of its pieces."""
        keep_seed, reach_seed = rng.integers(0, 2**64, 2, np.uint64).tolist()
        text = self.xs
        if self.subsample is not None:
            text = ops.subsample(text, self._keep(), seed=keep_seed)
        window = self.model.options["window"]
        piece = max(PIECE, self.batch_size)  # batches are whole, but for the last one of a piece
        pieces = [slice(start, min(start + piece, len(text))) for start in range(0, len(text), piece)]
        pairs = [
            int(ops.skipgram_counts(text, window, start=own.start, stop=own.stop, seed=reach_seed).sum())
            for own in pieces
        ]
        self._text, self._reach_seed, self._pieces = text, reach_seed, pieces
        self._first_batches = [0, *accumulate(-(-count // self.batch_size) for count in pairs)]
        self._at_hand: tuple[int, SkipgramPairs] | None = None
        self.batches = self._first_batches[-1]
        if self.batches == 0 and self.epoch == 0:
            raise ValueError(
                f"subsampling left {len(text)} of {len(self.xs)} words and no pair to learn from; give a longer text, "
                f"or a larger subsample than {self.subsample:g}, None to keep all words"
            )

    def _keep(self) -> FloatArray:
        """With what probability each word stays, (V,)."""
        assert self.model.counts is not None
        assert self.subsample is not None
        share = self.model.counts / self.model.counts.sum()
        with np.errstate(divide="ignore"):  # a word that is not there stays
            ratio = self.subsample / share
        keep: FloatArray = np.sqrt(ratio) + ratio
        return keep

    def _pairs(self, batch: int) -> SkipgramPairs:
        """The pairs of a batch of this epoch."""
        number = bisect_right(self._first_batches, batch) - 1
        if self._at_hand is None or self._at_hand[0] != number:
            own = self._pieces[number]
            window = self.model.options["window"]
            pairs = ops.skipgram_pairs(self._text, window, start=own.start, stop=own.stop, seed=self._reach_seed)
            device = self.model.device
            self._at_hand = number, SkipgramPairs(*(to_device(words, device) for words in pairs))
        start = (batch - self._first_batches[number]) * self.batch_size
        centers, contexts = self._at_hand[1]
        return SkipgramPairs(centers[start : start + self.batch_size], contexts[start : start + self.batch_size])

    def _begin_step(self, batch: int) -> None:
        if self.final_lr is not None:
            done = (self.epoch + batch / self.batches) / self.epochs
            self.optimizer.lr = self._first_lr + (self.final_lr - self._first_lr) * done

    def _inputs(self, batch: int) -> tuple[Array, ...]:
        return self._pairs(batch)

    def step(self, inputs: tuple[Array, ...], means: Means) -> None:
        model, optimizer = self.model, self.optimizer
        xs, ts = inputs
        if self.by_pairs:
            loss = model.learn_pairs(xs, ts, optimizer.lr)
            optimizer.step += 1
        else:
            with padded_row_gradients():  # which nothing waits for
                loss = model.forward(xs, ts)
                gradients = model.row_gradients()
            optimizer.update(model.params, gradients, max_norm=self.max_grad)
        means["loss"].add(loss * len(xs), len(xs))
