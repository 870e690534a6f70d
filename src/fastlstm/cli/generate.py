"""Let the model of a run folder answer sums, read dates, translate, classify texts, or go on with a text or a series.

Without a TEXT to answer, stdin is read: line k of the output belongs to line k. A blank line is answered by a blank
line; so is one that cannot be answered, but stderr says why, and in the end the exit code is 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastlstm.cli import run_folder, sentiment, series, translate
from fastlstm.cli.answering import answer_each
from fastlstm.cli.option_types import BEAM_WIDTH, COUNT, NOT_NEGATIVE, SEED
from fastlstm.contract import IntArray
from fastlstm.datasets.addition import START
from fastlstm.datasets.pairs import decode, encode
from fastlstm.datasets.text import encode_symbols
from fastlstm.datasets.tokenizers import END_OF_LINE, UNKNOWN, join_symbols, split_symbols, tokenizer_of
from fastlstm.models import RNNLM, Seq2seq

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
    config = run_folder.read_config(folder, "addition", "dates", "rnnlm", sentiment.TASK, series.TASK, translate.TASK)
    given = {name: value for name in TEXT_OPTIONS if (value := getattr(args, name)) is not None}
    if args.beam is not None and config["task"] != translate.TASK:
        raise ValueError(f"--beam is for translations, {folder} is none")
    if args.data is not None and config["task"] != series.TASK:
        raise ValueError(f"--data is for series, {folder} is none")
    if config["task"] == series.TASK:
        if args.questions or given.keys() - {"length"}:
            raise ValueError(f"{folder} goes on with a series; it takes --length and --data, and no text")
        _model_file(folder)
        print(series.forecast(folder, config, args.data, args.length))
        return 0
    if config["task"] == "rnnlm":
        print(continued(folder, config, " ".join(args.questions), **given))
        return 0
    if given:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for language models, {folder} is none")
    if config["task"] == sentiment.TASK:
        return answer_each(args.questions, sentiment.classifier(_model_file(folder)))
    if config["task"] == translate.TASK:
        return answer_each(args.questions, translate.translator(_model_file(folder), config, args.beam))
    model = Seq2seq.load(_model_file(folder))
    vocabulary = _vocabulary(model)

    def answer(question: str) -> str:
        question = question.strip()
        xs = _encode(question, vocabulary, config["question_length"])
        (said,) = answers(model, xs, config["answer_length"] - 1)
        return f"{question} = {said}"

    return answer_each(args.questions, answer)


def _model_file(folder: Path) -> Path:
    path = folder / run_folder.MODEL
    if not path.exists():
        several = sorted(str(model.parent) for model in folder.glob(f"*/{run_folder.MODEL}"))
        why = f"it compares several: {', '.join(several)}" if several else "its training is not finished"
        raise FileNotFoundError(f"{folder} has no {run_folder.MODEL}; {why}")
    return path


def continued(
    folder: Path,
    config: Mapping[str, Any],
    start: str,
    *,
    length: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    skip: Sequence[str] = (),
    seed: int | None = None,
) -> str:
    """A text and how the language model of a run folder goes on with it."""
    tokenizer = config["options"].get("tokenizer") or tokenizer_of(config["options"]["unit"])
    model = RNNLM.load(_model_file(folder))
    if not model.vocabulary:
        raise ValueError("the model has no vocabulary; train it with: fastlstm train rnnlm")
    symbols = split_symbols(start, tokenizer)
    if unknown := sorted(set(symbols) - set(model.vocabulary)) if UNKNOWN in model.vocabulary else []:
        print(f"not in the vocabulary, read as {UNKNOWN}: {', '.join(unknown)}", file=sys.stderr)
    begin = symbols or [next((end for end in (END_OF_LINE, "\n") if end in model.vocabulary), model.vocabulary[0])]
    written = model.generate(
        encode_symbols(begin, model.vocabulary, "start text").ids,
        length,
        temperature=temperature,
        top_k=top_k,
        skip_ids=encode_symbols(skip, model.vocabulary, "--skip").ids,
        seed=seed,
    )
    return join_symbols([*symbols, *(model.vocabulary[i] for i in written)], tokenizer)


def answers(model: Seq2seq, xs: IntArray, length: int) -> list[str]:
    """What the model says to each question, without the blanks at the end."""
    vocabulary = _vocabulary(model)
    return [decode(ids, vocabulary).strip() for ids in model.generate(xs, vocabulary.index(START), length)]


def _encode(question: str, vocabulary: Sequence[str], length: int) -> IntArray:
    if not question:
        raise ValueError("nothing is asked, expected a question such as those of the training")
    if unknown := set(question) - set(vocabulary):
        raise ValueError(f"{question!r}: the model does not know {min(unknown)!r}, only {''.join(vocabulary)!r}")
    if len(question) > length:
        raise ValueError(f"{question!r} is longer than the {length} symbols the model was trained on")
    return encode([question.ljust(length)], vocabulary)


def _vocabulary(model: Seq2seq) -> list[str]:
    if model.vocabulary is None or START not in model.vocabulary:
        raise ValueError("the model has no vocabulary with the start symbol; train it with: fastlstm train addition")
    return model.vocabulary
