"""All operators on all backends of the host, against the definition, on random examples.

One integer makes one example: its operator, sizes, layouts, numbers and how it is called::

    python -m tests.fuzz.operators --examples 10000
    python -m tests.fuzz.operators --seed 123 --examples 1

A backend's results are compared with those of the definition in float64 and, where they differ, with the same in the
example's dtype, so that what float32 cannot do is no fault. A part of the examples has a wrong argument: every backend
raises the same ValueError, TypeError or IndexError, and no array changes.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __package__:
    sys.path.insert(0, str(Path(__file__).parent))

import fuzz_run
import numpy as np
import other_examples
import recurrent_examples
import wrong_arguments
from fuzz_arrays import Source
from fuzz_run import Plan

import fastlstm
from fastlstm.testing import Case

THREADS = (1, 1, 2, 3, 5, 8)
TAPES = ("once", "once", "once", "twice", "interleaved", "elsewhere")

SEQUENCES = ("lstm_forward", "gru_forward", "rnn_forward")

# The functions that make an operator's examples, and how often its turn comes.
MAKERS: dict[str, tuple[Callable[[Source, str], Case], int]] = {
    **dict.fromkeys(SEQUENCES, (recurrent_examples.sequence, 12)),
    **dict.fromkeys(("lstm_cell_forward", "gru_cell_forward", "rnn_cell_forward"), (recurrent_examples.cell, 4)),
    **dict.fromkeys(("embedding_forward", "embedding_backward_rows", "scatter_add"), (other_examples.embedding, 2)),
    "embedding_backward": (other_examples.embedding, 4),
    "matrix_product": (other_examples.product, 6),
    "batched_product": (other_examples.product, 3),
    "dropout_mask": (other_examples.dropout, 2),
    "softmax": (other_examples.softmax, 3),
    "softmax_cross_entropy": (other_examples.cross_entropy, 4),
    "linear_cross_entropy": (other_examples.cross_entropy, 8),
    "sigmoid_cross_entropy": (other_examples.elementwise_loss, 2),
    "mean_squared_error": (other_examples.elementwise_loss, 2),
    **dict.fromkeys(other_examples.STATES, (other_examples.update, 3)),
    **dict.fromkeys(("clip_grad_norm", "clip_grad_value", "clip_scale", "global_norm"), (other_examples.clipping, 2)),
    **dict.fromkeys(
        ("UnigramTable", "log_uniform_candidates", "log_uniform_expected_count", "unigram_candidates"),
        (other_examples.candidates, 2),
    ),
    **dict.fromkeys(
        ("sampled_logits_forward", "nce_loss", "sampled_softmax_loss", "negative_sampling_loss"),
        (other_examples.sampled, 3),
    ),
    **dict.fromkeys(
        ("subsample", "skipgram_counts", "skipgram_pairs", "negative_sampling_update", "cbow_update"),
        (other_examples.skipgram, 2),
    ),
    **dict.fromkeys(("pack_gates", "unpack_gates"), (other_examples.gates, 1)),
}
TURNS = [op for op, (_, often) in MAKERS.items() for _ in range(often)]


class Example(NamedTuple):
    """What one integer makes. ``wrong`` says which argument was made wrong, and how; None if none was."""

    case: Case
    plan: Plan
    dtype: np.dtype[Any]
    tiny: bool
    wrong: str | None


def example(seed: int, only: Sequence[str] = ()) -> Example:
    """The example of an integer; with ``only``, among these operators."""
    source = Source(seed)
    op = source.pick(only or TURNS)
    case = MAKERS[op][0](source, op)
    threads = (source.pick(THREADS), source.pick(THREADS))
    takes_prepared = op == "matrix_product" or (op in SEQUENCES and not case.inputs.get("training", True))
    prepared = takes_prepared and source.chance(0.6)
    plan = Plan(threads, prepared, source.pick(TAPES), source.pick(THREADS) if source.chance(0.1) else 0)
    wrong = None
    if source.chance(0.12):
        case, wrong = wrong_arguments.one_wrong(source, case)
        plan = Plan(threads)
    return Example(case, plan, source.dtype, source.is_tiny, wrong)


def faults_of(made: Example, backends: Sequence[str]) -> list[str]:
    """What differs, on which backend."""
    if made.wrong is not None:
        return wrong_arguments.faults(made.case, made.plan, made.dtype, backends, made.wrong)
    want = fuzz_run.definition(made.case)
    found = []
    for backend in backends:
        faults = fuzz_run.faults(made.case, backend, made.plan, made.dtype, want, made.tiny)
        found += [f"{backend}: {fault}" for fault in faults]
    return found


def report(call: str, made: Example, faults: Sequence[str]) -> str:
    """Everything one needs to see what is wrong."""
    lines = [f"{call}: {made.case.op}, {made.dtype}, {made.plan}"]
    if made.wrong is not None:
        lines.append(f"wrong argument: {made.wrong}")
    return "\n  ".join([*lines, fuzz_run.shapes_of(made.case), *faults])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.operators", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="the first example")
    parser.add_argument("--examples", type=int, default=1000, help="how many, from there on")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after these, however many there were")
    parser.add_argument("--only", nargs="+", default=(), choices=list(MAKERS), metavar="OP", help="these operators")
    parser.add_argument("--backends", nargs="+", help="these backends instead of all of the host")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many")
    options = parser.parse_args(arguments)
    backends = options.backends or [name for name in fastlstm.available_backends() if name != "cuda"]
    if "cpp" in backends:
        importlib.import_module("fastlstm._cpu").set_teams_always(True)
    start = time.monotonic()
    done: collections.Counter[str] = collections.Counter()
    failures = 0
    for seed in range(options.seed, options.seed + options.examples):
        made = example(seed, options.only)
        try:
            faults = faults_of(made, backends)
        except Exception as error:
            faults = [f"the definition raises {type(error).__name__}: {error}"]
        done[made.case.op] += 1
        if faults:
            failures += 1
            only = f" --only {' '.join(options.only)}" if options.only else ""
            print(report(f"--seed {seed} --examples 1{only}", made, faults), flush=True)
        if done.total() % 10_000 == 0:
            print(f"{done.total()} examples in {time.monotonic() - start:.0f} s: {failures} failed", flush=True)
        if failures >= options.failures or time.monotonic() - start > 60 * options.minutes:
            break
    print(
        f"{done.total()} examples of {len(done)} operators on {', '.join(backends)} in "
        f"{time.monotonic() - start:.0f} s: {failures} failed"
    )
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
