"""A sine, cut into pieces and what comes next: the toy problem of many introductions to recurrent networks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.ops import scalars


class SeriesPieces(NamedTuple):
    """xs (n, length, 1): pieces of a series; ts (n, 1): the value that follows each."""

    xs: FloatArray
    ts: FloatArray


def sine(
    n: int = 176, *, length: int = 25, period: float = 100.0, noise: float = 0.0, seed: int | None = None
) -> SeriesPieces:
    """Cut the series sin(2 pi t / period), t = 0, 1, 2 ..., into n pieces that overlap: each begins a step later.

    Parameters
    ----------
    n : int
        Pieces; the series has n + length values.
    length : int
        Values of a piece.
    period : float
        Steps of a full turn.
    noise : float
        Add to every value of the series a number drawn evenly from -noise to noise.
    seed : int, optional
        Fixes the noise.

    Returns
    -------
    SeriesPieces
        xs (n, length, 1) and ts (n, 1), float32.
    """
    n, length = scalars.integer("n", n, 1), scalars.integer("length", length, 1)
    if not period > 0:
        raise ValueError(f"period is {period}, expected a positive number")
    if not noise >= 0:
        raise ValueError(f"noise is {noise}, expected at least 0")
    t = np.arange(n + length)
    series = np.sin(2 * np.pi * t / period) + noise * np.random.default_rng(seed).uniform(-1, 1, len(t))
    series = series.astype(np.float32)
    pieces = np.lib.stride_tricks.sliding_window_view(series[:-1], length)
    return SeriesPieces(np.ascontiguousarray(pieces)[:, :, None], series[length:, None])
