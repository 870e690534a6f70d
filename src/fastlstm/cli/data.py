"""Make data for trainings: ``fastlstm data tokenize TEXT... --out DIR``."""

from __future__ import annotations

import argparse
import time

from fastlstm.cli.option_types import COUNT
from fastlstm.datasets.tokenized import tokenize_texts
from fastlstm.datasets.tokenizers import TOKENIZERS, UNITS, tokenizer_of

TOKENIZE = """Turn texts of any size into ids and a vocabulary on disk, in bounded memory.

The folder is --data of fastlstm train rnnlm and word2vec, which read it without copying it into memory.
"""


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
