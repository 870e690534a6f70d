"""Tensors and arrays over the same memory, and what lives as long as a tensor does."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_compiling

from fastlstm.contract import Array

_ON_HOST = contextlib.nullcontext()


def on_host(tensor: Tensor) -> bool:
    """Whether a tensor's memory is the host's, so that numpy's arrays are meant."""
    return tensor.is_cpu


def as_array(tensor: Tensor) -> Array:
    """The array of a tensor's memory: numpy's, or CuPy's of a tensor on a GPU."""
    array: Array = tensor.numpy(force=True) if on_host(tensor) else _cupy().from_dlpack(tensor.detach())
    return array


def as_tensor(array: Array) -> Tensor:
    """The tensor of an array's memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def stream_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Within it CuPy works on PyTorch's stream, so that neither has to wait for the other."""
    if on_host(tensor):
        return _ON_HOST
    stream: contextlib.AbstractContextManager[Any] = _cupy().cuda.ExternalStream(
        torch.cuda.current_stream(tensor.device).cuda_stream, tensor.device.index
    )
    return stream


def _cupy() -> Any:
    import cupy

    return cupy


def is_traced(data: Any) -> bool:
    """Whether operators are recorded, or tensors have no memory, so that an operator has to be called."""
    if is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return isinstance(data, FakeTensor) or getattr(data, "is_meta", False)


def keep(thing: Any) -> Tensor:
    """A tensor of one byte, as long as whose memory lives `kept` gives the thing back.

    That lets a tape pass where only tensors do: it is released when its graph is, and by checkpoints and other hooks
    that release saved tensors before.
    """
    tensor = torch.zeros(1, dtype=torch.uint8)
    tensor.untyped_storage().kept_by_fastlstm = thing  # type: ignore[attr-defined]
    return tensor


def kept(tensor: Tensor) -> Any:
    """What `keep` was given; None if this is a copy of its tensor, which hooks of saved tensors may have made."""
    return getattr(tensor.untyped_storage(), "kept_by_fastlstm", None)


class _NoSecondDerivative(torch.autograd.Function):
    """Gradients as they are, which refuse to be differentiated themselves."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Any) -> Any:
        ctx.name = name
        ctx.set_materialize_grads(False)
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"fastlstm.torch.{ctx.name} has no second derivative: its gradients, taken with create_graph=True, cannot "
            "be differentiated again; use torch.nn's own where a model needs that"
        )


def first_derivatives(name: str, grads: tuple[Tensor | None, ...], inputs: tuple[Tensor | None, ...]) -> Any:
    """Gradients of ``inputs`` under create_graph=True: to differentiate them again is an error, not silently zero."""
    return _NoSecondDerivative.apply(name, len(grads), *grads, *inputs)  # type: ignore[no-untyped-call]
