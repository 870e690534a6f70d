"""Of ``common.util``: how good a model is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.compat.dlfs2.arrays import beside
from fastlstm.contract import Array
from fastlstm.ops.device import read, to_host

_GREEN, _RED, _END = "\033[92m", "\033[91m", "\033[0m"


def eval_perplexity(model: Any, corpus: Array, batch_size: int = 10, time_size: int = 35) -> float:
    """The perplexity of a text, read in ``batch_size`` streams side by side."""
    print("evaluating perplexity ...")
    (corpus,) = beside(model, corpus)
    xp = array_module(corpus)
    max_iters = (len(corpus) - 1) // (batch_size * time_size)
    if max_iters == 0:
        raise ValueError(
            f"corpus has {len(corpus)} ids, expected more than batch_size * time_size = {batch_size * time_size}"
        )
    starts = xp.arange(batch_size) * ((len(corpus) - 1) // batch_size)
    # Models with dropout are told that this is no training.
    has_flag = "train_flg" in inspect.signature(model.forward).parameters
    options = {"train_flg": False} if has_flag else {}
    total = 0.0
    for iters in range(max_iters):
        places = starts[:, None] + xp.arange(iters * time_size, (iters + 1) * time_size + 1)
        ids = corpus[places % len(corpus)].astype(np.int32)
        total += model.forward(ids[:, :-1], ids[:, 1:], **options)
        sys.stdout.write(f"\r{iters} / {max_iters}")
        sys.stdout.flush()
    print()
    return float(np.exp(read(total) / max_iters))


def eval_seq2seq(
    model: Any,
    question: Array,
    correct: Array,
    id_to_char: Mapping[int, str],
    verbos: bool = False,
    is_reverse: bool = False,
) -> int:
    """1 if the model's answer to question (1, S) is all of correct (1, T), whose first id is the start symbol, else 0.

    With ``verbos`` question and answers are printed; ``is_reverse`` says that the question stands backwards.
    """
    start_id, *right = to_host(correct).ravel().tolist()
    guess = [int(i) for i in model.generate(question, start_id, len(right))]
    if verbos:
        asked, wanted, guessed = (
            "".join(id_to_char[i] for i in ids) for ids in (to_host(question).ravel().tolist(), right, guess)
        )
        print("Q", asked[::-1] if is_reverse else asked)
        print("T", wanted)
        mark = f"{_GREEN}☑{_END}" if guess == right else f"{_RED}☒{_END}"
        print(mark, guessed)
        print("---")
    return int(guess == right)
