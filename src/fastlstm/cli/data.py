"""Data for trainings: ``fastlstm data tokenize TEXT... --out DIR`` and ``fastlstm data get NAME``."""

from __future__ import annotations

import argparse
import sys
import time

from fastlstm.cli.option_types import COUNT
from fastlstm.datasets.download import SETS, fetch, is_there
from fastlstm.datasets.labelled import WHERE_TO_GET_IT as WHERE_TO_GET_LABELLED
from fastlstm.datasets.parallel import WHERE_TO_GET_IT as WHERE_TO_GET_PAIRS
from fastlstm.datasets.tokenized import tokenize_texts
from fastlstm.datasets.tokenizers import TOKENIZERS, UNITS, tokenizer_of
from fastlstm.datasets.words import WHERE_TO_GET_TEXT8

TOKENIZE = """Turn texts of any size into ids and a vocabulary on disk, in bounded memory.

The folder is --data of fastlstm train rnnlm and word2vec, which read it without copying it into memory.
"""

GET = """Fetch a data set, check it to the byte, and print its folder; without NAME, list all sets that tasks know.

It is put where the tasks look for it: below FASTLSTM_DATA_DIR or, if that is not set, below the platform's folder for
caches. Needs pooch: pip install 'fastlstm[data]'.
"""

# What the tasks know beside, where nothing can be checked to the byte, or an archive is to be unpacked.
BY_HAND = {
    "text8": WHERE_TO_GET_TEXT8,
    "aclimdb, rt_polarity": WHERE_TO_GET_LABELLED,
    "jpn_eng": WHERE_TO_GET_PAIRS["jpn_eng"],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The commands of ``fastlstm data``, each with its options."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_tokenize = commands.add_parser("tokenize", help="texts as ids on disk", description=TOKENIZE)
    add = of_tokenize.add_argument
    add(
        "texts",
        nargs="+",
        metavar="TEXT",
        help="a UTF-8 text, plain or packed (.xz, .gz, .bz2), or a pipe; - for stdin",
    )
    add("--out", required=True, metavar="DIR", help="folder to make")
    add("--unit", choices=UNITS, help="words between blanks (default), or characters")
    add("--tokenizer", choices=TOKENIZERS, help="in the place of --unit; words: in lower case, signs apart")
    add("--min-count", type=COUNT, default=1, help="rarer words become <unk>; default 1")
    add("--vocab-size", type=COUNT, help="keep the most frequent words, <unk> included; default all")
    add("--quiet", action="store_true", help="print nothing")
    of_tokenize.set_defaults(command=tokenize)

    of_get = commands.add_parser("get", help="fetch a data set", description=GET)
    of_get.add_argument("name", nargs="?", metavar="NAME", help="which; without it, list those that there are")
    of_get.set_defaults(command=get)


def get(args: argparse.Namespace) -> int:
    """``fastlstm data get``."""
    if args.name is not None:
        print(fetch(args.name, progress=sys.stderr.isatty()))
        return 0
    for name, remote in SETS.items():
        folder = is_there(name)
        print(f"{name}  {'to fetch' if folder is None else f'there: {folder}'}")
        print(f"    {remote.about}\n    terms: {remote.terms}\n    {remote.url}/ {', '.join(remote.files)}")
    print("By hand:")
    for name, where in BY_HAND.items():
        print(f"{name}\n    {where}")
    return 0


def tokenize(args: argparse.Namespace) -> int:
    """``fastlstm data tokenize``."""
    if args.unit and args.tokenizer and args.tokenizer != tokenizer_of(args.unit) == "char":
        raise ValueError(f"--unit char and --tokenizer {args.tokenizer} do not go together; leave one out")
    since = time.perf_counter()
    text = tokenize_texts(
        args.texts,
        args.out,
        tokenizer=args.tokenizer or tokenizer_of(args.unit or "word"),
        min_count=args.min_count,
        max_size=args.vocab_size,
    )
    seconds = time.perf_counter() - since
    assert text.vocabulary.counts is not None
    if not args.quiet:
        count, unknown = len(text.ids), int(text.vocabulary.counts[0])
        print(
            f"{args.out}: {count:,} ids of {len(text.vocabulary):,} different {text.vocabulary.unit}s, "
            f"{unknown / count:.2%} of them <unk>; {seconds:.1f} s, {count / seconds:,.0f} a second"
        )
    return 0
