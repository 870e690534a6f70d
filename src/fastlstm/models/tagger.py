"""Sequence tagger: embedding, masked recurrent layers, and a class a step: parts of speech, names, chunks.

Huang, Xu, Yu (2015), "Bidirectional LSTM-CRF models for sequence tagging", without the CRF.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import Array, FloatArray, IntArray, Reduction
from fastlstm.datasets.padding import PADDING
from fastlstm.layers.targets import as_ids
from fastlstm.models.buckets import row_lengths
from fastlstm.models.chunks import are_of_chunks, count_chunks
from fastlstm.models.id_sequences import steps_of
from fastlstm.models.ids import IGNORED, class_ids, host_array, integers, whole_numbers
from fastlstm.models.labelled_sequences import LabelledSequences
from fastlstm.models.row_model import require_same_rows
from fastlstm.models.row_weights import by_step
from fastlstm.ops import checks
from fastlstm.ops.device import to_device, to_host
from fastlstm.training.batches import Lengths


class SequenceTagger(LabelledSequences):
    """Which class every step of a sequence of ids belongs to: the part of speech of every word, for instance.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size, num_classes : int
    cell, num_layers, bidirectional, dropout, embeddings, freeze_embeddings, vocabulary, seed, dtype
        As for `SequenceClassifier`. Most taggers are bidirectional.

    Attributes
    ----------
    classes : list of str or None
        What the classes are called, all of them; saved with the model. ``fit`` sets it where it is None and targets are
        names: sorted.

    Notes
    -----
    Sequences xs are those of `SequenceClassifier`: ids (N, T) in which -1 is padding, a list of id sequences of
    different lengths, or ids together with ``lengths``. Targets ts are classes (N, T), of which -1 and those at padding
    do not count; one-hot (N, T, C); or a list of N lists of classes or of their names.
    Metrics: "accuracy", the share of right answers; "error", 1 - accuracy; "f1", for classes such as "O", "B-PER" and
    "I-PER": the F1 of chunks, that is of names and the like as a whole, as conlleval and seqeval count them (micro
    average). An LSTM's gates lie in the order "ifgo", a GRU is written in PyTorch's convention.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "error", "f1")

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        num_classes: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        embeddings: Any = None,
        freeze_embeddings: bool = False,
        vocabulary: Sequence[str] | None = None,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
            num_classes=num_classes,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            embeddings=embeddings,
            freeze_embeddings=freeze_embeddings,
            vocabulary=vocabulary,
            seed=seed,
            dtype=dtype,
        )
        self._own_encoder_and({})

    def _names_in(self, ts: Any) -> list[str] | None:
        names = [name for row in ts for name in row] if _are_rows(ts) else []
        return [str(name) for name in names] if names and all(isinstance(name, str) for name in names) else None

    def check_batch(self, xs: Any, ts: Any, lengths: Any = None) -> tuple[IntArray, IntArray]:
        """Sequences xs (N, T), padded with -1, and their classes ts (N, T), -1 where none counts."""
        C = self.options["num_classes"]
        given, xs = xs, self.check_sequences(xs, lengths)
        rows = [len(row) for row in given] if isinstance(given, Collection) and not checks.is_array(given) else None
        if _are_rows(ts) and not checks.is_array(ts):
            ts = self._padded(ts, xs, rows)
        elif self._names_in(ts) is not None:
            ts = self._numbers_of([name for row in ts for name in row]).reshape(np.shape(ts))
        ts = as_ids("ts", host_array("ts", ts), 2, C, IGNORED)
        ts = integers("ts", whole_numbers(ts), 2, f"classes, (examples, time steps), or one-hot, (..., {C})", "classes")
        require_same_rows(xs, ts)
        if ts.shape != xs.shape:
            raise ValueError(f"ts has shape {ts.shape}, expected {xs.shape}, the shape of xs: a class a step")
        ts = class_ids("ts", ts, "num_classes", C, minus_one="to ignore it").astype(np.int64, copy=False)
        return xs, np.where(xs == PADDING, IGNORED, ts)

    def _padded(self, ts: Any, xs: IntArray, lengths: Sequence[int] | None) -> IntArray | Any:
        """Rows of classes or of their names as an array of the shape of xs; one-hot rows stay what they are."""
        require_same_rows(xs, ts)
        if len({np.ndim(row) for row in ts} - {1}):
            return ts
        padded = np.full(xs.shape, IGNORED)
        for n, row in enumerate(ts):
            steps = xs.shape[1] if lengths is None else lengths[n]
            if len(row) > xs.shape[1] or (lengths is not None and len(row) != steps):
                raise ValueError(
                    f"ts[{n}] has {len(row)} classes, but xs[{n}] {steps} steps: there is one at every step"
                )
            named = len(row) and all(isinstance(name, str) for name in row)
            ids = self._numbers_of(row) if named else integers(f"ts[{n}]", row, 1, "one axis of classes", "classes")
            padded[n, : len(row)] = ids
        return padded

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
        """Ids xs (N, T) with -1 for padding, or with lengths (N,), and classes ts (N, T) -> loss.

        Weights are (N,) or (N, T).
        """
        if lengths is not None or not checks.is_array(xs):
            xs = to_device(self.check_sequences(xs, lengths), self.device)
        checks.require_array("xs", xs)
        targets = as_ids("ts", ts, 2, self.options["num_classes"], IGNORED)
        if targets.shape != xs.shape:
            raise ValueError(f"ts has shape {targets.shape}, expected {xs.shape}, the shape of xs: a class a step")
        features = self._features_of(xs, training=training)
        T = features.shape[1]
        counting = array_module(xs).where(xs[:, :T] == PADDING, IGNORED, targets[:, :T])
        weights = None if sample_weight is None else by_step(sample_weight, counting.shape)
        return self._head.forward(features, counting, training=training, reduction=reduction, weights=weights)

    def _features_of(self, xs: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, (N, T, H), T up to the last step that counts."""
        steps = steps_of(xs)
        return self._encoder.drop(self._encoder.forward(steps.ids, steps.for_layers, training=training))

    def lengths(self, xs: Array, ts: Array) -> Lengths:  # noqa: ARG002
        ends = row_lengths(xs)
        return ends, ends

    def _backward(self) -> None:
        self._encoder.backward(self._encoder.dropouts[-1].backward(self._head.backward()))

    # ----------------------------------------------------------------------------------------
    # Metrics
    # ----------------------------------------------------------------------------------------

    def check_metrics(self, metrics: Sequence[str]) -> tuple[str, ...]:
        names = super().check_metrics(metrics)
        if "f1" in names and not are_of_chunks(self.classes):
            raise ValueError(
                "f1 is of chunks, whose classes are called O, B-..., I-...; the model's are "
                f"{', '.join(self.classes or ['numbers'])}. Set model.classes, or take the accuracy"
            )
        return names

    def _usual_metrics(self) -> Sequence[str]:
        return self.metric_names if are_of_chunks(self.classes) else self.metric_names[:-1]

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        """As for all models; of "f1" twice the chunks that were found, and the chunks that were said and are there."""
        found: dict[str, tuple[float, int]] = {}
        if "f1" in names:
            assert self.classes is not None
            answers = to_host(self._head.scores().argmax(axis=-1))
            found["f1"] = count_chunks(answers, to_host(self._head.targets()), self.classes)
        return {**found, **self._head.metric_sums([name for name in names if name != "f1"])}

    # ----------------------------------------------------------------------------------------
    # Use
    # ----------------------------------------------------------------------------------------

    def predict(self, xs: Any, *, lengths: Any = None, batch_size: int = 128, verbose: int | str = 0) -> FloatArray:
        """Probabilities of every class at every step.

        Parameters
        ----------
        xs : (N, T) ids with -1 for padding, or a list of N id sequences of different lengths
        lengths : (N,) integers, optional
        batch_size : int
        verbose : 0, 1, 2 or "auto"
            1 shows a progress bar.

        Returns
        -------
        (N, T, C) array
            Zeros at padding.
        """
        xs = self.check_sequences(xs, lengths)
        out = np.zeros((*xs.shape, self.options["num_classes"]), self.params[0].dtype)
        for rows, probabilities in self._probabilities(xs, batch_size, verbose):
            out[rows, : probabilities.shape[1]] = probabilities
        out[xs == PADDING] = 0
        return out

    def predict_classes(self, xs: Any, *, lengths: Any = None, batch_size: int = 128) -> IntArray:
        """The likeliest class of every step, (N, T) int64; -1 at padding."""
        xs = self.check_sequences(xs, lengths)
        return np.where(xs == PADDING, IGNORED, self.predict(xs, batch_size=batch_size).argmax(axis=-1))

    def predict_names(self, xs: Any, *, lengths: Any = None, batch_size: int = 128) -> list[list[str]]:
        """The names of the likeliest classes, a list for each sequence, without its padding.

        Raises
        ------
        ValueError
            The model's classes have no names.
        """
        if self.classes is None:
            raise ValueError("the model's classes have no names; set model.classes, or take predict_classes")
        classes = self.classes
        rows = self.predict_classes(xs, lengths=lengths, batch_size=batch_size)
        return [[classes[k] for k in row[row != IGNORED]] for row in rows]


def _are_rows(ts: Any) -> bool:
    """Whether targets are rows with an axis of steps, and no array of numbers."""
    if checks.is_array(ts):
        return bool(ts.ndim == 2 and ts.dtype.kind in "UO")
    return isinstance(ts, (list, tuple)) and all(np.ndim(row) >= 1 for row in ts)
