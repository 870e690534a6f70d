"""Projection to a large vocabulary with softmax and cross entropy, forward and backward: time and memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from benchmarks import fresh_process, machine, textbook
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, agree, case_maker
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array

# (M, H, V): PTB with H 650, translation with H 1024.
SIZES = ((700, 650, 10_000), (1088, 1024, 8778))

Memory = Literal["fast", "low"]


def inputs(M: int, H: int, V: int) -> tuple[Array, Array, Array, Array]:
    """h (M, H), W (H, V), b (V,), targets (M,)."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    W = draw(H, V)
    W *= np.float32(1 / np.sqrt(H))  # in place: a large temporary would blur the measured memory
    return draw(M, H), W, draw(V), text_ids(rng, V, M)


def results(grads: Any) -> dict[str, Array]:
    return {"loss": np.asarray(grads.loss), "dh": grads.dh, "dW": grads.dW, "db": grads.db}


@functools.cache
def definition(M: int, H: int, V: int) -> dict[str, Array]:
    """The results of the numpy backend in float64."""
    h, W, b, targets = inputs(M, H, V)
    with use_backend("numpy"):
        return results(
            ops.linear_cross_entropy(h.astype(np.float64), W.astype(np.float64), b.astype(np.float64), targets)
        )


class TextbookLinearCrossEntropy:
    def __init__(self, h: Array, W: Array, b: Array, targets: Array) -> None:
        self._h, self._W, self._b, self._targets = h, W, b, targets

    def __call__(self) -> dict[str, Array]:
        logits = textbook.affine_forward(self._h, self._W, self._b)
        loss, dlogits = textbook.softmax_cross_entropy(logits, self._targets)
        dh, dW, db = textbook.affine_backward(self._h, self._W, dlogits)
        return {"loss": np.asarray(loss), "dh": dh, "dW": dW, "db": db}


@case_maker
def linear_cross_entropy_case(
    M: int, H: int, V: int, memory: Memory, *, peers: tuple[str, ...] = ("torch", TEXTBOOK)
) -> Case:
    arrays = inputs(M, H, V)
    sides: dict[str, Callable[[], Any]] = {OURS: lambda: ops.linear_cross_entropy(*arrays, memory=memory)}
    if "torch" in peers and machine.torch_or_none():
        from benchmarks import torch_peers

        torch_side = torch_peers.LinearCrossEntropy(*arrays)
        sides["torch"] = torch_side
    if TEXTBOOK in peers:
        textbook_side = TextbookLinearCrossEntropy(*arrays)
        sides[TEXTBOOK] = textbook_side

    def check() -> None:
        want = definition(M, H, V)
        agree(OURS, results(sides[OURS]()), want, TOLERANCE["float32"])
        if "torch" in sides:
            agree("torch", torch_side.results(), want, TOLERANCE["float32"])
        if TEXTBOOK in sides:
            agree(TEXTBOOK, textbook_side(), want, TOLERANCE["float32"])

    return Case(f"linear cross entropy, {memory}", f"M{M} H{H} V{V}", sides, check, operations=3.0 * 2 * M * H * V)


@case_maker
def reduction_case(M: int, H: int, V: int) -> Case:
    """The sum of the losses beside their mean: what they are divided by costs nothing."""
    arrays = inputs(M, H, V)
    sides: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.linear_cross_entropy(*arrays, reduction="sum"),
        "mean": lambda: ops.linear_cross_entropy(*arrays),
    }

    def check() -> None:
        mean = definition(M, H, V)
        agree(OURS, results(sides[OURS]()), {name: M * value for name, value in mean.items()}, TOLERANCE["float32"])
        agree("mean", results(sides["mean"]()), mean, TOLERANCE["float32"])

    return Case("linear cross entropy, sum", f"M{M} H{H} V{V}", sides, check, operations=3.0 * 2 * M * H * V)


def extra_memory(side: str, M: int, H: int, V: int) -> int:
    """Bytes that one side ("fast", "low" or "torch") needs beside its inputs, its gradients included.

    For a process of its own.
    """

    def step_at(M: int, H: int, V: int) -> Callable[[], Any]:
        arrays = inputs(M, H, V)
        if side == "torch":
            from benchmarks import torch_peers

            return torch_peers.LinearCrossEntropy(*arrays)
        memory: Memory = "low" if side == "low" else "fast"
        return lambda: ops.linear_cross_entropy(*arrays, memory=memory)

    step_at(64, 64, 128)()  # starts the threads and loads what is loaded on first use
    return fresh_process.extra_peak(step_at(M, H, V))


def gradient_bytes(M: int, H: int, V: int) -> int:
    """dh, dW and db."""
    return 4 * (M * H + H * V + V)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "M{} H{} V{}".format(*size))
def test_a_sum_beside_a_mean(compare: Compare, size: tuple[int, int, int]) -> None:
    compare(reduction_case(*size))


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "M{} H{} V{}".format(*size))
def test_linear_cross_entropy(compare: Compare, benchmark: Any, size: tuple[int, int, int], memory: Memory) -> None:
    peers = ("torch", TEXTBOOK) if memory == "fast" else ("torch",)
    compared = compare(linear_cross_entropy_case(*size, memory, peers=peers))
    if compared is None:
        return
    for side in (memory, "torch"):
        if side != "torch" or "torch" in compared.seconds:
            extra = fresh_process.call(extra_memory, side, *size)
            benchmark.extra_info[f"{side} extra MB"] = extra / 1e6
            print(
                f"{compared.title}, {compared.name}: {side} needs {extra / 1e6:.1f} MB beside its inputs, "
                f"{(extra - gradient_bytes(*size)) / 1e6:.1f} MB of them beside the gradients"
            )
