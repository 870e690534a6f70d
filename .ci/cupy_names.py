"""Whether a CuPy has all that the package asks of it: names by their paths, keyword arguments, methods.

Nothing is computed: wheels of CuPy import where there is no GPU, all but ``cupy.cublas``, which is read where there is
no cuBLAS either. Run by ``.ci/run`` with wheels of several versions.

  python .ci/cupy_names.py src/fastlstm
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import cupy
from cupy._core import _routines_linalg
from cupy_backends.cuda import libs

# What the package's variables are called that hold the module, or one of its parts.
ROOTS: dict[str, Any] = {"cupy": cupy, "self._cupy": cupy, "compute_types": _routines_linalg}

# Attributes of objects, which no path leads to.
MEMBERS: dict[Any, str] = {
    cupy.ndarray: "T astype copy data device dtype fill flags itemsize max min ndim nbytes ravel repeat reshape shape "
    "size strides sum swapaxes view argmax cumsum __cuda_array_interface__",
    cupy.cuda.MemoryPointer: "ptr mem",
    cupy.cuda.MemoryPool: "malloc free_all_blocks used_bytes",
    cupy.cuda.Device: "id synchronize compute_capability __enter__ __exit__",
    cupy.cuda.Stream.ptds: "ptr begin_capture end_capture record wait_event ptds synchronize __enter__ __exit__",
    cupy.cuda.Graph: "launch",
    cupy.cuda.PinnedMemoryPointer: "ptr",
}


def path_of(node: ast.expr) -> str | None:
    """The dotted path of an expression such as cupy.cuda.Stream; None of any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = path_of(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None


def found(path: str) -> tuple[bool, Any]:
    """Whether a path that begins at a root leads somewhere, and what it leads to."""
    root = max((name for name in ROOTS if path == name or path.startswith(name + ".")), key=len)
    value = ROOTS[root]
    for name in path.removeprefix(root).split(".")[1:]:
        try:
            value = getattr(value, name)
        except AttributeError:
            return False, None
    return True, value


def is_rooted(path: str) -> bool:
    return any(path == name or path.startswith(name + ".") for name in ROOTS)


def refused(function: Any, call: ast.Call) -> str | None:
    """A keyword that a function does not take; compiled ones say their signature in the first line of their text."""
    keywords = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    if isinstance(function, cupy.ufunc):
        known = {"out", "dtype"}
    else:
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            text = f"{function.__doc__ or ''} {getattr(type(function), '__doc__', '') or ''}"
            known = set(re.findall(r"(\w+)\s*(?::[^,)=]*)?(?:=|,|\))", text))
        else:
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                return None
            known = set(parameters)
    return next(iter(sorted(keywords - known)), None)


def faults_of(path: Path, seen: set[str]) -> list[str]:
    faults = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and (name := path_of(node)) is not None
            and is_rooted(name)
        ):
            seen.add(name)
            if not found(name)[0]:
                faults.append(f"{path}:{node.lineno}: {name} is not there")
        if isinstance(node, ast.Call) and (name := path_of(node.func)) is not None and is_rooted(name):
            there, function = found(name)
            if there and (keyword := refused(function, node)) is not None:
                faults.append(f"{path}:{node.lineno}: {name} takes no {keyword}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("cupy", "cupy_backends")):
            for alias in node.names:
                seen.add(f"{node.module}.{alias.name}")
                try:
                    importlib.import_module(node.module)
                    exec(f"from {node.module} import {alias.name}")
                except ImportError as error:
                    # There is no cuBLAS here; CuPy 14 says so in its own words.
                    if "libcublas" not in str(error):
                        faults.append(f"{path}:{node.lineno}: {error}")
    return faults


def fault_of_gemm() -> list[str]:
    """cupy.cublas.gemm, as its source has it."""
    spec = importlib.util.find_spec("cupy.cublas")
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == "gemm":
            names = [argument.arg for argument in node.args.args]
            expected = ["transa", "transb", "a", "b", "out", "alpha", "beta"]
            return [] if names == expected else [f"cupy.cublas.gemm takes {names}, expected {expected}"]
    return ["cupy.cublas.gemm is not there"]


def main() -> None:
    seen: set[str] = set()
    faults = [fault for path in sorted(Path(sys.argv[1]).rglob("*.py")) for fault in faults_of(path, seen)]
    faults += fault_of_gemm()
    for kind, names in MEMBERS.items():
        faults += [f"{kind} has no {name}" for name in names.split() if not hasattr(kind, name)]
    cupy.cuda.MemoryPool(lambda size: cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0))
    owner = getattr(cupy.cuda.get_allocator(), "__self__", None)
    if not isinstance(owner, cupy.cuda.MemoryPool):
        faults.append(f"the default allocator is {cupy.cuda.get_allocator()}, of no MemoryPool")
    if not issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError):
        faults.append("CUDARuntimeError is no RuntimeError")
    if cupy.cuda.Stream.ptds.ptr != 2:
        faults.append(f"Stream.ptds is {cupy.cuda.Stream.ptds.ptr}, not cudaStreamPerThread")
    print(f"CuPy {cupy.__version__}, cuBLAS by {libs.__name__}: {len(seen)} names, {len(faults)} missing or changed")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
