"""tanh RNN forward and backward over whole sequences, against torch.nn.RNN and the textbook code."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import machine, textbook
from benchmarks.bench_lstm import SHAPES, check_recurrent, definition, inputs, operations, title
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, TEXTBOOK, Case, case_maker
from fastlstm import ops
from fastlstm.contract import Array


class OurRNN:
    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        self._xs, self._weights, self._dhs = xs, (Wx, Wh, b), dhs

    def __call__(self) -> Any:
        out = ops.rnn_forward(self._xs, *self._weights)
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


@pytest.mark.parametrize("name", SHAPES)
def test_rnn(compare: Compare, name: str) -> None:
    compare(rnn_case(name))
