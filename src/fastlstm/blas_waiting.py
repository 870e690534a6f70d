"""How long the threads of numpy's and SciPy's OpenBLAS wait for a product by spinning: 0.1 ms once this is imported.

Else they spin for 2^26 cycles of the processor's clock, about 20 ms, on cores that the kernels' threads need: an LSTM
call after a product of numpy's takes twice as long then. 2^18 cycles, 0.1 ms, are as long as threads of ours spin.
"""

import contextlib
import ctypes
import os
import sys

_VARIABLE = "OPENBLAS_THREAD_TIMEOUT"

# What is linked with an OpenBLAS: numpy's, by its names in numpy 2 and 1, and SciPy's, mostly one of its own.
_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath", "scipy.linalg._fblas")


def _shorten() -> None:
    """Set the variable, which OpenBLAS reads when it is loaded, and have it read again where that was before.

    A user's own value stays. Threads that run already end, and the next product makes them anew, as after a fork; not
    where another thread could be at a product, be it one that `threading` does not know.
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "18"
    if sys.platform != "linux" or len(sys._current_frames()) > 1:
        return
    for module in filter(None, map(sys.modules.get, _MODULES)):
        with contextlib.suppress(OSError, AttributeError):  # another library of products
            library = ctypes.CDLL(module.__file__)  # its functions, and those of what it is linked with
            read_environment, end_threads = library.openblas_read_env, library.blas_thread_shutdown_
            read_environment()
            end_threads()


_shorten()
