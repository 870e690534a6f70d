"""The GRU on a GPU against torch.nn.GRU (cuDNN): ``python -m benchmarks.gpu_gru``, or as a part of gpu.sh.

PyTorch's convention on both sides; the book's, which cuDNN has not, beside it. Otherwise as gpu_lstm.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import gpu_measure
from benchmarks.gpu_lstm import LARGEST_DIFFERENCE, PRECISIONS, difference
from fastlstm import ops

T = 35
INPUT_SETS = 2


class Shape(NamedTuple):
    N: int
    H: int
    precision: str

    def __str__(self) -> str:
        return f"N {self.N}, H {self.H}, {self.precision}"


def shapes() -> list[Shape]:
    sizes = ((20, 650), (64, 650), (64, 1024), (128, 128), (16, 768), (128, 512))
    return [Shape(N, H, precision) for N, H in sizes for precision in PRECISIONS]


class Inputs(NamedTuple):
    """Numpy arrays: xs and dhs (N, T, H) of each input set; Wx, Wh (H, 3H); b (2, 3H)."""

    xs: list[Any]
    dhs: list[Any]
    Wx: Any
    Wh: Any
    b: Any


def draw(shape: Shape) -> Inputs:
    rng = np.random.default_rng(0)
    N, H = shape.N, shape.H

    def floats(*size: int, scale: float = 1.0) -> Any:
        return np.float32(scale) * rng.standard_normal(size, np.float32)

    xs, dhs = ([floats(N, T, H) for _ in range(INPUT_SETS)] for _ in range(2))
    return Inputs(
        xs, dhs, floats(H, 3 * H, scale=H**-0.5), floats(H, 3 * H, scale=H**-0.5), floats(2, 3 * H, scale=0.1)
    )


class Ours:
    """Forward and backward. Calls take the input sets in turn."""

    def __init__(self, shape: Shape, inputs: Inputs, convention: Any) -> None:
        import cupy

        self._options: Any = {"precision": PRECISIONS[shape.precision], "convention": convention}
        self._xs = [cupy.asarray(array) for array in inputs.xs]
        self._dhs = [cupy.asarray(array) for array in inputs.dhs]
        b = inputs.b[0].copy() if convention == "book" else inputs.b
        self._weights = [cupy.asarray(array) for array in (inputs.Wx, inputs.Wh, b)]
        self._calls = 0

    def __call__(self) -> tuple[Any, list[Any]]:
        """Hs, and dxs, dWx, dWh, db."""
        k = self._calls % INPUT_SETS
        self._calls += 1
        out = ops.gru_forward(self._xs[k], *self._weights, **self._options)
        d = ops.gru_backward(self._dhs[k], out.tape)
        return out.hs, [d.dxs, d.dWx, d.dWh, d.db]


class Torch:
    """The same of torch.nn.GRU."""

    def __init__(self, shape: Shape, inputs: Inputs) -> None:
        import torch

        self._torch = torch
        exact = shape.precision == "fp32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(shape.precision, torch.float32)
        self._layer = torch.nn.GRU(shape.H, shape.H, batch_first=True)
        with torch.no_grad():
            self._layer.weight_ih_l0.copy_(torch.from_numpy(inputs.Wx.T.copy()))
            self._layer.weight_hh_l0.copy_(torch.from_numpy(inputs.Wh.T.copy()))
            self._layer.bias_ih_l0.copy_(torch.from_numpy(inputs.b[0]))
            self._layer.bias_hh_l0.copy_(torch.from_numpy(inputs.b[1]))
        self._layer = self._layer.to("cuda", dtype)
        self._layer.flatten_parameters()
        self._xs = [torch.from_numpy(array).to("cuda", dtype).requires_grad_() for array in inputs.xs]
        self._dhs = [torch.from_numpy(array).to("cuda", dtype) for array in inputs.dhs]
        self._calls = 0

    def __call__(self) -> tuple[Any, list[Any]]:
        k = self._calls % INPUT_SETS
        self._calls += 1
        layer, xs = self._layer, self._xs[k]
        for parameter in (xs, *layer.parameters()):
            parameter.grad = None
        hs = layer(xs)[0]
        hs.backward(self._dhs[k])
        db = self._torch.stack([layer.bias_ih_l0.grad, layer.bias_hh_l0.grad])
        return hs.detach(), [xs.grad, layer.weight_ih_l0.grad.T, layer.weight_hh_l0.grad.T, db]


def measure(shape: Shape, seconds: float) -> dict[str, Any]:
    inputs = draw(shape)
    ours, book, theirs = Ours(shape, inputs, "pytorch"), Ours(shape, inputs, "book"), Torch(shape, inputs)
    apart = difference(ours(), theirs())
    if not apart <= LARGEST_DIFFERENCE[shape.precision]:
        raise AssertionError(
            f"{shape}: results differ by {apart:.2g}, allowed {LARGEST_DIFFERENCE[shape.precision]:.2g}"
        )
    times = gpu_measure.in_turns({"fastlstm": ours, "fastlstm, book": book, "torch": theirs}, seconds)
    median = gpu_measure.medians(times)
    return {
        **shape._asdict(),
        "T": T,
        "difference": apart,
        "median_ms": median,
        "calls": gpu_measure.counts(times),
        "ratio": median["torch"] / median["fastlstm"],
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'shape':24}{'ours ms':>9}{'torch ms':>9}{'ratio':>7}{'book ms':>9}"]
    for r in results:
        shape = str(Shape(r["N"], r["H"], r["precision"]))
        if "error" in r:
            lines.append(f"{shape:24}{r['error']}")
            continue
        ms = r["median_ms"]
        lines.append(f"{shape:24}{ms['fastlstm']:9.3f}{ms['torch']:9.3f}{r['ratio']:7.2f}{ms['fastlstm, book']:9.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return gpu_measure.main("gru", shapes(), measure, table, description=__doc__, seconds=30, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
