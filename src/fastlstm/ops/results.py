"""``out``, ``accumulate`` and ``without``: results into arrays of the caller's, and what is not wanted.

The checks are here once, for every operator that has these arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm.contract import Array, FloatArray
from fastlstm.ops import checks

# Gradients of weights: `accumulate` adds to them, and those of matrices may be transposes of C-contiguous arrays.
WEIGHTS = ("dWx", "dWh", "dW", "db")


class Destination(NamedTuple):
    """Where the results of a call go.

    arrays : by field, the caller's array or None for a new one; what is not computed has None.
    accumulate, without : as they were given.
    """

    arrays: dict[str, FloatArray | None]
    accumulate: bool
    without: tuple[str, ...]


def destination(
    fields: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    like: FloatArray,
    of: str,
    read: Mapping[str, Array | None],
    *,
    out: Any,
    accumulate: bool,
    without: Collection[str],
) -> Destination:
    """The arguments ``out``, ``accumulate`` and ``without`` of an operator, checked before anything is written.

    Parameters
    ----------
    fields : the names of the operator's results
    shapes : the shapes of those results that are arrays
    like, of : an array of the call and its name
        Results have its dtype and live where it lives.
    read : the arrays by name that are read while results are written, contiguous

    Raises
    ------
    TypeError, ValueError
        An array of out does not fit, is read-only or overlaps another, without has a name that is no field, or
        accumulate comes without out.
    """
    if isinstance(without, str) or not isinstance(without, Collection) or any(name not in fields for name in without):
        raise ValueError(f"without is {without!r:.60}, expected a tuple of names among {', '.join(fields)}")
    if out is None:
        if accumulate:
            raise ValueError("accumulate is given without out, to whose arrays the gradients are added; give both")
        return Destination(dict.fromkeys(shapes), False, tuple(without))
    if not any(hasattr(out, field) for field in fields):
        raise TypeError(
            f"out is {checks.describe(out)}, expected an object with the fields {', '.join(fields)}, for instance the "
            "result of an earlier call"
        )
    arrays = {name: None if name in without else getattr(out, name, None) for name in shapes}
    given = {f"out.{name}": array for name, array in arrays.items() if array is not None}
    checks.same_device(" ".join((of, *given)), like, *given.values())
    for name, array in arrays.items():
        if array is not None:
            _check_array(name, array, shapes[name], like.dtype, of)
    present = {name: array for name, array in read.items() if array is not None}
    names = [*given, *present]
    pair = checks.overlapping(list(given.values()), list(present.values()))
    if pair is not None:
        one, other = (names[place] for place in sorted(pair))
        raise ValueError(f"{one} overlaps {other}; results need arrays of their own")
    return Destination(arrays, bool(accumulate), tuple(without))


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], of: str) -> None:
    """The gradient of a matrix of weights may lie in memory as the transpose of a C-contiguous array."""
    full = f"out.{name}"
    turned = name in WEIGHTS and checks.is_array(array) and array.ndim == 2 and array.flags.f_contiguous
    checks.changed_array(full, array.T if turned else array, dtype, of)
    checks.expect_shape(full, array, shape, f"= the shape of {name}")
