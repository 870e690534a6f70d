"""Numbers as TensorBoard reads them: event files, without TensorFlow.

A file is a row of TFRecords: the length of the data (8 bytes, little endian), its masked CRC-32C, the data, their
masked CRC-32C. The data are protocol buffers of the message Event: wall_time = 1, step = 2, file_version = 3,
summary = 5; a Summary holds Values = 1, a Value tag = 1 and simple_value = 2 (tensorflow/core/util/event.proto,
tensorflow/core/framework/summary.proto; the CRC is that of RFC 3720, B.4).
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

_POLYNOMIAL = 0x82F63B78  # of Castagnoli, bits reversed
_count = itertools.count()  # two files of one process in one second have different names


def _table() -> tuple[int, ...]:
    entries = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's cyclic redundancy check."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The CRC as TFRecords hold it: rotated and shifted, as data that hold a CRC would have a trivial one else."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def scalar_event(values: Mapping[str, float], step: int, wall_time: float) -> bytes:
    """An Event with a Value for each name."""
    summary = b""
    for tag, value in values.items():
        summary += _field(1, _field(1, tag.encode()) + _key(2, 5) + _float32(value))
    return _wall_time(wall_time) + _key(2, 0) + _varint(step) + _field(5, summary)


class EventWriter:
    """One event file in a folder, made with the first numbers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        self._file = _new_file(folder, f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}")
        self._file.write(record(_wall_time(now) + _field(3, b"brain.Event:2")))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._file.write(record(scalar_event(values, step, time.time())))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _new_file(folder: Path, name: str) -> IO[bytes]:
    """Another file than all others: two containers may have the same host name and process number."""
    while True:
        try:
            return open(folder / f"{name}.{next(_count)}", "xb")
        except FileExistsError:
            continue


def _wall_time(seconds: float) -> bytes:
    return _key(1, 1) + struct.pack("<d", seconds)


def _float32(value: float) -> bytes:
    with np.errstate(over="ignore"):  # beyond all float32 numbers: infinity is right
        return np.array(value, "<f4").tobytes()


def _field(number: int, content: bytes) -> bytes:
    """Bytes, a string or a message within a message."""
    return _key(number, 2) + _varint(len(content)) + content


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
