"""One safetensors file: arrays by name and a description in JSON. Models and checkpoints are stored in it."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastlstm.contract import Array
from fastlstm.ops.device import to_host

_KEY = "fastlstm"
_BESIDE = ".tmp"  # how the names of files end that are not yet in their place


def write_tensor_file(path: str | os.PathLike[str], tensors: Mapping[str, Array], description: Any) -> None:
    """Write a file that is either complete or not there: beside its place first, then moved.

    Parameters
    ----------
    path : path
    tensors : mapping of name to C-contiguous array
        Those on a GPU are copied to the host.
    description : anything JSON can hold
    """
    from safetensors.numpy import save

    write_atomically(
        path, save({name: to_host(array) for name, array in tensors.items()}, metadata={_KEY: json.dumps(description)})
    )


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place, then move it: an error, a full disk for instance, leaves the old file as it is.

    Where the path is a symbolic link, the file that it leads to is written.

    Raises
    ------
    OSError
        It cannot be written, or the path leads to something else than a file; the message names the file.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, "it is there, but not a regular file", str(path))
    _remove_leftovers(path)  # first: a write that was cut short is made up for by this one or by a later one
    beside = path.with_name(f".{path.name}.{os.getpid()}{_BESIDE}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed in `write_atomically` left beside the file."""
    for beside in path.parent.glob(f".{glob.escape(path.name)}.*{_BESIDE}"):
        pid = beside.name[len(f".{path.name}.") : -len(_BESIDE)]
        if pid.isdecimal() and not _runs(int(pid)):
            with contextlib.suppress(OSError):  # another user's
                beside.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def read_tensor_file(path: str | os.PathLike[str]) -> tuple[dict[str, Array], Any]:
    """The arrays and the description that `write_tensor_file` wrote.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        The file is something else, or cut short.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file that fastlstm saved")
    try:
        with safe_open(path, framework="numpy") as file:
            description = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or it is cut short ({error})") from None
    if description is None:
        raise ValueError(f"{path} is a safetensors file, but fastlstm did not write it: the entry {_KEY!r} is missing")
    try:
        return tensors, json.loads(description)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: its description is no JSON ({error})") from None
