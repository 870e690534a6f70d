"""One layer in one direction: a node of autograd over ``fastlstm.ops``, and an operator that compilers see.

Both compute the same. Called directly, a layer is a `torch.autograd.Function`, which costs a few microseconds; where
PyTorch traces, it is ``torch.ops.fastlstm.lstm``, ``gru`` or ``rnn``, whose overhead the compiled graph does not have.
"""

from __future__ import annotations

import functools
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
    forward : the operator, with PyTorch's biases and the first states as sequences.
    backward : the operator, with the gradients by output and last states.
    dstates : the names of the gradients by the first states.
    """

    name: str
    gates: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    dstates: tuple[str, ...]


def _sum_of(biases: Sequence[FloatArray]) -> FloatArray | None:
    return biases[0] + biases[1] if biases else None


def _lstm_forward(xs: Any, Wx: Any, Wh: Any, biases: Any, states: Any, **options: Any) -> Any:
    h0, c0 = states or (None, None)
    return ops.lstm_forward(xs, Wx, Wh, _sum_of(biases), h0=h0, c0=c0, **options)


def _lstm_backward(tape: Any, dhs: Any, dh_n: Any, dc_n: Any, without: tuple[str, ...]) -> Any:
    return ops.lstm_backward(dhs, tape, dh_n=dh_n, dc_n=dc_n, without=without)


def _gru_forward(xs: Any, Wx: Any, Wh: Any, biases: Any, states: Any, **options: Any) -> Any:
    b = array_module(biases[0]).stack(biases) if biases else None
    return ops.gru_forward(xs, Wx, Wh, b, h0=states[0] if states else None, convention="pytorch", **options)


def _gru_backward(tape: Any, dhs: Any, dh_n: Any, without: tuple[str, ...]) -> Any:
    return ops.gru_backward(dhs, tape, dh_n=dh_n, without=without)


def _rnn_forward(xs: Any, Wx: Any, Wh: Any, biases: Any, states: Any, **options: Any) -> Any:
    return ops.rnn_forward(xs, Wx, Wh, _sum_of(biases), h0=states[0] if states else None, **options)


def _rnn_backward(tape: Any, dhs: Any, dh_n: Any, without: tuple[str, ...]) -> Any:
    return ops.rnn_backward(dhs, tape, dh_n=dh_n, without=without)


LSTM = Kind("LSTM", 4, _lstm_forward, _lstm_backward, ("dh0", "dc0"))
GRU = Kind("GRU", 3, _gru_forward, _gru_backward, ("dh0",))
RNN = Kind("RNN", 1, _rnn_forward, _rnn_backward, ("dh0",))


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
        w_ih, w_hh, *biases = [as_array(weight) for weight in weights]
        xs, packing, lengths = as_array(data), None, None
        if batch_sizes is not None:
            packing, batch_first = Packing(as_array(batch_sizes), xs), False
            xs, lengths = packing.pad(xs), packing.lengths
        hs, *last, tape = kind.forward(
            xs,
            w_ih.T,
            w_hh.T,
            biases,
            [as_array(state)[0] for state in states],
            lengths=lengths,
            reverse=reverse,
            time_major=not batch_first,
            training=training,
            precision=precision,
        )
        if packing is not None:
            hs = packing.pack(hs)
        return [as_tensor(hs), *[as_tensor(state[None]) for state in last]], _Record(tape, packing)


@functools.cache
def _left_out(kind: Kind, num_weights: int, needs: tuple[bool, ...]) -> tuple[str, ...]:
    """The names of the gradients that nobody needs."""
    split = 1 + num_weights
    needed = (*needs[:3], any(needs[3:split]), *(needs[split:] or [False for _ in kind.dstates]))
    names = ("dxs", "dWx", "dWh", "db", *kind.dstates)
    return tuple(name for name, is_needed in zip(names, needed, strict=True) if not is_needed)


def _backward(
    call: Call,
    record: _Record,
    data: Tensor,
    weights: Sequence[Tensor],
    upstream: Sequence[Tensor | None],
    needs: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients of data, weights and states, None where none is needed."""
    kind, num_weights, (tape, packing) = call.kind, len(weights), record
    with stream_of(data):
        dhs, *last = [None if grad is None else as_array(grad) for grad in upstream]
        if dhs is not None and packing is not None:
            dhs = packing.pad(dhs)
        last = [None if grad is None else grad[0] for grad in last]
        made = kind.backward(tape, dhs, *last, _left_out(kind, num_weights, needs))
        dxs, dWx, dWh, db = made.dxs, made.dWx, made.dWh, made.db
        if dxs is not None and packing is not None:
            dxs = packing.pack(dxs)
        grads = [
            None if dxs is None else as_tensor(dxs),
            None if dWx is None else as_tensor(dWx.T),
            None if dWh is None else as_tensor(dWh.T),
        ]
        if num_weights == 4:
            # Each bias gets memory of its own: either may become a .grad.
            of_biases = (None, None) if db is None else db if kind is GRU else (db, db.copy())
            for grad, needed in zip(of_biases, needs[3:5], strict=True):
                grads.append(as_tensor(grad) if needed else None)
        for name, needed in zip(kind.dstates, needs[1 + num_weights :], strict=False):
            grads.append(as_tensor(getattr(made, name)[None]) if needed else None)
        return grads


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
        _, _, of_data, _, *of_others = ctx.needs_input_grad
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
    return _backward(call, record, data, weights, upstream, tuple(needs))


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
        last = [data.new_empty((1, N, H)) for _ in kind.dstates]
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
    training = torch.is_grad_enabled() and (
        weights[0].requires_grad or any(tensor.requires_grad for tensor in (*weights, data, *states))
    )
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
    return [zeros for _ in kind.dstates]


@torch.library.custom_op("fastlstm::zero_states", mutates_args=())
def _zero_states(data: Tensor, batch_sizes: Tensor, count: int, H: int) -> Tensor:
    return data.new_zeros(count, int(batch_sizes[0]), H)


@_zero_states.register_fake
def _fake_zero_states(data: Tensor, _: Tensor, count: int, H: int) -> Tensor:
    N = torch.library.get_ctx().new_dynamic_size(min=1)
    return data.new_empty(count, N, H)
