"""What the commands that read texts share: how texts are cut, and which columns of a table they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from fastlstm.datasets.tokenizers import TOKENIZERS, needs_splitting

COLUMN = "of a CSV file, the column that holds the text"


def add_tokenizer(parser: argparse.ArgumentParser, default: str, choices: Sequence[str] = TOKENIZERS) -> None:
    """The option --tokenizer; default: what it is without it."""
    what = "blanks: what stands between them; words: in lower case, signs apart; janome: Japanese words"
    parser.add_argument("--tokenizer", choices=choices, help=f"{what}; default {default}")


def tell_if_unsplit(words: Iterable[str], tokenizer: str, choices: Sequence[str] = TOKENIZERS) -> None:
    """A line on stderr if the words of a text are clauses of a script without blanks between words."""
    if tokenizer in ("blanks", "words") and needs_splitting(words):
        by_characters = "char reads it by characters, " if "char" in choices else ""
        print(
            f"fastlstm: the text has hardly a blank between words, so that by {tokenizer} whole clauses are words; "
            f"--tokenizer {by_characters}janome (Japanese) splits it",
            file=sys.stderr,
        )
