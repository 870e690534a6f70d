"""Compiles the kernels of csrc/cuda for the CPU, once for every state of their sources: csrc/cuda/emulation."""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "csrc" / "cuda"
FILES = sorted(SOURCE.rglob("*.c[cu]"))
# Files that name FASTLSTM_PRECISION are compiled once for each, as CMakeLists.txt has it.
PRECISIONS = ("kFloat32", "kFloat64", "kTf32", "kBf16")
# Without fortification, which takes the jump from one fiber to another for an attack; and without fused multiply-add,
# for the draws of classes, whose bits are fixed.
FLAGS = (
    "-std=c++20 -O1 -fPIC -U_FORTIFY_SOURCE -fvisibility=hidden -ffp-contract=off -Wno-unknown-pragmas "
    "-DFASTLSTM_CUDA_EMULATION -DFASTLSTM_MACHINE_CODE=90 -DFASTLSTM_PTX=90 -x c++"
)
NAME = "_cuda_emulation"


def load() -> ModuleType:
    """The module ``_cuda`` with an emulated GPU, which its function `emulate` describes."""
    path = _built()
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(path))
    spec = importlib.util.spec_from_loader(NAME, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _built() -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler to emulate the CUDA kernels with")
    if not SOURCE.is_dir():
        pytest.skip("the sources of the CUDA kernels are not beside the tests")
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed: no emulation of the CUDA kernels")
    includes = [SOURCE / "emulation", pybind11.get_include(), sysconfig.get_paths()["include"]]
    command = [*compiler.split(), *FLAGS.split(), *(f"-I{folder}" for folder in includes)]
    state = hashlib.sha256(" ".join(map(str, command)).encode())
    for path in sorted([*SOURCE.rglob("*.[ch]*"), *SOURCE.parent.glob("*.h")]):
        state.update(path.read_bytes())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = _cache() / state.hexdigest()[:16] / f"{NAME}{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            _compile(command, Path(scratch), target)
    return target


def _cache() -> Path:
    build = ROOT / "build"
    folder = build if os.access(build if build.exists() else ROOT, os.W_OK) else Path(tempfile.gettempdir())
    return folder / "cuda-emulation"


def _compile(command: list[str], scratch: Path, target: Path) -> None:
    def compile_file(path: Path, precision: str | None) -> Path:
        compiled = scratch / f"{path.parent.name}-{path.name}-{precision}.o"
        define = [] if precision is None else [f"-DFASTLSTM_PRECISION={precision}"]
        _run([*command, *define, "-c", str(path), "-o", str(compiled)])
        return compiled

    units: list[tuple[Path, str | None]] = []
    for path in FILES:
        each = PRECISIONS if "FASTLSTM_PRECISION" in path.read_text() else (None,)
        units += [(path, precision) for precision in each]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_file, *zip(*units, strict=True)))
    linked = scratch / target.name
    _run([command[0], "-shared", *map(str, objects), "-o", str(linked)])
    linked.replace(target)  # at once, in case another process builds the same


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
