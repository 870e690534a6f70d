"""The numpy backend's products take no more threads than are asked for, and leave their library as it was."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import ops, use_backend
from fastlstm.backends.blas import on_our_threads


@pytest.fixture
def library() -> Iterator[Any]:
    """What counts the threads of numpy's products; they have four."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas")
    # scipy, once another test has imported it, has a library of its own, which stands anywhere in the list.
    known = libraries.lib_controllers
    known = [library for library in known if len(known) == 1 or "numpy" in library.filepath]
    if len(known) != 1:
        pytest.skip("threadpoolctl does not tell the library of numpy's products")
    with libraries.limit(limits=4):
        (library,) = known
        if library.num_threads != 4:
            pytest.skip("the library of numpy's products has one thread only")
        yield library


@pytest.mark.parametrize(("ours", "during"), [(1, 1), (3, 3), (9, 4)])
def test_an_operator_holds_numpy_down(ours: int, during: int, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watching(product: Any) -> Any:
        seen.append(library.num_threads)
        return product

    # What the definition calls behind the product.
    definition = importlib.import_module("fastlstm.backends.numpy.dense")
    monkeypatch.setattr(definition, "np", types.SimpleNamespace(ascontiguousarray=watching))
    fastlstm.set_num_threads(ours)
    with use_backend("numpy"):
        ops.matrix_product(np.ones((3, 4)), np.ones((4, 5)))
    assert seen == [during]
    assert library.num_threads == 4


def test_calls_at_the_same_time_leave_the_threads_of_the_caller(library: Any) -> None:
    started, first_is_done = threading.Event(), threading.Event()
    seen = []

    @on_our_threads
    def second() -> None:
        seen.append(library.num_threads)
        started.set()
        assert first_is_done.wait(10)

    @on_our_threads
    def first() -> None:
        thread.start()
        assert started.wait(10)
        raise ZeroDivisionError

    thread = threading.Thread(target=second)
    fastlstm.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        first()
    first_is_done.set()
    thread.join()
    assert seen == [2]
    assert library.num_threads == 4


def test_without_threadpoolctl_products_run_and_show_config_says_so() -> None:
    code = (
        "import sys; sys.modules['threadpoolctl'] = None\n"
        "import numpy, fastlstm\n"
        "fastlstm.set_backend('numpy')\n"
        "print(fastlstm.ops.matrix_product(numpy.ones((1, 2)), numpy.ones((2, 1))))\n"
        "fastlstm.show_config()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[2.]]")
    assert "OPENBLAS_NUM_THREADS" in done.stdout
