"""Gradients of an embedding: dense against np.add.at (with zeroing) and torch; by rows against torch's dense one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, textbook
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, Case, agree, case_maker
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array, RowGrad

# (V, E, M): a batch of a word-level language model, of word2vec, of a large batch of it, of addition.
SIZES = ((10_000, 650, 700), (50_000, 128, 100), (50_000, 128, 12_800), (13, 16, 896))


# As many batches follow one another, so that each has to clear what another left behind.
BATCHES = 4

ALL_ZEROED = "fastlstm, all rows zeroed"

Batches = list[tuple[Array, Array]]


def inputs(V: int, E: int, M: int) -> Batches:
    """Each ids (M,) and dout (M, E), one array for all: in training it has just been written, and is in the cache."""
    rng = np.random.default_rng(0)
    dout = rng.standard_normal((M, E), dtype=np.float32)
    return [(text_ids(rng, V, M), dout) for _ in range(BATCHES)]


def name_of(V: int, E: int, M: int) -> str:
    return f"V{V} E{E} M{M}"


def definition(batches: Batches, V: int) -> list[Array]:
    with use_backend("numpy"):
        return [ops.embedding_backward(ids, dout.astype(np.float64), V) for ids, dout in batches]


class IntoOneArray:
    """Overwrites one array with one batch's gradient after the other, as layers do."""

    def __init__(self, batches: Batches, V: int) -> None:
        self.batches = batches
        self.V = V
        self.dW = np.full((V, batches[0][1].shape[1]), np.nan, np.float32)
        self.step = 0

    def next_batch(self) -> tuple[Array, Array]:
        self.step += 1
        return self.batches[(self.step - 1) % len(self.batches)]


class OursAllZeroed(IntoOneArray):
    def __call__(self) -> Array:
        return ops.embedding_backward(*self.next_batch(), self.V, out=self.dW)


class OursTouchedZeroed(IntoOneArray):
    """Only the rows of the batch before are zeroed again."""

    def __call__(self) -> Array:
        touched = self.batches[(self.step - 1) % len(self.batches)][0] if self.step else None
        return ops.embedding_backward(*self.next_batch(), self.V, out=self.dW, touched=touched)


class AddAt(IntoOneArray):
    def __call__(self) -> Array:
        textbook.embedding_backward(self.dW, *self.next_batch())
        return self.dW


@case_maker
def dense_case(
    V: int, E: int, M: int, *, backend: str | None = None, peers: tuple[str, ...] = ("torch", "np.add.at")
) -> Case:
    batches = inputs(V, E, M)
    sides: dict[str, Callable[[], Any]] = {
        OURS: OursTouchedZeroed(batches, V),
        ALL_ZEROED: OursAllZeroed(batches, V),
    }
    if "torch" in peers and machine.torch_or_none():
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.EmbeddingGradient(batches, V)
    if "np.add.at" in peers:
        sides["np.add.at"] = AddAt(batches, V)

    def check() -> None:
        for want in definition(batches, V):
            for side, call in sides.items():
                agree(side, {"dW": call()}, {"dW": want}, TOLERANCE["float32"])

    return Case("dense embedding gradient", name_of(V, E, M), sides, check, backend=backend)


class OurRows:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._step = 0

    def __call__(self) -> RowGrad:
        self._step += 1
        return ops.embedding_backward_rows(*self._batches[(self._step - 1) % len(self._batches)])


@case_maker
def rows_case(V: int, E: int, M: int) -> Case:
    batches = inputs(V, E, M)
    ours = OurRows(batches)
    sides: dict[str, Callable[[], Any]] = {OURS: ours}
    if machine.torch_or_none():
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.EmbeddingGradient(batches, V)

    def check() -> None:
        for want in definition(batches, V):
            rows = ours()
            dense = np.zeros((V, E), np.float32)
            dense[rows.indices] = rows.values
            agree(OURS, {"dW": dense}, {"dW": want}, TOLERANCE["float32"])
            if "torch" in sides:
                agree("torch", {"dW": sides["torch"]()}, {"dW": want}, TOLERANCE["float32"])

    return Case("row gradient against a dense one", name_of(V, E, M), sides, check)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: name_of(*size))
def test_dense_gradient(compare: Compare, size: tuple[int, int, int]) -> None:
    compare(dense_case(*size))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: name_of(*size))
def test_row_gradient(compare: Compare, size: tuple[int, int, int]) -> None:
    compare(rows_case(*size))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: name_of(*size))
def test_dense_gradient_numba(compare: Compare, size: tuple[int, int, int]) -> None:
    pytest.importorskip("numba", reason="Numba is not installed: pip install numba")
    compare(dense_case(*size, backend="numba", peers=("np.add.at",)))
