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
    assert set(extras or []) == {"numba", "cuda12", "cuda13", "train", "bleu", "test", "bench"}


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
