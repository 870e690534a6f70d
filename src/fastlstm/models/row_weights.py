"""What the loss of each row counts: the weights that callers give, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.contract import FloatArray
from fastlstm.ops import scalars
from fastlstm.ops.array_likes import host_array
from fastlstm.ops.checks import describe


def row_weights(weights: Any, shape: tuple[int, ...], dtype: Any) -> FloatArray:
    """Weights of rows as (N,), or as one for each target, of that shape; raises unless they are finite numbers."""
    array = host_array("sample_weight", weights)
    if array.ndim == 2 and array.shape[1] == 1 and array.shape != shape:
        array = array[:, 0]
    if array.shape not in (shape[:1], shape):
        a_target = f", or one a target, {shape}" if len(shape) > 1 else ""
        raise ValueError(f"sample_weight has shape {array.shape}, expected a number a row, {shape[:1]}{a_target}")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight has dtype {array.dtype}, expected numbers")
    array = np.ascontiguousarray(array, dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"sample_weight holds {array[~np.isfinite(array)][0]}, expected finite numbers")
    return array


def class_weights(class_weight: Any, C: int, names: Sequence[str] | None, dtype: Any) -> FloatArray:
    """What each class counts, (C,), by its number or its name; 1 where nothing is said."""
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight is {describe(class_weight)}, expected a dictionary such as {{0: 1.0, 1: 5.0}}: what each "
            "class counts"
        )
    weights = np.ones(C, dtype)
    for key, value in class_weight.items():
        if isinstance(key, str):
            if names is None or key not in names:
                known = "the model's classes have no names" if names is None else f"expected one of {', '.join(names)}"
                raise ValueError(f"class_weight has the class {key!r}; {known}")
            number = names.index(key)
        else:
            number = scalars.integer("a class of class_weight", key)
            if not 0 <= number < C:
                raise ValueError(f"class_weight has the class {number}, expected 0 to {C - 1}")
        weights[number] = scalars.finite(f"class_weight[{key!r}]", value)
    return weights


def by_step(weights: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Weights of rows (N,), or of at least T steps (N, ...), as those of steps (N, T)."""
    if weights.ndim == 1:
        of_steps: FloatArray = array_module(weights).broadcast_to(weights[:, None], shape)
        return of_steps
    return weights[:, : shape[1]]
