"""tanh RNN forward and backward over whole sequences, against torch.nn.RNN and the textbook code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, textbook
from benchmarks.bench_lstm import SHAPES, bf16_case, check_recurrent, definition, inputs, operations, title
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, agree, case_maker
from fastlstm import ops
from fastlstm.contract import TOLERANCE, Array, Precision

PRODUCTS = "numpy's two products"


class OurRNN:
    def __init__(
        self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array, *, precision: Precision | None = None
    ) -> None:
        self._xs, self._weights, self._dhs = xs, (Wx, Wh, b), dhs
        self._precision = precision

    def __call__(self) -> Any:
        out = ops.rnn_forward(self._xs, *self._weights, precision=self._precision)
        return out, ops.rnn_backward(self._dhs, out.tape)

    def results(self) -> dict[str, Array]:
        out, grads = self()
        return {"hs": out.hs, "dxs": grads.dxs, "dWx": grads.dWx, "dWh": grads.dWh, "db": grads.db}


class TextbookRNN:
    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        self._layer = textbook.TimeRNN(Wx, Wh, b)
        self._xs, self._dhs = xs, dhs

    def __call__(self) -> tuple[Array, Array]:
        hs = self._layer.forward(self._xs)[0]
        return hs, self._layer.backward(self._dhs)[0]

    def results(self) -> dict[str, Array]:
        hs, dxs = self()
        return {"hs": hs, "dxs": dxs, **dict(zip(("dWx", "dWh", "db"), self._layer.grads, strict=True))}


@case_maker
def rnn_case(name: str, *, peers: tuple[str, ...] = ("torch", TEXTBOOK)) -> Case:
    arrays = inputs(name, 1)
    sides: dict[str, Any] = {OURS: OurRNN(**arrays)}
    if "torch" in peers and (torch := machine.torch_or_none()):
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.Recurrent(torch.nn.RNN, **arrays)
    if TEXTBOOK in peers:
        sides[TEXTBOOK] = TextbookRNN(**arrays)
    return Case(
        "tanh RNN forward + backward",
        title(name),
        sides,
        check_recurrent(sides, lambda: definition(OurRNN, name, 1)),
        operations(name, 1),
    )


@case_maker
def step_case(N: int = 1, H: int = 100) -> Case:
    """A step of as many inputs as units, beside numpy's two products alone: no sum, no tanh."""
    arrays = inputs((N, 1, H, H), 1)
    x, h, weights = arrays["xs"][:, 0], arrays["dhs"][:, 0], (arrays["Wx"], arrays["Wh"], arrays["b"])
    Wx, Wh, b = weights
    sides: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.rnn_cell_forward(x, h, *weights),
        PRODUCTS: lambda: (x @ Wx, h @ Wh),
    }

    def check() -> None:
        want = np.tanh(sum(sides[PRODUCTS]()) + b)
        agree("our step and that of numpy", {"h": sides[OURS]().h}, {"h": want}, TOLERANCE["float32"])

    return Case("tanh RNN, one step", f"N{N} H{H}", sides, check, 2.0 * 2 * N * H * H, threads=1)


@case_maker
def rnn_bf16_case(name: str) -> Case:
    return bf16_case("tanh RNN", OurRNN, "RNN", name, 1)


def test_rnn_in_bf16(compare: Compare) -> None:
    compare(rnn_bf16_case("ptb"))


def test_step(compare: Compare) -> None:
    compare(step_case())


@pytest.mark.parametrize("name", SHAPES)
def test_rnn(compare: Compare, name: str) -> None:
    compare(rnn_case(name))
