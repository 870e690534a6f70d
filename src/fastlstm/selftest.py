"""What ``fastlstm selftest`` does: every operator on this machine against the definition, in less than a minute.

On the processor: each backend, precision and instruction set, and the same bits for any number of threads. On a GPU:
each kernel, tile and precision, the same bits again and again while other work keeps the GPU busy, and trainings as
CUDA graphs. The definition is ``fastlstm.backends.numpy``, run in float64; tolerances are those of
``fastlstm.contract``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import fastlstm
from fastlstm import contract, ops, selftest_cases, testing
from fastlstm.ops.device import check_device

# As FASTLSTM_MAX_ISA takes them; a process runs those that its processor has.
INSTRUCTION_SETS = ("baseline", "avx2", "avx512", "avx512_bf16", "neon")

KERNELS = ("plain", "step", "persistent", "rows", "cluster")
PRECISIONS: tuple[contract.Precision, ...] = ("float32", "float64", "tf32", "bf16")
# What is asked of a kernel by FASTLSTM_CUDA_KERNEL: columns and rows of tiles, blocks and rows of clusters.
TILES = tuple(itertools.product((16, 32, 48, 64), (8, 16, 32, 64)))
CLUSTERS = tuple(itertools.product((1, 2, 4, 8, 16), (8, 16, 32)))
REPEATS = 200


# Each with its name. What a check needs of the environment is there while it is the current one.
_Checks: TypeAlias = Iterator[tuple[str, Callable[[], object]]]


class Row(NamedTuple):
    """A line of the table: what was checked, how often, what was wrong, and how many seconds that took."""

    what: str
    checks: int
    faults: list[str]
    seconds: float


def run(device: str = "cpu", *, everything: bool = False) -> Iterator[Row]:
    """Checks one thing after the other.

    Parameters
    ----------
    device : "cpu" or "cuda"
    everything : bool
        Numba too where it is not the backend that runs: it compiles its kernels first, which takes minutes.

    Yields
    ------
    Row
        A line of the table, as soon as it is known.

    Raises
    ------
    BackendNotAvailable
        Nothing can be computed on the device here; the message says why.
    """
    check_device("cuda" if device == "cuda" else "cpu")
    yield from (_on_gpu() if device == "cuda" else _on_cpu(everything))


def report(rows: Iterable[Row], say: Callable[[str], None] = print) -> bool:
    """Writes the table of what was checked, line by line, and what was wrong; returns whether all was right."""
    say(f"{'what':48}{'checks':>8}{'wrong':>8}{'seconds':>9}")
    checks, wrong, faults, start = 0, 0, [], time.perf_counter()
    for row in rows:
        say(f"{row.what:48}{row.checks:8}{len(row.faults):8}{row.seconds:9.1f}")
        checks, wrong = checks + row.checks, wrong + len(row.faults)
        faults += [f"{row.what}: {fault}" for fault in row.faults]
    if checks == 0:
        faults.append("nothing was checked")
    seconds = time.perf_counter() - start
    if not faults:
        say(f"all {checks} checks passed, in {seconds:.1f} s")
        return True
    say(f"{wrong} of {checks} checks FAILED, in {seconds:.1f} s. Please report it, with all of this text:")
    for fault in faults:
        say(f"- {fault}")
    return False


def _row(what: str, checks: _Checks) -> Row:
    """Runs checks, each with its name; whatever one raises is a fault."""
    start, count, faults = time.perf_counter(), 0, []
    for name, check in checks:
        count += 1
        try:
            check()
        except Exception as error:  # also what a kernel that breaks the device makes of all that follows
            text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            faults.append(text if name in text else f"{name}: {text}")
    return Row(what, count, faults, time.perf_counter() - start)


def _agrees(backend: str, cases: Iterable[testing.Case], precision: str) -> _Checks:
    """The checks that a backend's results are the definition's, in a precision."""
    dtype = "float64" if precision == "float64" else "float32"
    for case in cases:
        yield (
            str(case),
            functools.partial(
                testing.check_backend, backend, case, dtype, precision=None if precision == dtype else precision
            ),
        )


# --------------------------------------------------------------------------------------------
# The processor
# --------------------------------------------------------------------------------------------


def _on_cpu(everything: bool) -> Iterator[Row]:
    for backend in fastlstm.available_backends():
        if backend == "cpp":
            best = importlib.import_module("fastlstm._cpu").isa()
            for level in INSTRUCTION_SETS:
                yield from _of_backend(backend, f"cpp {best}") if level == best else _of_instruction_set(level)
        elif backend == "numba" and fastlstm.get_backend() != "numba" and not everything:
            yield Row("numba: left out, --all compiles and checks it", 0, [], 0.0)
        elif backend != "cuda":
            yield from _of_backend(backend, backend)


def _of_backend(backend: str, name: str) -> Iterator[Row]:
    cases = [*selftest_cases.recurrent_cases(), *selftest_cases.other_cases()]
    for dtype in ("float32", "float64"):
        samples = selftest_cases.sample_cases() if dtype == "float64" else []
        yield _row(f"{name}, {dtype}", _agrees(backend, [*cases, *samples], dtype))
    in_bf16 = [case for case in cases if case.op in selftest_cases.IN_BF16]
    yield _row(f"{name}, bf16 products", _agrees(backend, in_bf16, "bf16"))
    yield _row(f"{name}, same bits of prepared weights", _same_with_prepared_weights(backend))
    if backend != "numpy":  # whose products are OpenBLAS's
        yield _row(f"{name}, same bits for 1, 2, 3, 5 threads", _same_for_any_threads(backend, cases))


def _same_for_any_threads(backend: str, cases: Iterable[testing.Case]) -> _Checks:
    def check(case: testing.Case) -> None:
        before, results = fastlstm.get_num_threads(), []
        try:
            with fastlstm.use_backend(backend):
                for threads in (1, 2, 3, 5, 1, 5):
                    fastlstm.set_num_threads(threads)
                    results.append(testing.run_case(case))
        finally:
            fastlstm.set_num_threads(before)
        for other in results[1:]:
            for name, value in results[0].items():
                assert np.asarray(value).tobytes() == np.asarray(other[name]).tobytes(), f"{name} has other bits"

    for case in cases:
        yield str(case), functools.partial(check, case.cast("float32"))


def _same_with_prepared_weights(backend: str) -> _Checks:
    """Without a tape, as prepared weights have none; on the host, where they are packed."""

    def check(case: testing.Case, precision: contract.Precision | None) -> None:
        inputs: dict[str, Any] = {**case.inputs, "training": False}
        xs, *weights = (inputs.pop(name) for name in ("xs", "Wx", "Wh", "b"))
        gates = {name: inputs.pop(name) for name in ("gate_order", "convention") if name in inputs}
        forward = getattr(ops, case.op)
        with fastlstm.use_backend(backend):
            plain = forward(xs, *weights, **gates, precision=precision, **inputs)
            prepared = getattr(ops, f"prepare_{case.op.partition('_')[0]}")(*weights, **gates, precision=precision)
            got = forward(xs, prepared, **inputs)
        for name, one, other in zip(plain._fields[:-1], plain, got, strict=False):
            assert one.tobytes() == other.tobytes(), f"{name} has other bits"

    def check_product(case: testing.Case, precision: contract.Precision | None) -> None:
        a, b, bias = (case.inputs[name] for name in ("a", "b", "bias"))
        with fastlstm.use_backend(backend):
            plain = ops.matrix_product(a, b, bias=bias, precision=precision)
            got = ops.matrix_product(a, ops.prepare_dense(b, bias, precision=precision))
        # OpenBLAS's last bits depend on where a copy lies in memory.
        limit = 0.0 if backend == "cpp" else contract.TOLERANCE[plain.dtype.name]
        np.testing.assert_allclose(got, plain, rtol=limit, atol=limit, err_msg="the product has other bits")

    looks = [(case, check) for case in selftest_cases.recurrent_cases() if "xs" in case.inputs]
    looks += [(case, check_product) for case in selftest_cases.other_cases() if case.op == "matrix_product"]
    for case, look in looks:
        yield f"{case} in float64", functools.partial(look, case, None)
        yield f"{case} in float32", functools.partial(look, case.cast("float32"), None)
        yield f"{case} in bf16", functools.partial(look, case.cast("float32"), "bf16")


def _of_instruction_set(level: str) -> Iterator[Row]:
    """In a process of its own, because the instruction set is chosen once; nothing where the processor has it not."""
    done = subprocess.run(
        [sys.executable, "-m", "fastlstm.selftest", level],
        env={**os.environ, "FASTLSTM_MAX_ISA": level},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        yield Row(*json.loads(line))
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        yield Row(f"cpp {level}", 1, [f"the process ended with {done.returncode}: {last}"], 0.0)


def _child(level: str) -> None:
    """What that process does: a line of JSON for each row."""
    try:
        chosen = importlib.import_module("fastlstm._cpu").isa()
    except (ImportError, ValueError):  # there is no such set on processors of this kind
        return
    if chosen == level:
        for row in _of_backend("cpp", f"cpp {level}"):
            print(json.dumps(row))


# --------------------------------------------------------------------------------------------
# A GPU
# --------------------------------------------------------------------------------------------


def _on_gpu() -> Iterator[Row]:
    others = [case for case in selftest_cases.other_cases() if case.op not in selftest_cases.HOST_ONLY]
    for dtype in ("float32", "float64"):
        samples = selftest_cases.sample_cases() if dtype == "float64" else []
        yield _row(f"cuda, all families but recurrent, {dtype}", _agrees("cuda", [*others, *samples], dtype))
    recurrent = selftest_cases.recurrent_cases()
    for precision in PRECISIONS:
        yield _row(f"cuda, the chosen kernel, {precision}", _agrees("cuda", recurrent, precision))
        for kernel in KERNELS:
            cases = [case for case in recurrent if _takes(kernel, precision, case)]
            if cases:
                yield _row(f"cuda, {kernel} kernel, {precision}", _with_kernel(kernel, cases, precision))
        for kernel, shapes in (("step", TILES), ("persistent", TILES), ("cluster", CLUSTERS)):
            yield _row(f"cuda, {kernel}, every tile, {precision}", _with_every_shape(kernel, shapes, precision))
    yield _row(f"cuda, same bits {REPEATS} times under load", _same_under_load())
    yield _row("cuda, trainings as graphs", _graphs())


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _takes(kernel: str, precision: str, case: testing.Case) -> bool:
    """Whether a kernel, as FASTLSTM_CUDA_KERNEL names it, can run a case forward and backward on this GPU."""
    import cupy

    family = case.op.split("_")[0]
    xs = case.inputs.get("xs", case.inputs.get("x"))
    cell = family
    if family == "gru":
        cell = "gru_reset_before" if case.inputs.get("convention", "book") == "book" else "gru_reset_after"
    for direction in ("forward", "backward"):
        try:
            importlib.import_module("fastlstm._cuda").SequencePass(
                cell=cell, direction=direction, precision=precision, N=len(xs), T=xs.shape[1] if xs.ndim == 3 else 1,
                H=len(case.inputs["Wh"]), reverse=False, gate_order="zrn" if family == "gru" else "ifgo",
                hard_sigmoid=False, device=cupy.cuda.Device().id, kernel=kernel,
            )  # fmt: skip
        except ValueError:
            return False
    return True


def _with_kernel(kernel: str, cases: Iterable[testing.Case], precision: str) -> _Checks:
    for name, check in _agrees("cuda", cases, precision):
        with _environment("FASTLSTM_CUDA_KERNEL", kernel):
            yield f"{kernel}, {name}", check


def _with_every_shape(kernel: str, shapes: Iterable[tuple[int, int]], precision: str) -> _Checks:
    """More rows and units than a tile, a GRU of each kind too: those shapes that were compiled and fit on this GPU."""
    for width, rows in shapes:
        asked = f"{kernel}:{width}x{rows}"
        cases = [selftest_cases.recurrent_case("lstm", rows + 5, 3, 5, 4 * width + 5, reverse=True)]
        if kernel != "cluster":
            cases = [selftest_cases.recurrent_case("lstm", rows + 5, 3, 5, width + 5, reverse=True)]
            cases += [
                selftest_cases.recurrent_case("gru", rows + 5, 3, 5, width + 5, convention=name)
                for name in ("book", "pytorch")
            ]
        yield from _with_kernel(asked, [case for case in cases if _takes(asked, precision, case)], precision)


def _same_under_load() -> _Checks:
    """A block that reads what another has not yet made visible gives other bits, now and then."""
    import cupy

    def check(case: testing.Case, precision: contract.Precision) -> None:
        load = cupy.cuda.Stream(non_blocking=True)
        big = cupy.ones((1024, 1024), np.float32)
        on_gpu = case.cast("float32").map_arrays(cupy.asarray)
        different = cupy.zeros((), np.int64)
        first: list[Any] = []
        for _ in range(REPEATS):
            with load:
                big += cupy.exp(-big)
            out: Any = ops.lstm_forward(**on_gpu.inputs, precision=precision)
            grads = ops.lstm_backward(tape=out.tape, **on_gpu.upstream)
            results = [*out[:3], *grads]
            first = first or results
            for ours, theirs in zip(first, results, strict=True):
                different += cupy.count_nonzero(ours != theirs)
        load.synchronize()
        count = int(cupy.asnumpy(different))
        assert count == 0, f"{count} numbers had other bits in one of {REPEATS} runs"

    loops: tuple[tuple[str, contract.Precision, int, int], ...] = (
        ("persistent", "bf16", 20, 100),
        ("persistent", "float32", 64, 70),
        ("cluster", "bf16", 16, 100),
        ("cluster", "float32", 16, 70),
        ("rows", "float32", 16, 70),
    )
    for kernel, precision, N, H in loops:
        case = selftest_cases.recurrent_case("lstm", N, 12, 16, H)
        if _takes(kernel, precision, case):
            with _environment("FASTLSTM_CUDA_KERNEL", kernel):
                yield f"{kernel}, {precision}", functools.partial(check, case, precision)


def _graphs() -> _Checks:
    """The bits of the same trainings operator by operator."""
    from fastlstm.models import RNNLM, Seq2seq
    from fastlstm.ops.device import to_host

    text = np.random.default_rng(0).integers(0, 20, 400)
    pairs = np.random.default_rng(1).integers(0, 13, (40, 7))

    def language_model() -> tuple[Any, Any]:
        model = RNNLM(20, 8, 24, num_layers=2, dropout=0.3, seed=1).to("cuda")
        return model, model.fit(text, epochs=2, batch_size=4, time_size=8, max_grad=0.5, verbose=0)

    def sequences() -> tuple[Any, Any]:
        model = Seq2seq(13, 8, 24, peeky=True, seed=1).to("cuda")
        return model, model.fit(pairs, pairs, epochs=3, batch_size=8, verbose=0)

    def check(train: Callable[[], tuple[Any, Any]]) -> None:
        found = []
        for switch in ("0", "1"):
            with _environment("FASTLSTM_CUDA_GRAPHS", switch), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # why there is no graph is said below
                model, history = train()
            found.append((history.history, [to_host(param).tobytes() for param in model.params]))
        assert history.why_no_graph is None, history.why_no_graph
        assert history.device_steps["graph"] > 0, "no step was a replay of a graph"
        assert found[0] == found[1], "losses or weights have other bits than without graphs"

    yield "RNNLM", functools.partial(check, language_model)
    yield "Seq2seq", functools.partial(check, sequences)


if __name__ == "__main__":
    _child(sys.argv[1])
