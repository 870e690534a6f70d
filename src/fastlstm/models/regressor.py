"""Sequence regressor: recurrent layers read a series, an affine layer says numbers: what comes next, for instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import Array, BoolArray, FloatArray, Reduction
from fastlstm.datasets.padding import PADDING
from fastlstm.datasets.windows import Scaling
from fastlstm.layers import Affine, MeanSquaredError, TimeAffine, TimeEmbedding
from fastlstm.models.estimator import Estimator
from fastlstm.models.id_sequences import ReadsIds, last_steps, longest, steps_of
from fastlstm.models.ids import host_array
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.model import kept
from fastlstm.models.pretrained import count_vectors, embedding_weights, words_of
from fastlstm.models.row_model import require_same_rows
from fastlstm.models.row_weights import by_step
from fastlstm.models.sequence_encoder import PLAIN, SequenceEncoder, encoder_options
from fastlstm.ops import checks, recurrent, scalars
from fastlstm.ops.device import count_true, number, to_device, to_host
from fastlstm.training import History
from fastlstm.training.batches import Lengths
from fastlstm.training.progress import shown


class SequenceRegressor(ReadsIds, Estimator):
    """Numbers from a series of numbers, or from a sequence of ids: one vector a series, or one a step.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    cell : "lstm", "gru" or "rnn"
    num_layers : int
        Recurrent layers.
    bidirectional : bool
        Two layers of hidden_size in the place of each, one of which reads from the end.
    dropout : float from 0 to below 1
        Between recurrent layers, and on the input of the output layer, while training.
    return_sequences : bool
        Say numbers at every step, as of a layer of Keras; else after the last.
    mask_value : float, optional
        A step whose numbers are all this one is padding, as for Keras's Masking: the state is carried over it, and a
        target there does not count. Series of different lengths need it.
    vocab_size : int, optional
        With it, series are ids below it, (N, T) with -1 for padding, which an embedding of width input_size reads.
    embeddings, freeze_embeddings, vocabulary
        As for `SequenceClassifier`. Embeddings say vocab_size, if it is not given: it is the number of the words of
        ``vocabulary``, else of the vectors.
    seed : int, optional
        Fixes the initial weights, the order of the training rows and the dropout masks.
    dtype : "float32" or "float64"

    Attributes
    ----------
    scaling : fastlstm.datasets.Scaling or None
        Of the series that the model was trained on; saved with it. What the model reads and says is scaled.

    Notes
    -----
    Series xs (N, T, D), targets ts (N, K): the output is made of the state after the last step, of two directions of
    each one's own last state. With return_sequences targets are (N, T, K). With a mask_value xs may be a list of N
    series (T_n, D), and targets then a list of (T_n, K); or an array padded with whatever, together with ``lengths``.
    The loss is the mean of the squared differences, over the steps that count. Metrics: "mae", the mean of the absolute
    differences; "mse", the loss as it is without weights. An LSTM's gates lie in the order "ifgo", a GRU is written in
    PyTorch's convention.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "mae")
    further_metric_names: ClassVar[tuple[str, ...]] = ("mse",)
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "scaling_numbers")
    optional_names: ClassVar[tuple[str, ...]] = ("scaling_numbers",)
    younger_options: ClassVar[Mapping[str, Any]] = {
        **{name: value for name, value in PLAIN.items() if name != "cell"},
        "return_sequences": False,
        "mask_value": None,
        "vocab_size": None,
        "freeze_embeddings": False,
    }
    unsaved_options: ClassVar[tuple[str, ...]] = ("embeddings", "vocabulary")
    _estimator_type: ClassVar[str] = "regressor"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        return_sequences: bool = False,
        mask_value: float | None = None,
        vocab_size: int | None = None,
        embeddings: Any = None,
        freeze_embeddings: bool = False,
        vocabulary: Sequence[str] | None = None,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        dtype = weights_dtype(dtype)
        sizes = {
            "input_size": scalars.integer("input_size", input_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "output_size": scalars.integer("output_size", output_size, 1),
        }
        reading = encoder_options(cell, num_layers, bidirectional, dropout)
        words = words_of(embeddings) if vocabulary is None else vocabulary
        if vocab_size is not None:
            vocab_size = scalars.integer("vocab_size", vocab_size, 1)
        elif embeddings is not None:
            vocab_size = count_vectors(embeddings) if vocabulary is None else len(vocabulary)
            vocab_size = scalars.integer("the number of embeddings", vocab_size, 1)
        if mask_value is not None:
            mask_value = scalars.finite("mask_value", mask_value)
            if vocab_size is not None:
                raise ValueError("mask_value is of series of numbers; in ids, which vocab_size is for, -1 is padding")
        switches = {
            "return_sequences": bool(return_sequences),
            "mask_value": mask_value,
            "vocab_size": vocab_size,
            "embeddings": embeddings,
            "freeze_embeddings": bool(freeze_embeddings),
            "vocabulary": vocabulary,
        }
        super().__init__({**sizes, **reading, **switches, "seed": seed, "dtype": dtype}, seed)
        self.scaling: Scaling | None = None
        self.vocabulary = words

        weights = InitialWeights(self.rng, dtype)
        embedding = None
        if vocab_size is not None:
            embedding = TimeEmbedding(embedding_weights(weights, vocab_size, input_size, embeddings, vocabulary))
        self._encoder = SequenceEncoder(
            weights, self.seeds, input_size, hidden_size, reading, embedding=embedding, frozen=bool(freeze_embeddings)
        )
        output = weights.affine(self._encoder.output_size, output_size)
        self._affine = TimeAffine(*output) if return_sequences else Affine(*output)
        self._loss = MeanSquaredError()
        self._own_layers(
            {**self._encoder.layers, "output": self._affine},
            self._encoder.dropouts,
            ("embedding",) if freeze_embeddings else (),
        )
        self._outputs: FloatArray | None = None
        self._targets: FloatArray | None = None
        self._mask: BoolArray | None = None

    @property
    def scaling_numbers(self) -> dict[str, list[float]] | None:
        """The scaling as a saved file holds it."""
        if self.scaling is None:
            return None
        return {name: [float(number) for number in numbers] for name, numbers in self.scaling._asdict().items()}

    @scaling_numbers.setter
    def scaling_numbers(self, numbers: dict[str, list[float]] | None) -> None:
        self.scaling = None if numbers is None else Scaling(*(np.array(numbers[name]) for name in Scaling._fields))

    # ----------------------------------------------------------------------------------------
    # Series of different lengths
    # ----------------------------------------------------------------------------------------

    def check_series(self, xs: Any, lengths: Any = None) -> Array:
        """Series as an array (N, T, D) of the model's dtype, or as ids (N, T); raises if they are none.

        Parameters
        ----------
        xs : (N, T, D) numbers, or with a mask_value a list of N series (T_n, D); with a vocab_size ids
        lengths : (N,) integers from 0 to T, optional
            How many steps of each row of an array count; what stands behind them is not read.
        """
        if self.options["vocab_size"] is not None:
            return self.check_sequences(xs, lengths)
        D, value = self.options["input_size"], self.options["mask_value"]
        if value is None:
            if lengths is not None:
                raise ValueError("lengths need a model with a mask_value, a number that stands where no step counts")
            return self._numbers("xs", xs, ("examples", "time steps"), D)
        if not checks.is_array(xs):
            xs, lengths = self._padded("xs", xs, D), [len(row) for row in xs] if lengths is None else lengths
        series = self._numbers("xs", xs, ("examples", "time steps"), D)
        if lengths is None:
            return series
        valid = recurrent.valid_steps(None, host_array("lengths", lengths), *series.shape[:2])
        assert valid is not None
        if (masked := valid & ~self._counts(series)).any():
            n, t = np.argwhere(masked)[0]
            raise ValueError(f"xs[{n}, {t}] holds the mask_value {value}, but counts; make the model with another one")
        made: FloatArray = np.where(valid[..., None], series, series.dtype.type(value))
        return made

    def check_batch(self, xs: Any, ts: Any, lengths: Any = None) -> tuple[Array, FloatArray]:
        """Series as `check_series` takes them, and targets ts (N, K) or, with return_sequences, (N, T, K)."""
        xs, K = self.check_series(xs, lengths), self.options["output_size"]
        if not self.options["return_sequences"]:
            ts = host_array("ts", ts)
            ts = self._numbers("ts", ts[:, None] if ts.ndim == K == 1 else ts, ("examples",), K)
            require_same_rows(xs, ts)
            return xs, ts
        if not checks.is_array(ts) and self._masks:
            ts = self._padded("ts", ts, K, xs.shape[1])
        ts = self._numbers("ts", ts, ("examples", "time steps"), K)
        require_same_rows(xs, ts)
        if ts.shape[1] != xs.shape[1]:
            raise ValueError(f"ts has {ts.shape[1]} steps and xs {xs.shape[1]}; there is a target at every step")
        if self._masks:
            ts = np.where(self._counts(xs)[..., None], ts, ts.dtype.type(np.nan))
        return xs, ts

    def count_targets(self, ts: Array) -> int:
        """How many of checked targets count: of those at padding `check_batch` has made NaN."""
        if not (self.options["return_sequences"] and self._masks):
            return super().count_targets(ts)
        return int(np.count_nonzero(~np.isnan(ts)))

    @property
    def takes_lengths(self) -> bool:
        return self._masks

    @property
    def _masks(self) -> bool:
        """Whether there may be steps that do not count."""
        return self.options["mask_value"] is not None or self.options["vocab_size"] is not None

    def _counts(self, xs: Array) -> BoolArray:
        """Which steps of series with a mask_value, or of ids, count, (N, T)."""
        value = self.options["mask_value"]
        counts: BoolArray = xs != PADDING if value is None else (xs != xs.dtype.type(value)).any(axis=-1)
        return counts

    def _padded(self, name: str, rows: Sequence[Any], width: int, steps: int = 0) -> FloatArray:
        """A list of arrays (T_n, width) as one, filled up with the mask_value."""
        if not isinstance(rows, Iterable):
            raise TypeError(f"{name} is {checks.describe(rows)}, expected an array, or a sequence of rows")
        arrays = [host_array(f"{name}[{i}]", row) for i, row in enumerate(rows)]
        for i, array in enumerate(arrays):
            if array.ndim != 2 or array.shape[1] != width:
                raise ValueError(f"{name}[{i}] has shape {array.shape}, expected (time steps, {width})")
        T = max([steps, *map(len, arrays)])
        out = np.full((len(arrays), T, width), self.options["mask_value"] or 0, self.params[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    def _numbers(self, name: str, values: Any, axes: Sequence[str], width: int) -> FloatArray:
        array = host_array(name, values)
        if array.ndim != len(axes) + 1 or array.shape[-1] != width:
            hint = f". One number each is {name}[..., None]" if width == 1 and array.ndim == len(axes) else ""
            raise ValueError(f"{name} has shape {array.shape}, expected ({', '.join((*axes, str(width)))}){hint}")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} has dtype {array.dtype}, expected numbers")
        return np.ascontiguousarray(array, self.params[0].dtype)

    def lengths(self, xs: Array, ts: Array) -> Lengths:  # noqa: ARG002
        if not self._masks:
            return None, None
        ends = last_steps(self._counts(xs))
        return ends, ends if self.options["return_sequences"] else None

    # ----------------------------------------------------------------------------------------
    # Forward and backward
    # ----------------------------------------------------------------------------------------

    def forward(
        self,
        xs: Array,
        ts: FloatArray,
        sample_weight: FloatArray | None = None,
        *,
        lengths: Any = None,
        training: bool = True,
        reduction: Reduction = "mean",
    ) -> float:
        """Series xs (N, T, D) or ids (N, T), targets ts (N, K) or (N, T, K) -> loss.

        Weights are (N,), with return_sequences also (N, T).
        """
        if lengths is not None:
            xs = to_device(self.check_series(xs, lengths), self.device)
        checks.require_array("xs", xs)
        checks.require_array("ts", ts)
        if self.options["return_sequences"]:
            expected = (*xs.shape[:2], self.options["output_size"])
            checks.expect_shape("ts", ts, expected, f"= (N, T, K) for xs with shape {xs.shape}")
        self._outputs, mask = self._outputs_of(xs, training=training)
        if not self.options["return_sequences"]:
            self._targets, self._mask = ts, None
            return self._loss.forward(self._outputs, ts, reduction=reduction, weights=sample_weight)
        self._targets, self._mask = ts[:, : self._outputs.shape[1]], mask
        weights = None if sample_weight is None else by_step(sample_weight, self._targets.shape[:2])
        return self._loss.forward(self._outputs, self._targets, mask=mask, reduction=reduction, weights=weights)

    def weights_shape(self, ts: FloatArray) -> tuple[int, ...]:
        return ts.shape[:-1]

    def _outputs_of(self, xs: Array, *, training: bool) -> tuple[FloatArray, BoolArray | None]:
        """Outputs (N, K), or (N, T, K) up to the last step that counts; and which count, None if all do."""
        mask: BoolArray | None = None
        if self.options["vocab_size"] is not None:
            steps = steps_of(xs)
            xs, mask = steps.ids, steps.for_layers
        elif self._masks:
            xs = checks.float_array("xs", xs, 3)
            mask = self._counts(xs)
            if not is_device_array(xs):
                T = longest(mask)
                xs, mask = xs[:, :T], np.ascontiguousarray(mask[:, :T])
                mask = None if mask.all() else mask
        hs = self._encoder.forward(xs, mask, training=training)
        features = hs if self.options["return_sequences"] else self._encoder.h
        return self._affine.forward(self._encoder.drop(features)), mask

    def _backward(self) -> None:
        d = self._encoder.dropouts[-1].backward(self._affine.backward(self._loss.backward()))
        if self.options["return_sequences"]:
            self._encoder.backward(d)
        else:
            self._encoder.backward(None, dh_n=d)

    def _forget(self) -> None:
        self._outputs = self._targets = self._mask = None

    @property
    def loss_count(self) -> int:
        if self._targets is None:
            return 0
        return self._targets.size if self._mask is None else count_true(self._mask) * self.options["output_size"]

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        outputs, targets = kept(self._outputs), kept(self._targets)
        xp = array_module(outputs)
        difference = outputs - targets
        if self._mask is not None:
            difference = xp.where(self._mask[..., None], difference, 0)
        sums: dict[str, float] = {}
        if "mae" in names:
            sums["mae"] = number(xp.abs(difference).sum(dtype=np.float64))
        if "mse" in names:
            sums["mse"] = number((difference * difference).sum(dtype=np.float64))
        return {name: (sums[name], self.loss_count) for name in names}

    # ----------------------------------------------------------------------------------------
    # Training and use
    # ----------------------------------------------------------------------------------------

    def fit(self, xs: Any, ts: Any = None, *, lengths: Any = None, **options: Any) -> History:
        """Train. The other arguments are those of `Seq2seq.fit`.

        Parameters
        ----------
        xs : (N, T, D) numbers, or with a mask_value a list of N series (T_n, D); with a vocab_size ids
        ts : (N, K), with K = 1 also (N,), or with return_sequences (N, T, K) or a list of N targets (T_n, K)
        lengths : (N,) integers, optional
            How many steps of each row of an array xs count.
        validation_data : (xs, ts), (xs, ts, sample_weight), optional
            With a mask_value or a vocab_size (xs, ts, lengths) or (xs, ts, lengths or None, sample_weight).
        """
        if lengths is not None:
            xs, ts = self.check_batch(xs, ts, lengths)
        return super().fit(xs, ts, **options)

    def evaluate(
        self, xs: Any, ts: Any = None, sample_weight: Any = None, *, lengths: Any = None, **options: Any
    ) -> dict[str, float]:
        """Loss and metrics over all rows, without learning; the other arguments are those of `Seq2seq.evaluate`."""
        if lengths is not None:
            xs, ts = self.check_batch(xs, ts, lengths)
        return super().evaluate(xs, ts, sample_weight, **options)

    def predict(self, xs: Any, *, lengths: Any = None, batch_size: int = 512, verbose: int | str = 0) -> FloatArray:
        """Outputs of every series.

        Parameters
        ----------
        xs, lengths
            As for `fit`.
        batch_size : int
        verbose : 0, 1, 2 or "auto"
            1 shows a progress bar.

        Returns
        -------
        (N, K) array, with return_sequences (N, T, K)
            NaN at steps that do not count.
        """
        xs, batch_size = self.check_series(xs, lengths), scalars.integer("batch_size", batch_size, 1)
        steps = xs.shape[1:2] if self.options["return_sequences"] else ()
        out = np.full((len(xs), *steps, self.options["output_size"]), np.nan, self.params[0].dtype)
        with self.weights_prepared():
            for start in shown(range(0, len(xs), batch_size), verbose):
                rows = slice(start, start + batch_size)
                said = to_host(self._outputs_of(to_device(xs[rows], self.device), training=False)[0])
                if steps:
                    out[rows, : said.shape[1]] = said
                else:
                    out[rows] = said
        if steps and self._masks:
            out[~self._counts(xs)] = np.nan
        return out

    def score(self, xs: Any, ts: Any, *, lengths: Any = None) -> float:
        """The coefficient of determination R², the mean over the K outputs, as scikit-learn's ``r2_score``.

        1 - (sum of the squared errors) / (sum of the squared differences of the targets from their mean): 1 where all
        is right, 0 for their mean. Of an output whose targets are all equal, 1 where all are right, else 0. With
        return_sequences over all steps that count.
        """
        xs, ts = self.check_batch(xs, ts, lengths)
        self.require_targets(ts, "score")
        said, wide = self.predict(xs), ts.astype(np.float64)
        if self.options["return_sequences"]:
            counts = self._counts(xs) if self._masks else np.ones(xs.shape[:2], bool)
            said, wide = said[counts], wide[counts]
        errors = ((said - wide) ** 2).sum(axis=0)
        spread = ((wide - wide.mean(axis=0)) ** 2).sum(axis=0)
        equal = spread == 0
        return float(np.where(equal, errors == 0, 1 - errors / np.where(equal, 1, spread)).mean())

    def generate(self, start: Any, length: int) -> FloatArray:
        """Go on with a series: each output becomes the next input.

        Parameters
        ----------
        start : (S, D), or (N, S, D) for several series at once
            How the series begins. The model always reads the last S values, as it did while training.
        length : int
            How many values to say; needs input_size = output_size, and series of numbers.

        Returns
        -------
        (length, D) or (N, length, D) array
            Without ``start``.
        """
        D, K = self.options["input_size"], self.options["output_size"]
        if self.options["vocab_size"] is not None:
            raise ValueError("outputs cannot be inputs, which are ids")
        if D != K:
            raise ValueError(f"outputs of width {K} cannot be inputs of width {D}")
        start = host_array("start", start)
        one = start.ndim == 2
        begin = to_device(self.check_series(start[None] if one else start), self.device)
        xp = array_module(begin)
        N, S, _ = begin.shape
        if S == 0:
            raise ValueError("start is empty, expected at least one value to go on from")
        series = xp.empty((N, S + scalars.integer("length", length, 0), D), begin.dtype)
        series[:, :S] = begin
        with self.weights_prepared():
            for end in range(S, series.shape[1]):
                said, _ = self._outputs_of(xp.ascontiguousarray(series[:, end - S : end]), training=False)
                series[:, end] = said[:, -1] if self.options["return_sequences"] else said
        return to_host(series[0, S:] if one else series[:, S:])
