"""Tables with named columns, as texts and as numbers."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.datasets import read_columns, read_series

TABLE = 'id,review, label \n1,"good, ""really""\nvery good",pos\n2,dull,neg\n\n3,,pos\n'
WANT = {"label": ["pos", "neg", "pos"], "review": ['good, "really"\nvery good', "dull", ""]}


def test_columns_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    for content in (
        TABLE.encode(),
        b"\xef\xbb\xbf" + TABLE.encode().replace(b"\n", b"\r\n"),
        gzip.compress(TABLE.encode()),
    ):
        path.write_bytes(content)
        assert read_columns(path, ["label", "review"]) == WANT
    assert read_columns(path, ["id"], limit=2) == {"id": ["1", "2"]}
    for delimiter in ";\t|":
        path.write_text(f"a{delimiter}b\n1,5{delimiter}2\n")
        assert read_columns(path, ["b", "a"]) == {"b": ["2"], "a": ["1,5"]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TABLE.encode())))
    assert read_columns("-", ["label"]) == {"label": WANT["label"]}


def test_a_series_is_a_row_a_step(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("day;x;y\nmon;1; 2.5\ntue;-3e2;0\n")
    series = read_series(path, ["y", "x"])
    assert series.dtype == np.float64
    np.testing.assert_array_equal(series, [[2.5, 1], [0, -300]])


@pytest.mark.parametrize(
    ("content", "columns", "error", "message"),
    [
        ("a,b\n1,2\n", ["c"], ValueError, "t.csv has no column 'c'; its columns are 'a', 'b'"),
        ("a,a\n1,2\n", ["a"], ValueError, "has several columns 'a'"),
        ("a,b\n1,2\n3\n", ["a"], ValueError, "line 3: 1 fields, expected 2, one for each column"),
        ('a,b\n1,"2\n', ["a"], ValueError, "line 2: unexpected end of data"),
        ("a,b\n", ["a"], ValueError, "has no rows below the names"),
        ("", ["a"], ValueError, "t.csv is empty"),
        ("a\n1\n", "a", TypeError, r"columns is the string 'a', expected .*\['a'\]"),
        ("a,b\n1,\n", ["b"], ValueError, "row 1 of column 'b': '' is no finite number; fill what is missing"),
        ("a,b\n1,2\n1,inf\n", ["b"], ValueError, "row 2 of column 'b': 'inf' is no finite number"),
    ],
)
def test_tables_that_do_not_fit(
    content: str, columns: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(error, match=message):
        read_series(tmp_path / "t.csv", columns)
