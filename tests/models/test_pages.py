"""Pages of docs/: their blocks of code run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fastlstm.models import RowModel

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="the pages are not beside the tests")
@pytest.mark.parametrize("page", ["own_model", "tagging"])
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {"__name__": page})


@pytest.mark.skipif(not DOCS.exists(), reason="the pages are not beside the tests")
def test_dates_are_read_with_attention_as_the_page_says() -> None:
    block = (DOCS / "translation.md").read_text().split("```python\n")[-1].split("```")[0]
    assert {"50_000", "epochs=10"} <= {*re.findall(r"50_000|epochs=10", block)}
    names: dict[str, Any] = {}
    exec(block.replace("50_000", "300").replace("epochs=10", "epochs=1, verbose=0"), names)
    assert names["weights"].shape == (10, 29)


@pytest.mark.skipif(not DOCS.exists(), reason="the pages are not beside the tests")
def test_a_model_has_what_the_page_says() -> None:
    table = re.findall(r"^\| (`.*?) \|", (DOCS / "own_model.md").read_text(), re.MULTILINE)
    named = [name for cell in table for name in re.findall(r"`(\w+)", cell)]
    assert {"check_batch", "forward", "_backward", "loss_count", "vocabulary_names"} <= {*named}
    assert not [name for name in named if not hasattr(RowModel, name)]
