"""Sequence classifier: embedding, masked LSTM, the mean over the words of a text, and the probability of every class.

The model of Theano's LSTM tutorial for sentiment analysis (deeplearning.net, lstm.py): the state is carried over
padding, the states of the valid steps are averaged, dropout, softmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import DEFAULT_GATE_ORDER, Array, BoolArray, FloatArray, IntArray, Reduction
from fastlstm.datasets.padding import PADDING as PADDING
from fastlstm.datasets.padding import padded, warn_of_zeros
from fastlstm.distributed.workers import Workers
from fastlstm.layers import TimeAffineWithLoss, TimeDropout, TimeEmbedding, TimeLSTM, TimeMeanPooling
from fastlstm.layers.targets import as_ids
from fastlstm.models.buckets import BucketedRows, order_by_length, row_lengths
from fastlstm.models.estimator import Estimator
from fastlstm.models.ids import IGNORED, class_ids, host_array, integers, signed
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.names import Names
from fastlstm.models.row_model import require_same_rows
from fastlstm.models.softmax_head import SoftmaxHead
from fastlstm.ops import checks, recurrent, scalars
from fastlstm.ops.device import to_device, to_host
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.batches import Batches, Lengths, ShuffledRows

POOLINGS = ("mean", "last")


class SequenceClassifier(Estimator):
    """Which class a sequence of ids belongs to: sentiment of a text, for instance.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size, num_classes : int
    pooling : "mean" or "last"
        What the output layer sees: the mean of the states over all valid steps, or the last state.
    dropout : float from 0 to below 1
        On the input of the output layer, while training.
    seed : int, optional
        Fixes the initial weights, the order of the training rows and the dropout masks.
    dtype : "float32" or "float64"
    gate_order : str
        A permutation of "ifgo", in which the gates lie in the weights; Theano's tutorial has "ifog".

    Attributes
    ----------
    classes : list of str or None
        What the classes are called, all of them; saved with the model. Another sequence of str becomes a list when it
        is set. ``fit`` sets it where it is None and targets are names: sorted.

    Notes
    -----
    Sequences xs are ids (N, T) in which -1 is padding: there the state is carried over unchanged. Or a list of id
    sequences of different lengths. Or ids padded with whatever, together with ``lengths``. A batch is cut to its
    longest sequence. The output layer sees zeros for a row without any valid step. Targets are classes (N,), or their
    names, (N,) str; (N, 1) and one-hot (N, C) are accepted; targets of -1 and one-hot rows of zeros do not count.
    Metrics: "accuracy", the share of right answers; "error", 1 - accuracy. `get_params`, `set_params`, `score` and
    `classes_` are what scikit-learn's tools ask for.
    """

    classes = Names("num_classes", all_named=True)
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "error")
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "classes")
    _estimator_type: ClassVar[str] = "classifier"

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        pooling: str = "mean",
        dropout: float = 0.0,
        seed: int | None = None,
        dtype: str = "float32",
        gate_order: str = DEFAULT_GATE_ORDER,
    ) -> None:
        dtype = weights_dtype(dtype)
        sizes = {
            "vocab_size": scalars.integer("vocab_size", vocab_size, 1),
            "wordvec_size": scalars.integer("wordvec_size", wordvec_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "num_classes": scalars.integer("num_classes", num_classes, 1),
        }
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}, expected 'mean' or 'last'")
        dropout = scalars.below_one("dropout", dropout)
        recurrent.check_gate_order(gate_order)
        options = {"pooling": pooling, "dropout": dropout, "seed": seed, "dtype": dtype, "gate_order": gate_order}
        super().__init__({**sizes, **options}, seed)
        self.classes = None

        weights = InitialWeights(self.rng, dtype)
        self._embedding = TimeEmbedding(weights.embedding(vocab_size, wordvec_size))
        self._lstm = TimeLSTM(*weights.lstm(wordvec_size, hidden_size), gate_order=gate_order)
        self._pooling = TimeMeanPooling() if pooling == "mean" else None
        self._dropout = TimeDropout(dropout, rng=self.seeds)
        self._output = TimeAffineWithLoss(*weights.affine(hidden_size, num_classes))
        self._head = SoftmaxHead(self._output)
        self._own_layers(
            {
                "embedding": self._embedding,
                "lstm": self._lstm,
                **({} if self._pooling is None else {"pooling": self._pooling}),
                "output": self._output,
            },
            [self._dropout],
        )

    # ----------------------------------------------------------------------------------------
    # Sequences of different lengths
    # ----------------------------------------------------------------------------------------

    def check_sequences(self, xs: Any, lengths: Any = None) -> IntArray:
        """Sequences as ids (N, T) with -1 for padding; raises if they are none.

        Parameters
        ----------
        xs : (N, T) ids, or a sequence of N id sequences
        lengths : (N,) integers from 0 to T, optional
            How many ids of each row of an array count; what stands behind them is not read.
        """
        V = self.options["vocab_size"]
        xs = xs if checks.is_array(xs) else padded("xs", xs)
        ids = integers("xs", xs, 2, "two axes, (examples, time steps)")
        if lengths is None:
            warn_of_zeros("xs", ids, self.vocabulary, "lengths=, or numpy.where(mask, xs, -1)")
            return class_ids("xs", ids, "vocab_size", V, minus_one="for padding")
        valid = recurrent.valid_steps(None, host_array("lengths", lengths), *ids.shape)
        assert valid is not None
        class_ids("xs", ids[valid], "vocab_size", V, minus_one="for padding")
        ids = signed(ids)
        return np.where(valid, ids, ids.dtype.type(PADDING))

    @property
    def classes_(self) -> Array:
        """The classes as scikit-learn has them: their names where there are any, else 0 to C - 1."""
        return np.arange(self.options["num_classes"]) if self.classes is None else np.array(self.classes)

    def check_batch(self, xs: Any, ts: Any, lengths: Any = None) -> tuple[IntArray, IntArray]:
        """Sequences xs (N, T), padded with -1, and their classes ts (N,), which may also be (N, 1) or one-hot (N, C).

        A one-hot row of zeros does not count. ts may be names of classes, (N,) str.
        """
        C = self.options["num_classes"]
        if (names := class_names(ts)) is not None:
            ts = self._numbers_of(names)
        xs, ts = self.check_sequences(xs, lengths), as_ids("ts", host_array("ts", ts), 1, C, IGNORED)
        axes = f"classes, (examples,), a column of them, (examples, 1), or one-hot, (examples, {C})"
        ts = integers("ts", ts, 1, axes, "classes")
        require_same_rows(xs, ts)
        return xs, class_ids("ts", ts, "num_classes", C, minus_one="to ignore it").astype(np.int64, copy=False)

    def _numbers_of(self, names: Sequence[str]) -> IntArray:
        if self.classes is None:
            raise ValueError(
                f"ts holds names such as {names[0]!r}, but the model's classes have none; fit with names sets them, or "
                "set model.classes"
            )
        number = {name: i for i, name in enumerate(self.classes)}
        if unknown := sorted(set(names) - number.keys()):
            raise ValueError(f"ts holds {unknown[0]!r}, expected one of the model's classes: {', '.join(self.classes)}")
        return np.array([number[name] for name in names], np.int64)

    # ----------------------------------------------------------------------------------------
    # Forward and backward
    # ----------------------------------------------------------------------------------------

    def forward(
        self,
        xs: IntArray,
        ts: Array,
        *,
        lengths: IntArray | None = None,
        training: bool = True,
        reduction: Reduction = "mean",
    ) -> float:
        """Ids xs (N, T) with -1 for padding, or with lengths (N,), and classes ts (N,) -> loss."""
        if lengths is not None or not checks.is_array(xs):
            xs = to_device(self.check_sequences(xs, lengths), self.device)
        checks.require_array("xs", xs)
        targets = as_ids("ts", ts, 1, self.options["num_classes"], IGNORED)
        features = self._features_of(xs, training=training)
        return self._head.forward(features, targets, training=training, reduction=reduction)

    def _features_of(self, xs: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, (N, H)."""
        mask: BoolArray = xs != PADDING
        some_masked = True
        if not is_device_array(xs):  # on a GPU nobody looks at them here; `Batches` has cut them
            T = longest(mask)
            xs, mask = xs[:, :T], np.ascontiguousarray(mask[:, :T])
            some_masked = not mask.all()
        # Where the mask is False the LSTM reads nothing, so any id will do.
        ids = array_module(xs).where(mask, xs, xs.dtype.type(0))
        hs = self._lstm.forward(self._embedding.forward(ids), mask=mask if some_masked else None, training=training)
        assert self._lstm.h is not None
        pooled = self._lstm.h if self._pooling is None else self._pooling.forward(hs, mask)
        self._dropout.train_flg = training and self._dropout.dropout_ratio > 0
        return self._dropout.forward(pooled)

    def lengths(self, xs: Array, ts: Array) -> Lengths:  # noqa: ARG002
        return row_lengths(xs), None

    def _backward(self) -> None:
        dpooled = self._dropout.backward(self._head.backward())
        if self._pooling is None:
            dxs = self._lstm.backward(None, dh_n=dpooled)
        else:
            dxs = self._lstm.backward(self._pooling.backward(dpooled))
        self._embedding.backward(dxs)

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
        ts: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lengths: Any = None,
        bucket_by_length: bool = False,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[Any, ...] | None = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
    ) -> History:
        """Train. The arguments are those of `Seq2seq.fit`, and three more things are known here.

        Parameters
        ----------
        xs : (N, T) ids with -1 for padding, or a list of N id sequences of different lengths
        ts : (N,) or (N, 1) classes, or one-hot (N, C); or names of classes, (N,) str
        lengths : (N,) integers, optional
            How many ids of each row of an array xs count.
        bucket_by_length : bool
            Make batches of sequences of similar lengths, so that less padding is computed; still in a new order every
            epoch. Needs shuffle.
        validation_data : (xs, ts) or (xs, ts, lengths), optional
        epochs, batch_size, optimizer, max_grad, validation_split, metrics, callbacks, shuffle, verbose, workers, shards
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
        before, names = self.classes, class_names(ts)
        if names is not None and before is None:
            self.classes = sorted(set(names))
        try:
            xs, ts = self.check_batch(xs, ts, lengths)
            xs, ts, validation_data = self._hold_out(xs, ts, validation_split, validation_data)
        except Exception:
            self.classes = before
            raise
        kind = BucketedRows if bucket_by_length else ShuffledRows if shuffle else Batches
        return Trainer(
            self,
            self.batches(xs, ts, batch_size, kind),
            optimizer,
            epochs=epochs,
            max_grad=max_grad,
            validation_data=validation_data,
            metrics=metrics,
            callbacks=callbacks,
            verbose=verbose,
            workers=workers,
            shards=shards,
        ).run()

    def evaluate(
        self,
        xs: Any,
        ts: Any,
        *,
        lengths: Any = None,
        batch_size: int = 128,
        metrics: Sequence[str] | None = None,
        workers: Workers | None = None,
        shards: int = 1,
    ) -> dict[str, float]:
        """Loss and metrics (all of ``metric_names`` unless named) over all rows, without learning.

        Workers share the work out, as in `fit`.

        Raises
        ------
        ValueError
            No target counts: there are no rows, or all targets are -1.
        """
        xs, ts = self.check_batch(xs, ts, lengths)
        self.require_targets(ts, "evaluate")
        batches = self.batches(xs, ts, batch_size)
        batches.shuffle_to(order_by_length(xs))
        return self._evaluate(batches, metrics, workers, shards)

    def score(self, xs: Any, ts: Any, *, lengths: Any = None) -> float:
        """The accuracy: the share of right answers among the targets that count."""
        return self.evaluate(xs, ts, lengths=lengths, metrics=("accuracy",))["accuracy"]

    def predict(self, xs: Any, *, lengths: Any = None, batch_size: int = 128) -> FloatArray:
        """Probabilities of every class.

        Parameters
        ----------
        xs : (N, T) ids with -1 for padding, or a list of N id sequences of different lengths
        lengths : (N,) integers, optional
        batch_size : int

        Returns
        -------
        (N, C) array
        """
        xs = self.check_sequences(xs, lengths)
        out = np.empty((len(xs), self.options["num_classes"]), self.params[0].dtype)
        batch_size = scalars.integer("batch_size", batch_size, 1)
        order = order_by_length(xs)
        with self.weights_prepared():
            for start in range(0, len(xs), batch_size):
                rows = order[start : start + batch_size]
                batch = xs[rows]
                batch = to_device(batch[:, : longest(batch >= 0)], self.device)
                scores = self._output.scores(self._features_of(batch, training=False))
                out[rows] = to_host(ops.softmax(scores, out=scores))
        return out

    def predict_classes(self, xs: Any, *, lengths: Any = None, batch_size: int = 128) -> IntArray:
        """The likeliest class of every sequence, (N,) int64."""
        classes: IntArray = self.predict(xs, lengths=lengths, batch_size=batch_size).argmax(axis=-1)
        return classes


def class_names(ts: Any) -> list[str] | None:
    """Targets that are names, one axis of str, as a list; of all others None."""
    if isinstance(ts, np.ndarray):
        if ts.ndim != 1 or ts.dtype.kind not in "UO":
            return None
        ts = ts.tolist()
    if not isinstance(ts, (list, tuple)) or not ts or not all(isinstance(name, str) for name in ts):
        return None
    return [str(name) for name in ts]


def longest(mask: BoolArray) -> int:
    """Steps up to the last that is valid in any row of mask (N, T)."""
    steps = np.flatnonzero(mask.any(axis=0))
    return int(steps[-1]) + 1 if len(steps) else 0
