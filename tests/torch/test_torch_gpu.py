"""fastlstm.torch on CUDA tensors: tensors of the host in their place, and a stand-in for CuPy."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import definition_on_cupy
import numpy as np
import numpy_as_cupy
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import fastlstm.torch  # noqa: E402
from fastlstm import ops, use_backend  # noqa: E402
from fastlstm.contract import TOLERANCE  # noqa: E402
from fastlstm.torch import losses, modules, recurrence, tensors  # noqa: E402

pytestmark = pytest.mark.needs_torch

nn = torch.nn
N, T, D, H, V = 3, 4, 5, 6, 7
STREAM = 0x7070


class _Stream:
    """cupy.cuda.ExternalStream."""

    inside = 0

    def __init__(self, stream: int, device: int | None) -> None:
        assert stream == STREAM

    def __enter__(self) -> None:
        _Stream.inside += 1

    def __exit__(self, *_: object) -> None:
        _Stream.inside -= 1


def _of_a_tensor(tensor: Any) -> numpy_as_cupy.ndarray:
    assert not tensor.requires_grad
    assert tensor.dtype not in (torch.float32, torch.float64) or _Stream.inside, "CuPy works on another stream"
    return numpy_as_cupy.ndarray(tensor.numpy())


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with definition_on_cupy.installed() as cupy, use_backend("numpy"):
        monkeypatch.setattr(cupy, "from_dlpack", _of_a_tensor, raising=False)
        monkeypatch.setattr(cupy.cuda, "ExternalStream", _Stream, raising=False)
        monkeypatch.setattr(torch, "from_dlpack", lambda array: torch.from_numpy(array.host))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=STREAM))
        # Sizes of batches and draws are the host's in PyTorch too.
        floats = torch.float32, torch.float64
        for module in (tensors, losses, modules, recurrence):
            monkeypatch.setattr(module, "on_host", lambda tensor: tensor.dtype not in floats and tensor.dim() == 1)
        monkeypatch.setattr(modules, "_is_here", lambda data: True)
        yield


def gradients(module: Any, x: Any, *, packed: bool) -> list[Any]:
    x = x.clone().requires_grad_()
    data = nn.utils.rnn.pack_padded_sequence(x, [T, 1, 2], enforce_sorted=False) if packed else x
    out, last = module(data)
    hs = out.data if packed else out
    states = last if isinstance(last, tuple) else (last,)
    (hs.sin().sum() + sum(state.square().sum() for state in states)).backward()
    return [hs.detach(), x.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(D, H, 2, bidirectional=True).double()
    ours = getattr(fastlstm.torch, kind)(D, H, 2, bidirectional=True).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, N, D, dtype=torch.float64)
    got, want = gradients(ours, x, packed=packed), gradients(theirs, x, packed=packed)
    assert not _Stream.inside
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE["float64"] * max(1, float(other.abs().max())))


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("name", ["linear_cross_entropy", "nce_loss", "sampled_softmax_loss"])
def test_losses(name: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, bias, h = (torch.randn(*shape, dtype=torch.float64) for shape in ((V, H), (V,), (N, H)))
    targets = torch.tensor([1, 0, 5])
    candidates = ops.log_uniform_candidates(4, V, targets.numpy(), seed=1)

    def value_and_gradients() -> list[Any]:
        leaves = [tensor.clone().requires_grad_() for tensor in (weight, bias, h)]
        of_weight, of_bias, of_h = leaves
        loss: Any
        if name == "linear_cross_entropy":
            loss = fastlstm.torch.linear_cross_entropy(of_h, of_weight, of_bias, targets)
        else:
            loss = getattr(fastlstm.torch, name)(of_weight, of_bias, targets, of_h, candidates).mean()
        (loss * scale).backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves)]

    results = []
    for on_host in (False, True):
        for module in (tensors, losses):
            monkeypatch.setattr(module, "on_host", lambda tensor, on_host=on_host: on_host)
        results.append(value_and_gradients())
        assert not _Stream.inside
    for one, other in zip(*results, strict=True):
        assert one.is_sparse == other.is_sparse
        np.testing.assert_allclose(one.to_dense(), other.to_dense(), rtol=0, atol=TOLERANCE["float64"])


def test_outputs_that_a_tape_refers_to_may_not_be_changed() -> None:
    out, _ = fastlstm.torch.GRU(D, H)(torch.ones(T, N, D))
    with torch.no_grad():
        out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
