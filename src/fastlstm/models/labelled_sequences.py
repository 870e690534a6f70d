"""What classifier and tagger have in common: sequences of ids, classes with names, and how they are learned."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.contract import DEFAULT_GATE_ORDER, Array, FloatArray, IntArray, Reduction
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.distributed.workers import Workers
from fastlstm.layers import Layer, TimeAffineWithLoss, TimeEmbedding
from fastlstm.models.buckets import BucketedRows, order_by_length
from fastlstm.models.estimator import Estimator
from fastlstm.models.id_sequences import ReadsIds, longest
from fastlstm.models.ids import IGNORED
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.names import Names
from fastlstm.models.pretrained import embedding_weights, words_of
from fastlstm.models.row_model import is_given_in_batches
from fastlstm.models.sequence_encoder import PLAIN, SequenceEncoder, encoder_options
from fastlstm.models.softmax_head import SoftmaxHead
from fastlstm.ops import scalars
from fastlstm.ops.device import to_device, to_host
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.batches import Batches, ShuffledRows
from fastlstm.training.callback import check_callbacks
from fastlstm.training.progress import shown


class LabelledSequences(ReadsIds, Estimator):
    """Base of the models that read sequences of ids and say classes: one of a sequence, or one a step.

    The constructor of a model checks its own ``options``, calls this one, which makes the encoder and the output layer,
    and then `_own_encoder_and` what it has between them. A model without a choice of ``gate_order`` has no such option.
    """

    classes = Names("num_classes", all_named=True)
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "classes")
    younger_options: ClassVar[Mapping[str, Any]] = {**PLAIN, "freeze_embeddings": False}
    unsaved_options: ClassVar[tuple[str, ...]] = ("embeddings", "vocabulary")
    class_names: ClassVar[tuple[str, str] | None] = ("num_classes", "classes")
    _estimator_type: ClassVar[str] = "classifier"

    def __init__(
        self,
        *,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        num_classes: int,
        cell: str,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        embeddings: Any,
        freeze_embeddings: bool,
        vocabulary: Sequence[str] | None,
        seed: int | None,
        dtype: str,
        gate_order: str | None = None,
        **options: Any,
    ) -> None:
        dtype = weights_dtype(dtype)
        sizes = {
            "vocab_size": scalars.integer("vocab_size", vocab_size, 1),
            "wordvec_size": scalars.integer("wordvec_size", wordvec_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "num_classes": scalars.integer("num_classes", num_classes, 1),
        }
        reading = encoder_options(cell, num_layers, bidirectional, dropout)
        begin = {"embeddings": embeddings, "freeze_embeddings": bool(freeze_embeddings), "vocabulary": vocabulary}
        gates = {} if gate_order is None else {"gate_order": gate_order}
        super().__init__({**sizes, **options, **reading, **begin, "seed": seed, "dtype": dtype, **gates}, seed)
        self.classes = None

        weights = InitialWeights(self.rng, dtype)
        W = embedding_weights(weights, vocab_size, wordvec_size, embeddings, vocabulary)
        self.vocabulary = words_of(embeddings) if vocabulary is None else vocabulary
        self._encoder = SequenceEncoder(
            weights,
            self.seeds,
            wordvec_size,
            hidden_size,
            reading,
            embedding=TimeEmbedding(W),
            frozen=bool(freeze_embeddings),
            gate_order=gate_order or DEFAULT_GATE_ORDER,
        )
        self._output = TimeAffineWithLoss(*weights.affine(self._encoder.output_size, num_classes))
        self._head = SoftmaxHead(self._output)

    def _own_encoder_and(self, layers: Mapping[str, Layer]) -> None:
        """Collect the layers: the encoder's, then these, then the output layer."""
        frozen = ("embedding",) if self.options["freeze_embeddings"] else ()
        self._own_layers({**self._encoder.layers, **layers, "output": self._output}, self._encoder.dropouts, frozen)

    @property
    def takes_lengths(self) -> bool:
        return True

    @property
    def classes_(self) -> Array:
        """The classes as scikit-learn has them: their names where there are any, else 0 to C - 1."""
        return np.arange(self.options["num_classes"]) if self.classes is None else np.array(self.classes)

    @abc.abstractmethod
    def check_batch(self, xs: Any, ts: Any, lengths: Any = None) -> tuple[IntArray, IntArray]:
        """Sequences xs (N, T), padded with -1, and targets as ids of classes."""

    @abc.abstractmethod
    def _names_in(self, ts: Any) -> Sequence[str] | None:
        """Of targets that are names all of them, else None."""

    @abc.abstractmethod
    def _features_of(self, xs: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, of ids (N, T) with -1 for padding."""

    @abc.abstractmethod
    def forward(
        self,
        xs: IntArray,
        ts: Array,
        sample_weight: FloatArray | None = None,
        *,
        lengths: IntArray | None = None,
        training: bool = True,
        reduction: Reduction = "mean",
    ) -> float:
        """Ids xs (N, T) with -1 for padding, or with lengths (N,), targets ts and weights of them -> loss."""

    def _numbers_of(self, names: Sequence[str]) -> IntArray:
        """The ids of names of classes."""
        if self.classes is None:
            raise ValueError(
                f"ts holds names such as {names[0]!r}, but the model's classes have none; fit with names sets them, or "
                "set model.classes"
            )
        number = {name: i for i, name in enumerate(self.classes)}
        if unknown := sorted(set(names) - number.keys()):
            raise ValueError(f"ts holds {unknown[0]!r}, expected one of the model's classes: {', '.join(self.classes)}")
        return np.array([number[name] for name in names], np.int64)

    def _forget(self) -> None:
        self._head.forget()

    def count_targets(self, ts: Array) -> int:
        return int(np.count_nonzero(ts != IGNORED))

    @property
    def loss_count(self) -> int:
        return self._head.loss_count

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        return self._head.metric_sums(names)

    # ----------------------------------------------------------------------------------------
    # Training and use
    # ----------------------------------------------------------------------------------------

    def fit(
        self,
        xs: Any,
        ts: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lengths: Any = None,
        bucket_by_length: bool = False,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] | Callback | None = (),
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
        grad_precision: GradPrecision | None = None,
    ) -> History:
        """Train. The arguments are those of `Seq2seq.fit`, and three more things are known here.

        Parameters
        ----------
        xs : (N, T) ids with -1 for padding, or a list of N id sequences of different lengths
        ts : targets
            As `check_batch` takes them: ids of classes, one-hot rows, or names of classes.
        lengths : (N,) integers, optional
            How many ids of each row of an array xs count.
        bucket_by_length : bool
            Make batches of sequences of similar lengths, so that less padding is computed; still in a new order every
            epoch. Needs shuffle.
        validation_data : (xs, ts), (xs, ts, lengths) or (xs, ts, lengths or None, sample_weight), optional
            Or what gives batches, as in `Seq2seq.fit`.
        class_weight : dict, optional
            By the numbers of classes, or by their names.
        epochs, batch_size, optimizer, max_grad, validation_split, sample_weight, metrics, callbacks, shuffle
            As in `Seq2seq.fit`.
        initial_epoch, steps_per_epoch, verbose, workers, shards, grad_precision
            As in `Seq2seq.fit`.

        Returns
        -------
        History
            ``history[name]`` is a list, an entry an epoch.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the batch at hand is done; the model is as it was after that batch.
        """
        if bucket_by_length and not shuffle:
            raise ValueError("bucket_by_length chooses an order of its own every epoch; it needs shuffle=True")
        if ts is None and (lengths is not None or bucket_by_length):
            name = "bucket_by_length" if lengths is None else "lengths"
            raise ValueError(f"{name} is given, but xs gives batches; pad their rows with -1 and leave it out")
        callbacks = check_callbacks(callbacks)
        before, names = self.classes, self._names_in(ts)
        if names is not None and before is None:
            self.classes = sorted(set(names))
        try:
            source, validation_data = self._source(
                (xs, ts, lengths),
                kind=BucketedRows if bucket_by_length else ShuffledRows if shuffle else Batches,
                batch_size=batch_size,
                validation_split=validation_split,
                validation_data=validation_data,
                sample_weight=sample_weight,
                class_weight=class_weight,
                epochs=(initial_epoch, epochs),
                steps_per_epoch=steps_per_epoch,
                callbacks=callbacks,
            )
        except Exception:
            self.classes = before
            raise
        return Trainer(
            self,
            source,
            optimizer,
            epochs=epochs,
            initial_epoch=initial_epoch,
            max_grad=max_grad,
            validation_data=validation_data,
            metrics=metrics,
            callbacks=callbacks,
            verbose=verbose,
            workers=workers,
            shards=shards,
            grad_precision=grad_precision,
        ).run()

    def evaluate(
        self,
        xs: Any,
        ts: Any = None,
        sample_weight: Any = None,
        *,
        lengths: Any = None,
        batch_size: int = 128,
        metrics: Sequence[str] | None = None,
        workers: Workers | None = None,
        shards: int = 1,
        verbose: int | str = 0,
        return_dict: bool = True,
    ) -> dict[str, float]:
        """Loss and metrics (all that the model has unless named) over all rows, without learning.

        The arguments are those of `Seq2seq.evaluate`, and lengths that of `fit`.

        Raises
        ------
        ValueError
            No target counts: there are no rows, or all targets are -1.
        """
        metrics = self._usual_metrics() if metrics is None else metrics
        if is_given_in_batches(xs, ts):
            given = self._each_given_batch(xs, sample_weight)
            return self._evaluate(given, metrics, workers, shards, verbose=verbose, return_dict=return_dict)
        xs, ts = self.check_batch(xs, ts, lengths)
        self.require_targets(ts, "evaluate")
        weights = None if sample_weight is None else self._row_weights(sample_weight, ts)
        batches = self.batches(xs, ts, batch_size, weights=weights)
        batches.shuffle_to(order_by_length(xs))
        return self._evaluate(batches, metrics, workers, shards, verbose=verbose, return_dict=return_dict)

    def _usual_metrics(self) -> Sequence[str]:
        """What `evaluate` counts unless it is told."""
        return self.metric_names

    def score(self, xs: Any, ts: Any, *, lengths: Any = None) -> float:
        """The accuracy: the share of right answers among the targets that count."""
        return self.evaluate(xs, ts, lengths=lengths, metrics=("accuracy",))["accuracy"]

    def _probabilities(
        self, xs: IntArray, batch_size: int, verbose: int | str
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """Rows of checked ids, similar lengths together, and what is said of them: (rows, C) or (rows, steps, C)."""
        batch_size = scalars.integer("batch_size", batch_size, 1)
        order = order_by_length(xs)
        with self.weights_prepared():
            for start in shown(range(0, len(xs), batch_size), verbose):
                rows = order[start : start + batch_size]
                batch = xs[rows]
                batch = to_device(batch[:, : longest(batch >= 0)], self.device)
                scores = self._output.scores(self._features_of(batch, training=False))
                yield rows, to_host(ops.softmax(scores, out=scores))
