"""PyTorch's threads for the kernels too, so that neither's waiting threads take the cores from the other's."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import sys
from pathlib import Path

import torch

_FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_get_max_threads", "omp_in_parallel")


def share_threads() -> None:
    """Let the regions of the C++ backend run on the threads of PyTorch's OpenMP runtime, where that is one of Linux.

    Those spin for a while when they wait, on cores that threads of our own would need. A region takes as many as the
    smaller number of `fastlstm.set_num_threads` and ``torch.set_num_threads`` says, and where PyTorch has one thread,
    our own.
    """
    if sys.platform != "linux":
        return
    # The runtime that PyTorch's calls go to: one preloaded into the process, else the library's own.
    for name in (None, str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")):
        with contextlib.suppress(ImportError, OSError, AttributeError):
            library = ctypes.CDLL(name)
            addresses = [ctypes.cast(getattr(library, function), ctypes.c_void_p).value for function in _FUNCTIONS]
            importlib.import_module("fastlstm._cpu").run_on_openmp(*addresses)
            return
