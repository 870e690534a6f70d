"""The CUDA backend on an emulated GPU: the code that nvcc compiles, against the definition."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import cuda_emulation
import numpy as np
import numpy_as_cupy
import pytest
from cuda_cases import H200, POINTWISE, RECURRENT, RUNS, SMALL, fits, gru_case, in_precision, recurrent_case

import fastlstm
from fastlstm import BackendNotAvailable, backends, ops, optim
from fastlstm.contract import Precision, RowGrad
from fastlstm.testing import check_backend


@pytest.fixture(scope="module")
def emulation() -> Iterator[Any]:
    """CuPy and _cuda of an emulated GPU; afterwards everything is as before."""
    module = cuda_emulation.load()
    patch = pytest.MonkeyPatch()
    _forget_the_backend(patch)
    for name, stand_in in numpy_as_cupy.modules().items():
        patch.setitem(sys.modules, name, stand_in)
    patch.setitem(sys.modules, "fastlstm._cuda", module)
    patch.setattr(fastlstm, "_cuda", module, raising=False)
    yield module
    patch.undo()
    backends.why_not.cache_clear()
    backends.load_family.cache_clear()


def _forget_the_backend(patch: pytest.MonkeyPatch) -> None:
    backends.why_not.cache_clear()
    backends.load_family.cache_clear()
    for name in list(sys.modules):
        if name.startswith("fastlstm.backends.cuda"):
            patch.delitem(sys.modules, name)


@pytest.fixture
def small(emulation: Any) -> Any:
    emulation.emulate(**SMALL, seed=0)
    return emulation


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
@pytest.mark.parametrize("family", POINTWISE)
def test_emulated_families_agree_with_the_definition(small: Any, family: str, dtype: str) -> None:
    faults = []
    for case in POINTWISE[family]:
        try:
            check_backend("cuda", case, dtype)
            numpy_as_cupy.check_margins()
        except (AssertionError, RuntimeError) as error:
            faults.append(f"{case}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("H", [97, 128])
@pytest.mark.parametrize("N", [3, 14])
def test_emulated_row_kernel_with_weights_in_shared_memory(
    emulation: Any, monkeypatch: pytest.MonkeyPatch, H: int, N: int
) -> None:
    """One row a block, and four of which the last block has two."""
    emulation.emulate(multiprocessors=4, shared_bytes=H200["shared_bytes"], seed=2)
    monkeypatch.setenv("FASTLSTM_CUDA_KERNEL", "rows")
    in_precision(recurrent_case(N, 3, 5, H), "float32")


@pytest.mark.parametrize("kernel", ["persistent", "rows"])
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
    emulation.emulate(**H200, seed=0)
    cupy = sys.modules["cupy"]
    for H, launches in ((20, 1), (140, 3)):  # rows; packing, preparing and the persistent kernel
        case = recurrent_case(2, 3, 3, H).cast("float32").map_arrays(cupy.asarray)
        before = emulation.launches()
        tape = ops.lstm_forward(**case.inputs).tape
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
    """Three clipped steps of 60 parameters: two launches of updates a step, and three for the clipping's factor."""
    cupy = sys.modules["cupy"]
    params, grads = _many(60)
    on_gpu, grads_on_gpu = [cupy.asarray(param) for param in params], [_on_gpu(cupy, grad) for grad in grads]
    ours, theirs = optim.OPTIMIZERS[name](), optim.OPTIMIZERS[name]()
    for _ in range(3):
        before = small.launches()
        ours.update(on_gpu, grads_on_gpu, max_norm=0.5)
        assert small.launches() - before == 2 + (2 + 1 + 1)
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


def test_emulated_norms_are_the_same_bits_again(emulation: Any) -> None:
    cupy = sys.modules["cupy"]
    grads = [cupy.asarray(grad) for grad in _many(60)[0]] + [cupy.asarray(np.linspace(0, 1, 40_000))]
    norms: list[Any] = []
    for seed in range(3):
        emulation.emulate(**SMALL, seed=seed)
        norms.append(ops.global_norm(grads))
    norms = [cupy.asnumpy(norm) for norm in norms]
    assert norms[0] == norms[1] == norms[2]
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


# --------------------------------------------------------------------------------------------
# Plans
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64", "tf32", "bf16"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "rnn", "gru_reset_after", "gru_reset_before"])
def test_plans_cover_the_problem_and_fit_on_the_device(
    emulation: Any, cell: str, direction: str, precision: str
) -> None:
    for device in (H200, SMALL, {"multiprocessors": 108, "shared_bytes": 166912}):
        for N in (1, 16, 20, 64, 128, 1000):
            for H in (1, 64, 128, 168, 256, 650, 1024, 2048):
                plan = emulation.plan(cell, direction, precision, N, 35, H, **device)
                assert plan["shared_bytes"] <= device["shared_bytes"]
                assert plan["unit_blocks"] * plan["units"] >= H
                assert (plan["unit_blocks"] - 1) * plan["units"] < H
                assert plan["row_blocks"] * plan["rows"] >= N
                assert (plan["row_blocks"] - 1) * plan["rows"] < N
                if plan["kernel"] == "persistent":
                    assert plan["unit_blocks"] * plan["pass_blocks"] <= device["multiprocessors"]
                    assert plan["resident"] <= plan["chunks"]
                if plan["kernel"] != "rows":
                    gates = {"lstm": [4], "rnn": [1], "gru_reset_after": [3], "gru_reset_before": [2, 1]}[cell]
                    in_chunk = 64 // {"bf16": 2, "float64": 8}.get(precision, 4)
                    widths = [H * (of_part if direction == "backward" else 1) for of_part in gates]
                    assert plan["chunks"] == sum(-(-K // in_chunk) for K in widths)


def test_the_choice_of_kernels_on_an_h200(emulation: Any) -> None:
    def chosen(precision: str, N: int, T: int, H: int, direction: str = "forward") -> Any:
        plan = emulation.plan("lstm", direction, precision, N, T, H, **H200)
        return plan["kernel"], plan["unit_blocks"], plan["row_blocks"], plan["resident"] == plan["chunks"]

    assert chosen("float32", 128, 35, 128)[:3] == ("rows", 1, 128)
    assert chosen("float32", 20, 35, 129)[0] == "persistent"
    assert chosen("tf32", 20, 1, 650)[0] == "step"
    # One pass over all rows, and all weights in shared memory where they fit.
    for precision in ("tf32", "bf16"):
        for direction in ("forward", "backward"):
            for N, H in ((16, 768), (20, 650), (64, 650), (64, 1024)):
                kernel, unit_blocks, row_blocks, resident = chosen(precision, N, 35, H, direction)
                assert kernel == "persistent"
                assert unit_blocks * row_blocks <= 132
                assert resident or (direction, N) == ("backward", 64)  # fewer rows to read weigh more there


def test_a_plan_that_does_not_fit_says_why(emulation: Any) -> None:
    with pytest.raises(ValueError, match="the units of H = 3000 do not fit on 12 multiprocessors at a time"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 3000, **SMALL, kernel="persistent")
    with pytest.raises(ValueError, match="100 bytes of shared memory, too few for any kernel"):
        emulation.plan("lstm", "forward", "tf32", 8, 35, 64, multiprocessors=12, shared_bytes=100)
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
    measured = {"median_ms": {"fastlstm": 1.0, "torch": 3.0}, "ratio": 3.0, "kernel": {"forward": "rows"}}
    line = benchmark.table([{**shape._asdict(), **measured, "step_us": {"forward": 1.5, "backward": 2.25}}])
    assert "N 4, H 20, 2 layers, tf32" in line
    assert "3.00  1.50 / 2.25  rows" in line
