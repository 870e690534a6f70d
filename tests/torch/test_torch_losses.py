"""The losses of fastlstm.torch against PyTorch's own arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import fastlstm.torch  # noqa: E402
from fastlstm import ops  # noqa: E402
from fastlstm.contract import TOLERANCE  # noqa: E402

pytestmark = pytest.mark.needs_torch

functional = torch.nn.functional
linear_cross_entropy: Any = fastlstm.torch.linear_cross_entropy
nce_loss: Any = fastlstm.torch.nce_loss
sampled_softmax_loss: Any = fastlstm.torch.sampled_softmax_loss
N, T, H, V = 3, 4, 5, 9
B, E, S = 6, 4, 5


def draw(*shape: int, dtype: Any = torch.float64, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def agree(got: Any, want: Any) -> None:
    got = got.to_dense() if got.is_sparse else got
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    limit = TOLERANCE[str(want.dtype).removeprefix("torch.")] * max(1.0, float(want.detach().abs().max()))
    assert float((got - want).detach().abs().max()) <= limit


# --------------------------------------------------------------------------------------------
# Linear cross entropy
# --------------------------------------------------------------------------------------------


def tensors_of(dtype: Any = torch.float64, *, bias: bool = True) -> tuple[Any, Any, Any, Any]:
    targets = torch.arange(N * T).reshape(N, T) % V
    targets[0, :2] = -100
    return (
        draw(N, T, H, dtype=dtype),
        draw(V, H, dtype=dtype, seed=1),
        draw(V, dtype=dtype, seed=2) if bias else None,
        targets,
    )


def by_torch(*tensors: Any) -> Any:
    h, weight, bias, targets = tensors
    return functional.cross_entropy(functional.linear(h, weight, bias).flatten(0, -2), targets.flatten())


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_linear_cross_entropy(dtype: Any, memory: Any, bias: bool, scale: float) -> None:
    ours, theirs = tensors_of(dtype, bias=bias), tensors_of(dtype, bias=bias)
    loss, want = linear_cross_entropy(*ours, memory=memory), by_torch(*theirs)
    agree(loss, want)
    (loss * scale).backward()
    (want * scale).backward()
    for tensor, other in zip(ours[:3], theirs[:3], strict=True):
        if tensor is not None:
            agree(tensor.grad, other.grad)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_gradients_that_are_needed(frozen: int) -> None:
    ours, theirs = tensors_of(), tensors_of()
    for tensors in (ours, theirs):
        tensors[frozen].requires_grad_(False)
    linear_cross_entropy(*ours).backward()
    by_torch(*theirs).backward()
    for k, (tensor, other) in enumerate(zip(ours[:3], theirs[:3], strict=True)):
        assert (tensor.grad is None) == (k == frozen)
        if k != frozen:
            agree(tensor.grad, other.grad)


def test_backward_twice_gives_each_its_own_gradients() -> None:
    h, weight, bias, targets = tensors_of()
    loss = linear_cross_entropy(h, weight, bias, targets)
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    (2 * loss).backward()
    agree(weight.grad, 3 * once)


def test_the_gradient_of_the_weight_becomes_grad_without_a_copy() -> None:
    h, weight, bias, targets = tensors_of()
    made: list[int] = []
    weight.register_hook(lambda grad: made.append(grad.data_ptr()))
    linear_cross_entropy(h, weight, bias, targets).backward()
    assert weight.grad.data_ptr() == made[0]


def test_without_a_gradient_and_without_a_target() -> None:
    h, weight, bias, targets = tensors_of()
    with torch.no_grad():
        agree(linear_cross_entropy(h, weight, bias, targets), by_torch(h, weight, bias, targets))
    loss = linear_cross_entropy(h, weight, bias, torch.full((N, T), -100))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not h.grad.any()
    other = linear_cross_entropy(h, weight, bias, torch.full((N, T), 7), ignore_index=7)
    assert float(other.detach()) == 0


def test_gradcheck() -> None:
    h, weight, bias, targets = tensors_of()
    assert torch.autograd.gradcheck(lambda *tensors: linear_cross_entropy(*tensors, targets), (h, weight, bias))


def test_a_second_derivative_is_an_error() -> None:
    h, weight, bias, targets = tensors_of()
    loss = linear_cross_entropy(h, weight, bias, targets)
    (dh,) = torch.autograd.grad(loss, h, create_graph=True)
    with pytest.raises(RuntimeError, match="fastlstm.torch.linear_cross_entropy has no second derivative"):
        dh.sum().backward()


def test_autocast() -> None:
    ours, theirs = tensors_of(torch.float32), tensors_of(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, want = linear_cross_entropy(*ours), by_torch(*theirs)
    assert loss.dtype == want.dtype
    loss.backward()
    want.backward()
    for tensor, other in zip((loss, *ours[:3]), (want, *theirs[:3]), strict=True):
        value, expected = (tensor, other) if tensor is loss else (tensor.grad, other.grad)
        assert float((value - expected).detach().abs().max()) <= TOLERANCE["bf16"]


def test_other_dtypes_go_torchs_way_with_a_warning() -> None:
    tensors = tuple(tensor.detach().bfloat16() for tensor in tensors_of()[:3])
    targets = tensors_of()[3]
    fastlstm.torch.losses._warned.clear()
    with pytest.warns(RuntimeWarning, match=r"no kernels for torch.bfloat16"):
        loss = linear_cross_entropy(*tensors, targets)
    assert torch.equal(loss, by_torch(*tensors, targets))


def test_errors() -> None:
    h, weight, bias, targets = tensors_of()
    with pytest.raises(ValueError, match=r"weight has shape \(5, 9\), expected \(V, H\) with H = 5"):
        linear_cross_entropy(h, weight.T, bias, targets)
    with pytest.raises(IndexError, match="targets holds 9, expected 0 to 8"):
        linear_cross_entropy(h, weight, bias, targets.clamp(min=9))


def test_compiled() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    ours, theirs = tensors_of(), tensors_of()
    loss, want = compiled(*ours), by_torch(*theirs)
    agree(loss, want)
    loss.backward()
    want.backward()
    for tensor, other in zip(ours[:3], theirs[:3], strict=True):
        agree(tensor.grad, other.grad)


# --------------------------------------------------------------------------------------------
# Sampled losses
# --------------------------------------------------------------------------------------------


def sample(num_true: int = 1) -> tuple[Any, Any]:
    labels = torch.arange(B * num_true).reshape(B, num_true) % V
    labels = labels[:, 0] if num_true == 1 else labels
    return labels, ops.log_uniform_candidates(S, V, labels.numpy(), rng=np.random.default_rng(0))


def sampled_by_torch(
    kind: str, weights: Any, biases: Any, labels: Any, inputs: Any, candidates: Any, hits: bool
) -> Any:
    """TensorFlow's _compute_sampled_logits and losses, in PyTorch."""
    labels = labels.reshape(B, -1)
    sampled, true_count, sampled_count = map(torch.as_tensor, candidates[:3])
    true = torch.einsum("be,bte->bt", inputs, weights[labels]) + biases[labels] - true_count.reshape(B, -1).log()
    others = inputs @ weights[sampled].T + biases[sampled] - sampled_count.log()
    if hits:
        others = others.masked_fill((labels[:, :, None] == sampled).any(1), -torch.inf)
    logits = torch.cat((true, others), 1)
    targets = torch.zeros_like(logits)
    targets[:, : labels.shape[1]] = 1 / labels.shape[1]
    if kind == "softmax":
        logits = logits.clamp(min=-3e38)
        return -(targets * logits.log_softmax(1)).sum(1)
    return functional.binary_cross_entropy_with_logits(logits.clamp(min=-3e38), targets, reduction="none").sum(1)


@pytest.mark.parametrize("reduce", ["mean", "sum", "weighted"])
@pytest.mark.parametrize("num_true", [1, 2])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_sampled_losses(kind: str, num_true: int, reduce: str) -> None:
    labels, candidates = sample(num_true)
    function = nce_loss if kind == "sigmoid" else sampled_softmax_loss
    by_row = torch.arange(B, dtype=torch.float64) if reduce == "weighted" else 1.0
    found = []
    for compute in (function, None):
        weights, biases, inputs = draw(V, E), draw(V, seed=1), draw(B, E, seed=2)
        if compute is None:
            loss = sampled_by_torch(kind, weights, biases, labels, inputs, candidates, hits=True)
        else:
            loss = compute(weights, biases, labels, inputs, candidates, remove_accidental_hits=True)
        (loss.mean() if reduce == "mean" else (loss * by_row).sum()).backward()
        found.append((loss, weights.grad, biases.grad, inputs.grad))
    assert found[0][1].is_sparse
    assert found[0][2].is_sparse
    for got, want in zip(*found, strict=True):
        agree(got, want)


def test_sparse_gradients_are_those_that_optimisers_take() -> None:
    labels, candidates = sample()
    weights, biases, inputs = draw(V, E), draw(V, seed=1), draw(B, E, seed=2)
    optimizer = torch.optim.SGD([weights, biases], lr=0.1)
    before = weights.detach().clone()
    loss = nce_loss(weights, biases, labels, inputs, candidates).mean()
    loss.backward(retain_graph=True)
    once = weights.grad.to_dense()
    loss.backward()
    agree(weights.grad, 2 * once)
    optimizer.step()
    assert torch.allclose(weights, before - 0.2 * once)


def test_sampled_losses_compile_with_dense_gradients() -> None:
    labels, candidates = sample()
    found = []
    torch._dynamo.reset()
    compiled = torch.compile(nce_loss, fullgraph=True, backend="aot_eager")
    for function in (nce_loss, compiled):
        weights, biases, inputs = draw(V, E), draw(V, seed=1), draw(B, E, seed=2)
        loss = function(weights, biases, labels, inputs, candidates)
        loss.mean().backward()
        found.append((loss, weights.grad.to_dense(), biases.grad.to_dense(), inputs.grad))
    assert not weights.grad.is_sparse
    for got, want in zip(*found, strict=True):
        agree(got, want)


def test_candidates_that_are_none() -> None:
    labels, candidates = sample()
    with pytest.raises(TypeError, match=r"candidates is ndarray; expected the Candidates"):
        nce_loss(draw(V, E), draw(V), labels, draw(B, E), candidates.sampled)
