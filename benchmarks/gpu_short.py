"""A short set for the sanitizers: every kernel and precision once, forward and backward, with every option."""

from __future__ import annotations

import os

import cupy
import numpy as np

from fastlstm import ops, optim
from fastlstm.contract import GRUConventionName, RowGrad

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
    cupy.cuda.Device().synchronize()
    print(f"{len(RUNS)} kernels and precisions and {len(optim.OPTIMIZERS)} optimisers ran")


if __name__ == "__main__":
    main()
