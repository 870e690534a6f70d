"""A stand-in for the little of CuPy that fastlstm uses: arrays of numpy, behind the walls of a GPU.

The walls are what makes it worth having: nothing turns such an array into a numpy array or a Python number by accident,
as nothing may on a GPU, where that waits for the device. Memory comes between margins and starts as NaN. Copies from
one side to the other are counted.

While a stream is captured, nothing is computed: every operation is put down with the memory it reads and writes, and a
launch of the graph does them all. What a capture refuses is refused: reading values on the host, waiting, cuBLAS
through CuPy, copies from the host's memory.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import importlib
import importlib.machinery
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

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


# --------------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------------

_chunks: dict[int, int] = {}  # address and bytes of every array's memory
_addresses: list[int] = []  # ascending


class _Chunk:
    """An array's memory: what numpy's views of it keep alive."""

    def __init__(self, pool: MemoryPool, buffer: np.ndarray[Any, Any], size: int) -> None:
        self._pool, self.buffer = weakref.ref(pool), buffer
        self.address = buffer.ctypes.data + MARGIN
        self.__array_interface__ = {
            "data": (self.address, False), "shape": (size,), "typestr": "|u1", "version": 3,
        }  # fmt: skip
        if self.address not in _chunks:
            bisect.insort(_addresses, self.address)
        _chunks[self.address] = size

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool._free(self.address, self.buffer)


class MemoryPool:
    """CuPy's: memory of arrays that are gone goes to the next array of its size, and belongs to the pool for good.

    With the pool goes its memory, even where there are arrays in it, as in CuPy 13.
    """

    keeps = True

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self._free_buffers: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._all: list[np.ndarray[Any, Any]] = []

    def malloc(self, size: int) -> _Chunk:
        if self._free_buffers.get(size):
            buffer = self._free_buffers[size].pop()
        else:
            try:
                buffer = self._allocator(size).mem.buffer
            except CUDARuntimeError:
                self.free_all_blocks()
                buffer = self._allocator(size).mem.buffer
            self._all.append(buffer)
        chunk = _Chunk(self, buffer, size)
        # What an array of a graph holds when it is made is anything, in every run.
        _do(lambda memory: memory.fill(_FILL), np.asarray(chunk))
        return chunk

    def _free(self, address: int, buffer: np.ndarray[Any, Any]) -> None:
        self._free_buffers.setdefault(_chunks[address], []).append(buffer)

    def total_bytes(self) -> int:
        return sum(buffer.size for buffer in self._all)

    def used_bytes(self) -> int:
        return self.total_bytes() - sum(buffer.size for buffers in self._free_buffers.values() for buffer in buffers)

    def free_all_blocks(self) -> None:
        unused = {id(buffer) for buffers in self._free_buffers.values() for buffer in buffers}
        self._give_back([buffer for buffer in self._all if id(buffer) in unused])
        self._all = [buffer for buffer in self._all if id(buffer) not in unused]
        self._free_buffers = {}

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._give_back(self._all)

    @staticmethod
    def _give_back(buffers: list[np.ndarray[Any, Any]]) -> None:
        for buffer in buffers:
            buffer[MARGIN:-MARGIN] = _FILL
            address = buffer.ctypes.data + MARGIN
            if _chunks.pop(address, None) is not None:
                _addresses.remove(address)


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where the driver has no memory left, among other things."""


class Memory:
    """A piece of the driver's."""

    def __init__(self, size: int) -> None:
        self.buffer = _new_buffer(size)


class MemoryPointer:
    def __init__(self, mem: Memory, offset: int) -> None:
        assert offset == 0
        self.mem = mem


class _DefaultPool(MemoryPool):
    """Without reuse, so that a pointer to what is gone shows."""

    def malloc(self, size: int) -> _Chunk:
        return _Chunk(self, _new_buffer(size), size)

    def _free(self, address: int, buffer: np.ndarray[Any, Any]) -> None:
        del _chunks[address]
        _addresses.remove(address)


def _new_buffer(size: int) -> np.ndarray[Any, Any]:
    # Aligned as CuPy's memory is, to 512 bytes.
    buffer = np.full(size + 2 * MARGIN + 512, _FILL, np.uint8)
    start = MARGIN + -(buffer.ctypes.data + MARGIN) % 512
    buffer = buffer[start - MARGIN : start + size + MARGIN]
    _buffers.append(buffer)
    return buffer


_pools: list[MemoryPool] = [_DefaultPool()]


@contextlib.contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    _pools.append(_pools[0] if allocator is None else allocator.__self__)
    try:
        yield
    finally:
        _pools.pop()


def get_allocator() -> Any:
    return _pools[-1].malloc


def _chunk_of(address: int) -> int | None:
    """Where the memory begins that an address lies in."""
    at = bisect.bisect_right(_addresses, address) - 1
    if at < 0:
        return None
    start = _addresses[at]
    return start if address < start + max(_chunks[start], 1) else None


# --------------------------------------------------------------------------------------------
# Streams and graphs
# --------------------------------------------------------------------------------------------


class Capture:
    """What a stream that is captured has been given to do."""

    current: Capture | None = None

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.work: list[Callable[[], None]] = []
        self.memory: set[int] = set()
        self.invalid = False

    def record(self, work: Callable[..., Any], *values: Any) -> None:
        """work(*values), where the arrays among the values are known by their addresses alone."""
        views = [_mapped(self._unowned, value) for value in values]
        self.work.append(lambda: work(*views))

    def _unowned(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.uses(array.ctypes.data)
        holder = types.SimpleNamespace(__array_interface__={**array.__array_interface__, "version": 3})
        return np.asarray(holder)

    def uses(self, address: int) -> None:
        start = _chunk_of(address)
        if start is not None:
            self.memory.add(start)


class Graph:
    """What was captured."""

    def __init__(self, capture: Capture) -> None:
        self._work, self._memory = capture.work, capture.memory
        self.launches = 0

    def launch(self, stream: Stream | None = None) -> None:
        refuse("a launch of another graph")
        gone = [address for address in self._memory if address not in _chunks]
        assert not gone, f"a graph uses memory of {len(gone)} arrays that are gone"
        self.launches += 1
        for work in self._work:
            work()


def refuse(what: str) -> None:
    """Raise, as CUDA does, while a stream is captured."""
    if Capture.current is not None:
        Capture.current.invalid = True
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what}")


def _refuse_cublas() -> None:
    if Capture.current is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


def _do(work: Callable[..., Any], *values: Any) -> None:
    """work(*values), now or in every run of the graph."""
    if Capture.current is None:
        work(*values)
    else:
        Capture.current.record(work, *values)


def on_stream(stream: int) -> None:
    """Assert that a launch goes to the stream that is captured, if one is."""
    if Capture.current is not None:
        assert stream == Capture.current.stream.ptr, "a launch on another stream than the captured one"


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        pass


class Stream:
    """Does at once what it is given."""

    _numbers = itertools.count(0x1000, 0x1000)
    _entered: ClassVar[list[Stream]] = []

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0 if null else next(Stream._numbers)
        self.non_blocking = non_blocking

    def __enter__(self) -> Self:
        Stream._entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert Stream._entered.pop() is self

    ptds: ClassVar[Any] = types.SimpleNamespace(ptr=2)  # of each thread, by one address for all of them

    def synchronize(self) -> None:
        refuse("a wait for the stream")

    def record(self, event: Event | None = None) -> Event:
        refuse("an event that nothing in the graph waits for")
        return event or Event()

    def wait_event(self, event: Event) -> None:
        refuse("a wait for what is not in the graph")

    def begin_capture(self, mode: int | None = None) -> None:
        assert self.ptr, "cannot capture on the default (legacy) stream"
        assert Capture.current is None
        Capture.current = Capture(self)

    def end_capture(self) -> Graph:
        capture, Capture.current = Capture.current, None
        assert capture is not None
        assert capture.stream is self
        if capture.invalid:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return Graph(capture)


_null_stream = Stream(null=True)


def get_current_stream() -> Stream:
    return Stream._entered[-1] if Stream._entered else _null_stream


class Extension(types.ModuleType):
    """The module _cuda, whose launches a capture puts down."""

    def __init__(self, module: Any) -> None:
        super().__init__("fastlstm._cuda")
        self._module = module
        if hasattr(module, "SequencePass"):
            self.SequencePass = _recorded_pass(module.SequencePass)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._module, name)
        if not callable(member):
            return member

        def call(*arguments: Any, **options: Any) -> Any:
            if Capture.current is None or "stream" not in options:
                return member(*arguments, **options)
            on_stream(options["stream"])
            for value in _numbers_in(list(options.values())):
                Capture.current.uses(value)
            Capture.current.work.append(lambda: member(*arguments, **options))
            return None

        return call


def _numbers_in(value: Any) -> Iterator[int]:
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _numbers_in(entry)
    elif type(value) is int:
        yield value


def _recorded_pass(kind: Any) -> Any:
    class SequencePass(kind):  # type: ignore[misc]
        def run(self, addresses: dict[str, int], workspace: int, stream: int) -> None:
            if Capture.current is None:
                super().run(addresses, workspace, stream)
                return
            on_stream(stream)
            for address in (*addresses.values(), workspace):
                Capture.current.uses(address)
            run = super().run
            Capture.current.work.append(lambda: run(addresses, workspace, stream))

    return SequencePass


# --------------------------------------------------------------------------------------------
# Arrays
# --------------------------------------------------------------------------------------------


class _Pointer:
    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.ptr = array.ctypes.data


class Device:
    """Also the context that makes it the current one."""

    compute_capability = "90"
    _entered: ClassVar[list[int]] = [0]

    def __init__(self, number: int | None = None) -> None:
        self.id = Device._entered[-1] if number is None else number

    def __enter__(self) -> Self:
        Device._entered.append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        assert Device._entered.pop() == self.id

    def synchronize(self) -> None:
        refuse("a wait for the device")


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801
    """Wraps a numpy array."""

    def __init__(self, host: np.ndarray[Any, Any], device: int | None = None) -> None:
        self.host = host
        self.device = Device(device)

    dtype = property(lambda self: self.host.dtype)
    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
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
        if any(isinstance(part, np.ndarray) for part in parts):
            return _made(lambda host, chosen: host[tuple(chosen)], self.host, list(parts))
        return ndarray(self.host[(*parts, ...) if ... not in parts else parts], self.device.id)

    def __setitem__(self, index: Any, value: Any) -> None:
        assert isinstance(value, ndarray) or np.ndim(value) == 0, "a host array in a GPU's"
        chosen = _index(index)
        parts = list(chosen) if isinstance(chosen, tuple) else [chosen]

        def store(host: Any, parts: list[Any], value: Any) -> None:
            host[tuple(parts)] = value

        _do(store, self.host, parts, _unwrapped(value))

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self.host.view(dtype), self.device.id)

    def reshape(self, *shape: Any) -> ndarray:
        return self._view_or_copy(lambda host: host.reshape(*shape))

    def ravel(self) -> ndarray:
        return self._view_or_copy(lambda host: host.ravel())

    def _view_or_copy(self, change: Callable[[Any], Any]) -> ndarray:
        changed = change(self.host)
        return ndarray(changed, self.device.id) if np.may_share_memory(changed, self.host) else _made(change, self.host)

    def swapaxes(self, first: int, second: int) -> ndarray:
        return ndarray(self.host.swapaxes(first, second), self.device.id)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        return _made(lambda host: host.astype(dtype), self.host)

    def fill(self, value: float) -> None:
        _do(lambda host: host.fill(value), self.host)

    def copy(self, order: str = "C") -> ndarray:
        return _made(lambda host: host, self.host)

    def _method(name: str) -> Any:  # type: ignore[misc] # noqa: N805
        def method(self: ndarray, *arguments: Any, **options: Any) -> ndarray:
            return _made(
                lambda host, arguments: getattr(host, name)(*arguments, **options),
                self.host,
                [_unwrapped(argument) for argument in arguments],
            )

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
        if ufunc is np.matmul:
            _refuse_cublas()
        given = [_unwrapped(value) for value in inputs]
        if out is not None:  # augmented assignment
            _do(lambda target, given: ufunc(*given, out=target, **options), out[0].host, given)
            return out[0]
        return _made(lambda given: ufunc(*given, **options), given)

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Any:
        """Functions of CuPy's under the same names."""
        if function is np.may_share_memory:
            return np.may_share_memory(*map(_unwrapped, arguments), **options)
        assert function is np.zeros_like, f"numpy.{function.__name__} of a GPU's array"
        return _made(lambda given: function(*given, **options), [_unwrapped(argument) for argument in arguments])

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def _read(self) -> np.ndarray[Any, Any]:
        refuse("a value that is read on the host")
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


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """value with all arrays of numpy in it changed, in lists and dicts too."""
    if isinstance(value, np.ndarray):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(change, entry) for entry in value)
    if isinstance(value, dict):
        return {name: _mapped(change, entry) for name, entry in value.items()}
    return value


def _made(function: Callable[..., Any], *values: Any) -> ndarray:
    """A new array of what function(*values) returns, now or in every run of the graph."""
    if Capture.current is None:
        return _new(np.asarray(function(*values)))
    with np.errstate(all="ignore"):
        like = np.asarray(function(*(_mapped(np.zeros_like, value) for value in values)))  # for its shape
    made = empty(like.shape, like.dtype)

    def store(target: Any, *values: Any) -> None:
        target[...] = function(*values)

    _do(store, made.host, *values)
    return made


def _new(values: np.ndarray[Any, Any] | np.generic) -> ndarray:
    array = empty(np.shape(values), values.dtype)
    array.host[...] = values
    return array


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    shape = (shape,) if isinstance(shape, int) else shape
    bytes_ = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    chunk = _pools[-1].malloc(bytes_)
    return ndarray(np.asarray(chunk).view(dtype).reshape(shape))


def empty_like(array: ndarray) -> ndarray:
    return empty(array.shape, array.dtype)


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
    refuse("a copy from the host's memory")
    Traffic.to_device += 1
    return _new(np.asarray(array))


def copy(array: ndarray) -> ndarray:
    return array.copy()


def asnumpy(array: ndarray) -> np.ndarray[Any, Any]:
    refuse("a copy to the host")
    Traffic.to_host += 1
    return array.host.copy()


def ascontiguousarray(array: ndarray) -> ndarray:
    return _made(lambda host: host, array.host)


def _function(name: str) -> Any:
    """numpy's function of the name, for a GPU's arrays only."""
    of_numpy = getattr(np, name)

    def function(*arguments: Any, out: ndarray | None = None, **options: Any) -> Any:
        if name == "einsum":
            _refuse_cublas()
        values = [_on_gpu(argument) for argument in arguments]
        options = {option: _on_gpu(value) for option, value in options.items()}
        if out is not None:
            _do(lambda target, values, options: of_numpy(*values, out=target, **options), out.host, values, options)
            return out
        if name == "may_share_memory":
            return of_numpy(*values, **options)
        return _made(lambda values, options: np.asarray(of_numpy(*values, **options)), values, options)

    return function


def _on_gpu(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (ndarray, np.ndarray)) for entry in value):
        return [_on_gpu(entry) for entry in value]
    assert not isinstance(value, np.ndarray), "a function of CuPy is given a host array"
    return _unwrapped(value)


def broadcast_to(array: ndarray, shape: tuple[int, ...]) -> ndarray:
    return ndarray(np.broadcast_to(array.host, shape), array.device.id)


FUNCTIONS = (
    "abs arange argpartition argsort concatenate count_nonzero einsum exp full log log1p may_share_memory maximum "
    "minimum ones repeat sort sqrt square stack sum take_along_axis tanh where zeros zeros_like"
)


def matmul(a: ndarray, b: ndarray, *, out: ndarray | None = None) -> ndarray:
    _refuse_cublas()
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
    _refuse_cublas()
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
    device = module("cupy.cuda.device", get_cublas_handle=lambda: 1)
    runtime = module("cupy.cuda.runtime", runtimeGetVersion=lambda: 13000, CUDARuntimeError=CUDARuntimeError)
    names = "Device Event Graph Memory MemoryPointer MemoryPool Stream alloc_pinned_memory get_allocator"
    names += " get_current_stream using_allocator"
    members = {name: globals()[name] for name in names.split()}
    cuda = module("cupy.cuda", device=device, runtime=runtime, **members)
    names = "ndarray empty empty_like asarray copy asnumpy ascontiguousarray broadcast_to matmul"
    members = {name: globals()[name] for name in names.split()}
    members |= {name: _function(name) for name in FUNCTIONS.split()}
    cupy = module("cupy", cuda=cuda, cublas=cublas, _core=core, **members)
    made = {
        "cupy": cupy,
        "cupy.cuda": cuda,
        "cupy.cuda.device": device,
        "cupy.cuda.runtime": runtime,
        "cupy.cublas": cublas,
        "cupy._core": core,
        "cupy._core._routines_linalg": linalg,
    }
    names = "cupy_backends cupy_backends.cuda cupy_backends.cuda.libs cupy_backends.cuda.libs.cublas"
    return made | {name: module(name) for name in names.split()}


@contextlib.contextmanager
def compute_type(value: int) -> Iterator[None]:
    """As if the user had chosen it for all products."""
    before = get_compute_type(np.float32)
    set_compute_type(np.float32, value)
    try:
        yield
    finally:
        set_compute_type(np.float32, before)


# --------------------------------------------------------------------------------------------
# cuBLAS
# --------------------------------------------------------------------------------------------


class Cublas:
    """libcublas on the host's memory: what `fastlstm.backends.cuda.cublas` calls, by its definition.

    The functions are C functions of the prototypes that the module under test gives them.
    """

    def __init__(self, prototypes: dict[str, Sequence[Any]]) -> None:
        self.handles: dict[int, dict[str, int]] = {}
        self.products: list[dict[str, Any]] = []
        self.status = 0  # of the next product
        self._functions = {
            name: ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(getattr(self, f"_{name}"))
            for name, arguments in prototypes.items()
        }

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_functions"][name]
        except KeyError:
            raise AttributeError(name) from None

    def _cublasCreate_v2(self, handle: Any) -> int:
        number = len(self.handles) + 1
        self.handles[number] = {"stream": 0, "workspace": 0}
        handle[0] = number
        return 0

    def _cublasSetStream_v2(self, handle: int, stream: int | None) -> int:
        self.handles[handle] = {"stream": stream or 0, "workspace": 0}
        return 0

    def _cublasSetWorkspace_v2(self, handle: int, workspace: int, size: int) -> int:
        if workspace % 256 or _chunk_of(workspace) != workspace or _chunks[workspace] < size:
            return 7
        self.handles[handle]["workspace"] = workspace
        return 0

    def _cublasGemmStridedBatchedEx(
        self, handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a: int, type_a: int, lda: int,
        stride_a: int, b: int, type_b: int, ldb: int, stride_b: int, beta: int, c: int, type_c: int, ldc: int,
        stride_c: int, count: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        size = 8 if type_c == 1 else 4
        for i in range(count):
            status = self._cublasGemmEx(
                handle, op_a, op_b, m, n, k, alpha, a + i * stride_a * size, type_a, lda, b + i * stride_b * size,
                type_b, ldb, beta, c + i * stride_c * size, type_c, ldc, compute, algorithm,
            )  # fmt: skip
            if status:
                return status
        return 0

    def _cublasGemmEx(
        self, handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a: int, type_a: int, lda: int,
        b: int, type_b: int, ldb: int, beta: int, c: int, type_c: int, ldc: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        """C (m, n) = alpha op(A) op(B) + beta C, all of them stored by columns, which lie ld apart."""
        state = self.handles[handle]
        if self.status or not state["workspace"] or state["stream"] != get_current_stream().ptr:
            status, self.status = self.status or 1, 0
            return status
        kinds = {0: np.float32, 1: np.float64}
        dtype, of_alpha = kinds.get(type_a), {68: np.float32, 77: np.float32, 70: np.float64}.get(compute)
        shapes = [(k, m) if op_a else (m, k), (n, k) if op_b else (k, n), (m, n)]
        if (
            dtype is None or not type_a == type_b == type_c or of_alpha is not dtype or algorithm != -1
            or any(ld < max(1, rows) for (rows, _), ld in zip(shapes, (lda, ldb, ldc), strict=True))
        ):  # fmt: skip
            return 7

        def columns(address: int, shape: tuple[int, int], ld: int) -> Any:
            size = np.dtype(dtype).itemsize
            interface = {"data": (address, False), "shape": shape, "strides": (size, ld * size), "version": 3}
            holder = types.SimpleNamespace(__array_interface__={**interface, "typestr": np.dtype(dtype).str})
            return np.asarray(holder)

        matrices = [columns(*of) for of in zip((a, b, c), shapes, (lda, ldb, ldc), strict=True)]
        factors = [float(columns(address, (1, 1), 1)[0, 0]) for address in (alpha, beta)]
        self.products.append({"addresses": (a, b, c), "compute": compute, "handle": handle, **state})

        def multiply(left: Any, right: Any, out: Any) -> None:
            left, right = (np.ascontiguousarray(x.T if op else x) for x, op in ((left, op_a), (right, op_b)))
            if compute == 77:
                left, right = rounded_to_tf32(left), rounded_to_tf32(right)
            made = dtype(factors[0]) * (left @ right)
            out[...] = made if factors[1] == 0 else made + dtype(factors[1]) * out

        if Capture.current is not None:
            Capture.current.uses(state["workspace"])
        _do(multiply, *matrices)
        return 0


def install(patch: Any, extension: Any) -> Any:
    """Put CuPy, cuBLAS and _cuda in their places; returns ``cupy``. Importing the backend anew is the caller's."""
    stand_ins = modules()
    for name, stand_in in stand_ins.items():
        patch.setitem(sys.modules, name, stand_in)
    patch.setitem(sys.modules, "fastlstm._cuda", extension)
    patch.setattr(importlib.import_module("fastlstm"), "_cuda", extension, raising=False)
    cublas = importlib.import_module("fastlstm.backends.cuda.cublas")
    library = Cublas(cublas.PROTOTYPES)
    patch.setattr(cublas, "open_library", lambda: library)
    patch.setattr(cublas, "WORKSPACE_BYTES", 1 << 12)  # nothing is done there
    return stand_ins["cupy"]
