"""Clipping gradients by their global norm, or each number by itself."""

from __future__ import annotations

import math
from typing import Any, cast

from numpy import finfo, ndarray

from fastlstm.arrays import is_device_array
from fastlstm.backends import device_family, host_optim
from fastlstm.contract import FloatArray, PaddedRowGrad, RowGrad
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.parameters import Grads, is_transpose, listed, name_of


@on_arrays_device
def global_norm(grads: Grads) -> float:
    """L2 norm of all gradients together, added in float64 and in one order.

    Parameters
    ----------
    grads : array or RowGrad, or a sequence of them
        An array that stands in the sequence twice counts once.

    Returns
    -------
    float, or for gradients on a GPU a 0-d float64 array there

    Raises
    ------
    TypeError, ValueError
        Something is no float32 or float64 array, or not all are in one place.
    """
    return _norm(_with_row_counts(grads, _values_of(grads, in_place=False)))


@on_arrays_device
def clip_grad_norm(grads: Grads, max_norm: float) -> float:
    """Scale all gradients in place by ``clip_scale(norm, max_norm)``, so that their global norm is at most max_norm.

    To save the pass over the memory, leave the gradients as they are and hand the factor to the update:
    ``sgd_update(params, grads, lr, grad_scale=clip_scale(global_norm(grads), max_norm))``.

    Parameters
    ----------
    grads : array or RowGrad, or a sequence of them
        Changed in place; C-contiguous or the transpose of a C-contiguous array. An array that stands in the sequence
        twice is clipped once; others do not overlap.
    max_norm : float, positive

    Returns
    -------
    float, or for gradients on a GPU a 0-d float64 array there
        The global norm before clipping.

    Raises
    ------
    TypeError, ValueError
        Something does not fit, or a gradient is read-only. Nothing is changed then.
    """
    arrays = _values_of(grads, in_place=True)
    max_norm = scalars.positive("max_norm", max_norm)
    norm = _norm(_with_row_counts(grads, arrays))
    factor = clip_scale(norm, max_norm)
    if type(factor) is not float and is_device_array(factor):
        device_family("optim").scale(arrays, factor)
    elif factor != 1.0:
        for array in arrays:
            for part in _factors(factor, float(finfo(array.dtype).tiny)):
                host_optim().scale(array, part)
    return norm


def _factors(factor: float, smallest: float) -> list[float]:
    """One factor, or two where it is below the smallest normal number: kernels take denormal ones for zero."""
    return [factor] if not 0 < factor < smallest else [2.0**-64, factor * 2.0**64]


@on_arrays_device
def clip_grad_value(grads: Grads, limit: float) -> None:
    """Bring every number of the gradients between -limit and limit, in place; NaN stays NaN.

    Parameters
    ----------
    grads : array or RowGrad, or a sequence of them
        As in `clip_grad_norm`.
    limit : float, positive and finite

    Raises
    ------
    TypeError, ValueError
        Something does not fit, or a gradient is read-only. Nothing is changed then.
    """
    arrays = _values_of(grads, in_place=True)
    limit = scalars.positive("limit", scalars.finite("limit", limit))
    if arrays and is_device_array(arrays[0]):
        device_family("optim").clip(arrays, limit)
        return
    for array in arrays:
        host_optim().clip(array, limit)


@on_arrays_device
def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that clipping multiplies gradients by: max_norm / (norm + 1e-6) if norm > max_norm, else 1.

    Parameters
    ----------
    norm : float, or a 0-d array on a GPU
        What `global_norm` returned. NaN gives 1: a broken gradient stays visible.
    max_norm : float, positive

    Returns
    -------
    float, or a 0-d float64 array on a GPU if norm is there

    Raises
    ------
    TypeError, ValueError
        norm is no number, or max_norm no positive one.
    """
    max_norm = scalars.positive("max_norm", max_norm)
    if type(norm) is not float and is_device_array(norm):
        return cast(float, device_family("optim").clip_scale(cast(FloatArray, norm), max_norm))
    norm = scalars.real("norm", norm)
    return max_norm / (norm + 1e-6) if norm > max_norm else 1.0


def _norm(arrays: list[Any]) -> float:
    first = arrays[0].values if arrays and isinstance(arrays[0], PaddedRowGrad) else arrays[0] if arrays else None
    if first is not None and type(first) is not ndarray and is_device_array(first):
        return cast(float, device_family("optim").norm(arrays))
    family = host_optim()
    total = 0.0
    for array in arrays:
        total += family.squared_norm(array)
    return math.sqrt(total)


def _values_of(grads: Grads, *, in_place: bool) -> list[FloatArray]:
    """Each gradient's array, checked, a transpose of a C-contiguous one as that; what stands there twice comes once."""
    values: dict[int, tuple[int, FloatArray]] = {}  # with its place among the gradients
    anywhere = False  # on a GPU too
    for k, grad in enumerate(listed("grads", grads)):
        by_rows = isinstance(grad, (RowGrad, PaddedRowGrad))
        array = grad.values if by_rows else grad
        if id(array) in values:
            continue
        key = id(array)
        if not (type(array) is ndarray and array.dtype in checks.FLOATS and array.flags.carray):
            name = name_of("grads", grads, k)
            checks.require_array(name, array, in_place=in_place)
            array = array.T if is_transpose(array) else array
            array = checks.changed_array(name, array) if in_place else checks.float_array(name, array, array.ndim)
            anywhere = anywhere or is_device_array(array)
        values[key] = k, array
    if anywhere:
        names = " ".join(name_of("grads", grads, k) for k, _ in values.values())
        checks.same_device(names, *(array for _, array in values.values()))
    pair = checks.overlapping([array for _, array in values.values()], ())
    if pair is not None:
        return _without_repeats(grads, list(values.values()), in_place)
    return [array for _, array in values.values()]


def _without_repeats(grads: Grads, values: list[tuple[int, FloatArray]], in_place: bool) -> list[FloatArray]:
    """The arrays of ``values``, once each; those that overlap only in part must not be changed in place."""
    once: dict[tuple[int, int], tuple[int, FloatArray]] = {}
    for k, array in values:
        once.setdefault(checks.span(array), (k, array))
    places, arrays = zip(*once.values(), strict=True)
    pair = checks.overlapping(arrays, ()) if in_place else None
    if pair is not None:
        one, other = (name_of("grads", grads, places[place]) for place in pair)
        raise ValueError(f"{one} overlaps {other}; what both hold would be changed twice")
    return list(arrays)


def _with_row_counts(grads: Grads, arrays: list[FloatArray]) -> list[Any]:
    """The arrays of `_values_of`, in the place of those of a PaddedRowGrad the gradient itself."""
    padded = {id(grad.values): grad for grad in listed("grads", grads) if isinstance(grad, PaddedRowGrad)}
    return [padded.get(id(array), array) for array in arrays] if padded else arrays
