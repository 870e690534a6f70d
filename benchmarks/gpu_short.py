"""A short set for the sanitizers: every kernel and precision once, forward and backward, with every option."""

from __future__ import annotations

import os

import cupy
import numpy as np

from fastlstm import ops

RUNS = [
    *((kernel, precision) for kernel in ("step", "persistent") for precision in ("float32", "float64", "tf32", "bf16")),
    ("rows", "float32"),
]


def main() -> None:
    cupy.cuda.set_allocator(None)  # no pool: the sanitizer sees where every array ends
    N, T, D, H = 19, 4, 5, 100
    rng = np.random.default_rng(0)
    for kernel, precision in RUNS:
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
    cupy.cuda.Device().synchronize()
    print(f"{len(RUNS)} kernels and precisions ran")


if __name__ == "__main__":
    main()
