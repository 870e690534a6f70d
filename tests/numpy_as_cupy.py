"""A stand-in for the little of CuPy that fastlstm uses: arrays of numpy, behind the walls of a GPU.

The walls are what makes it worth having: nothing turns such an array into a numpy array or a Python number by accident,
as nothing may on a GPU, where that waits for the device. Memory comes between margins and starts as NaN. Copies from
one side to the other are counted.
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


class Traffic:
    """Copies between the sides since the program began: each to the host waits for the device."""

    to_host = 0
    to_device = 0
    numbers_may_be_read = False  # by float() and the like, as a user does


@contextlib.contextmanager
def numbers_may_be_read() -> Iterator[None]:
    Traffic.numbers_may_be_read = True
    try:
        yield
    finally:
        Traffic.numbers_may_be_read = False


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

    def synchronize(self) -> None:
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
        chosen = _index(index)
        parts = chosen if isinstance(chosen, tuple) else (chosen,)
        counted = any(isinstance(part, np.ndarray) and part.dtype == np.bool_ for part in parts)
        assert not counted, "how many elements a mask chooses is waited for"
        return ndarray(np.asarray(self.host[chosen]))

    def __setitem__(self, index: Any, value: Any) -> None:
        assert isinstance(value, ndarray) or np.ndim(value) == 0, "a host array in a GPU's"
        self.host[_index(index)] = _unwrapped(value)

    def reshape(self, *shape: int) -> ndarray:
        return ndarray(self.host.reshape(*shape))

    def swapaxes(self, first: int, second: int) -> ndarray:
        return ndarray(self.host.swapaxes(first, second))

    def ravel(self) -> ndarray:
        return ndarray(self.host.ravel())

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return _new(self.host.astype(dtype))

    def fill(self, value: float) -> None:
        self.host.fill(value)

    def copy(self, order: str = "C") -> ndarray:
        return _new(self.host)

    def _method(name: str) -> Any:  # type: ignore[misc] # noqa: N805
        def method(self: ndarray, *arguments: Any, **options: Any) -> ndarray:
            return _new(getattr(self.host, name)(*map(_unwrapped, arguments), **options))

        return method

    sum, max, min, any, all, argmax, cumsum, repeat = map(
        _method, ("sum", "max", "min", "any", "all", "argmax", "cumsum", "repeat")
    )

    def get(self) -> np.ndarray[Any, Any]:
        return asnumpy(self)

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

    def _read(self) -> np.ndarray[Any, Any]:
        message = "a value of a GPU's array is read on the host: that waits for the device"
        assert Traffic.numbers_may_be_read, message
        Traffic.to_host += 1
        return self.host

    def __bool__(self) -> bool:
        return bool(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __index__(self) -> int:
        return self._read().__index__()

    def item(self, *index: int) -> Any:
        return self._read().item(*index)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    assert not isinstance(index, np.ndarray), "a GPU's array is indexed with a host array"
    return _unwrapped(index)


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


def asarray(array: Any) -> ndarray:
    if isinstance(array, ndarray):
        return array
    Traffic.to_device += 1
    return _new(np.asarray(array))


def copy(array: ndarray) -> ndarray:
    return array.copy()


def asnumpy(array: ndarray) -> np.ndarray[Any, Any]:
    Traffic.to_host += 1
    return array.host.copy()


def ascontiguousarray(array: ndarray) -> ndarray:
    return _new(array.host)


def _function(name: str) -> Any:
    """numpy's function of the name, for a GPU's arrays only."""
    of_numpy = getattr(np, name)

    def function(*arguments: Any, out: ndarray | None = None, **options: Any) -> Any:
        values = [_on_gpu(argument) for argument in arguments]
        options = {option: _on_gpu(value) for option, value in options.items()}
        if out is not None:
            of_numpy(*values, out=out.host, **options)
            return out
        result = of_numpy(*values, **options)
        return result if isinstance(result, bool) else _new(np.asarray(result))

    return function


def _on_gpu(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (ndarray, np.ndarray)) for entry in value):
        return [_on_gpu(entry) for entry in value]
    assert not isinstance(value, np.ndarray), "a function of CuPy is given a host array"
    return _unwrapped(value)


def broadcast_to(array: ndarray, shape: tuple[int, ...]) -> ndarray:
    return ndarray(np.broadcast_to(array.host, shape))


FUNCTIONS = (
    "abs arange argsort concatenate count_nonzero einsum exp full log log1p may_share_memory maximum minimum ones "
    "repeat sqrt square stack sum take_along_axis tanh where zeros zeros_like"
)


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

    def synchronize(self) -> None:
        pass


class _PinnedMemory(np.ndarray[Any, Any]):
    ptr = property(lambda self: self.ctypes.data)


def alloc_pinned_memory(size: int) -> _PinnedMemory:
    return np.full(size, _FILL, np.uint8).view(_PinnedMemory)


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
    cuda = module("cupy.cuda", Device=Device, get_current_stream=_Stream, alloc_pinned_memory=alloc_pinned_memory)
    names = "ndarray empty asarray copy asnumpy ascontiguousarray broadcast_to matmul"
    members = {name: globals()[name] for name in names.split()}
    members |= {name: _function(name) for name in FUNCTIONS.split()}
    cupy = module("cupy", cuda=cuda, cublas=cublas, _core=core, **members)
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
