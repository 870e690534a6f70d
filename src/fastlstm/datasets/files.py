"""Finding and reading data files."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

# The ending of a packed file's name, how its content begins, and what unpacks it.
_PACKED: dict[str, tuple[bytes, Callable[..., Any]]] = {
    ".xz": (rb"\xfd7zXZ\x00", lzma.open),
    ".gz": (rb"\x1f\x8b", gzip.open),
    ".bz2": (rb"BZh[1-9]1AY&SY", bz2.open),
}
# zip, Zstandard, 7-Zip, tar.
_ARCHIVE = re.compile(rb"PK\x03\x04|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|.{257}ustar", re.DOTALL)
_BEGINNING = 262  # bytes that tell what a file is

# No text unpacks to more than both; a small file that does is made to fill the memory.
_UNPACKED_TIMES = 200
_UNPACKED_ANYHOW = 1 << 26  # bytes


def find_file(name: str | os.PathLike[str], where_to_get_it: str) -> Path:
    """The file as the path says, else below the folder FASTLSTM_DATA_DIR.

    Raises
    ------
    FileNotFoundError
        It is in neither place; the message says where to get it.
    """
    path = Path(name)
    if path.exists():
        return path
    refuse_address(name)
    data_dir = os.environ.get("FASTLSTM_DATA_DIR")
    if data_dir and not path.is_absolute() and (Path(data_dir) / path).exists():
        return Path(data_dir) / path
    also = f", nor below FASTLSTM_DATA_DIR = {data_dir}" if data_dir else "; FASTLSTM_DATA_DIR is not set"
    raise FileNotFoundError(f"{path} does not exist{also}. {where_to_get_it}")


def refuse_address(name: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError if the name of a file is an address of the web."""
    if re.match(r"\w+://", os.fspath(name)):
        raise FileNotFoundError(f"{os.fspath(name)} is an address, expected a file: download it and give its path")


def without_packing(name: str) -> str:
    """A file's name without the ending that says how it is packed."""
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}" in _PACKED else name


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, one after the other; who stops early has read no more.

    The file is plain or packed (.xz, .gz, .bz2), on a disk or a pipe. A line ends with a line feed, with or without a
    carriage return before it; a byte order mark is no part of the text.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or no intact packed file.
    """
    empty = True
    with open_unpacked(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = decode_line(line, first=number == 1)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            empty = empty and not text.strip()
            yield text
    if empty:
        raise ValueError(f"{path} is empty")


def decode_line(line: bytes, *, first: bool) -> str:
    """A line of UTF-8 without its end, and a text's first one without a byte order mark; raises ValueError."""
    if first:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.removesuffix(b"\r\n").removesuffix(b"\n").decode()
    except UnicodeDecodeError as error:
        utf16 = first and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"no UTF-8 ({error.reason}); convert the text, for instance with "
            f"iconv -f {'UTF-16' if utf16 else 'ITS_ENCODING'} -t UTF-8"
        ) from None


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked if its name or its beginning says that it is packed as .xz, .gz or .bz2.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is an archive; or, while it is read, no intact packed file, or one of far more than a text's size.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    with open(path, "rb") as file:
        unpacked = file
        for suffix, (beginning, unpack) in _PACKED.items():
            if path.suffix == suffix or re.match(beginning, file.peek(_BEGINNING)):
                # Of a pipe only the bytes themselves tell how many there are.
                packed: Any = file if file.seekable() else io.BytesIO(file.read())
                most = max(_UNPACKED_ANYHOW, _UNPACKED_TIMES * packed.seek(0, io.SEEK_END))
                packed.seek(0)
                unpacked = io.BufferedReader(_Unpacked(path, suffix, unpack(packed), most), 1 << 16)
                break
        if _ARCHIVE.match(unpacked.peek(_BEGINNING)):
            raise ValueError(f"{path} is an archive (zip, tar or the like), expected a file: unpack it first")
        yield unpacked


class _Unpacked(io.RawIOBase):
    """What unpacking a file gives, as long as that is no more than ``most`` bytes."""

    def __init__(self, path: Path, suffix: str, file: IO[bytes], most: int) -> None:
        self._path, self._suffix, self._file = path, suffix, file
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{self._path} is no intact {self._suffix} file ({error})") from None
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(
                f"{self._path} unpacks to more than {self._most:,} bytes, as no text of its size does; if it is to be "
                "read, unpack it first"
            )
        buffer[: len(content)] = content
        return len(content)
