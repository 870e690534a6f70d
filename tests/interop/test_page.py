"""docs/interop.md: every block of code runs, behind the first, which has the names that all use."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastlstm import interop

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
TEXT = PAGE.read_text() if PAGE.exists() else ""
FIRST, *BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) or [""]

# What a line needs beside numpy.
NEEDS = {
    "torch": r"import torch|_torch\(|torch_to_",
    "h5py": r"\.keras\"",
    "onnx": r"_onnx\(",
    "onnxruntime": "import onnxruntime",
    "sklearn": "from sklearn",
}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not beside the tests")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_every_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, used in NEEDS.items():
        if re.search(used, block):
            pytest.importorskip(package, reason=f"{package} is not installed")
    shutil.copy(Path(__file__).parent / "data" / "bidirectional.keras", tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(FIRST + block, names)


def test_every_function_is_on_the_page() -> None:
    functions = [name for name in interop.__all__ if name[0].islower() and name != "weights_of"]
    assert len(functions) > 10
    assert not [name for name in functions if name not in TEXT]
