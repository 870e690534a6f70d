"""Whether what is about to be made fits into memory: Linux grants more than there is, and then ends the process."""

from __future__ import annotations

from pathlib import Path

_SMALL = 1 << 20  # bytes that nobody asks about
_MEMINFO = Path("/proc/meminfo")


def check_room(what: str, needed: int) -> None:
    """Raise unless there is room for as many bytes as ``what`` needs.

    Raises
    ------
    MemoryError
        There is less; the message says how much is needed and how much there is.
    """
    if needed < _SMALL:
        return
    free = free_memory()
    if free is not None and needed > free:
        raise MemoryError(f"{what} needs {_size(needed)} of memory, {_size(free)} are free")


def free_memory() -> int | None:
    """Bytes of memory and swap that can be had; None where the system does not say."""
    try:
        lines = [line.split() for line in _MEMINFO.read_text().splitlines()]
    except OSError:
        return None
    kibibytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    available = kibibytes.get("MemAvailable:")
    return None if available is None else 1024 * (available + kibibytes.get("SwapFree:", 0))


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
