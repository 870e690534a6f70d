"""The weights of one recurrent layer, with what says how they are used, and other orders and conventions of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm import ops
from fastlstm.contract import DEFAULT_GATE_ORDER, GRU_CONVENTIONS, FloatArray, GRUConvention
from fastlstm.layers import Layer, TimeBidirectional, TimeGRU, TimeLSTM, TimeRNN
from fastlstm.ops.device import to_host

# What weights in a file unpack to is no more times its size; more is made to fill the memory.
UNPACKED_TIMES = 100


class LSTMWeights(NamedTuple):
    """Of one LSTM layer, as `fastlstm.ops.lstm_forward` takes them.

    Attributes
    ----------
    Wx, Wh, b : (D, 4H), (H, 4H), (4H,)
        b is zeros where the source has none, and the sum of both where it has one of inputs and one of states.
    gate_order : str
        In which order the gates stand, a permutation of "ifgo".
    reverse : bool
        It runs from the last step to the first.
    backwards : LSTMWeights or None
        Of a bidirectional layer, the one that runs backwards; its ``reverse`` is True.
    """

    Wx: FloatArray
    Wh: FloatArray
    b: FloatArray
    gate_order: str = DEFAULT_GATE_ORDER
    reverse: bool = False
    backwards: LSTMWeights | None = None


class GRUWeights(NamedTuple):
    """Of one GRU layer, as `fastlstm.ops.gru_forward` takes them.

    Attributes
    ----------
    Wx, Wh : (D, 3H), (H, 3H)
    b : (2, 3H) with ``convention.reset_after``, else (3H,)
        Zeros where the source has none.
    convention : GRUConvention
        The order of the gates, where r is applied, and what z means.
    reverse, backwards
        As of `LSTMWeights`.
    """

    Wx: FloatArray
    Wh: FloatArray
    b: FloatArray
    convention: GRUConvention = GRU_CONVENTIONS["keras"]
    reverse: bool = False
    backwards: GRUWeights | None = None


class RNNWeights(NamedTuple):
    """Of one layer of a tanh RNN, as `fastlstm.ops.rnn_forward` takes them.

    Attributes
    ----------
    Wx, Wh, b : (D, H), (H, H), (H,)
    reverse, backwards
        As of `LSTMWeights`.
    """

    Wx: FloatArray
    Wh: FloatArray
    b: FloatArray
    reverse: bool = False
    backwards: RNNWeights | None = None


ONE_WAY_LAYERS = (TimeLSTM, TimeGRU, TimeRNN)
RECURRENT_LAYERS = (*ONE_WAY_LAYERS, TimeBidirectional)
RecurrentWeights: TypeAlias = LSTMWeights | GRUWeights | RNNWeights


def in_gate_order(weights: LSTMWeights, gate_order: str) -> LSTMWeights:
    """The same LSTM, its gates in another order; its arrays are new ones."""
    Wx, Wh, b = (
        ops.pack_gates(ops.unpack_gates(array, gate_order=weights.gate_order), gate_order=gate_order)
        for array in (weights.Wx, weights.Wh, weights.b)
    )
    backwards = None if weights.backwards is None else in_gate_order(weights.backwards, gate_order)
    return LSTMWeights(Wx, Wh, b, gate_order, weights.reverse, backwards)


def in_convention(weights: GRUWeights, convention: GRUConvention, whose: str = "the other") -> GRUWeights:
    """The same GRU, written down in another convention; its arrays are new ones.

    Raises
    ------
    ValueError
        One applies r before the product with Wh and the other after it: no weights of one compute the other.
    """
    given = weights.convention
    if given.reset_after != convention.reset_after:
        before_after = ("before", "after") if convention.reset_after else ("after", "before")
        raise ValueError(
            f"the GRU applies r {before_after[0]} the product with Wh, {whose} GRU {before_after[1]} it: no weights of "
            "one compute what the other does"
        )

    def rewritten(array: FloatArray) -> FloatArray:
        gates = ops.unpack_gates(array, gate_order=given.gate_order)
        if given.z_keeps != convention.z_keeps:
            gates["z"] = -gates["z"]  # 1 - sigmoid(a) is sigmoid(-a)
        return ops.pack_gates(gates, gate_order=convention.gate_order)

    Wx, Wh, b = (rewritten(array) for array in (weights.Wx, weights.Wh, weights.b))
    backwards = None if weights.backwards is None else in_convention(weights.backwards, convention, whose)
    return GRUWeights(Wx, Wh, b, convention, weights.reverse, backwards)


def weights_of(layer: Layer) -> RecurrentWeights:
    """Of a recurrent layer of `fastlstm.layers` over whole sequences; arrays of the host."""
    if isinstance(layer, TimeBidirectional):
        forwards, backwards = weights_of(layer.forward_layer), weights_of(layer.backward_layer)
        return forwards._replace(backwards=backwards)  # type: ignore[arg-type]
    if not isinstance(layer, ONE_WAY_LAYERS):
        raise TypeError(
            f"{layer!r} is no recurrent layer: expected a TimeLSTM, TimeGRU, TimeRNN, TimeBiLSTM, TimeBiGRU or "
            "TimeBiRNN"
        )
    Wx, Wh, b = (to_host(param) for param in layer.params)
    if isinstance(layer, TimeLSTM):
        return LSTMWeights(Wx, Wh, b, layer.gate_order, layer.reverse)
    if isinstance(layer, TimeGRU):
        named = layer.convention
        return GRUWeights(Wx, Wh, b, GRU_CONVENTIONS[named] if isinstance(named, str) else named, layer.reverse)
    return RNNWeights(Wx, Wh, b, layer.reverse)


def put_into(layer: Layer, weights: RecurrentWeights, source: str) -> list[FloatArray]:
    """What ``layer.params`` would be with these weights, in the layer's own gate order or convention.

    Raises
    ------
    ValueError
        The layer is of another kind, direction or size.
    """
    own = weights_of(layer)
    if type(own) is not type(weights) or own.reverse != weights.reverse or _ways(own) != _ways(weights):
        raise ValueError(f"{source} holds {describe(weights)}, expected {describe(own)}, as the model has it")
    if isinstance(weights, LSTMWeights) and isinstance(own, LSTMWeights):
        weights = in_gate_order(weights, own.gate_order)
    elif isinstance(weights, GRUWeights) and isinstance(own, GRUWeights):
        weights = in_convention(weights, own.convention, "the model's")
    if any(got.shape != want.shape for got, want in zip(_arrays(weights), _arrays(own), strict=True)):
        raise ValueError(f"{source} holds {describe(weights)}, expected {describe(own)}, as the model has it")
    return _arrays(weights)


def describe(weights: RecurrentWeights) -> str:
    """A few words on what kind of layer it is, for errors."""
    kind = type(weights).__name__.removesuffix("Weights")
    direction = "a bidirectional" if weights.backwards is not None else "a reversed" if weights.reverse else "the"
    return f"{direction} {kind} layer with {weights.Wx.shape[0]} inputs and {weights.Wh.shape[0]} hidden units"


def zeros_like_bias(Wx: FloatArray) -> FloatArray:
    """The bias (K,) of a layer with weights Wx (D, K) that has none."""
    return np.zeros(Wx.shape[1], Wx.dtype)


def float_array(name: str, array: Any) -> FloatArray:
    """A float32 or float64 array of anything that holds numbers; half precision becomes float32."""
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} has dtype {array.dtype}, expected floating-point numbers")
    wide: FloatArray = array.astype(np.float32) if array.dtype.itemsize < 4 else array
    return wide


def gates_of(name: str, Wh: FloatArray) -> int:
    """How many gates stand beside each other in Wh (H, kH): 4 of an LSTM, 3 of a GRU, 1 of a tanh RNN."""
    H, width = Wh.shape if Wh.ndim == 2 else (0, 0)
    if not H or width not in (H, 3 * H, 4 * H):
        raise ValueError(
            f"{name} has shape {Wh.shape}, expected (H, 4H) of an LSTM, (H, 3H) of a GRU or (H, H) of a tanh RNN"
        )
    return int(width // H)


def check_fits(name: str, Wx: FloatArray, Wh: FloatArray, *biases: FloatArray) -> None:
    """Raise unless weights Wx (D, K), Wh (H, K) and biases (K,) belong to one layer and have one dtype."""
    shapes = [array.shape for array in (Wx, Wh, *biases)]
    if Wx.ndim != 2 or any(shape[-1:] != Wh.shape[1:] for shape in shapes) or any(b.ndim != 1 for b in biases):
        raise ValueError(f"{name} has arrays of shapes {shapes}, which do not belong to one recurrent layer")
    if len(dtypes := {str(array.dtype) for array in (Wx, Wh, *biases)}) > 1:
        raise ValueError(f"{name} has arrays of the dtypes {', '.join(sorted(dtypes))}, expected one of them")


def _ways(weights: RecurrentWeights) -> int:
    return 1 if weights.backwards is None else 2


def _arrays(weights: RecurrentWeights) -> list[FloatArray]:
    backwards: Sequence[FloatArray] = () if weights.backwards is None else weights.backwards[:3]
    return [*weights[:3], *backwards]
