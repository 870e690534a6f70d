"""Sequence classifier: embedding, masked recurrent layers, the mean of their states over a text, and its classes.

In its simplest form the model of Theano's LSTM tutorial for sentiment analysis (deeplearning.net, lstm.py): the state
is carried over padding, the states of the valid steps are averaged, dropout, softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.contract import DEFAULT_GATE_ORDER, Array, FloatArray, IntArray, Reduction
from fastlstm.datasets.padding import PADDING as PADDING
from fastlstm.layers import TimeMeanPooling
from fastlstm.layers.targets import as_ids
from fastlstm.models.buckets import row_lengths
from fastlstm.models.id_sequences import steps_of
from fastlstm.models.ids import IGNORED, class_ids, host_array, integers, whole_numbers
from fastlstm.models.labelled_sequences import LabelledSequences
from fastlstm.models.row_model import require_same_rows
from fastlstm.ops import checks, recurrent
from fastlstm.ops.device import to_device
from fastlstm.training.batches import Lengths

POOLINGS = ("mean", "last")


class SequenceClassifier(LabelledSequences):
    """Which class a sequence of ids belongs to: sentiment of a text, for instance.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size, num_classes : int
    pooling : "mean" or "last"
        What the output layer sees: the mean of the states over all valid steps, or the last state; of two directions,
        each one's own last state, side by side.
    cell : "lstm", "gru" or "rnn"
    num_layers : int
        Recurrent layers.
    bidirectional : bool
        Two layers of hidden_size in the place of each, one of which reads from the end.
    dropout : float from 0 to below 1
        Between recurrent layers, and on the input of the output layer, while training.
    embeddings : array-like (V, E) or word vectors, optional
        What the embedding begins with: `fastlstm.models.WordVectors` and models that have them, gensim's KeyedVectors,
        or a mapping of words to vectors. Word vectors are looked up by the words of ``vocabulary``; words without one
        begin at random, with the vectors' standard deviation. Without a vocabulary the ids are those of the word
        vectors.
    freeze_embeddings : bool
        The embedding does not learn; `params` are without it.
    vocabulary : sequence of str, optional
        What the ids mean; becomes the model's ``vocabulary``.
    seed : int, optional
        Fixes the initial weights, the order of the training rows and the dropout masks.
    dtype : "float32" or "float64"
    gate_order : str
        A permutation of "ifgo", in which the gates lie in an LSTM's weights; Theano's tutorial has "ifog". A GRU is
        written in PyTorch's convention.

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

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "error")
    # Dropout was there before.
    younger_options: ClassVar[Mapping[str, Any]] = {
        name: value for name, value in LabelledSequences.younger_options.items() if name != "dropout"
    }

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        pooling: str = "mean",
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        embeddings: Any = None,
        freeze_embeddings: bool = False,
        vocabulary: Sequence[str] | None = None,
        seed: int | None = None,
        dtype: str = "float32",
        gate_order: str = DEFAULT_GATE_ORDER,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}, expected 'mean' or 'last'")
        recurrent.check_gate_order(gate_order)
        super().__init__(
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
            num_classes=num_classes,
            pooling=pooling,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            embeddings=embeddings,
            freeze_embeddings=freeze_embeddings,
            vocabulary=vocabulary,
            seed=seed,
            dtype=dtype,
            gate_order=gate_order,
        )
        self._pooling = TimeMeanPooling() if pooling == "mean" else None
        self._own_encoder_and({} if self._pooling is None else {"pooling": self._pooling})

    def _names_in(self, ts: Any) -> list[str] | None:
        return class_names(ts)

    def check_batch(self, xs: Any, ts: Any, lengths: Any = None) -> tuple[IntArray, IntArray]:
        """Sequences xs (N, T), padded with -1, and their classes ts (N,), which may also be (N, 1) or one-hot (N, C).

        A one-hot row of zeros does not count. ts may be names of classes, (N,) str.
        """
        C = self.options["num_classes"]
        if (names := class_names(ts)) is not None:
            ts = self._numbers_of(names)
        xs, ts = self.check_sequences(xs, lengths), as_ids("ts", host_array("ts", ts), 1, C, IGNORED)
        axes = f"classes, (examples,), a column of them, (examples, 1), or one-hot, (examples, {C})"
        ts = integers("ts", whole_numbers(ts), 1, axes, "classes")
        require_same_rows(xs, ts)
        return xs, class_ids("ts", ts, "num_classes", C, minus_one="to ignore it").astype(np.int64, copy=False)

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
        """Ids xs (N, T) with -1 for padding, or with lengths (N,), classes ts (N,), weights (N,) -> loss."""
        if lengths is not None or not checks.is_array(xs):
            xs = to_device(self.check_sequences(xs, lengths), self.device)
        checks.require_array("xs", xs)
        targets = as_ids("ts", ts, 1, self.options["num_classes"], IGNORED)
        features = self._features_of(xs, training=training)
        return self._head.forward(features, targets, training=training, reduction=reduction, weights=sample_weight)

    def _features_of(self, xs: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, (N, H)."""
        steps = steps_of(xs)
        hs = self._encoder.forward(steps.ids, steps.for_layers, training=training)
        pooled = self._encoder.h if self._pooling is None else self._pooling.forward(hs, steps.mask)
        return self._encoder.drop(pooled)

    def lengths(self, xs: Array, ts: Array) -> Lengths:  # noqa: ARG002
        return row_lengths(xs), None

    def _backward(self) -> None:
        dpooled = self._encoder.dropouts[-1].backward(self._head.backward())
        if self._pooling is None:
            self._encoder.backward(None, dh_n=dpooled)
        else:
            self._encoder.backward(self._pooling.backward(dpooled))

    def predict(self, xs: Any, *, lengths: Any = None, batch_size: int = 128, verbose: int | str = 0) -> FloatArray:
        """Probabilities of every class.

        Parameters
        ----------
        xs : (N, T) ids with -1 for padding, or a list of N id sequences of different lengths
        lengths : (N,) integers, optional
        batch_size : int
        verbose : 0, 1, 2 or "auto"
            1 shows a progress bar.

        Returns
        -------
        (N, C) array
        """
        xs = self.check_sequences(xs, lengths)
        out = np.empty((len(xs), self.options["num_classes"]), self.params[0].dtype)
        for rows, probabilities in self._probabilities(xs, batch_size, verbose):
            out[rows] = probabilities
        return out

    def predict_classes(self, xs: Any, *, lengths: Any = None, batch_size: int = 128) -> IntArray:
        """The likeliest class of every sequence, (N,) int64."""
        classes: IntArray = self.predict(xs, lengths=lengths, batch_size=batch_size).argmax(axis=-1)
        return classes


def class_names(ts: Any) -> list[str] | None:
    """Targets that are names, one axis of str or a column of them, as a list; of all others None."""
    if isinstance(ts, (list, tuple)):
        if not ts or not isinstance(ts[0], (str, list, tuple)):
            return None  # the quick way for numbers
        names = [row[0] if isinstance(row, (list, tuple)) and len(row) == 1 else row for row in ts]
    elif hasattr(ts, "__array__") and not is_device_array(ts):
        array = np.asarray(ts)
        if array.dtype.kind not in "UO" or not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
            return None
        names = array.ravel().tolist()
    else:
        return None
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return [str(name) for name in names]
