"""The command line: what can be typed, and how mistakes are told.

A mistake of the user ends with one line on stderr and exit code 2, Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

import fastlstm
from fastlstm.cli import addition, generate, rnnlm


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to below 1")
    return number


def _temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return number


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastlstm", description="Train LSTMs on compiled kernels.")
    parser.add_argument("--version", action="version", version=f"fastlstm {fastlstm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model on a task")
    tasks = train.add_subparsers(required=True, metavar="TASK")
    _add_addition(tasks.add_parser("addition", help="sums as text: 16+75 -> 91", description=addition.__doc__))
    _add_rnnlm(tasks.add_parser("rnnlm", help="a language model of a text", description=rnnlm.__doc__))

    _add_generate(commands.add_parser("generate", help="let a trained model write", description=generate.__doc__))

    info = commands.add_parser("info", help="show backends, instruction set, threads and GPU")
    info.set_defaults(command=lambda _: fastlstm.show_config())
    return parser


def _add_addition(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    switch = argparse.BooleanOptionalAction
    defaults = addition.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="read the sums from a file, plain or .xz, instead of generating 50,000")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--max-grad", type=_positive, help=f"clip the gradients' norm, default {defaults.max_grad:g}")
    add("--reversed", action=switch, help="read the question from its end; default yes")
    add("--peeky", action=switch, help="show the encoder's state to every decoder step; default yes, with --compare no")
    add("--share-embedding", action=switch, help="one embedding for questions and answers; default no")
    add("--compare", action="store_true", default=None, help="train separate embeddings, reversed, shared embedding")
    add("--seed", type=_seed, help=f"default {defaults.seed}; the same seed gives the same bits")
    add("--threads", type=_count, help="default: all cores")
    add("--out", metavar="DIR", help="run folder to make; default runs/addition-1, -2 ...")
    add("--resume", metavar="RUN", help="go on with an interrupted run, with the options it had")
    add("--quiet", action="store_true", help="print the result only")
    parser.set_defaults(command=addition.train)


def _add_rnnlm(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    defaults = rnnlm.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="a UTF-8 text, plain or .xz; default ptb, the Penn Treebank")
    add("--unit", choices=("word", "char"), help=f"default {defaults.unit}")
    add("--cell", choices=("lstm", "rnn"), help=f"default {defaults.cell}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help="width of the embeddings, default the hidden size")
    add("--layers", type=_count, help=f"recurrent layers, default {defaults.layers}")
    add("--time-size", type=_count, help=f"steps to go back, default {defaults.time_size}")
    add("--batch-size", type=_count, help=f"streams read side by side, default {defaults.batch_size}")
    add("--dropout", type=_share, help=f"default {defaults.dropout:g}")
    add("--tie-weights", action=argparse.BooleanOptionalAction, help="project with the embedding's weights; default no")
    add("--optimizer", choices=("sgd", "adam"), help=f"default {defaults.optimizer}")
    add("--lr", type=_positive, help="learning rate; default sgd 20 (cell rnn: 0.1), adam 0.001")
    add("--max-grad", type=_positive, help="clip the gradients' norm; default 0.25 for sgd with lstm, else no clipping")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add("--limit", type=_count, metavar="N", help="learn from the first N words or characters only")
    add(
        "--hold-out",
        type=_share,
        metavar="SHARE",
        help="share of the text's end to validate on; default 0.1 for a file",
    )
    add("--seed", type=_seed, help=f"default {defaults.seed}; the same seed gives the same bits")
    add("--threads", type=_count, help="default: all cores")
    add("--out", metavar="DIR", help="run folder to make; default runs/rnnlm-1, -2 ...")
    add("--resume", metavar="RUN", help="go on with an interrupted run, with the options it had")
    add("--quiet", action="store_true", help="print the result only")
    parser.set_defaults(command=rnnlm.train)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that train left")
    add(
        "questions",
        nargs="*",
        metavar="TEXT",
        help="sums such as 16+75, without any stdin is read; for a language model the beginning of a text",
    )
    texts = parser.add_argument_group("language models")
    texts.add_argument("--length", type=_count, help="words or characters to write, default 100")
    texts.add_argument("--temperature", type=_temperature, help="default 1; 0 takes the likeliest every time")
    texts.add_argument("--top-k", type=_count, metavar="K", help="draw from the K likeliest only")
    texts.add_argument(
        "--skip", action="append", metavar="WORD", help="never write it, such as '<unk>'; may be repeated"
    )
    texts.add_argument("--seed", type=_seed, help="the same seed writes the same text")
    parser.set_defaults(command=generate.generate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, sys.argv's without one, and return the exit code."""
    args = _make_parser().parse_args(argv)
    try:
        return args.command(args) or 0
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, fastlstm.BackendNotAvailable) as error:
        print(f"fastlstm: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
