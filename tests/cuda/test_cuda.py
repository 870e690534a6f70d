"""The CUDA backend on an emulated GPU: the code that nvcc compiles, against the definition."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
import types
from typing import Any

import numpy as np
import numpy_as_cupy
import pytest
from cuda_cases import (
    H200,
    OF_A_FAMILY,
    RECURRENT,
    RUNS,
    SMALL,
    embedding_cases,
    faults_of,
    fits,
    gru_case,
    in_precision,
    losses_case,
    recurrent_case,
    sampled_case,
    samples,
)

import fastlstm
from fastlstm import BackendNotAvailable, ops, optim, testing
from fastlstm.contract import Candidates, PaddedRowGrad, Precision, RowGrad
from fastlstm.ops import checks
from fastlstm.ops.device import row_grad
from fastlstm.testing import Case, check_backend


@pytest.mark.parametrize(("kernel", "precision"), RUNS)
def test_emulated_kernels_agree_with_the_definition(
    small: Any, monkeypatch: pytest.MonkeyPatch, kernel: str, precision: Precision
) -> None:
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", kernel)
    faults = []
    for case in RECURRENT:
        if fits(case, kernel, precision):
            try:
                in_precision(case, precision)
                numpy_as_cupy.check_margins()
            except (AssertionError, RuntimeError) as error:
                faults.append(f"{case}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", OF_A_FAMILY)
def test_an_emulated_family_agrees_with_the_definition(small: Any, family: str, dtype: str) -> None:
    faults = faults_of(family, dtype, numpy_as_cupy.check_margins)
    assert not faults, faults


@pytest.mark.parametrize("H", [97, 128])
@pytest.mark.parametrize("N", [3, 14])
def test_emulated_row_kernel_with_weights_in_shared_memory(
    emulation: Any, monkeypatch: pytest.MonkeyPatch, H: int, N: int
) -> None:
    """One row a block, and four of which the last block has two."""
    emulation.emulate(multiprocessors=4, shared_bytes=H200["shared_bytes"], seed=2)
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", "rows")
    in_precision(recurrent_case(N, 3, 5, H), "float32")


@pytest.mark.parametrize(
    ("precision", "blocks", "rows", "N", "T", "H"),
    [
        ("float32", 1, 8, 11, 3, 21),
        ("float32", 2, 16, 9, 3, 50),
        ("float32", 4, 8, 13, 2, 13),
        ("float32", 4, 32, 50, 2, 37),
        ("float32", 8, 8, 17, 3, 77),
        ("float32", 16, 16, 13, 2, 131),
        ("float32", 16, 8, 3, 1, 61),
        ("float64", 1, 8, 9, 2, 7),
        ("float64", 4, 8, 9, 3, 41),
        ("float64", 16, 8, 9, 2, 63),
        ("tf32", 1, 16, 41, 3, 30),
        ("tf32", 2, 16, 30, 3, 42),
        ("tf32", 8, 16, 60, 2, 77),
        ("tf32", 16, 8, 9, 2, 131),
        ("bf16", 1, 8, 11, 3, 50),
        ("bf16", 4, 16, 18, 3, 91),
        ("bf16", 8, 16, 33, 2, 60),
        ("bf16", 16, 8, 9, 2, 190),
    ],
)
def test_emulated_clusters_of_every_size(
    emulation: Any,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    blocks: int,
    rows: int,
    N: int,
    T: int,
    H: int,
) -> None:
    """Units that do not divide evenly, clusters that are not full of rows, hardly a unit a block, one step."""
    emulation.emulate(**H200, seed=N)
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", f"cluster:{blocks}x{rows}")
    in_precision(recurrent_case(N, T, 5, H, reverse=H % 2 == 0), precision)
    numpy_as_cupy.check_margins()


@pytest.mark.parametrize("kernel", ["persistent", "rows", "cluster"])
@pytest.mark.parametrize("seed", range(1, 9))
def test_emulated_results_do_not_depend_on_the_order_of_the_threads(
    emulation: Any, monkeypatch: pytest.MonkeyPatch, kernel: str, seed: int
) -> None:
    """A missing barrier shows here."""
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", kernel)
    cupy = sys.modules["cupy"]
    case = recurrent_case(13, 4, 3, 37, reverse=True).cast("float32").map_arrays(cupy.asarray)
    results = []
    for order in (0, seed):
        emulation.emulate(**SMALL, seed=order)
        out = ops.lstm_forward(**case.inputs)
        grads = ops.lstm_backward(tape=out.tape, **case.upstream)
        again = ops.lstm_backward(tape=out.tape, **case.upstream)
        for first, second in zip(grads, again, strict=True):
            np.testing.assert_array_equal(cupy.asnumpy(first), cupy.asnumpy(second))
        results.append([cupy.asnumpy(array) for array in (*out[:3], *grads)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_plain_kernel_is_what_the_others_are_compared_with(
    small: Any, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    """The same numbers but for the order of the sums, in every precision; with a launch for each step."""
    cupy = sys.modules["cupy"]
    case = recurrent_case(9, 4, 3, 37) if cell == "lstm" else gru_case(9, 4, 3, 37, "book", reverse=True)
    for precision in ("float32", "tf32", "bf16"):
        on_gpu = case.cast("float32").map_arrays(cupy.asarray)
        results = []
        for kernel in ("plain", "step"):
            monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", kernel)
            before = small.launches()
            out: Any = getattr(ops, f"{cell}_forward")(**on_gpu.inputs, precision=precision)
            if kernel == "plain":
                assert small.launches() - before == (4 if cell == "lstm" else 8)
            grads = getattr(ops, f"{cell}_backward")(tape=out.tape, **on_gpu.upstream)
            results.append([cupy.asnumpy(array) for array in (out.hs, *grads)])
        for plain, other in zip(*results, strict=True):
            np.testing.assert_allclose(plain, other, rtol=0, atol=1e-4 if precision == "float32" else 5e-3)


@pytest.mark.parametrize("convention", ["book", "pytorch"])
@pytest.mark.parametrize("seed", range(1, 5))
def test_emulated_grus_do_not_depend_on_the_order_of_the_threads(
    emulation: Any, monkeypatch: pytest.MonkeyPatch, convention: str, seed: int
) -> None:
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", "persistent")
    cupy = sys.modules["cupy"]
    case = gru_case(13, 4, 3, 37, convention, reverse=True).cast("float32").map_arrays(cupy.asarray)
    results = []
    for order in (0, seed):
        emulation.emulate(**SMALL, seed=order)
        out = ops.gru_forward(**case.inputs)
        grads = ops.gru_backward(tape=out.tape, **case.upstream)
        results.append([cupy.asnumpy(array) for array in (*out[:2], *grads)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_gru_is_one_launch_of_a_time_loop(emulation: Any) -> None:
    """Beside packing, twice where the reset gate stands before the product, and preparing."""
    emulation.emulate(**H200, seed=0)
    cupy = sys.modules["cupy"]
    for convention, launches in (("keras", 3), ("book", 4)):
        case = gru_case(2, 3, 3, 40, convention).cast("float32").map_arrays(cupy.asarray)
        before = emulation.launches()
        tape = ops.gru_forward(**case.inputs).tape
        assert emulation.launches() - before == launches
        ops.gru_backward(None, tape)
        assert emulation.launches() - before == 2 * launches


def test_grus_without_a_tape_run_in_parts(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrence = importlib.import_module("fastlstm.backends.cuda.recurrence")
    monkeypatch.setattr(recurrence, "INFERENCE_BYTES", 2 * 7 * 3 * 17 * 4)  # two steps
    for convention in ("book", "keras"):
        case = gru_case(7, 5, 3, 17, convention, reverse=True, training=False)
        in_precision(dataclasses.replace(case, upstream={}), "float32")


def test_rounded_operands_are_rounded(small: Any) -> None:
    """TF32 and bf16 differ from exact products, by about as much as their operands' digits say."""
    cupy = sys.modules["cupy"]
    case = recurrent_case(9, 5, 8, 40).cast("float32").map_arrays(cupy.asarray)
    hs = {
        name: cupy.asnumpy(ops.lstm_forward(**case.inputs, precision=name).hs) for name in ("float32", "tf32", "bf16")
    }
    difference = {name: np.abs(hs[name] - hs["float32"]).max() for name in ("tf32", "bf16")}
    assert 2.0**-14 < difference["tf32"] < 2.0**-9
    assert 2.0**-11 < difference["bf16"] < 2.0**-6


def test_without_a_tape_long_sequences_run_in_parts(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrence = importlib.import_module("fastlstm.backends.cuda.recurrence")
    monkeypatch.setattr(recurrence, "INFERENCE_BYTES", 2 * 7 * 4 * 17 * 4)  # two steps
    for reverse in (False, True):
        case = recurrent_case(7, 5, 3, 17, reverse=reverse, training=False)
        small.emulate(**SMALL, seed=0)
        in_precision(case, "float32")
        assert small.launches() == 3  # one for each part


def test_a_sequence_is_one_launch_of_a_time_loop(emulation: Any) -> None:
    cupy = sys.modules["cupy"]
    # Rows; clusters; packing, preparing and the persistent kernel.
    runs: tuple[tuple[int, int, Precision, int], ...] = (
        (20, 16, "float32", 1),
        (140, 16, "bf16", 1),
        (140, 0, "float32", 3),
    )
    for H, largest_cluster, precision, launches in runs:
        emulation.emulate(**{**H200, "largest_cluster": largest_cluster}, seed=0)
        case = recurrent_case(2, 3, 3, H).cast("float32").map_arrays(cupy.asarray)
        before = emulation.launches()
        tape = ops.lstm_forward(**case.inputs, precision=precision).tape
        assert emulation.launches() - before == launches
        ops.lstm_backward(None, tape)
        assert emulation.launches() - before == 2 * launches


def test_the_precision_of_cupys_products_is_put_back(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = recurrent_case(3, 2, 3, 5).cast("float32").map_arrays(cupy.asarray)
    exact = cupy.asnumpy(ops.lstm_forward(**case.inputs).hs)
    with numpy_as_cupy.compute_type(numpy_as_cupy.COMPUTE_TYPE_TF32):
        np.testing.assert_array_equal(cupy.asnumpy(ops.lstm_forward(**case.inputs).hs), exact)
        assert numpy_as_cupy.get_compute_type(np.float32) == numpy_as_cupy.COMPUTE_TYPE_TF32
    ops.lstm_forward(**case.inputs, precision="bf16")
    assert numpy_as_cupy.get_compute_type(np.float32) == numpy_as_cupy.COMPUTE_TYPE_DEFAULT


# --------------------------------------------------------------------------------------------
# Embedding and losses
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 5))
def test_emulated_sums_do_not_depend_on_the_order_of_the_threads(emulation: Any, seed: int) -> None:
    cupy = sys.modules["cupy"]
    ids = np.random.default_rng(seed).integers(0, 7, 300)
    linear = next(case for case in OF_A_FAMILY["losses"] if str(case) == "linear_cross_entropy-V1000-low")
    for case in (*embedding_cases("order", 7, 33, ids), losses_case("order", 20, 700), linear):
        on_gpu = case.cast("float32").map_arrays(cupy.asarray)
        results = []
        for order in (0, seed):
            emulation.emulate(**SMALL, seed=order)
            results.append(testing.run_case(on_gpu, copy=cupy.copy))
        assert list(results[0]) == list(results[1])
        for name, first in results[0].items():
            if isinstance(first, cupy.ndarray):
                np.testing.assert_array_equal(cupy.asnumpy(first), cupy.asnumpy(results[1][name]))


def test_rows_that_are_not_aligned_to_16_bytes(small: Any) -> None:
    cupy = sys.modules["cupy"]
    rng = np.random.default_rng(0)
    for offset in (0, 1, 2, 4):

        def placed(array: Any, offset: int = offset) -> Any:
            whole = cupy.asarray(np.concatenate([np.zeros(offset), array.ravel()]).astype(np.float32))
            return whole[offset:].reshape(array.shape)

        W, dout = rng.standard_normal((9, 12)), rng.standard_normal((40, 12))
        ids = rng.integers(0, 9, 40)
        out = cupy.asnumpy(ops.embedding_forward(placed(W), cupy.asarray(ids)))
        np.testing.assert_array_equal(out, W.astype(np.float32)[ids])
        dW = ops.embedding_backward(cupy.asarray(ids), placed(dout), 9, out=placed(W))
        np.testing.assert_allclose(cupy.asnumpy(dW), ops.embedding_backward(ids, dout, 9), rtol=0, atol=1e-4)
        targets = rng.integers(0, 12, 40)
        dlogits = ops.softmax_cross_entropy(placed(dout), cupy.asarray(targets)).dlogits
        want = ops.softmax_cross_entropy(dout, targets).dlogits
        np.testing.assert_allclose(cupy.asnumpy(dlogits), want, rtol=0, atol=1e-6)
        numpy_as_cupy.check_margins()


def test_a_gradient_of_up_to_8192_ids_is_three_launches(small: Any) -> None:
    """Besides the check of the ids and the clearing: CuPy's of all rows, or our own of the touched ones."""
    cupy = sys.modules["cupy"]
    check, clear = 1, 1
    for M, launches in ((700, 3), (8192, 3), (8193, 4)):
        ids, dout = cupy.asarray(np.arange(M) % 99), cupy.asarray(np.ones((M, 1), np.float32))
        before = small.launches()
        out = ops.embedding_backward(ids, dout, 99)
        assert small.launches() - before == check + launches
        before = small.launches()
        ops.embedding_backward(ids, dout, 99, out=out, touched=ids[:50])
        assert small.launches() - before == 2 * check + clear + launches


def test_ids_beyond_32_bits_are_sorted_too(small: Any) -> None:
    """As the rows of an embedding with more than 2^31 of them would be; here they only lie lower in memory."""
    cupy = sys.modules["cupy"]
    rng = np.random.default_rng(0)
    ids, rows = rng.integers(0, 9, 60), rng.standard_normal((60, 3))
    sizes = {"M": 60, "E": 3, "id_bytes": 8, "float_bytes": 8}
    target, workspace = cupy.zeros((9, 3), "float64"), cupy.empty(small.sum_rows_workspace(**sizes), "uint8")
    on_gpu = {"ids": cupy.asarray(ids), "rows": cupy.asarray(rows), "target": target, "workspace": workspace}
    small.sum_rows(
        **{name: array.data.ptr for name, array in on_gpu.items()},
        **sizes, V=2**31, skip=-1, accumulate=False, device=0, stream=0,
    )  # fmt: skip
    numpy_as_cupy.check_margins()
    np.testing.assert_allclose(cupy.asnumpy(target), ops.embedding_backward(ids, rows, 9), rtol=0, atol=1e-12)


def test_padded_rows_know_how_many_they_are(small: Any) -> None:
    cupy = sys.modules["cupy"]
    embedding = importlib.import_module("fastlstm.backends.cuda.embedding")
    ids, rows = np.array([5, 2, 5, 9, 2]), np.arange(10.0).reshape(5, 2)
    padded = embedding.padded_rows(cupy.asarray(ids), cupy.asarray(rows))
    assert padded.indices.shape == (5,)
    assert padded.values.shape == (5, 2)
    np.testing.assert_array_equal(cupy.asnumpy(padded.num_rows), [3])
    np.testing.assert_array_equal(cupy.asnumpy(padded.indices)[:3], [2, 5, 9])
    np.testing.assert_array_equal(cupy.asnumpy(padded.values)[:3], [[10, 12], [4, 6], [6, 7]])


@pytest.mark.parametrize(
    "op", ["nce_loss", "sampled_softmax_loss", "negative_sampling_loss", "embedding_backward_rows"]
)
def test_padded_gradients_hold_the_rows_of_the_others_and_nothing_waits(
    small: Any, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    cupy = sys.modules["cupy"]
    if op == "embedding_backward_rows":
        inputs: Any = {"ids": cupy.asarray(np.array([5, 2, 5])), "dout": cupy.asarray(np.ones((3, 4)))}
    else:
        case = sampled_case("nce_loss", 6, 1, 8, 4, 20).cast("float32").map_arrays(cupy.asarray)
        without = {"remove_accidental_hits", *(("biases",) if op == "negative_sampling_loss" else ())}
        inputs = {name: value for name, value in case.inputs.items() if name not in without}
    plain = getattr(ops, op)(**inputs)
    with monkeypatch.context() as patch:
        patch.delattr(cupy, "asnumpy")
        padded = getattr(ops, op)(**inputs, padded=True)
    if isinstance(plain, RowGrad):
        plain, padded = (plain,), (padded,)
    for want, got in zip(plain, padded, strict=True):
        if isinstance(want, RowGrad):
            assert isinstance(got, PaddedRowGrad)
            assert len(got.indices) > len(want.indices)
            got = row_grad(got)
            np.testing.assert_array_equal(cupy.asnumpy(got.indices), cupy.asnumpy(want.indices))
            np.testing.assert_array_equal(cupy.asnumpy(got.values), cupy.asnumpy(want.values))
        elif want is not None:
            np.testing.assert_array_equal(cupy.asnumpy(got), cupy.asnumpy(want))


def test_padded_gradients_of_nothing_have_no_rows(small: Any) -> None:
    cupy = sys.modules["cupy"]
    ids, counts, rows = cupy.zeros(0, np.int64), cupy.zeros(0), cupy.zeros((0, 4))
    nothing = Candidates(ids, counts, counts, 0)
    loss = ops.negative_sampling_loss(cupy.zeros((20, 4)), ids, rows, nothing, padded=True)
    for grad in (loss.dweights, ops.embedding_backward_rows(ids, rows, padded=True)):
        assert cupy.asnumpy(grad.num_rows).tolist() == [0]
        assert row_grad(grad).values.shape == (0, 4)


def test_the_loss_stays_on_the_device(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = losses_case("device", 6, 9, ignored=0).cast("float32").map_arrays(cupy.asarray)
    for loss in (
        ops.softmax_cross_entropy(**case.inputs).loss,
        ops.linear_cross_entropy(
            case.inputs["logits"], cupy.asarray(np.eye(9, dtype=np.float32)), cupy.zeros(9, np.float32),
            case.inputs["targets"],
        ).loss,
    ):  # fmt: skip
        assert isinstance(loss, cupy.ndarray)
        assert loss.shape == ()
        assert loss.dtype == np.float64


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_a_normalizer_on_the_device_divides_as_a_number_does(small: Any, dtype: str) -> None:
    """Nobody waits for it: the emulation refuses to read it."""
    cupy = sys.modules["cupy"]
    on_device = cupy.asarray(np.array(6, dtype))
    for op in ("softmax_cross_entropy", "linear_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"):
        case = next(case for case in OF_A_FAMILY["losses"] if case.op == op and "normalizer" in case.inputs)
        case = case.cast("float32").map_arrays(cupy.asarray)
        number, array = (getattr(ops, op)(**{**case.inputs, "normalizer": divisor}) for divisor in (6, on_device))
        for one, other in zip(number, array, strict=True):
            np.testing.assert_array_equal(cupy.asnumpy(one), cupy.asnumpy(other))
            assert one.dtype == other.dtype


def test_a_normalizer_of_0_on_the_device_is_the_count_of_nothing(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = next(case for case in OF_A_FAMILY["losses"] if str(case) == "linear_cross_entropy-all-ignored-fast")
    inputs = case.map_arrays(cupy.asarray).inputs
    count = (inputs["targets"] != -1).sum()
    for result in ops.linear_cross_entropy(**inputs, normalizer=count):
        np.testing.assert_array_equal(cupy.asnumpy(result), 0)


def test_a_sum_counts_no_targets(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = losses_case("launches", 6, 9).map_arrays(cupy.asarray)
    launches = []
    for options in ({}, {"reduction": "sum"}, {"normalizer": 3.0}):
        before = small.launches()
        ops.softmax_cross_entropy(**case.inputs, **options)
        launches.append(small.launches() - before)
    assert launches == [launches[0], launches[0] - 1, launches[0] - 1]


@pytest.mark.parametrize("tied", [False, True])
def test_low_memory_takes_the_rows_in_blocks(small: Any, monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    losses = importlib.import_module("fastlstm.backends.cuda.losses")
    monkeypatch.setattr(losses, "LOW_MEMORY_BYTES", 0)
    monkeypatch.setattr(losses, "LOW_MEMORY_ROWS", 7)
    name = f"linear_cross_entropy-V1000-{'tied-low' if tied else 'low'}"
    case = next(case for case in OF_A_FAMILY["losses"] if str(case) == name)
    largest = 0

    def product(a: Any, b: Any, *, out: Any = None) -> Any:
        nonlocal largest
        largest = max(largest, len(a))
        return sys.modules["cupy"].matmul(a, b, out=out)

    monkeypatch.setattr(losses, "product", product)
    for dtype in ("float32", "float64"):
        testing.check_backend("cuda", case, dtype)
    assert largest == 7


def test_a_tied_weight_is_not_copied(small: Any) -> None:
    """And its gradient lies in memory as it does."""
    cupy = sys.modules["cupy"]
    W: Any = cupy.asarray(np.eye(5, 3, dtype=np.float32)).T
    h, targets = cupy.zeros((2, 3), np.float32), cupy.asarray(np.array([1, 2]))
    given: Any = checks.matrix_or_transpose("W", W)
    assert given.data.ptr == W.data.ptr
    assert ops.linear_cross_entropy(h, W, cupy.zeros(5, np.float32), targets).dW.flags.f_contiguous


def test_cross_entropy_is_exact_whatever_the_precision_of_other_products(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = next(case for case in OF_A_FAMILY["losses"] if str(case) == "linear_cross_entropy-batch-fast")
    on_gpu = case.cast("float32").map_arrays(cupy.asarray)
    exact = ops.linear_cross_entropy(**on_gpu.inputs)
    with numpy_as_cupy.compute_type(numpy_as_cupy.COMPUTE_TYPE_TF32):
        for got, want in zip(ops.linear_cross_entropy(**on_gpu.inputs), exact, strict=True):
            np.testing.assert_array_equal(cupy.asnumpy(got), cupy.asnumpy(want))


# --------------------------------------------------------------------------------------------
# Sampled classes
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_emulated_samples_have_the_bits_of_the_definition(emulation: Any, seed: int) -> None:
    emulation.emulate(**SMALL, seed=seed)
    cupy = sys.modules["cupy"]
    labels = np.array([0, 7, 4999], np.int32)
    with fastlstm.use_backend("numpy"):
        want = list(samples(labels))
    for got, expected in zip(samples(cupy.asarray(labels)), want, strict=True):
        numpy_as_cupy.check_margins()
        np.testing.assert_array_equal(cupy.asnumpy(got.sampled), expected.sampled)
        assert cupy.asnumpy(got.num_tries).item() == expected.num_tries
        for name in ("true_expected_count", "sampled_expected_count"):
            np.testing.assert_allclose(cupy.asnumpy(getattr(got, name)), getattr(expected, name), rtol=1e-12)


def test_a_unigram_table_is_the_same_wherever_its_counts_are(small: Any) -> None:
    cupy = sys.modules["cupy"]
    counts = np.random.default_rng(0).integers(0, 50, 300)
    on_host, on_gpu = ops.UnigramTable(counts), ops.UnigramTable(cupy.asarray(counts))
    for name in ("probabilities", "threshold", "alias"):
        np.testing.assert_array_equal(getattr(on_gpu, name), getattr(on_host, name))
    sampling = importlib.import_module("fastlstm.backends.cuda.sampling")
    threshold, alias = sampling.alias_table(cupy.asarray(on_host.probabilities * 300))
    np.testing.assert_array_equal(cupy.asnumpy(threshold), on_host.threshold)
    np.testing.assert_array_equal(cupy.asnumpy(alias), on_host.alias)


def test_expected_counts_for_the_number_of_tries_on_the_device(small: Any) -> None:
    cupy = sys.modules["cupy"]
    classes = np.array([[0, 7], [99, 3]])
    on_gpu = cupy.asarray(classes)
    drawn = ops.log_uniform_candidates(20, 100, on_gpu, rng=np.random.default_rng(1))
    for unique, tries in [(True, drawn.num_tries), (True, 33), (False, drawn.num_tries)]:
        got = ops.log_uniform_expected_count(on_gpu, tries, 100, unique=unique, num_sampled=20)
        number = tries if isinstance(tries, int) else int(cupy.asnumpy(tries))
        want = ops.log_uniform_expected_count(classes, number, 100, unique=unique, num_sampled=20)
        np.testing.assert_allclose(cupy.asnumpy(got), want, rtol=1e-12)
    with pytest.raises(TypeError, match=r"num_tries is an array of shape \(\), float64"):
        ops.log_uniform_expected_count(on_gpu, cupy.asarray(np.array(3.0)), 100, num_sampled=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("multiprocessors", [1, 5, 132])
def test_emulated_sampled_classes_on_every_tile(emulation: Any, dtype: str, multiprocessors: int) -> None:
    """Tiles are as wide as the device has few multiprocessors; what they sum does not depend on it."""
    results = []
    for device in ({**H200, "multiprocessors": multiprocessors, "seed": 1}, {**SMALL, "seed": 0}):
        emulation.emulate(**device)
        case = sampled_case("sampled_softmax_loss", 70, 2, 75, 68, 200)
        check_backend("cuda", case, dtype)
        cupy = sys.modules["cupy"]
        loss: Any = ops.sampled_softmax_loss(**case.cast(dtype).map_arrays(cupy.asarray).inputs)
        results.append(
            [cupy.asnumpy(array) for array in (loss.loss, loss.dinputs, *loss.dweights, loss.dbiases.values)]
        )
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    numpy_as_cupy.check_margins()


@pytest.mark.parametrize(
    ("B", "K", "S", "E", "V"),
    [(0, 1, 0, 3, 5), (3, 2, 0, 4, 5), (1, 1, 33, 1, 2), (1500, 2, 20, 2, 900), (5, 1, 4200, 3, 7)],
)
def test_emulated_sampled_classes_of_unusual_sizes(small: Any, B: int, K: int, S: int, E: int, V: int) -> None:
    """Nothing sampled, one class with all rows, and so many ids that several runs of them are sorted and merged."""
    for op in ("sampled_logits_forward", "nce_loss"):
        check_backend("cuda", sampled_case(op, B, K, S, E, V), "float64")
        numpy_as_cupy.check_margins()


def test_emulated_sampled_classes_with_nan_and_where_rows_are_not_aligned(small: Any) -> None:
    case = sampled_case("nce_loss", 9, 1, 8, 4, 20)
    for op in ("nce_loss", "sampled_softmax_loss"):
        weights, inputs = case.inputs["weights"].copy(), case.inputs["inputs"].copy()
        weights[case.inputs["candidates"].sampled[3], 2] = np.nan
        inputs[4] = np.inf
        broken = {**case.inputs, "weights": weights, "inputs": inputs}
        with np.errstate(invalid="ignore"):
            check_backend("cuda", Case("nan", op, broken), "float32")
    cupy = sys.modules["cupy"]
    on_gpu = dict(case.cast("float32").map_arrays(cupy.asarray).inputs)
    aligned = ops.nce_loss(**on_gpu)
    flat = cupy.empty(on_gpu["weights"].size + 1, np.float32)
    flat[1:] = on_gpu["weights"].reshape(-1)
    shifted = ops.nce_loss(**{**on_gpu, "weights": flat[1:].reshape(20, 4)})
    np.testing.assert_array_equal(cupy.asnumpy(shifted.dinputs), cupy.asnumpy(aligned.dinputs))
    np.testing.assert_allclose(cupy.asnumpy(shifted.loss), cupy.asnumpy(aligned.loss), rtol=1e-6)


def test_a_row_gradient_waits_once_and_nothing_else_does(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = sys.modules["cupy"]
    waits = []

    def asnumpy(array: Any) -> Any:
        waits.append(array.shape)
        return numpy_as_cupy.asnumpy(array)

    case = sampled_case("nce_loss", 6, 1, 8, 4, 20).cast("float32").map_arrays(cupy.asarray)
    monkeypatch.setattr(cupy, "asnumpy", asnumpy)
    labels = case.inputs["labels"]
    candidates = ops.log_uniform_candidates(8, 20, labels, rng=np.random.default_rng(0))
    ops.unigram_candidates(ops.UnigramTable(np.ones(20)), 8, labels, unique=True, rng=np.random.default_rng(0))
    inputs = {**case.inputs, "candidates": candidates}
    del inputs["remove_accidental_hits"]
    out = ops.sampled_logits_forward(**inputs)
    assert waits == []
    ops.sampled_logits_backward(out.logits, out.tape)
    ops.nce_loss(**inputs)
    assert waits == [(1,), (1,)]


def test_launches_of_an_nce_step(emulation: Any) -> None:
    emulation.emulate(**H200, seed=0)
    cupy = sys.modules["cupy"]
    case = sampled_case("nce_loss", 16, 1, 8, 4, 20).cast("float32").map_arrays(cupy.asarray)
    before = emulation.launches()
    ops.log_uniform_candidates(8, 20, case.inputs["labels"], rng=np.random.default_rng(0))
    assert emulation.launches() - before == 1 + 2  # the check of the ids first
    before = emulation.launches()
    ops.nce_loss(**case.inputs)
    assert emulation.launches() - before == 2 + 6


def test_sampled_classes_on_several_devices(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = sampled_case("sampled_logits_forward", 6, 1, 8, 4, 20).cast("float32")
    on_gpu = case.map_arrays(cupy.asarray)
    tape = ops.sampled_logits_forward(**on_gpu.inputs).tape
    with pytest.raises(TypeError, match=r"dlogits is on the host, but the arrays of the forward call were on GPU 0"):
        ops.sampled_logits_backward(case.upstream["dlogits"], tape)
    with pytest.raises(TypeError, match=r"weights is on a GPU but candidates.sampled is on the host"):
        ops.nce_loss(**{**on_gpu.inputs, "candidates": case.inputs["candidates"]})
    mixed = on_gpu.inputs["candidates"]._replace(true_expected_count=np.ones((6, 1)))
    with pytest.raises(TypeError, match=r"weights is on a GPU but candidates.true_expected_count is on the host"):
        ops.nce_loss(**{**on_gpu.inputs, "candidates": mixed})


# --------------------------------------------------------------------------------------------
# Optimisers
# --------------------------------------------------------------------------------------------


def _many(count: int, dtype: str = "float32") -> tuple[list[Any], list[Any]]:
    """Parameters and gradients of many sizes, some by rows, some not at an address of 16 bytes."""
    rng = np.random.default_rng(5)
    params: list[Any] = []
    grads: list[Any] = []
    for k in range(count):
        shape = (k % 7 + 1, 4 * (k % 3) + 3)
        params.append(rng.standard_normal(shape).astype(dtype))
        if k % 5 == 0:
            ids: Any = np.unique(rng.integers(0, shape[0], 4)).astype(np.int32 if k % 2 else np.int64)
            grads.append(RowGrad(ids, rng.standard_normal((len(ids), shape[1])).astype(dtype)))
        else:
            grads.append(rng.standard_normal(shape).astype(dtype))
    return params, grads


def _on_gpu(cupy: Any, entry: Any) -> Any:
    return RowGrad(*map(cupy.asarray, entry)) if isinstance(entry, RowGrad) else cupy.asarray(entry)


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_emulated_optimizers_take_all_parameters_at_once(small: Any, name: str) -> None:
    """Three clipped steps of 60 parameters: two launches of updates a step, and four for the clipping's factor.

    And one for the ids of each gradient by rows, which are checked.
    """
    cupy = sys.modules["cupy"]
    params, grads = _many(60)
    on_gpu, grads_on_gpu = [cupy.asarray(param) for param in params], [_on_gpu(cupy, grad) for grad in grads]
    ours, theirs = optim.OPTIMIZERS[name](), optim.OPTIMIZERS[name]()
    by_rows = sum(isinstance(grad, RowGrad) for grad in grads)
    for _ in range(3):
        before = small.launches()
        ours.update(on_gpu, grads_on_gpu, max_norm=0.5)
        assert small.launches() - before == 2 + (2 + 1 + 1) + by_rows
        theirs.update(params, grads, max_norm=0.5)
    numpy_as_cupy.check_margins()
    for got, want in zip(on_gpu, params, strict=True):
        np.testing.assert_allclose(cupy.asnumpy(got), want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_emulated_adam_with_its_step_on_the_device(small: Any, name: str) -> None:
    cupy = sys.modules["cupy"]
    params, grads = _many(3, "float64")
    on_gpu, grads_on_gpu = [cupy.asarray(param) for param in params], [_on_gpu(cupy, grad) for grad in grads]
    ours, theirs = optim.OPTIMIZERS[name](), optim.OPTIMIZERS[name]()
    for step in range(4):
        if step == 2:
            ours.count_on_device(cupy.zeros((), np.int64))
        ours.update(on_gpu, grads_on_gpu)
        theirs.update(params, grads)
    assert ours.step == ours.step_on_device.host == 4
    for got, want in zip(on_gpu, params, strict=True):
        np.testing.assert_allclose(cupy.asnumpy(got), want, rtol=0, atol=1e-14)
    ours.set_state(*ours.state())
    assert ours.step_on_device.host == 4


def test_emulated_numbers_on_the_device(small: Any) -> None:
    """lr and grad_scale as 0-d arrays; a parameter that comes twice; addresses that are no multiples of 16 bytes."""
    cupy = sys.modules["cupy"]
    memory = cupy.asarray(np.ones(22, np.float32))
    param, first, second = memory[1:8], memory[8:15], memory[15:22]
    lr, factor = cupy.asarray(np.array(0.5, np.float32)), cupy.asarray(np.array(0.25))
    ops.sgd_update([param, param], [first, second], lr, grad_scale=factor)
    np.testing.assert_array_equal(cupy.asnumpy(memory), np.repeat([1, 0.75, 1], [1, 7, 14]))


def test_emulated_arrays_that_overlap_are_refused(small: Any) -> None:
    cupy = sys.modules["cupy"]
    memory = cupy.asarray(np.ones(21, np.float32))
    param, first, second = memory[:7], memory[7:14], memory[14:]
    with pytest.raises(ValueError, match="v overlaps m, which is changed"):
        ops.adam_update(param, cupy.asarray(np.ones(7, np.float32)), second, memory[14:], 0.1, step=1)
    with pytest.raises(ValueError, match="grads overlaps params, which is changed"):
        ops.sgd_update(param, memory[1:8], 0.1)
    with pytest.raises(ValueError, match=r"grads\[0\] overlaps grads\[1\]"):
        ops.clip_grad_norm([first, memory[8:15]], 1.0)
    np.testing.assert_array_equal(cupy.asnumpy(memory), 1)


def test_emulated_transposes_are_updated_in_place(small: Any) -> None:
    cupy = sys.modules["cupy"]
    param, grad = np.arange(6.0).reshape(2, 3), np.linspace(1, 2, 6).reshape(3, 2)
    on_gpu, transposed = cupy.asarray(param), cupy.asarray(np.ascontiguousarray(grad.T))
    ops.sgd_update(on_gpu.T, cupy.asarray(grad), 0.5)
    ops.sgd_update(on_gpu, transposed, 0.5)
    np.testing.assert_allclose(cupy.asnumpy(on_gpu), param - grad.T)
    ops.clip_grad_value(transposed.T, 1.25)
    np.testing.assert_array_equal(cupy.asnumpy(transposed), np.minimum(grad.T, 1.25))
    ops.clip_grad_norm(transposed.T, 1.0)
    np.testing.assert_allclose(np.linalg.norm(cupy.asnumpy(transposed)), 1, rtol=1e-5)


def test_emulated_norms_are_the_same_bits_again(emulation: Any) -> None:
    cupy = sys.modules["cupy"]
    grads = [cupy.asarray(grad) for grad in _many(60)[0]] + [cupy.asarray(np.linspace(0, 1, 40_000))]
    norms: list[Any] = []
    for seed in range(3):
        emulation.emulate(**SMALL, seed=seed)
        norms.append(ops.global_norm(grads))
    norms = [cupy.asnumpy(norm) for norm in norms]
    assert norms[0] == norms[1] == norms[2]
    squared = importlib.import_module("fastlstm.backends.cuda.optim").squared_norm(grads)
    np.testing.assert_allclose(np.sqrt(cupy.asnumpy(squared)), norms[0], rtol=1e-15)
    want = np.sqrt(sum(np.square(cupy.asnumpy(grad), dtype=np.float64).sum() for grad in grads))
    np.testing.assert_allclose(norms[0], want, rtol=1e-15)


def test_a_broken_gradient_stays_visible(small: Any) -> None:
    cupy = sys.modules["cupy"]
    grads = [cupy.asarray(np.array([3.0, np.nan])), cupy.asarray(np.array([4.0]))]
    norm: Any = ops.clip_grad_norm(grads, 1.0)
    assert np.isnan(cupy.asnumpy(norm))
    np.testing.assert_array_equal(cupy.asnumpy(grads[0]), [3, np.nan])
    np.testing.assert_array_equal(cupy.asnumpy(grads[1]), [4])


def test_optimizer_arrays_in_two_places(small: Any) -> None:
    cupy = sys.modules["cupy"]
    host, gpu = np.ones(3), cupy.asarray(np.ones(3))
    with pytest.raises(TypeError, match=r"params\[0\] is on the host but params\[1\] is on a GPU"):
        ops.sgd_update([host, gpu], [host, gpu], 0.1)
    with pytest.raises(TypeError, match=r"params\[0\] is on a GPU but params\[1\] is on the host"):
        ops.sgd_update([gpu, host], [gpu, host], 0.1)
    with pytest.raises(TypeError, match=r"grads\[0\] is on a GPU but grads\[1\] is on the host"):
        ops.global_norm([gpu, host])
    with pytest.raises(TypeError, match="params is on the host but grad_scale is on a GPU"):
        ops.sgd_update(host, host, 0.1, grad_scale=cupy.asarray(np.array(1.0)))
    with pytest.raises(TypeError, match=r"lr is an array of shape \(3,\), float64, expected a number or a 0-d array"):
        ops.sgd_update(gpu, gpu, gpu)


# --------------------------------------------------------------------------------------------
# What is said where something is wrong
# --------------------------------------------------------------------------------------------


def test_families_that_are_not_there_yet(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = sys.modules["cupy"]
    monkeypatch.setattr(importlib.import_module("fastlstm.backends.cuda"), "FAMILIES", ("lstm", "rnn"))
    with pytest.raises(BackendNotAvailable, match=r"'cuda' has no optim operators yet, only those of lstm, rnn"):
        ops.sgd_update(cupy.asarray(np.ones(3)), cupy.asarray(np.ones(3)), 0.1)


def test_cuda_is_chosen_by_the_arrays_alone(small: Any) -> None:
    assert "cuda" in fastlstm.available_backends()
    with pytest.raises(ValueError, match=r"backend 'cuda' is not chosen: it runs on CuPy arrays"):
        fastlstm.set_backend("cuda")


def test_show_config_names_the_families(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fastlstm.show_config()
    families = ", ".join(importlib.import_module("fastlstm.backends.cuda").FAMILIES)
    assert f"answers; CuPy arrays run on it, in the operators of {families}" in capsys.readouterr().out


def test_gradients_on_another_device_than_the_tape(small: Any) -> None:
    cupy = sys.modules["cupy"]
    case = recurrent_case(3, 2, 3, 5).cast("float32")
    on_gpu = case.map_arrays(cupy.asarray)
    tape = ops.lstm_forward(**on_gpu.inputs).tape
    with pytest.raises(TypeError, match=r"dhs is on the host, but the arrays of the forward call were on GPU 0"):
        ops.lstm_backward(case.upstream["dhs"], tape)
    with pytest.raises(TypeError, match=r"dh_n is on GPU 0, but the arrays of the forward call were on the host"):
        ops.lstm_backward(None, ops.lstm_forward(**case.inputs).tape, dh_n=on_gpu.upstream["dh_n"])


def test_a_kernel_that_cannot_run_the_problem(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = sys.modules["cupy"]
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", "rows")
    case = recurrent_case(2, 2, 3, 129).cast("float32").map_arrays(cupy.asarray)
    with pytest.raises(ValueError, match="the row kernel takes float32 LSTMs with H <= 128"):
        ops.lstm_forward(**case.inputs)


def test_the_emulation_finds_a_deadlock_and_too_many_blocks(emulation: Any) -> None:
    """What it would say, seen by launching a pass that was planned for another device."""
    emulation.emulate(**SMALL, seed=0)
    sequence = emulation.SequencePass(
        cell="lstm", direction="forward", precision="float32", N=8, T=2, H=40, reverse=False, gate_order="ifgo",
        hard_sigmoid=False, device=0, kernel="persistent",
    )  # fmt: skip
    emulation.emulate(multiprocessors=2, shared_bytes=SMALL["shared_bytes"], seed=0)
    case = recurrent_case(8, 2, 3, 40).cast("float32")
    cupy = sys.modules["cupy"]
    arrays = {"Wh": case.inputs["Wh"], "b": case.inputs["b"], "gates": np.ones((8, 2, 160), np.float32)}
    arrays |= {name: np.ones((8, 2, 40), np.float32) for name in ("hs", "h_n", "c_n")}
    memory = {name: cupy.asarray(array) for name, array in arrays.items()}
    addresses = {name: array.data.ptr for name, array in memory.items()}
    workspace = cupy.empty(sequence.workspace_bytes, np.uint8)
    with pytest.raises(RuntimeError, match="too many blocks to run at once"):
        sequence.run(addresses, workspace.data.ptr, 0)
    with pytest.raises(ValueError, match="a sequence has no array 'dh'"):
        sequence.run({"dh": 0}, workspace.data.ptr, 0)
    emulation.emulate(**SMALL, seed=0)
    sequence = emulation.SequencePass(
        cell="lstm", direction="forward", precision="float32", N=8, T=2, H=40, reverse=False, gate_order="ifgo",
        hard_sigmoid=False, device=0, kernel="cluster:8x8",
    )  # fmt: skip
    emulation.emulate(**{**SMALL, "largest_cluster": 4}, seed=0)
    with pytest.raises(RuntimeError, match="too large a cluster"):
        sequence.run(addresses, workspace.data.ptr, 0)


# --------------------------------------------------------------------------------------------
# Plans
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "rnn", "gru_reset_after", "gru_reset_before"])
def test_plans_cover_the_problem_and_fit_on_the_device(
    emulation: Any, cell: str, direction: str, precision: str
) -> None:
    for device in (H200, SMALL, {"multiprocessors": 108, "shared_bytes": 166912, "largest_cluster": 0}):
        for N in (1, 16, 20, 64, 128, 1000):
            for H in (1, 64, 128, 168, 256, 650, 1024, 2048):
                plan = emulation.plan(cell, direction, precision, N, 35, H, **device)
                assert plan["shared_bytes"] <= device["shared_bytes"]
                assert plan["unit_blocks"] * plan["units"] >= H
                assert plan["kernel"] == "cluster" or (plan["unit_blocks"] - 1) * plan["units"] < H
                assert plan["row_blocks"] * plan["rows"] >= N
                assert (plan["row_blocks"] - 1) * plan["rows"] < N
                if plan["kernel"] == "persistent":
                    assert plan["unit_blocks"] * plan["pass_blocks"] <= device["multiprocessors"]
                    assert plan["resident"] <= plan["chunks"]
                if plan["kernel"] == "cluster":
                    assert cell in ("lstm", "rnn")
                    assert plan["unit_blocks"] <= device["largest_cluster"]
                    assert plan["resident"] == plan["chunks"]
                    assert plan["workspace_bytes"] == 0
                elif plan["kernel"] != "rows":
                    gates = {"lstm": [4], "rnn": [1], "gru_reset_after": [3], "gru_reset_before": [2, 1]}[cell]
                    in_chunk = 64 // {"bf16": 2, "float64": 8}.get(precision, 4)
                    widths = [H * (of_part if direction == "backward" else 1) for of_part in gates]
                    assert plan["chunks"] == sum(-(-K // in_chunk) for K in widths)


def test_the_plain_kernel_where_no_other_fits(emulation: Any) -> None:
    for cell in ("lstm", "gru_reset_before"):
        plan = emulation.plan(cell, "backward", "tf32", 8, 35, 64, multiprocessors=12, shared_bytes=100)
        assert plan["kernel"] == "plain"
        assert plan["shared_bytes"] == 0


def test_the_row_kernel_fits_on_gpus_with_99_kilobytes_of_shared_memory(emulation: Any) -> None:
    """Ampere's and Ada's smaller ones, and the Blackwells of workstations."""
    for N in (1, 200, 5000):
        for H in (96, 97, 128):
            plan = emulation.plan("lstm", "forward", "float32", N, 35, H, multiprocessors=84, shared_bytes=101_376)
            assert plan["kernel"] == "rows"


def test_gpus_for_which_there_is_no_code(emulation: Any) -> None:
    """By compute capability, and where the driver has to compile PTX, by its minor version too."""

    def why_no_code(capability: int, driver: int = 13000, **build: Any) -> str | None:
        build = {"machine_code": [80, 90, 100], "ptx": 90, "runtime": 13000, **build}
        reason: str | None = emulation.why_no_code(capability=capability, driver=driver, **build)
        return reason

    for capability in (80, 86, 89, 90, 100, 103):
        assert why_no_code(capability) is None
        assert why_no_code(capability, runtime=13020) is None  # machine code does not mind
    assert "compute capability 7.5, but this build has code for 8.0, 9.0, 10.0 only" in str(why_no_code(75))
    assert "compute capability 8.6, but" in str(why_no_code(86, machine_code=[90], ptx=90))
    assert why_no_code(86, machine_code=[80], ptx=80) is None
    assert "compute capability 8.0, but" in str(why_no_code(80, machine_code=[86], ptx=90))
    for capability in (120, 110):
        assert why_no_code(capability) is None
        assert why_no_code(capability, driver=13010) is None
        reason = str(why_no_code(capability, runtime=13020))
        assert "has to compile PTX of CUDA 13.2, but it supports CUDA 13.0; install a newer driver" in reason


def test_the_choice_of_kernels_on_an_h200(emulation: Any) -> None:
    def chosen(precision: str, N: int, T: int, H: int, direction: str = "forward") -> Any:
        plan = emulation.plan("lstm", direction, precision, N, T, H, **H200)
        return plan["kernel"], plan["unit_blocks"], plan["row_blocks"], plan["resident"] == plan["chunks"]

    assert chosen("float32", 128, 35, 128)[:3] == ("rows", 1, 128)
    assert chosen("tf32", 20, 1, 650)[0] == "step"
    assert chosen("tf32", 20, 1, 256)[0] == "step"
    # Clusters where they hold all weights and do not take many turns; exact products read their weights eight times, so
    # fewer of them a block are better there, but for the way back.
    assert chosen("float32", 20, 35, 129) == ("persistent", 33, 3, True)
    assert chosen("float32", 62, 35, 168, "backward") == ("cluster", 16, 4, True)
    for direction in ("forward", "backward"):
        assert chosen("tf32", 20, 35, 256, direction) == ("cluster", 16, 3, True)
        assert chosen("bf16", 16, 35, 512, direction) == ("cluster", 16, 2, True)
        assert chosen("tf32", 20, 35, 512, direction)[0] == "persistent"
        assert chosen("bf16", 128, 35, 512, direction)[0] == "persistent"
    # One pass over all rows, and all weights in shared memory where they fit.
    for precision in ("tf32", "bf16"):
        for direction in ("forward", "backward"):
            for N, H in ((16, 768), (20, 650), (64, 650), (64, 1024)):
                kernel, unit_blocks, row_blocks, resident = chosen(precision, N, 35, H, direction)
                assert kernel == "persistent"
                assert unit_blocks * row_blocks <= 132
                # Where a block reads fewer rows for it, weights from L2 weigh less.
                assert resident or (direction, N) == ("backward", 64) or (precision, H) == ("tf32", 1024)


def test_a_plan_that_does_not_fit_says_why(emulation: Any) -> None:
    with pytest.raises(ValueError, match="the units of H = 3000 do not fit on 12 multiprocessors at a time"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 3000, **SMALL, kernel="persistent")
    with pytest.raises(ValueError, match="the cluster kernel takes LSTMs and RNNs, not GRUs"):
        emulation.plan("gru_reset_after", "forward", "tf32", 8, 35, 64, **H200, kernel="cluster")
    with pytest.raises(ValueError, match=r"needs a GPU of compute capability 9\.0 or later"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 64, **{**H200, "largest_cluster": 0}, kernel="cluster")
    with pytest.raises(ValueError, match=r"no cluster of 8 blocks and 64 rows holds the units of H = 64 here"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 64, **H200, kernel="cluster:8x64")
    with pytest.raises(ValueError, match="kernel is 'cluster:8x8 ', expected one of 'cluster', 'persistent', 'plain'"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 64, **H200, kernel="cluster:8x8 ")
    with pytest.raises(ValueError, match="up to 16 blocks of 232448 bytes; those of H = 650 do not fit"):
        emulation.plan("lstm", "forward", "tf32", 20, 35, 650, **H200, kernel="cluster")
    with pytest.raises(ValueError, match="precision is 'fp8', expected one of 'bf16', 'float32'"):
        emulation.plan("lstm", "forward", "fp8", 8, 35, 64, **SMALL)


def test_the_benchmark_runs_our_side(emulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two layers of benchmarks/gpu_lstm.py are those of the host, and its table takes what it measures."""
    benchmark = pytest.importorskip("benchmarks.gpu_lstm", reason="the benchmarks are not beside the tests")
    emulation.emulate(**SMALL, seed=0)
    assert len(set(benchmark.shapes())) == len(benchmark.shapes()) == 4 * 8 * 2 * 4
    monkeypatch.setattr(benchmark, "T", 3)
    shape = benchmark.Shape(4, 20, 2, "tf32")
    inputs = benchmark.draw(shape)
    hs, (dxs, *weights) = benchmark.Ours(shape, inputs)()
    monkeypatch.setattr(benchmark, "PRECISIONS", {"tf32": None})
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(asarray=np.asarray))
    hs_host, (dxs_host, *weights_host) = benchmark.Ours(shape, inputs)()
    for got, want in zip((hs, dxs, *weights), (hs_host, dxs_host, *weights_host), strict=True):
        np.testing.assert_allclose(got.host, want, rtol=0, atol=2e-2 * np.abs(want).max())
    gru, updates = (importlib.import_module(f"benchmarks.{name}") for name in ("gpu_gru", "gpu_optim"))
    monkeypatch.setattr(gru, "T", 3)
    monkeypatch.setitem(updates.MODELS, "addition", [(3, 4), (70,)])
    small_gru, work = gru.Shape(4, 20, "fp32"), updates.Work("addition", "adam", 0.25)
    results: dict[str, list[Any]] = {}
    for place in ("gpu", "host"):
        if place == "host":
            monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(asarray=np.array))
        else:
            monkeypatch.setitem(sys.modules, "cupy", numpy_as_cupy.modules()["cupy"])
        made = []
        for convention in ("book", "pytorch"):
            monkeypatch.setattr(gru, "PRECISIONS", {"fp32": "float32"})
            hs, grads = gru.Ours(small_gru, gru.draw(small_gru), convention)()
            made += [hs, *grads]
        update = updates.Ours(work, *updates.draw(work))
        update()
        results[place] = [*made, *update.params]
    for got, want in zip(results["gpu"], results["host"], strict=True):
        np.testing.assert_allclose(got.host, want, rtol=0, atol=1e-4)
    assert "addition, adam, clipped" in updates.table([
        {**work._asdict(), "median_ms": {"fastlstm": 1.0, "torch": 3.0}, "ratio": 3.0, "gb_per_second": 4.0}
    ])  # fmt: skip
    assert "N 4, H 20, fp32" in gru.table([
        {**small_gru._asdict(), "median_ms": {"fastlstm": 1.0, "torch": 3.0, "fastlstm, book": 2.0}, "ratio": 3.0}
    ])  # fmt: skip
    measured = {
        "median_ms": {"fastlstm": 1.0, "torch": 3.0},
        "ratio": 3.0,
        "kernel": {"forward": "rows"},
        "step_us": {"forward": 1.5, "backward": 2.25},
    }
    line = benchmark.table([{**shape._asdict(), **measured, "step_us_of": {}}])
    assert "N 4, H 20, 2 layers, tf32" in line
    assert line.endswith("3.00  1.50 / 2.25  rows")
    of_kernels = {"step_us_of": {"step": {"forward": 4.0, "backward": 5.0}, "rows": {"forward": 1.5}}}
    line = benchmark.table([{**shape._asdict(), **measured, **of_kernels}])
    assert line.endswith("1.50 / 2.25  rows (step 4.00 / 5.00, rows 1.50)")


def test_the_benchmark_times_every_kernel_that_takes_a_shape(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = pytest.importorskip("benchmarks.gpu_lstm", reason="the benchmarks are not beside the tests")
    monkeypatch.setattr(benchmark, "T", 2)

    def launches(call: Any, *_: Any) -> list[float]:
        before = small.launches()
        call()
        return [float(small.launches() - before)]

    monkeypatch.setattr(benchmark.gpu_measure, "of_cupy", launches)
    loops = benchmark.loop_steps(benchmark.Shape(4, 20, 1, "fp32"), every_kernel=True, calls=1)
    assert loops["kernel"] == {"forward": "rows", "backward": "rows"}
    # Thousands of launches a step: packing, preparing and 2 or 3 phases; packing, preparing and one; one; one.
    assert loops["step_us_of"] == {
        "step": {"forward": 2000.0, "backward": 2500.0},
        "persistent": {"forward": 1500.0, "backward": 1500.0},
        "rows": {"forward": 500.0, "backward": 500.0},
        "cluster": {"forward": 500.0, "backward": 500.0},
    }
    loops = benchmark.loop_steps(benchmark.Shape(4, 20, 1, "bf16"), every_kernel=True, calls=1)
    assert list(loops["step_us_of"]) == ["step", "persistent", "cluster"]
    assert loops["kernel"]["forward"] == "cluster"


def test_the_benchmark_of_the_embedding_runs_our_side(small: Any) -> None:
    benchmark = pytest.importorskip("benchmarks.gpu_embedding", reason="the benchmarks are not beside the tests")
    size = benchmark.Size(40, 6, 50)
    batches = benchmark.draw(size)
    benchmark.check(size, batches, {name: make(size, batches) for name, make in benchmark.OURS.items()})
    times = dict.fromkeys([*benchmark.OURS, "graph", *benchmark.PEERS], 0.0125)
    assert "V 40, E 6, M 50                      12.5" in benchmark.table([{**size._asdict(), "median_ms": times}])


def test_the_benchmark_of_the_losses_runs_our_side(small: Any) -> None:
    benchmark = pytest.importorskip("benchmarks.gpu_losses", reason="the benchmarks are not beside the tests")
    size = benchmark.Size(9, 5, 40)
    inputs = benchmark.draw(size)
    benchmark.check(inputs, {memory: benchmark.Ours(inputs, memory) for memory in ("fast", "low")})
    of_sides = dict.fromkeys(("fast", "low", "torch"), 2500000.0)
    line = benchmark.table([{**size._asdict(), "median_ms": of_sides, "extra_bytes": of_sides}])
    assert line.endswith("2.5         2.5         2.5")


def test_the_nce_benchmark_runs_our_side(emulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step on the GPU is the step on the host."""
    benchmark = pytest.importorskip("benchmarks.gpu_sampling", reason="the benchmarks are not beside the tests")
    missing = {"embedding", "optim"} - set(importlib.import_module("fastlstm.backends.cuda").FAMILIES)
    if missing:
        pytest.skip(f"the CUDA backend has no {' and '.join(sorted(missing))} yet, which a step needs")
    emulation.emulate(**SMALL, seed=0)
    rng = np.random.default_rng(0)
    tables = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in
              (("embedding", (300, 8)), ("weights", (300, 8)), ("biases", (300,)))}  # fmt: skip
    pair = rng.integers(0, 300, 20), rng.integers(0, 300, 20)
    monkeypatch.setattr(benchmark, "tables", lambda: {name: table.copy() for name, table in tables.items()})
    monkeypatch.setattr(benchmark, "batches", lambda: [pair])
    monkeypatch.setattr(benchmark, "V", 300)
    monkeypatch.setattr(benchmark, "B", 20)
    loss, after, candidates = benchmark.first_step(benchmark.ours_on_gpu())
    on_host = benchmark.Ours(benchmark.tables(), [])
    sample = ops.log_uniform_candidates(benchmark.S, 300, pair[1], rng=np.random.default_rng(3))
    np.testing.assert_array_equal(sys.modules["cupy"].asnumpy(candidates.sampled), sample.sampled)
    np.testing.assert_allclose(loss, on_host.step(*pair, sample), rtol=1e-4)
    for name, table in on_host.tables.items():
        np.testing.assert_allclose(after[name], table, atol=1e-4)
    for call in benchmark.parts(benchmark.ours_on_gpu()).values():
        call()
    measured = {"median_us": {"fastlstm": 1.0, "torch": 3.0}, "ratio": 3.0, "parts_us": {"sample": 0.5}}
    line = benchmark.table({"V": 300, "E": 8, "B": 20, "S": 64, **measured})
    assert "NCE step V300 E8 B20 S64: ours 1.0 us, torch 3.0 us, ratio 3.00" in line


# --------------------------------------------------------------------------------------------
# Ids are looked at on the device
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("count", [1, 7, 256, 300_000])
@pytest.mark.parametrize("seed", [0, 3])
def test_emulated_check_of_ids(emulation: Any, dtype: type, count: int, seed: int) -> None:
    """What is wrong becomes 0 and is told of once: the lowest id if that is negative, else the highest."""
    emulation.emulate(**SMALL, seed=seed)
    cupy = sys.modules["cupy"]
    check_ids = importlib.import_module("fastlstm.backends.cuda.ids")
    given: Any = np.random.default_rng(count).integers(0, 50, count).astype(dtype)
    for wrong, ignored in (([], None), ([50, 60], None), ([-3, 70, -9], None), ([-1, 51], -1)):
        ids = given.copy()
        places = np.random.default_rng(seed).permutation(count)[: len(wrong)]
        ids[places] = wrong[: len(places)]
        there = ids[((ids < 0) | (ids >= 50)) & (ids != (0 if ignored is None else ignored))]
        bounds = checks.IdBounds("ids", 50, "W has V = {} rows", ignored)
        checked = check_ids.check(cupy.asarray(ids), upper=50, ignore_index=ignored, source=bounds)
        np.testing.assert_array_equal(cupy.asnumpy(checked), np.where(np.isin(ids, there), 0, ids))
        numpy_as_cupy.check_margins()
        if there.size:
            worst = there.min() if there.min() < 0 else there.max()
            # Another one finds no room before the first has been read.
            check_ids.check(cupy.asarray(np.array([99], dtype)), upper=50, ignore_index=None, source=bounds)
            with pytest.raises(IndexError, match=f"ids holds {worst}, expected"):
                check_ids.raise_fault()
        check_ids.raise_fault()


def test_threads_with_a_stream_of_their_own_share_no_check_of_ids(small: Any) -> None:
    """Such streams have one address in all threads."""
    cupy = sys.modules["cupy"]
    check_ids = importlib.import_module("fastlstm.backends.cuda.ids")
    found: list[int] = []

    def look(stream: int) -> None:
        found.append(check_ids._shared(device=0, stream=stream).data.ptr)

    of_each, common = cupy.cuda.Stream.ptds.ptr, 0x5000
    for stream in (of_each, common):
        threads = [threading.Thread(target=look, args=(stream,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        look(stream)
        for thread in threads:
            thread.join()
    # A thread may begin when another has ended, and have its number; this one is there all the time.
    assert len(set(found[:3])) >= 2
    assert len(set(found[3:])) == 1


def test_emulated_operators_report_wrong_ids(small: Any) -> None:
    cupy = sys.modules["cupy"]
    check_ids = importlib.import_module("fastlstm.backends.cuda.ids")
    bounds = checks.IdBounds("ids", None, "")
    check_ids.check(cupy.asarray(np.array([3, -2])), upper=None, ignore_index=None, source=bounds)
    case = recurrent_case(2, 2, 3, 5).cast("float32").map_arrays(cupy.asarray)
    with pytest.raises(IndexError, match="ids holds -2, expected ids from 0; negative ids do not count from the end"):
        ops.lstm_forward(**case.inputs)
    ops.lstm_forward(**case.inputs)
