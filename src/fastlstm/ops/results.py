"""``out``, ``accumulate`` and ``without``: results into arrays of the caller's, and what is not wanted.

The checks are here once, for every operator that has these arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from fastlstm.backends.results import new_arrays
from fastlstm.contract import Array, Destination, FloatArray, Tape
from fastlstm.ops import checks

# Gradients of matrices of weights, which may be transposes of C-contiguous arrays.
MATRICES = ("dWx", "dWh", "dW")


def destination(
    fields: tuple[str, ...],
    shapes: Mapping[str, tuple[int, ...]],
    like: FloatArray | Tape[Any],
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
        What is not among them is not made; nothing is written to an array of out for it.
    like, of : an array of the call and its name, or its tape
        Results have its dtype and live where it lives.
    read : the arrays by name that are read while results are written

    Raises
    ------
    TypeError, ValueError
        An array of out does not fit, is read-only or overlaps another, without has a name that is no field, or
        accumulate comes without out.
    """
    everything = type(without) is tuple and not without
    if not everything and (
        isinstance(without, str) or not isinstance(without, Collection) or any(name not in fields for name in without)
    ):
        raise ValueError(f"without is {without!r:.60}, expected a tuple of names among {', '.join(fields)}")
    if out is None:
        if accumulate:
            raise ValueError("accumulate is given without out, to whose arrays the gradients are added; give both")
        return new_arrays(fields, tuple(without))
    arrays: dict[str, Any] = {**new_arrays(fields).arrays}
    written = []
    # A few attribute reads show that an array fits; where they do not, the checks look closely.
    plain, dtype = like.device is None if isinstance(like, Tape) else isinstance(like, ndarray), like.dtype
    for name, shape in shapes.items():
        array = getattr(out, name, None)
        if array is not None and name not in without:
            plain = plain and (
                type(array) is ndarray and array.dtype is dtype and array.shape == shape and array.flags.carray
            )
            arrays[name] = array
            written.append(array)
    if not written and not any(hasattr(out, field) for field in fields):
        raise TypeError(
            f"out is {checks.describe(out)}, expected an object with the fields {', '.join(fields)}, for instance the "
            "result of an earlier call"
        )
    if not plain:
        given = {f"out.{name}": array for name, array in arrays.items() if array is not None}
        if isinstance(like, Tape):
            checks.same_device_as_tape(like, given)
        else:
            checks.same_device(" ".join((of, *given)), like, *written)
        for name, array in arrays.items():
            if array is not None:
                _check_array(name, array, shapes[name], dtype, of)
    pair = checks.overlapping(written, [array for array in read.values() if array is not None])
    if pair is not None:
        names = [f"out.{name}" for name, array in arrays.items() if array is not None]
        names += [name for name, array in read.items() if array is not None]
        one, other = (names[place] for place in sorted(pair))
        raise ValueError(f"{one} overlaps {other}; results need arrays of their own")
    return Destination(arrays, bool(accumulate), tuple(without))


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], of: str) -> None:
    """The gradient of a matrix of weights may lie in memory as the transpose of a C-contiguous array."""
    full = f"out.{name}"
    turned = name in MATRICES and checks.is_array(array) and array.ndim == 2 and array.flags.f_contiguous
    checks.changed_array(full, array.T if turned else array, dtype, of)
    checks.expect_shape(full, array, shape, f"= the shape of {name}")
