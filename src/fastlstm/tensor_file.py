"""One safetensors file: arrays by name and a description in JSON. Models and checkpoints are stored in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.contract import Array
from fastlstm.ops.device import to_host

_KEY = "fastlstm"
# How a description ends that is a mapping: its last entry is "crc32". In files of earlier versions the last one is no
# text. It is no entry of the file's own: they come in any order, and the same content gives the same bytes.
_CHECKSUM = re.compile(r', "([^"]*)": "([^"]*)"\}$')
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

    arrays = {name: to_host(array) for name, array in tensors.items()}
    text = json.dumps(description)
    if isinstance(description, dict) and description:
        text = f'{text[:-1]}, "crc32": "{_checksum(arrays, text)}"}}'
    write_atomically(path, save(arrays, metadata={_KEY: text}))


def _checksum(tensors: Mapping[str, Array], description: str) -> str:
    """Of all that a file says, in hexadecimal: a bit that a disk or a copy has turned round is not learned from."""
    value = zlib.crc32(description.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        value = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(errors="surrogatepass"), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return f"{value:08x}"


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place, then move it: an error, a full disk for instance, leaves the old file as it is.

    Where the path is a symbolic link, the file that it leads to is written. An old file's permissions are kept. Any
    number of threads, processes and hosts may write one path at the same time: the last one's file stays.

    Raises
    ------
    OSError
        It cannot be written, or the path leads to something else than a file; the message names the file.
    """
    path = _place(path)
    with _naming(path), _file_beside(path) as (descriptor, beside):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
            file.flush()
            _keep_mode(descriptor, path)
            os.fsync(descriptor)
        os.replace(beside, path)


def make_place(path: str | os.PathLike[str]) -> None:
    """Make the folders above a file that `write_atomically` is to write later, and raise its errors now."""
    path = _place(path)
    make_folder(path.parent)
    with _naming(path), _file_beside(path):
        pass


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, and raise now if no file can be written into it."""
    folder = Path(os.path.realpath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder), _file_beside(folder / "file"):
        pass


def _place(path: str | os.PathLike[str]) -> Path:
    """Where the file is to stand."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, "it is there, but not a regular file", str(path))
    return path


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors inside name the file that was asked for."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def _file_beside(path: Path) -> Iterator[tuple[int, Path]]:
    """Descriptor and name of a new file beside the path; it is gone afterwards, unless it was moved.

    It is locked for as long as somebody writes it, so that others can tell it from what a killed process has left. The
    process's number would not do: threads share it, and those of another container or host are not seen from here.
    """
    _remove_leftovers(path)  # first: a write that was cut short is made up for by this one or by a later one
    mode = 0o600 if path.exists() else 0o666  # until it has the old file's
    while True:
        beside = path.with_name(f".{_beginning(path)}.{os.urandom(8).hex()}{_BESIDE}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            _lock(descriptor, wait=True)
            if os.fstat(descriptor).st_nlink == 0:
                continue  # somebody took it for a leftover before it was locked
            yield descriptor, beside
            return
        finally:
            beside.unlink(missing_ok=True)
            os.close(descriptor)


def _beginning(path: Path) -> str:
    """As much of a file's name as leaves room beside it: file systems end names at 255 bytes."""
    return os.fsencode(path.name)[:200].decode(errors="ignore")


def _keep_mode(descriptor: int, path: Path) -> None:
    """Give a new file the permissions of the one in its place, if there is one."""
    with contextlib.suppress(FileNotFoundError, PermissionError):  # some file systems have none
        os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))


def _remove_leftovers(path: Path) -> None:
    """Remove what writers that were killed in `write_atomically` left beside the file: what nobody has locked."""
    named = re.compile(rf"\.{re.escape(_beginning(path))}\.[0-9a-f]{{16}}{re.escape(_BESIDE)}")
    for beside in path.parent.glob(f".{glob.escape(_beginning(path))}.*{_BESIDE}"):
        if named.fullmatch(beside.name):
            with contextlib.suppress(OSError):  # another user's, or gone by now
                descriptor = os.open(beside, os.O_WRONLY)
                try:
                    if _lock(descriptor, wait=False):
                        beside.unlink()
                finally:
                    os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether the open file is locked now; it is not where another has locked it, or where files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def regular_file(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a file that is to be read whole; ``expected`` says which, for the errors.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        It is a pipe or a device: a pipe would be waited for, maybe without end.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file: {expected}")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, expected {expected}")
    return path


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Inside the block no other process gets into such a block for the folder; however this one ends, its lock does.

    Raises
    ------
    BlockingIOError
        Another process is in one.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(errno.EAGAIN, "another process is at work in it", str(folder)) from None
        except OSError:
            pass  # files cannot be locked there
        yield
    finally:
        os.close(descriptor)


def read_tensor_file(path: str | os.PathLike[str]) -> tuple[dict[str, Array], Any]:
    """The arrays and the description that `write_tensor_file` wrote.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is no such file.
    ValueError
        It is something else, cut short or damaged: the content has not the checksum it was written with.
    """
    from safetensors import SafetensorError, safe_open

    path = regular_file(path, "one that fastlstm saved")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        for name, tensor in tensors.items():
            if tensor.dtype.isbuiltin != 1:  # one that another package has given to numpy
                raise ValueError(f"{name} has dtype {tensor.dtype}")
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:  # the last three: dtypes that numpy lacks
        raise ValueError(f"{path} is no safetensors file, or it is cut short ({error})") from None
    description = metadata.get(_KEY)
    if description is None:
        raise ValueError(f"{path} is a safetensors file, but fastlstm did not write it: the entry {_KEY!r} is missing")
    checksum = _CHECKSUM.search(description)
    if checksum is not None:
        description = description[: checksum.start()] + "}"
        if checksum.groups() != ("crc32", _checksum(tensors, description)):
            raise ValueError(f"{path} is damaged: its content is not what was written (the crc32 is another)")
    try:
        return tensors, json.loads(description)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its description is no JSON ({error})") from None
