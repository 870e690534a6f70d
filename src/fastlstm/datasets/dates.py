"""Dates as people write them, and as ISO 8601 has them: ``september 27, 1994`` -> ``_1994-09-27``.

The task of chapter 8 of "Deep Learning from Scratch 2", with its lengths: what is read is padded to 29 symbols, the
answer is the start symbol "_" and ten symbols. The dates are drawn here, not the book's.
"""

from __future__ import annotations

import datetime as dt
import os
import string
from collections.abc import Callable

import numpy as np

from fastlstm.datasets.files import find_file
from fastlstm.datasets.pairs import SequencePairs, encode, read_padded_pairs
from fastlstm.ops import scalars

START = "_"
WRITTEN_LENGTH = 29  # "Wednesday, September 27, 1994"
FIRST, LAST = dt.date(1970, 1, 1), dt.date(2068, 12, 31)
DAYS = (LAST - FIRST).days + 1
WHERE_TO_GET_IT = (
    "The book's file is dataset/date.txt of github.com/oreilly-japan/deep-learning-from-scratch-2; "
    "without --data the dates are generated"
)
VOCABULARY = [" ", *string.digits, *string.ascii_letters, ",", "-", "/", START]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Years of two digits are unambiguous: 70 to 99 are of the last century, 00 to 68 of this one.
_FORMATS = (
    "{month} {d.day}, {d.year}",
    "{month:.3} {d.day}, {d.year}",
    "{d.day} {month} {d.year}",
    "{d.day} {month:.3} {d.year}",
    "{weekday}, {month} {d.day}, {d.year}",
    "{weekday:.3}, {d.day} {month:.3} {d.year}",
    "{d.month}/{d.day}/{d:%y}",
    "{d.month}/{d.day}/{d.year}",
    "{d.year}-{d.month:02}-{d.day:02}",
    "{d.year}/{d.month}/{d.day}",
)
_CASES: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper)


def dates(n: int = 50_000, seed: int | None = None) -> SequencePairs:
    """Draw dates from 1970 to 2068, each written in one of ten ways, in usual, lower or upper case.

    A date may come more than once, as in the book's file, mostly written in another way. Numbers between slashes that
    end with the year are month, day, year.

    Parameters
    ----------
    n : int
        At least 1.
    seed : int, optional

    Returns
    -------
    SequencePairs
        xs (n, 29), ts (n, 11) and the 67 symbols.
    """
    n = scalars.integer("n", n, 1)
    rng = np.random.default_rng(seed)
    days = rng.integers(DAYS, size=n)
    formats = rng.integers(len(_FORMATS), size=n)
    cases = rng.integers(len(_CASES), size=n)
    written, iso = [], []
    for days_after, kind, case in zip(days.tolist(), formats.tolist(), cases.tolist(), strict=True):
        date = FIRST + dt.timedelta(days=days_after)
        text = _FORMATS[kind].format(d=date, month=_MONTHS[date.month - 1], weekday=_WEEKDAYS[date.weekday()])
        written.append(_CASES[case](text).ljust(WRITTEN_LENGTH))
        iso.append(f"{START}{date.isoformat()}")
    return SequencePairs(encode(written, VOCABULARY), encode(iso, VOCABULARY), list(VOCABULARY))


def read_dates(path: str | os.PathLike[str]) -> SequencePairs:
    """Read dates from a file in the book's format, plain or packed (.xz, .gz, .bz2).

    A line is a date padded with blanks, and "_" with the same in ISO 8601. All lines have the lengths of the first.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    return read_padded_pairs(find_file(path, WHERE_TO_GET_IT), VOCABULARY, START)
