"""Parameter updates in place, one fused pass a parameter, and clipping by the global norm.

``params`` and ``grads`` are single arrays or sequences of them; a gradient is an array of its parameter's shape or a
`RowGrad`. Everything is checked before anything changes.

On a GPU a call is one launch for up to 48 parameters. There lr, grad_scale, max_norm's norm and Adam's step may be 0-d
arrays of the GPU, so that nothing waits for the device and a captured graph finds new numbers in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy import ndarray

from fastlstm.arrays import is_device_array
from fastlstm.backends import family_for
from fastlstm.contract import Array, FloatArray, IntArray, PaddedRowGrad, RowGrad
from fastlstm.ops import checks, scalars

Params: TypeAlias = "FloatArray | Sequence[FloatArray]"
_Grad: TypeAlias = "FloatArray | RowGrad | PaddedRowGrad"
Grads: TypeAlias = "_Grad | Sequence[_Grad]"


# One parameter's checked arguments, in the order the backends take them: the backend's module, the parameter, its
# gradient, the gradient's rows, the state. A plain tuple, because there is one for every parameter in every step. On a
# GPU a list of them all stands in each array's place: see `_together`.
_Update: TypeAlias = "tuple[ModuleType, Any, Any, Any, Sequence[Any]]"


def sgd_update(params: Params, grads: Grads, lr: float, *, grad_scale: float = 1.0) -> None:
    """Stochastic gradient descent: p -= lr g.

    Parameters
    ----------
    params : array or sequence of arrays, float32 or float64
        Changed in place; C-contiguous, or for gradients that are arrays the transpose of a C-contiguous array. No array
        that is changed shares memory with another of the call.
    grads : array or RowGrad, or a sequence of them
        Of their parameters' shapes and dtypes. A RowGrad changes only its rows.
    lr : float
        Learning rate; for parameters on a GPU also a 0-d array there.
    grad_scale : float
        Every gradient is multiplied by it first, see `clip_scale`; for parameters on a GPU also a 0-d array there.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit, or a parameter is read-only. Nothing is changed then.
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else _number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else _number("grad_scale", grad_scale, params)
    for family, param, grad, rows, _ in _checked(params, grads, (), lazy=True):
        family.sgd_update(param, grad, rows, lr=lr, grad_scale=grad_scale)


def momentum_update(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    *,
    momentum: float = 0.9,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Momentum: v = momentum v - lr g; p += v.

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    velocities : array or sequence of arrays
        v, one a parameter, of its shape and dtype, zeros before the first step; changed in place.
    momentum : float from 0 to 1
    lazy : bool
        True: a RowGrad changes only its rows of p and v. False: exactly what the dense gradient would do.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.
    """
    _momentum(params, grads, velocities, lr, momentum, lazy, grad_scale, nesterov=False)


def nesterov_update(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    *,
    momentum: float = 0.9,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Nesterov's accelerated gradient: v = momentum v - lr g; p += momentum v - lr g.

    Parameters
    ----------
    params, grads, velocities, lr, momentum, lazy, grad_scale
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Bengio, Boulanger-Lewandowski, Pascanu (2012), "Advances in optimizing recurrent networks", equations 6 and 7.
    """
    _momentum(params, grads, velocities, lr, momentum, lazy, grad_scale, nesterov=True)


def _momentum(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    momentum: float,
    lazy: bool,
    grad_scale: float,
    nesterov: bool,
) -> None:
    lr = scalars.finite("lr", lr) if type(lr) is float else _number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else _number("grad_scale", grad_scale, params)
    momentum = scalars.finite("momentum", momentum, 0, 1)
    for family, param, grad, rows, (velocity,) in _checked(params, grads, (("velocities", velocities),), lazy):
        family.momentum_update(
            param, grad, rows, velocity, lr=lr, momentum=momentum, nesterov=nesterov, grad_scale=grad_scale
        )


def adagrad_update(
    params: Params,
    grads: Grads,
    accumulators: Params,
    lr: float,
    *,
    eps: float = 1e-7,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """AdaGrad: a += g^2; p -= lr g / (sqrt(a) + eps).

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    accumulators : array or sequence of arrays
        a, one a parameter, of its shape and dtype, zeros before the first step; changed in place.
    eps : float, not negative
    lazy : bool
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Duchi, Hazan, Singer (2011), "Adaptive subgradient methods".
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else _number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else _number("grad_scale", grad_scale, params)
    eps = scalars.finite("eps", eps, 0)
    for family, param, grad, rows, (accumulator,) in _checked(params, grads, (("accumulators", accumulators),), lazy):
        family.adagrad_update(param, grad, rows, accumulator, lr=lr, eps=eps, grad_scale=grad_scale)


def rmsprop_update(
    params: Params,
    grads: Grads,
    accumulators: Params,
    lr: float,
    *,
    decay: float = 0.99,
    eps: float = 1e-7,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """RMSprop: a = decay a + (1 - decay) g^2; p -= lr g / (sqrt(a) + eps).

    Parameters
    ----------
    params, grads, accumulators, lr, eps, lazy, grad_scale
        As in `adagrad_update`.
    decay : float from 0 to 1

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Tieleman, Hinton (2012), Coursera lecture 6.5.
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else _number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else _number("grad_scale", grad_scale, params)
    eps = scalars.finite("eps", eps, 0)
    decay = scalars.finite("decay", decay, 0, 1)
    for family, param, grad, rows, (accumulator,) in _checked(params, grads, (("accumulators", accumulators),), lazy):
        family.rmsprop_update(param, grad, rows, accumulator, lr=lr, decay=decay, eps=eps, grad_scale=grad_scale)


def adam_update(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-7,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Adam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p -= lr_t m / (sqrt(v) + eps).

    lr_t = lr sqrt(1 - beta2^step) / (1 - beta1^step): the "epsilon hat" form, as in Keras and "Deep Learning from
    Scratch 2". PyTorch adds its eps after the correction instead.

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    m, v : array or sequence of arrays
        First and second moments, one a parameter, of its shape and dtype, zeros before the first step; changed in
        place.
    step : int
        1 in the first call, then 2, 3 ...; for parameters on a GPU also a 0-d integer array there.
    beta1, beta2 : float from 0 to below 1
    eps : float, not negative
    lazy : bool
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Kingma, Ba (2015), "Adam", algorithm 1 with the order of computation of the end of section 2.
    """
    _adam(params, grads, m, v, lr, step, beta1, beta2, eps, 0.0, lazy, grad_scale)


def adamw_update(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-7,
    weight_decay: float = 0.01,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Adam with decoupled weight decay: p -= lr weight_decay p, then the step of `adam_update`.

    Parameters
    ----------
    params, grads, m, v, lr, step, beta1, beta2, eps, grad_scale
        As in `adam_update`.
    weight_decay : float, not negative
    lazy : bool
        As in `momentum_update`; rows that a lazy RowGrad does not touch do not decay either.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """
    weight_decay = scalars.finite("weight_decay", weight_decay, 0)
    _adam(params, grads, m, v, lr, step, beta1, beta2, eps, weight_decay, lazy, grad_scale)


def _adam(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
    grad_scale: float,
) -> None:
    lr = scalars.finite("lr", lr) if type(lr) is float else _number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else _number("grad_scale", grad_scale, params)
    eps = scalars.finite("eps", eps, 0)
    beta1, beta2 = scalars.below_one("beta1", beta1), scalars.below_one("beta2", beta2)
    if type(step) is int or not _stands_on_device("step", step, params, "iu"):
        step = scalars.integer("step", step, 1)
    for family, param, grad, rows, (m_of_param, v_of_param) in _checked(params, grads, (("m", m), ("v", v)), lazy):
        family.adam_update(
            param,
            grad,
            rows,
            m_of_param,
            v_of_param,
            lr=lr,
            step=step,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            grad_scale=grad_scale,
        )


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


def clip_grad_norm(grads: Grads, max_norm: float) -> float:
    """Scale all gradients in place by ``clip_scale(norm, max_norm)``, so that their global norm is at most max_norm.

    To save the pass over the memory, leave the gradients as they are and hand the factor to the update:
    ``sgd_update(params, grads, lr, grad_scale=clip_scale(global_norm(grads), max_norm))``.

    Parameters
    ----------
    grads : array or RowGrad, or a sequence of them
        Changed in place; C-contiguous or the transpose of a C-contiguous array. An array that stands in the sequence
        twice is scaled once; others do not overlap.
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
        family_for(arrays[0], "optim").scale(arrays, factor)
    elif factor != 1.0:
        for array in arrays:
            family_for(array, "optim").scale(array, factor)
    return norm


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
        max_norm is no positive number.
    """
    max_norm = scalars.positive("max_norm", max_norm)
    if type(norm) is not float and is_device_array(norm):
        scale: float = family_for(norm, "optim").clip_scale(norm, max_norm)
        return scale
    return max_norm / (norm + 1e-6) if norm > max_norm else 1.0


def _norm(arrays: list[Any]) -> float:
    first = arrays[0].values if arrays and isinstance(arrays[0], PaddedRowGrad) else arrays[0] if arrays else None
    if first is not None and type(first) is not ndarray and is_device_array(first):
        norm: float = family_for(first, "optim").norm(arrays)
        return norm
    total = 0.0
    for array in arrays:
        total += family_for(array, "optim").squared_norm(array)
    return math.sqrt(total)


def _values_of(grads: Grads, *, in_place: bool) -> list[FloatArray]:
    """Each gradient's array, checked, a transpose of a C-contiguous one as that; what stands there twice comes once."""
    values: dict[int, tuple[int, FloatArray]] = {}  # with its place among the gradients
    anywhere = False  # on a GPU too
    for k, grad in enumerate(_listed("grads", grads)):
        by_rows = isinstance(grad, (RowGrad, PaddedRowGrad))
        array = grad.values if by_rows else grad
        if id(array) in values:
            continue
        key = id(array)
        if not (type(array) is ndarray and array.dtype in checks.FLOATS and array.flags.carray):
            name = _name("grads", grads, k)
            checks.require_array(name, array, in_place=in_place)
            array = array.T if _is_transpose(array) else array
            array = checks.changed_array(name, array) if in_place else checks.float_array(name, array, array.ndim)
            anywhere = anywhere or is_device_array(array)
        values[key] = k, array
    if anywhere:
        names = " ".join(_name("grads", grads, k) for k, _ in values.values())
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
        one, other = (_name("grads", grads, places[place]) for place in pair)
        raise ValueError(f"{one} overlaps {other}; what both hold would be scaled twice")
    return list(arrays)


def _with_row_counts(grads: Grads, arrays: list[FloatArray]) -> list[Any]:
    """The arrays of `_values_of`, in the place of those of a PaddedRowGrad the gradient itself."""
    padded = {id(grad.values): grad for grad in _listed("grads", grads) if isinstance(grad, PaddedRowGrad)}
    return [padded.get(id(array), array) for array in arrays] if padded else arrays


def _number(name: str, value: Any, params: Params, *, finite: bool = False) -> float:
    """A number, or a 0-d array of the parameters' GPU, which is not looked at."""
    if _stands_on_device(name, value, params, "f"):
        on_device: float = value
        return on_device
    return scalars.finite(name, value) if finite else scalars.real(name, value)


def _stands_on_device(name: str, value: Any, params: Params, kinds: str) -> bool:
    """Whether a number is a 0-d array on the GPU of the parameters; it is not looked at then."""
    if not is_device_array(value):
        return False
    if value.ndim != 0 or value.dtype.kind not in kinds:
        raise TypeError(f"{name} is {checks.describe(value)}, expected a number or a 0-d array of numbers")
    for param in _listed("params", params)[:1]:
        checks.same_device(f"{_name('params', params, 0)} {name}", param, value)
    return True


def _is_single(entries: Any) -> bool:
    """Whether ``entries`` are one array or RowGrad, no sequence of them."""
    return checks.is_array(entries) or isinstance(entries, (RowGrad, PaddedRowGrad))


def _listed(name: str, entries: Any) -> Sequence[Any]:
    """The entries of a sequence of arrays or RowGrads; a single one as a sequence of one."""
    if type(entries) is list or type(entries) is tuple:
        return entries
    if _is_single(entries):
        return (entries,)
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise TypeError(f"{name} is {checks.describe(entries)}; expected an array or a sequence of arrays")
    return entries


def _name(name: str, entries: Any, k: int) -> str:
    """What errors call the entry k of `_listed`."""
    return name if _is_single(entries) else f"{name}[{k}]"


def _checked(params: Any, grads: Any, states: tuple[tuple[str, Any], ...], lazy: bool) -> list[_Update]:
    """Check every parameter with its gradient and state; only then does the caller change any."""
    param_list, grad_list = _listed("params", params), _listed("grads", grads)
    state_lists = [_listed(name, entries) for name, entries in states]
    count = len(param_list)
    for (what, _), entries in zip((("grads", None), *states), (grad_list, *state_lists), strict=True):
        if len(entries) != count:
            raise ValueError(f"{what} has {len(entries)} entries, params has {count}; give one a parameter")
    updates: list[_Update] = []
    anywhere = False  # on a GPU too
    ascending: Any = None
    for k, (param, grad, *state) in enumerate(zip(param_list, grad_list, *state_lists, strict=True)):
        rows = None
        if _fit(param, state):
            if type(grad) is RowGrad:
                # Gradients of one sampled loss have the same indices, which need to be looked at once only.
                if lazy and _rows_fit(grad, param, grad.indices is ascending):
                    ascending = rows = grad.indices
                    updates.append((family_for(param, "optim"), param, grad.values, rows, state))
                    continue
            elif _like(grad, param) and grad.flags.carray:
                updates.append((family_for(param, "optim"), param, grad, None, state))
                continue
        names = [_name(name, entries, k) for name, entries in (("params", params), ("grads", grads), *states)]
        updates.append(_checked_one(names, param, grad, state, lazy))
        anywhere = anywhere or is_device_array(param)
    _expect_apart((("params", params), *states, ("grads", grads)), updates)
    return _together(params, updates) if anywhere else updates


def _expect_apart(called: tuple[tuple[str, Any], ...], updates: list[_Update]) -> None:
    """Raise if two arrays of one call share memory and one of them is changed.

    A parameter may stand in the list again, with the same state or with another: one update then follows the other.
    ``called`` are the names and the arguments: parameters, states, gradients.
    """
    written: list[Any] = []
    read: list[Any] = []
    state_of: dict[int, Sequence[Any]] = {}
    for _, param, grad, rows, state in updates:
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


def _argument(called: tuple[tuple[str, Any], ...], updates: list[_Update], array: Any, written: bool) -> str:
    """What errors call an array of ``updates``; see `_expect_apart`."""
    *of_written, of_grads = called
    named: list[tuple[Any, str]] = []
    for k, (_, param, grad, rows, state) in enumerate(updates):
        if written:
            named += ((own, _name(*of, k)) for of, own in zip(of_written, (param, *state), strict=True))
        else:
            named += ((own, _name(*of_grads, k)) for own in (grad, rows, getattr(rows, "indices", None)))
    return next(name for own, name in named if own is array)


def _together(params: Params, updates: list[_Update]) -> list[_Update]:
    """All updates as one: a GPU's family takes a list in every array's place."""
    families, arrays, grads, rows, states = zip(*updates, strict=True)
    checks.same_device(" ".join(_name("params", params, k) for k in range(len(arrays))), *arrays)
    return [(families[0], arrays, grads, rows, list(zip(*states, strict=True)))]


def _fit(param: Any, state: Sequence[Any]) -> bool:
    """Whether a parameter and its state are plainly right; `_checked_one` says what is wrong, or mends it."""
    if not (type(param) is ndarray and param.dtype in checks.FLOATS and param.flags.carray):
        return False
    for array in state:
        if not (_like(array, param) and array.flags.carray) or array is param:
            return False
    return len(state) < 2 or state[0] is not state[1]


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


def _is_transpose(array: Array) -> bool:
    """Whether an array lies in memory in Fortran's order only, as the transpose of a C-contiguous one does."""
    return bool(array.flags.f_contiguous and not array.flags.c_contiguous)


def _checked_one(names: list[str], param: Any, grad: Any, state: list[Any], lazy: bool) -> _Update:
    """Check one parameter; ``names`` are those of the parameter, its gradient and its state.

    If all of a transposed parameter is updated, its transpose is: every element for itself.
    """
    name, grad_name, *state_names = names
    checks.require_array(name, param, in_place=True)
    rows: Any = None
    by_rows = isinstance(grad, (RowGrad, PaddedRowGrad))
    transposed = _is_transpose(param) and not (by_rows and lazy)
    checks.changed_array(name, param.T if transposed else param)
    changed = {id(param): name}
    for state_name, array in zip(state_names, state, strict=True):
        checks.require_array(state_name, array, in_place=True)
        checks.same_device(f"{name} {state_name}", param, array)
        checks.expect_shape(state_name, array, param.shape, f"as {name}")
        if _is_transpose(array) != _is_transpose(param):
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
        param, grad, state = param.T, grad.T, [array.T for array in state]
    if rows is None:
        grad = checks.float_array(grad_name, grad, param.ndim, param.dtype, name)
    return family_for(param, "optim"), param, grad, rows, state


def _padded(
    name: str, grad: PaddedRowGrad, param_name: str, param: FloatArray, state: list[Any], lazy: bool
) -> _Update:
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
    return family_for(param, "optim"), param, values, grad, state


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
