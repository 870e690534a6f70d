"""A short set for the sanitizers: every kernel and precision once, forward and backward, with every option."""

from __future__ import annotations

import os

import cupy
import numpy as np

from fastlstm import _cuda, ops, optim
from fastlstm.contract import GRUConventionName, RowGrad

KERNELS = ("plain", "step", "persistent", "cluster")
RUNS = [
    *((kernel, precision) for kernel in KERNELS for precision in ("float32", "float64", "tf32", "bf16")),
    ("rows", "float32"),
]


def sampled_classes(rng: np.random.Generator, dtype: str) -> None:
    """Tables of a sample in shared and in global memory, one and several sorted runs, every loss."""
    V, E = 9000, 21

    def floats(*shape: int) -> cupy.ndarray:
        return cupy.asarray(rng.standard_normal(shape).astype(dtype))

    table = ops.UnigramTable(np.arange(1.0, V + 1))
    weights, biases = floats(V, E), floats(V)
    for B, num_true, S in ((33, 2, 17), (70, 1, 3000)):
        labels, inputs = cupy.asarray(rng.integers(0, V, (B, num_true))), floats(B, E)
        for unique in (True, False):
            ops.unigram_candidates(table, S, labels, unique=unique, rng=rng)
            candidates = ops.log_uniform_candidates(S, V, labels, unique=unique, rng=rng)
        out = ops.sampled_logits_forward(weights, biases, labels, inputs, candidates, remove_accidental_hits=True)
        ops.sampled_logits_backward(out.logits, out.tape)
        for loss in (
            ops.nce_loss(weights, biases, labels, inputs, candidates),
            ops.sampled_softmax_loss(weights, biases, labels, inputs, candidates),
            ops.negative_sampling_loss(weights, labels, inputs, candidates),
        ):
            assert bool(cupy.isfinite(loss.dweights.values).all())


def clusters_run_here() -> bool:
    try:
        _cuda.SequencePass(
            cell="lstm", direction="forward", precision="float32", N=1, T=1, H=8, reverse=False, gate_order="ifgo",
            hard_sigmoid=False, device=cupy.cuda.Device().id, kernel="cluster",
        )  # fmt: skip
    except ValueError:
        return False
    return True


def main() -> None:
    cupy.cuda.set_allocator(None)  # no pool: the sanitizer sees where every array ends
    N, T, D, H = 19, 4, 5, 100
    rng = np.random.default_rng(0)
    for kernel, precision in RUNS:
        if kernel == "cluster" and not clusters_run_here():
            continue
        os.environ["FASTLSTM_CUDA_KERNEL"] = kernel
        dtype = "float64" if precision == "float64" else "float32"

        def floats(*shape: int, dtype: str = dtype) -> cupy.ndarray:
            return cupy.asarray(rng.standard_normal(shape).astype(dtype))

        mask = cupy.asarray(rng.random((N, T)) < 0.7)
        out = ops.lstm_forward(
            floats(N, T, D), floats(D, 4 * H), floats(H, 4 * H), floats(4 * H), h0=floats(N, H), c0=floats(N, H),
            mask=mask, reverse=True, precision=precision,
        )  # fmt: skip
        grads = ops.lstm_backward(floats(N, T, H), out.tape, dh_n=floats(N, H), dc_n=floats(N, H))
        assert bool(cupy.isfinite(grads.dWh).all()), (kernel, precision)
        if kernel != "rows":
            rnn = ops.rnn_forward(
                floats(N, T, D), floats(D, H), floats(H, H), floats(H), mask=mask, precision=precision
            )
            assert bool(cupy.isfinite(ops.rnn_backward(floats(N, T, H), rnn.tape).dWh).all()), (kernel, precision)
        if kernel != "cluster":
            conventions: tuple[GRUConventionName, ...] = ("book", "keras")
            for convention in conventions:
                b = floats(3 * H) if convention == "book" else floats(2, 3 * H)
                gru = ops.gru_forward(
                    floats(N, T, D), floats(D, 3 * H), floats(H, 3 * H), b, mask=mask, convention=convention,
                    precision=precision,
                )  # fmt: skip
                dWh = ops.gru_backward(floats(N, T, H), gru.tape).dWh
                assert bool(cupy.isfinite(dWh).all()), (kernel, precision, convention)
    for name, make in optim.OPTIMIZERS.items():
        params = [cupy.asarray(rng.standard_normal(shape)) for shape in ((19, 7), (5000,), (1,))]
        grads = [
            RowGrad(cupy.asarray(np.array([2, 3, 18])), params[0][:3].copy()),
            *(param.copy() for param in params[1:]),
        ]
        make().update(params, grads, max_norm=1.0)
        assert all(bool(cupy.isfinite(param).all()) for param in params), name
    embedding_and_losses(rng)
    for dtype in ("float32", "float64"):
        sampled_classes(rng, dtype)
    cupy.cuda.Device().synchronize()
    print(f"{len(RUNS)} kernels and precisions, {len(optim.OPTIMIZERS)} optimisers and all other families ran")


def embedding_and_losses(rng: np.random.Generator) -> None:
    """Every kernel of these families, in packs of 4, 2 and 1 numbers; enough ids to merge chunks of them."""
    for M, E in ((20_000, 4), (300, 6), (40, 650), (200, 129)):
        V = 50
        ids = cupy.asarray(np.minimum(rng.zipf(1.3, M), V) - 1)
        rows, W = (cupy.asarray(rng.standard_normal((n, E), np.float32)) for n in (M, V))
        dW = ops.embedding_backward(ids, ops.embedding_forward(W, ids), V, padding_idx=3)
        ops.embedding_backward(ids, rows, V, out=dW, touched=ids[:40])
        ops.scatter_add(dW, ops.embedding_backward_rows(ids, rows).indices, W[: int(cupy.unique(ids).size)])
        assert bool(cupy.isfinite(dW).all())
    for M, V in ((70, 20), (9, 700), (70, 10_001), (5, 12_000), (17_000, 3)):
        H = 6
        h, W = (cupy.asarray(rng.standard_normal(shape, np.float32)) for shape in ((M, H), (H, V)))
        targets = rng.integers(0, V, M)
        targets[::3] = -1
        for memory in ("fast", "low"):
            b = cupy.zeros(V, np.float32)
            grads = ops.linear_cross_entropy(h, W, b, cupy.asarray(targets), memory=memory)
            assert bool(cupy.isfinite(grads.dW).all())


if __name__ == "__main__":
    main()
