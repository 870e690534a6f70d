"""Let the model of a run folder answer questions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastlstm.cli import run_folder
from fastlstm.contract import IntArray
from fastlstm.datasets.addition import START
from fastlstm.datasets.pairs import decode, encode
from fastlstm.models import Seq2seq


def generate(run: str, questions: Sequence[str]) -> None:
    """``fastlstm generate``: print each question with the answer of the model in a run folder."""
    folder = Path(run)
    config = run_folder.read_config(folder, "addition")
    path = folder / run_folder.MODEL
    if not path.exists():
        several = sorted(str(model.parent) for model in folder.glob(f"*/{run_folder.MODEL}"))
        why = f"it compares several: {', '.join(several)}" if several else "its training is not finished"
        raise FileNotFoundError(f"{folder} has no {run_folder.MODEL}; {why}")
    model = Seq2seq.load(path)
    for question in questions or map(str.strip, sys.stdin):
        xs = _encode(question, model, config["question_length"])
        (said,) = answers(model, xs, config["answer_length"] - 1)
        print(f"{question.strip()} = {said}")


def answers(model: Seq2seq, xs: IntArray, length: int) -> list[str]:
    """What the model says to each question, without the blanks at the end."""
    vocabulary = _vocabulary(model)
    return [decode(ids, vocabulary).strip() for ids in model.generate(xs, vocabulary.index(START), length)]


def _encode(question: str, model: Seq2seq, length: int) -> IntArray:
    vocabulary = _vocabulary(model)
    if unknown := set(question) - set(vocabulary):
        raise ValueError(f"{question!r}: the model does not know {min(unknown)!r}, only {''.join(vocabulary)!r}")
    if len(question) > length:
        raise ValueError(f"{question!r} is longer than the {length} symbols the model was trained on")
    return encode([question.ljust(length)], vocabulary)


def _vocabulary(model: Seq2seq) -> list[str]:
    if model.vocabulary is None or START not in model.vocabulary:
        raise ValueError("the model has no vocabulary with the start symbol; train it with: fastlstm train addition")
    return model.vocabulary
