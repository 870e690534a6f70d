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
    if isinstance(without, str) or not isinstance(without, Collection) or any(name not in fields for name in without):
        raise ValueError(f"without is {without!r:.60}, expected a tuple of names among {', '.join(fields)}")
    if out is None:
        if accumulate:
            raise ValueError("accumulate is given without out, to whose arrays the gradients are added; give both")
        return new_arrays(fields, tuple(without))
    if not any(hasattr(out, field) for field in fields):
        raise TypeError(
            f"out is {checks.describe(out)}, expected an object with the fields {', '.join(fields)}, for instance the "
            "result of an earlier call"
        )
    arrays = {name: getattr(out, name, None) if name in shapes and name not in without else None for name in fields}
    if not _fit_plainly(arrays, shapes, like):
        given = {f"out.{name}": array for name, array in arrays.items() if array is not None}
        if isinstance(like, Tape):
            checks.same_device_as_tape(" ".join(given), like, *given.values())
        else:
            checks.same_device(" ".join((of, *given)), like, *given.values())
        for name, array in arrays.items():
            if array is not None:
                _check_array(name, array, shapes[name], like.dtype, of)
    written = [array for array in arrays.values() if array is not None]
    pair = checks.overlapping(written, [array for array in read.values() if array is not None])
    if pair is not None:
        names = [f"out.{name}" for name, array in arrays.items() if array is not None]
        names += [name for name, array in read.items() if array is not None]
        one, other = (names[place] for place in sorted(pair))
        raise ValueError(f"{one} overlaps {other}; results need arrays of their own")
    return Destination(arrays, accumulate=bool(accumulate), without=tuple(without))


def _fit_plainly(
    arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], like: FloatArray | Tape[Any]
) -> bool:
    """Whether a few attribute reads show that every array fits; where they do not, the checks look closely."""
    on_host = like.device is None if isinstance(like, Tape) else isinstance(like, ndarray)
    return on_host and all(
        array is None
        or (type(array) is ndarray and array.dtype is like.dtype and array.shape == shapes[name] and array.flags.carray)
        for name, array in arrays.items()
    )


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any], of: str) -> None:
    """The gradient of a matrix of weights may lie in memory as the transpose of a C-contiguous array."""
    full = f"out.{name}"
    turned = name in MATRICES and checks.is_array(array) and array.ndim == 2 and array.flags.f_contiguous
    checks.changed_array(full, array.T if turned else array, dtype, of)
    checks.expect_shape(full, array, shape, f"= the shape of {name}")
