"""One layer in one direction: a node of autograd over ``fastlstm.ops``, and an operator that compilers see.

Both compute the same. Called directly, a layer is a `torch.autograd.Function`, which costs a few microseconds; where
PyTorch traces, it is ``torch.ops.fastlstm.lstm``, ``gru`` or ``rnn``, whose overhead the compiled graph does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import FloatArray, Precision
from fastlstm.torch.packing import Packing
from fastlstm.torch.tensors import as_array, as_tensor, first_derivatives, keep, kept, on_host, stream_of


@dataclass(frozen=True, eq=False)
class Kind:
    """What tells LSTM, GRU and tanh RNN apart.

    gates : blocks of H columns of the weights.
    states, dstates, upstream : the operators' names for the first states, their gradients, and those by the last ones.
    two_biases : the operator takes PyTorch's biases apart, not their sum.
    """

    name: str
    gates: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    states: tuple[str, ...]
    dstates: tuple[str, ...]
    upstream: tuple[str, ...]
    options: dict[str, Any]
    two_biases: bool = False


LSTM = Kind(
    "LSTM",
    4,
    ops.lstm_forward,
    ops.lstm_backward,
    ("h0", "c0"),
    ("dh0", "dc0"),
    ("dh_n", "dc_n"),
    {"gate_order": "ifgo"},
)
GRU = Kind(
    "GRU",
    3,
    ops.gru_forward,
    ops.gru_backward,
    ("h0",),
    ("dh0",),
    ("dh_n",),
    {"convention": "pytorch"},
    two_biases=True,
)
RNN = Kind("RNN", 1, ops.rnn_forward, ops.rnn_backward, ("h0",), ("dh0",), ("dh_n",), {})


class Call(NamedTuple):
    """How a layer is called, beside its tensors."""

    kind: Kind
    reverse: bool
    batch_first: bool
    precision: Precision | None


class _Record(NamedTuple):
    """What a backward call needs of its forward call."""

    tape: Any
    packing: Packing | None


def _forward(
    call: Call,
    data: Tensor,
    batch_sizes: Tensor | None,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    *,
    training: bool,
) -> tuple[list[Tensor], _Record]:
    """Output, (N, T, H), (T, N, H) or (M, H) as the input is, and the last states (1, N, H)."""
    kind, reverse, batch_first, precision = call
    with stream_of(data):
        w_ih, w_hh, *biases = map(as_array, weights)
        xs, packing, lengths = as_array(data), None, None
        if batch_sizes is not None:
            packing, batch_first = Packing(as_array(batch_sizes), xs), False
            xs, lengths = packing.pad(xs), packing.lengths
        out = kind.forward(
            xs,
            w_ih.T,
            w_hh.T,
            _bias(kind, biases),
            **{name: as_array(state)[0] for name, state in zip(kind.states, states, strict=False)},
            lengths=lengths,
            reverse=reverse,
            time_major=not batch_first,
            training=training,
            precision=precision,
            **kind.options,
        )
        hs = out[0] if packing is None else packing.pack(out[0])
        return [as_tensor(hs), *(as_tensor(state[None]) for state in out[1:-1])], _Record(out[-1], packing)


def _bias(kind: Kind, biases: list[FloatArray]) -> FloatArray | None:
    if not biases:
        return None
    if not kind.two_biases:
        total: FloatArray = biases[0] + biases[1]
        return total
    stacked: FloatArray = array_module(biases[0]).stack(biases)
    return stacked


def _bias_gradients(kind: Kind, db: FloatArray | None, needs: Sequence[bool]) -> list[Tensor | None]:
    """Of both biases, each in memory of its own: either may become a .grad."""
    if db is None:
        return [None for _ in needs]
    if kind.two_biases:
        return [as_tensor(part) if needed else None for part, needed in zip(db, needs, strict=True)]
    first = as_tensor(db)
    return [first if needs[0] else None, (first.clone() if needs[0] else first) if needs[1] else None]


def _backward(
    call: Call,
    record: _Record,
    data: Tensor,
    weights: Sequence[Tensor],
    upstream: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of data, weights and states, None where none is needed."""
    kind = call.kind
    split = 1 + len(weights)
    needs_biases, needs_states = needs[3:split], needs[split:]
    without = [name for name, needed in zip(("dxs", "dWx", "dWh"), needs, strict=False) if not needed]
    if not any(needs_biases):
        without.append("db")
    dstates = kind.dstates[: len(needs_states)]
    without += [name for name, needed in zip(dstates, needs_states, strict=True) if not needed]
    without += kind.dstates[len(needs_states) :]
    with stream_of(data):
        dhs, *last = (None if grad is None else as_array(grad) for grad in upstream)
        if dhs is not None and record.packing is not None:
            dhs = record.packing.pad(dhs)
        last = [None if grad is None else grad[0] for grad in last]
        named = dict(zip(kind.upstream, last, strict=True))
        grads = kind.backward(dhs, record.tape, **named, without=tuple(without))
        dxs = grads.dxs
        if dxs is not None and record.packing is not None:
            dxs = record.packing.pack(dxs)
        return [
            None if dxs is None else as_tensor(dxs),
            None if grads.dWx is None else as_tensor(grads.dWx.T),
            None if grads.dWh is None else as_tensor(grads.dWh.T),
            *_bias_gradients(kind, grads.db, needs_biases),
            *(
                as_tensor(getattr(grads, name)[None]) if needed else None
                for name, needed in zip(dstates, needs_states, strict=True)
            ),
        ]


class _Recurrence(torch.autograd.Function):
    """The layer outside of compilers."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, num_weights: int, data: Tensor, batch_sizes: Tensor | None, *others: Tensor
    ) -> tuple[Tensor, ...]:
        weights, states = others[:num_weights], others[num_weights:]
        results, record = _forward(call, data, batch_sizes, weights, states, training=True)
        ctx.set_materialize_grads(False)
        # On a GPU a tape may refer to the output: that it has not been changed is checked with the rest.
        outputs = () if on_host(data) else results
        ctx.save_for_backward(keep(record), data, batch_sizes, *others, *outputs)
        ctx.call, ctx.num_weights, ctx.num_others = call, num_weights, len(others)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        tape, data, batch_sizes, *others = ctx.saved_tensors
        others = others[: ctx.num_others]
        weights, states = others[: ctx.num_weights], others[ctx.num_weights :]
        of_data, _, *of_others = ctx.needs_input_grad[2:]
        needs = (of_data, *of_others)
        grads = _gradients(ctx.call, tape, data, batch_sizes, weights, states, upstream, needs)
        if torch.is_grad_enabled():
            grads = first_derivatives(ctx.call.kind.name, grads, (data, *others))
        return None, None, grads[0], None, *grads[1:]


# Function.apply looks for wrappers of torch.func in all arguments first; modules have ruled those out.
_apply: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _Recurrence).apply


def _gradients(
    call: Call,
    tape: Tensor,
    data: Tensor,
    batch_sizes: Tensor | None,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    upstream: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> Any:
    record = kept(tape)
    if record is None:
        record = _forward(call, data, batch_sizes, weights, states, training=True)[1]
    return _backward(call, record, data, weights, upstream, needs)


# --------------------------------------------------------------------------------------------
# What compilers see
# --------------------------------------------------------------------------------------------

_ARGUMENTS = (
    "Tensor data, Tensor? batch_sizes, Tensor[] weights, Tensor[] states, bool reverse, bool batch_first, "
    "str? precision"
)


class _Arguments(NamedTuple):
    """What an operator and its backward both get."""

    data: Tensor
    batch_sizes: Tensor | None
    weights: list[Tensor]
    states: list[Tensor]
    reverse: bool
    batch_first: bool
    precision: Precision | None

    def call(self, kind: Kind) -> Call:
        return Call(kind, self.reverse, self.batch_first, self.precision)


def _define(kind: Kind) -> Any:
    """Register ``fastlstm::{kind}``, whose last result is the tape, and its backward; returns the operator."""
    name = f"fastlstm::{kind.name.lower()}"

    def forward(*args: Any) -> list[Tensor]:
        given, training = _Arguments(*args[:-1]), args[-1]
        results, record = _forward(given.call(kind), *given[:4], training=training)
        return [*results, keep(record) if training else torch.empty(0, dtype=torch.uint8)]

    def fake(*args: Any) -> list[Tensor]:
        given, training = _Arguments(*args[:-1]), args[-1]
        data, H = given.data, given.weights[1].shape[1]
        N = given.states[0].shape[1] if given.states else data.shape[0 if given.batch_first else 1]
        last = [data.new_empty((1, N, H)) for _ in kind.states]
        return [
            data.new_empty((*data.shape[:-1], H)),
            *last,
            torch.empty(int(training), dtype=torch.uint8, device="cpu"),
        ]

    def backward(upstream: list[Tensor | None], needs: list[bool], tape: Tensor, *args: Any) -> list[Tensor]:
        given = _Arguments(*args)
        grads = _gradients(given.call(kind), tape, *given[:4], upstream, needs)
        return [grad.contiguous() for grad in grads if grad is not None]

    def fake_backward(_: Any, needs: list[bool], __: Any, *args: Any) -> list[Tensor]:
        given = _Arguments(*args)
        inputs = given.data, *given.weights, *given.states
        return [tensor.new_empty(tensor.shape) for tensor, needed in zip(inputs, needs, strict=True) if needed]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        given = _Arguments(*inputs[:-1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[-1], given.data, given.batch_sizes, *given.weights, *given.states)
        ctx.num_weights, ctx.options = len(given.weights), given[4:]

    def differentiate(ctx: Any, upstream: list[Tensor | None]) -> Any:
        tape, data, batch_sizes, *others = ctx.saved_tensors
        weights, states = others[: ctx.num_weights], others[ctx.num_weights :]
        of_data, _, of_weights, of_states, *_ = ctx.needs_input_grad
        needs = [of_data, *of_weights, *of_states]
        made = iter(op_backward(upstream[:-1], needs, tape, data, batch_sizes, weights, states, *ctx.options))
        grads = [next(made) if needed else None for needed in needs]
        split = 1 + len(weights)
        return grads[0], None, grads[1:split], grads[split:], None, None, None, None

    schema = f"({_ARGUMENTS}, bool training) -> Tensor[]"
    op = torch.library.custom_op(name, forward, mutates_args=(), schema=schema)
    op.register_fake(fake)
    schema = f"(Tensor?[] upstream, bool[] needs, Tensor tape, {_ARGUMENTS}) -> Tensor[]"
    op_backward = torch.library.custom_op(f"{name}_backward", backward, mutates_args=(), schema=schema)
    op_backward.register_fake(fake_backward)
    op.register_autograd(differentiate, setup_context=setup_context)
    return op


_OPERATORS = {kind.name: _define(kind) for kind in (LSTM, GRU, RNN)}


def run(
    call: Call,
    data: Tensor,
    batch_sizes: Tensor | None,
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    *,
    traced: bool,
) -> Sequence[Tensor]:
    """The output of one layer in one direction, as its input lies, and the last states (1, N, H).

    Parameters
    ----------
    call : Call
    data : (N, T, D) with batch_first, (T, N, D), or the rows (M, D) of a packed sequence
    batch_sizes : (T,) int64 or None
        Of the packed sequence.
    weights : weight_ih (G, D), weight_hh (G, H), and bias_ih and bias_hh (G,) if there are biases
    states : h0 and, of an LSTM, c0 (1, N, H), or nothing, which are zeros
    traced : bool
        Something records operators, so that one has to be called.
    """
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*weights, data, *states))
    results: Sequence[Tensor]
    if traced:
        kind, *options = call
        *results, _ = _OPERATORS[kind.name](data, batch_sizes, list(weights), list(states), *options, training)
    elif training:
        results = _apply(call, len(weights), data, batch_sizes, *weights, *states)
    else:
        results, _ = _forward(call, data, batch_sizes, weights, states, training=False)
    return results


def zero_states(kind: Kind, packed: PackedSequence, count: int, H: int) -> list[Tensor]:
    """First states (count, N, H) for a packed sequence whose N nobody knows while it is traced."""
    if packed.sorted_indices is not None:
        zeros = packed.data.new_zeros(count, packed.sorted_indices.shape[0], H)
    else:
        zeros = _zero_states(packed.data, packed.batch_sizes, count, H)
    return [zeros for _ in kind.states]


@torch.library.custom_op("fastlstm::zero_states", mutates_args=())
def _zero_states(data: Tensor, batch_sizes: Tensor, count: int, H: int) -> Tensor:
    return data.new_zeros(count, int(batch_sizes[0]), H)


@_zero_states.register_fake
def _fake_zero_states(data: Tensor, _: Tensor, count: int, H: int) -> Tensor:
    N = torch.library.get_ctx().new_dynamic_size(min=1)
    return data.new_empty(count, N, H)
