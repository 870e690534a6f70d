"""A graph of ONNX as it is written: nodes one after the other, constants, inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastlstm
from fastlstm.contract import GRU_CONVENTIONS, ONNX_GATE_ORDER, Array, FloatArray, GRUConvention
from fastlstm.interop.weights import GRUWeights, LSTMWeights, RecurrentWeights, in_convention, in_gate_order

FIRST_OPSET = 13  # the axes of Squeeze and ReduceSum are inputs from there on

# A dimension is a number, or the letter that stands for any.
Shape = Sequence[int | str]


def require_onnx() -> Any:
    """The module onnx; raises an error that says what to install."""
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX files need the package onnx: pip install fastlstm[onnx]") from None
    return onnx


class OnnxGraph:
    """Collects a graph and writes it to a file. Values are named by strings; an empty one is an input left out."""

    def __init__(self, name: str) -> None:
        self._onnx = require_onnx()
        self._name = name
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def constant(self, array: Any, name: str = "") -> str:
        """An array that stands in the file; float64 is rounded to float32, which is what runtimes compute in."""
        array = np.asarray(array)
        array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else array.dtype)
        name = name or self._new_name("constant")
        self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def input(self, name: str, dtype: Any, shape: Shape, *, default: Array | None = None) -> str:
        """An input of the graph; one with a default value need not be given."""
        self._inputs.append(self._value(name, dtype, shape))
        return name if default is None else self.constant(default, name)

    def output(self, name: str, value: str, dtype: Any, shape: Shape) -> None:
        """An output of the graph."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, dtype, shape))

    def _value(self, name: str, dtype: Any, shape: Shape) -> Any:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def _new_name(self, word: str) -> str:
        self._count += 1
        return f"{word.lower()}_{self._count}"

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its output."""
        return self.nodes(operator, inputs, 1, **attributes)[0]

    def nodes(self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Append a node and return its outputs."""
        names = [self._new_name(operator) for _ in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def affine(self, x: str, W: str, b: FloatArray) -> str:
        """x (..., D) @ W (D, K) + b (K,)."""
        return self.node("Add", self.node("MatMul", x, W), self.constant(b))

    def recurrent(
        self, xs: str, weights: RecurrentWeights, *, states: Sequence[str] = (), lengths: str = ""
    ) -> tuple[str, list[str]]:
        """A recurrent layer over xs (N, T, D) -> hs (N, T, H), and h, of an LSTM h and c, (N, H).

        Parameters
        ----------
        states : h, of an LSTM h and c, (N, H)
            Of a layer in one direction; zeros unless given.
        lengths : (N,) int32
            How many steps of each row count.

        Notes
        -----
        Both directions of a bidirectional layer stand side by side in hs and in the states: H counts both.
        """
        operator, arrays, attributes = onnx_arrays(weights)
        W, R, B = (self.constant(array) for array in arrays)
        first = [self.node("Unsqueeze", state, self.constant(np.array([0]))) for state in states]
        inputs = [self.node("Transpose", xs, perm=[1, 0, 2]), W, R, B, lengths, *first]
        Y, *last = self.nodes(operator, inputs, 3 if operator == "LSTM" else 2, **attributes)
        H = len(arrays[0]) * attributes["hidden_size"]
        by_rows = self.node("Transpose", Y, perm=[2, 0, 1, 3])
        hs = self.node("Reshape", by_rows, self.constant(np.array([0, 0, H])))
        shape = self.constant(np.array([-1, H]))
        return hs, [self.node("Reshape", self.node("Transpose", state, perm=[1, 0, 2]), shape) for state in last]

    def write(self, path: str | os.PathLike[str], opset: int) -> None:
        """Check the graph and write the file."""
        helper, checker = self._onnx.helper, self._onnx.checker
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        versions = [helper.make_opsetid("", opset)]
        model = helper.make_model(
            graph,
            opset_imports=versions,
            ir_version=helper.find_min_ir_version_for(versions),
            producer_name="fastlstm",
            producer_version=fastlstm.__version__,
        )
        checker.check_model(model)
        self._onnx.save(model, os.fspath(path))


def check_opset(opset: Any) -> int:
    """The opset; raises unless the graphs can be written in it."""
    last = require_onnx().defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, (int, np.integer)) or not FIRST_OPSET <= opset <= last:
        raise ValueError(f"opset is {opset!r}, expected {FIRST_OPSET} to {last}, the latest the installed onnx knows")
    return int(opset)


def onnx_arrays(weights: RecurrentWeights) -> tuple[str, tuple[FloatArray, ...], dict[str, Any]]:
    """Operator, inputs W (K, GH, D), R (K, GH, H) and B (K, 2GH), and attributes; K directions, G gates."""
    attributes: dict[str, Any] = {"hidden_size": weights.Wh.shape[0]}
    if isinstance(weights, LSTMWeights):
        weights = in_gate_order(weights, ONNX_GATE_ORDER)
    elif isinstance(weights, GRUWeights):
        reset_after = weights.convention.reset_after
        weights = in_convention(weights, onnx_convention(reset_after=reset_after), "ONNX's")
        attributes["linear_before_reset"] = int(reset_after)
    attributes["direction"] = (
        "bidirectional" if weights.backwards is not None else "reverse" if weights.reverse else "forward"
    )
    ways: list[RecurrentWeights] = [weights]
    if weights.backwards is not None:
        ways.append(weights.backwards)
    W, R = np.stack([one.Wx.T for one in ways]), np.stack([one.Wh.T for one in ways])
    # Two biases follow each other; the second, of the states, is 0 where there is one alone.
    B = np.stack([one.b.ravel() if one.b.ndim == 2 else np.concatenate([one.b, 0 * one.b]) for one in ways])
    return type(weights).__name__.removesuffix("Weights"), (W, R, B), attributes


def onnx_convention(*, reset_after: bool) -> GRUConvention:
    """How ONNX writes a GRU: gates z, r, h; z keeps; ``linear_before_reset`` is ``reset_after``."""
    return GRU_CONVENTIONS["keras"]._replace(reset_after=reset_after)
