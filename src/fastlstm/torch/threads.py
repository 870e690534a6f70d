"""PyTorch's threads for the kernels too, so that neither's waiting threads take the cores from the other's."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from pathlib import Path
from typing import Any

import torch

_LIBRARY = str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")


def _max_threads(runtime: ctypes.CDLL) -> Any:
    """How many threads a region of the calling thread has.

    at::get_num_threads() gives a new thread the number of ``torch.set_num_threads`` first; OpenMP's own function says
    there how many the process began with.
    """
    try:
        return ctypes.CDLL(_LIBRARY)._ZN2at15get_num_threadsEv
    except (OSError, AttributeError):
        return runtime.omp_get_max_threads


def share_threads() -> None:
    """Let the regions of the C++ backend run on the threads of PyTorch's OpenMP runtime, where that is one of Linux.

    Those spin for a while when they wait, on cores that threads of our own would need. A region takes as many as the
    smaller number of `fastlstm.set_num_threads` and ``torch.set_num_threads`` says, and where PyTorch has one thread,
    our own.
    """
    if sys.platform != "linux":
        return
    # The runtime that PyTorch's calls go to: one preloaded into the process, else the library's own.
    for name in (None, _LIBRARY):
        with contextlib.suppress(ImportError, OSError, AttributeError):
            runtime = ctypes.CDLL(name)
            functions = [
                runtime.GOMP_parallel,
                runtime.omp_get_thread_num,
                runtime.omp_get_num_threads,
                _max_threads(runtime),
                runtime.omp_in_parallel,
            ]
            addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in functions]
            importlib.import_module("fastlstm._cpu").run_on_openmp(*addresses)
            return
