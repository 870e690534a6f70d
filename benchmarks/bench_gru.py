"""GRU forward and backward over whole sequences, against torch.nn.GRU."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import machine
from benchmarks.bench_lstm import SHAPES, bf16_case, check_recurrent, definition, inputs, operations, title
from benchmarks.conftest import Compare
from benchmarks.measure import OURS, Case, case_maker
from fastlstm import ops
from fastlstm.contract import Array, GRUConventionName, Precision


class OurGRU:
    convention: GRUConventionName = "pytorch"

    def __init__(
        self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array, *, precision: Precision | None = None
    ) -> None:
        self._xs, self._weights, self._dhs = xs, (Wx, Wh, b), dhs
        self._precision = precision

    def __call__(self) -> Any:
        out = ops.gru_forward(self._xs, *self._weights, convention=self.convention, precision=self._precision)
        return out, ops.gru_backward(self._dhs, out.tape)

    def results(self) -> dict[str, Array]:
        out, grads = self()
        return {"hs": out.hs, "dxs": grads.dxs, "dWx": grads.dWx, "dWh": grads.dWh, "db": grads.db}


class BookGRU(OurGRU):
    """With the reset gate before the product, which PyTorch has not: beside it without a comparison of results."""

    convention: GRUConventionName = "book"

    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        super().__init__(xs, Wx, Wh, b[0], dhs)


@case_maker
def gru_case(name: str) -> Case:
    """Both conventions, and torch.nn.GRU."""
    arrays = inputs(name, 3)
    sides: dict[str, Any] = {OURS: OurGRU(**arrays)}
    if torch := machine.torch_or_none():
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.Recurrent(torch.nn.GRU, **arrays)
    check = check_recurrent(dict(sides), lambda: definition(OurGRU, name, 3))
    sides["the book's convention"] = BookGRU(**arrays)
    return Case("GRU forward + backward", title(name), sides, check, operations(name, 3))


@case_maker
def gru_bf16_case(name: str) -> Case:
    return bf16_case("GRU", OurGRU, "GRU", name, 3)


def test_gru_in_bf16(compare: Compare) -> None:
    compare(gru_bf16_case("ptb"))


@pytest.mark.parametrize("name", SHAPES)
def test_gru(compare: Compare, name: str) -> None:
    compare(gru_case(name))
