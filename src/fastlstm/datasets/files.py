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
import sys
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
STDIN = Path("-")

_BLOCK = 1 << 20  # bytes that are decoded at once
_LONGEST_WORD = 1 << 24  # letters

# No text unpacks to more than both; a small file that does is made to fill the memory.
_UNPACKED_TIMES = 200
_UNPACKED_ANYHOW = 1 << 26  # bytes


def find_file(name: str | os.PathLike[str], where_to_get_it: str) -> Path:
    """The file as the path says, else below the folder FASTLSTM_DATA_DIR or the cache's; "-" is stdin.

    Below these folders it may also be packed as .xz though its name does not say so, or plain though it does.

    Raises
    ------
    FileNotFoundError
        It is in none of these places; the message says where to get it.
    """
    path = Path(name)
    if path.exists() or path == STDIN:
        return path
    refuse_address(name)
    data_dir = os.environ.get("FASTLSTM_DATA_DIR")
    for folder in () if path.is_absolute() else data_folders():
        for found in (folder / path, folder / f"{path}.xz", folder / without_packing(str(path))):
            if found.exists():
                return found
    also = f", nor below FASTLSTM_DATA_DIR = {data_dir}" if data_dir else "; FASTLSTM_DATA_DIR is not set"
    raise FileNotFoundError(f"{path} does not exist{also}. {where_to_get_it}")


def data_folders() -> list[Path]:
    """Where data sets are: the folder FASTLSTM_DATA_DIR, if that is set, and the platform's folder for caches."""
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folders = [Path(os.path.expanduser(caches), "fastlstm")]
    data_dir = os.environ.get("FASTLSTM_DATA_DIR")
    return [Path(data_dir), *folders] if data_dir else folders


def from_anywhere(path: Path) -> str:
    """A path of `find_file` as it is from any folder."""
    return str(path if path == STDIN else path.absolute())


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
        raise ValueError(_no_utf8(error, line if first else b"")) from None


def _no_utf8(error: UnicodeDecodeError, beginning: bytes) -> str:
    """What is wrong with a text, and how to mend it; ``beginning``: of the file, where that is at hand."""
    utf16 = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return (
        f"no UTF-8 ({error.reason}); convert the text, for instance with "
        f"iconv -f {'UTF-16' if utf16 else 'ITS_ENCODING'} -t UTF-8"
    )


def read_blocks(path: Path, *, cut_anywhere: bool = False) -> Iterator[str]:
    """A UTF-8 file's text in blocks of about a million letters, whatever the lengths of its lines.

    A block ends behind a line feed or, in a line that is longer than a block, behind a blank; ``cut_anywhere``: behind
    any letter of such a line. Files and lines are those of `read_lines`; every line ends with a line feed.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, no intact packed file, or a word is longer than any.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest, lines, empty, beginning = "", 1, True, b""
    with open_unpacked(path) as file:
        while True:
            content = file.read(_BLOCK)
            beginning = beginning or content
            try:
                text = rest + decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                line = lines + rest.count("\n") + error.object.count(b"\n", 0, error.start)
                first = beginning if line == 1 else b""
                raise ValueError(f"{path}, line {line}: {_no_utf8(error, first)}") from None
            if not content:
                text += "" if text.endswith("\n") or not text else "\n"
                end = len(text)
            else:
                end = text.rfind("\n") + 1 or _end_within_a_line(path, text, cut_anywhere)
            block, rest = text[:end].replace("\r\n", "\n"), text[end:]
            empty = empty and not block.strip()
            lines += block.count("\n")
            if block:
                yield block
            if not content:
                break
    if empty:
        raise ValueError(f"{path} is empty")


def _end_within_a_line(path: Path, text: str, cut_anywhere: bool) -> int:
    """Where a block ends that holds no line's end; 0 if more of the line is to be read first."""
    if len(text) < _BLOCK:
        return 0
    if cut_anywhere:
        return len(text) - 1  # the last letter may be half a line's end
    end = text.rfind(" ") + 1
    while text.startswith("/>", end):  # within the markup <br />
        end = text.rfind(" ", 0, end - 1) + 1
    if not end and len(text) > _LONGEST_WORD:
        raise ValueError(
            f"{path} has a word of more than {_LONGEST_WORD:,} letters; read a text without blanks by characters"
        )
    return end


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked if its name or its beginning says that it is packed as .xz, .gz or .bz2.

    "-" is stdin. Of a pipe no more is kept than what is read at once.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is an archive; or, while it is read, no intact packed file, or one of far more than a text's size.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    with contextlib.nullcontext(_stdin()) if path == STDIN else open(path, "rb") as file:
        unpacked = file
        for suffix, (beginning, unpack) in _PACKED.items():
            if path.suffix == suffix or re.match(beginning, file.peek(_BEGINNING)):
                packed = _Packed(file, None if path == STDIN or not file.seekable() else path.stat().st_size)
                unpacked = io.BufferedReader(_Unpacked(path, suffix, unpack(packed), packed), 1 << 16)
                break
        if _ARCHIVE.match(unpacked.peek(_BEGINNING)):
            raise ValueError(f"{path} is an archive (zip, tar or the like), expected a file: unpack it first")
        yield unpacked


def _stdin() -> io.BufferedReader:
    if sys.stdin is None:
        raise OSError("stdin is closed, expected a text there")
    file = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode())
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)


class _Packed(io.RawIOBase):
    """A packed file, and how many bytes it may unpack to: of all of it, or of a pipe of what has been read."""

    def __init__(self, file: io.BufferedReader, size: int | None) -> None:
        self._file, self._size, self._read = file, size, 0

    @property
    def most(self) -> int:
        return max(_UNPACKED_ANYHOW, _UNPACKED_TIMES * (self._read if self._size is None else self._size))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto1(buffer)
        self._read += count
        return count


class _Unpacked(io.RawIOBase):
    """What unpacking a file gives, as long as that is no more than a text's."""

    def __init__(self, path: Path, suffix: str, file: IO[bytes], packed: _Packed) -> None:
        self._path, self._suffix, self._file, self._packed = path, suffix, file, packed
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{self._path} is no intact {self._suffix} file ({error})") from None
        self._given += len(content)
        if self._given > self._packed.most:
            raise ValueError(
                f"{self._path} unpacks to more than {self._packed.most:,} bytes, as no text of its size does; if it is "
                "to be read, unpack it first"
            )
        buffer[: len(content)] = content
        return len(content)
