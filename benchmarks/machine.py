"""The machine: which cores and how many threads both sides get, what it can do at most, and what is worth printing."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

CORES = 2


def cores_to_use(allowed: set[int]) -> set[int]:
    """The first two processors that are no hyperthreads of one core, out of ``allowed``."""
    chosen: dict[str, int] = {}
    for processor in sorted(allowed):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        core = siblings.read_text().strip() if siblings.exists() else str(processor)
        chosen.setdefault(core, processor)
    return set(sorted(chosen.values())[:CORES])


def pin_to_two_cores() -> None:
    """Bind this process and all it starts. Call it before numpy or torch start their threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores_to_use(os.sched_getaffinity(0)))


def let_numpy_choose_its_kernels() -> None:
    """Undo what an environment says about OpenBLAS's kernels, which may be older than the processor's best.

    Once numpy is loaded nothing is changed, so that the processes this one starts compute as it does.
    """
    if "numpy" not in sys.modules:
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            os.environ.pop(name, None)


def torch_or_none() -> Any:
    """The module, or None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


@functools.cache
def keras_or_none() -> Any:
    """The module, computing with as many threads as there are cores, or None where Keras or TensorFlow are missing."""
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("keras") is None:
        return None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras

    return keras


@contextlib.contextmanager
def same_threads(threads: int = CORES) -> Iterator[None]:
    """Both sides compute with so many threads inside the block; numpy's BLAS takes the cores it is given."""
    import fastlstm

    torch = torch_or_none()
    before = fastlstm.get_num_threads(), torch.get_num_threads() if torch else 0
    try:
        fastlstm.set_num_threads(threads)
        if torch:
            torch.set_num_threads(threads)
        yield
    finally:
        fastlstm.set_num_threads(before[0])
        if torch:
            torch.set_num_threads(before[1])


# --------------------------------------------------------------------------------------------
# What it can do at most
# --------------------------------------------------------------------------------------------

_REPETITIONS = 1 << 23
_MULTIPLY_ADDS_IN_FLIGHT = 12  # enough for two units with a latency of four to six cycles, and they fit 16 registers
_LOADS_IN_FLIGHT = 8
_BEST_OF = 10


def _compile(text: str, name: str, *types: Any) -> tuple[Any, Callable[..., float]]:
    """A function of LLVM's language, compiled for this processor; the engine owns its memory.

    Called through ctypes it runs without the interpreter's lock.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), target)
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(ctypes.c_float, *types)(engine.get_function_address(name))


def _fma_loop(lanes: int) -> tuple[Any, Callable[..., float]]:
    """A loop of independent float32 multiply-adds on vectors of ``lanes``: repetitions and a number go in."""
    vector = f"<{lanes} x float>"
    chains = range(_MULTIPLY_ADDS_IN_FLIGHT)
    phis = "\n".join(f"  %a{k} = phi {vector} [%first, %entry], [%b{k}, %loop]" for k in chains)
    fma = f"call {vector} @llvm.fma.v{lanes}f32"
    steps = "\n".join(f"  %b{k} = {fma}({vector} %a{k}, {vector} %first, {vector} %first)" for k in chains)
    sums = "\n".join(f"  %s{k} = fadd {vector} %b{k}, {'zeroinitializer' if k == 0 else f'%s{k - 1}'}" for k in chains)
    text = f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define float @fma_loop(i64 %n, float %x) {{
entry:
  %one = insertelement {vector} undef, float %x, i32 0
  %first = shufflevector {vector} %one, {vector} undef, <{lanes} x i32> zeroinitializer
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{sums}
  %out = extractelement {vector} %s{chains[-1]}, i32 0
  ret float %out
}}
"""
    return _compile(text, "fma_loop", ctypes.c_int64, ctypes.c_float)


def _read_loop(lanes: int) -> tuple[Any, Callable[..., float]]:
    """A loop that reads an array again and again: its address, how many groups of eight vectors it has, how often."""
    vector = f"<{lanes} x float>"
    chains = range(_LOADS_IN_FLIGHT)
    phis = "\n".join(f"  %a{k} = phi {vector} [zeroinitializer, %pass], [%b{k}, %loop]" for k in chains)
    loads = "\n".join(
        f"  %p{k} = getelementptr {vector}, ptr %array, i64 %at{k}\n"
        f"  %v{k} = load volatile {vector}, ptr %p{k}, align 64\n"
        f"  %b{k} = fadd {vector} %a{k}, %v{k}"
        for k in chains
    )
    places = "\n".join(f"  %at{k} = add i64 %base, {k}" for k in chains)
    text = f"""
define float @read_loop(ptr %array, i64 %groups, i64 %times) {{
entry:
  br label %pass
pass:
  %t = phi i64 [0, %entry], [%t_next, %passed]
  br label %loop
loop:
  %i = phi i64 [0, %pass], [%next, %loop]
{phis}
  %base = mul i64 %i, {_LOADS_IN_FLIGHT}
{places}
{loads}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %groups
  br i1 %more, label %loop, label %passed
passed:
  %t_next = add i64 %t, 1
  %again = icmp ult i64 %t_next, %times
  br i1 %again, label %pass, label %done
done:
  %out = extractelement {vector} %b0, i32 0
  ret float %out
}}
"""
    return _compile(text, "read_loop", ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def _float32_lanes() -> int:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("fma") else 4


def can_probe() -> bool:
    """Whether peak and bandwidth can be measured: their loops are compiled by LLVM (llvmlite comes with Numba)."""
    return importlib.util.find_spec("llvmlite") is not None


def _fastest(calls: list[tuple[Callable[..., float], tuple[Any, ...]]]) -> float:
    """Seconds that the calls take at the same time, each in a thread of its own: the fastest of ten runs."""
    best = float("inf")
    for _ in range(_BEST_OF):
        workers = [threading.Thread(target=call, args=arguments) for call, arguments in calls]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - start)
    return best


@functools.cache
def fma_peak(threads: int = CORES) -> float:
    """GFLOP/s of float32 multiply-adds that never touch memory: the ceiling of every kernel."""
    lanes = _float32_lanes()
    _engine, loop = _fma_loop(lanes)
    operations = threads * _REPETITIONS * _MULTIPLY_ADDS_IN_FLIGHT * lanes * 2
    return operations / _fastest([(loop, (_REPETITIONS, 0.5))] * threads) / 1e9


class Bandwidth(NamedTuple):
    """How fast all threads together read arrays of so many bytes, each its own, that lie in a level."""

    level: str
    bytes: int
    gb_per_second: float


_READ_BYTES = 1 << 26  # in one run, by each thread
_MEMORY_ARRAY = 1 << 28  # of all threads together


@functools.cache
def bandwidths(threads: int = CORES) -> tuple[Bandwidth, ...]:
    """Of every cache and of memory. Each thread's array fills half a cache of its core, or its share of half of one.

    For memory the arrays have 256 MiB. Where a cache of a large machine is shared with others' work, what is called L3
    may be memory.
    """
    lanes = _float32_lanes()
    _engine, loop = _read_loop(lanes)
    group = _LOADS_IN_FLIGHT * lanes * 4
    sizes = {level: size // 2 // (threads if shared else 1) for level, size, shared in _caches()}
    sizes["memory"] = _MEMORY_ARRAY // threads
    found = []
    for level, size in sizes.items():
        size = min(size, _MEMORY_ARRAY) // group * group
        arrays = [_aligned(size) for _ in range(threads)]
        times = max(1, _READ_BYTES // size)
        calls = [(loop, (array.ctypes.data, size // group, times)) for array in arrays]
        found.append(Bandwidth(level, size, threads * times * size / _fastest(calls) / 1e9))
    return tuple(found)


def probe() -> dict[str, Any]:
    """Peak and bandwidths with one thread and with all, as JSON; empty where they cannot be measured."""
    if not can_probe():
        say("no peak and no bandwidth: their loops need llvmlite, pip install numba")
        return {"multiply_add_gflops": {}, "read_gb_per_second": {}}
    counts = sorted({1, CORES})
    return {
        "multiply_add_gflops": {str(threads): fma_peak(threads) for threads in counts},
        "read_gb_per_second": {str(threads): [level._asdict() for level in bandwidths(threads)] for threads in counts},
    }


def _aligned(size: int) -> Any:
    """So many bytes of zeros, from a multiple of 64 on, that have been written."""
    import numpy as np

    raw = np.full(size + 64, 0, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def _caches() -> list[tuple[str, int, bool]]:
    """Name, bytes and whether all cores share it, of each cache for data; none where the system does not say."""
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            size = (folder / "size").read_text().strip()
            shared = len((folder / "shared_cpu_list").read_text().strip()) > 1
            caches.append((f"L{(folder / 'level').read_text().strip()}", int(size.removesuffix("K")) << 10, shared))
    return caches


# --------------------------------------------------------------------------------------------
# Description
# --------------------------------------------------------------------------------------------


def describe() -> dict[str, str]:
    """Processor, cores, versions, instruction set, threads and torch's configuration."""
    import numpy as np

    import fastlstm

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with same_threads():
        return {
            "processor": _processor(),
            "cores used": str(cores),
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "load": _load(),
            "fastlstm": f"{fastlstm.__version__}, backend {fastlstm.get_backend()}, "
            f"instruction set {instruction_set()}, {fastlstm.get_num_threads()} threads",
            "numpy": f"{np.__version__}, {_blas()}",
            "numba": _version("numba"),
            "torch": _describe_torch(),
            "keras": _version("keras") if keras_or_none() else "not installed, or without TensorFlow",
        }


def _describe_torch() -> str:
    torch = torch_or_none()
    if torch is None:
        return "not installed: pip install torch; its columns are left out"
    return (
        f"{torch.__version__}, oneDNN {'on' if torch.backends.mkldnn.enabled else 'off'}, "
        f"instruction set {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    )


def _load() -> str:
    if not hasattr(os, "getloadavg"):
        return "unknown"
    load = os.getloadavg()[0]
    return f"{load:.1f} in the last minute" + ("; other programs are running: expect noise" if load > 0.5 else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def instruction_set() -> str:
    import fastlstm

    if "cpp" not in fastlstm.available_backends():
        return "none, the compiled extension is missing"
    from fastlstm import _cpu

    return _cpu.isa()


def has_bf16() -> bool:
    """Whether the compiled kernels multiply bf16 by the processor's instructions."""
    import fastlstm

    if "cpp" not in fastlstm.available_backends():
        return False
    from fastlstm import _cpu

    return _cpu.bf16_in_hardware()


def _blas() -> str:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def say(text: str) -> None:
    """Progress on standard error, so that standard output holds the table alone."""
    print(text, file=sys.stderr, flush=True)
