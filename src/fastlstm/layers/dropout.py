"""Dropout over sequences."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.contract import FloatArray
from fastlstm.layers.layer import Layer
from fastlstm.layers.seeds import Seeds, seeds_of
from fastlstm.ops import checks
from fastlstm.ops.device import device_of, to_device


class TimeDropout(Layer):
    """Sets elements to zero with probability ``dropout_ratio`` and scales the rest by 1 / (1 - dropout_ratio).

    Parameters
    ----------
    dropout_ratio : float from 0 to below 1
    rng : numpy Generator, or Seeds that layers share, such as ``model.seeds``; optional
        Draws a seed for each forward call, from which the masks are drawn, the same ones on every device. Without it
        numpy's global generator draws them, as in the book.

    Attributes
    ----------
    train_flg : bool
        False lets everything through unchanged.
    seeds : Seeds or None
    """

    setting_names: ClassVar[tuple[str, ...]] = ("dropout_ratio",)

    def __init__(self, dropout_ratio: float = 0.5, *, rng: np.random.Generator | Seeds | None = None) -> None:
        super().__init__()
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio is {dropout_ratio}, expected at least 0 and below 1")
        self.dropout_ratio = dropout_ratio
        self.train_flg = True
        self.mask: FloatArray | None = None
        self.seeds = None if rng is None else seeds_of(rng)

    def forward(self, xs: FloatArray) -> FloatArray:
        """Any shape -> the same shape."""
        checks.require_array("xs", xs)
        if not self.train_flg:
            self.mask = None
            return xs
        if self.seeds is not None:
            self.mask = ops.dropout_mask(xs, self.dropout_ratio, seed=self.seeds.take())
        else:
            # The book's way to draw: a script that seeds numpy's global generator gets the masks it always got.
            drawn = np.random.rand(*xs.shape)  # noqa: NPY002
            mask = (drawn > self.dropout_ratio).astype(xs.dtype)
            mask *= 1.0 / (1.0 - self.dropout_ratio)
            self.mask = to_device(mask, device_of(xs))
        return xs * self.mask

    def backward(self, dout: FloatArray) -> FloatArray:
        """Of the shape of the forward call."""
        checks.require_array("dout", dout)
        if self.mask is None:
            return dout
        checks.expect_shape("dout", dout, self.mask.shape, "of the forward call")
        return dout * self.mask

    def capture_key(self) -> tuple[Any, ...]:
        return (self.dropout_ratio, self.seeds)
