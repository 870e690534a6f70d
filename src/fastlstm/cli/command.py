"""The command line: what can be typed, and how mistakes are told.

A mistake of the user ends with one line on stderr and exit code 2, Ctrl-C with 130. Exit code 1 is a training that
diverged, or one whose pictures could not be drawn.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import fastlstm
from fastlstm.cli import addition, bench, dates, generate, rnnlm, sentiment, sine, translate, word2vec
from fastlstm.models.rnnlm import CELLS

EXIT_CODES = (
    "Exit codes: 0 done; 1 the training diverged, or its pictures could not be drawn (then the model is saved); "
    "2 a mistake, told in one line; 130 Ctrl-C."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {one_line}; see {self.prog} --help\n")


# Far above any use: what is larger is a slip, and would overflow an array's size or a float32.
MAX_COUNT = 2**31 - 1
MAX_LAYERS = MAX_BEAM = 1_000
MAX_SAMPLED = 1_000_000
MAX_STEPS = 10_000_000
MAX_NUMBER = 1e30


def _whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from low to high."""

    def read(text: str) -> int:
        # Shorter than what int() refuses to read.
        if not (text.isdecimal() and len(text) < 100 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r:.60} is no whole number of at least {low} and at most {high}")
        return int(text)

    return read


def _real(fits: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    """The type of an option that is a number; NaN fits nothing, for no comparison with it holds."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not fits(number):
            raise argparse.ArgumentTypeError(f"{text!r:.60} is no number {wanted}")
        return number

    return read


_count = _whole(1, MAX_COUNT)
_layers = _whole(1, MAX_LAYERS)
_beam = _whole(1, MAX_BEAM)
_sampled = _whole(1, MAX_SAMPLED)
_steps = _whole(1, MAX_STEPS)
_seed = _whole(0, 2**64 - 1)
_positive = _real(lambda x: 1 / MAX_NUMBER <= x <= MAX_NUMBER, f"above 0, from {1 / MAX_NUMBER:g} to {MAX_NUMBER:g}")
_not_negative = _real(lambda x: 0 <= x <= MAX_NUMBER, f"of at least 0 and at most {MAX_NUMBER:g}")
_factor = _real(lambda x: 0 < x < 1, "between 0 and 1")
_share = _real(lambda x: 0 <= x < 1, "from 0 to below 1")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastlstm", description="Train LSTMs on compiled kernels.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"fastlstm {fastlstm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a model on a task", epilog=EXIT_CODES)
    tasks = train.add_subparsers(required=True, metavar="TASK")
    _add_addition(tasks.add_parser("addition", help="sums as text: 16+75 -> 91", description=addition.__doc__))
    _add_rnnlm(tasks.add_parser("rnnlm", help="a language model of a text", description=rnnlm.__doc__))
    _add_dates(tasks.add_parser("dates", help="september 27, 1994 -> 1994-09-27", description=dates.__doc__))
    _add_translate(tasks.add_parser("translate", help="sentences, from pairs of them", description=translate.__doc__))
    _add_word2vec(tasks.add_parser("word2vec", help="vectors of a text's words", description=word2vec.__doc__))
    _add_sentiment(tasks.add_parser("sentiment", help="the class of a text", description=sentiment.__doc__))
    _add_sine(tasks.add_parser("sine", help="a sine, continued by LSTM and RNN", description=sine.__doc__))

    _add_generate(commands.add_parser("generate", help="let a trained model write", description=generate.__doc__))

    _add_bench(commands.add_parser("bench", help="measure speed beside PyTorch and numpy", description=bench.__doc__))

    info = commands.add_parser("info", help="show backends, instruction set, threads and GPU")
    info.set_defaults(command=lambda _: fastlstm.show_config())
    return parser


def _add_addition(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    switch = argparse.BooleanOptionalAction
    defaults = addition.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="read the sums from a file, plain or packed, instead of generating 50,000")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--max-grad", type=_positive, help=f"clip the gradients' norm, default {defaults.max_grad:g}")
    add("--reversed", action=switch, help="read the question from its end; default yes")
    add("--peeky", action=switch, help="show the encoder's state to every decoder step; default yes, with --compare no")
    add("--share-embedding", action=switch, help="one embedding for questions and answers; default no")
    add("--compare", action="store_true", default=None, help="train separate embeddings, reversed, shared embedding")
    _add_run_options(parser, defaults.seed, "addition")
    parser.set_defaults(command=addition.train)


def _add_rnnlm(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    defaults = rnnlm.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="a UTF-8 text, plain or packed; default ptb, the Penn Treebank")
    add("--unit", choices=("word", "char"), help=f"default {defaults.unit}")
    add("--cell", choices=CELLS, help=f"default {defaults.cell}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help="width of the embeddings, default the hidden size")
    add("--layers", type=_layers, help=f"recurrent layers, default {defaults.layers}")
    add("--time-size", type=_count, help=f"steps to go back, default {defaults.time_size}")
    add("--batch-size", type=_count, help=f"streams read side by side, default {defaults.batch_size}")
    add("--dropout", type=_share, help=f"default {defaults.dropout:g}")
    add("--tie-weights", action=argparse.BooleanOptionalAction, help="project with the embedding's weights; default no")
    add(
        "--init-scale",
        type=_positive,
        metavar="S",
        help="draw all weights uniformly from -S to S; default normal, by 1/sqrt(inputs)",
    )
    add("--optimizer", choices=("sgd", "adam"), help=f"default {defaults.optimizer}")
    add("--lr", type=_positive, help="learning rate; default sgd 20 (cell rnn: 0.1), adam 0.001")
    add("--max-grad", type=_positive, help="clip the gradients' norm; default 0.25 for sgd, none for adam and cell rnn")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add(
        "--decay-after",
        type=_count,
        metavar="EPOCHS",
        help="multiply the learning rate by --decay in every epoch after that many; "
        "default: quarter it when validation does not improve",
    )
    add("--decay", type=_factor, metavar="FACTOR", help="default 0.5")
    add("--limit", type=_count, metavar="N", help="learn from the first N words or characters only")
    add(
        "--hold-out",
        type=_share,
        metavar="SHARE",
        help="share of the text's end to validate on; default 0.1 for a file",
    )
    _add_run_options(parser, defaults.seed, "rnnlm")
    parser.set_defaults(command=rnnlm.train)


def _add_word2vec(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    switch = argparse.BooleanOptionalAction
    defaults = word2vec.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="a UTF-8 text, plain or packed, a sentence a line; default text8")
    add("--loss", choices=("nce", "negative_sampling", "sampled_softmax"), help=f"default {defaults.loss}")
    add("--vocab-size", type=_count, help=f"the most frequent words, default {defaults.vocab_size:,}")
    add("--min-count", type=_count, help="leave rarer words out; default 1, for negative_sampling 5")
    add("--unknown", action=switch, help="other words become UNK; default yes, for negative_sampling no")
    add("--vector-size", type=_count, help=f"default {defaults.vector_size}")
    add("--window", type=_count, help=f"the farthest neighbour, default {defaults.window}")
    add("--num-sampled", type=_sampled, help="words drawn for a batch, default 64; for negative_sampling a pair's, 5")
    add("--subsample", type=_not_negative, help=f"leave out frequent words, 0 for none; default {defaults.subsample:g}")
    add("--batch-size", type=_count, help="pairs, default 128; for negative_sampling 8192, which changes no step")
    add("--lr", type=_positive, help="learning rate; default 1, for negative_sampling 0.025")
    add("--final-lr", type=_positive, help="fall to it evenly; default no, for negative_sampling 0.0001")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add("--eval", action=switch, help="by wordsim353 and analogies; default if they are below FASTLSTM_DATA_DIR")
    _add_run_options(parser, defaults.seed, "word2vec", precision=False)
    parser.set_defaults(command=word2vec.train)


def _add_sentiment(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    defaults = sentiment.Options()
    add = parser.add_argument
    add(
        "--data",
        metavar="DATA",
        help="aclimdb (default), rt_polarity, a folder like them, or a file with lines LABEL TAB TEXT, plain or packed",
    )
    add("--vocab-size", type=_count, help=f"most frequent words that are told apart, default {defaults.vocab_size}")
    add("--maxlen", type=_count, help=f"words of a text that are read, default {defaults.maxlen}")
    add("--longer", choices=("last", "first", "drop"), help="of longer texts: their last words (default), first, none")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--pooling", choices=("mean", "last"), help="classify by the mean of all states (default) or by the last")
    add("--dropout", type=_share, help=f"default {defaults.dropout:g}")
    add(
        "--bucket-by-length",
        action=argparse.BooleanOptionalAction,
        help="batches of texts of similar lengths; default yes",
    )
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--lr", type=_positive, help=f"learning rate of Adam, default {defaults.lr:g}")
    add("--max-grad", type=_positive, help="clip the gradients' norm; default no clipping")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add(
        "--hold-out",
        type=_share,
        metavar="SHARE",
        help="share to validate on, default 0.05; without a test part 0.1, and as much again to test on",
    )
    add("--limit", type=_count, metavar="N", help="read the first N texts of a file only")
    _add_run_options(parser, defaults.seed, "sentiment")
    parser.set_defaults(command=sentiment.train)


def _add_sine(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    defaults = sine.Options()
    add = parser.add_argument
    add("--points", type=_steps, help=f"values of the series, default {defaults.points}")
    add("--period", type=_positive, help=f"steps of a full turn, default {defaults.period:g}")
    add("--noise", type=_not_negative, help=f"up to so much is added to every value, default {defaults.noise:g}")
    add("--length", type=_steps, help=f"values that are read to say the next, default {defaults.length}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--lr", type=_positive, help=f"learning rate of Adam, falling at the end, default {defaults.lr:g}")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add(
        "--continue-steps", type=_steps, help=f"steps the models go on by themselves, default {defaults.continue_steps}"
    )
    _add_run_options(parser, defaults.seed, "sine")
    parser.set_defaults(command=sine.train)


def _add_dates(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    switch = argparse.BooleanOptionalAction
    defaults = dates.Options()
    add = parser.add_argument
    add("--data", metavar="FILE", help="read the dates from a file, plain or packed, instead of generating 50,000")
    add("--epochs", type=_count, help=f"default {defaults.epochs}")
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--hidden-size", type=_count, help=f"default {defaults.hidden_size}")
    add("--wordvec-size", type=_count, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--max-grad", type=_positive, help=f"clip the gradients' norm, default {defaults.max_grad:g}")
    add("--attention", action=switch, help="look at all states of the encoder; default yes")
    add("--reversed", action=switch, help="read the date from its end; default yes")
    add("--bidirectional", action=switch, help="read the date in both directions; default no")
    _add_run_options(parser, defaults.seed, "dates")
    parser.set_defaults(command=dates.train)


def _add_translate(parser: argparse.ArgumentParser) -> None:
    # No option has a default here: that way it can be told which ones were given.
    switch = argparse.BooleanOptionalAction
    defaults, char, word = translate.Options(), translate.BY_UNIT["char"], translate.BY_UNIT["word"]

    def by_unit(name: str) -> str:
        return f"default {char[name]} for characters, {word[name]} for words"

    add = parser.add_argument
    add(
        "--data",
        metavar="DATA",
        help="jpn_eng (default), small_parallel_enja, a file with lines SOURCE TAB TARGET, or with --target one of "
        "sources, plain or packed",
    )
    add("--target", metavar="FILE", help="the translations, line by line")
    add("--unit", choices=("char", "word"), help="default char; small_parallel_enja: word")
    add("--limit", type=_count, metavar="N", help="only the first N pairs; default for jpn_eng 5000")
    add("--min-count", type=_count, metavar="N", help="rarer words become <unk>, default 1")
    add("--hidden-size", type=_count, help=by_unit("hidden_size"))
    add("--wordvec-size", type=_count, help=f"width of the embeddings, default {defaults.wordvec_size}")
    add("--layers", type=_layers, help=f"LSTMs of encoder and decoder, default {defaults.layers}")
    add("--bidirectional", action=switch, help="read the source in both directions; default no")
    add("--attention", action=switch, help="look at all states of the encoder; default no")
    add("--reversed", action=switch, help="read the source from its end; default no")
    add("--dropout", type=_share, help=f"default {defaults.dropout:g}")
    add("--optimizer", choices=("rmsprop", "adam"), help=by_unit("optimizer"))
    add("--lr", type=_positive, help=f"learning rate, default {defaults.lr:g}")
    add("--max-grad", type=_positive, help="clip the gradients' norm; default no clipping")
    add("--batch-size", type=_count, help=f"default {defaults.batch_size}")
    add("--epochs", type=_count, help=by_unit("epochs"))
    add(
        "--validation-split",
        type=_share,
        metavar="SHARE",
        help=f"share of the last pairs to validate on, default {defaults.validation_split:g}",
    )
    add("--checkpoint-every", type=_count, metavar="N", help=f"epochs, default {defaults.checkpoint_every}")
    add("--beam", type=_beam, help="candidates kept while translating; default 1, the likeliest symbol every time")
    _add_run_options(parser, defaults.seed, "translate")
    parser.set_defaults(command=translate.train)


def _add_run_options(parser: argparse.ArgumentParser, seed: int, task: str, *, precision: bool = True) -> None:
    add = parser.add_argument
    add("--seed", type=_seed, help=f"default {seed}; the same seed gives the same bits")
    add("--device", choices=("cpu", "cuda"), help="cuda trains on a GPU; default cpu")
    if precision:
        add("--precision", choices=("tf32", "bf16"), help="of products on a GPU; default exact")
    add("--threads", type=_count, help="default: all cores")
    add("--out", metavar="DIR", help=f"run folder to make; default runs/{task}-1, -2 ...")
    add("--resume", metavar="RUN", help="go on with an interrupted run, with the options it had")
    add("--quiet", action="store_true", help="print the result only")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that train left")
    add(
        "questions",
        nargs="*",
        default=(),
        metavar="TEXT",
        help="sums such as 16+75, dates, sentences or reviews, without any stdin is read; for a language model the "
        "beginning of a text",
    )
    texts = parser.add_argument_group("language models")
    texts.add_argument("--length", type=_count, help="words or characters to write, default 100")
    texts.add_argument("--temperature", type=_not_negative, help="default 1; 0 takes the likeliest every time")
    texts.add_argument("--top-k", type=_count, metavar="K", help="draw from the K likeliest only")
    texts.add_argument(
        "--skip", action="append", metavar="WORD", help="never write it, such as '<unk>'; may be repeated"
    )
    texts.add_argument("--seed", type=_seed, help="the same seed writes the same text")
    parser.add_argument("--beam", type=_beam, help="for translations: candidates kept; default as in the training")
    parser.set_defaults(command=generate.generate)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    bench.add_options(parser)
    parser.set_defaults(command=bench.bench)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, sys.argv's without one, and return the exit code."""
    args = _make_parser().parse_args(argv)
    try:
        code = args.command(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads the output has seen enough, as head has; Python would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, MemoryError, fastlstm.BackendNotAvailable) as error:
        print(f"fastlstm: {' '.join(str(error).split()) or 'there is not enough memory'}", file=sys.stderr)
        return 2
