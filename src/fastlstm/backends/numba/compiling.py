"""The decorators of this backend.

Machine code is cached beside the sources, or in Numba's own cache folder, or (where neither can be written) not at all.
Numba renews a cached kernel when the file that holds the kernel changes, not when a module it calls does: after a
change of ``candidates``, ``elementary``, ``reductions``, ``products`` or ``recurrence`` remove ``__pycache__``.
Installed releases are not affected: every file of one is new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.extending import register_jitable

from fastlstm.contract import Array

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Record = TypeVar("_Record", bound=tuple[Any, ...])


def kernel(function: _Function) -> _Function:
    """Compile for Python: when first called with each dtype, run without the GIL, cached on disk if possible."""
    try:
        compiled = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(_Function, compiled)


def inner(function: _Function) -> _Function:
    """Compile where a kernel calls it, into that kernel's code; called from Python it stays Python."""
    return cast(_Function, register_jitable(error_model="numpy")(function))


def reduction(function: _Function) -> _Function:
    """`inner` for a sum that LLVM may split into several, side by side in a vector, as it may not by itself.

    How it does depends only on how many there are, so results stay the same bits; NaN and infinity stay themselves.
    """
    return cast(_Function, register_jitable(error_model="numpy", fastmath={"reassoc"})(function))


def unnamed(record: _Record) -> _Record:
    """A NamedTuple's values as a plain tuple, for a kernel that unpacks it: a named one costs every call 2 us more."""
    return cast(_Record, tuple(record))


def plain(array: Array) -> Array:
    """The array as kernels want it: C-contiguous, aligned and writeable, copied only if it is not.

    Numba compiles a kernel once more for every combination of read-only arguments, which takes seconds.
    """
    return array if array.flags.carray else array.copy()


def flat(array: Array) -> Array:
    """`plain`, with a single axis."""
    return plain(array).reshape(-1)
