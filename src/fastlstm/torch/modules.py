"""LSTM, GRU and RNN with torch.nn's interface on our kernels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.fx import Proxy
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from fastlstm.contract import BackendNotAvailable, Precision
from fastlstm.ops.device import check_device
from fastlstm.torch import recurrence
from fastlstm.torch.recurrence import Call, Kind
from fastlstm.torch.tensors import is_traced, on_host

_DTYPES = (torch.float32, torch.float64)
_PLAIN = (Tensor, nn.Parameter)


class LSTM(nn.LSTM):
    """torch.nn.LSTM on the kernels of `fastlstm.ops`: the same constructor, state_dict, arguments and results.

    float32 and float64, on the CPU and, where `fastlstm.available_backends` has "cuda", on a GPU. What the kernels do
    not have goes PyTorch's own way, with one warning: ``proj_size`` and other dtypes. Its derivatives are first ones:
    to differentiate them again is an error.

    Parameters
    ----------
    *args, **kwargs
        torch.nn.LSTM's: input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
        device, dtype.

    References
    ----------
    torch.nn.LSTM; Gers, Schmidhuber, Cummins (2000), "Learning to forget", without peepholes.
    """

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002
        """Run the network over a sequence.

        Parameters
        ----------
        input : (T, N, D), with batch_first (N, T, D), without a batch (T, D), or a PackedSequence
        hx : pair of (layers * directions, N, H), optional
            h0 and c0; zeros if not given. Without a batch (layers * directions, H).

        Returns
        -------
        output : (T, N, directions * H), or as the input is
        (h_n, c_n) : as hx

        Raises
        ------
        RuntimeError, ValueError
            torch.nn.LSTM's, with its texts.
        """
        return _forward(self, recurrence.LSTM, input, hx, super().forward)


class GRU(nn.GRU):
    """torch.nn.GRU on the kernels of `fastlstm.ops`: the same constructor, state_dict, arguments and results.

    float32 and float64, on the CPU and, where `fastlstm.available_backends` has "cuda", on a GPU. Other dtypes go
    PyTorch's own way, with one warning. Its derivatives are first ones: to differentiate them again is an error.

    Parameters
    ----------
    *args, **kwargs
        torch.nn.GRU's: input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype.

    References
    ----------
    torch.nn.GRU; Cho et al. (2014), with the reset gate after the product.
    """

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002
        """Run the network over a sequence: `LSTM.forward` with one state, hx and h_n."""
        return _forward(self, recurrence.GRU, input, hx, super().forward)


class RNN(nn.RNN):
    """torch.nn.RNN on the kernels of `fastlstm.ops`: the same constructor, state_dict, arguments and results.

    float32 and float64, on the CPU and, where `fastlstm.available_backends` has "cuda", on a GPU. What the kernels do
    not have goes PyTorch's own way, with one warning: ``nonlinearity="relu"`` and other dtypes. Its derivatives are
    first ones: to differentiate them again is an error.

    Parameters
    ----------
    *args, **kwargs
        torch.nn.RNN's: input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional,
        device, dtype.

    References
    ----------
    torch.nn.RNN; Elman (1990), "Finding structure in time".
    """

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002
        """Run the network over a sequence: `LSTM.forward` with one state, hx and h_n."""
        return _forward(self, recurrence.RNN, input, hx, super().forward)


def replace(module: nn.Module) -> nn.Module:
    """Make every torch.nn.LSTM, GRU and RNN of a module ours, in place.

    Parameters, hooks, buffers, names and the training flag stay as they are: only the class changes. Subclasses of
    torch.nn's, RNNs with ``nonlinearity="relu"`` and parametrized modules are left alone; parametrize afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        The model, or one of those modules itself.

    Returns
    -------
    torch.nn.Module
        The module.

    Raises
    ------
    TypeError
        It is no module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is {type(module).__name__}, expected a torch.nn.Module; replace changes it in place")
    for part in module.modules():
        ours = _REPLACEMENTS.get(type(part))
        if ours is not None and getattr(part, "mode", "") != "RNN_RELU":
            part.__class__ = ours
    return module


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def _forward(module: Any, kind: Kind, input: Any, hx: Any, own_way: Callable[[Any, Any], Any]) -> Any:  # noqa: A002
    """The kernels' way; PyTorch's own for what they do not have, and for what is wrong: the error is PyTorch's then."""
    packed = isinstance(input, PackedSequence)
    data = input[0] if packed else input
    states = () if hx is None else tuple(hx) if kind is recurrence.LSTM and isinstance(hx, (tuple, list)) else (hx,)
    weights = _weights(module)
    traced = is_traced(data)
    if isinstance(data, Proxy):  # torch.fx takes modules of torch.nn as they are, and looks into others
        tracer: Any = data.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, hx), {})
    if not _is_right(module, kind, input, data, states, weights, traced):
        if not traced:
            _warn_of_own_way(module, data)
        return own_way(input, hx)
    if not _autocast_is_on(data):
        return _run(module, kind, input, data, states, weights, None, traced)
    if torch.get_autocast_dtype("cpu") is not torch.bfloat16:
        return own_way(input, hx)
    dtype = _autocast_dtype(kind, data, states, packed=packed)
    data, states = data.float(), tuple(state.float() for state in states)
    output, last = _run(module, kind, input, data, states, weights, "bf16", traced)
    output = output._replace(data=output.data.to(dtype)) if packed else output.to(dtype)
    return output, tuple(state.to(dtype) for state in last) if isinstance(last, tuple) else last.to(dtype)


def _run(
    module: Any,
    kind: Kind,
    input: Any,  # noqa: A002
    data: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    precision: Precision | None,
    traced: bool,
) -> tuple[Any, Any]:
    """All layers. ``data`` is the input, or that of a PackedSequence."""
    packed = isinstance(input, PackedSequence)
    num_layers, num_directions = module.num_layers, 2 if module.bidirectional else 1
    batch_dim = 0 if module.batch_first else 1
    unbatched = data.dim() == 2 and not packed
    batch_sizes, batch_first = None, module.batch_first
    if packed:
        batch_sizes, batch_first = input.batch_sizes, False
        if not states and traced:
            states = recurrence.zero_states(kind, input, num_layers * num_directions, module.hidden_size)
        elif states and input.sorted_indices is not None:
            states = [state.index_select(1, input.sorted_indices) for state in states]
    elif unbatched:
        data = data.unsqueeze(batch_dim)
        states = [state.unsqueeze(1) for state in states]

    last: list[list[Tensor]] = []
    per_direction = 4 if module.bias else 2
    # Between layers time comes first, as in PyTorch, so that dropout draws the same masks.
    turned = batch_first and num_layers > 1
    output = data.transpose(0, 1) if turned else data
    for layer in range(num_layers):
        is_last = layer == num_layers - 1
        if turned and is_last:
            output = output.transpose(0, 1)
        outputs = []
        for reverse in range(num_directions):
            k = layer * num_directions + reverse
            of_layer = weights[k * per_direction : (k + 1) * per_direction]
            first = states if num_layers * num_directions == 1 else [state[k : k + 1] for state in states]
            call = Call(kind, reverse == 1, batch_first and is_last, precision)
            hs, *of_ends = recurrence.run(call, output, batch_sizes, of_layer, first, traced=traced)
            outputs.append(hs)
            last.append(of_ends)
        output = outputs[0] if num_directions == 1 else torch.cat(outputs, -1)
        if module.dropout and module.training and not is_last:
            output = functional.dropout(output, module.dropout, training=True)

    ends = last[0] if len(last) == 1 else [torch.cat(of_layers) for of_layers in zip(*last, strict=True)]
    result: Any = output
    if packed:
        result = PackedSequence(output, batch_sizes, input.sorted_indices, input.unsorted_indices)
        if input.unsorted_indices is not None:
            ends = [end.index_select(1, input.unsorted_indices) for end in ends]
    elif unbatched:
        result, ends = output.squeeze(batch_dim), [end.squeeze(1) for end in ends]
    return result, ends[0] if len(ends) == 1 else tuple(ends)


def _weights(module: Any) -> list[Tensor]:
    """The weights of all layers as they are now: plain ones, parametrized ones, or those of functional_call."""
    names, parameters = module._flat_weights_names, module._parameters
    try:
        return [parameters[name] for name in names]
    except KeyError:
        return [getattr(module, name) for name in names]


def _is_right(
    module: Any,
    kind: Kind,
    input: Any,  # noqa: A002
    data: Any,
    states: Sequence[Any],
    weights: Sequence[Any],
    traced: bool,
) -> bool:
    """Whether everything is as the kernels want it."""
    dtype = weights[0].dtype
    for tensor in (data, *weights, *states):
        if type(tensor) not in _PLAIN or tensor.dtype is not dtype or not tensor.is_cpu:
            if not _are_right_otherwise(data, (data, *weights, *states), dtype):
                return False
            break
    shape = data.shape
    dims = len(shape)
    if (
        module.proj_size
        or module.mode == "RNN_RELU"
        or dtype not in _DTYPES
        or dims not in (2, 3)
        or shape[-1] != module.input_size
        or data.layout is not torch.strided
        or _goes_elsewhere(traced)
    ):
        return False
    packed = isinstance(input, PackedSequence)
    if packed:
        if dims != 2:
            return False
    elif shape[1 if module.batch_first and dims == 3 else 0] == 0:
        return False
    if not states:
        return True
    if len(states) != len(kind.dstates):
        return False
    if traced and packed:
        return True
    N = int(input.batch_sizes[0]) if packed else shape[0 if module.batch_first else 1]
    count = module.num_layers * (2 if module.bidirectional else 1)
    expected = (count, module.hidden_size) if dims == 2 and not packed else (count, N, module.hidden_size)
    return all(tuple(state.shape) == expected for state in states)


def _goes_elsewhere(traced: bool) -> bool:
    """Whether the module is being written down for other programs, or differentiated in ways the kernels do not have.

    These are the transforms of torch.func, and derivatives forward, inside of torch.autograd.forward_ad.dual_level.
    """
    if traced and torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _are_right_otherwise(data: Any, tensors: Sequence[Any], dtype: torch.dtype) -> bool:
    """Whether tensors that are not all plain ones of the host and one dtype are right nevertheless."""
    if any(type(tensor) not in _PLAIN and not isinstance(tensor, FakeTensor) for tensor in tensors):
        return False
    lower = dtype is torch.float32 and _autocast_is_on(data)
    if any(tensor.dtype is not dtype and not (lower and tensor.dtype is torch.bfloat16) for tensor in tensors):
        return False
    if any(tensor.device != data.device for tensor in tensors):
        return False
    return _is_here(data)


def _is_here(data: Tensor) -> bool:
    """Whether the kernels run where a tensor lives."""
    return on_host(data) or data.is_meta or (data.is_cuda and _why_not_on_gpu() is None)


@functools.cache
def _why_not_on_gpu() -> str | None:
    try:
        check_device("cuda")
    except BackendNotAvailable as error:
        return str(error)
    return None


def _autocast_is_on(data: Tensor) -> bool:
    return not data.is_meta and torch.is_autocast_enabled("cpu" if on_host(data) else data.device.type)


def _autocast_dtype(kind: Kind, data: Tensor, states: Sequence[Tensor], *, packed: bool) -> torch.dtype:
    """The dtype of what torch.nn's module returns under autocast to bfloat16."""
    of_onednn = kind is recurrence.LSTM and not packed
    if of_onednn and data.dtype is torch.bfloat16:
        of_onednn = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if of_onednn or kind is recurrence.RNN:
        return torch.bfloat16
    return states[0].dtype if states else data.dtype


_warned: set[str] = set()


def _warn_of_own_way(module: Any, data: Any) -> None:
    """Say once why PyTorch's own kernels run. What is wrong is PyTorch's to say."""
    reason = None
    if module.proj_size:
        reason = f"proj_size={module.proj_size}"
    elif module.mode == "RNN_RELU":
        reason = "nonlinearity='relu'"
    elif isinstance(data, Tensor) and data.dtype.is_floating_point and data.dtype not in _DTYPES:
        reason = f"dtype {data.dtype}"
    elif isinstance(data, Tensor) and data.is_cuda and _why_not_on_gpu() is not None:
        reason = f"a GPU here ({_why_not_on_gpu()})"
    if reason is not None and reason not in _warned:
        _warned.add(reason)
        warnings.warn(
            f"fastlstm.torch has no kernels for {reason}: torch.nn.{module.__class__.__name__}'s own run instead",
            RuntimeWarning,
            stacklevel=6,
        )
