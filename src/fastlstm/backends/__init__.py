"""Which backends exist, which one runs, and why.

"cpp", "numba" and "numpy" compute on numpy arrays; the fastest that works is chosen, unless
``set_backend``, ``use_backend`` or ``FASTLSTM_BACKEND`` name another. Arrays on a GPU (CuPy) go to "cuda".
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal, overload

from fastlstm.arrays import is_device_array
from fastlstm.backends.blas import ModuleOnOurThreads
from fastlstm.contract import (
    BackendNotAvailable,
    DenseFamily,
    DeviceEmbeddingFamily,
    DeviceIdsFamily,
    DeviceOptimFamily,
    DeviceSamplingFamily,
    DropoutFamily,
    EmbeddingFamily,
    GRUFamily,
    LossesFamily,
    LSTMFamily,
    OptimFamily,
    RNNFamily,
    SamplingFamily,
    SkipgramFamily,
)

# Fastest first.
HOST_BACKENDS = ("cpp", "numba", "numpy")
BACKENDS = (*HOST_BACKENDS, "cuda")


# pip keeps a wheel that it has built, one without extensions too, and would take it again.
_INSTALL_AGAIN = (
    "fastlstm again: FASTLSTM_REQUIRE_EXTENSIONS=1 pip install --no-cache-dir --force-reinstall --no-deps "
    "--no-binary fastlstm fastlstm (or, in its source tree, '.' for the last word)"
)


@functools.cache
def why_not(name: str) -> str | None:
    """Why backend ``name`` cannot run here and what to do about it; None if it can."""
    if name == "cpp":
        try:
            importlib.import_module("fastlstm._cpu")
        except ImportError as error:
            return (
                f"the compiled extension fastlstm._cpu cannot be imported ({error}); install a C++20 compiler, for "
                f"instance g++, and then {_INSTALL_AGAIN}"
            )
    elif name == "numba":
        if importlib.util.find_spec("numba") is None:
            return "Numba is not installed; run: pip install 'fastlstm[numba]'"
    elif name == "cuda":
        return _why_no_gpu()
    return None


def _why_no_gpu() -> str | None:
    """Why nothing can be computed on a GPU. Nothing heavy is imported for it, CuPy least of all."""
    try:
        _cuda = importlib.import_module("fastlstm._cuda")
    except ImportError as error:
        return (
            f"the compiled extension fastlstm._cuda cannot be imported ({error}); install nvcc (CUDA 12.4 or later) "
            f"and then {_INSTALL_AGAIN}"
        )
    reason: str | None = _cuda.why_not()
    if reason is None and importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; run: pip install 'fastlstm[cuda13]' (or 'fastlstm[cuda12]' for CUDA 12)"
    return reason


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run here, fastest first; "cuda" only where a GPU answers."""
    return tuple(name for name in BACKENDS if why_not(name) is None)


def check_can_run(name: str) -> str:
    """The name of a backend that can run here; raises `BackendNotAvailable` if it cannot."""
    reason = why_not(name)
    if reason is not None:
        raise BackendNotAvailable(f"backend {name!r} cannot run here: {reason}")
    return name


def _check_name(name: str) -> str:
    """The name of a backend for numpy arrays that can run here."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    check_can_run(name)
    if name not in HOST_BACKENDS:
        raise ValueError(
            f"backend {name!r} is not chosen: it runs on CuPy arrays, and on all of them; move arrays with "
            f"cupy.asarray(...). For numpy arrays, choose one of {', '.join(map(repr, HOST_BACKENDS))}"
        )
    return name


_chosen: str | None = None
_chosen_here: contextvars.ContextVar[str | None] = contextvars.ContextVar("fastlstm_backend", default=None)


@functools.cache
def _default_backend() -> str:
    asked = os.environ.get("FASTLSTM_BACKEND")
    if asked:
        return _check_name(asked)
    name = next(name for name in HOST_BACKENDS if why_not(name) is None)
    if name != HOST_BACKENDS[0]:
        warnings.warn(
            f"fastlstm runs on its slower {name!r} backend: {why_not(HOST_BACKENDS[0])}", RuntimeWarning, stacklevel=3
        )
    return name


def get_backend() -> str:
    """Name of the backend that runs operators on numpy arrays."""
    return _chosen_here.get() or _chosen or _default_backend()


def set_backend(name: str) -> None:
    """Make ``name`` ("cpp", "numba" or "numpy") run all operators on numpy arrays from now on.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    BackendNotAvailable
        If it cannot run here; the message says why and what to install.
    """
    global _chosen
    _chosen = _check_name(name)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Context manager: ``name`` runs the operators inside the block, in this thread or task only."""
    token = _chosen_here.set(_check_name(name))
    try:
        yield
    finally:
        _chosen_here.reset(token)


@functools.cache
def load_family(backend: str, family: str) -> ModuleType:
    """The module of one operator family of one backend, for instance ``fastlstm.backends.cpp.lstm``."""
    module = importlib.import_module(f"fastlstm.backends.{backend}.{family}")
    return ModuleOnOurThreads(module) if backend == "numpy" else module


@overload
def family_for(array: Any, family: Literal["lstm"]) -> LSTMFamily: ...
@overload
def family_for(array: Any, family: Literal["gru"]) -> GRUFamily: ...
@overload
def family_for(array: Any, family: Literal["rnn"]) -> RNNFamily: ...
@overload
def family_for(array: Any, family: Literal["embedding"]) -> EmbeddingFamily: ...
@overload
def family_for(array: Any, family: Literal["dense"]) -> DenseFamily: ...
@overload
def family_for(array: Any, family: Literal["dropout"]) -> DropoutFamily: ...
@overload
def family_for(array: Any, family: Literal["losses"]) -> LossesFamily: ...
@overload
def family_for(array: Any, family: Literal["sampling"]) -> SamplingFamily: ...
@overload
def family_for(array: Any, family: Literal["skipgram"]) -> SkipgramFamily: ...
def family_for(array: Any, family: str) -> ModuleType:
    """The module that computes ``family`` on arrays of the kind of ``array``; for "optim", see `host_optim`."""
    if is_device_array(array):
        return _cuda_family(family)
    return load_family(_chosen_here.get() or _chosen or _default_backend(), family)


def host_optim() -> OptimFamily:
    """The module that updates parameters on the host."""
    return load_family(get_backend(), "optim")


@overload
def device_family(family: Literal["embedding"]) -> DeviceEmbeddingFamily: ...
@overload
def device_family(family: Literal["sampling"]) -> DeviceSamplingFamily: ...
@overload
def device_family(family: Literal["optim"]) -> DeviceOptimFamily: ...
def device_family(family: str) -> ModuleType:
    """The module of a GPU whose functions are more or others than those of the host."""
    return _cuda_family(family)


def device_ids_family() -> DeviceIdsFamily:
    """The module that looks at ids on a GPU."""
    check_gpu()
    return load_family("cuda", "ids")


def check_gpu() -> None:
    """Raise `BackendNotAvailable` if nothing can compute on the arrays on a GPU that an operator was given."""
    reason = why_not("cuda")
    if reason is not None:
        raise BackendNotAvailable(
            f"backend 'cuda' cannot run here: {reason}; or keep all arrays on the host, where cupy.asnumpy() puts them"
        )


def _cuda_family(family: str) -> ModuleType:
    check_gpu()
    families = importlib.import_module("fastlstm.backends.cuda").FAMILIES
    if family not in families:
        raise BackendNotAvailable(
            f"backend 'cuda' has no {family} operators yet, only those of {', '.join(families)}; keep all arrays "
            "on the host, to where cupy.asnumpy() copies them"
        )
    return load_family("cuda", family)
