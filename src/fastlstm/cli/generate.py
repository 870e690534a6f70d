"""Let the model of a run answer sums, read dates, translate, classify texts, or go on with a text or a series.

Without a TEXT to answer, stdin is read: line k of the output belongs to line k. A blank line is answered by a blank
line; so is one that cannot be answered, but stderr says why, and in the end the exit code is 2. A language model goes
on with all of stdin as one text, or, where that is a terminal or empty, begins a text of its own. Of a run that is not
finished it is the model of the last checkpoint, and stderr says of which epoch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastlstm.cli import pairs, rnnlm, run_folder, sentiment, series, translate
from fastlstm.cli.answering import answer_each, lines_of_stdin
from fastlstm.cli.option_types import BEAM_WIDTH, COUNT, NOT_NEGATIVE, SEED
from fastlstm.cli.tasks import task_of
from fastlstm.datasets.files import decode_line

# What a language model's text may be asked for, beside its beginning.
TEXT_OPTIONS = ("length", "temperature", "top_k", "skip", "seed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fastlstm generate``."""
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
    texts.add_argument(
        "--length", type=COUNT, help="words or characters to write, default 100; of a series steps, default its horizon"
    )
    texts.add_argument("--temperature", type=NOT_NEGATIVE, help="default 1; 0 takes the likeliest every time")
    texts.add_argument("--top-k", type=COUNT, metavar="K", help="draw from the K likeliest only")
    texts.add_argument(
        "--skip", action="append", metavar="WORD", help="never write it, such as '<unk>'; may be repeated"
    )
    texts.add_argument("--seed", type=SEED, help="the same seed writes the same text")
    parser.add_argument(
        "--data", metavar="FILE.csv", help="for a series: go on with the end of another file with the same columns"
    )
    parser.add_argument("--beam", type=BEAM_WIDTH, help="for translations: candidates kept; default as in the training")


def generate(args: argparse.Namespace) -> int:
    """``fastlstm generate``: print what the model of a run folder says to the texts given."""
    folder = Path(args.run)
    task, options = task_of(folder)
    name = task.TASK
    config = run_folder.read_config(
        folder, "addition", "dates", rnnlm.TASK, sentiment.TASK, series.TASK, translate.TASK
    )
    given = {option: value for option in TEXT_OPTIONS if (value := getattr(args, option)) is not None}
    if args.beam is not None and name != translate.TASK:
        raise ValueError(f"--beam is for translations, {folder} is none")
    if args.data is not None and name != series.TASK:
        raise ValueError(f"--data is for series, {folder} is none")
    if name == series.TASK:
        if args.questions or given.keys() - {"length"}:
            raise ValueError(f"{folder} goes on with a series; it takes --length and --data, and no text")
        print(series.forecast(folder, config, args.data, args.length))
        return 0
    if name == rnnlm.TASK:
        start = " ".join(args.questions) if args.questions else _stdin_text()
        print(rnnlm.continued(folder, options, start, **given))
        return 0
    if given:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for language models, {folder} is none")
    if name == sentiment.TASK:
        return answer_each(args.questions, sentiment.classifier(folder, options))
    if name == translate.TASK:
        return answer_each(args.questions, translate.translator(folder, config, args.beam))
    return answer_each(args.questions, pairs.answerer(folder, config))


def _stdin_text() -> str:
    """All of stdin, without its last line end; nothing from a terminal, or where there is none to read."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        lines = [decode_line(line, first=not number) for number, line in enumerate(lines_of_stdin())]
    except OSError:  # closed by who called
        return ""
    return "\n".join(line.rstrip("\r\n") for line in lines)
