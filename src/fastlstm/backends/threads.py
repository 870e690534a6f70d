"""How many threads the backends use.

The number stands here, below ``fastlstm.config`` that users see, so that a backend can ask for it. The Numba kernels
ask at every call, and so does the numpy backend (``blas.py``); the C++ extension takes the number when it loads, and
later changes are handed to it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import os
import sys
from typing import Any

from fastlstm.backends.cpu_quota import cpu_quota

# Far above any use; a slip such as 10**9 would exhaust the machine while starting threads.
MAX_THREADS = 1024

# As they were at import: a thread inherits the processors of the thread that makes it, and OpenMP's binding
# (OMP_PROC_BIND, GOMP_CPU_AFFINITY) leaves the main thread a single one.
_PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

_asked: int | None = None


def available_cores() -> int:
    """Processors that this process may keep busy: those it may run on, or fewer by a quota, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


@functools.cache
def _default_threads() -> int:
    asked = os.environ.get("FASTLSTM_NUM_THREADS", "").strip()
    if not asked:
        return min(available_cores(), MAX_THREADS)
    try:
        n = int(asked)
    except ValueError:
        n = 0
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(
            f"the environment variable FASTLSTM_NUM_THREADS is {asked!r}, "
            f"expected a whole number from 1 to {MAX_THREADS}"
        )
    return n


def run_on_all_processors() -> None:
    """Let the calling thread run on the processors that the process had when the package was imported."""
    if _PROCESSORS is not None:
        with contextlib.suppress(OSError):  # none of them is the process's any more
            os.sched_setaffinity(0, _PROCESSORS)


def get_num_threads() -> int:
    """Number of threads the kernels use: what `set_num_threads` set, else FASTLSTM_NUM_THREADS, else all cores.

    Raises
    ------
    ValueError
        FASTLSTM_NUM_THREADS is no positive whole number.
    """
    return _default_threads() if _asked is None else _asked


def set_num_threads(n: int) -> None:
    """Let the kernels use ``n`` threads from now on, and the products of the numpy backend no more than that.

    Results of the compiled backends are the same bits for any number of threads. Products of numpy outside of our calls
    take as many threads as before.

    Parameters
    ----------
    n : int
        At least 1; more than there are cores is allowed.

    Raises
    ------
    TypeError
        n is no integer.
    ValueError
        n is below 1 or above 1024.
    """
    global _asked
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads is {type(n).__name__} {n!r:.60}, expected a whole number, at least 1")
    n = operator.index(n)
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(f"the number of threads is {n}, expected a whole number from 1 to {MAX_THREADS}")
    _asked = n
    extension = sys.modules.get("fastlstm._cpu")
    if extension is not None:
        hand_to_cpp(extension)


def hand_to_cpp(extension: Any) -> None:
    """Tell the extension ``fastlstm._cpu`` the number; its backend calls this when it loads."""
    extension.set_num_threads(get_num_threads())
