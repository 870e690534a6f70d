"""Linear cross entropy on a GPU against torch: ``python -m benchmarks.gpu_losses``. Time, and memory beside the inputs.

Projection, softmax, loss and all gradients in float32, exact products on both sides. Results are compared with the
definition before anything is timed; a time is the median of calls between device events. Memory is what a call takes
from the device beside its inputs, without the gradients, which every side has to return.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import gpu_measure
from benchmarks.measure import agree
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array

FIELDS = ("loss", "dh", "dW", "db")


class Size(NamedTuple):
    M: int
    H: int
    V: int

    def __str__(self) -> str:
        return f"M {self.M}, H {self.H}, V {self.V}"

    @property
    def gradient_bytes(self) -> int:
        return 4 * (self.M * self.H + self.H * self.V + self.V)


# PTB with H 650, translation with H 1024.
SIZES = (Size(700, 650, 10_000), Size(1088, 1024, 8778))


def draw(size: Size) -> tuple[Array, Array, Array, Array]:
    """h (M, H), W (H, V), b (V,), targets (M,)."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    W = floats(size.H, size.V) * np.float32(size.H**-0.5)
    return floats(size.M, size.H), W, floats(size.V), text_ids(rng, size.V, size.M)


def definition(inputs: tuple[Array, Array, Array, Array]) -> dict[str, Array]:
    h, W, b, targets = inputs
    with use_backend("numpy"):
        grads = ops.linear_cross_entropy(h.astype(np.float64), W.astype(np.float64), b.astype(np.float64), targets)
    return {name: np.asarray(value) for name, value in zip(FIELDS, grads, strict=True)}


class Ours:
    def __init__(self, inputs: tuple[Array, Array, Array, Array], memory: Any) -> None:
        import cupy

        self._inputs = [cupy.asarray(array) for array in inputs]
        self._memory = memory

    def __call__(self) -> Any:
        return ops.linear_cross_entropy(*self._inputs, memory=self._memory)

    def results(self) -> dict[str, Array]:
        import cupy

        return {name: cupy.asnumpy(value) for name, value in zip(FIELDS, self(), strict=True)}

    def bytes(self) -> int:
        """That a call takes from the device, in a pool of its own: it gives nothing back, so they are its peak."""
        import cupy

        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(pool.malloc):
            grads = self()
            taken = int(pool.total_bytes())
            del grads
        return taken


class Torch:
    def __init__(self, inputs: tuple[Array, Array, Array, Array]) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        h, W, b, targets = inputs
        self._parameters = [
            torch.from_numpy(np.ascontiguousarray(array)).cuda().requires_grad_() for array in (h, W.T, b)
        ]
        self._targets = torch.from_numpy(targets).cuda()

    def __call__(self) -> Any:
        from torch.nn import functional

        for parameter in self._parameters:
            parameter.grad = None
        h, W, b = self._parameters
        loss = functional.cross_entropy(functional.linear(h, W, b), self._targets)
        loss.backward()
        return loss

    def results(self) -> dict[str, Array]:
        loss = self()
        dh, dW, db = (parameter.grad.cpu().numpy() for parameter in self._parameters)
        return {"loss": loss.detach().cpu().numpy(), "dh": dh, "dW": dW.T, "db": db}

    def bytes(self) -> int:
        import torch

        for parameter in self._parameters:
            parameter.grad = None
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self()
        return int(torch.cuda.max_memory_allocated() - before)


def check(inputs: tuple[Array, Array, Array, Array], sides: dict[str, Any]) -> None:
    want = definition(inputs)
    for name, side in sides.items():
        agree(name, side.results(), want, TOLERANCE["float32"])


def measure(size: Size, seconds: float) -> dict[str, Any]:
    inputs = draw(size)
    sides: dict[str, Any] = {"fast": Ours(inputs, "fast"), "low": Ours(inputs, "low"), "torch": Torch(inputs)}
    check(inputs, sides)
    times = gpu_measure.in_turns(sides, seconds)
    return {
        **size._asdict(),
        "median_ms": gpu_measure.medians(times),
        "calls": gpu_measure.counts(times),
        "extra_bytes": {name: side.bytes() - size.gradient_bytes for name, side in sides.items()},
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    sides = ("fast", "low", "torch")
    lines = [
        f"{'':26}" + "".join(f"{name + ' ms':>12}" for name in sides) + "".join(f"{name + ' MB':>12}" for name in sides)
    ]
    for r in results:
        size = str(Size(r["M"], r["H"], r["V"]))
        if "error" in r:
            lines.append(f"{size:26}{r['error']}")
            continue
        times = "".join(f"{r['median_ms'][name]:12.3f}" for name in sides)
        lines.append(f"{size:26}{times}" + "".join(f"{r['extra_bytes'][name] / 1e6:12.1f}" for name in sides))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return gpu_measure.main("losses", SIZES, measure, table, description=__doc__, seconds=10, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
