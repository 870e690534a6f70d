"""Dropout: which elements stay, drawn from a seed."""

from __future__ import annotations

from typing import Any

from fastlstm.backends import family_for
from fastlstm.contract import FloatArray
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.seeds import check_seed


@on_arrays_device
def dropout_mask(xs: FloatArray, ratio: float, *, seed: Any) -> FloatArray:
    """What dropout multiplies by: 0 with the probability ``ratio``, else 1 / (1 - ratio).

    Parameters
    ----------
    xs : (...) float32 or float64
        Only its shape and dtype count, and where it lives.
    ratio : float from 0 to below 1
    seed : int
        From 0 to 2^64 - 1; for xs on a GPU also a 0-d uint64 array there. Equal seeds give equal masks on every
        backend; the elements, in the order of memory, take one draw each.

    Returns
    -------
    (...) array
        A new array of the shape and dtype of xs.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting".
    """
    checks.require_array("xs", xs)
    like: Any = checks.float_array("xs", xs, xs.ndim)
    ratio = scalars.below_one("ratio", ratio)
    return family_for(like, "dropout").dropout_mask(like, ratio=ratio, seed=check_seed(seed, "xs", like))
