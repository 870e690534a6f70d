"""What is installed: version, entry point, types, and the README that goes with it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastlstm

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def test_version_is_that_of_the_installed_package() -> None:
    assert importlib.metadata.version("fastlstm") == fastlstm.__version__


def test_types_and_stubs_are_installed() -> None:
    files = {entry.name for entry in importlib.resources.files("fastlstm").iterdir()}
    assert {"py.typed", "_cpu.pyi", "_cuda.pyi"} <= files


def test_the_command_is_installed() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="fastlstm")
    assert entry.value == "fastlstm.cli:main"
    assert callable(entry.load())


def test_the_extension_is_there_where_it_has_to_be() -> None:
    if os.environ.get("FASTLSTM_REQUIRE_EXTENSIONS", "0") in ("", "0"):
        pytest.skip("FASTLSTM_REQUIRE_EXTENSIONS is not set")
    assert "cpp" in fastlstm.available_backends()


def test_the_extension_for_gpus_is_there_where_nvcc_is() -> None:
    if os.environ.get("FASTLSTM_REQUIRE_EXTENSIONS", "0") in ("", "0") or shutil.which("nvcc") is None:
        pytest.skip("FASTLSTM_REQUIRE_EXTENSIONS is not set, or there is no nvcc")
    extension = importlib.import_module("fastlstm._cuda")
    reason = extension.why_not()
    assert reason is None or re.search(r"driver|GPU", reason)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")
def test_the_extension_for_gpus_links_no_library_of_cuda() -> None:
    """A machine without a driver, or with CuPy's CUDA libraries only, imports it too."""
    extension = pytest.importorskip("fastlstm._cuda", reason="the extension _cuda is not built")
    listing = subprocess.run(["readelf", "-d", extension.__file__], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", listing)
    assert needed
    assert not [name for name in needed if re.match(r"lib(cu|nv)", name)]


def test_extras_name_what_they_bring() -> None:
    requirements = importlib.metadata.requires("fastlstm") or []
    always = {re.split(r"[ <>=;\[]", line)[0] for line in requirements if "extra ==" not in line}
    assert always == {"numpy", "safetensors", "threadpoolctl", "tqdm"}
    extras = importlib.metadata.metadata("fastlstm").get_all("Provides-Extra")
    brought = {"numba", "cuda12", "cuda13", "torch", "train", "bleu", "mpi", "japanese", "data", "onnx", "keras"}
    assert set(extras or []) == {*brought, "test", "bench"}


@pytest.mark.skipif(not README.exists(), reason="the README is not beside the tests")
def test_the_example_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not README.exists(), reason="the README is not beside the tests")
def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


# --------------------------------------------------------------------------------------------
# Building: what works without a compiler, and what fails
# --------------------------------------------------------------------------------------------

# Passes on to the compiler, but for one of our files.
DIES_IN_ONE_FILE = """#!/bin/sh
case "$*" in *csrc/cpu/gemm/dense.cc*) exit 1;; esac
exec {compiler} "$@"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs."""
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    if not (ROOT / "CMakeLists.txt").exists() or shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("the source tree is not beside the tests, or there is no CMake or ninja")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("csrc", "src"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tree


def _start_build(tree: Path, target: Path, **environment: str) -> subprocess.Popen[str]:
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("FASTLSTM", "SKBUILD"))}
    code = f"import scikit_build_core.build as backend; backend.build_wheel({str(target)!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**settings, "SKBUILD_CMAKE_DEFINE": "FASTLSTM_CUDA=OFF", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _files(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*"))


def test_two_builds_at_once_without_a_compiler_give_python_alone(tree: Path, tmp_path: Path) -> None:
    """And they leave nothing in the tree, where they could meet, and which may be read-only."""
    before = _files(tree)
    targets = tmp_path / "one", tmp_path / "other"
    builds = [_start_build(tree, target, CXX="/bin/false") for target in targets]
    for build, target in zip(builds, targets, strict=True):
        output, _ = build.communicate(timeout=120)
        assert build.returncode == 0, output
        assert "no C++20 compiler works here" in output
        (wheel,) = target.glob("fastlstm-*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert "fastlstm/__init__.py" in names
        assert not [name for name in names if name.endswith(".so")]
    assert _files(tree) == before


def test_without_a_compiler_a_build_that_needs_one_fails(tree: Path, tmp_path: Path) -> None:
    build = _start_build(tree, tmp_path, CXX="/bin/false", FASTLSTM_REQUIRE_EXTENSIONS="1")
    output, _ = build.communicate(timeout=120)
    assert build.returncode == 1
    assert "is not able to compile a simple test program" in output
    assert not list(tmp_path.iterdir())


def test_builds_do_not_look_for_modules(tree: Path, tmp_path: Path) -> None:
    """Of C++20, by clang-scan-deps, which is often not there: clang 16 and newer then counted as no compiler."""
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed")
    compilers = [found for n in range(30, 15, -1) if (found := shutil.which(f"clang++-{n}"))]
    if not (compilers or shutil.which("c++")):
        pytest.skip("no C++ compiler")
    folders = [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run(
        ["cmake", "-S", tree, "-B", tmp_path, "-G", "Ninja", "-DSKBUILD=ON", "-DFASTLSTM_CUDA=OFF", *folders],
        env={**os.environ, "FASTLSTM_REQUIRE_EXTENSIONS": "1", **({"CXX": compilers[0]} if compilers else {})},
        check=True,
    )
    assert ".ddi" not in (tmp_path / "build.ninja").read_text()


@pytest.mark.slow
def test_a_compiler_that_dies_in_one_file_fails_the_build(tree: Path, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    pytest.importorskip("pybind11", reason="pybind11 is not installed")
    wrapper = tmp_path / "compiler"
    wrapper.write_text(DIES_IN_ONE_FILE.format(compiler=compiler))
    wrapper.chmod(0o755)
    build = _start_build(tree, tmp_path / "wheels", CXX=str(wrapper))
    output, _ = build.communicate(timeout=600)
    assert build.returncode == 1, output
    assert "csrc/cpu/gemm/dense.cc" in output
    assert not list((tmp_path / "wheels").glob("*.whl"))
