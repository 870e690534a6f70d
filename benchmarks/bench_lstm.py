"""LSTM forward and backward over whole sequences, against torch.nn.LSTM (oneDNN) and the textbook code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import astuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import fresh_process, machine, textbook
from benchmarks.conftest import Compare, Report
from benchmarks.measure import (
    AUTOCAST,
    FULL,
    OURS,
    OURS_EXACT,
    QUICK,
    TEXTBOOK,
    TORCH_IN_BF16,
    TUNED,
    Case,
    Comparison,
    Effort,
    agree,
    case_maker,
    compare,
    ways_of_torch,
)
from fastlstm import get_backend, ops, use_backend
from fastlstm.contract import BOOK_GATE_ORDER, DEFAULT_GATE_ORDER, TOLERANCE, Array, Precision

# (N, T, D, H)
SHAPES = {
    "addition": (128, 7, 16, 128),
    "decoder": (128, 4, 16, 128),
    "rnnlm": (20, 35, 100, 100),
    "ptb": (20, 35, 650, 650),
    "nmt": (64, 18, 256, 1024),
    "char": (64, 28, 70, 256),
    "imdb": (16, 100, 128, 128),
    "one": (1, 100, 256, 256),
}
QUICK_SHAPES = ("addition", "rnnlm", "char", "one")
# So little work that the calls' overhead decides; not part of the mean.
SINE = {"sine": (10, 25, 1, 20)}
BF16_SHAPES = ("ptb", "nmt", "char")
WIDE = ("ptb", "nmt")  # H >= 650: the share of the peak is taken there

# The most that both sides' sums may differ by, of the largest element: orders of summation differ.
PEER_TOLERANCE = 1e-4

# One row, as in most loops written by hand.
ONE_ROW = (1, 25, 100, 100)

SEQUENCE = "one call"
TORCH_WEIGHTS, TIME_FIRST, OUR_LAYOUT = "weights as torch's", "time first", "fastlstm's layout"

ONLY_AVX2 = {
    "FASTLSTM_MAX_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


Shape = str | tuple[int, int, int, int]  # one of the names above, or N, T, D, H


def sizes(shape: Shape) -> tuple[int, int, int, int]:
    N, T, D, H = {**SHAPES, **SINE}[shape] if isinstance(shape, str) else shape
    return N, T, D, H


def title(shape: Shape) -> str:
    return f"{shape if isinstance(shape, str) else ''}{sizes(shape)}".replace(" ", "")


def inputs(shape: Shape, gates: int) -> dict[str, Array]:
    """xs, Wx, Wh, b and dhs of a shape, all non-zero. With 3 gates, a GRU's, b holds two biases."""
    N, T, D, H = sizes(shape)
    rng = np.random.default_rng(0)

    def draw(*shape: int, scale: float = 0.1) -> Array:
        return np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)

    # Larger weights make a network over many steps chaotic: rounding alone would tell the sides apart.
    return {
        "xs": draw(N, T, D, scale=1.0),
        "Wx": draw(D, gates * H, scale=D**-0.5),
        "Wh": draw(H, gates * H, scale=H**-0.5),
        "b": draw(2, gates * H) if gates == 3 else draw(gates * H),
        "dhs": draw(N, T, H),
    }


def operations(shape: Shape, gates: int) -> float:
    """Multiplications and additions of the matrix products, forward and backward (twice as many)."""
    N, T, D, H = sizes(shape)
    return 3.0 * 2 * N * T * (D + H) * gates * H


def reorder_gates(array: Array, given: str, wanted: str) -> Array:
    """The blocks of H columns of the last axis in another gate order."""
    blocks = np.split(array, 4, axis=-1)
    return np.concatenate([blocks[given.index(gate)] for gate in wanted], axis=-1)


class OurLSTM:
    def __init__(
        self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array, *, precision: Precision | None = None
    ) -> None:
        self._xs, self._weights, self._dhs = xs, (Wx, Wh, b), dhs
        self._precision = precision

    def __call__(self) -> Any:
        out = ops.lstm_forward(self._xs, *self._weights, precision=self._precision)
        return out, ops.lstm_backward(self._dhs, out.tape)

    def results(self) -> dict[str, Array]:
        out, grads = self()
        return {"hs": out.hs, "dxs": grads.dxs, "dWx": grads.dWx, "dWh": grads.dWh, "db": grads.db}


class LSTMCells:
    """A loop over time of one's own: a call for each step, gradients of weights added up."""

    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        self._xs, self._weights, self._dhs = xs, (Wx, Wh, b), dhs
        self._sums = SimpleNamespace(dWx=np.empty_like(Wx), dWh=np.empty_like(Wh), db=np.empty_like(b))
        self._zeros = np.zeros_like(dhs[:, 0])

    def __call__(self) -> tuple[list[Array], list[Array]]:
        hs, dxs, tapes = [], [], []
        h = c = dh = dc = self._zeros
        for t in range(self._xs.shape[1]):
            h, c, tape = ops.lstm_cell_forward(self._xs[:, t], h, c, *self._weights)
            hs.append(h)
            tapes.append(tape)
        for t in reversed(range(len(tapes))):
            last = t == len(tapes) - 1
            grads = ops.lstm_cell_backward(self._dhs[:, t] + dh, dc, tapes[t], out=self._sums, accumulate=not last)
            dh, dc = grads.dh_prev, grads.dc_prev
            dxs.append(grads.dx)
        return hs, dxs[::-1]

    def results(self) -> dict[str, Array]:
        hs, dxs = (np.stack(arrays, axis=1) for arrays in self())
        return {"hs": hs, "dxs": dxs, **vars(self._sums)}


class LaidOutLSTM:
    """Gradients of weights go into arrays that lie in memory as the weights do."""

    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array, *, layout: str = OUR_LAYOUT) -> None:
        if layout == TORCH_WEIGHTS:
            Wx, Wh = (np.ascontiguousarray(weight.T).T for weight in (Wx, Wh))
        self._time_major = layout == TIME_FIRST
        self._xs, self._dhs = (np.ascontiguousarray(self._batch_first(array)) for array in (xs, dhs))
        self._weights = Wx, Wh, b
        self._out = SimpleNamespace(dWx=np.empty_like(Wx), dWh=np.empty_like(Wh), db=np.empty_like(b))

    def __call__(self) -> Any:
        out = ops.lstm_forward(self._xs, *self._weights, time_major=self._time_major)
        return out, ops.lstm_backward(self._dhs, out.tape, out=self._out)

    def results(self) -> dict[str, Array]:
        out, grads = self()
        return {"hs": self._batch_first(out.hs), "dxs": self._batch_first(grads.dxs), **vars(self._out)}

    def _batch_first(self, array: Array) -> Array:
        """Or time first: what it is not now."""
        return array.swapaxes(0, 1) if self._time_major else array


class TextbookLSTM:
    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        weights = (reorder_gates(weight, DEFAULT_GATE_ORDER, BOOK_GATE_ORDER) for weight in (Wx, Wh, b))
        self._layer = textbook.TimeLSTM(*weights)
        self._xs, self._dhs = xs, dhs

    def __call__(self) -> tuple[Array, Array]:
        hs = self._layer.forward(self._xs)[0]
        return hs, self._layer.backward(self._dhs)[0]

    def results(self) -> dict[str, Array]:
        hs, dxs = self()
        grads = (reorder_gates(grad, BOOK_GATE_ORDER, DEFAULT_GATE_ORDER) for grad in self._layer.grads)
        return {"hs": hs, "dxs": dxs, **dict(zip(("dWx", "dWh", "db"), grads, strict=True))}


@functools.cache
def definition(side: Callable[..., Any], shape: Shape, gates: int) -> dict[str, Array]:
    """The results of ``side`` with the numpy backend in float64."""
    with use_backend("numpy"):
        results: dict[str, Array] = side(
            **{array: values.astype(np.float64) for array, values in inputs(shape, gates).items()}
        ).results()
    return results


def check_recurrent(sides: dict[str, Any], want: Callable[[], dict[str, Array]]) -> Callable[[], None]:
    """Ours against the definition, the peers against ours."""

    def check() -> None:
        got = sides[OURS].results()
        agree("our result and the definition", got, want(), TOLERANCE["float32"])
        for peer in list(sides)[1:]:
            agree(f"the result of {peer}", sides[peer].results(), got, PEER_TOLERANCE)

    return check


@case_maker
def lstm_case(
    shape: Shape,
    *,
    backend: str | None = None,
    threads: int = machine.CORES,
    peers: tuple[str, ...] = ("torch", TUNED, "keras", TEXTBOOK),
) -> Case:
    arrays = inputs(shape, 4)
    sides: dict[str, Any] = {OURS: OurLSTM(**arrays)}
    if "torch" in peers and (torch := machine.torch_or_none()):
        from benchmarks import torch_peers

        sides["torch"] = torch_peers.Recurrent(torch.nn.LSTM, **arrays)
        if TUNED in peers:
            sides[TUNED] = torch_peers.Recurrent(torch.nn.LSTM, **arrays, time_first=True)
    if "keras" in peers and machine.keras_or_none():
        from benchmarks import keras_peers

        sides["keras"] = keras_peers.LSTM(**arrays)
    if TEXTBOOK in peers:
        sides[TEXTBOOK] = TextbookLSTM(**arrays)
    return Case(
        "LSTM, small calls" if shape in SINE else "LSTM forward + backward",
        title(shape),
        sides,
        check_recurrent(sides, lambda: definition(OurLSTM, shape, 4)),
        operations(shape, 4),
        backend,
        threads,
    )


def bf16_sides(ours: Callable[..., Any], torch_kind: str, shape: Shape, gates: int) -> dict[str, Any]:
    """Ours in bf16 and in float32, and the torch.nn module of that name in all the ways of torch that run."""
    arrays = inputs(shape, gates)
    sides: dict[str, Any] = {OURS: ours(**arrays, precision="bf16"), OURS_EXACT: ours(**arrays)}
    if torch := machine.torch_or_none():
        from benchmarks import torch_peers

        module = getattr(torch.nn, torch_kind)
        sides |= ways_of_torch(
            lambda way: torch_peers.Recurrent(module, **arrays, autocast=way == AUTOCAST, bf16=way == TORCH_IN_BF16)
        )
    return sides


def bf16_case(word: str, ours: Callable[..., Any], torch_kind: str, shape: Shape, gates: int) -> Case:
    sides = bf16_sides(ours, torch_kind, shape, gates)

    def check() -> None:
        want = definition(ours, shape, gates)
        for side in sides:
            agree(side, sides[side].results(), want, TOLERANCE["bf16"])

    return Case(f"{word} forward + backward", title(shape) + " bf16", sides, check, operations(shape, gates))


@case_maker
def lstm_bf16_case(shape: Shape) -> Case:
    return bf16_case("LSTM", OurLSTM, "LSTM", shape, 4)


@case_maker
def cells_case(shape: Shape = ONE_ROW) -> Case:
    arrays = inputs(shape, 4)
    sides: dict[str, Any] = {OURS: LSTMCells(**arrays), SEQUENCE: OurLSTM(**arrays)}
    return Case(
        "LSTM, a call for each step",
        title(shape),
        sides,
        check_recurrent(sides, lambda: definition(OurLSTM, shape, 4)),
        operations(shape, 4),
        threads=1,
    )


@case_maker
def layout_case(shape: Shape, layout: str) -> Case:
    arrays = inputs(shape, 4)
    sides: dict[str, Any] = {OURS: LaidOutLSTM(**arrays, layout=layout), OUR_LAYOUT: LaidOutLSTM(**arrays)}
    return Case(
        f"LSTM, {layout}",
        title(shape),
        sides,
        check_recurrent(sides, lambda: definition(OurLSTM, shape, 4)),
        operations(shape, 4),
        threads=1,
    )


def seconds_beside_torch(names: list[str], *effort: Any) -> list[dict[str, list[float]]]:
    """The times of both sides for each shape; for a process of its own."""
    return [dict(compare(lstm_case(name, peers=("torch",)), Effort(*effort)).seconds) for name in names]


def compare_with_avx2_only(names: list[str], effort: Effort) -> list[Comparison]:
    """Both sides in a process in which neither may use more than AVX2."""
    times = fresh_process.call(seconds_beside_torch, names, *astuple(effort), environment=ONLY_AVX2)

    def again(name: str) -> Callable[[Effort], Comparison]:
        return lambda effort: compare_with_avx2_only([name], effort)[0]

    return [
        Comparison(
            "LSTM forward + backward",
            title(name),
            seconds,
            operations(name, 4),
            f"{get_backend()} AVX2",
            again=again(name),
        )
        for name, seconds in zip(names, times, strict=True)
    ]


@pytest.mark.parametrize("name", [*SHAPES, *SINE])
def test_lstm(compare: Compare, name: str) -> None:
    compare(lstm_case(name))


@pytest.mark.parametrize("name", SHAPES)
def test_lstm_on_one_thread(compare: Compare, name: str) -> None:
    compare(lstm_case(name, threads=1, peers=("torch",)))


@pytest.mark.parametrize("name", BF16_SHAPES)
def test_lstm_in_bf16(compare: Compare, name: str) -> None:
    compare(lstm_bf16_case(name))


def test_cells(compare: Compare) -> None:
    compare(cells_case())


@pytest.mark.parametrize("layout", [TORCH_WEIGHTS, TIME_FIRST])
@pytest.mark.parametrize("name", SHAPES)
def test_layouts(compare: Compare, name: str, layout: str) -> None:
    compare(layout_case(name, layout))


@pytest.mark.parametrize("name", SHAPES)
def test_lstm_numba(compare: Compare, name: str) -> None:
    pytest.importorskip("numba", reason="Numba is not installed: pip install numba")
    compare(lstm_case(name, backend="numba", peers=(TEXTBOOK,)))


@pytest.mark.parametrize("name", SHAPES)
def test_lstm_with_avx2_only(benchmark: Any, report: Report, name: str) -> None:
    """pytest-benchmark's time is that of the process; the times of both sides stand in its extra information."""
    if machine.torch_or_none() is None:
        pytest.skip("PyTorch is not installed: pip install torch")
    benchmark.group = "LSTM forward + backward, AVX2 only: the process that compares"
    effort = QUICK if benchmark.disabled else FULL
    (comparison,) = benchmark.pedantic(compare_with_avx2_only, args=([name], effort), rounds=1, iterations=1)
    benchmark.extra_info["fastlstm median s"] = comparison.median()
    report(comparison)
