"""The LSTM on a GPU against torch.nn.LSTM (cuDNN): ``python -m benchmarks.gpu_lstm``, or as a part of gpu.sh.

Forward and backward of a whole sequence, the input products and all gradients included, in the same precision on both
sides; ours in bf16 stands against cuDNN's fp16 too. The sides take turns. A time is the median over calls between
device events, with a few input sets in turn; `step_us` is our time loop alone, the calls of _cuda, per time step, with
the kernel that recurrent/make_plan.h chooses; `step_us_of` is that of every kernel that takes the shape, so that the
choice can be judged. Results are compared before anything is timed.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import gpu_measure
from fastlstm import ops

BATCHES = (16, 20, 64, 128)
WIDTHS = (128, 168, 256, 512, 640, 650, 768, 1024)
LAYERS = (1, 2)
KERNELS = ("step", "persistent", "rows", "cluster")
# The peer's precision, and ours.
PRECISIONS = {"fp32": "float32", "tf32": "tf32", "bf16": "bf16", "fp16": "bf16"}
T = 35
INPUT_SETS = 2
LARGEST_DIFFERENCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 6e-2, "fp16": 6e-2}  # of the gradients' norm


class Shape(NamedTuple):
    N: int
    H: int
    layers: int
    precision: str

    def __str__(self) -> str:
        return f"N {self.N}, H {self.H}, {self.layers} layer{'s' * (self.layers > 1)}, {self.precision}"


def shapes() -> list[Shape]:
    """Those of the issue's goals first, in case the time runs out."""
    goals = [
        Shape(20, 650, 1, "tf32"),
        Shape(64, 650, 1, "tf32"),
        Shape(64, 1024, 1, "tf32"),
        Shape(128, 128, 1, "fp32"),
        Shape(16, 768, 1, "bf16"),
        Shape(16, 768, 1, "fp16"),
    ]
    rest = [Shape(*values) for values in itertools.product(BATCHES, WIDTHS, LAYERS, PRECISIONS)]
    return [*goals, *(shape for shape in rest if shape not in goals)]


class Inputs(NamedTuple):
    """Numpy arrays: xs and dhs (N, T, H) of each input set; Wx, Wh (H, 4H) and b (4H,) of each layer."""

    xs: list[Any]
    dhs: list[Any]
    weights: list[tuple[Any, Any, Any]]


def draw(shape: Shape) -> Inputs:
    rng = np.random.default_rng(0)
    N, H = shape.N, shape.H

    def floats(*size: int, scale: float = 1.0) -> Any:
        return np.float32(scale) * rng.standard_normal(size, np.float32)

    scale = H**-0.5
    weights = [
        (floats(H, 4 * H, scale=scale), floats(H, 4 * H, scale=scale), floats(4 * H, scale=0.1))
        for _ in range(shape.layers)
    ]
    return Inputs([floats(N, T, H) for _ in range(INPUT_SETS)], [floats(N, T, H) for _ in range(INPUT_SETS)], weights)


class Ours:
    """Forward and backward of all layers. Calls take the input sets in turn."""

    def __init__(self, shape: Shape, inputs: Inputs) -> None:
        import cupy

        self._precision: Any = PRECISIONS[shape.precision]
        self._xs = [cupy.asarray(array) for array in inputs.xs]
        self._dhs = [cupy.asarray(array) for array in inputs.dhs]
        self._weights = [tuple(cupy.asarray(array) for array in layer) for layer in inputs.weights]
        self._calls = 0

    def __call__(self) -> tuple[Any, list[Any]]:
        """Hs, and dxs followed by every layer's dWx and dWh."""
        xs, dhs = self._xs[self._calls % INPUT_SETS], self._dhs[self._calls % INPUT_SETS]
        self._calls += 1
        tapes = []
        for Wx, Wh, b in self._weights:
            out = ops.lstm_forward(xs, Wx, Wh, b, precision=self._precision)
            xs = out.hs
            tapes.append(out.tape)
        grads = []
        for tape in reversed(tapes):
            d = ops.lstm_backward(dhs, tape)
            dhs = d.dxs
            grads += [d.dWx, d.dWh]
        return xs, [dhs, *grads]


class Torch:
    """The same of torch.nn.LSTM."""

    def __init__(self, shape: Shape, inputs: Inputs) -> None:
        import torch

        exact = shape.precision == "fp32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(shape.precision, torch.float32)
        self._layer = torch.nn.LSTM(shape.H, shape.H, num_layers=shape.layers, batch_first=True)
        with torch.no_grad():
            for k, (Wx, Wh, b) in enumerate(inputs.weights):
                getattr(self._layer, f"weight_ih_l{k}").copy_(torch.from_numpy(Wx.T.copy()))
                getattr(self._layer, f"weight_hh_l{k}").copy_(torch.from_numpy(Wh.T.copy()))
                getattr(self._layer, f"bias_ih_l{k}").copy_(torch.from_numpy(b))
                getattr(self._layer, f"bias_hh_l{k}").zero_()
        self._layer = self._layer.to("cuda", dtype)
        self._layer.flatten_parameters()
        self._xs = [torch.from_numpy(array).to("cuda", dtype).requires_grad_() for array in inputs.xs]
        self._dhs = [torch.from_numpy(array).to("cuda", dtype) for array in inputs.dhs]
        self._calls = 0

    def __call__(self) -> tuple[Any, list[Any]]:
        xs, dhs = self._xs[self._calls % INPUT_SETS], self._dhs[self._calls % INPUT_SETS]
        self._calls += 1
        for parameter in (xs, *self._layer.parameters()):
            parameter.grad = None
        hs = self._layer(xs)[0]
        hs.backward(dhs)
        grads = [xs.grad]
        for k in reversed(range(self._layer.num_layers)):
            grads += [getattr(self._layer, f"weight_{kind}_l{k}").grad.T for kind in ("ih", "hh")]
        return hs.detach(), grads


def difference(ours: tuple[Any, list[Any]], theirs: tuple[Any, list[Any]]) -> float:
    """The largest relative difference, by norms, of hs and the gradients; NaN if there is one."""
    import cupy

    largest = 0.0
    for a, b in zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True):
        want = cupy.from_dlpack(b.detach().float().contiguous())
        distance = float(cupy.linalg.norm(a.ravel() - want.ravel()) / cupy.linalg.norm(want.ravel()))
        largest = distance if not distance <= largest else largest
    return largest


def loop_steps(shape: Shape, *, every_kernel: bool, calls: int = 10) -> dict[str, Any]:
    """Measures our loop alone: microseconds of a time step, the kernel that ran, microseconds of every kernel."""
    import cupy

    N, H = shape.N, shape.H
    rng = np.random.default_rng(1)
    sizes = {
        "gates": (N, T, 4 * H), "Wh": (H, 4 * H), "b": (4 * H,), "hs": (N, T, H), "h_n": (N, H), "c_n": (N, H),
        "h_prev": (N, T, H), "cs": (N, T, H), "dhs": (N, T, H), "dz": (N, T, 4 * H), "dh0": (N, H), "dc0": (N, H),
    }  # fmt: skip
    arrays = {name: cupy.asarray((rng.random(size) * 0.05).astype(np.float32)) for name, size in sizes.items()}
    step_us: dict[str, float] = {}
    chosen: dict[str, str] = {}
    step_us_of: dict[str, dict[str, float]] = {}
    for direction in ("forward", "backward"):
        chosen[direction], step_us[direction] = loop_step(shape, direction, arrays, calls)
        for kernel in KERNELS if every_kernel else ():
            try:
                _, of_kernel = loop_step(shape, direction, arrays, calls, kernel)
            except ValueError:
                continue  # it does not take this shape
            step_us_of.setdefault(kernel, {})[direction] = of_kernel
    return {"step_us": step_us, "kernel": chosen, "step_us_of": step_us_of}


def loop_step(
    shape: Shape, direction: str, arrays: dict[str, Any], calls: int, kernel: str | None = None
) -> tuple[str, float]:
    """The kernel that runs, and microseconds of a time step."""
    import cupy

    from fastlstm import _cuda

    sequence = _cuda.SequencePass(
        cell="lstm", direction=direction, precision=PRECISIONS[shape.precision], N=shape.N, T=T, H=shape.H,
        reverse=False, gate_order="ifgo", hard_sigmoid=False, device=cupy.cuda.Device().id, kernel=kernel,
    )  # fmt: skip
    addresses = {name: array.data.ptr for name, array in arrays.items()}
    workspace = cupy.empty(max(1, sequence.workspace_bytes), np.uint8)
    stream = cupy.cuda.get_current_stream()

    def loop() -> None:
        for _ in range(calls):
            sequence.run(addresses, workspace.data.ptr, stream.ptr)

    times = gpu_measure.of_cupy(loop, 0.05 if kernel is None else 0.02)
    return sequence.plan["kernel"], statistics.median(times) * 1e3 / (calls * T)


def measure(shape: Shape, seconds: float) -> dict[str, Any]:
    inputs = draw(shape)
    ours, theirs = Ours(shape, inputs), Torch(shape, inputs)
    apart = difference(ours(), theirs())
    if not apart <= LARGEST_DIFFERENCE[shape.precision]:
        raise AssertionError(
            f"{shape}: results differ by {apart:.2g}, allowed {LARGEST_DIFFERENCE[shape.precision]:.2g}"
        )
    times = gpu_measure.in_turns({"fastlstm": ours, "torch": theirs}, seconds)
    median = gpu_measure.medians(times)
    return {
        **shape._asdict(),
        "T": T,
        "difference": apart,
        "median_ms": median,
        "calls": gpu_measure.counts(times),
        "ratio": median["torch"] / median["fastlstm"],
        # Once for each recurrence: other layers and cuDNN's precision change nothing in our loop.
        **loop_steps(shape, every_kernel=shape.layers == 1 and shape.precision != "fp16"),
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'shape':34}{'ours ms':>9}{'torch ms':>9}{'ratio':>7}  {'us a step, forward / backward'}"]
    for r in results:
        shape = str(Shape(r["N"], r["H"], r["layers"], r["precision"]))
        if "error" in r:
            lines.append(f"{shape:34}{r['error']}")
            continue
        ms, step = r["median_ms"], r["step_us"]
        others = ", ".join(
            f"{kernel} {' / '.join(f'{microseconds:.2f}' for microseconds in times.values())}"
            for kernel, times in r["step_us_of"].items()
        )
        lines.append(
            f"{shape:34}{ms['fastlstm']:9.3f}{ms['torch']:9.3f}{r['ratio']:7.2f}  "
            f"{step['forward']:.2f} / {step['backward']:.2f}  {r['kernel']['forward']}{others and f' ({others})'}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = gpu_measure.parser_of(__doc__, 180)
    parser.add_argument("--latencies", type=Path, help="what gpu_latencies printed")
    options = parser.parse_args(arguments)
    every = shapes()
    results: list[dict[str, Any]] = []
    for result in gpu_measure.measure_all(every, measure, options.seconds):
        results.append(result)
        print(table([result]).splitlines()[-1], file=sys.stderr, flush=True)
    latencies = None
    if options.latencies is not None and options.latencies.exists() and options.latencies.read_text().strip():
        latencies = json.loads(options.latencies.read_text())
    report = {"latencies": latencies, "not_measured": len(every) - len(results), "lstm": results}
    gpu_measure.write(options.out, "lstm", report)
    failed = [result for result in results if "error" in result]
    print(f"latencies: {latencies}")
    print(f"{len(results)} of {len(every)} shapes, {len(failed)} failed. Forward + backward, T {T}, medians:")
    shown = [r for r in results if "error" in r or (r["layers"] == 1 and r["N"] in (20, 64))]
    print(table([*results[:6], *(r for r in shown if r not in results[:6])][:40]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
