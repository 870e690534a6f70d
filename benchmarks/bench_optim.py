"""Adam over the 23.4 million parameters of a translation model, alone and with clipping of the gradients' norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, textbook
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, agree, case_maker
from fastlstm import ops
from fastlstm.contract import TOLERANCE, Array

# The translation model of bench_training_steps.py: two embeddings, two LSTMs (Wx, Wh, b), output.
SHAPES = (
    (6500, 256),
    (8778, 256),
    *2 * ((256, 4096), (1024, 4096), (4096,)),
    (1024, 8778),
    (8778,),
)
LR = 1e-3
MAX_NORM = 0.25  # far below the norm of the gradients: clipping takes place


def inputs() -> tuple[list[Array], list[Array]]:
    """Parameters and gradients, for each side its own."""
    rng = np.random.default_rng(0)
    params = [0.1 * rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]
    return params, [rng.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


class OurAdam:
    """The factor of the clipping goes to the update; the gradients stay as they are."""

    def __init__(self, *, clip: bool) -> None:
        self.params, self._grads = inputs()
        self._m = [np.zeros_like(param) for param in self.params]
        self._v = [np.zeros_like(param) for param in self.params]
        self._clip = clip
        self._step = 0

    def __call__(self) -> None:
        self._step += 1
        scale = ops.clip_scale(ops.global_norm(self._grads), MAX_NORM) if self._clip else 1.0
        ops.adam_update(self.params, self._grads, self._m, self._v, LR, step=self._step, grad_scale=scale)


class TextbookAdam:
    def __init__(self, *, clip: bool) -> None:
        self.params, self._grads = inputs()
        self._adam = textbook.Adam(LR)
        self._clip = clip

    def __call__(self) -> None:
        if self._clip:
            textbook.clip_grads(self._grads, MAX_NORM)
        self._adam.update(self.params, self._grads)


@case_maker
def adam_case(*, clip: bool, peers: tuple[str, ...] = ("torch", TEXTBOOK)) -> Case:
    makers: dict[str, Callable[[], Any]] = {OURS: lambda: OurAdam(clip=clip)}
    if "torch" in peers and machine.torch_or_none():
        from benchmarks import torch_peers

        makers["torch"] = lambda: torch_peers.Adam(*inputs(), lr=LR, max_norm=MAX_NORM if clip else None)
    if TEXTBOOK in peers:
        makers[TEXTBOOK] = lambda: TextbookAdam(clip=clip)
    sides = {side: make() for side, make in makers.items()}

    def check() -> None:
        """Two steps of each side."""
        for _ in range(2):
            for call in sides.values():
                call()
        want = {str(k): param for k, param in enumerate(sides[OURS].params)}
        for side in list(sides)[1:]:
            got = {str(k): np.asarray(param) for k, param in enumerate(sides[side].params)}
            agree(side, got, want, TOLERANCE["float32"])

    millions = sum(int(np.prod(shape)) for shape in SHAPES) / 1e6
    return Case("clipping and Adam" if clip else "Adam", f"{millions:.1f}M parameters", sides, check, memory=False)


@pytest.mark.parametrize("clip", [False, True], ids=["plain", "clipped"])
def test_adam(compare: Compare, clip: bool) -> None:
    compare(adam_case(clip=clip))
