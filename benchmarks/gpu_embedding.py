"""Gradients of an embedding on a GPU against torch and cupyx.scatter_add: ``python -m benchmarks.gpu_embedding``.

The dense gradient goes into one array, one batch after the other, as a layer's does: we clear all rows, or only those
of the batch before. The row gradient synchronises, for its number of rows. torch makes a new array, which it clears.
Results are compared with the definition before anything is timed; a time is the median of calls between device events,
"graph" that of the dense gradient as a captured graph, without the host.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import gpu_measure
from benchmarks.measure import agree
from benchmarks.text_ids import text_ids
from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, Array

BATCHES = 4


class Size(NamedTuple):
    V: int
    E: int
    M: int

    def __str__(self) -> str:
        return f"V {self.V}, E {self.E}, M {self.M}"


# A batch of a word-level language model, of word2vec, of addition; and the largest batches of a single chunk.
SIZES = (
    Size(10_000, 650, 700),
    Size(50_000, 128, 100),
    Size(13, 16, 896),
    Size(10_000, 650, 8192),
    Size(50_000, 128, 8192),
    Size(50_000, 128, 12_800),
)

Batches = list[tuple[Array, Array]]


def draw(size: Size) -> Batches:
    rng = np.random.default_rng(0)
    return [
        (text_ids(rng, size.V, size.M), rng.standard_normal((size.M, size.E), dtype=np.float32)) for _ in range(BATCHES)
    ]


def definition(size: Size, batches: Batches) -> list[Array]:
    with use_backend("numpy"):
        return [ops.embedding_backward(ids, dout.astype(np.float64), size.V) for ids, dout in batches]


class IntoOneArray:
    """One batch after the other, into one array."""

    def __init__(self, size: Size, batches: Batches) -> None:
        import cupy

        self.V = size.V
        self.batches = [(cupy.asarray(ids), cupy.asarray(dout)) for ids, dout in batches]
        self.dW = cupy.zeros((size.V, size.E), np.float32)
        self.step = 0

    def next_batch(self) -> tuple[Any, Any]:
        self.step += 1
        return self.batches[(self.step - 1) % BATCHES]


class AllCleared(IntoOneArray):
    def __call__(self) -> Any:
        return ops.embedding_backward(*self.next_batch(), self.V, out=self.dW)


class TouchedCleared(IntoOneArray):
    def __call__(self) -> Any:
        touched = self.batches[(self.step - 1) % BATCHES][0] if self.step else None
        return ops.embedding_backward(*self.next_batch(), self.V, out=self.dW, touched=touched)


class Rows(IntoOneArray):
    def __call__(self) -> Any:
        return ops.embedding_backward_rows(*self.next_batch())

    def dense(self) -> Any:
        indices, values = self()
        self.dW[...] = 0
        self.dW[indices] = values
        return self.dW


class ScatterAdd(IntoOneArray):
    def __call__(self) -> Any:
        import cupyx

        ids, dout = self.next_batch()
        self.dW.fill(0)
        cupyx.scatter_add(self.dW, ids, dout)
        return self.dW


class Torch:
    def __init__(self, size: Size, batches: Batches) -> None:
        import torch

        self._V = size.V
        self._batches = [(torch.from_numpy(ids).cuda(), torch.from_numpy(dout).cuda()) for ids, dout in batches]
        self._step = 0

    def __call__(self) -> Any:
        import torch

        ids, dout = self._batches[self._step % BATCHES]
        self._step += 1
        return torch.ops.aten.embedding_dense_backward(dout, ids, self._V, -1, False)


OURS: dict[str, Any] = {"fastlstm": TouchedCleared, "all cleared": AllCleared, "rows": Rows}
PEERS: dict[str, Any] = {"torch": Torch, "cupyx": ScatterAdd}


def check(size: Size, batches: Batches, sides: dict[str, Any]) -> None:
    """Every side's results of every batch are those of the definition."""
    import cupy

    for want in definition(size, batches):
        for name, side in sides.items():
            got = side.dense() if isinstance(side, Rows) else side()
            on_host = got.cpu().numpy() if isinstance(side, Torch) else cupy.asnumpy(got)
            agree(name, {"dW": on_host}, {"dW": want}, TOLERANCE["float32"])


def graph_ms(size: Size, batches: Batches, seconds: float) -> float:
    """Measures the dense gradient as a graph, per launch."""
    import cupy

    side = IntoOneArray(size, batches)
    ids, dout = side.batches[0]
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for _ in range(2):  # what is loaded and allocated, is so before the capture
            ops.embedding_backward(ids, dout, size.V, out=side.dW, touched=ids)
        stream.synchronize()
        stream.begin_capture()
        ops.embedding_backward(ids, dout, size.V, out=side.dW, touched=ids)
        graph = stream.end_capture()
        launches = 20
        times = gpu_measure.of_cupy(lambda: [graph.launch(stream) for _ in range(launches)], seconds)
        stream.synchronize()
    return statistics.median(times) / launches


def measure(size: Size, seconds: float) -> dict[str, Any]:
    batches = draw(size)
    sides = {name: make(size, batches) for name, make in (OURS | PEERS).items()}
    check(size, batches, sides)
    times = gpu_measure.in_turns(sides, seconds)
    median = gpu_measure.medians(times)
    return {
        **size._asdict(),
        "median_ms": {**median, "graph": graph_ms(size, batches, seconds / len(sides))},
        "calls": gpu_measure.counts(times),
        "ratio": {peer: median[peer] / median["fastlstm"] for peer in PEERS},
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    columns = (*OURS, "graph", *PEERS)
    lines = [f"{'median us of a gradient':28}" + "".join(f"{name:>13}" for name in columns)]
    for r in results:
        size = str(Size(r["V"], r["E"], r["M"]))
        if "error" in r:
            lines.append(f"{size:28}{r['error']}")
        else:
            lines.append(f"{size:28}" + "".join(f"{1e3 * r['median_ms'][name]:13.1f}" for name in columns))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    return gpu_measure.main("embedding", SIZES, measure, table, description=__doc__, seconds=20, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
