"""What all layers have: parameters, gradients, and their names."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import numpy as np

from fastlstm.contract import FloatArray

Saved = TypeVar("Saved")


class Layer:
    """Base of all layers.

    Attributes
    ----------
    params, grads : list of arrays
        The same array objects for the layer's life. Gradients are overwritten in place by ``backward``.
    param_names : tuple of str
        What the parameters are called, in the order of ``params``.
    count_formula : str
        How the number of parameters comes about, gate by gate; empty where their shapes say it.
    """

    param_names: ClassVar[tuple[str, ...]] = ()

    @property
    def count_formula(self) -> str:
        return ""

    def __init__(self, *params: FloatArray) -> None:
        self.params: list[FloatArray] = list(params)
        self.grads: list[FloatArray] = [np.zeros_like(param) for param in params]


def saved(value: Saved | None) -> Saved:
    """What the forward call kept for the backward call."""
    if value is None:
        raise RuntimeError("backward was called before forward: nothing is kept to go back through")
    return value
