"""How long the threads of numpy's OpenBLAS wait for their next product by spinning: 0.1 ms once this is imported.

Else they spin for 2^26 cycles of the processor's clock, about 20 ms, on cores that the kernels' threads need: an LSTM
call after a product of numpy's takes twice as long then. 2^18 cycles, 0.1 ms, are as long as threads of ours spin.
"""

import contextlib
import ctypes
import os
import sys
import threading

_VARIABLE = "OPENBLAS_THREAD_TIMEOUT"


def _shorten() -> None:
    """Set the variable, which OpenBLAS reads when it is loaded, and have it read again where numpy was first.

    A user's own value stays. Threads that run already end, and the next product makes them anew, as after a fork; not
    where another thread of Python's could be at a product.
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "18"
    module = sys.modules.get("numpy._core._multiarray_umath") or sys.modules.get("numpy.core._multiarray_umath")
    if module is None or sys.platform != "linux" or threading.active_count() > 1:
        return
    with contextlib.suppress(OSError, AttributeError):  # another library of products
        library = ctypes.CDLL(module.__file__)  # its functions, and those of what it is linked with
        read_environment, end_threads = library.openblas_read_env, library.blas_thread_shutdown_
        read_environment()
        end_threads()


_shorten()
