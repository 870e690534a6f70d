"""Tables with named columns: CSV files, as texts or as numbers."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.datasets.files import find_file, read_lines

_DELIMITERS = ",;\t|"
_LONGEST_FIELD = 1 << 26  # letters
WHERE_TO_GET_A_TABLE = "A CSV file has the names of its columns in the first line; plain or packed (.xz, .gz, .bz2)"


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], *, limit: int | None = None
) -> dict[str, list[str]]:
    """Columns of a CSV file by their names, as texts.

    Parameters
    ----------
    path : path
        UTF-8, plain or packed (.xz, .gz, .bz2), "-" for stdin; looked for as it stands and below FASTLSTM_DATA_DIR. The
        first line holds the columns' names; between them are commas, semicolons, tabs or "|". Fields with line ends in
        them are in quotes.
    columns : sequence of str
    limit : int, optional
        Only so many rows from the beginning.

    Returns
    -------
    dict of name to list
        In the order of ``columns``.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty or no UTF-8, has no such column, or rows with more or fewer fields than names.
    """
    if isinstance(columns, str):
        raise TypeError(f"columns is the string {columns!r}, expected a sequence of names such as [{columns!r}]")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1")
    path = find_file(path, WHERE_TO_GET_A_TABLE)
    rows = _rows(path)
    _, names = next(rows)
    for column in columns:
        if names.count(column) != 1:
            has = "has no column" if column not in names else "has several columns"
            raise ValueError(f"{path} {has} {column!r:.60}; its columns are {', '.join(map(repr, names)):.500}")
    places = [names.index(column) for column in columns]
    found: list[list[str]] = [[] for _ in columns]
    for line, row in islice(rows, limit):
        if len(row) != len(names):
            raise ValueError(f"{path}, line {line}: {len(row)} fields, expected {len(names)}, one for each column")
        for texts, place in zip(found, places, strict=True):
            texts.append(row[place])
    if not found[0]:
        raise ValueError(f"{path} has no rows below the names of its columns")
    return dict(zip(columns, found, strict=True))


def read_series(path: str | os.PathLike[str], columns: Sequence[str]) -> FloatArray:
    """Columns of numbers of a CSV file, a row a time step: (L, len(columns)) float64.

    Parameters
    ----------
    path, columns
        As in `read_columns`.

    Raises
    ------
    OSError, ValueError
        As in `read_columns`, or a field is no finite number; the message says which.
    """
    texts = read_columns(path, columns)
    series = np.empty((len(texts[columns[0]]), len(columns)))
    for place, (name, fields) in enumerate(texts.items()):
        for row, field in enumerate(fields):
            try:
                value = float(field)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(
                    f"{path}, row {row + 1} of column {name!r}: {field!r:.60} is no finite number; fill what is "
                    "missing, for instance with the value before"
                )
            series[row, place] = value
    return series


def text_lines(path: Path, column: str | None) -> Iterator[str]:
    """The lines of a text file or, with a column, those of the texts in a CSV file."""
    if column is None:
        return read_lines(path)
    return (line for text in read_columns(path, [column])[column] for line in text.split("\n"))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its last line; raises ValueError."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    lines = read_lines(path)
    header = next(lines)
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader((line + "\n" for line in _again(header, lines)), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field.strip() for field in row] if reader.line_num == 1 else row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
