"""Losses over a vocabulary that never hold its logits: fused, and over a sample of the classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fastlstm import ops
from fastlstm.contract import Candidates, Precision, RowGrad, SampledLossKind
from fastlstm.torch.tensors import as_array, as_tensor, first_derivatives, is_traced, keep, kept, on_host, stream_of

_Grads = list[Tensor | None]


def linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    memory: Literal["fast", "low"] = "fast",
) -> Tensor:
    """Projection to the vocabulary, softmax and cross entropy in one call, without keeping the logits.

    The loss is that of ``cross_entropy(linear(h, weight, bias).flatten(0, -2), targets.flatten())`` of
    torch.nn.functional.
    Its gradients are computed in the same call, those that are needed.

    Parameters
    ----------
    h : (..., H) float32 or float64
        Hidden states; weight and bias have their dtype. Other dtypes go PyTorch's own way, with one warning.
    weight : (V, H)
        As in torch.nn.Linear.
    bias : (V,), or None
    targets : (...) int32 or int64
        From 0 to V - 1, or ignore_index.
    ignore_index : int
        Rows of h with this target do not count and get a zero gradient.
    memory : "fast" or "low"
        "low" never holds more than a block of the logits; it computes them twice.

    Returns
    -------
    () tensor of the dtype of h
        The mean over the targets that count; 0 if none does, where PyTorch's is NaN. Its derivatives are first ones.

    Raises
    ------
    IndexError
        A target lies outside 0 to V - 1 and is not ignore_index.
    TypeError, ValueError
        A dtype, a shape or an option does not fit.
    """
    if weight.dim() != 2 or h.dim() == 0 or weight.shape[1] != h.shape[-1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (V, H) with H = {h.shape[-1] if h.dim() else '...'} as "
            f"the last axis of h, of shape {tuple(h.shape)}; it is used as in torch.nn.Linear, h @ weight.T"
        )
    precision: Precision | None = None
    if on_host(h) and torch.is_autocast_enabled("cpu") and weight.dtype is torch.float32:
        precision = "bf16" if torch.get_autocast_dtype("cpu") is torch.bfloat16 else None
        h = h.float()
    if h.dtype not in (torch.float32, torch.float64):
        _warn_of_own_way("linear_cross_entropy", h.dtype)
        logits = functional.linear(h, weight, bias)
        return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore_index)
    return _run(_LinearLoss, (ignore_index, memory, precision), h, weight, bias, targets)


def nce_loss(
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    inputs: Tensor,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = False,
) -> Tensor:
    """Noise-contrastive estimation, with sparse gradients of weights and biases.

    Parameters
    ----------
    weights : (V, E) float32 or float64
    biases : (V,)
        Their gradients are sparse, as torch.nn.Embedding(sparse=True) gives them, no class twice: SGD, Adagrad and
        SparseAdam take them. Inside of torch.compile, which has no sparse gradients, they are dense.
    labels : (B,) or (B, num_true) int32 or int64
        True classes.
    inputs : (B, E)
    candidates : Candidates
        S sampled classes, shared by the batch, of `fastlstm.ops.log_uniform_candidates` or ``unigram_candidates`` for
        ``labels.numpy()``; arrays or tensors.
    remove_accidental_hits : bool
        A sampled class that is a true one of the row counts for nothing.

    Returns
    -------
    (B,) tensor
        The loss of each row, summed over its classes. Its derivatives are first ones.

    Raises
    ------
    IndexError
        A label or a sampled class lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Gutmann, Hyvärinen (2010), "Noise-contrastive estimation"; tf.nn.nce_loss.
    """
    return _sampled("sigmoid", weights, biases, labels, inputs, candidates, remove_accidental_hits)


def sampled_softmax_loss(
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    inputs: Tensor,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = True,
) -> Tensor:
    """Cross entropy of a softmax over the true and the sampled classes only; the rest as for `nce_loss`.

    References
    ----------
    Jean et al. (2015), "On using very large target vocabulary"; tf.nn.sampled_softmax_loss.
    """
    return _sampled("softmax", weights, biases, labels, inputs, candidates, remove_accidental_hits)


def _sampled(
    kind: SampledLossKind,
    weights: Tensor,
    biases: Tensor,
    labels: Tensor,
    inputs: Tensor,
    candidates: Candidates,
    remove_accidental_hits: bool,
) -> Tensor:
    if not isinstance(candidates, Candidates):
        raise TypeError(
            f"candidates is {type(candidates).__name__}; expected the Candidates that "
            "fastlstm.ops.log_uniform_candidates or unigram_candidates returned for labels.numpy()"
        )
    sample = (torch.as_tensor(part, device=weights.device) for part in candidates[:3])
    return _run(_SampledLoss, (kind, bool(remove_accidental_hits)), weights, biases, labels, inputs, *sample)


# --------------------------------------------------------------------------------------------
# Each loss: its value with all gradients, and what they are for a gradient by the value
# --------------------------------------------------------------------------------------------


class _Loss(Protocol):
    @property
    def name(self) -> str:
        """The public function."""

    @staticmethod
    def empty_value(tensors: Sequence[Any]) -> Tensor:
        """A tensor of the value's shape and dtype."""

    def compute(self, tensors: Sequence[Any], needs: Sequence[bool]) -> tuple[Tensor, Any]:
        """The value, and its gradients in a form of their own."""

    def scale(self, grads: Any, dloss: Tensor, tensors: Sequence[Any], needs: Sequence[bool]) -> _Grads:
        """The gradients of the tensors for that of the value; what ``grads`` holds is used up."""


class _LinearLoss(NamedTuple):
    """Of h, weight, bias, targets."""

    ignore_index: int
    memory: Literal["fast", "low"]
    precision: Precision | None

    @property
    def name(self) -> str:
        return "linear_cross_entropy"

    @staticmethod
    def empty_value(tensors: Sequence[Any]) -> Tensor:
        empty: Tensor = tensors[0].new_empty(())
        return empty

    def compute(self, tensors: Sequence[Any], needs: Sequence[bool]) -> tuple[Tensor, _Grads]:
        h, weight, bias, targets = tensors
        with stream_of(h):
            # As the parameter lies: it becomes .grad without a copy.
            dweight = torch.empty_like(weight, memory_format=torch.contiguous_format) if needs[1] else None
            found = ops.linear_cross_entropy(
                as_array(h),
                as_array(weight).T,
                None if bias is None else as_array(bias),
                as_array(targets),
                ignore_index=self.ignore_index,
                memory=self.memory,
                precision=self.precision,
                out=None if dweight is None else SimpleNamespace(dW=as_array(dweight).T),
                without=tuple(name for name, needed in zip(("dh", "dW", "db"), needs, strict=False) if not needed),
            )
            value: Any = found.loss
            loss = torch.tensor(value, dtype=h.dtype) if on_host(h) else as_tensor(value).to(h.dtype)
            dh, dbias = (None if grad is None else as_tensor(grad) for grad in (found.dh, found.db))
            return loss, [dh, dweight, dbias, None]

    def scale(self, grads: _Grads, dloss: Tensor, tensors: Sequence[Any], needs: Sequence[bool]) -> _Grads:
        if not on_host(dloss) or dloss.item() != 1.0:
            for grad in grads:
                if grad is not None:
                    grad.mul_(dloss)
        return grads


class _SampledLoss(NamedTuple):
    """Of weights, biases, labels, inputs, and the sample: classes, expected counts of the true and the sampled ones."""

    kind: SampledLossKind
    remove_accidental_hits: bool

    @property
    def name(self) -> str:
        return "nce_loss" if self.kind == "sigmoid" else "sampled_softmax_loss"

    @staticmethod
    def empty_value(tensors: Sequence[Any]) -> Tensor:
        empty: Tensor = tensors[3].new_empty(tensors[3].shape[:1])
        return empty

    def compute(self, tensors: Sequence[Any], needs: Sequence[bool]) -> tuple[Tensor, Any]:
        function = ops.nce_loss if self.kind == "sigmoid" else ops.sampled_softmax_loss
        with stream_of(tensors[0]):
            found = function(*self._arguments(tensors), remove_accidental_hits=self.remove_accidental_hits)
            return as_tensor(found.loss), (found.dweights, found.dbiases, found.dinputs)

    def scale(self, grads: Any, dloss: Tensor, tensors: Sequence[Any], needs: Sequence[bool]) -> _Grads:
        weights, biases, _, inputs = tensors[:4]
        with stream_of(weights):
            dloss_rows = as_array(dloss)
            B = len(dloss_rows)
            first = dloss_rows[:1]
            if B and isinstance(dloss_rows, np.ndarray) and (dloss_rows == first).all():
                # Those of the mean, which most losses are, and of the sum are multiples of what is there.
                dweights, dbiases, dinputs = grads
                factor = first * B
                if factor != 1:
                    for grad in (dweights.values, dbiases.values, dinputs):
                        grad *= factor
            else:
                dinputs, dweights, dbiases = self._by_logits(dloss_rows, tensors)
            return [
                _sparse(dweights, weights) if needs[0] else None,
                _sparse(dbiases, biases) if needs[1] else None,
                None,
                as_tensor(dinputs).reshape(inputs.shape) if needs[3] else None,
                *(None for _ in tensors[4:]),
            ]

    def _by_logits(self, dloss: Any, tensors: Sequence[Any]) -> Any:
        """The gradients where rows count differently."""
        logits, labels, tape = ops.sampled_logits_forward(
            *self._arguments(tensors), remove_accidental_hits=self.remove_accidental_hits
        )
        softmax = self.kind == "softmax"
        p = ops.softmax(logits) if softmax else as_array(torch.sigmoid(as_tensor(logits)))
        return ops.sampled_logits_backward((p - labels) * dloss[:, None], tape)

    def _arguments(self, tensors: Sequence[Any]) -> Any:
        *arrays, sampled, of_true, of_sampled = map(as_array, tensors)
        return *arrays, Candidates(sampled, of_true, of_sampled, num_tries=0)


def _sparse(grad: RowGrad, like: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(
        as_tensor(grad.indices)[None],
        as_tensor(grad.values),
        like.shape,
        is_coalesced=True,
        check_invariants=False,
    )


# --------------------------------------------------------------------------------------------
# A node of autograd, and an operator that compilers see
# --------------------------------------------------------------------------------------------


class _Node(torch.autograd.Function):
    """A loss outside of compilers."""

    @staticmethod
    def forward(ctx: Any, loss: _Loss, *tensors: Tensor | None) -> Tensor:
        value, grads = loss.compute(tensors, ctx.needs_input_grad[1:])
        ctx.save_for_backward(keep([grads]), *tensors)
        ctx.loss = loss
        return value

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> Any:
        tape, *tensors = ctx.saved_tensors
        grads = _gradients(ctx.loss, tape, dloss, tensors, ctx.needs_input_grad[1:])
        if torch.is_grad_enabled():
            grads = first_derivatives(ctx.loss.name, grads, tensors)
        return None, *grads


def _gradients(loss: _Loss, tape: Tensor, dloss: Tensor, tensors: Sequence[Any], needs: Sequence[bool]) -> Any:
    """Those of the forward call once, since they may become a .grad; later calls compute them again."""
    held = kept(tape)
    with torch.no_grad():
        grads = held.pop() if held else loss.compute(tensors, needs)[1]
        return loss.scale(grads, dloss, tensors, needs)


def _define(name: str, loss: Any, tensors: str, options: str) -> Any:
    """Register ``fastlstm::{name}`` and its backward; returns the operator, whose second result is the tape."""
    count = tensors.count("Tensor")
    arguments = f"{tensors}, {options}, bool[] needs"

    def forward(*args: Any) -> tuple[Tensor, Tensor]:
        value, grads = loss(*args[count:-1]).compute(args[:count], args[-1])
        return value, keep([grads])

    def fake(*args: Any) -> tuple[Tensor, Tensor]:
        return loss.empty_value(args), torch.empty(1, dtype=torch.uint8, device="cpu")

    def backward(dloss: Tensor, tape: Tensor, *args: Any) -> list[Tensor]:
        grads = _gradients(loss(*args[count:-1]), tape, dloss, args[:count], args[-1])
        return [grad.to_dense() if grad.is_sparse else grad for grad in grads if grad is not None]

    def fake_backward(_: Any, __: Any, *args: Any) -> list[Tensor]:
        return [tensor.new_empty(tensor.shape) for tensor, needed in zip(args[:count], args[-1], strict=True) if needed]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1], *inputs[:count])
        ctx.options = inputs[count:]

    def differentiate(ctx: Any, dloss: Tensor, _: Any) -> Any:
        tape, *tensors = ctx.saved_tensors
        needs = ctx.options[-1]
        grads = iter(op_backward(dloss, tape, *tensors, *ctx.options))
        return *(next(grads) if needed else None for needed in needs), *(None for _ in ctx.options)

    op = torch.library.custom_op(
        f"fastlstm::{name}", forward, mutates_args=(), schema=f"({arguments}) -> (Tensor, Tensor)"
    )
    op.register_fake(fake)
    op_backward = torch.library.custom_op(
        f"fastlstm::{name}_backward",
        backward,
        mutates_args=(),
        schema=f"(Tensor dloss, Tensor tape, {arguments}) -> Tensor[]",
    )
    op_backward.register_fake(fake_backward)
    op.register_autograd(differentiate, setup_context=setup_context)
    return op


_OPERATORS = {
    _LinearLoss: _define(
        "linear_cross_entropy",
        _LinearLoss,
        "Tensor h, Tensor weight, Tensor? bias, Tensor targets",
        "int ignore_index, str memory, str? precision",
    ),
    _SampledLoss: _define(
        "sampled_loss",
        _SampledLoss,
        "Tensor weights, Tensor biases, Tensor labels, Tensor inputs, Tensor sampled, Tensor true_expected_count, "
        "Tensor sampled_expected_count",
        "str kind, bool remove_accidental_hits",
    ),
}


def _run(loss: Any, options: tuple[Any, ...], *tensors: Any) -> Tensor:
    """The value of a loss of tensors."""
    grad_is_on = torch.is_grad_enabled()
    needs = [grad_is_on and tensor is not None and tensor.requires_grad for tensor in tensors]
    value: Tensor
    if is_traced(tensors[0]):
        value = _OPERATORS[loss](*tensors, *options, needs)[0]
    elif any(needs):
        value = _Node.apply(loss(*options), *tensors)  # type: ignore[no-untyped-call]
    else:
        value = loss(*options).compute(tensors, needs)[0]
    return value


_warned: set[torch.dtype] = set()


def _warn_of_own_way(name: str, dtype: torch.dtype) -> None:
    if dtype not in _warned and not torch.compiler.is_compiling():
        _warned.add(dtype)
        warnings.warn(
            f"fastlstm.torch.{name} has no kernels for {dtype}: torch.nn.functional's own run instead",
            RuntimeWarning,
            stacklevel=3,
        )
