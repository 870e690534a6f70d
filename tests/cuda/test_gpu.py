"""The CUDA backend on a GPU. Skipped with the reason where none answers; benchmarks/gpu.sh runs it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from cuda_cases import (
    OF_A_FAMILY,
    RECURRENT,
    RUNS,
    embedding_cases,
    faults_of,
    fits,
    in_precision,
    recurrent_case,
    sampled_case,
    samples,
)
from draw import Draw
from tiny_models import MAKERS

from fastlstm import callbacks, datasets, ops, optim, use_backend
from fastlstm.backends import why_not
from fastlstm.contract import Precision
from fastlstm.models import RNNLM, Seq2seq, Word2Vec
from fastlstm.testing import Case, check_backend, run_case

pytestmark = pytest.mark.needs_gpu


@pytest.fixture(scope="module")
def gpu() -> Any:
    """CuPy, on a GPU that answers."""
    reason = why_not("cuda")
    if reason is not None:
        pytest.skip(f"no GPU: {reason}")
    return importlib.import_module("cupy")


def skip_where_it_cannot_run(kernel: str | None) -> None:
    """Clusters need a Hopper."""
    _cuda = importlib.import_module("fastlstm._cuda")
    try:
        _cuda.SequencePass(
            cell="lstm", direction="forward", precision="float32", N=1, T=1, H=8, reverse=False, gate_order="ifgo",
            hard_sigmoid=False, device=0, kernel=kernel,
        )  # fmt: skip
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("kernel", "precision"), [(None, "float32"), (None, "float64"), *RUNS])
def test_kernels_agree_with_the_definition(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, kernel: str | None, precision: Precision
) -> None:
    skip_where_it_cannot_run(kernel)
    if kernel is not None:
        monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", kernel)
    faults = []
    for case in RECURRENT:
        if kernel is None or fits(case, kernel, precision):
            try:
                in_precision(case, precision)
            except AssertionError as error:
                faults.append(f"{case}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", OF_A_FAMILY)
def test_a_family_agrees_with_the_definition(gpu: Any, family: str, dtype: str) -> None:
    faults = faults_of(family, dtype)
    assert not faults, faults


def test_samples_have_the_bits_of_the_definition(gpu: Any) -> None:
    """That nothing fuses a product and a sum of a draw, nvcc alone can show."""
    labels = np.array([0, 7, 4999], np.int32)
    with use_backend("numpy"):
        want = list(samples(labels))
    for got, expected in zip(samples(gpu.asarray(labels)), want, strict=True):
        np.testing.assert_array_equal(gpu.asnumpy(got.sampled), expected.sampled)
        assert int(got.num_tries) == expected.num_tries
        np.testing.assert_allclose(gpu.asnumpy(got.sampled_expected_count), expected.sampled_expected_count, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("B", "K", "S", "E"), [(128, 1, 64, 128), (1024, 2, 2000, 300), (5000, 1, 100, 7)])
def test_sampled_classes_at_full_size(gpu: Any, dtype: str, B: int, K: int, S: int, E: int) -> None:
    for op in ("sampled_logits_forward", "nce_loss", "sampled_softmax_loss"):
        check_backend("cuda", sampled_case(op, B, K, S, E, 20_000), dtype)


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
@pytest.mark.parametrize(
    ("N", "T", "D", "H"),
    [
        (128, 7, 16, 128),
        (20, 35, 650, 650),
        (64, 9, 256, 1024),
        (300, 4, 33, 333),
        (62, 35, 32, 168),  # clusters, as the next two
        (20, 35, 256, 256),
        (16, 35, 512, 512),
    ],
)
def test_kernels_at_full_size(gpu: Any, precision: Precision, N: int, T: int, D: int, H: int) -> None:
    in_precision(recurrent_case(N, T, D, H), precision)


@pytest.mark.parametrize("H", [650, 250])
def test_the_same_bits_again(gpu: Any, H: int) -> None:
    case = recurrent_case(64, 50, 128, H).cast("float32").map_arrays(gpu.asarray)
    for precision in ("float32", "tf32", "bf16"):
        out = [ops.lstm_forward(**case.inputs, precision=precision) for _ in range(5)]
        grads = [ops.lstm_backward(tape=one.tape, **case.upstream) for one in out]
        for results in (out, grads):
            for other in results[1:]:
                for a, b in zip(results[0], other, strict=True):
                    if isinstance(a, gpu.ndarray):
                        assert bool((a == b).all())


def test_embedding_gradients_at_full_size_and_the_same_bits_again(gpu: Any) -> None:
    rng = np.random.default_rng(0)
    for M, E in ((8192, 650), (300_000, 64)):
        ids = np.minimum(rng.zipf(1.2, M), 10_000) - 1
        for case in embedding_cases(f"M{M}", 10_000, E, ids):
            check_backend("cuda", case, "float32")
            results = [run_case(case.cast("float32").map_arrays(gpu.asarray), copy=gpu.copy) for _ in range(5)]
            for name, first in results[0].items():
                for other in results[1:]:
                    assert bool((first == other[name]).all()), (str(case), name)


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_linear_cross_entropy_at_full_size(gpu: Any, memory: str) -> None:
    draw = Draw(f"full size {memory}")
    M, H, V = 700, 650, 10_000
    inputs = {"h": draw.floats(M, H), "W": draw.weights(H, V), "b": draw.floats(V), "targets": draw.ids(V, M)}
    inputs["targets"][::5] = -1
    for dtype in ("float32", "float64"):
        check_backend("cuda", Case(memory, "linear_cross_entropy", {**inputs, "memory": memory}), dtype)


def test_an_embedding_gradient_can_be_captured(gpu: Any) -> None:
    rng = np.random.default_rng(0)
    V, E = 500, 70
    ids, dout = (gpu.asarray(array) for array in (rng.integers(0, V, 700), rng.standard_normal((700, E))))
    want = gpu.asnumpy(ops.embedding_backward(ids, dout, V))
    stream = gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.Device().synchronize()
    with stream:
        dW = gpu.zeros((V, E))
        for _ in range(2):  # memory of the call is in the stream's pool before the capture
            ops.embedding_backward(ids, dout, V, out=dW, touched=ids)
        stream.synchronize()
        stream.begin_capture()
        ops.embedding_backward(ids, dout, V, out=dW, touched=ids)
        graph = stream.end_capture()
        for _ in range(2):
            graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(gpu.asnumpy(dW), want)


def test_work_goes_to_the_current_stream(gpu: Any) -> None:
    """A stream that has waited long for its inputs gives the right results, and the call does not wait for it."""
    case = recurrent_case(20, 10, 64, 200).cast("float32")
    want = ops.lstm_forward(**case.inputs).hs
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:
        ops.lstm_forward(**case.map_arrays(gpu.asarray).inputs)  # modules and libraries are loaded
        late = case.map_arrays(lambda array: gpu.zeros(array.shape, array.dtype))
        host = {name: value for name, value in case.inputs.items() if isinstance(value, np.ndarray)}
        big = gpu.ones((8192, 8192), np.float32)
        for _ in range(20):
            big = big @ big * np.float32(1e-4)
        for name, value in host.items():
            late.inputs[name].set(value)
        hs = ops.lstm_forward(**late.inputs).hs
    stream.synchronize()
    np.testing.assert_allclose(gpu.asnumpy(hs), want, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
def test_clusters_of_every_size(gpu: Any, monkeypatch: pytest.MonkeyPatch, precision: Precision, blocks: int) -> None:
    skip_where_it_cannot_run("cluster")
    for rows in {"float64": (8,), "float32": (8, 16, 32)}.get(precision, (8, 16)):
        monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", f"cluster:{blocks}x{rows}")
        for N in (5, 1000):  # more than run at a time
            in_precision(recurrent_case(N, 20, 5, 10 * blocks + 21, reverse=True), precision)


@pytest.mark.parametrize("kernel", ["plain", "step", "persistent", "rows", "cluster"])
def test_the_time_loop_can_be_captured(gpu: Any, kernel: str) -> None:
    skip_where_it_cannot_run(kernel)
    _cuda = importlib.import_module("fastlstm._cuda")
    N, T, H = 20, 6, 100
    sequence = _cuda.SequencePass(
        cell="lstm", direction="forward", precision="float32", N=N, T=T, H=H, reverse=False, gate_order="ifgo",
        hard_sigmoid=False, device=0, kernel=kernel,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    Wh, z = rng.standard_normal((H, 4 * H)) / 10, rng.standard_normal((N, T, 4 * H))
    want = ops.lstm_forward(z, np.eye(4 * H), Wh, np.zeros(4 * H)).hs
    arrays = {"Wh": Wh, "b": np.zeros(4 * H), "gates": z, "hs": np.zeros((N, T, H))}
    arrays |= {"h_n": np.zeros((N, H)), "c_n": np.zeros((N, H))}
    memory = {name: gpu.asarray(array.astype(np.float32)) for name, array in arrays.items()}
    workspace = gpu.empty(max(1, sequence.workspace_bytes), np.uint8)
    addresses = {name: array.data.ptr for name, array in memory.items()}
    stream = gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.Device().synchronize()
    with stream:
        sequence.run(addresses, workspace.data.ptr, stream.ptr)
        stream.synchronize()
        memory["hs"].fill(0)
        stream.begin_capture()
        sequence.run(addresses, workspace.data.ptr, stream.ptr)
        graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    np.testing.assert_allclose(gpu.asnumpy(memory["hs"]), want, atol=1e-4)


# --------------------------------------------------------------------------------------------
# cuBLAS, and steps of a training as CUDA graphs
# --------------------------------------------------------------------------------------------


@pytest.fixture
def cublas(gpu: Any) -> Any:
    return importlib.import_module("fastlstm.backends.cuda.cublas")


def test_products_by_a_handle_of_our_own(gpu: Any, cublas: Any) -> None:
    """Exact in float32 whatever CuPy does, rounded in TF32 where that is asked for; operands as they lie."""
    assert cublas.why_not() is None
    rng = np.random.default_rng(0)
    M, K, X = 300, 257, 130
    a, b = rng.standard_normal((M, K)), rng.standard_normal((K, X))
    want = a @ b
    for dtype, precision, least, most in (
        (np.float64, "float64", 0, 1e-12),
        (np.float32, "float32", 0, 1e-4),
        (np.float32, "tf32", 1e-3, 1e-1),
    ):
        for left in (
            gpu.asarray(a, dtype),
            gpu.asarray(a.T.copy(), dtype).T,
            gpu.asarray(np.pad(a, 3), dtype)[3:-3, 3:-3],
        ):
            for right in (gpu.asarray(b, dtype), gpu.asarray(b.T.copy(), dtype).T):
                for out in (
                    gpu.empty((M, X), dtype),
                    gpu.empty((X, M), dtype).T,
                    gpu.empty((M, X + 5), dtype)[:, 2:-3],
                ):
                    cublas.gemm(left, right, out, precision=precision)
                    cublas.gemm(left, right, out, precision=precision, accumulate=True)
                    apart = np.abs(gpu.asnumpy(out) - 2 * want).max()
                    assert least <= apart <= most, (dtype, precision)
    left, right = (gpu.asarray(rng.standard_normal(shape)) for shape in ((5, 7, 9), (5, 11, 9)))
    products = importlib.import_module("fastlstm.backends.cuda.products")
    got = gpu.asnumpy(products.batched_product(left, right.swapaxes(1, 2)))
    np.testing.assert_allclose(got, gpu.asnumpy(left) @ gpu.asnumpy(right).swapaxes(1, 2), atol=1e-12)


def test_a_product_can_be_captured(gpu: Any) -> None:
    graph_module = importlib.import_module("fastlstm.backends.cuda.graph")
    rng = np.random.default_rng(0)
    a, b = (gpu.asarray(rng.standard_normal(shape)) for shape in ((40, 30), (30, 20)))
    out = gpu.zeros((40, 20))
    capture = graph_module.Capture()
    for _ in range(2):
        with capture.eagerly():
            ops.matrix_product(a, b, out=out)
    capture.capture(lambda: ops.matrix_product(a, b, out=out))
    out.fill(0)
    a *= 2
    capture.replay()
    np.testing.assert_allclose(gpu.asnumpy(out), gpu.asnumpy(a) @ gpu.asnumpy(b), atol=1e-12)
    numbers = graph_module.GraphScalars(3)
    numbers.store([5, 6, 2**64 - 1])
    assert gpu.asnumpy(numbers.whole).tolist() == [5, 6, 2**64 - 1]


def trained_both_ways(monkeypatch: pytest.MonkeyPatch, train: Any) -> Any:
    """The history of the training with graphs, after both have ended with the same bits."""
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv("FASTLSTM_CUDA_GRAPHS", switch)
        model, history = train()
        results.append((history.history, [importlib.import_module("cupy").asnumpy(param) for param in model.params]))
    assert results[1][0] == results[0][0]
    for got, want in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_array_equal(got, want)
    assert history.why_no_graph is None
    assert history.device_steps["graph"] > 0
    return history


@pytest.mark.parametrize("name", MAKERS)
def test_every_model_in_graphs(gpu: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, data, arguments = MAKERS[name]

    def train() -> Any:
        model = make().to("cuda")
        return model, model.fit(*data(21), verbose=0, max_grad=0.5, **{**arguments, "epochs": 4})

    trained_both_ways(monkeypatch, train)


def test_full_size_in_graphs(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    text = np.minimum(rng.zipf(1.2, 12_000), 10_000) - 1
    sums = datasets.addition(3000, seed=0)

    def halve() -> Any:
        return callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2)

    def language_model() -> Any:
        model = RNNLM(10_000, 650, 650, num_layers=2, tie_weights=True, dropout=0.5, seed=1).to("cuda")
        options: dict[str, Any] = {"epochs": 2, "optimizer": optim.SGD(5.0), "max_grad": 0.25, "callbacks": [halve()]}
        return model, model.fit(text, verbose=0, metrics=("loss", "perplexity", "accuracy"), **options)

    def addition() -> Any:
        model = Seq2seq(13, 16, 128, peeky=True, reverse_source=True, seed=1).to("cuda")
        options: dict[str, Any] = {"epochs": 3, "batch_size": 128, "max_grad": 5.0, "validation_split": 0.1}
        return model, model.fit(sums.xs, sums.ts, verbose=0, metrics=("loss", "accuracy"), **options)

    def words() -> Any:
        model = Word2Vec(10_000, 128, seed=1).to("cuda")
        return model, model.fit(text[:3000], epochs=1, verbose=0, final_lr=0.1)

    for train in (language_model, addition, words):
        trained_both_ways(monkeypatch, train)
