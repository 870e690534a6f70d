"""Optimisers and clipping on a GPU against PyTorch's: ``python -m benchmarks.gpu_optim``, or as a part of gpu.sh.

Whole updates of all parameters of a model, between device events, so the host's part counts where it is the longer one.
Parameters are compared before anything is timed. GB/s is what has to move at least, over our time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import gpu_measure
from fastlstm import optim

# Shapes of the parameters: RNNLM 2 x 650 on PTB with tied weights; the addition model.
MODELS: dict[str, list[tuple[int, ...]]] = {
    "rnnlm 2x650": [(10_000, 650), *[(650, 2600), (650, 2600), (2600,)] * 2, (10_000,)],
    "rnnlm 2x650 untied": [(10_000, 650), *[(650, 2600), (650, 2600), (2600,)] * 2, (650, 10_000), (10_000,)],
    "addition": [(13, 16), (16, 512), (128, 512), (512,), (13, 16), (16, 512), (128, 512), (512,), (128, 13), (13,)],
}
# Arrays that are read or written once each, of a parameter's size.
PASSES = {"sgd": 3, "adam": 7}
LARGEST_DIFFERENCE = 1e-5


class Work(NamedTuple):
    model: str
    rule: str
    max_norm: float | None

    def __str__(self) -> str:
        return f"{self.model}, {self.rule}{', clipped' if self.max_norm else ''}"


def works() -> list[Work]:
    return [Work(model, rule, limit) for model in MODELS for rule in PASSES for limit in (None, 0.25)]


class Ours:
    """One update a call."""

    def __init__(self, work: Work, params: list[Any], grads: list[Any]) -> None:
        import cupy

        self.params = [cupy.asarray(param) for param in params]
        self._grads = [cupy.asarray(grad) for grad in grads]
        self._optimizer = optim.OPTIMIZERS[work.rule]()
        self._max_norm = work.max_norm

    def __call__(self) -> None:
        self._optimizer.update(self.params, self._grads, self._max_norm)


class Torch:
    """The same of torch.optim, fused, and of clip_grad_norm_, which scales the gradients in place."""

    def __init__(self, work: Work, params: list[Any], grads: list[Any]) -> None:
        import torch

        self._torch = torch
        self.params = [torch.nn.Parameter(torch.from_numpy(param.copy()).cuda()) for param in params]
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = torch.from_numpy(grad.copy()).cuda()
        if work.rule == "adam":
            # Its epsilon stands beside the corrected root, ours beside the plain one: equal in the first step.
            eps = 1e-7 / (1 - 0.999) ** 0.5
            self._optimizer: Any = torch.optim.Adam(self.params, lr=0.001, eps=eps, fused=True)
        else:
            self._optimizer = torch.optim.SGD(self.params, lr=0.01, fused=True)
        self._max_norm = work.max_norm

    def __call__(self) -> None:
        if self._max_norm is not None:
            self._torch.nn.utils.clip_grad_norm_(self.params, self._max_norm, foreach=True)
        self._optimizer.step()


def draw(work: Work) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(0)
    params, grads = ([rng.standard_normal(shape, np.float32) for shape in MODELS[work.model]] for _ in range(2))
    return params, grads


def difference(ours: Ours, theirs: Torch) -> float:
    """Returns how far the parameters differ after one update, at most."""
    import cupy

    pairs = zip(ours.params, theirs.params, strict=True)
    return max(float(abs(a - cupy.from_dlpack(b.detach())).max()) for a, b in pairs)


def measure(work: Work, seconds: float) -> dict[str, Any]:
    import torch

    params, grads = draw(work)
    ours, theirs = Ours(work, params, grads), Torch(work, params, grads)
    ours()
    theirs()
    torch.cuda.synchronize()
    apart = difference(ours, theirs)
    if not apart <= LARGEST_DIFFERENCE:
        raise AssertionError(f"{work}: parameters differ by {apart:.2g}, allowed {LARGEST_DIFFERENCE:.2g}")
    times = gpu_measure.in_turns({"fastlstm": ours, "torch": theirs}, seconds)
    median = gpu_measure.medians(times)
    moved = sum(param.nbytes for param in params) * (PASSES[work.rule] + (work.max_norm is not None))
    return {
        **work._asdict(),
        "difference": apart,
        "median_ms": median,
        "calls": gpu_measure.counts(times),
        "ratio": median["torch"] / median["fastlstm"],
        "gb_per_second": moved / median["fastlstm"] / 1e6,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'work':36}{'ours ms':>9}{'torch ms':>9}{'ratio':>7}{'GB/s':>8}"]
    for r in results:
        work = str(Work(r["model"], r["rule"], r["max_norm"]))
        if "error" in r:
            lines.append(f"{work:36}{r['error']}")
            continue
        ms = r["median_ms"]
        lines.append(f"{work:36}{ms['fastlstm']:9.3f}{ms['torch']:9.3f}{r['ratio']:7.2f}{r['gb_per_second']:8.0f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return gpu_measure.main("optim", works(), measure, table, description=__doc__, seconds=15, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
