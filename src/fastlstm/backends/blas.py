"""The numpy backend's matrix products, on no more threads than are asked for.

numpy leaves them to OpenBLAS or another library, whose number of threads is one for the whole process. It is lowered
while a call of ours runs and put back after it: the products of whoever calls us keep their threads. What numpy does
for the other backends is left alone: the bits of its products may depend on the number.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from fastlstm.backends.threads import get_num_threads

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Held by the call that has lowered the number. One that runs at the same time must not take that for the caller's own.
_lowered = threading.Lock()


@functools.cache
def _libraries() -> Any:
    """threadpoolctl's hold on the libraries; None where it is not installed, and they keep to their own settings."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def can_lower_threads() -> bool:
    """Whether the number can be lowered here."""
    return _libraries() is not None


def on_our_threads(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, whose products take no more threads than `get_num_threads` says."""

    @functools.wraps(function)
    def limited(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        most = get_num_threads()
        libraries = _libraries()
        few = libraries is None or all(library.num_threads <= most for library in libraries.lib_controllers)
        if few or not _lowered.acquire(blocking=False):
            return function(*args, **kwargs)
        try:
            with libraries.limit(limits=most):
                return function(*args, **kwargs)
        finally:
            _lowered.release()

    return limited


_kept = functools.cache(on_our_threads)


class ModuleOnOurThreads(ModuleType):
    """A module whose functions are those of `on_our_threads`."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return _kept(value) if inspect.isfunction(value) else value
