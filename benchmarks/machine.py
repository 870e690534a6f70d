"""The machine: which cores and how many threads both sides get, its measured peak, and what is worth printing of it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def torch_or_none() -> Any:
    """The module, or None where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


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
# Peak
# --------------------------------------------------------------------------------------------

_REPETITIONS = 1 << 23
_MULTIPLY_ADDS_IN_FLIGHT = 12  # enough for two units with a latency of four to six cycles, and they fit 16 registers


def _fma_loop(lanes: int) -> tuple[Any, Callable[..., float]]:
    """A compiled loop of independent float32 multiply-adds on vectors of ``lanes``; the engine owns its memory."""
    import llvmlite.binding as llvm

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
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), target)
    engine.finalize_object()
    address = engine.get_function_address("fma_loop")
    return engine, ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)(address)


def _float32_lanes() -> int:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("fma") else 4


def fma_peak(threads: int = CORES) -> float:
    """GFLOP/s of float32 multiply-adds that never touch memory: the ceiling of every kernel.

    Measured with a loop that LLVM compiles for this processor (llvmlite comes with Numba); the fastest of ten runs.
    """
    lanes = _float32_lanes()
    _engine, loop = _fma_loop(lanes)
    operations = threads * _REPETITIONS * _MULTIPLY_ADDS_IN_FLIGHT * lanes * 2
    best = 0.0
    for _ in range(10):
        # A foreign function called through ctypes runs without the interpreter's lock.
        workers = [threading.Thread(target=loop, args=(_REPETITIONS, 0.5)) for _ in range(threads)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, operations / (time.perf_counter() - start) / 1e9)
    return best


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
            f"instruction set {_instruction_set()}, {fastlstm.get_num_threads()} threads",
            "numpy": f"{np.__version__}, {_blas()}",
            "numba": _version("numba"),
            "torch": _describe_torch(),
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


def _instruction_set() -> str:
    import fastlstm

    if "cpp" not in fastlstm.available_backends():
        return "none, the compiled extension is missing"
    from fastlstm import _cpu

    return _cpu.isa()


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
