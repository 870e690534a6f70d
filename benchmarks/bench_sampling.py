"""A training step with noise-contrastive estimation: sample, gather, forward, backward, sparse SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, textbook
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, agree, case_maker
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array, Candidates, FloatArray

V, E, B, S = 50_000, 128, 128, 64
LR = 1.0
# More than one batch, so that the rows touched are not always in the cache.
BATCHES = 50

Tables = dict[str, Array]
Batches = Sequence[tuple[Array, Array]]


def tables() -> Tables:
    """Parameters of their own for each side."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> FloatArray:
        return 0.1 * rng.standard_normal(shape, dtype=np.float32)

    return {"embedding": draw(V, E), "weights": draw(V, E), "biases": draw(V)}


def batches() -> Batches:
    rng = np.random.default_rng(1)
    return [(text_ids(rng, V, B), text_ids(rng, V, B)) for _ in range(BATCHES)]


class OurNCEStep:
    def __init__(self, tables: Tables, batches: Batches) -> None:
        self.tables = tables
        self._batches = batches
        self._rng = np.random.default_rng(2)
        self._step = 0

    def __call__(self) -> FloatArray:
        ids, labels = self._batches[self._step % len(self._batches)]
        self._step += 1
        return self.step(ids, labels, ops.log_uniform_candidates(S, V, labels, rng=self._rng))

    def step(self, ids: Array, labels: Array, candidates: Candidates) -> FloatArray:
        """The loss of every row (B,)."""
        embedding, weights, biases = self.tables.values()
        x = ops.embedding_forward(embedding, ids)
        nce = ops.nce_loss(weights, biases, labels, x, candidates)
        dembedding = ops.embedding_backward_rows(ids, nce.dinputs)
        assert nce.dbiases is not None
        ops.sgd_update([weights, biases, embedding], [nce.dweights, nce.dbiases, dembedding], LR)
        return nce.loss


class TextbookNCEStep:
    def __init__(self, tables: Tables, batches: Batches) -> None:
        self.tables = tables
        self._batches = batches
        self._rng = np.random.default_rng(2)
        self._step = 0

    def __call__(self) -> Array:
        ids, labels = self._batches[self._step % len(self._batches)]
        self._step += 1
        return self.step(ids, labels, self._rng)

    def step(self, ids: Array, labels: Array, rng: np.random.Generator) -> Array:
        embedding, weights, biases = self.tables.values()
        x = textbook.embedding_forward(embedding, ids)
        loss, dx = textbook.nce_step(weights, biases, labels[:, np.newaxis], x, num_sampled=S, lr=LR, rng=rng)
        np.subtract.at(embedding, ids, np.float32(LR) * dx)
        return loss


def check_step(with_torch: bool) -> None:
    """One step of every side from the same parameters on the same sample: loss and parameters agree.

    The sample is the one that the textbook code draws from seed 3; its expected counts have to be ours.
    """
    ids, labels = batches()[0]
    drawn = textbook.log_uniform_candidates(S, V, labels, np.random.default_rng(3))
    candidates = Candidates(*drawn)
    for name, classes in (("true_expected_count", labels), ("sampled_expected_count", drawn.sampled)):
        count = ops.log_uniform_expected_count(classes, drawn.num_tries, V, num_sampled=S)
        agree(OURS, {name: count}, {name: getattr(drawn, name)}, TOLERANCE["float64"])

    with use_backend("numpy"):
        definition = OurNCEStep({name: table.astype(np.float64) for name, table in tables().items()}, ())
        want = {"loss": definition.step(ids, labels, candidates), **definition.tables}
    ours = OurNCEStep(tables(), ())
    agree(OURS, {"loss": ours.step(ids, labels, candidates), **ours.tables}, want, TOLERANCE["float32"])
    by_hand = TextbookNCEStep(tables(), ())
    loss = by_hand.step(ids, labels, np.random.default_rng(3))
    agree(TEXTBOOK, {"loss": loss, **by_hand.tables}, want, TOLERANCE["float32"])
    if with_torch and (torch := machine.torch_or_none()):
        from benchmarks import torch_peers

        peer = torch_peers.NCEStep(**tables(), batches=(), num_sampled=S, lr=LR)
        sample = torch_peers.Candidates(*map(torch.from_numpy, drawn[:3]))
        loss = peer.step(torch.from_numpy(ids), torch.from_numpy(labels), sample).detach().numpy()
        agree("torch", {"loss": loss, **peer.tables()}, want, TOLERANCE["float32"])


@case_maker
def nce_case(*, backend: str | None = None, peers: tuple[str, ...] = ("torch", TEXTBOOK)) -> Case:
    sides: dict[str, Any] = {OURS: OurNCEStep(tables(), batches())}
    if "torch" in peers and machine.torch_or_none():
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.NCEStep(**tables(), batches=batches(), num_sampled=S, lr=LR)
    if TEXTBOOK in peers:
        sides[TEXTBOOK] = TextbookNCEStep(tables(), batches())
    return Case("NCE step", f"V{V} E{E} B{B} S{S}", sides, lambda: check_step("torch" in sides), backend=backend)


def test_nce_step(compare: Compare) -> None:
    compare(nce_case())


def test_nce_step_numba(compare: Compare) -> None:
    pytest.importorskip("numba", reason="Numba is not installed: pip install numba")
    compare(nce_case(backend="numba", peers=(TEXTBOOK,)))
