"""Whole training steps of whole models, forward, backward, clip and update: what a user waits for.

Against the same models in torch, from the same weights on the same batches. Dropout is left out, so that both sides
can be compared number by number. In bf16, ours in float32 is a side too, and torch under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.conftest import Compare
from benchmarks.measure import AUTOCAST, OURS, OURS_EXACT, Case, agree, case_maker, ways_of_torch
from benchmarks.text_ids import text_ids
from fastlstm import ops
from fastlstm.contract import FloatArray, IntArray, Precision, RowGrad
from fastlstm.models import Model, Seq2seq, SequenceClassifier
from fastlstm.optim import Adam

Batches = Sequence[tuple[IntArray, IntArray]]

BATCHES = 4
CHECKED_STEPS = 3
# Rounding grows from step to step, and the first steps of Adam divide a gradient by its own size.
LOSS_TOLERANCE = {"float32": 1e-4, "bf16": 5e-3}

Sides = dict[str, Callable[[], float]]


# --------------------------------------------------------------------------------------------
# Sequence to sequence, and classes of texts
# --------------------------------------------------------------------------------------------

ADAM_LR, ADAM_MAX_NORM = 1e-3, 5.0


class OurModel:
    def __init__(self, model: Model, batches: Batches) -> None:
        self._model = model
        self._optimizer = Adam(ADAM_LR)
        self._batches = batches
        self._step = 0

    def __call__(self) -> float:
        xs, ts = self._batches[self._step % len(self._batches)]
        self._step += 1
        loss = self._model.forward(xs, ts)
        self._model.backward()
        self._optimizer.update(self._model.params, self._model.grads, ADAM_MAX_NORM)
        return loss


def step_case(
    name: str, ours: Callable[[Precision], Callable[[], float]], torch: Callable[[], Any], precision: Precision
) -> Case:
    """``ours`` and ``torch`` make a model of those sides, from the same weights."""
    sides: Sides = {OURS: ours(precision)}
    if precision != "float32":
        sides[OURS_EXACT] = ours("float32")
    if machine.torch_or_none():

        def in_way(way: str) -> Any:
            model = torch()
            model.autocast = way == AUTOCAST
            return model

        sides |= ways_of_torch(in_way, ("torch",) if precision == "float32" else ("torch", AUTOCAST))
    name += "" if precision == "float32" else f" {precision}"
    return Case("training step", name, sides, equal_losses(sides, LOSS_TOLERANCE[precision]))


def seq2seq_case(
    name: str, V: int, target_V: int, D: int, H: int, *, N: int, S: int, T: int, precision: Precision = "float32"
) -> Case:
    """Sources of S ids; targets of T ids, the start symbol included."""
    rng = np.random.default_rng(0)
    batches = [(text_ids(rng, V, N, S), text_ids(rng, target_V, N, T)) for _ in range(BATCHES)]

    def make(precision: Precision) -> OurModel:
        model = Seq2seq(V, D, H, target_vocab_size=target_V, seed=1)
        return OurModel(model.to("cpu", precision=None if precision == "float32" else precision), batches)

    def torch() -> Any:
        from benchmarks import torch_peers

        weights = dict(Seq2seq(V, D, H, target_vocab_size=target_V, seed=1).named_parameters())
        return torch_peers.Seq2seq(weights, batches, lr=ADAM_LR, max_norm=ADAM_MAX_NORM)

    return step_case(f"{name} V{target_V} D{D} H{H} N{N}", make, torch, precision)


def classifier_case(name: str, V: int, D: int, H: int, *, N: int, T: int) -> Case:
    """Texts of T/2 to T ids, padded to the longest, T."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(BATCHES):
        lengths = np.append(T, rng.integers(T // 2, T + 1, N - 1))
        xs = np.where(np.arange(T) < lengths[:, None], text_ids(rng, V, N, T), -1)
        batches.append((xs, rng.integers(0, 2, N)))

    def torch() -> Any:
        from benchmarks import torch_peers

        weights = dict(SequenceClassifier(V, D, H, 2, seed=1).named_parameters())
        return torch_peers.Classifier(weights, batches, lr=ADAM_LR, max_norm=ADAM_MAX_NORM)

    def ours(_: Precision) -> OurModel:
        return OurModel(SequenceClassifier(V, D, H, 2, seed=1), batches)

    return step_case(f"{name} V{V} D{D} H{H} N{N} T{T}", ours, torch, "float32")


# --------------------------------------------------------------------------------------------
# Language models, in a loop of one's own
# --------------------------------------------------------------------------------------------

SGD_LR, SGD_MAX_NORM = 20.0, 0.25


class OurLanguageModel:
    """Embedding, stateful LSTMs and a projection to the vocabulary, written with ``fastlstm.ops``.

    Tied, without an output weight of its own: the projection reads the transposed embedding where it lies.
    """

    def __init__(
        self,
        embedding: FloatArray,
        lstms: Sequence[tuple[FloatArray, FloatArray, FloatArray]],
        output: FloatArray | None,
        biases: FloatArray,
        batches: Batches,
        precision: Precision = "float32",
    ) -> None:
        self._precision = precision
        self._embedding, self._lstms, self._output, self._biases = embedding, lstms, output, biases
        self._params = [embedding, *(weight for lstm in lstms for weight in lstm), biases]
        if output is not None:
            self._params.append(output)
        self._states: list[tuple[FloatArray | None, FloatArray | None]] = [(None, None)] * len(lstms)
        self._batches = batches
        self._step = 0

    def __call__(self) -> float:
        ids, targets = self._batches[self._step % len(self._batches)]
        self._step += 1
        hs = ops.embedding_forward(self._embedding, ids)
        tapes = []
        for k, (lstm, (h0, c0)) in enumerate(zip(self._lstms, self._states, strict=True)):
            out = ops.lstm_forward(hs, *lstm, h0=h0, c0=c0, precision=self._precision)
            hs, self._states[k] = out.hs, (out.h_n, out.c_n)
            tapes.append(out.tape)
        del out  # the last tape would live as long as it

        output = self._embedding.T if self._output is None else self._output
        # Tied, the gradient of the projection is written where that of the embedding is to be.
        dembedding = np.empty_like(self._embedding) if self._output is None else None
        into = None if dembedding is None else SimpleNamespace(dW=dembedding.T)
        loss, dhs, doutput, dbiases = ops.linear_cross_entropy(
            hs, output, self._biases, targets, out=into, precision=self._precision
        )
        grads: list[FloatArray | RowGrad] = [dbiases]
        while tapes:
            lstm_grads = ops.lstm_backward(dhs, tapes.pop())  # whose memory the next layer's gradients take
            dhs = lstm_grads.dxs
            grads = [lstm_grads.dWx, lstm_grads.dWh, lstm_grads.db, *grads]
        if dembedding is not None:
            ops.scatter_add(dembedding, ids, dhs)
            grads = [dembedding, *grads]
        else:
            grads = [ops.embedding_backward_rows(ids, dhs), *grads, doutput]

        scale = ops.clip_scale(ops.global_norm(grads), SGD_MAX_NORM)
        ops.sgd_update(self._params, grads, SGD_LR, grad_scale=scale)
        return loss


def language_model_weights(V: int, D: int, H: int, layers: int, *, tied: bool) -> dict[str, Any]:
    """Of its own for each side: both change them in place."""
    rng = np.random.default_rng(1)

    def draw(rows: int, columns: int, scale: float) -> FloatArray:
        return np.float32(scale) * rng.standard_normal((rows, columns), dtype=np.float32)

    lstms = []
    for k in range(layers):
        width = D if k == 0 else H
        lstms.append((draw(width, 4 * H, width**-0.5), draw(H, 4 * H, H**-0.5), np.zeros(4 * H, np.float32)))
    return {
        "embedding": draw(V, D, D**-0.5),
        "lstms": lstms,
        "output": None if tied else draw(H, V, H**-0.5),
        "biases": np.zeros(V, np.float32),
    }


def language_model_case(
    name: str, V: int, D: int, H: int, layers: int, *, tied: bool, N: int, T: int, precision: Precision = "float32"
) -> Case:
    rng = np.random.default_rng(0)
    batches = [(text_ids(rng, V, N, T), text_ids(rng, V, N, T)) for _ in range(BATCHES)]

    def make(precision: Precision) -> OurLanguageModel:
        weights = language_model_weights(V, D, H, layers, tied=tied)
        return OurLanguageModel(**weights, batches=batches, precision=precision)

    def torch() -> Any:
        from benchmarks import torch_peers

        weights = language_model_weights(V, D, H, layers, tied=tied)
        return torch_peers.LanguageModel(**weights, batches=batches, lr=SGD_LR, max_norm=SGD_MAX_NORM)

    return step_case(f"{name} V{V} H{H} N{N} T{T}", make, torch, precision)


# --------------------------------------------------------------------------------------------
# The models
# --------------------------------------------------------------------------------------------


def equal_losses(sides: Sides, tolerance: float) -> Callable[[], None]:
    """The first steps of both sides have equal losses; from the second on that takes equal gradients and updates."""

    def check() -> None:
        losses = {side: np.array([call() for _ in range(CHECKED_STEPS)]) for side, call in sides.items()}
        for side in sides:
            agree(side, {"losses": losses[side]}, {"losses": losses[OURS]}, tolerance)

    return check


@case_maker
def addition_case() -> Case:
    return seq2seq_case("addition", 13, 13, 16, 128, N=128, S=7, T=5)


@case_maker
def small_language_model_case() -> Case:
    return language_model_case("RNNLM 100", 10_000, 100, 100, 1, tied=False, N=20, T=35)


@case_maker
def medium_language_model_case() -> Case:
    return language_model_case("RNNLM 2x200", 10_000, 200, 200, 2, tied=False, N=20, T=20)


@case_maker
def large_language_model_case(precision: Precision = "float32") -> Case:
    return language_model_case("RNNLM 2x650 tied", 10_000, 650, 650, 2, tied=True, N=20, T=35, precision=precision)


@case_maker
def translation_case(precision: Precision = "float32") -> Case:
    return seq2seq_case("NMT", 6500, 8778, 256, 1024, N=64, S=18, T=18, precision=precision)


@case_maker
def sentiment_case() -> Case:
    return classifier_case("sentiment", 10_000, 128, 128, N=16, T=100)


CASES = {
    "addition": addition_case,
    "RNNLM 100": small_language_model_case,
    "RNNLM 2x200": medium_language_model_case,
    "RNNLM 2x650 tied": large_language_model_case,
    "NMT": translation_case,
    "sentiment": sentiment_case,
}

QUICK = ("addition", "RNNLM 100", "sentiment")
IN_BF16 = {"RNNLM 2x650 tied": large_language_model_case, "NMT": translation_case}


@pytest.mark.parametrize("name", CASES)
def test_training_step(compare: Compare, name: str) -> None:
    compare(CASES[name]())


@pytest.mark.parametrize("name", IN_BF16)
def test_training_step_in_bf16(compare: Compare, name: str) -> None:
    compare(IN_BF16[name]("bf16"))
