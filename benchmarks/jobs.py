"""Whole jobs: what somebody waits for, from numbers that were measured.

What takes hours is not run to its end: "extrapolated" says so, with the number of steps that were timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastlstm
from benchmarks import bench_sampling, bench_training_steps, machine, measure, word_vectors
from benchmarks.bench_training_steps import ADAM_LR, ADAM_MAX_NORM, OurModel
from benchmarks.machine import say
from benchmarks.measure import OURS, PAUSE, Case, Comparison, Effort
from benchmarks.text_ids import text_ids
from fastlstm.datasets import SequencePairs, addition, hold_out
from fastlstm.datasets.words import Words
from fastlstm.models import Seq2seq

PTB_WORDS = 929_589  # the training part
WANTED_ACCURACY = 0.95
MOST_EPOCHS = 25

Job = dict[str, Any]


def measure_jobs(comparisons: Sequence[Comparison], effort: Effort, *, quick: bool) -> list[Job]:
    """Every job as JSON: its name, a unit, a value for each side, which is better, and how it was measured.

    Training steps that stand among ``comparisons`` are not measured again.
    """

    def timed(make: Callable[[], Case], family: str, name: str) -> Comparison:
        done = (c for c in comparisons if c.family == family and c.name.startswith(name) and c.threads == machine.CORES)
        return next(done, None) or measure.compare(make(), effort)

    say("whole jobs")
    jobs = [addition_to_accuracy(epochs=1 if quick else MOST_EPOCHS)]
    steps = bench_training_steps.CASES
    models = (("RNNLM 100", 20 * 35), ("RNNLM 2x200", 20 * 20), ("RNNLM 2x650 tied", 20 * 35))
    for name, words in models[: 1 if quick else None]:
        jobs += _language_model(timed(steps[name], "training step", name), words)
    if not quick:
        jobs.append(
            _rate("translation, 256/1024/8,778", "sentences/s", timed(steps["NMT"], "training step", "NMT"), 64)
        )
    nce = timed(bench_sampling.nce_case, "NCE step", "")
    jobs.append(_rate("word2vec, NCE, V 50,000, E 128", "pairs/s", nce, bench_sampling.B))
    jobs.append(word2vec(words=20_000 if quick else 200_000))
    for job in jobs:
        say(
            f"  {job['job']}, {job['unit']}: "
            + ", ".join(f"{side} {value:,.4g}" for side, value in job["values"].items())
        )
    return jobs


def _rate(job: str, unit: str, comparison: Comparison, of_a_step: int) -> Job:
    return {
        "job": job,
        "unit": unit,
        "values": {side: of_a_step / comparison.median(side) for side in comparison.seconds},
        "smaller_is_better": False,
        "how": f"training, median of {len(comparison.seconds[OURS])} steps",
    }


def _language_model(comparison: Comparison, words: int) -> list[Job]:
    job = f"language model {comparison.name.split(' V')[0].removeprefix('RNNLM ')}, V 10,000"
    rate = _rate(job, "tokens/s", comparison, words)
    epoch = {
        "job": job,
        "unit": "s for an epoch of PTB",
        "values": {side: PTB_WORDS / value for side, value in rate["values"].items()},
        "smaller_is_better": True,
        "how": f"extrapolated to {PTB_WORDS:,} words from {len(comparison.seconds[OURS])} steps; without dropout",
    }
    return [rate, epoch]


# --------------------------------------------------------------------------------------------
# Addition
# --------------------------------------------------------------------------------------------


def addition_to_accuracy(*, epochs: int = MOST_EPOCHS, sums: int = 50_000) -> Job:
    """Seconds of training until so many held-out sums are right: both sides from equal weights on equal batches.

    The reading of the accuracy, after every epoch, is done by our model with the side's weights and is not counted.
    """
    training, held_out = hold_out(addition(sums, seed=0))
    N = 128
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(training.xs))[: len(training.xs) // N * N].reshape(-1, N) for _ in range(epochs)]
    batches = [(training.xs[rows], training.ts[rows]) for order in orders for rows in order]
    model, judge = (Seq2seq(13, 16, 128, reverse_source=True, peeky=True, seed=1) for _ in range(2))
    weights = {name: array.copy() for name, array in model.named_parameters()}
    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        OURS: (OurModel(model, batches), lambda: dict(model.named_parameters()))
    }
    if machine.torch_or_none():
        from benchmarks import torch_peers

        peer = torch_peers.PeekySeq2seq(weights, batches, lr=ADAM_LR, max_norm=ADAM_MAX_NORM)
        sides["torch"] = peer, peer.weights
    steps = len(orders[0])
    values, reached, accuracies = {}, {}, {}
    with machine.same_threads():
        for side, (step, weights_now) in sides.items():
            time.sleep(PAUSE)
            seconds, epoch = 0.0, 0
            while epoch < epochs and accuracies.get(side, 0.0) < WANTED_ACCURACY:
                epoch += 1
                since = time.perf_counter()
                for _ in range(steps):
                    step()
                seconds += time.perf_counter() - since
                accuracies[side] = _accuracy(judge, weights_now(), held_out)
            values[side], reached[side] = seconds, epoch
    done = ", ".join(f"{side} {accuracies[side]:.1%} after {reached[side]} epochs" for side in sides)
    goal = "" if min(accuracies.values()) >= WANTED_ACCURACY else f"stopped below {WANTED_ACCURACY:.0%}: "
    return {
        "job": "addition, reversed and peeky, H 128" + ("" if goal else f": to {WANTED_ACCURACY:.0%} right"),
        "unit": "s",
        "values": values,
        "smaller_is_better": True,
        "how": f"{goal}{done} of {steps} steps; training alone, one run, seed 1",
    }


def _accuracy(judge: Seq2seq, weights: dict[str, Any], held_out: SequencePairs) -> float:
    for name, array in judge.named_parameters():
        array[...] = weights[name]
    return judge.evaluate(held_out.xs, held_out.ts, metrics=("accuracy",))["accuracy"]


# --------------------------------------------------------------------------------------------
# Word vectors
# --------------------------------------------------------------------------------------------


def word2vec(*, words: int) -> Job:
    """Skip-gram with negative sampling over a made-up text by Zipf's law, one thread, beside gensim where installed."""
    drawn = text_ids(np.random.default_rng(0), 20_000, words)
    _, ids, counts = np.unique(drawn, return_inverse=True, return_counts=True)
    by_frequency = np.argsort(-counts, kind="stable")
    rank = np.argsort(by_frequency)
    text = Words(rank[ids], [f"w{k}" for k in range(len(counts))], counts[by_frequency])
    values = {}
    before = fastlstm.get_num_threads()
    fastlstm.set_num_threads(1)
    try:
        values[OURS] = words / word_vectors.train_ours(text, 1, 1, 1).seconds
        try:
            values["gensim"] = words / word_vectors.train_gensim(text, 1, 1, 1).seconds
        except ImportError:
            say("  gensim is not installed: word2vec without it")
    finally:
        fastlstm.set_num_threads(before)
    return {
        "job": "word2vec, negative sampling, E 128, window 5, one thread",
        "unit": "words/s",
        "values": values,
        "smaller_is_better": False,
        "how": f"one epoch of {words:,} words drawn by Zipf's law from 20,000, one run",
    }
