"""What all layers have: parameters, gradients, and their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from fastlstm.arrays import array_module
from fastlstm.contract import Array, FloatArray, Precision, PreparedWeights, Tape
from fastlstm.ops.checks import is_array

Saved = TypeVar("Saved")


class Layer:
    """Base of all layers.

    What a layer needs for ``backward`` is not copied: until then the parameters, and the arrays that its ``forward``
    says it keeps, must not change.

    Attributes
    ----------
    params, grads : list of arrays
        The same array objects for the layer's life, unless it is moved to another device. Gradients are overwritten in
        place by ``backward``.
    param_names : tuple of str
        What the parameters are called, in the order of ``params``.
    count_formula : str
        How the number of parameters comes about, gate by gate; empty where their shapes say it.
    state_names : tuple of str
        Attributes that one forward call leaves to the next.
    setting_names : tuple of str
        Attributes that say how the parameters are used, shown by ``repr``.
    precision : "tf32", "bf16" or None
        Of the layer's products, as for `fastlstm.ops.lstm_forward`; None: exact. `Model.to` sets it.
    """

    param_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()
    setting_names: ClassVar[tuple[str, ...]] = ()
    precision: Precision | None = None
    _prepared: PreparedWeights[Any] | None = None

    @property
    def count_formula(self) -> str:
        return ""

    def __init__(self, *params: FloatArray) -> None:
        self.params: list[FloatArray] = list(params)
        self.grads: list[FloatArray] = [array_module(param).zeros_like(param) for param in params]

    def __repr__(self) -> str:
        params = (f"{name} {param.shape}" for name, param in zip(self.param_names, self.params, strict=False))
        settings = (f"{name}={getattr(self, name)!r}" for name in self.setting_names)
        return f"{type(self).__name__}({', '.join((*params, *settings))})"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or what is pickled, has: all but what belongs to the backend that made it."""
        return {
            name: None if isinstance(value, (Tape, PreparedWeights)) else value for name, value in vars(self).items()
        }

    def move(self, copy: Callable[[Array], Array]) -> None:
        """Put the copies of all parameters, gradients and states in their places; ``Model.to`` calls it.

        What the last forward call kept for ``backward`` is forgotten.

        Parameters
        ----------
        copy : callable
            Returns the copy of an array on another device: the same one each time, so that shared arrays stay shared.
        """
        for name, value in list(vars(self).items()):
            if name in ("params", "grads"):
                value[:] = [copy(array) for array in value]
            elif name in self.state_names:
                setattr(self, name, None if value is None else copy(value))
            elif isinstance(value, Layer):
                value.move(copy)
            elif _holds_arrays(value):
                setattr(self, name, [] if isinstance(value, list) else None)

    def capture_key(self) -> tuple[Any, ...]:
        """What a captured step of this layer depends on: arrays, by where they are, and settings, by value.

        Once one of these is another, so is the step, and has to be captured again.
        """
        return (self.precision, *self.params, *self.grads)

    def forget_step(self) -> None:
        """Forget what Python knows of the step before: a replay, which runs no Python, takes its place."""

    def set_precision(self, precision: Precision | None) -> None:
        """Of this layer and of those it consists of."""
        self.precision = precision
        for value in vars(self).values():
            if isinstance(value, Layer):
                value.set_precision(precision)

    def set_prepared(self, prepared: bool) -> None:
        """Whether forward calls with training=False read a snapshot of the weights, made now, in place of them.

        Of this layer and of those it consists of. See `fastlstm.ops.prepare_lstm`.
        """
        self._prepared = self._prepare() if prepared else None
        for value in vars(self).values():
            if isinstance(value, Layer):
                value.set_prepared(prepared)

    def _prepare(self) -> PreparedWeights[Any] | None:
        """The snapshot, of a layer whose operator takes one."""
        return None

    def _for_operator(self, *, training: bool) -> Sequence[Any]:
        """What the operator takes for its weights."""
        return self.params if training or self._prepared is None else (self._prepared,)


def saved(value: Saved | None) -> Saved:
    """What the forward call kept for the backward call."""
    if value is None:
        raise RuntimeError("backward was called before forward: nothing is kept to go back through")
    return value


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_arrays(entry) for entry in value)
    return is_array(value) or isinstance(value, Tape)
