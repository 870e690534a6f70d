"""A stand-in for the little of CuPy that fastlstm uses: arrays of numpy, behind the walls of a GPU.

The walls are what makes it worth having: nothing turns such an array into a numpy array or a Python number by accident,
as nothing may on a GPU, where that waits for the device. Memory comes between margins and starts as NaN.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import types
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

MARGIN = 256  # bytes before and after an array
_FILL = 0xFF

_buffers: list[np.ndarray[Any, Any]] = []


class _Pointer:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.ptr = array.ctypes.data


class Device:
    """Also the context that makes it the current one."""

    def __init__(self, number: int = 0) -> None:
        self.id = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801
    """Wraps a numpy array."""

    def __init__(self, host: np.ndarray[Any, Any], device: int = 0) -> None:
        self.host = host
        self.device = Device(device)

    dtype = property(lambda self: self.host.dtype)
    shape = property(lambda self: self.host.shape)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    flags = property(lambda self: self.host.flags)
    data = property(lambda self: _Pointer(self.host))
    T = property(lambda self: ndarray(self.host.T, self.device.id))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.host.__array_interface__, "version": 3, "stream": 1}

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self.host[_unwrapped(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[_unwrapped(index)] = _unwrapped(value)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self.host.reshape(*shape))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return _new(self.host.astype(dtype))

    def ravel(self) -> ndarray:
        return ndarray(self.host.ravel())

    def fill(self, value: float) -> None:
        self.host.fill(value)

    def copy(self, order: str = "C") -> ndarray:
        return _new(self.host)

    def sum(self, axis: int) -> ndarray:
        return _new(self.host.sum(axis=axis))

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: tuple[ndarray] | None = None, **options: Any
    ) -> Any:
        assert method == "__call__"
        assert all(isinstance(value, (ndarray, int, float, np.generic)) for value in inputs), "a host array in a GPU's"
        if out is not None:  # augmented assignment
            ufunc(*map(_unwrapped, inputs), out=out[0].host, **options)
            return out[0]
        return _new(ufunc(*map(_unwrapped, inputs), **options))

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Any:
        """Functions of CuPy's under the same names."""
        if function is np.may_share_memory:
            return np.may_share_memory(*map(_unwrapped, arguments), **options)
        assert function is np.zeros_like, f"numpy.{function.__name__} of a GPU's array"
        return _new(function(*map(_unwrapped, arguments), **options))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def _waits_for_the_device(self, *_: Any) -> Any:
        raise AssertionError("a value of a GPU's array is read on the host: that waits for the device")

    __bool__ = __int__ = __float__ = __index__ = item = min = max = all = any = _waits_for_the_device


def _unwrapped(value: Any) -> Any:
    return value.host if isinstance(value, ndarray) else value


def _new(values: np.ndarray[Any, Any] | np.generic) -> ndarray:
    array = empty(np.shape(values), values.dtype)
    array.host[...] = values
    return array


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    shape = (shape,) if isinstance(shape, int) else shape
    bytes_ = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    # Aligned as CuPy's memory is, to 512 bytes.
    buffer = np.full(bytes_ + 2 * MARGIN + 512, _FILL, np.uint8)
    start = MARGIN + -(buffer.ctypes.data + MARGIN) % 512
    buffer = buffer[start - MARGIN : start + bytes_ + MARGIN]
    _buffers.append(buffer)
    return ndarray(buffer[MARGIN : MARGIN + bytes_].view(dtype).reshape(shape))


def check_margins() -> None:
    """Assert that nothing was written outside of the arrays made since the last call."""
    buffers = list(_buffers)
    _buffers.clear()
    for buffer in buffers:
        for name, margin in (("before", buffer[:MARGIN]), ("after", buffer[-MARGIN:])):
            assert (margin == _FILL).all(), f"written {name} an array of {buffer.size - 2 * MARGIN} bytes"


def zeros(shape: Any, dtype: Any) -> ndarray:
    return _new(np.zeros(shape, dtype))


def asarray(host: np.ndarray[Any, Any]) -> ndarray:
    return _new(host)


def copy(array: ndarray) -> ndarray:
    return array.copy()


def asnumpy(array: ndarray) -> np.ndarray[Any, Any]:
    return array.host.copy()


def ascontiguousarray(array: ndarray) -> ndarray:
    return _new(array.host)


def arange(stop: int) -> ndarray:
    return _new(np.arange(stop))


def where(condition: ndarray, a: ndarray, b: Any) -> ndarray:
    return _new(np.where(condition.host, a.host, b))


def matmul(a: ndarray, b: ndarray, *, out: ndarray | None = None) -> ndarray:
    left, right = a.host, b.host
    if left.dtype == np.float32 and _compute_types["float32"] == COMPUTE_TYPE_TF32:
        left, right = rounded_to_tf32(left), rounded_to_tf32(right)
    if out is None:
        return _new(left @ right)
    assert out.flags.c_contiguous
    assert out.dtype == left.dtype
    np.matmul(left, right, out=out.host)
    return out


def gemm(
    transa: str, transb: str, a: ndarray, b: ndarray, out: ndarray | None = None, alpha: float = 1.0, beta: float = 0.0
) -> ndarray:
    """cupy.cublas.gemm: out = alpha op(a) op(b) + beta out, exactly, whatever the compute type is."""
    assert a.ndim == b.ndim == 2
    assert a.dtype == b.dtype
    left, right = a.host.T if transa == "T" else a.host, b.host.T if transb == "T" else b.host
    if out is None:
        return _new(alpha * (left @ right))
    assert out.shape == (left.shape[0], right.shape[1])
    assert out.dtype == a.dtype
    out.host[...] = alpha * (left @ right) + (beta * out.host if beta else 0)
    return out


def rounded_to_tf32(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 with 10 bits after the point, halfway away from zero."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    result: np.ndarray[Any, Any] = ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), result, values)


# cupy._core._routines_linalg
COMPUTE_TYPE_DEFAULT, COMPUTE_TYPE_TF32 = 1, 7
_compute_types = {"float32": COMPUTE_TYPE_DEFAULT, "float64": COMPUTE_TYPE_DEFAULT}


def get_compute_type(dtype: Any) -> int:
    return _compute_types[np.dtype(dtype).name]


def set_compute_type(dtype: Any, compute_type: int) -> None:
    _compute_types[np.dtype(dtype).name] = compute_type


class _Stream:
    ptr = 0


def modules() -> dict[str, types.ModuleType]:
    """What stands in ``sys.modules`` where CuPy is installed."""

    def module(name: str, **members: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(made).update(members)
        return made

    linalg = module("cupy._core._routines_linalg", **{
        name: globals()[name]
        for name in ("COMPUTE_TYPE_DEFAULT", "COMPUTE_TYPE_TF32", "get_compute_type", "set_compute_type")
    })  # fmt: skip
    core = module("cupy._core", _routines_linalg=linalg)
    cublas = module("cupy.cublas", gemm=gemm)
    cuda = module("cupy.cuda", Device=Device, get_current_stream=_Stream)
    arrays = (
        "ndarray",
        "empty",
        "zeros",
        "asarray",
        "copy",
        "asnumpy",
        "ascontiguousarray",
        "arange",
        "where",
        "matmul",
    )
    cupy = module("cupy", cuda=cuda, cublas=cublas, _core=core, **{name: globals()[name] for name in arrays})
    return {
        "cupy": cupy,
        "cupy.cuda": cuda,
        "cupy.cublas": cublas,
        "cupy._core": core,
        "cupy._core._routines_linalg": linalg,
    }


@contextlib.contextmanager
def compute_type(value: int) -> Iterator[None]:
    """As if the user had chosen it for all products."""
    before = get_compute_type(np.float32)
    set_compute_type(np.float32, value)
    try:
        yield
    finally:
        set_compute_type(np.float32, before)
