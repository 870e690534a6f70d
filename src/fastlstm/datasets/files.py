"""Finding and reading data files."""

from __future__ import annotations

import lzma
import os
from pathlib import Path


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
    data_dir = os.environ.get("FASTLSTM_DATA_DIR")
    if data_dir and not path.is_absolute() and (Path(data_dir) / path).exists():
        return Path(data_dir) / path
    also = f", nor below FASTLSTM_DATA_DIR = {data_dir}" if data_dir else "; FASTLSTM_DATA_DIR is not set"
    raise FileNotFoundError(f"{path} does not exist{also}. {where_to_get_it}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, plain or .xz, without their ends. Raises what `read_text` raises."""
    return read_text(path).split("\n")


def read_text(path: Path) -> str:
    """A UTF-8 file, plain or .xz; lines end with a line feed, but for the last.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or no intact .xz file.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    content = path.read_bytes()
    if path.suffix == ".xz":
        try:
            content = lzma.decompress(content)
        except lzma.LZMAError as error:
            raise ValueError(f"{path} is no intact .xz file ({error})") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: no UTF-8 ({error.reason}); convert the file to UTF-8") from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text.replace("\r\n", "\n").removesuffix("\n")
