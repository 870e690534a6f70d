"""What runs and with how many threads, for users: the functions that ``fastlstm`` exports."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys

from fastlstm.backends import BACKENDS, HOST_BACKENDS, get_backend, why_not
from fastlstm.backends.blas import can_lower_threads
from fastlstm.backends.threads import available_cores, get_num_threads, set_num_threads

__all__ = ["get_num_threads", "set_num_threads", "show_config"]


def synchronize() -> None:
    """Wait until the current GPU has done all its work, and report what it found wrong with ids.

    Ids on a GPU are not looked at before a call returns. One that is out of range counts as 0, and the error comes with
    a later call, with ``fit``, ``evaluate`` and other functions that return numbers of the host, or here. Without a GPU
    there is nothing to wait for.

    Raises
    ------
    IndexError
        Of an earlier call, with the text that it has on the host.
    """
    if "cupy" in sys.modules and why_not("cuda") is None:
        importlib.import_module("cupy").cuda.Device().synchronize()
        importlib.import_module("fastlstm.ops.checks").raise_if_ids_were_wrong()


def show_config() -> None:
    """Print the backends and why each can or cannot run, the instruction set, threads, GPU and versions."""
    print("\n".join(_config_lines()))


def _config_lines() -> list[str]:
    from fastlstm import __version__

    lines = [
        f"fastlstm {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"backend:         {_chosen_line()}",
    ]
    for name in BACKENDS:
        reason = why_not(name)
        lines.append(f"  {name + ':':15}{'can run' if reason is None else f'cannot run: {reason}'}")
    lines.append(f"instruction set: {_instruction_set_line()}")
    lines.append(f"bf16 products:   {_bf16_line()}")
    lines.append(f"threads:         {_threads_line()}")
    lines.append(f"GPU:             {why_not('cuda') or _gpu_line()}")
    packages = _versions("numpy", "threadpoolctl", "numba", "safetensors", "matplotlib")
    lines.append(f"packages:        {', '.join(packages)}")
    return lines


def _chosen_line() -> str:
    try:
        name = get_backend()
    except (ValueError, ImportError) as error:
        return f"none: FASTLSTM_BACKEND is {os.environ.get('FASTLSTM_BACKEND')!r}: {error}"
    fastest = next(host for host in HOST_BACKENDS if why_not(host) is None)
    if os.environ.get("FASTLSTM_BACKEND") == name:
        return f"{name}, named by FASTLSTM_BACKEND"
    if name == fastest:
        return f"{name}, the fastest that can run here"
    return f"{name}, chosen by set_backend or use_backend"


def _instruction_set_line() -> str:
    if why_not("cpp") is not None:
        return "none, the compiled extension is missing"
    isa = importlib.import_module("fastlstm._cpu").isa()
    limit = os.environ.get("FASTLSTM_MAX_ISA")
    return f"{isa}, held down by FASTLSTM_MAX_ISA={limit}" if limit else f"{isa}, the best this processor has"


def _bf16_line() -> str:
    if why_not("cpp") is None and importlib.import_module("fastlstm._cpu").bf16_in_hardware():
        return "the processor's own in backend cpp"
    return "factors rounded in software, as fast as float32 at most"


def _gpu_line() -> str:
    families = importlib.import_module("fastlstm.backends.cuda").FAMILIES
    cublas = importlib.import_module("fastlstm.backends.cuda.cublas")
    cublas.look_again()
    reason = cublas.why_not()
    products = "" if reason is None else f"; no CUDA graphs, because products go through CuPy's handles: {reason}"
    return f"answers; CuPy arrays run on it, in the operators of {', '.join(families)}{products}"


def _threads_line() -> str:
    try:
        line = f"{get_num_threads()} on {available_cores()} cores"
    except ValueError as error:
        return f"unknown: {error}"
    if can_lower_threads():
        return line
    return f"{line}; the numpy backend's products as OPENBLAS_NUM_THREADS says, threadpoolctl is not installed"


def _versions(*packages: str) -> list[str]:
    """Read from the installed metadata, so that nothing heavy is imported."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return found
