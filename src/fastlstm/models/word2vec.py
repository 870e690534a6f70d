"""Word vectors: what stands near a word, from the word's vector.

Mikolov et al. (2013), "Efficient estimation of word representations in vector space" (skip-gram) and "Distributed
representations of words and phrases and their compositionality" (negative sampling, subsampling); TensorFlow's tutorial
"Vector representations of words" (noise-contrastive estimation); Jean et al. (2015) (sampled softmax).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastlstm import ops
from fastlstm.contract import Array, BackendNotAvailable, FloatArray, IntArray, Precision, Reduction, RowGrad
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.distributed.workers import Workers
from fastlstm.layers import (
    Embedding,
    EmbeddingBag,
    NCELoss,
    SampledClassesLoss,
    SampledSoftmaxLoss,
    SharedNegativeSamplingLoss,
)
from fastlstm.models.ids import check_range, check_text, class_ids, host_array, integers, text_pieces
from fastlstm.models.initial_weights import take_room
from fastlstm.models.memory import check_room
from fastlstm.models.model import Model
from fastlstm.models.names import Names
from fastlstm.models.sentences import SENTENCE_END, Sentences, frequent_words, is_sentences, require_readable
from fastlstm.models.skipgram_batches import FallingLearningRate, SkipgramBatches, whole_text
from fastlstm.models.word_vectors import Direction, WordVectors, listed
from fastlstm.ops import scalars
from fastlstm.ops.checks import check_choice
from fastlstm.ops.device import Device, row_grad, to_device, to_host
from fastlstm.optim import SGD, Grad, Optimizer, make_optimizer
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.callback import check_callbacks
from fastlstm.training.means import Means, add_batch

LOSSES = ("nce", "negative_sampling", "sampled_softmax")


class Word2Vec(Model):
    """Each word's vector learns to tell its neighbours from other words (skip-gram), or with its neighbours' the word
    between them (continuous bag of words, CBOW).

    Parameters
    ----------
    vocab_size, vector_size : int
        V and E. For "nce" and "sampled_softmax" ids are to be sorted by descending frequency.
    loss : "nce", "negative_sampling" or "sampled_softmax"
        The first and the last draw num_sampled log-uniform classes for a whole batch, as TensorFlow does; the second
        draws num_sampled by their frequency to the power of 3/4, see `fit`.
    num_sampled : int
        Sampled words.
    window : int
        The farthest neighbour; each word draws its own reach, from 1 to window.
    counts : (V,) integers, optional
        How often each word occurs. Without them ``fit`` counts its text.
    sg : 1 or 0
        1 for skip-gram, 0 for CBOW, as in gensim. CBOW runs on the host.
    seed : int, optional
        Fixes the initial weights and all that is drawn.
    dtype : "float32" or "float64"

    Attributes
    ----------
    vectors : (V, E)
        The words' vectors, the weights of the first layer.
    vocabulary : list of V str or None
        What the ids mean; needed wherever words stand instead of ids, and for the files of word2vec.
    words, wv : WordVectors
        Vocabulary and vectors, which answer questions; the same by two names.
    counts : (V,) int64 or None

    Notes
    -----
    ``forward`` takes words xs (B,) and a neighbour of each, ts (B,); of CBOW the neighbours xs (B, C) of words ts (B,),
    -1 where there are fewer, whose vectors' mean has to tell the word. Initial weights are TensorFlow's for "nce" and
    "sampled_softmax" (vectors uniform in -1 to 1, weights normal by 1/sqrt(E)), word2vec's for "negative_sampling"
    (vectors uniform in -1 to 1 by 1/2E, weights zero).
    """

    vocabulary = Names("vocab_size", all_named=True)
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "word_counts")

    def __init__(
        self,
        vocab_size: int,
        vector_size: int,
        *,
        loss: str = "nce",
        num_sampled: int = 64,
        window: int = 5,
        counts: Any = None,
        sg: int = 1,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        dtype = np.dtype(dtype).name
        V = scalars.integer("vocab_size", vocab_size, 1)
        E = scalars.integer("vector_size", vector_size, 1)
        sizes = {
            "vocab_size": V,
            "vector_size": E,
            "num_sampled": scalars.integer("num_sampled", num_sampled, 1),
            "window": scalars.integer("window", window, 1),
        }
        check_choice("loss", loss, LOSSES)
        check_choice("dtype", dtype, ("float32", "float64"))
        # Skip-gram's options are those of files from before there was CBOW.
        architecture = {} if scalars.integer("sg", sg, 0, 1) else {"sg": 0}
        super().__init__({**sizes, "loss": loss, **architecture, "seed": seed, "dtype": dtype}, seed)

        by_pairs = loss == "negative_sampling"
        take_room(2, V, E)
        check_room(f"drawing two matrices of weights of shape ({V}, {E})", 2 * V * E * np.dtype(dtype).itemsize)
        W = self.rng.random((V, E), np.float32)
        W -= 0.5
        W *= 1 / E if by_pairs else 2
        self._embedding = (EmbeddingBag if self.cbow else Embedding)(W.astype(dtype, copy=False))
        weights = np.zeros((V, E), dtype)
        self._output: SampledClassesLoss
        if by_pairs:
            self._output = SharedNegativeSamplingLoss(weights, np.ones(V, np.int64), num_sampled, rng=self.seeds)
        else:
            weights[...] = self.rng.standard_normal((V, E), np.float32) / math.sqrt(E)
            kind = NCELoss if loss == "nce" else SampledSoftmaxLoss
            self._output = kind(weights, np.zeros(V, dtype), num_sampled, rng=self.seeds)
        self._own_layers({"embedding": self._embedding, "output": self._output})
        self._counts: IntArray | None = None
        self._words: WordVectors | None = None
        self._count = 0
        self.counts = counts

    @classmethod
    def from_sentences(
        cls,
        sentences: Iterable[Sequence[str]],
        vector_size: int = 100,
        *,
        min_count: int = 5,
        max_words: int | None = None,
        **options: Any,
    ) -> Self:
        """A model for the words of sentences, with vocabulary and counts; `fit` learns from the same sentences.

        Parameters
        ----------
        sentences : iterable of lists of str
            Read once; not a generator, if they are to be learned from too.
        vector_size : int
        min_count : int
            Rarer words are not in the vocabulary.
        max_words : int, optional
            Nor are others than the most frequent so many.
        options
            The constructor's keyword arguments. Unless given, the loss is gensim's: negative sampling, five negatives.

        Raises
        ------
        TypeError, ValueError
            Something in it is no sentence, or no word is frequent enough.
        """
        vocabulary, counts = frequent_words(sentences, min_count, max_words)
        if "loss" not in options:
            options = {"loss": "negative_sampling", "num_sampled": 5, **options}
        model = cls(len(vocabulary), vector_size, counts=counts, **options)
        model.vocabulary = vocabulary
        return model

    @property
    def cbow(self) -> bool:
        """Whether it is CBOW: words are told by the mean of their neighbours."""
        return self.options.get("sg") == 0

    @property
    def vectors(self) -> FloatArray:
        return self._embedding.params[0]

    @property
    def counts(self) -> IntArray | None:
        return self._counts

    @counts.setter
    def counts(self, counts: Any) -> None:
        if counts is None:
            self._counts = None
            return
        V = self.options["vocab_size"]
        counts = host_array("counts", counts)
        if counts.shape != (V,) or counts.dtype.kind not in "iu" or counts.min() < 0 or not counts.any():
            raise ValueError(
                f"counts is {counts.dtype} of shape {counts.shape}, expected (V,) = {(V,)} whole numbers, not negative "
                "and not all zero"
            )
        check_range("counts", counts, 0, 2**63, f"0 to {2**63 - 1}")
        self._counts = counts.astype(np.int64)
        if isinstance(self._output, SharedNegativeSamplingLoss):
            self._output.table = ops.UnigramTable(self._counts)
            self._output.table.beside(self.vectors)  # copied to a GPU now: no captured step may do that

    @property
    def word_counts(self) -> list[int] | None:
        """The counts as a saved file holds them."""
        return None if self._counts is None else self._counts.tolist()

    @word_counts.setter
    def word_counts(self, counts: list[int] | None) -> None:
        self.counts = counts

    # ----------------------------------------------------------------------------------------
    # Forward and backward
    # ----------------------------------------------------------------------------------------

    def check_batch(self, xs: Any, ts: Any) -> tuple[IntArray, IntArray]:
        """Words xs (B,) and a neighbour of each, ts (B,); of CBOW neighbours xs (B, C) of words ts (B,)."""
        xs, ts = self._check_inputs(xs), self._check_ids("ts", ts, 0)
        if xs.shape[:1] != ts.shape:
            raise ValueError(f"ts has shape {ts.shape}, expected {xs.shape[:1]}, the shape of xs")
        return xs, ts

    def _check_inputs(self, xs: Any) -> IntArray:
        """Words (B,), or of CBOW contexts (B, C), -1 where there are fewer."""
        if not self.cbow:
            return self._check_ids("xs", xs, 0)
        ids = integers("xs", xs, 2, "two axes, (B, C): the neighbours of B words, -1 where there are fewer")
        V = self.options["vocab_size"]
        return class_ids("xs", ids, "vocab_size", V, minus_one="behind the neighbours").astype(np.int64, copy=False)

    def _text(self, name: str, corpus: Any) -> IntArray:
        """Ids or sentences as a checked text (L,)."""
        if is_sentences(corpus) or isinstance(corpus, str):
            corpus = Sentences(name, corpus, self.options["vocab_size"], self.vocabulary).read()
        return self.check_corpus(name, corpus)

    def check_corpus(self, name: str, corpus: Any) -> IntArray:
        """A text as ids (L,) in their own dtype, not copied; raises if there is nothing to learn in it."""
        ids = integers(name, corpus, 1, "one axis, (ids,)")
        check_text(name, ids, "vocab_size", self.options["vocab_size"], SENTENCE_END)
        before = np.full(1, SENTENCE_END)  # the word before a piece
        for piece in text_pieces(ids):
            words = np.concatenate((before, piece)) >= 0
            if (words[1:] & words[:-1]).any():
                return ids
            before = piece[-1:]
        raise ValueError(f"{name} has {len(ids)} ids, expected at least two words side by side in one sentence")

    def _check_ids(self, name: str, ids: Any, low: int) -> IntArray:
        ids = integers(name, ids, 1, "one axis, (ids,)")
        V = self.options["vocab_size"]
        return class_ids(name, ids, "vocab_size", V, low=low).astype(np.int64, copy=False)

    def forward(
        self,
        xs: IntArray,
        ts: Array,
        *,
        training: bool = True,  # noqa: ARG002, nothing differs
        reduction: Reduction = "mean",
    ) -> float:
        """xs and ts as in `check_batch` -> loss. The sampled words are drawn anew; all share them."""
        self._count = len(xs)
        return self._output.forward(self._embedding.forward(xs), ts, reduction=reduction)

    def _backward(self) -> None:
        self._embedding.backward(self._output.backward())

    def _forget(self) -> None:
        self._words = None

    def to(self, device: Device, *, precision: Precision | None = None) -> Self:
        """As of all models; CBOW stays on the host."""
        if self.cbow and device == "cuda":
            raise BackendNotAvailable(
                "CBOW (sg=0) runs on the host only: leave to('cuda') out, or make the model with sg=1 for skip-gram"
            )
        return super().to(device, precision=precision)

    def row_gradients(self) -> list[RowGrad]:
        """The gradients of the last forward call, in the order of ``params``, without those of other words."""
        return [row_grad(self._input_rows()), *self._output.row_grads]

    def _input_rows(self, *, padded: bool = False) -> Any:
        """The gradient of the vectors."""
        dh = self._output.input_gradient()
        if isinstance(self._embedding, EmbeddingBag):
            dh = self._embedding.spread(dh)
        assert self._embedding.idx is not None
        return ops.embedding_backward_rows(self._embedding.idx, dh, padded=padded)

    def learn_pairs(self, xs: IntArray, ts: IntArray, lr: float) -> float:
        """word2vec's rule for negative sampling, see `fit`: the mean loss of a batch, each before its step.

        As in Mikolov's program, the neighbours' vectors learn to tell the words: all words of a window move, instead of
        one word several times. Pairs come both ways round, so it is the same objective; the first epoch learns more.
        Those of CBOW do so together, and each takes the step of their mean.
        """
        assert isinstance(self._output, SharedNegativeSamplingLoss)
        self._count = len(xs)
        if self.cbow:
            there = xs >= 0
            return ops.cbow_update(
                self.vectors,
                self._output.params[0],
                ts,
                xs[there],
                there.sum(axis=1),
                self._output.table,
                num_sampled=self.options["num_sampled"],
                lr=lr,
                seed=self.seeds.draw(),
            )
        return ops.negative_sampling_update(
            self.vectors,
            self._output.params[0],
            ts,
            xs,
            self._output.table,
            num_sampled=self.options["num_sampled"],
            lr=lr,
            seed=self.seeds.draw(),
        )

    def _learns_by_pairs(self, optimizer: Optimizer, max_grad: float | None) -> bool:
        """Whether a step is word2vec's own rule, see `fit`."""
        return self.options["loss"] == "negative_sampling" and max_grad is None and type(optimizer) is SGD

    def train_step(
        self, batch: tuple[Array, ...], optimizer: Optimizer, means: Means, *, max_grad: float | None = None
    ) -> None:
        if not self._learns_by_pairs(optimizer, max_grad):
            super().train_step(batch, optimizer, means, max_grad=max_grad)
            return
        xs, ts = batch
        loss = self.learn_pairs(xs, ts, optimizer.lr)
        optimizer.step += 1
        means["loss"].add(loss * len(xs), len(xs))

    def gradients(self, batch: tuple[Array, ...], means: Means, *, reduction: Reduction = "mean") -> list[Grad]:
        """As of all models, the embedding's and the output's by rows."""
        add_batch(means, self, self._batch_loss(batch, reduction), (), reduction)
        # On a GPU padded, so that nothing synchronises.
        return [self._input_rows(padded=self.device == "cuda"), *self._output.update_grads]

    @property
    def loss_count(self) -> int:
        return self._count

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        return dict.fromkeys(names, (0.0, 0))  # there is none but the loss

    # ----------------------------------------------------------------------------------------
    # Training and use
    # ----------------------------------------------------------------------------------------

    def fit(
        self,
        corpus: Array | Iterable[Any],
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        optimizer: OptimizerLike | None = None,
        final_lr: float | None = None,
        max_grad: float | None = None,
        subsample: float | None = 1e-3,
        validation_data: Array | Iterable[Any] | None = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] | Callback | None = (),
        initial_epoch: int = 0,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
        grad_precision: GradPrecision | None = None,
    ) -> History:
        """Learn a text: ids or sentences. Its pairs are drawn piece by piece, anew in every epoch.

        Parameters
        ----------
        corpus : (L,) ids, or iterable of sentences
            -1 ends a sentence; no pair reaches over it. Integers of any kind, read where they lie: a ``numpy.memmap``
            may be larger than the memory. Or, as in gensim, sentences one after the other: lists of words of the
            vocabulary, of which others are left out, or of ids. They are read once an epoch, into a temporary file, so
            a list will do or an object whose ``__iter__`` begins anew; a generator for one epoch only.
        epochs : int
            How often the text is read.
        batch_size : int, optional
            Pairs a batch, words of CBOW: 128 unless given, for negative sampling by pairs 8192.
        optimizer : str or optimizer, optional
            Only the rows of the words that take part change. Unless given, SGD with a learning rate of 1, for negative
            sampling 0.025.
        final_lr : float, optional
            The learning rate falls to it, evenly from batch to batch. Unless given it stays; for negative sampling
            without an optimizer it falls to 0.0001.
        max_grad : float, optional
            Clip the gradients' global norm to it.
        subsample : float, optional
            A word that is the share f of the text stays with the probability sqrt(subsample / f) + subsample / f. None
            for all words.
        validation_data : (K,) ids or sentences, optional
            Another text, evaluated after every epoch.
        metrics, callbacks, initial_epoch, verbose, workers, shards, grad_precision
            As in `Seq2seq.fit`. Each shard of a batch has sampled words of its own.

        Returns
        -------
        History
            ``history["loss"]`` is a list, an entry an epoch.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the batch at hand is done; the model is as it was after that batch.

        Notes
        -----
        Negative sampling with SGD and without max_grad is word2vec's own rule: a step a pair, each pair with negatives
        of its own, and the learning rate is that of the sum of a pair's losses. CBOW steps word by word, and as in
        word2vec and gensim each neighbour takes the whole step of their mean. With any other optimizer, and for the
        other losses, a batch shares its sampled words and takes one step by the mean of its losses.
        """
        epochs = scalars.integer("epochs", epochs, 0)
        read_again = None
        if is_sentences(corpus) or isinstance(corpus, str):
            require_readable("corpus", corpus, epochs)
            read_again = Sentences("corpus", corpus, self.options["vocab_size"], self.vocabulary).read
            corpus = read_again()
        corpus = self.check_corpus("corpus", corpus)
        if validation_data is not None:
            validation_data = self._text("validation_data", validation_data)
        if optimizer is None:
            negative_sampling = self.options["loss"] == "negative_sampling"
            optimizer = SGD(0.025 if negative_sampling else 1.0)
            if negative_sampling and final_lr is None:
                final_lr = 1e-4
        optimizer = make_optimizer(optimizer)
        by_pairs = self._learns_by_pairs(optimizer, max_grad)
        if by_pairs and self.device == "cuda":
            raise BackendNotAvailable(
                "word2vec's rule pair by pair, negative sampling with SGD, runs on the host only: each step waits for "
                "the one before. Call model.to('cpu'), or give another optimizer, which learns batch by batch"
            )
        if by_pairs and shards != 1:
            raise ValueError(
                f"shards is {shards}, but word2vec's rule, negative sampling with SGD, learns pair by pair: each step "
                "waits for the one before. Leave shards out, or give another optimizer, which learns batch by batch"
            )
        if batch_size is None:
            batch_size = 8192 if by_pairs else 128
        counts = self.counts
        if counts is None:
            counts = np.zeros(self.options["vocab_size"], np.int64)
            for piece in text_pieces(corpus):
                counts += np.bincount(piece[piece >= 0], minlength=len(counts))
        trainer = Trainer(
            self,
            SkipgramBatches(
                corpus,
                counts,
                batch_size,
                window=self.options["window"],
                subsample=subsample,
                cbow=self.cbow,
                device=self.device,
                read_again=read_again,
            ),
            optimizer,
            epochs=epochs,
            initial_epoch=initial_epoch,
            max_grad=max_grad,
            validation_data=None if validation_data is None else (validation_data,),
            metrics=metrics,
            callbacks=[*check_callbacks(callbacks), FallingLearningRate(optimizer.lr, final_lr)],
            verbose=verbose,
            workers=workers,
            shards=shards,
            grad_precision=grad_precision,
        )
        if self.counts is None:
            self.counts = counts
        return trainer.run()

    def evaluate(
        self,
        xs: Array | Iterable[Any],
        ts: Array | Iterable[Any] | None = None,
        *,
        batch_size: int = 8192,
        metrics: Sequence[str] | None = None,
        seed: int = 0,
        workers: Workers | None = None,
        shards: int = 1,
    ) -> dict[str, float]:
        """The loss, without learning; what is drawn for it depends on ``seed`` only.

        Parameters
        ----------
        xs : (L,) ids or sentences
            A text as in `fit`, all of whose pairs are taken once, piece by piece.
        ts : (L,) ids, optional
            With it, xs and ts are those of `check_batch`.
        batch_size : int
            Pairs that share their sampled words.
        metrics : sequence of str, optional
            There is none but "loss".
        seed : int
        workers, shards
            As in `fit`.

        Raises
        ------
        ValueError
            There are no pairs.
        """
        if ts is None:
            text = self._text("xs", xs)  # which has one pair at least
            batches: Iterable[tuple[Array, ...]] = (
                (to_device(inputs, self.device), to_device(words, self.device))
                for inputs, words in whole_text(text, batch_size, self.options["window"], seed, self.cbow)
            )
        else:
            xs, ts = self.check_batch(xs, ts)
            self.require_targets(ts, "evaluate")
            batches = self.batches(xs, ts, batch_size)
        return self._evaluate(batches, metrics, workers, shards, seed)

    def predict(self, xs: IntArray | Sequence[Any]) -> FloatArray:
        """Probabilities of every word to stand near; of CBOW, to stand between.

        Parameters
        ----------
        xs : (B,) ids, or of CBOW (B, C) ids, -1 where there are fewer

        Returns
        -------
        (B, V) array
            The softmax over the whole vocabulary.
        """
        h = self._embedding.forward(to_device(self._check_inputs(xs), self.device))
        weights, *biases = self._output.params
        scores: FloatArray = h @ weights.T
        for b in biases:
            scores += b
        return to_host(ops.softmax(scores, out=scores))

    @property
    def words(self) -> WordVectors:
        """The vocabulary with its vectors; without a vocabulary the words are called "0", "1" ..."""
        vocabulary = self.vocabulary or [str(i) for i in range(self.options["vocab_size"])]
        if self.device != "cpu":  # copied, so that they would grow old
            return WordVectors(vocabulary, to_host(self.vectors))
        if self._words is None or self._words.vocabulary != vocabulary:
            self._words = WordVectors(vocabulary, self.vectors)
        return self._words

    @property
    def wv(self) -> WordVectors:
        """gensim's name for ``words``."""
        return self.words

    def most_similar(
        self,
        word: Direction | Sequence[Direction] = (),
        topn: int = 10,
        *,
        positive: Direction | Sequence[Direction] = (),
        negative: Direction | Sequence[Direction] = (),
    ) -> list[tuple[str, float]]:
        """As `WordVectors.most_similar`, which has gensim's order; ``word`` is one more of the positive."""
        return self.words.most_similar([*listed(word), *listed(positive)], negative, topn)

    def analogy(self, a: str | int, b: str | int, c: str | int, topn: int = 10) -> list[tuple[str, float]]:
        """What is to c as b is to a, and the cosines; see `WordVectors.analogy`."""
        return self.words.analogy(a, b, c, topn)

    def save_word2vec_format(self, path: str | os.PathLike[str], binary: bool = False) -> None:
        """Write words and vectors, without the rest of the model; see `WordVectors.save_word2vec_format`."""
        self.words.save_word2vec_format(path, binary)

    @classmethod
    def load_word2vec_format(cls, path: str | os.PathLike[str], binary: bool = False, **options: Any) -> Self:
        """A model with words and vectors of a file; see `WordVectors.load_word2vec_format`.

        Parameters
        ----------
        path, binary
            As there.
        options
            The keyword arguments of the constructor. What predicts the neighbours is new: the files have none of it.
        """
        words = WordVectors.load_word2vec_format(path, binary)
        model = cls(*words.vectors.shape, **options)
        model.vocabulary = words.vocabulary
        model.vectors[...] = words.vectors
        return model
