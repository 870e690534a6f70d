"""Chunks in rows of labels, names of persons for instance, and how many of them were found.

Tjong Kim Sang, Buchholz (2000), "Introduction to the CoNLL-2000 shared task: chunking", whose conlleval counts so.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlstm.contract import IntArray
from fastlstm.models.ids import IGNORED

OUTSIDE = "O"
_ENDS = {"L": "E", "U": "S"}  # the letters of BILOU for those of BIOES


def are_of_chunks(classes: Sequence[str] | None) -> bool:
    """Whether classes are labels of chunks: "O" and "B-NP", "I-NP", and "E-NP", "S-NP" or "L-NP", "U-NP" if any."""
    if not classes:
        return False
    named = [name for name in classes if name != OUTSIDE]
    return bool(named) and all(name[:1] in "BIESLU" and name[1:2] == "-" and len(name) > 2 for name in named)


def chunks(labels: Sequence[str]) -> set[tuple[str, int, int]]:
    """The chunks of a row of labels: what they are, where they begin, and where they have ended.

    A chunk begins with B, S, or another label than the one before that has not ended it: so IOB1, IOB2, BIOES and BILOU
    are read alike, and "I-NP" behind "O" begins a chunk.
    """
    found: set[tuple[str, int, int]] = set()
    kind, start, ended = "", 0, True
    for place, label in enumerate((*labels, OUTSIDE)):
        letter, _, name = label.partition("-")
        letter = _ENDS.get(letter, letter)
        begins = letter in ("B", "S") or ended or name != kind
        if kind and (letter == OUTSIDE or begins):
            found.add((kind, start, place))
            kind = ""
        if letter != OUTSIDE and begins:
            kind, start = name, place
        ended = letter in ("E", "S", OUTSIDE)
    return found


def count_chunks(answers: IntArray, targets: IntArray, classes: Sequence[str]) -> tuple[int, int]:
    """Of ids of labels (N, T), at the steps whose target counts: twice the chunks found, and those said and there.

    The quotient of both is F1, the harmonic mean of precision and recall.
    """
    right = total = 0
    for said, wanted in zip(answers, targets, strict=True):
        counts = wanted != IGNORED
        got, want = (chunks([classes[k] for k in row[counts]]) for row in (said, wanted))
        right += len(got & want)
        total += len(got) + len(want)
    return 2 * right, total
