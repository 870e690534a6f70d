"""The definition as a backend for CuPy arrays, for tests of what stands above the kernels.

Operators of `numpy_as_cupy`'s arrays that compute on the host what they wrap, with results as a GPU's backend has them:
arrays, and arrays without axes in the place of numbers.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gpu_stand_in
import numpy as np
import numpy_as_cupy

from fastlstm.contract import Destination, PaddedRowGrad, PaddedSampledLoss, RowGrad

WRAPPED = ("dense", "dropout", "embedding", "gru", "losses", "lstm", "optim", "rnn", "sampling")


@contextmanager
def installed() -> Iterator[Any]:
    """A stand-in for CuPy, and the definition in the place of the kernels; yields ``cupy``."""
    extension: Any = types.ModuleType("kernels")
    extension.why_not, extension.check_ids, extension.store_scalars = lambda: None, _check_ids, _store_scalars
    with gpu_stand_in.installed(extension) as patch:
        cuda = importlib.import_module("fastlstm.backends.cuda")
        patch.setattr(cuda, "FAMILIES", WRAPPED)
        for family in WRAPPED:
            made = _optim() if family == "optim" else _family(family)
            patch.setitem(sys.modules, f"fastlstm.backends.cuda.{family}", made)
        yield importlib.import_module("cupy")


def _check_ids(
    *, ids: int, checked: int, wide: bool, count: int, upper: int | None, ignore_index: int | None, source: int,
    fault: int, **_: int,
) -> None:  # fmt: skip
    """The kernel of csrc/cuda/ids/check_ids.cu."""

    def at(address: int, kind: Any, size: int) -> Any:
        return np.ctypeslib.as_array((kind * size).from_address(address))

    kind = ctypes.c_int64 if wide else ctypes.c_int32
    given, copy, record = at(ids, kind, count), at(checked, kind, count), at(fault, ctypes.c_int64, 3)
    wrong = (given < 0) | (given >= (np.inf if upper is None else upper))
    if ignore_index is not None:
        wrong &= given != ignore_index
    copy[...] = np.where(wrong, 0, given)
    if wrong.any() and not record[0]:
        low, high = given[wrong].min(), given[wrong].max()
        record[...] = (1, source, low if low < 0 else high)


def _store_scalars(*, target: int, values: list[int], **_: int) -> None:
    """The kernel of csrc/cuda/graph/scalars.cu."""
    np.ctypeslib.as_array((ctypes.c_uint64 * len(values)).from_address(target))[...] = values


def _optim() -> types.ModuleType:
    """A call for all parameters; numbers may be arrays without axes."""
    definition = importlib.import_module("fastlstm.backends.numpy.optim")
    made: Any = types.ModuleType("fastlstm.backends.cuda.optim")

    def for_all(update: Callable[..., None]) -> Callable[..., None]:
        def run(params: Any, grads: Any, rows: Any, states: Any, options: dict[str, Any]) -> None:
            numbers = {name: _number(value) for name, value in options.items()}
            for k, (param, grad, ids) in enumerate(zip(params, grads, rows, strict=True)):
                if isinstance(ids, list):  # padded
                    counted = int(ids[1][0])
                    grad, ids = grad[:counted], ids[0][:counted]
                update(param, grad, ids, *(state[k] for state in states), **numbers)

        def update_all(params: Any, grads: Any, rows: Any, *states: Any, **options: Any) -> None:
            numpy_as_cupy._do(
                run,
                _all_unwrapped(params),
                _all_unwrapped(grads),
                [
                    [ids.indices.host, ids.num_rows.host] if hasattr(ids, "num_rows") else _unwrapped(ids)
                    for ids in rows
                ],
                [_all_unwrapped(state) for state in states],
                {name: _unwrapped(value) for name, value in options.items()},
            )

        return update_all

    for name in ("sgd", "momentum", "adagrad", "rmsprop", "adam"):
        setattr(made, f"{name}_update", for_all(getattr(definition, f"{name}_update")))

    def norm(grads: Sequence[Any]) -> Any:
        def of_all(grads: Any) -> float:
            parts = [grad[0][: int(grad[1][0])] if isinstance(grad, list) else grad for grad in grads]
            return math.sqrt(sum(definition.squared_norm(part) for part in parts))

        padded = [[grad.values.host, grad.num_rows.host] if hasattr(grad, "num_rows") else grad.host for grad in grads]
        return numpy_as_cupy._made(of_all, padded)

    made.norm = norm
    made.clip_scale = lambda norm, limit: numpy_as_cupy._made(
        lambda norm: limit / (norm + 1e-6) if norm > limit else 1.0, norm.host
    )

    def scale(arrays: Sequence[Any], factor: Any) -> None:
        for array in arrays:
            numpy_as_cupy._do(
                lambda array, factor: definition.scale(array, _number(factor)), array.host, _unwrapped(factor)
            )

    def clip(arrays: Sequence[Any], limit: float) -> None:
        for array in arrays:
            numpy_as_cupy._do(lambda array: definition.clip(array, limit), array.host)

    made.scale = scale
    made.clip = clip
    return made  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) else value


def _all_unwrapped(arrays: Any) -> list[Any]:
    return [_unwrapped(array) for array in arrays]


def _family(name: str) -> types.ModuleType:
    definition = importlib.import_module(f"fastlstm.backends.numpy.{name}")
    made: Any = types.ModuleType(f"fastlstm.backends.cuda.{name}")
    for function_name, function in vars(definition).items():
        if inspect.isfunction(function) and not function_name.startswith("_"):
            setattr(made, function_name, _wrapped(function))
    if name == "embedding":
        made.padded_rows = _wrapped(lambda ids, rows: _padded(definition.embedding_backward_rows(ids, rows), len(ids)))
    if name == "sampling":

        def padded_sampled_loss(*arrays: Any, **options: Any) -> PaddedSampledLoss:
            loss, dinputs, dweights, dbiases = definition.sampled_loss(*arrays, **options)
            most = arrays[2].size + len(arrays[4])
            of_biases = None if dbiases is None else _padded(dbiases, most)
            return PaddedSampledLoss(loss, dinputs, _padded(dweights, most), of_biases)

        made.padded_sampled_loss = _wrapped(padded_sampled_loss)
    return made  # type: ignore[no-any-return]


def _padded(rows: RowGrad, most: int) -> PaddedRowGrad:
    """What stands behind the rows is anything."""
    count = len(rows.indices)
    indices, values = np.full(most, -7, rows.indices.dtype), np.full((most, *rows.values.shape[1:]), np.nan)
    indices[:count], values[:count] = rows
    return PaddedRowGrad(indices, values.astype(rows.values.dtype), np.array([count], np.int32))


class _Tape:
    """What a forward call keeps on the host; a run of a graph puts in another."""

    def __init__(self, kept: Any, given: Sequence[Any]) -> None:
        self.kept = kept
        self._given = given  # whose memory is in use as long as the tape is


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(arguments: list[Any], options: dict[str, Any]) -> Any:
        values = {name: _as_given(value) for name, value in options.items()}
        if isinstance(values.get("seed"), np.ndarray):
            values["seed"] = int(values["seed"])
        if "into" in values:
            values["into"] = Destination(**values["into"])
        return function(*map(_as_given, arguments), **values)

    def on_cupy(*arguments: Any, **options: Any) -> Any:
        if "into" in options:
            options["into"] = options["into"]._asdict()
        given = [array for value in (*arguments, *options.values()) for array in _arrays_in(value)]
        elsewhere = [array.device.id for array in given if array.device.id != numpy_as_cupy.Device().id]
        assert not elsewhere, f"arrays of GPU {elsewhere} where GPU {numpy_as_cupy.Device().id} is the current one"
        values: Any = [list(map(_unwrapped, arguments)), {name: _unwrapped(value) for name, value in options.items()}]
        capture = numpy_as_cupy.Capture.current
        if capture is None:
            return _as_of_a_gpu(run(*values), {id(array.host): array for array in given})
        # Once on zeros, for the shapes.
        zeros = [np.zeros_like(array.host) for array in given]
        of = {id(array.host): zero for array, zero in zip(given, zeros, strict=True)}
        instead = numpy_as_cupy._mapped(lambda host: of[id(host)], values)
        with np.errstate(all="ignore"):
            like = _as_of_a_gpu(
                run(*instead), {id(zero): array for array, zero in zip(given, zeros, strict=True)}, store=False
            )
        new = list(_leaves(like))
        targets = [leaf.host if _is_array(leaf) and not any(leaf is array for array in given) else None for leaf in new]

        def store(targets: list[Any], values: list[Any]) -> None:
            for leaf, target, value in zip(new, targets, _leaves(run(*values)), strict=True):
                if isinstance(leaf, _Tape):
                    leaf.kept = value
                elif target is not None:
                    target[...] = value

        capture.record(store, targets, values)
        return like

    return on_cupy


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple) and not _is_saved(value):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


def _is_saved(value: Any) -> bool:
    """Whether it is the definition's own record of a forward call."""
    return type(value).__module__.startswith("fastlstm.backends.")


def _is_array(value: Any) -> bool:
    return isinstance(value, numpy_as_cupy.ndarray)


def _arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from _arrays_in(entry)
    elif _is_array(value):
        yield value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unwrapped(entry) for name, entry in value.items()}
    return value.host if _is_array(value) else value


def _as_given(value: Any) -> Any:
    return value.kept if isinstance(value, _Tape) else value


def _as_of_a_gpu(value: Any, given: dict[int, Any], *, store: bool = True) -> Any:
    if id(value) in given:
        return given[id(value)]
    if isinstance(value, (np.ndarray, int, float, np.generic)):
        made = numpy_as_cupy.empty(np.shape(value), np.asarray(value).dtype)
        if store:
            made.host[...] = value
        return made
    if _is_saved(value):
        return _Tape(value, [*given.values()])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        record: Any = value
        fields = {name: _as_of_a_gpu(field, given, store=store) for name, field in record._asdict().items()}
        return record._replace(**fields)
    if isinstance(value, tuple):
        return tuple(_as_of_a_gpu(entry, given, store=store) for entry in value)
    return value
