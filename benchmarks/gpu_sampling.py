"""Noise-contrastive estimation on a GPU against PyTorch: ``python -m benchmarks.gpu_sampling``, or as a part of gpu.sh.

A step samples, gathers, goes forward and backward, and updates by sparse SGD, over 50,000 classes; torch does so with
sparse gradients on the same GPU. The sides take turns. A time is the median over calls between device events, over many
batches, so that the rows that are touched change. Results are compared before anything is timed. The parts of our step
are timed too, without a peer.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import gpu_measure
from benchmarks.text_ids import text_ids
from fastlstm import ops
from fastlstm.contract import Array, Candidates, FloatArray

# As benchmarks/bench_sampling.py has them for the host.
V, E, B, S = 50_000, 128, 128, 64
LR = 1.0
BATCHES = 50
LARGEST_DIFFERENCE = 2e-5  # of the norm of a step's change
CALLS = 20  # in a row between two events


def tables() -> dict[str, Array]:
    """Parameters of their own for each side."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> FloatArray:
        return 0.1 * rng.standard_normal(shape, dtype=np.float32)

    return {"embedding": draw(V, E), "weights": draw(V, E), "biases": draw(V)}


def batches() -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(1)
    return [(text_ids(rng, V, B), text_ids(rng, V, B)) for _ in range(BATCHES)]


class Ours:
    """The step of the operators, on the arrays' device."""

    def __init__(self, tables: dict[str, Array], batches: Sequence[tuple[Array, Array]]) -> None:
        self.tables = tables
        self._batches = batches
        self._rng = np.random.default_rng(2)
        self._calls = 0

    def __call__(self) -> Array:
        ids, labels = self._batches[self._calls % len(self._batches)]
        self._calls += 1
        return self.step(ids, labels, ops.log_uniform_candidates(S, V, labels, rng=self._rng))

    def step(self, ids: Array, labels: Array, candidates: Candidates) -> Array:
        """The loss of every row (B,)."""
        embedding, weights, biases = self.tables.values()
        x = ops.embedding_forward(embedding, ids)
        nce = ops.nce_loss(weights, biases, labels, x, candidates)
        dembedding = ops.embedding_backward_rows(ids, nce.dinputs)
        assert nce.dbiases is not None
        ops.sgd_update([weights, biases, embedding], [nce.dweights, nce.dbiases, dembedding], LR)
        return nce.loss


def ours_on_gpu() -> Ours:
    import cupy

    return Ours(
        {name: cupy.asarray(table) for name, table in tables().items()},
        [(cupy.asarray(ids), cupy.asarray(labels)) for ids, labels in batches()],
    )


def first_step(ours: Ours) -> tuple[Array, dict[str, Array], Candidates]:
    """The losses of a step on the first batch, the parameters after it, and its sample."""
    import cupy

    ids, labels = (cupy.asarray(array) for array in batches()[0])
    candidates = ops.log_uniform_candidates(S, V, labels, rng=np.random.default_rng(3))
    loss = ours.step(ids, labels, candidates)
    return cupy.asnumpy(loss), {name: cupy.asnumpy(table) for name, table in ours.tables.items()}, candidates


def difference(loss: Array, after: dict[str, Array], candidates: Candidates) -> float:
    """How far torch is from our first step: the largest relative difference, by norms, of losses and of changes."""
    import cupy
    import torch

    from benchmarks import torch_peers

    peer = torch_peers.NCEStep(**tables(), batches=(), num_sampled=S, lr=LR, device="cuda")
    sample = torch_peers.Candidates(*(torch.from_numpy(cupy.asnumpy(array)).to("cuda") for array in candidates[:3]))
    ids, labels = (torch.from_numpy(array).to("cuda") for array in batches()[0])
    want_loss = peer.step(ids, labels, sample).detach().cpu().numpy()
    before, want = tables(), peer.tables()
    pairs = [(loss, want_loss), *((after[name] - before[name], want[name] - before[name]) for name in before)]
    return max(float(np.linalg.norm(got - theirs) / np.linalg.norm(theirs)) for got, theirs in pairs)


def parts(ours: Ours) -> dict[str, Callable[[], Any]]:
    """What our step consists of, on one batch."""
    import cupy

    from fastlstm.backends.cuda import sampling

    ids, labels = (cupy.asarray(array) for array in batches()[0])
    rng = np.random.default_rng(4)
    embedding, weights, biases = ours.tables.values()
    candidates = ops.log_uniform_candidates(S, V, labels, rng=rng)
    x = ops.embedding_forward(embedding, ids)
    counts = {
        "true_expected_count": candidates.true_expected_count.reshape(B, 1),
        "sampled_expected_count": candidates.sampled_expected_count,
    }
    return {
        "sample": lambda: ops.log_uniform_candidates(S, V, labels, rng=rng),
        "loss and gradients": lambda: ops.nce_loss(weights, biases, labels, x, candidates),
        "the same without waiting": lambda: sampling.padded_sampled_loss(
            weights, biases, labels.reshape(B, 1), x, candidates.sampled, **counts,
            remove_accidental_hits=False, num_true=1, loss="sigmoid",
        ),
    }  # fmt: skip


def in_a_row(call: Callable[[], Any]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(CALLS):
            call()

    return several


def microseconds(times: Sequence[float]) -> float:
    return 1e3 * statistics.median(times) / CALLS


def measure(seconds: float) -> dict[str, Any]:
    from benchmarks import torch_peers

    apart = difference(*first_step(ours_on_gpu()))
    if not apart <= LARGEST_DIFFERENCE:
        raise AssertionError(f"results differ by {apart:.2g}, allowed {LARGEST_DIFFERENCE:.2g}")
    ours = ours_on_gpu()
    theirs = torch_peers.NCEStep(**tables(), batches=batches(), num_sampled=S, lr=LR, device="cuda")
    sides = {"fastlstm": in_a_row(ours), "torch": in_a_row(theirs)}
    times = gpu_measure.in_turns(sides, seconds * 2 / 3, turns=3)
    median = {side: microseconds(values) for side, values in times.items()}
    return {
        "V": V, "E": E, "B": B, "S": S, "batches": BATCHES,
        "difference": apart,
        "median_us": median,
        "turns": gpu_measure.counts(times),
        "ratio": median["torch"] / median["fastlstm"],
        "parts_us": {
            name: microseconds(gpu_measure.of_cupy(in_a_row(call), seconds / 9))
            for name, call in parts(ours).items()
        },
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    median = result["median_us"]
    lines = [
        f"NCE step V{result['V']} E{result['E']} B{result['B']} S{result['S']}: ours {median['fastlstm']:.1f} us, "
        f"torch {median['torch']:.1f} us, ratio {result['ratio']:.2f}",
        *(f"  of ours, {name}: {time:.1f} us" for name, time in result["parts_us"].items()),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = gpu_measure.parser_of(__doc__, 15).parse_args(arguments)
    result = measure(options.seconds)
    gpu_measure.write(options.out, "sampling", {"nce_step": result})
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
