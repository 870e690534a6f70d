"""Where a call into ``_cuda`` goes: the device of its arrays, and the caller's current stream of that device."""

from __future__ import annotations

from typing import Any, TypedDict

import cupy


class Place(TypedDict):
    """What every function of ``_cuda`` that launches kernels takes."""

    device: int
    stream: int


def device_of(array: Any) -> Any:
    """The device that an array lives on, as a context that makes it the current one."""
    return cupy.cuda.Device(array.device.id)


def call_on(array: Any) -> Place:
    """The device of an array, which has to be the current one, and the current stream."""
    return {"device": array.device.id, "stream": current_stream()}


def current_stream() -> int:
    """The address of the caller's current stream of the device that is current."""
    stream: int = cupy.cuda.get_current_stream().ptr
    return stream


def address(array: Any) -> int:
    """Returns where an array's memory begins; 0 for one that is not given."""
    return 0 if array is None else int(array.data.ptr)


class SeedArguments(TypedDict):
    """A seed of the host's, or the address of one on the device."""

    seed: int
    seed_at: int


def seed_arguments(seed: Any) -> SeedArguments:
    """Tells a number of the host's from a 0-d array, which a captured graph reads in every replay."""
    if isinstance(seed, cupy.ndarray):
        return {"seed": 0, "seed_at": address(seed)}
    return {"seed": seed, "seed_at": 0}
