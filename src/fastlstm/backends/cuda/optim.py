"""Optimisers: csrc/cuda/optim. One launch updates up to 48 parameters; the host reads nothing from the device.

lr, grad_scale and Adam's step may stand on the device, as 0-d arrays: then a captured graph reads them in every replay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import cupy
import numpy as np

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import Place, address, call_on, current_stream, device_of
from fastlstm.contract import FloatArray, IntArray, PaddedRowGrad

_Rule: TypeAlias = Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]
_Rows: TypeAlias = "Sequence[IntArray | PaddedRowGrad | None]"
_Arrays: TypeAlias = Sequence[FloatArray]
_Grads: TypeAlias = "Sequence[FloatArray | PaddedRowGrad]"
# A number of the host, or a 0-d array.
_Number: TypeAlias = Any

_FLOAT64 = np.dtype(np.float64)


def sgd_update(params: _Arrays, grads: _Arrays, rows: _Rows, *, lr: _Number, grad_scale: _Number) -> None:
    _update("sgd", params, grads, rows, lr=lr, grad_scale=grad_scale)


def momentum_update(
    params: _Arrays,
    grads: _Arrays,
    rows: _Rows,
    velocities: _Arrays,
    *,
    lr: _Number,
    momentum: float,
    nesterov: bool,
    grad_scale: _Number,
) -> None:
    rule: _Rule = "nesterov" if nesterov else "momentum"
    _update(rule, params, grads, rows, velocities, lr=lr, momentum=momentum, grad_scale=grad_scale)


def adagrad_update(
    params: _Arrays,
    grads: _Arrays,
    rows: _Rows,
    accumulators: _Arrays,
    *,
    lr: _Number,
    eps: float,
    eps_inside_root: bool,
    grad_scale: _Number,
) -> None:
    _update(
        "adagrad",
        params,
        grads,
        rows,
        accumulators,
        lr=lr,
        eps=eps,
        eps_inside_root=eps_inside_root,
        grad_scale=grad_scale,
    )


def rmsprop_update(
    params: _Arrays,
    grads: _Arrays,
    rows: _Rows,
    accumulators: _Arrays,
    *,
    lr: _Number,
    decay: float,
    eps: float,
    grad_scale: _Number,
) -> None:
    _update("rmsprop", params, grads, rows, accumulators, lr=lr, momentum=decay, eps=eps, grad_scale=grad_scale)


def adam_update(
    params: _Arrays,
    grads: _Arrays,
    rows: _Rows,
    m: _Arrays,
    v: _Arrays,
    *,
    lr: _Number,
    step: _Number,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    grad_scale: _Number,
) -> None:
    on_device = _on_device(step)
    _update(
        "adam",
        params,
        grads,
        rows,
        m,
        v,
        lr=lr,
        correction=1.0 if on_device else math.sqrt(1 - beta2**step) / (1 - beta1**step),
        step=step.astype(np.int64, copy=False) if on_device else None,
        momentum=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        grad_scale=grad_scale,
    )


def squared_norm(grad: _Grads) -> FloatArray:
    """The sum of all squares, added in float64 and in one order: 0-d, float64."""
    return _sum_of_squares(grad, root=False)


def norm(grads: _Grads) -> FloatArray:
    """The root of the sum of all squares: 0-d, float64."""
    return _sum_of_squares(grads, root=True)


def _sum_of_squares(grads: _Grads, *, root: bool) -> FloatArray:
    tables: dict[str, list[_cuda.SquaredTensor]] = {"f": [], "d": []}
    first: Any = None
    for grad in grads:
        values, num_rows = (grad.values, address(grad.num_rows)) if isinstance(grad, PaddedRowGrad) else (grad, 0)
        first = values if first is None else first
        width = values.size // max(1, len(values)) if num_rows else 1
        tables[values.dtype.char].append((address(values), values.size, num_rows, width))
    with device_of(first):
        sizes = {char: [size for _, size, _, _ in table] for char, table in tables.items()}
        partials = cupy.empty(_cuda.optim_norm_partials(float32=sizes["f"], float64=sizes["d"]), _FLOAT64)
        result: FloatArray = cupy.empty((), _FLOAT64)
        _cuda.optim_norm(
            float32=tables["f"],
            float64=tables["d"],
            partials=address(partials),
            root=root,
            norm=address(result),
            **call_on(first),
        )
    return result


def clip_scale(norm: FloatArray, max_norm: float) -> FloatArray:
    """The factor of `ops.clip_scale`, 0-d, float64."""
    with device_of(norm):
        norm = norm.astype(_FLOAT64, copy=False)
        scale: FloatArray = cupy.empty((), _FLOAT64)
        _cuda.optim_clip_scale(norm=address(norm), max_norm=max_norm, scale=address(scale), **call_on(norm))
    return scale


def scale(arrays: _Arrays, factor: _Number) -> None:
    value, at, kept = _scalar(factor)
    for place, table in _flat_tables(arrays):
        _cuda.optim_scale(**table, factor=value, factor_at=at, **place)
    del kept


def clip(arrays: _Arrays, limit: float) -> None:
    for place, table in _flat_tables(arrays):
        _cuda.optim_clip(**table, limit=limit, **place)


class _FlatTable(TypedDict):
    """Arrays of one dtype, as the functions of ``_cuda`` take them."""

    float64: bool
    tensors: list[_cuda.FlatTensor]


def _flat_tables(arrays: _Arrays) -> Iterator[tuple[Place, _FlatTable]]:
    """What one call changes: arrays of one device, which is the current one meanwhile, and of one dtype."""
    tables: dict[tuple[int, str], list[_cuda.FlatTensor]] = {}
    for one in arrays:
        on: Any = one
        tables.setdefault((on.device.id, one.dtype.char), []).append((address(one), one.size))
    for (device, char), tensors in tables.items():
        with cupy.cuda.Device(device):
            yield {"device": device, "stream": current_stream()}, {"float64": char == "d", "tensors": tensors}


def _update(
    rule: _Rule,
    params: _Arrays,
    grads: _Arrays,
    rows: _Rows,
    *states: _Arrays,
    lr: _Number,
    grad_scale: _Number,
    correction: float = 1.0,
    momentum: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    eps_inside_root: bool = False,
    weight_decay: float = 0.0,
    step: IntArray | None = None,
) -> None:
    lr_value, lr_at, lr_kept = _scalar(lr)
    scale_value, scale_at, scale_kept = _scalar(grad_scale)
    for device, float64, tensors in _tables(params, grads, rows, states):
        with cupy.cuda.Device(device):
            _cuda.optim_update(
                rule=rule,
                float64=float64,
                tensors=tensors,
                lr=lr_value,
                lr_at=lr_at,
                grad_scale=scale_value,
                grad_scale_at=scale_at,
                correction=correction,
                momentum=momentum,
                beta2=beta2,
                eps=eps,
                weight_decay=weight_decay,
                eps_inside_root=eps_inside_root,
                step_at=address(step),
                device=device,
                stream=current_stream(),
            )
    del lr_kept, scale_kept


def _tables(
    params: _Arrays, grads: _Arrays, rows: _Rows, states: Sequence[_Arrays]
) -> Iterator[tuple[int, bool, list[_cuda.UpdatedTensor]]]:
    """What one call updates: parameters of one device and dtype. One that comes again is for a later call."""
    tables: dict[tuple[int, int, str], list[_cuda.UpdatedTensor]] = {}
    times: dict[int, int] = {}
    first, second = (*states, (), ())[:2]
    for k, param in enumerate(params):
        grad, row, num_rows = grads[k], rows[k], 0
        ids: IntArray | None
        if isinstance(row, PaddedRowGrad):
            ids, num_rows = row.indices, address(row.num_rows)
        else:
            ids = row
        place = address(param)
        times[place] = time = times.get(place, -1) + 1
        on: Any = param
        tables.setdefault((time, on.device.id, param.dtype.char), []).append((
            place,
            address(grad),
            address(first[k] if first else None),
            address(second[k] if second else None),
            address(ids),
            num_rows,
            0 if ids is None else ids.itemsize,
            grad.size,
            1 if ids is None else grad.size // max(1, len(ids)),
        ))  # fmt: skip
    for (_, device, char), tensors in tables.items():
        yield device, char == "d", tensors


def _on_device(value: _Number) -> bool:
    return isinstance(value, cupy.ndarray)


def _scalar(value: _Number) -> tuple[float, int, Any]:
    """Returns a number, an address that stands for it if it is not 0, and what lives there."""
    if _on_device(value):
        value = value.astype(_FLOAT64, copy=False)
        return 0.0, address(value), value
    return value, 0, None
