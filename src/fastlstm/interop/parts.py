"""What a model of any framework consists of, in words that all share: embeddings, recurrent layers, affine layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fastlstm.contract import FloatArray
from fastlstm.interop.weights import (
    RECURRENT_LAYERS,
    GRUWeights,
    LSTMWeights,
    RecurrentWeights,
    RNNWeights,
    describe,
    put_into,
    weights_of,
)
from fastlstm.layers import Affine, Embedding, Layer, TimeAffineWithLoss
from fastlstm.layers.tied_output import TiedOutput
from fastlstm.models import Model
from fastlstm.ops.device import to_host

Kind: TypeAlias = Literal["embedding", "recurrent", "affine"]


class Part(NamedTuple):
    """One layer.

    Attributes
    ----------
    name : str
        Where it was found.
    weights : RecurrentWeights, or a tuple of arrays
        Of an embedding W (V, D); of an affine layer W (D, K) and b (K,).
    """

    name: str
    kind: Kind
    weights: RecurrentWeights | tuple[FloatArray, ...]


def parts_of(model: Model | Layer, framework: str) -> list[Part]:
    """The layers with weights, in the order of the data; arrays of the host.

    Raises
    ------
    TypeError
        It has a layer for which other frameworks have none.
    """
    layers = {"": model} if isinstance(model, Layer) else model.layers
    return [Part(name, _kind(layer, framework), _weights(layer)) for name, layer in layers.items() if layer.params]


def _kind(layer: Layer, framework: str) -> Kind:
    if isinstance(layer, RECURRENT_LAYERS):
        return "recurrent"
    if isinstance(layer, Embedding):
        return "embedding"
    if isinstance(layer, (Affine, TimeAffineWithLoss, TiedOutput)):
        return "affine"
    raise TypeError(f"{framework} has no layer like {layer!r}")


def _weights(layer: Layer) -> RecurrentWeights | tuple[FloatArray, ...]:
    if isinstance(layer, RECURRENT_LAYERS):
        return weights_of(layer)
    arrays = tuple(to_host(param) for param in layer.params)
    return (arrays[0].T, arrays[1]) if isinstance(layer, TiedOutput) else arrays


def fill(model: Model, parts: Sequence[Part], source: str) -> None:
    """Copy the weights of all parts into the model's layers: of each kind the first into the first, and so on.

    Raises
    ------
    ValueError
        There are more or fewer parts of a kind than the model has, or one does not fit; nothing changes then.
    """
    kinds = {name: _kind(layer, source) for name, layer in model.layers.items() if layer.params}
    if count(part.kind for part in parts) != count(kinds.values()):
        raise ValueError(
            f"{source} holds {count(part.kind for part in parts)}, expected {count(kinds.values())}, as the "
            f"{type(model).__name__} has"
        )
    new: dict[int, FloatArray] = {}
    for kind in ("embedding", "recurrent", "affine"):
        given = [part for part in parts if part.kind == kind]
        own = [model.layers[name] for name, its_kind in kinds.items() if its_kind == kind]
        for part, layer in zip(given, own, strict=True):
            title = f"{source}, {part.name}," if part.name else source
            for param, array in zip(layer.params, _params(layer, part, title), strict=True):
                if id(param) in new and not np.array_equal(new[id(param)], array):
                    raise ValueError(f"{title} holds other weights than the layer that shares them in the model")
                new[id(param)] = array
    tensors = {name: new[id(param)].astype(param.dtype) for name, param in model.named_parameters()}
    model.set_weights(tensors, source)


def _params(layer: Layer, part: Part, source: str) -> list[FloatArray]:
    """What ``layer.params`` would be with the weights of the part."""
    if not isinstance(part.weights, (LSTMWeights, GRUWeights, RNNWeights)):
        W, *bias = part.weights
        arrays = [W.T if isinstance(layer, TiedOutput) else W, *bias]
        shapes, expected = [array.shape for array in arrays], [param.shape for param in layer.params]
        if shapes != expected:
            raise ValueError(f"{source} holds arrays of shapes {shapes}, expected {expected} for {layer!r}")
        return arrays
    return put_into(layer, part.weights, source)


def count(kinds: Iterable[Kind]) -> str:
    """How many there are of each kind, in words."""
    found: list[str] = list(kinds)
    words = {"embedding": "embeddings", "recurrent": "recurrent layers", "affine": "affine layers"}
    return ", ".join(f"{word}: {found.count(kind)}" for kind, word in words.items())


def listed(parts: Sequence[Part]) -> str:
    """What there is, for errors."""
    return ", ".join(f"{part.name or 'a layer'} ({_described(part)})" for part in parts) or "no weights"


def _described(part: Part) -> str:
    weights = part.weights
    return describe(weights) if isinstance(weights, (LSTMWeights, GRUWeights, RNNWeights)) else part.kind
