"""Sequence regressor: a recurrent layer reads a series, an affine layer says numbers: what comes next, for instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import DEFAULT_GATE_ORDER, FloatArray, Reduction
from fastlstm.datasets.windows import Scaling
from fastlstm.layers import Affine, MeanSquaredError, TimeLSTM, TimeRNN
from fastlstm.models.estimator import Estimator
from fastlstm.models.ids import host_array
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.model import kept
from fastlstm.models.row_model import require_same_rows
from fastlstm.ops import scalars
from fastlstm.ops.device import number, to_device, to_host

CELLS = ("lstm", "rnn")


class SequenceRegressor(Estimator):
    """Numbers from a series of numbers, read by an LSTM or a tanh RNN.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    cell : "lstm" or "rnn"
    seed : int, optional
        Fixes the initial weights and the order of the training rows.
    dtype : "float32" or "float64"

    Attributes
    ----------
    scaling : fastlstm.datasets.Scaling or None
        Of the series that the model was trained on; saved with it. What the model reads and says is scaled.

    Notes
    -----
    Series xs (N, T, D), targets ts (N, K): the output is made of the state after the last step. The loss is the mean of
    the squared differences. Metrics: "mae", the mean of the absolute differences. Gates lie in the order "ifgo".
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "mae")
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "scaling_numbers")
    optional_names: ClassVar[tuple[str, ...]] = ("scaling_numbers",)
    _estimator_type: ClassVar[str] = "regressor"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        cell: str = "lstm",
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        dtype = weights_dtype(dtype)
        sizes = {
            "input_size": scalars.integer("input_size", input_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "output_size": scalars.integer("output_size", output_size, 1),
        }
        if cell not in CELLS:
            raise ValueError(f"cell is {cell!r}, expected 'lstm' or 'rnn'")
        super().__init__({**sizes, "cell": cell, "seed": seed, "dtype": dtype}, seed)

        self.scaling: Scaling | None = None

        weights = InitialWeights(self.rng, dtype)
        self._recurrent: TimeLSTM | TimeRNN
        if cell == "lstm":
            self._recurrent = TimeLSTM(*weights.lstm(input_size, hidden_size), gate_order=DEFAULT_GATE_ORDER)
        else:
            Wx, b = weights.affine(input_size, hidden_size)
            Wh, _ = weights.affine(hidden_size, hidden_size)
            self._recurrent = TimeRNN(Wx, Wh, b)
        self._affine = Affine(*weights.affine(hidden_size, output_size))
        self._loss = MeanSquaredError()
        self._own_layers({cell: self._recurrent, "output": self._affine})
        self._outputs: FloatArray | None = None
        self._targets: FloatArray | None = None

    @property
    def scaling_numbers(self) -> dict[str, list[float]] | None:
        """The scaling as a saved file holds it."""
        if self.scaling is None:
            return None
        return {name: [float(number) for number in numbers] for name, numbers in self.scaling._asdict().items()}

    @scaling_numbers.setter
    def scaling_numbers(self, numbers: dict[str, list[float]] | None) -> None:
        self.scaling = None if numbers is None else Scaling(*(np.array(numbers[name]) for name in Scaling._fields))

    def check_series(self, xs: Any) -> FloatArray:
        """Series as an array (N, T, D) of the model's dtype; raises if they are none."""
        return self._numbers("xs", xs, ("examples", "time steps"), self.options["input_size"])

    def check_batch(self, xs: Any, ts: Any) -> tuple[FloatArray, FloatArray]:
        """Series xs (N, T, D) and targets ts (N, K) as arrays of the model's dtype."""
        xs, ts = self.check_series(xs), self._numbers("ts", ts, ("examples",), self.options["output_size"])
        require_same_rows(xs, ts)
        return xs, ts

    def _numbers(self, name: str, values: Any, axes: Sequence[str], width: int) -> FloatArray:
        array = host_array(name, values)
        if array.ndim != len(axes) + 1 or array.shape[-1] != width:
            hint = f". One number each is {name}[..., None]" if width == 1 and array.ndim == len(axes) else ""
            raise ValueError(f"{name} has shape {array.shape}, expected ({', '.join((*axes, str(width)))}){hint}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} has dtype {array.dtype}, expected numbers")
        return np.ascontiguousarray(array, self.params[0].dtype)

    def forward(self, xs: FloatArray, ts: FloatArray, *, training: bool = True, reduction: Reduction = "mean") -> float:
        """Series xs (N, T, D), targets ts (N, K) -> loss."""
        self._outputs, self._targets = self._outputs_of(xs, training=training), ts
        return self._loss.forward(self._outputs, ts, reduction=reduction)

    def _outputs_of(self, xs: FloatArray, *, training: bool) -> FloatArray:
        self._recurrent.forward(xs, training=training)
        assert self._recurrent.h is not None
        return self._affine.forward(self._recurrent.h)

    def _backward(self) -> None:
        self._recurrent.backward(None, dh_n=self._affine.backward(self._loss.backward()))

    def _forget(self) -> None:
        self._outputs = self._targets = None

    @property
    def loss_count(self) -> int:
        return 0 if self._targets is None else self._targets.size

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        outputs, targets = kept(self._outputs), kept(self._targets)
        difference = array_module(outputs).abs(outputs - targets)
        total = number(difference.sum(dtype=np.float64))
        return dict.fromkeys(names, (total, targets.size))

    def predict(self, xs: Any, *, batch_size: int = 512) -> FloatArray:
        """Series xs (N, T, D) -> outputs (N, K)."""
        xs, batch_size = self.check_series(xs), scalars.integer("batch_size", batch_size, 1)
        out = np.empty((len(xs), self.options["output_size"]), xs.dtype)
        with self.weights_prepared():
            for start in range(0, len(xs), batch_size):
                rows = slice(start, start + batch_size)
                out[rows] = to_host(self._outputs_of(to_device(xs[rows], self.device), training=False))
        return out

    def score(self, xs: Any, ts: Any) -> float:
        """The coefficient of determination R², the mean over the K outputs, as scikit-learn's ``r2_score``.

        1 - (sum of the squared errors) / (sum of the squared differences of the targets from their mean): 1 where all
        is right, 0 for their mean. Of an output whose targets are all equal, 1 where all are right, else 0.
        """
        xs, ts = self.check_batch(xs, ts)
        self.require_targets(ts, "score")
        wide = ts.astype(np.float64)
        errors = ((self.predict(xs) - wide) ** 2).sum(axis=0)
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
            How many values to say; needs input_size = output_size.

        Returns
        -------
        (length, D) or (N, length, D) array
            Without ``start``.
        """
        D, K = self.options["input_size"], self.options["output_size"]
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
                series[:, end] = self._outputs_of(xp.ascontiguousarray(series[:, end - S : end]), training=False)
        return to_host(series[0, S:] if one else series[:, S:])
