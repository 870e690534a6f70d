"""Softmax and cross entropy of a large vocabulary with its projection, forward and backward; and dense products."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from benchmarks import fresh_process, machine, textbook
from benchmarks.conftest import Compare
from benchmarks.measure import AUTOCAST, OURS, OURS_EXACT, TEXTBOOK, Case, agree, case_maker, ways_of_torch
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array, Precision

# (M, H, V): PTB with H 650, translation with H 1024.
SIZES = ((700, 650, 10_000), (1088, 1024, 8778))
# (M, K, L) of dense products: the inputs of the gates of both.
PRODUCT_SIZES = ((700, 650, 2600), (1152, 1024, 4096))

Memory = Literal["fast", "low"]

WAYS: dict[Precision, tuple[str, ...]] = {"float32": ("torch",), "bf16": ("torch", AUTOCAST)}


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
    M: int,
    H: int,
    V: int,
    memory: Memory,
    *,
    precision: Precision = "float32",
    peers: tuple[str, ...] = ("torch", TEXTBOOK),
) -> Case:
    """In bf16, ours in float32 is a side too, and torch under autocast."""
    arrays = inputs(M, H, V)
    sides: dict[str, Any] = {OURS: lambda: ops.linear_cross_entropy(*arrays, memory=memory, precision=precision)}
    if precision != "float32":
        sides[OURS_EXACT] = lambda: ops.linear_cross_entropy(*arrays, memory=memory)
    if "torch" in peers and machine.torch_or_none():
        from benchmarks import torch_peers

        sides |= ways_of_torch(
            lambda way: torch_peers.LinearCrossEntropy(*arrays, autocast=way == AUTOCAST), WAYS[precision]
        )
    if TEXTBOOK in peers:
        textbook_side = TextbookLinearCrossEntropy(*arrays)
        sides[TEXTBOOK] = textbook_side

    def check() -> None:
        want = definition(M, H, V)
        agree(OURS, results(sides[OURS]()), want, TOLERANCE[precision])
        for way in WAYS[precision]:
            if way in sides:
                agree(way, sides[way].results(), want, TOLERANCE[precision])
        if TEXTBOOK in sides:
            agree(TEXTBOOK, textbook_side(), want, TOLERANCE["float32"])

    name = f"M{M} H{H} V{V}" + _named(precision)
    return Case(f"linear cross entropy, {memory}", name, sides, check, operations=3.0 * 2 * M * H * V)


def _named(precision: Precision) -> str:
    return "" if precision == "float32" else f" {precision}"


@case_maker
def matrix_product_case(M: int, K: int, L: int, *, precision: Precision = "float32") -> Case:
    """a (M, K) times b (K, L) with a bias; the other sides as in `linear_cross_entropy_case`."""
    rng = np.random.default_rng(0)
    a, b, bias = (rng.standard_normal(shape, dtype=np.float32) for shape in ((M, K), (K, L), (L,)))
    b *= np.float32(1 / np.sqrt(K))
    sides: dict[str, Any] = {OURS: lambda: ops.matrix_product(a, b, bias=bias, precision=precision)}
    if precision != "float32":
        sides[OURS_EXACT] = lambda: ops.matrix_product(a, b, bias=bias)
    if machine.torch_or_none():
        from benchmarks import torch_peers

        sides |= ways_of_torch(
            lambda way: torch_peers.MatrixProduct(a, b, bias, autocast=way == AUTOCAST), WAYS[precision]
        )

    def check() -> None:
        want = {"out": a.astype(np.float64) @ b + bias}
        agree(OURS, {"out": sides[OURS]()}, want, TOLERANCE[precision])
        for way in WAYS[precision]:
            if way in sides:
                agree(way, sides[way].results(), want, TOLERANCE[precision])

    return Case("dense product", f"M{M} K{K} L{L}" + _named(precision), sides, check, operations=2.0 * M * K * L)


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


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("size", PRODUCT_SIZES, ids=lambda size: "M{} K{} L{}".format(*size))
def test_matrix_product(compare: Compare, size: tuple[int, int, int], precision: Precision) -> None:
    compare(matrix_product_case(*size, precision=precision))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "M{} H{} V{}".format(*size))
def test_linear_cross_entropy_in_bf16(compare: Compare, size: tuple[int, int, int]) -> None:
    compare(linear_cross_entropy_case(*size, "fast", precision="bf16", peers=("torch",)))


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
