"""The checks of parameters, their gradients and the state that goes with them.

One parameter, or a sequence of them; a gradient is an array of its parameter's shape or holds some of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy import ndarray

from fastlstm.arrays import is_device_array
from fastlstm.backends import check_gpu
from fastlstm.contract import Array, DeviceRows, FloatArray, IntArray, PaddedRowGrad, RowGrad
from fastlstm.ops import checks, scalars

Params: TypeAlias = "FloatArray | Sequence[FloatArray]"
_Grad: TypeAlias = "FloatArray | RowGrad | PaddedRowGrad"
Grads: TypeAlias = "_Grad | Sequence[_Grad]"

# One parameter's checked arguments, in the order the backends take them: the parameter, its gradient, the gradient's
# rows, the state. A plain tuple, because there is one for every parameter in every step.
Update: TypeAlias = "tuple[FloatArray, FloatArray, IntArray | None, Sequence[FloatArray]]"


# The transposes of a call's arrays, by the numbers of these.
_Views: TypeAlias = "dict[int, FloatArray]"


class DeviceUpdate(NamedTuple):
    """The arguments of all parameters, as a GPU's backend takes them; states[s][k] is that of parameter k."""

    params: Sequence[FloatArray]
    grads: Sequence[FloatArray]
    rows: DeviceRows
    states: Sequence[Sequence[FloatArray]]


def _is_single(entries: Any) -> bool:
    """Whether ``entries`` are one array or RowGrad, no sequence of them."""
    return checks.is_array(entries) or isinstance(entries, (RowGrad, PaddedRowGrad))


def listed(name: str, entries: Any) -> Sequence[Any]:
    """The entries of a sequence of arrays or RowGrads; a single one as a sequence of one."""
    if type(entries) is list or type(entries) is tuple:
        return entries
    if _is_single(entries):
        return (entries,)
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise TypeError(f"{name} is {checks.describe(entries)}; expected an array or a sequence of arrays")
    return entries


def name_of(name: str, entries: Any, k: int) -> str:
    """What errors call the entry k of `listed`."""
    return name if _is_single(entries) else f"{name}[{k}]"


def is_transpose(array: Array) -> bool:
    """Whether an array lies in memory in Fortran's order only, as the transpose of a C-contiguous one does."""
    return bool(array.flags.f_contiguous and not array.flags.c_contiguous)


def number(name: str, value: Any, params: Params, *, finite: bool = False) -> float:
    """A number, or a 0-d array of the parameters' GPU, which is not looked at."""
    if stands_on_device(name, value, params, "f"):
        on_device: float = value
        return on_device
    return scalars.finite(name, value) if finite else scalars.real(name, value)


def stands_on_device(name: str, value: Any, params: Params, kinds: str) -> bool:
    """Whether a number is a 0-d array on the GPU of the parameters; it is not looked at then."""
    if not is_device_array(value):
        return False
    if value.ndim != 0 or value.dtype.kind not in kinds:
        raise TypeError(f"{name} is {checks.describe(value)}, expected a number or a 0-d array of numbers")
    for param in listed("params", params)[:1]:
        checks.same_device(f"{name_of('params', params, 0)} {name}", param, value)
    return True


def checked_updates(
    params: Any, grads: Any, states: tuple[tuple[str, Any], ...], lazy: bool
) -> list[Update] | DeviceUpdate:
    """Check every parameter with its gradient and state; only then does the caller change any."""
    param_list, grad_list = listed("params", params), listed("grads", grads)
    state_lists = [listed(name, entries) for name, entries in states]
    count = len(param_list)
    for (what, _), entries in zip((("grads", None), *states), (grad_list, *state_lists), strict=True):
        if len(entries) != count:
            raise ValueError(f"{what} has {len(entries)} entries, params has {count}; give one a parameter")
    updates: list[Update] = []
    views: _Views = {}
    anywhere = False  # on a GPU too
    ascending: Any = None
    for k, (param, grad, *state) in enumerate(zip(param_list, grad_list, *state_lists, strict=True)):
        rows = None
        if _fit(param, state):
            if type(grad) is RowGrad:
                # Gradients of one sampled loss have the same indices, which need to be looked at once only.
                if lazy and _rows_fit(grad, param, grad.indices is ascending):
                    ascending = rows = grad.indices
                    updates.append((param, grad.values, rows, state))
                    continue
            elif _like(grad, param) and grad.flags.carray:
                updates.append((param, grad, None, state))
                continue
        elif (update := _fit_transposed(views, param, grad, *state)) is not None:
            updates.append(update)
            continue
        names = [name_of(name, entries, k) for name, entries in (("params", params), ("grads", grads), *states)]
        updates.append(_checked_one(names, param, grad, state, lazy, views))
        anywhere = anywhere or is_device_array(param)
    if anywhere:
        check_gpu()
        where = " ".join(name_of("params", params, k) for k in range(len(updates)))
        checks.same_device(where, *(param for _, param, *_ in updates))
    _expect_apart((("params", params), *states, ("grads", grads)), updates)
    return _together(updates) if anywhere else updates


def _expect_apart(called: tuple[tuple[str, Any], ...], updates: list[Update]) -> None:
    """Raise if two arrays of one call share memory and one of them is changed.

    A parameter may stand in the list again, with the same state or with another: one update then follows the other.
    ``called`` are the names and the arguments: parameters, states, gradients.
    """
    written: list[Any] = []
    read: list[Any] = []
    state_of: dict[int, Sequence[Any]] = {}
    for param, grad, rows, state in updates:
        read.append(grad)
        if rows is not None:
            read.append(rows.indices if isinstance(rows, PaddedRowGrad) else rows)
        if id(param) not in state_of:
            written.append(param)
            written += state
            state_of[id(param)] = state
        elif [*map(id, state)] != [*map(id, state_of[id(param)])]:
            written += state
    pair = checks.overlapping(written, read)
    if pair is None:
        return
    place, other = (_argument(called, updates, [*written, *read][k], k < len(written)) for k in sorted(pair))
    raise ValueError(f"{other} overlaps {place}, which is changed; each needs memory of its own")


def _argument(called: tuple[tuple[str, Any], ...], updates: list[Update], array: Any, written: bool) -> str:
    """What errors call an array of ``updates``; see `_expect_apart`."""
    *of_written, of_grads = called
    named: list[tuple[Any, str]] = []
    for k, (param, grad, rows, state) in enumerate(updates):
        if written:
            named += ((own, name_of(*of, k)) for of, own in zip(of_written, (param, *state), strict=True))
        else:
            named += ((own, name_of(*of_grads, k)) for own in (grad, rows, getattr(rows, "indices", None)))
    return next(name for own, name in named if own is array)


def _together(updates: list[Update]) -> DeviceUpdate:
    arrays, grads, rows, states = zip(*updates, strict=True)
    return DeviceUpdate(arrays, grads, rows, list(zip(*states, strict=True)))


def _fit(param: Any, state: Sequence[Any]) -> bool:
    """Whether a parameter and its state are plainly right; `_checked_one` says what is wrong, or mends it."""
    if not (type(param) is ndarray and param.dtype in checks.FLOATS and param.flags.carray):
        return False
    for array in state:
        if not (_like(array, param) and array.flags.carray) or array is param:
            return False
    return len(state) < 2 or state[0] is not state[1]


def _fit_transposed(views: _Views, *arrays: Any) -> Update | None:
    """The transposes of a parameter, its gradient and its state, if they are plainly right; else None."""
    if not all(type(array) is ndarray for array in arrays) or not is_transpose(arrays[0]):
        return None
    param, grad, *state = (_transpose(views, array) for array in arrays)
    return (param, grad, None, state) if _fit(param, state) and _like(grad, param) and grad.flags.carray else None


def _transpose(views: _Views, array: FloatArray) -> FloatArray:
    """The transpose, one object an array: a parameter that comes twice is known by that."""
    return views.setdefault(id(array), array.T)


def _like(array: Any, param: FloatArray) -> bool:
    return type(array) is ndarray and array.dtype is param.dtype and array.shape == param.shape


def _rows_fit(grad: RowGrad, param: FloatArray, ascending: bool) -> bool:
    """Whether a RowGrad is plainly right for ``param``; ``ascending`` says that its indices are known to be so."""
    rows, values = grad
    return (
        type(rows) is ndarray
        and type(values) is ndarray
        and rows.ndim == 1
        and rows.dtype in checks.INTS
        and rows.flags.carray
        and values.dtype is param.dtype
        and values.flags.carray
        and values.shape == (len(rows), *param.shape[1:])
        and param.ndim > 0
        and (len(rows) == 0 or (rows.item(0) >= 0 and rows.item(-1) < len(param) and (ascending or _ascend(rows))))
    )


def _ascend(rows: IntArray) -> bool:
    """Whether ids are ascending and unique; on a GPU nobody looks."""
    return len(rows) < 2 or is_device_array(rows) or bool(checks.smallest(rows[1:] > rows[:-1]))


def _checked_one(names: list[str], param: Any, grad: Any, state: list[Any], lazy: bool, views: _Views) -> Update:
    """Check one parameter; ``names`` are those of the parameter, its gradient and its state.

    If all of a transposed parameter is updated, its transpose is: every element for itself.
    """
    name, grad_name, *state_names = names
    checks.require_array(name, param, in_place=True)
    rows: Any = None
    by_rows = isinstance(grad, (RowGrad, PaddedRowGrad))
    transposed = is_transpose(param)
    if transposed and by_rows and lazy:
        raise ValueError(
            f"{name} is the transpose of a C-contiguous array, in which the rows of {grad_name}, a RowGrad, do not lie "
            f"together; create {name} C-contiguous, or pass all of its gradient as an array"
        )
    checks.changed_array(name, param.T if transposed else param)
    changed = {id(param): name}
    for state_name, array in zip(state_names, state, strict=True):
        checks.require_array(state_name, array, in_place=True)
        checks.same_device(f"{name} {state_name}", param, array)
        checks.expect_shape(state_name, array, param.shape, f"as {name}")
        if is_transpose(array) != transposed:
            raise ValueError(
                f"{state_name} does not lie in memory in the order of {name}; create it with numpy.zeros_like({name})"
            )
        checks.changed_array(state_name, array.T if transposed else array, param.dtype, name)
        if id(array) in changed:
            raise ValueError(f"{state_name} and {changed[id(array)]} are one array; each needs memory of its own")
        changed[id(array)] = state_name
    if isinstance(grad, PaddedRowGrad):
        return _padded(grad_name, grad, name, param, state, lazy)
    if isinstance(grad, RowGrad):
        rows, grad = _checked_rows(grad_name, grad, name, param)
        if not lazy:
            dense = np.zeros_like(param)
            dense[rows] = grad
            rows, grad = None, dense
    else:
        checks.require_array(grad_name, grad)
        checks.same_device(f"{name} {grad_name}", param, grad)
        checks.expect_shape(grad_name, grad, param.shape, f"as {name}")
    if transposed:
        param, grad, *state = (_transpose(views, array) for array in (param, grad, *state))
    if rows is None:
        grad = checks.float_array(grad_name, grad, param.ndim, param.dtype, name)
    return param, grad, rows, state


def _padded(name: str, grad: PaddedRowGrad, param_name: str, param: FloatArray, state: list[Any], lazy: bool) -> Update:
    """As `_checked_one`. The indices, of which some are undefined, come from an operator that has checked the ids."""
    parts = [f"{name}.{field}" for field in grad._fields]
    checks.same_device(f"{param_name} {' '.join(parts)}", param, *grad)
    if not lazy:
        raise ValueError(
            f"{name} is a PaddedRowGrad, which changes its rows only; lazy=False needs a RowGrad or an array"
        )
    M = len(grad.indices)
    checks.expect_shape(parts[1], grad.values, (M, *param.shape[1:]), f"= (M,) + {param_name}.shape[1:]")
    values = checks.float_array(parts[1], grad.values, param.ndim, param.dtype, param_name)
    checks.expect_shape(parts[2], grad.num_rows, (1,), "for one number of rows")
    if not is_device_array(param):
        raise TypeError(f"{name} is a PaddedRowGrad on the host, where a RowGrad is expected")
    return param, values, cast(IntArray, grad), state  # whose rows `DeviceUpdate` takes


def _checked_rows(name: str, grad: RowGrad, param_name: str, param: FloatArray) -> tuple[IntArray, FloatArray]:
    checks.same_device(f"{param_name} {name}.indices {name}.values", param, grad.indices, grad.values)
    if param.ndim == 0:
        raise ValueError(f"{name} is a RowGrad, but {param_name} has no rows: its shape is ()")
    checks.require_array(f"{name}.indices", grad.indices)
    if grad.indices.ndim != 1:
        raise ValueError(f"{name}.indices has shape {grad.indices.shape}, expected one axis (U,)")
    rows = checks.int_ids(f"{name}.indices", grad.indices, param.shape[0], f"{param_name} has {{}} rows")
    if not _ascend(rows):
        raise ValueError(
            f"{name}.indices is not ascending and unique; embedding_backward_rows(indices, values) sums and sorts them"
        )
    checks.require_array(f"{name}.values", grad.values)
    expected = (len(rows), *param.shape[1:])
    checks.expect_shape(f"{name}.values", grad.values, expected, f"= (U,) + {param_name}.shape[1:]")
    return rows, checks.float_array(f"{name}.values", grad.values, param.ndim, param.dtype, param_name)
