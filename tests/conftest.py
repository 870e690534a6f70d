from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import cuda_emulation
import gpu_stand_in
import pytest
from cuda_cases import SMALL

import fastlstm

HOST_BACKENDS = tuple(name for name in fastlstm.available_backends() if name != "cuda")
COMPILED_BACKENDS = tuple(name for name in HOST_BACKENDS if name != "numpy")

# A child process must see the same settings as a user's, not those of whoever runs the tests.
for variable in ("FASTLSTM_BACKEND", "FASTLSTM_NUM_THREADS"):
    os.environ.pop(variable, None)

# A shell starts what runs in its background with Ctrl-C ignored; here it is pressed.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "cpp" in HOST_BACKENDS:
    # Splits of work among more threads than there are cores, and on a busy machine, are tested too.
    importlib.import_module("fastlstm._cpu").set_teams_always(True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `backend` runs on all that work here; one that takes `compiled_backend` on all but numpy."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", HOST_BACKENDS)
    if "compiled_backend" in metafunc.fixturenames:
        metafunc.parametrize("compiled_backend", COMPILED_BACKENDS)


@pytest.fixture(autouse=True)
def _same_settings_for_every_test() -> Iterator[None]:
    """Put the number of threads back after a test that changes it, and see that the backend is as it was."""
    threads, backend = fastlstm.get_num_threads(), fastlstm.get_backend()
    yield
    now = fastlstm.get_backend()
    if now != backend:
        fastlstm.set_backend(backend)
        pytest.fail(f"the test left the backend at {now!r}; use_backend puts it back")
    if fastlstm.get_num_threads() != threads:
        fastlstm.set_num_threads(threads)


@pytest.fixture(scope="module")
def emulation() -> Iterator[Any]:
    """The module ``_cuda`` of an emulated GPU, which stands beside a stand-in for CuPy where the real ones would."""
    with gpu_stand_in.installed(cuda_emulation.load()):
        yield importlib.import_module("fastlstm._cuda")


@pytest.fixture
def small(emulation: Any) -> Any:
    """The emulated GPU when it is small."""
    emulation.emulate(**SMALL, seed=0)
    return emulation
