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

import numpy as np
import numpy_as_cupy
import pytest

import fastlstm
from fastlstm import backends

WRAPPED = ("dense", "dropout", "embedding", "gru", "losses", "lstm", "optim", "rnn", "sampling")


@contextmanager
def installed() -> Iterator[Any]:
    """A stand-in for CuPy, and the definition in the place of the kernels; yields ``cupy``."""
    patch = pytest.MonkeyPatch()
    backends.why_not.cache_clear()
    backends.load_family.cache_clear()
    for name in list(sys.modules):
        if name.startswith("fastlstm.backends.cuda"):
            patch.delitem(sys.modules, name)
    stand_in = numpy_as_cupy.modules()
    for name, made in stand_in.items():
        patch.setitem(sys.modules, name, made)
    extension: Any = types.ModuleType("fastlstm._cuda")
    extension.why_not, extension.check_ids = lambda: None, _check_ids
    patch.setitem(sys.modules, "fastlstm._cuda", extension)
    patch.setattr(fastlstm, "_cuda", extension, raising=False)
    cuda = importlib.import_module("fastlstm.backends.cuda")
    patch.setattr(cuda, "FAMILIES", WRAPPED)
    for family in WRAPPED:
        made = _optim() if family == "optim" else _family(family)
        patch.setitem(sys.modules, f"fastlstm.backends.cuda.{family}", made)
    try:
        yield stand_in["cupy"]
    finally:
        patch.undo()
        backends.why_not.cache_clear()
        backends.load_family.cache_clear()


def _check_ids(
    *, ids: int, checked: int, wide: bool, count: int, upper: int | None, ignored: int | None, source: int, fault: int,
    **_: int,
) -> None:  # fmt: skip
    """The kernel of csrc/cuda/ids.cu."""

    def at(address: int, kind: Any, size: int) -> Any:
        return np.ctypeslib.as_array((kind * size).from_address(address))

    kind = ctypes.c_int64 if wide else ctypes.c_int32
    given, copy, record = at(ids, kind, count), at(checked, kind, count), at(fault, ctypes.c_int64, 3)
    wrong = (given < 0) | (given >= (np.inf if upper is None else upper))
    if ignored is not None:
        wrong &= given != ignored
    copy[...] = np.where(wrong, 0, given)
    if wrong.any() and not record[0]:
        low, high = given[wrong].min(), given[wrong].max()
        record[...] = (1, source, low if low < 0 else high)


def _optim() -> types.ModuleType:
    """A call for all parameters; numbers may be arrays without axes."""
    definition = importlib.import_module("fastlstm.backends.numpy.optim")
    made: Any = types.ModuleType("fastlstm.backends.cuda.optim")

    def for_all(update: Callable[..., None]) -> Callable[..., None]:
        def update_all(*lists: Sequence[Any], **options: Any) -> None:
            numbers = {name: _number(value) for name, value in options.items()}
            for arrays in zip(*lists, strict=True):
                update(*map(_unwrapped, arrays), **numbers)

        return update_all

    for name in ("sgd", "momentum", "adagrad", "rmsprop", "adam"):
        setattr(made, f"{name}_update", for_all(getattr(definition, f"{name}_update")))
    made.norm = lambda grads: _of_a_gpu(math.sqrt(sum(definition.squared_norm(grad.host) for grad in grads)))
    made.clip_scale = lambda norm, limit: _of_a_gpu(limit / (norm.host + 1e-6) if norm.host > limit else 1.0)

    def scale(arrays: Sequence[Any], factor: Any) -> None:
        for array in arrays:
            definition.scale(array.host, _number(factor))

    made.scale = scale
    return made  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    return value.host.item() if _is_array(value) else value


def _of_a_gpu(value: Any) -> Any:
    return numpy_as_cupy._new(np.asarray(value))


def _family(name: str) -> types.ModuleType:
    definition = importlib.import_module(f"fastlstm.backends.numpy.{name}")
    made = types.ModuleType(f"fastlstm.backends.cuda.{name}")
    for function_name, function in vars(definition).items():
        if inspect.isfunction(function) and not function_name.startswith("_"):
            setattr(made, function_name, _wrapped(function))
    return made


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    def on_cupy(*arguments: Any, **options: Any) -> Any:
        options.pop("precision", None)
        given = {id(value.host): value for value in (*arguments, *options.values()) if _is_array(value)}
        result = function(*map(_unwrapped, arguments), **{name: _unwrapped(value) for name, value in options.items()})
        return _as_of_a_gpu(result, given)

    return on_cupy


def _is_array(value: Any) -> bool:
    return isinstance(value, numpy_as_cupy.ndarray)


def _unwrapped(value: Any) -> Any:
    return value.host if _is_array(value) else value


def _as_of_a_gpu(value: Any, given: dict[int, Any]) -> Any:
    if id(value) in given:
        return given[id(value)]
    if isinstance(value, (np.ndarray, int, float, np.generic)):
        return _of_a_gpu(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        record: Any = value
        return record._replace(
            **{name: _as_of_a_gpu(field, given) for name, field in record._asdict().items() if name != "tape"}
        )
    return value
