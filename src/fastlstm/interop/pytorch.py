"""Weights from and to PyTorch's state dicts: nn.LSTM, nn.GRU, nn.RNN, nn.Embedding, nn.Linear."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, overload

import numpy as np

from fastlstm.contract import DEFAULT_GATE_ORDER, GRU_CONVENTIONS, FloatArray
from fastlstm.interop.parts import Part, fill, listed, parts_of
from fastlstm.interop.weights import (
    GRUWeights,
    LSTMWeights,
    RecurrentWeights,
    RNNWeights,
    check_fits,
    float_array,
    gates_of,
    in_convention,
    in_gate_order,
)
from fastlstm.layers import Layer
from fastlstm.models import Model
from fastlstm.ops.checks import describe

# weight_ih_l0, bias_hh_l1_reverse; without the layer's number of a cell.
_RECURRENT = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(\d+)(_reverse)?)?")


@overload
def torch_to_fastlstm(state_dict: Mapping[str, Any], *, prefix: str = ...) -> list[RecurrentWeights]: ...
@overload
def torch_to_fastlstm(state_dict: Mapping[str, Any], model: Model, *, prefix: str = ...) -> Model: ...
def torch_to_fastlstm(
    state_dict: Mapping[str, Any], model: Model | None = None, *, prefix: str = ""
) -> list[RecurrentWeights] | Model:
    """Read the weights of a module of PyTorch.

    Parameters
    ----------
    state_dict : mapping of str to tensors or arrays
        Of an nn.LSTM, nn.GRU, nn.RNN (with tanh, which the weights do not say), of one of their cells, or of a module
        that has them among others.
    model : Model, optional
        Copy the weights into this model: of each kind (embedding, recurrent layer, linear layer) the first into the
        first, and so on, as they stand in the state dict.
    prefix : str
        Read the entries alone whose names begin with it, such as "encoder.".

    Returns
    -------
    list of LSTMWeights, GRUWeights or RNNWeights; with ``model`` the model
        A layer an entry, from below; a bidirectional one has ``backwards``. The gate order of an LSTM is "ifgo" and
        its ``b`` the sum of PyTorch's two; of a GRU the convention is "pytorch", with both biases.

    Raises
    ------
    TypeError, ValueError
        It is no state dict, it holds something else, several recurrent modules (without model and prefix), or what does
        not fit the model; nothing changes then.
    """
    parts = _parts(state_dict, prefix)
    if model is not None:
        fill(model, parts, "the state dict")
        return model
    recurrent = [part for part in parts if part.kind == "recurrent"]
    modules = sorted({part.name.rpartition("layer ")[0] for part in recurrent})
    if len(modules) != 1:
        raise ValueError(
            f"the state dict holds {listed(parts)}, expected one nn.LSTM, nn.GRU or nn.RNN"
            + ("; choose one by prefix=" if modules else "")
        )
    return [part.weights for part in recurrent]  # type: ignore[misc]


def fastlstm_to_torch(model: Model | Layer) -> dict[str, Any]:
    """Write weights as a state dict of PyTorch.

    Parameters
    ----------
    model : Model, or a recurrent layer of `fastlstm.layers`
        Any but a `Word2Vec`.

    Returns
    -------
    dict of str to torch.Tensor
        Copies, by the names of a module that has the model's layers: ``embedding`` (nn.Embedding), ``lstm``, ``gru`` or
        ``rnn`` (nn.LSTM(D, H, num_layers, batch_first=True) for lstm1, lstm2 ...), ``output`` (nn.Linear); of a
        `Seq2seq` ``encoder.embedding``, ``encoder.lstm`` and so on. Of a layer, those of an nn.LSTM itself. Biases of
        an LSTM are PyTorch's bias_ih; bias_hh is 0.

    Raises
    ------
    ImportError
        torch is not installed.
    TypeError, ValueError
        PyTorch has no layer that computes what one of the model does: a GRU in the book's convention, for instance.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("state dicts need the package torch: pip install torch") from None
    found: dict[str, FloatArray] = {}
    for part in parts_of(model, "PyTorch"):
        weights = part.weights
        if isinstance(weights, (LSTMWeights, GRUWeights, RNNWeights)):
            name, depth = re.fullmatch(r"(.*?)(\d*)", part.name).groups()  # type: ignore[union-attr]
            prefix = f"{name}." if name else ""
            found |= {
                f"{prefix}{leaf}": array for leaf, array in _recurrent_arrays(weights, int(depth or 1) - 1).items()
            }
        elif part.kind == "embedding":
            found[f"{part.name}.weight"] = weights[0]
        else:
            found |= {f"{part.name}.weight": weights[0].T, f"{part.name}.bias": weights[1]}
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in found.items()}


def _recurrent_arrays(weights: RecurrentWeights, depth: int) -> dict[str, FloatArray]:
    if weights.reverse and weights.backwards is None:
        raise ValueError("PyTorch has no layer that runs backwards alone")
    arrays: dict[str, FloatArray] = {}
    one: RecurrentWeights | None = weights
    for suffix in (f"_l{depth}", f"_l{depth}_reverse"):
        if one is None:
            break
        if isinstance(one, LSTMWeights):
            one = in_gate_order(one, DEFAULT_GATE_ORDER)
        elif isinstance(one, GRUWeights):
            one = in_convention(one, GRU_CONVENTIONS["pytorch"], "PyTorch's")
        bias_ih, bias_hh = one.b if one.b.ndim == 2 else (one.b, np.zeros_like(one.b))
        arrays |= {
            f"weight_ih{suffix}": one.Wx.T,
            f"weight_hh{suffix}": one.Wh.T,
            f"bias_ih{suffix}": bias_ih,
            f"bias_hh{suffix}": bias_hh,
        }
        one = one.backwards
    return arrays


def _parts(state_dict: Any, prefix: str) -> list[Part]:
    """The layers of a state dict in its order."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is {describe(state_dict)}, expected a mapping of names to tensors")
    recurrent: dict[str, dict[int, dict[str, FloatArray]]] = {}
    others: dict[str, dict[str, FloatArray]] = {}
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not name.startswith(prefix):
            continue
        module, _, leaf = name.rpartition(".")
        if match := _RECURRENT.fullmatch(leaf):
            word, depth, reverse = match.groups()
            if word == "weight_hr":
                raise ValueError(f"{name} is a projection (proj_size), which the operators do not have")
            its = recurrent.setdefault(module, {}).setdefault(int(depth or 0), {})
            its[word + (reverse or "")] = _array(name, tensor)
            others.setdefault(module, {})
        elif leaf in ("weight", "bias"):
            others.setdefault(module, {})[leaf] = _array(name, tensor)
        else:
            raise ValueError(f"{name} belongs to no nn.LSTM, nn.GRU, nn.RNN, nn.Embedding or nn.Linear")
    parts: list[Part] = []
    for module, arrays in others.items():
        for depth, its in sorted(recurrent.get(module, {}).items()):
            title = f"{module} layer {depth}".lstrip()
            parts.append(Part(title, "recurrent", _recurrent_weights(title, its)))
        if arrays:
            parts.append(_other(module, arrays))
    return parts


def _array(name: str, tensor: Any) -> FloatArray:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        tensor = (tensor if tensor.element_size() > 2 else tensor.float()).numpy()  # numpy has no bfloat16
    return float_array(name, tensor).copy()


def _recurrent_weights(title: str, arrays: dict[str, FloatArray]) -> RecurrentWeights:
    ways: list[RecurrentWeights] = []
    for suffix in ("", "_reverse"):
        names = [f"{word}{suffix}" for word in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        its = [arrays[name] for name in names if name in arrays]
        if not its and suffix:
            break
        if len(its) == 2 and names[0] in arrays and names[1] in arrays:
            its += [np.zeros(len(its[0]), its[0].dtype)] * 2  # bias=False
        if len(its) != 4:
            raise ValueError(f"{title} holds {', '.join(arrays)}, expected {', '.join(names)}")
        Wx, Wh, bias_ih, bias_hh = its[0].T.copy(), its[1].T.copy(), its[2], its[3]
        gates, reverse = gates_of(f"weight_hh of {title}, transposed,", Wh), bool(suffix)
        check_fits(title, Wx, Wh, bias_ih, bias_hh)
        if gates == 4:
            ways.append(LSTMWeights(Wx, Wh, bias_ih + bias_hh, DEFAULT_GATE_ORDER, reverse))
        elif gates == 3:
            ways.append(GRUWeights(Wx, Wh, np.stack([bias_ih, bias_hh]), GRU_CONVENTIONS["pytorch"], reverse))
        else:
            ways.append(RNNWeights(Wx, Wh, bias_ih + bias_hh, reverse))
    return ways[0] if len(ways) == 1 else ways[0]._replace(backwards=ways[1])  # type: ignore[arg-type]


def _other(module: str, arrays: dict[str, FloatArray]) -> Part:
    weight = arrays.get("weight")
    if weight is None or weight.ndim != 2:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(f"{module} holds {shapes}, expected the weight of an nn.Embedding or an nn.Linear")
    if "bias" in arrays:
        return Part(module, "affine", (weight.T, arrays["bias"]))
    return Part(module, "embedding", (weight,))
