"""Matrix products by a cuBLAS handle of our own, in the library that CuPy has loaded.

CuPy refuses its own handles while a stream is captured (cupy/cupy#6290), and has no documented way to name the
precision of a product. A handle here belongs to a thread and a device, takes its stream from the call, and has a
workspace that CuPy's allocator gave, one for every stream: a captured graph goes on using it, so nothing else may.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import cupy
import numpy as np

from fastlstm.contract import FloatArray, Precision

# As NVIDIA recommends, for Hopper and later and for what came before: cuBLAS documentation, cublasSetWorkspace.
WORKSPACE_BYTES, EARLIER_WORKSPACE_BYTES = 32 << 20, 4 << 20
_HOPPER = 90

# cublasOperation_t, cudaDataType_t and cublasComputeType_t.
_AS_IT_IS, _TRANSPOSED = 0, 1
_FLOAT32, _FLOAT64 = 0, 1
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_DEFAULT_ALGORITHM = -1

_STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED: the library has not been set up, mostly because there is no memory left",
    3: "CUBLAS_STATUS_ALLOC_FAILED: there is no memory left",
    7: "CUBLAS_STATUS_INVALID_VALUE: a size or an address cannot be right",
    8: "CUBLAS_STATUS_ARCH_MISMATCH: this GPU cannot do it",
    11: "CUBLAS_STATUS_MAPPING_ERROR: GPU memory could not be reached",
    13: "CUBLAS_STATUS_EXECUTION_FAILED: a kernel failed",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED: there is no kernel for these operands",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}

_Address = ctypes.c_void_p
_Int = ctypes.c_int
_Stride = ctypes.c_longlong
PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (ctypes.POINTER(_Address),),
    "cublasSetStream_v2": (_Address, _Address),
    "cublasSetWorkspace_v2": (_Address, _Address, ctypes.c_size_t),
    "cublasGemmEx": (
        _Address, _Int, _Int, _Int, _Int, _Int,  # handle, operations, m, n, k
        _Address, _Address, _Int, _Int, _Address, _Int, _Int,  # alpha, A, its type and lda, B, its type and ldb
        _Address, _Address, _Int, _Int, _Int, _Int,  # beta, C, its type and ldc, type of the computation, algorithm
    ),
    "cublasGemmStridedBatchedEx": (
        _Address, _Int, _Int, _Int, _Int, _Int,
        _Address, _Address, _Int, _Int, _Stride, _Address, _Int, _Int, _Stride,  # how far apart the matrices are, too
        _Address, _Address, _Int, _Int, _Stride, _Int, _Int, _Int,  # their number before the type of the computation
    ),
}  # fmt: skip


class CublasError(RuntimeError):
    """A call of cuBLAS failed."""


@functools.cache
def library() -> Any:
    """The library, with the prototypes of what is used here. Raises OSError or AttributeError where it has none."""
    opened = open_library()
    for name, arguments in PROTOTYPES.items():
        function = getattr(opened, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return opened


def open_library() -> Any:
    """The shared library that CuPy has loaded, wherever it found it: the same name is the same library."""
    with contextlib.suppress(ImportError):
        # As the package's attribute: CuPy 14 then finds a library that pip has installed, and loads it.
        from cupy_backends.cuda.libs import cublas  # noqa: F401
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    # CuPy's own version first: another package may have loaded one of another.
    names = [f"libcublas.so.{number}" for number in dict.fromkeys((major, 13, 12, 11))]
    for attempt in range(2):
        for name in names:
            with contextlib.suppress(OSError):
                return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        if attempt == 0:
            with contextlib.suppress(ImportError, RuntimeError):  # CuPy's own errors are RuntimeErrors
                cupy.cuda.device.get_cublas_handle()  # where CuPy loads libraries only when it needs them
    return ctypes.CDLL(names[0])


@functools.cache
def why_not() -> str | None:
    """Why products have to go through CuPy's handles; None if they need not. A reason is kept until `look_again`."""
    if os.environ.get("FASTLSTM_CUBLAS") == "cupy":
        return "FASTLSTM_CUBLAS=cupy asks for CuPy's"
    try:
        library()
    except (OSError, AttributeError, ImportError) as error:
        return f"the cuBLAS library that CuPy uses cannot be opened ({error})"
    return None


def look_again() -> None:
    """Forget a reason: what was missing may have been installed, or loaded by somebody else, since."""
    if why_not() is not None:
        why_not.cache_clear()


class _Handles(threading.local):
    """Handles of a thread by the number of their device."""

    def __init__(self) -> None:
        self.of_device: dict[int, _Handle] = {}


# Handles of threads that have ended, by device. Other threads take them over: to destroy one waits for the device.
_unused: dict[int, list[ctypes.c_void_p]] = {}


class _Handle:
    """A thread's handle of a device, which has to be the current one.

    Attributes
    ----------
    workspaces : dict of a stream's address to an array
        Kept as long as the thread lives: a graph that somebody captured on the stream may use it.
    """

    def __init__(self, device: int) -> None:
        unused = _unused.setdefault(device, [])
        try:
            made = unused.pop()
        except IndexError:
            made = _Address()
            _check("cublasCreate", library().cublasCreate_v2(ctypes.byref(made)))
        self._made = made
        weakref.finalize(self, unused.append, made).atexit = False
        self._stream: int | None = None
        self.workspaces: dict[int, Any] = {}

    def on_stream(self, stream: int) -> ctypes.c_void_p:
        """The handle, whose calls go to the stream."""
        if stream != self._stream:
            self._stream = None
            if stream not in self.workspaces:
                self.workspaces[stream] = new_workspace()
            # A new stream takes a handle's workspace away: cuBLAS documentation, cublasSetStream.
            _check("cublasSetStream", library().cublasSetStream_v2(self._made, stream))
            workspace = self.workspaces[stream]
            done = library().cublasSetWorkspace_v2(self._made, workspace.data.ptr, workspace.size)
            _check("cublasSetWorkspace", done)
            self._stream = stream
        return self._made

    def replace_workspace(self, stream: int, workspace: Any) -> Any:
        """Sets another workspace for a stream, None for a new one when it is needed; returns the one before."""
        before = self.workspaces.pop(stream, None)
        if workspace is not None:
            self.workspaces[stream] = workspace
        if self._stream == stream:
            self._stream = None
        return before


_handles = _Handles()


def _handle(device: int) -> _Handle:
    if device not in _handles.of_device:
        _handles.of_device[device] = _Handle(device)
    return _handles.of_device[device]


def new_workspace() -> Any:
    """A workspace for the device that is current."""
    hopper = int(cupy.cuda.Device().compute_capability) >= _HOPPER
    return cupy.empty(WORKSPACE_BYTES if hopper else EARLIER_WORKSPACE_BYTES, np.uint8)


@contextlib.contextmanager
def workspace_of(device: int, workspace: Any) -> Iterator[None]:
    """Products of this thread on the current stream of the device, which is the current one, use the workspace."""
    stream = cupy.cuda.get_current_stream().ptr
    handle = _handle(device)
    before = handle.replace_workspace(stream, workspace)
    try:
        yield
    finally:
        handle.replace_workspace(stream, before)


def _check(call: str, status: int) -> None:
    if status != 0:
        raise CublasError(f"{call} failed: {_STATUS.get(status, f'status {status}')}")


class _Layout(NamedTuple):
    """How a matrix lies, or each of a batch: whether its rows lie in one piece each, else its columns.

    leading : how far apart those are; apart: how far apart the matrices of a batch are. In elements.
    """

    row_major: bool
    leading: int
    apart: int = 0


def _layout(array: Any) -> _Layout | None:
    """Finds how a matrix lies, or each of a batch; None if cuBLAS knows no such layout."""
    *batch, rows, columns = array.shape
    *of_batch, of_row, of_column = array.strides
    size = array.itemsize
    apart = of_batch[0] // size if batch else 0
    if batch and (of_batch[0] % size or of_batch[0] < 0):
        return None
    if (of_column == size or columns == 1) and (rows == 1 or (of_row % size == 0 and of_row >= columns * size)):
        return _Layout(True, columns if rows == 1 else of_row // size, apart)
    if (of_row == size or rows == 1) and (columns == 1 or (of_column % size == 0 and of_column >= rows * size)):
        return _Layout(False, rows if columns == 1 else of_column // size, apart)
    return None


def _laid_out(array: Any) -> tuple[Any, _Layout]:
    """An operand, or its copy where cuBLAS could not read it, and how it lies."""
    layout = _layout(array)
    if layout is None:
        array = array.copy(order="C")
        layout = _layout(array)
        assert layout is not None
    return array, layout


def gemm(a: FloatArray, b: FloatArray, out: FloatArray, *, precision: Precision, accumulate: bool = False) -> None:
    """out (M, X) = or += a (M, K) b (K, X), on the current stream of the arrays' device, which is the current one.

    Any of them may be transposed, or a part of the columns of something wider. float32 products are exact, or in TF32
    for the precisions "tf32" and "bf16". With a batch axis before, of all three, it is a product for each of the batch.
    """
    target: Any = out
    *batch, M, K = a.shape
    X = b.shape[-1]
    if out.size == 0:
        return
    if K == 0:
        if not accumulate:
            target[...] = 0
        return
    layout = _layout(target)
    if layout is None:
        whole: Any = target.copy(order="C")
        gemm(a, b, whole, precision=precision, accumulate=accumulate)
        target[...] = whole
        return
    double = target.dtype.char == "d"
    kind = _FLOAT64 if double else _FLOAT32
    compute = _COMPUTE_64F if double else _COMPUTE_32F
    if not double and precision in ("tf32", "bf16"):
        compute = _COMPUTE_32F_FAST_TF32
    number: Any = ctypes.c_double if double else ctypes.c_float
    alpha, beta = number(1), number(1 if accumulate else 0)

    # cuBLAS stores columns. So a row-major out is the transpose of what it makes: out^T = b^T a^T; and an operand that
    # lies as out does is taken as it is.
    m, n = (X, M) if layout.row_major else (M, X)
    operands = [_laid_out(operand) for operand in ((b, a) if layout.row_major else (a, b))]
    arguments: list[Any] = [_handle(target.device.id).on_stream(cupy.cuda.get_current_stream().ptr)]
    arguments += [_AS_IT_IS if lies.row_major == layout.row_major else _TRANSPOSED for _, lies in operands]
    arguments += [m, n, K, ctypes.addressof(alpha)]
    for operand, lies in operands:
        arguments += [operand.data.ptr, kind, lies.leading, *([lies.apart] if batch else [])]
    arguments += [ctypes.addressof(beta), target.data.ptr, kind, layout.leading]
    if batch:
        arguments += [layout.apart, batch[0]]
    function = "cublasGemmStridedBatchedEx" if batch else "cublasGemmEx"
    _check(function, getattr(library(), function)(*arguments, compute, _DEFAULT_ALGORITHM))
