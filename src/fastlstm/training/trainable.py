"""What a training asks of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fastlstm.contract import Array, FloatArray, Reduction
from fastlstm.layers import Layer
from fastlstm.layers.seeds import Seeds
from fastlstm.ops.device import Device
from fastlstm.optim import Grad, Optimizer
from fastlstm.training.means import Means, RunningMean


class Trainable(Protocol):
    """What the loop, its checkpoints and its callbacks ask of a model.

    Attributes
    ----------
    options : dict
        What the model was made with; a checkpoint belongs to one with the same.
    layers : dict of name to layer
    params, grads : list of arrays
    rng : numpy Generator
        The source of everything random; a checkpoint keeps its state.
    seeds : Seeds
        What ``rng`` draws within a step.
    stop_training : bool
        Whether the training is to end after the batch or epoch at hand.
    """

    options: dict[str, Any]
    layers: dict[str, Layer]
    params: list[FloatArray]
    grads: list[FloatArray]
    rng: np.random.Generator
    seeds: Seeds
    stop_training: bool

    @property
    def device(self) -> Device:
        """Where the parameters live."""
        ...

    def check_metrics(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """The names without "loss"; raises on a name the model has not."""
        ...

    def make_mean(self, name: str, total: float = 0.0, count: int = 0) -> RunningMean:
        """The mean of "loss" or of a metric, which begins with these sums."""
        ...

    def train_step(
        self, batch: tuple[Array, ...], optimizer: Optimizer, means: Means, *, max_grad: float | None = None
    ) -> None:
        """One step of the optimiser on a batch; loss and metrics, of the weights before it, are added to ``means``.

        On a GPU it may be captured into a graph that is replayed for many batches: what it takes from the host, beside
        ``seeds`` and the learning rate, has to be the same for all of them, or stand in `capture_key`.
        """

    def gradients(self, batch: tuple[Array, ...], means: Means, *, reduction: Reduction = "mean") -> Sequence[Grad]:
        """The gradients of the mean or of the sum of a batch's losses; loss and metrics are added to ``means``."""
        ...

    def capture_key(self) -> tuple[Any, ...]:
        """What a captured step depends on: arrays and settings. Once one of them is another, a new one is captured."""
        ...

    def forget_step(self) -> None:
        """Forget what Python knows of the step before: a replay, which runs no Python, takes its place."""

    def evaluate(self, *data: Any, **options: Any) -> dict[str, float]:
        """Loss and ``metrics`` of validation data, without learning."""
        ...

    def state(self) -> list[FloatArray]:
        """What one step leaves to the next beside the parameters; no arrays where that is nothing, or zeros."""
        ...

    def set_state(self, state: Sequence[FloatArray]) -> None:
        """Go on from what `state` returned."""

    def named_parameters(self) -> Iterator[tuple[str, FloatArray]]:
        """Name and array of every parameter."""
        ...

    def check_weights(self, tensors: Mapping[str, Array], source: str) -> None:
        """Raise unless ``tensors`` are the model's parameters by name, shape and dtype."""

    def set_weights(self, tensors: Mapping[str, Array], source: str) -> None:
        """Copy every parameter from ``tensors``."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model into a file."""


@runtime_checkable
class SaysWhatIsFinal(Protocol):
    """A model that tells, while it goes back through its layers, which gradients are complete.

    Attributes
    ----------
    grads : list of arrays
        What its ``gradients`` returns, while ``on_final`` is called.
    on_final : callable or None
        Called with k once all of ``grads[k:]`` are what they are going to be: with the same ones for any batch.
    """

    grads: list[FloatArray]
    on_final: Callable[[int], None] | None
