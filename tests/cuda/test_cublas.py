"""Products by our own handle of cuBLAS: its arguments, with a library that computes what cuBLAS is defined to."""

from __future__ import annotations

import ctypes
import gc
import importlib
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy_as_cupy
import pytest
from numpy_as_cupy import Cublas, Stream

import fastlstm
from fastlstm import backends

COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in list(sys.modules):
        if name.startswith("fastlstm.backends.cuda"):
            monkeypatch.delitem(sys.modules, name)
    kernels = types.SimpleNamespace(why_not=lambda: None)
    yield numpy_as_cupy.install(monkeypatch, numpy_as_cupy.Extension(kernels))
    numpy_as_cupy.check_margins()
    backends.why_not.cache_clear()


@pytest.fixture
def cublas(cupy: Any) -> Any:
    return importlib.import_module("fastlstm.backends.cuda.cublas")


@pytest.fixture
def products(cupy: Any) -> Any:
    return importlib.import_module("fastlstm.backends.cuda.products")


# How a matrix may lie in memory; the first ones without a copy.
Layout = Callable[[Any, Any], Any]
AS_THEY_LIE: dict[str, Layout] = {
    "rows": lambda cupy, x: cupy.asarray(x),
    "transposed": lambda cupy, x: cupy.asarray(np.ascontiguousarray(x.T)).T,
    "some columns": lambda cupy, x: cupy.asarray(np.pad(x, ((0, 0), (2, 3))))[:, 2 : 2 + x.shape[1]],
    "some columns, transposed": lambda cupy, x: cupy.asarray(np.pad(x.T, ((0, 0), (1, 2))))[:, 1 : 1 + x.shape[0]].T,
    "every other row": lambda cupy, x: cupy.asarray(np.repeat(x, 2, axis=0))[::2],
}
COPIED: dict[str, Layout] = {
    "every other column": lambda cupy, x: cupy.asarray(np.repeat(x, 2, axis=1))[:, ::2],
    "from the end": lambda cupy, x: cupy.asarray(x[::-1].copy())[::-1],
}
SHAPES = [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (6, 2, 9)]


def drawn(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout_of_out", AS_THEY_LIE | COPIED)
def test_every_layout(cupy: Any, cublas: Any, dtype: str, layout_of_out: str) -> None:
    layouts = AS_THEY_LIE | COPIED
    for M, K, X in SHAPES if layout_of_out == "rows" else SHAPES[:2]:
        a, b, before = drawn(M, K, dtype=dtype), drawn(K, X, dtype=dtype), drawn(M, X, dtype=dtype)
        for of_a in layouts.values():
            for of_b in layouts.values():
                out = layouts[layout_of_out](cupy, before)
                for times in (1, 2):
                    cublas.gemm(of_a(cupy, a), of_b(cupy, b), out, precision=dtype, accumulate=times == 2)
                    assert np.abs(out.host - times * (a @ b)).max() < (1e-5 if dtype == "float32" else 1e-13)


def test_only_what_cublas_cannot_read_is_copied(cupy: Any, cublas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    real = numpy_as_cupy.ndarray.copy

    def copy(array: Any, order: str = "C") -> Any:
        copies.append(array.shape)
        return real(array, order)

    monkeypatch.setattr(numpy_as_cupy.ndarray, "copy", copy)
    a, b = drawn(3, 4), drawn(4, 5)
    for of_a in AS_THEY_LIE.values():
        for of_b in AS_THEY_LIE.values():
            for of_out in AS_THEY_LIE.values():
                arrays = of_a(cupy, a), of_b(cupy, b), of_out(cupy, drawn(3, 5))
                cublas.gemm(*arrays, precision="float64")
                addresses = cublas.library().products[-1]["addresses"]
                assert set(addresses) == {array.data.ptr for array in arrays}
                assert addresses[2] == arrays[2].data.ptr
    assert not copies
    for layout in COPIED.values():
        cublas.gemm(layout(cupy, a), cupy.asarray(b), cupy.asarray(drawn(3, 5)), precision="float64")
    assert len(copies) == 2


def test_operands_of_a_single_row_or_column_overlap_nothing(cupy: Any, cublas: Any) -> None:
    """A broadcast row has a stride of 0, which cuBLAS does not take."""
    row = cupy.broadcast_to(cupy.asarray(drawn(1, 4)), (3, 4))
    out = cupy.empty((3, 2))
    cublas.gemm(row, cupy.asarray(drawn(4, 2)), out, precision="float64")
    np.testing.assert_allclose(out.host, row.host @ drawn(4, 2))


def test_nothing_to_multiply(cupy: Any, cublas: Any) -> None:
    for M, K, X in ((0, 3, 2), (3, 3, 0), (0, 0, 0)):
        cublas.gemm(cupy.empty((M, K)), cupy.empty((K, X)), cupy.empty((M, X)), precision="float64")
    out = cupy.asarray(drawn(2, 3))
    cublas.gemm(cupy.empty((2, 0)), cupy.empty((0, 3)), out, precision="float64", accumulate=True)
    np.testing.assert_array_equal(out.host, drawn(2, 3))
    cublas.gemm(cupy.empty((2, 0)), cupy.empty((0, 3)), out, precision="float64")
    assert not out.host.any()
    assert not cublas.library().products


def test_batches(cupy: Any, products: Any) -> None:
    for dtype in (np.float32, np.float64):
        a, b = drawn(5, 3, 4, dtype=dtype), drawn(5, 4, 2, dtype=dtype)
        transposed = [cupy.asarray(np.ascontiguousarray(x.swapaxes(1, 2))).swapaxes(1, 2) for x in (a, b)]
        for left in (cupy.asarray(a), transposed[0], cupy.asarray(np.pad(a, ((0, 0), (0, 0), (1, 1))))[:, :, 1:-1]):
            for right in (cupy.asarray(b), transposed[1]):
                got = products.batched_product(left, right)
                np.testing.assert_allclose(got.host, a @ b, rtol=1e-4)
    assert products.batched_product(cupy.empty((0, 3, 4)), cupy.empty((0, 4, 2))).shape == (0, 3, 2)


def test_the_precision_is_what_the_caller_named(cupy: Any, cublas: Any, products: Any) -> None:
    a, b = (cupy.asarray(drawn(*shape, dtype=np.float32)) for shape in ((3, 4), (4, 5)))
    sums = cupy.empty((4, 3), np.float32)
    seen = cublas.library().products
    with numpy_as_cupy.compute_type(numpy_as_cupy.COMPUTE_TYPE_TF32):
        for precision, compute in (("float32", COMPUTE_32F), ("tf32", COMPUTE_TF32), ("bf16", COMPUTE_TF32)):
            with products.products_in(precision):
                products.product(a, b)
                assert seen[-1]["compute"] == compute
                with products.products_in("float32"):
                    products.product(a, b)
                assert seen[-1]["compute"] == COMPUTE_32F
                products.product(a, b)
                assert seen[-1]["compute"] == compute
                products.add_transposed_product(a, a[:, :3], sums, first=True)
                assert seen[-1]["compute"] == compute
        assert numpy_as_cupy.get_compute_type(np.float32) == numpy_as_cupy.COMPUTE_TYPE_TF32
    products.product(a.astype(np.float64), b.astype(np.float64))
    assert seen[-1]["compute"] == COMPUTE_64F


def test_a_workspace_for_every_stream_and_a_handle_for_every_thread(cupy: Any, cublas: Any, products: Any) -> None:
    """The library refuses a product without a workspace, and on another stream than the current one."""
    a, b = cupy.asarray(drawn(3, 4)), cupy.asarray(drawn(4, 5))
    seen = cublas.library().products
    streams = [Stream(non_blocking=True) for _ in range(2)]
    for stream in (*streams, *streams):
        with stream:
            products.product(a, b)
    products.product(a, b)
    assert [product["stream"] for product in seen] == [*(stream.ptr for stream in (*streams, *streams)), 0]
    first, second = (product["workspace"] for product in seen[:2])
    assert [product["workspace"] for product in seen[2:4]] == [first, second]
    assert len({first, second, seen[4]["workspace"]}) == 3
    own = cublas.new_workspace()
    with streams[0]:
        with cublas.workspace_of(0, own):
            products.product(a, b)
            assert seen[-1]["workspace"] == own.data.ptr
        products.product(a, b)
        assert seen[-1]["workspace"] == first
    thread = threading.Thread(target=products.product, args=(a, b))
    thread.start()
    thread.join()
    assert len({product["handle"] for product in seen}) == 2


def test_a_handle_of_a_thread_that_has_ended_is_used_again(cupy: Any, cublas: Any, products: Any) -> None:
    """Two threads at a time have two; eight one after the other have one, and no workspace is kept for them."""
    a, b = cupy.asarray(drawn(3, 4)), cupy.asarray(drawn(4, 5))
    workspaces: list[Any] = []
    real = cublas.new_workspace

    def new_workspace() -> Any:
        made = real()
        workspaces.append(weakref.ref(made))
        return made

    cublas.new_workspace = new_workspace
    for _ in range(8):
        thread = threading.Thread(target=products.product, args=(a, b))
        thread.start()
        thread.join()
        gc.collect()
    assert len(cublas.library().handles) == 1
    assert len(workspaces) == 8
    assert not any(workspace() for workspace in workspaces)


def test_a_product_that_fails_says_why(cupy: Any, cublas: Any, products: Any) -> None:
    a, b = cupy.asarray(drawn(3, 4)), cupy.asarray(drawn(4, 5))
    for status, text in (
        (13, "cublasGemmEx failed: CUBLAS_STATUS_EXECUTION_FAILED: a kernel failed"),
        (99, "status 99"),
    ):
        cublas.library().status = status
        with pytest.raises(cublas.CublasError, match=text):
            products.product(a, b)
    products.product(a, b)


def test_without_the_library_cupy_multiplies(
    cupy: Any, cublas: Any, products: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Any:
        raise OSError("libcublas.so.13: cannot open shared object file")

    monkeypatch.setattr(cublas, "open_library", missing)
    assert "libcublas.so.13: cannot open" in cublas.why_not()
    a, b = drawn(3, 4), drawn(4, 5)
    with products.products_in("float64"):
        np.testing.assert_allclose(products.product(cupy.asarray(a), cupy.asarray(b)).host, a @ b)
    left, right = drawn(2, 3, 4), drawn(2, 4, 5)
    np.testing.assert_allclose(products.batched_product(cupy.asarray(left), cupy.asarray(right)).host, left @ right)
    for sums in (cupy.asarray(drawn(4, 3)), cupy.asarray(drawn(3, 4)).T):
        products.add_transposed_product(cupy.asarray(a), cupy.asarray(a[:, :3]), sums, first=True)
        products.add_transposed_product(cupy.asarray(a), cupy.asarray(a[:, :3]), sums, first=False)
        np.testing.assert_allclose(sums.host, 2 * a.T @ a[:, :3])
    backends.why_not.cache_clear()
    fastlstm.show_config()
    assert "no CUDA graphs, because products go through CuPy's handles: the cuBLAS" in capsys.readouterr().out


def test_the_library_is_the_one_that_cupy_has_loaded(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version of CuPy's runtime first: another package may have loaded another one."""
    name = "fastlstm.backends.cuda.cublas"
    monkeypatch.delitem(sys.modules, name)
    cublas: Any = importlib.import_module(name)
    loaded = {"libcublas.so.12", "libcublas.so.11"}
    asked = []

    def opened(name: str, mode: int = 0) -> str:
        asked.append((name, mode))
        if name not in loaded:
            raise OSError(name)
        return name

    monkeypatch.setattr(ctypes, "CDLL", opened)
    monkeypatch.setattr(cupy.cuda.runtime, "runtimeGetVersion", lambda: 12040)
    assert cublas.open_library() == "libcublas.so.12"
    loaded.clear()
    with pytest.raises(OSError, match=r"libcublas\.so\.12"):
        cublas.open_library()
    assert asked[0][1] != 0


class _Finding(types.ModuleType):
    """The package of CuPy 14: a library that pip installed is found when the package is asked for the module."""

    def __init__(self, loaded: set[str], fails: list[Exception]) -> None:
        super().__init__("cupy_backends.cuda.libs")
        self.__dict__["_loaded"], self.__dict__["_fails"] = loaded, fails

    def __getattr__(self, name: str) -> Any:
        if name != "cublas":
            raise AttributeError(name)
        if self._fails:
            raise self._fails[0]
        self._loaded.add("libcublas.so.13")
        return sys.modules["cupy_backends.cuda.libs.cublas"]


@pytest.fixture
def own_search(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, set[str], list[Exception]]:
    """The module as it is, the names of loaded libraries, and an error of CuPy's package, if there is one."""
    loaded: set[str] = set()
    fails: list[Exception] = []
    name = "fastlstm.backends.cuda.cublas"
    monkeypatch.delitem(sys.modules, name)
    cublas: Any = importlib.import_module(name)

    def opened(name: str, mode: int = 0) -> Any:
        if name not in loaded:
            raise OSError(f"{name}: cannot open shared object file")
        return Cublas(cublas.PROTOTYPES)

    monkeypatch.setattr(ctypes, "CDLL", opened)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", _Finding(loaded, fails))
    return cublas, loaded, fails


def test_a_library_of_pip_is_found_as_cupy_14_finds_it(own_search: Any) -> None:
    cublas, loaded, _ = own_search
    assert cublas.why_not() is None
    assert loaded == {"libcublas.so.13"}


def test_a_library_that_cupys_package_does_not_find_may_be_there_all_the_same(
    cupy: Any, own_search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another way, or later: what is missing is not missing for good."""
    cublas, loaded, fails = own_search
    fails.append(ImportError("Failure finding libcublas.so"))

    def handle() -> int:
        raise RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED")

    monkeypatch.setattr(cupy.cuda.device, "get_cublas_handle", handle)
    assert cublas.why_not().startswith("the cuBLAS library that CuPy uses cannot be opened (libcublas.so.13: cannot")
    loaded.add("libcublas.so.13")
    assert cublas.why_not() is not None
    importlib.import_module("fastlstm.backends.cuda.graph").Capture()
    assert importlib.import_module("fastlstm.backends.cuda.cublas") is cublas
    assert cublas.why_not() is None


def test_the_stand_in_refuses_what_cublas_refuses(cublas: Any) -> None:
    assert isinstance(cublas.library(), Cublas)
    assert cublas.library().cublasSetWorkspace_v2(1, 256 * 5 + 1, 10) == 7
