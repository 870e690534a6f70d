"""The weights of LSTM, GRU and RNN nodes in ONNX files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm.contract import ONNX_GATE_ORDER, FloatArray
from fastlstm.interop.onnx_graph import onnx_convention, require_onnx
from fastlstm.interop.weights import GRUWeights, LSTMWeights, RNNWeights, float_array
from fastlstm.ops.checks import describe
from fastlstm.tensor_file import regular_file

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def lstm_from_onnx(source: Any, *, name: str | None = None, graph: Any = None) -> LSTMWeights:
    """The weights of an LSTM node.

    Parameters
    ----------
    source : path, onnx.ModelProto, onnx.GraphProto or onnx.NodeProto
        Where the node is; or the node itself, together with ``graph``.
    name : str, optional
        The node's name, or that of one of its outputs; needed where there are several.
    graph : onnx.GraphProto or onnx.ModelProto, optional
        Of a node given by itself: the graph that holds its weights.

    Returns
    -------
    LSTMWeights
        Wx (D, 4H), Wh (H, 4H), b (4H,), gate_order ("iofg"), reverse, backwards: the arguments of
        `fastlstm.ops.lstm_forward`, with ``xs`` batch first. ``b`` is the sum of ONNX's two biases.

    Raises
    ------
    ImportError
        onnx is not installed.
    ValueError
        It is no ONNX, there is no such node, or several; its weights are computed by other nodes; or it does what the
        operators here do not: peepholes, other activations, clipping.
    """
    node, arrays, attributes = _read("LSTM", source, name, graph)
    if attributes.get("input_forget"):
        raise ValueError(f"{_title(node)} couples input and forget gate (input_forget), which the operators do not")
    if len(node.input) > 7 and node.input[7]:
        raise ValueError(f"{_title(node)} has peepholes (input P), which the operators do not have")
    ways = [
        LSTMWeights(W.T.copy(), R.T.copy(), bx + bh, ONNX_GATE_ORDER, _reverse(attributes, k))
        for k, (W, R, bx, bh) in enumerate(arrays)
    ]
    return ways[0] if len(ways) == 1 else ways[0]._replace(backwards=ways[1])


def gru_from_onnx(source: Any, *, name: str | None = None, graph: Any = None) -> GRUWeights:
    """The weights of a GRU node: `lstm_from_onnx`, for `fastlstm.ops.gru_forward`.

    Returns
    -------
    GRUWeights
        Wx (D, 3H), Wh (H, 3H), b, convention, reverse, backwards. The convention has gates "zrn" and z keeps;
        ``reset_after`` is the node's linear_before_reset, with b (2, 3H); without, b (3H,) is the sum of both biases.
    """
    node, arrays, attributes = _read("GRU", source, name, graph)
    reset_after = bool(attributes.get("linear_before_reset", 0))
    convention = onnx_convention(reset_after=reset_after)
    ways = [
        GRUWeights(
            W.T.copy(), R.T.copy(), np.stack([bx, bh]) if reset_after else bx + bh, convention, _reverse(attributes, k)
        )
        for k, (W, R, bx, bh) in enumerate(arrays)
    ]
    return ways[0] if len(ways) == 1 else ways[0]._replace(backwards=ways[1])


def rnn_from_onnx(source: Any, *, name: str | None = None, graph: Any = None) -> RNNWeights:
    """The weights of an RNN node whose activation is tanh: `lstm_from_onnx`, for `fastlstm.ops.rnn_forward`.

    Returns
    -------
    RNNWeights
        Wx (D, H), Wh (H, H), b (H,), reverse, backwards. ``b`` is the sum of ONNX's two biases.
    """
    node, arrays, attributes = _read("RNN", source, name, graph)
    ways = [
        RNNWeights(W.T.copy(), R.T.copy(), bx + bh, _reverse(attributes, k)) for k, (W, R, bx, bh) in enumerate(arrays)
    ]
    return ways[0] if len(ways) == 1 else ways[0]._replace(backwards=ways[1])


def _reverse(attributes: dict[str, Any], way: int) -> bool:
    return way == 1 or attributes.get("direction", b"forward") == b"reverse"


def _read(
    operator: str, source: Any, name: str | None, graph: Any
) -> tuple[Any, list[Sequence[FloatArray]], dict[str, Any]]:
    """What `_read_node` returns; all that is wrong with a file names it."""
    if not isinstance(source, (str, os.PathLike)):
        return _read_node(operator, source, name, graph)
    title = os.fspath(source)
    try:
        return _read_node(operator, source, name, graph)
    except (TypeError, ValueError) as error:
        if str(error).startswith(title):
            raise
        raise ValueError(f"{title}: {error}") from None  # what TypeErrors there are, the file's content makes
    except (AttributeError, LookupError, RuntimeError) as error:  # of parts that are not there
        raise ValueError(f"{title} is no ONNX file, or damaged: {error}") from None


def _read_node(
    operator: str, source: Any, name: str | None, graph: Any
) -> tuple[Any, list[Sequence[FloatArray]], dict[str, Any]]:
    """The node; for each direction W (GH, D), R (GH, H), biases (GH,) of inputs and of states; its attributes."""
    onnx = require_onnx()
    node, graph = _find(operator, source, name, graph)
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    activations = [name.decode().lower() for name in attributes.get("activations", [])]
    wanted = [name.lower() for name in _ACTIVATIONS[operator]]
    if activations not in ([], wanted, 2 * wanted):
        raise ValueError(f"{_title(node)} has the activations {', '.join(activations)}, expected {', '.join(wanted)}")
    if attributes.get("clip"):
        raise ValueError(f"{_title(node)} clips its gates at {attributes['clip']}, which the operators do not")
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    constants = [other for other in graph.node if other.op_type == "Constant" and other.attribute[0].name == "value"]
    tensors |= {other.output[0]: other.attribute[0].t for other in constants}
    given = {name: onnx.numpy_helper.to_array(tensors[name]) for name in node.input if name in tensors}
    W, R = (_array(node, given, k, letter) for k, letter in ((1, "W"), (2, "R")))
    ways = 2 if attributes.get("direction") == b"bidirectional" else 1
    H, D = R.shape[-1], W.shape[-1]
    gates = _GATES[operator] * H
    B = _array(node, given, 3, "B") if len(node.input) > 3 and node.input[3] else np.zeros((ways, 2 * gates), W.dtype)
    shapes, expected = [W.shape, R.shape, B.shape], [(ways, gates, D), (ways, gates, H), (ways, 2 * gates)]
    if shapes != expected:
        raise ValueError(f"{_title(node)} has W, R and B of shapes {shapes}, expected {expected}")
    return node, [(W[k], R[k], *np.split(B[k], 2)) for k in range(ways)], attributes


def _find(operator: str, source: Any, name: str | None, graph: Any) -> tuple[Any, Any]:
    """The node of this operator, and its graph."""
    onnx = require_onnx()
    title = "the graph"
    if isinstance(source, onnx.NodeProto):
        graph = graph.graph if isinstance(graph, onnx.ModelProto) else graph
        if not isinstance(graph, onnx.GraphProto):
            raise ValueError(
                "a node has the names of its weights alone; give the graph that holds them, graph=model.graph"
            )
        if source.op_type != operator:
            raise ValueError(f"{_title(source)} was given, expected a node {operator}")
        return source, graph
    if isinstance(source, (str, os.PathLike)):
        title = os.fspath(source)
        with open(regular_file(source, "one of ONNX"), "rb"):
            pass  # what cannot be read is an OSError, not a broken file
        try:
            source = onnx.load(title)
        except Exception as error:  # protobuf's own
            raise ValueError(f"{title} is no ONNX file: {error}") from None
    if isinstance(source, onnx.ModelProto):
        source = source.graph
    if not isinstance(source, onnx.GraphProto):
        raise TypeError(
            f"source is {describe(source)}, expected a path or a ModelProto, GraphProto or NodeProto of onnx"
        )
    nodes = [node for node in source.node if node.op_type == operator]
    if name is not None:
        nodes = [node for node in nodes if name == node.name or name in node.output]
    if len(nodes) != 1:
        held = [_title(node) for node in source.node if node.op_type in _GATES]
        which = "one node" if name is None else f"one node named {name!r}:"
        raise ValueError(
            f"{title} holds {', '.join(held) or 'no recurrent nodes'}, expected {which} {operator}"
            + ("; choose one with name=" if len(nodes) > 1 else "")
        )
    return nodes[0], source


def _array(node: Any, given: dict[str, Any], index: int, letter: str) -> FloatArray:
    if node.input[index] not in given:
        raise ValueError(f"{_title(node)}: its input {letter}, {node.input[index]!r}, is no initializer or constant")
    return float_array(f"{letter} of {_title(node)}", given[node.input[index]])


def _title(node: Any) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
