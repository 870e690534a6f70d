"""Models as ONNX files, which run without this package: in onnxruntime, for instance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastlstm.interop.onnx_graph import OnnxGraph, check_opset
from fastlstm.interop.weights import RECURRENT_LAYERS, weights_of
from fastlstm.layers import Layer, TimeLSTM
from fastlstm.models import RNNLM, Model, Seq2seq, SequenceClassifier, SequenceRegressor, SequenceTagger
from fastlstm.models.classifier import PADDING
from fastlstm.ops.device import to_host


def export_onnx(model: Model, path: str | os.PathLike[str], *, opset: int = 17) -> tuple[Path, ...]:
    """Write a model as ONNX, to be run elsewhere; rows N and steps T are free, T at least 1.

    Parameters
    ----------
    model : RNNLM, Seq2seq, SequenceClassifier, SequenceTagger or SequenceRegressor
        Its weights are written as float32.
    path : path
        The file; of a `Seq2seq` the folder in which encoder.onnx and decoder.onnx are put, made if it is not there.
    opset : int
        Version of ONNX's set of operators, 13 or later.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    ImportError
        onnx is not installed.
    TypeError, ValueError
        There is no graph for this kind of model, or no such opset.

    Notes
    -----
    Inputs and outputs by name; ids are int64, numbers float32. Those in brackets need not be given.

    ===================  =====================================================  ======================================
    File                 Inputs                                                 Outputs
    ===================  =====================================================  ======================================
    RNNLM                xs (N, T), [h1, c1, h2, c2 ... (N, H); zeros]          probabilities (N, T, V), next_h1 ...
    SequenceClassifier   xs (N, T), padded with -1, [lengths (N,)]              probabilities (N, C)
    SequenceTagger       xs (N, T), padded with -1, [lengths (N,)]              probabilities (N, T, C), 0 at padding
    SequenceRegressor    xs (N, T, D), or ids (N, T); with a mask_value or ids  outputs (N, K), or (N, T, K) with NaN
                         also [lengths (N,)]                                    at padding
    Seq2seq, encoder     xs (N, S), padded with pad_id                          h1, c1, h2, c2 ... (N, H), and what
                                                                                the decoder needs beside
    Seq2seq, decoder     ts (N, T), and the encoder's outputs by their names    probabilities (N, T, V), next_h1 ...
    ===================  =====================================================  ======================================

    The decoder takes next_h1 as h1, and so on, for the ids that follow. With attention the encoder also returns hs
    (N, S, H) and mask (N, S), in which the steps that count stand first where there is padding; peeky, peek (N, H).
    """
    opset = check_opset(opset)
    if isinstance(model, Seq2seq):
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        graphs = {folder / "encoder.onnx": _encoder(model), folder / "decoder.onnx": _decoder(model)}
    elif isinstance(model, RNNLM):
        graphs = {Path(path): _rnnlm(model)}
    elif isinstance(model, SequenceClassifier):
        graphs = {Path(path): _classifier(model)}
    elif isinstance(model, SequenceTagger):
        graphs = {Path(path): _tagger(model)}
    elif isinstance(model, SequenceRegressor):
        graphs = {Path(path): _regressor(model)}
    else:
        raise TypeError(
            f"model is a {type(model).__name__}, expected an RNNLM, Seq2seq, SequenceClassifier, SequenceTagger or "
            "SequenceRegressor"
        )
    for file, graph in graphs.items():
        graph.write(file, opset)
    return tuple(graphs)


def _rnnlm(model: RNNLM) -> OnnxGraph:
    graph, V = OnnxGraph("RNNLM"), model.options["vocab_size"]
    xs = graph.input("xs", np.int64, ("N", "T"))
    W = graph.constant(to_host(model.layers["embedding"].params[0]))
    out = graph.node("Gather", W, xs)
    N = _rows_of(graph, xs)
    next_states: dict[str, str] = {}
    for depth, layer in enumerate(_recurrent_layers(model), 1):
        H = layer.params[1].shape[0]
        shape = graph.node("Concat", N, graph.constant(np.array([H])), axis=0)
        states = []
        for name in _state_names(layer, depth):
            given = graph.input(name, np.float32, (f"N_{name}", H), default=np.zeros((1, H), np.float32))
            states.append(graph.node("Expand", given, shape))
        out, after = graph.recurrent(out, weights_of(layer), states=states)
        next_states |= zip(_state_names(layer, depth), after, strict=True)
    output = model.layers["output"]
    projection, bias = (to_host(param) for param in output.params)
    tied = model.options["tie_weights"]
    scores = graph.affine(out, graph.node("Transpose", W, perm=[1, 0]) if tied else graph.constant(projection), bias)
    graph.output("probabilities", graph.node("Softmax", scores, axis=-1), np.float32, ("N", "T", V))
    _put_out(graph, next_states, model.options["hidden_size"], "next_")
    return graph


def _classifier(model: SequenceClassifier) -> OnnxGraph:
    graph = OnnxGraph("SequenceClassifier")
    steps, rows = _read_ids(graph)
    W, b = (to_host(param) for param in model.layers["output"].params)
    hs, h = _encoded(graph, model, rows)
    if model.options["pooling"] == "last":
        pooled = h
    else:
        counts = _cast(graph, graph.node("Less", steps, rows.valid), np.float32)
        axis, last = graph.constant(np.array([1])), graph.constant(np.array([2]))
        total = graph.node("ReduceSum", graph.node("Mul", hs, graph.node("Unsqueeze", counts, last)), axis, keepdims=0)
        pooled = graph.node("Div", total, graph.node("Unsqueeze", _cast(graph, rows.lengths, np.float32), axis))
    pooled = graph.node("Mul", pooled, rows.some)
    probabilities = graph.node("Softmax", graph.affine(pooled, graph.constant(W), b), axis=-1)
    graph.output("probabilities", probabilities, np.float32, ("N", model.options["num_classes"]))
    return graph


def _tagger(model: SequenceTagger) -> OnnxGraph:
    graph = OnnxGraph("SequenceTagger")
    _, rows = _read_ids(graph)
    W, b = (to_host(param) for param in model.layers["output"].params)
    hs, _ = _encoded(graph, model, rows)
    probabilities = graph.node("Softmax", graph.affine(hs, graph.constant(W), b), axis=-1)
    zero = graph.constant(np.float32(0))
    there = _in_place(graph, probabilities, rows, zero)
    graph.output("probabilities", there, np.float32, ("N", "T", model.options["num_classes"]))
    return graph


def _regressor(model: SequenceRegressor) -> OnnxGraph:
    graph, options = OnnxGraph("SequenceRegressor"), model.options
    D, K, value = options["input_size"], options["output_size"], options["mask_value"]
    rows: _Rows | None = None
    xs = ""
    if options["vocab_size"] is not None:
        _, rows = _read_ids(graph)
    else:
        xs = graph.input("xs", np.float32, ("N", "T", D))
        if value is not None:
            same = graph.node("Equal", xs, graph.constant(np.float32(value)))
            others = _cast(graph, graph.node("Not", same), np.int64)
            number = graph.node("ReduceSum", others, graph.constant(np.array([2])), keepdims=0)
            mask = graph.node("Greater", number, graph.constant(np.array(0)))
            steps = _steps(graph, mask)
            rows = _steps_that_count_first(
                graph, xs, graph.node("And", mask, _before_end(graph, steps)), steps, ids=False
            )
    hs, h = _encoded(graph, model, rows, xs)
    W, b = (to_host(param) for param in model.layers["output"].params)
    if not options["return_sequences"]:
        if rows is not None:
            h = graph.node("Mul", h, rows.some)
        graph.output("outputs", graph.affine(h, graph.constant(W), b), np.float32, ("N", K))
        return graph
    outputs = graph.affine(hs, graph.constant(W), b)
    if rows is not None:
        outputs = _in_place(graph, outputs, rows, graph.constant(np.float32(np.nan)))
    graph.output("outputs", outputs, np.float32, ("N", "T", K))
    return graph


def _read_ids(graph: OnnxGraph) -> tuple[str, _Rows]:
    """Inputs xs (N, T), padded with -1, and lengths: the numbers of the steps, and the rows to read."""
    xs = graph.input("xs", np.int64, ("N", "T"))
    steps = _steps(graph, xs)
    mask = graph.node("And", _differs(graph, xs, PADDING), _before_end(graph, steps))
    return steps, _steps_that_count_first(graph, xs, mask, steps)


def _before_end(graph: OnnxGraph, steps: str) -> str:
    """Which steps stand before the row's end, by an input lengths (N,) that need not be given."""
    endless = np.array([np.iinfo(np.int64).max])
    lengths = graph.input("lengths", np.int64, ("N_lengths",), default=endless)
    return graph.node("Less", steps, graph.node("Unsqueeze", lengths, graph.constant(np.array([1]))))


def _encoded(graph: OnnxGraph, model: Model, rows: _Rows | None, xs: str = "") -> tuple[str, str]:
    """States (N, T, H) of the top layer of a `SequenceEncoder`, and its last (N, H)."""
    out = xs if rows is None else rows.values
    if "embedding" in model.layers:
        out = graph.node("Gather", graph.constant(to_host(model.layers["embedding"].params[0])), out)
    h = ""
    for layer in model.layers.values():
        if isinstance(layer, RECURRENT_LAYERS):
            out, (h, *_) = graph.recurrent(out, weights_of(layer), lengths="" if rows is None else rows.lengths)
    return out, h


def _in_place(graph: OnnxGraph, values: str, rows: _Rows, padding: str) -> str:
    """Bring values (N, T, K) of rows whose steps that count stand first back to their places, padding elsewhere."""
    number = graph.node("CumSum", _cast(graph, rows.mask, np.int64), graph.constant(np.array(1)))
    place = graph.node("Sub", number, graph.constant(np.array(1)))
    place = graph.node("Max", place, graph.constant(np.array(0)))
    last = graph.constant(np.array([2]))
    there = graph.node("GatherND", values, graph.node("Unsqueeze", place, last), batch_dims=1)
    return graph.node("Where", graph.node("Unsqueeze", rows.mask, last), there, padding)


def _encoder(model: Seq2seq) -> OnnxGraph:
    graph, options = OnnxGraph("Seq2seq encoder"), model.options
    xs = graph.input("xs", np.int64, ("N", "S"))
    if options["reverse_source"]:
        ends = graph.constant(np.array([-1])), graph.constant(np.array([np.iinfo(np.int64).min]))
        axis, stride = graph.constant(np.array([1])), graph.constant(np.array([-1]))
        xs = graph.node("Slice", xs, *ends, axis, stride)
    mask, rows = "", None
    if options["pad_id"] is not None:
        steps = _steps(graph, xs)
        mask = _differs(graph, xs, options["pad_id"])
        rows = _steps_that_count_first(graph, xs, mask, steps)
        xs, mask = rows.values, graph.node("Less", steps, rows.valid)
    out = graph.node("Gather", graph.constant(to_host(model.layers["encoder.embedding"].params[0])), xs)
    states: dict[str, str] = {}
    lengths = "" if rows is None else rows.lengths
    for depth in range(1, options["num_layers"] + 1):
        out, (h, c) = graph.recurrent(out, weights_of(model.layers[f"encoder.lstm{depth}"]), lengths=lengths)
        if rows is not None:  # the state of a row of which no step counts is 0
            h, c = graph.node("Mul", h, rows.some), graph.node("Mul", c, rows.some)
        if not options["pass_cell_state"]:
            c = graph.node("Mul", c, graph.constant(np.float32(0)))
        states |= {f"h{depth}": h, f"c{depth}": c}
    H = _decoder_width(model)
    _put_out(graph, states, H)
    if options["peeky"]:
        graph.output("peek", states[f"h{options['num_layers']}"], np.float32, ("N", H))
    if options["attention"]:
        if rows is None:
            mask = graph.node("GreaterOrEqual", xs, graph.constant(np.array(0)))
        else:
            # Its states weigh the same, all of them 0.
            out = graph.node("Mul", out, graph.node("Unsqueeze", rows.some, graph.constant(np.array([1]))))
        graph.output("hs", out, np.float32, ("N", "S", H))
        graph.output("mask", mask, np.bool_, ("N", "S"))
    return graph


def _decoder(model: Seq2seq) -> OnnxGraph:
    graph, options, H = OnnxGraph("Seq2seq decoder"), model.options, _decoder_width(model)
    ts = graph.input("ts", np.int64, ("N", "T"))
    out = graph.node("Gather", graph.constant(to_host(model.layers["decoder.embedding"].params[0])), ts)
    peek = []
    if options["peeky"]:
        axis = graph.constant(np.array([1]))
        at_every_step = graph.node("Concat", graph.node("Shape", ts), graph.constant(np.array([H])), axis=0)
        given = graph.node("Unsqueeze", graph.input("peek", np.float32, ("N", H)), axis)
        peek = [graph.node("Expand", given, at_every_step)]
    next_states: dict[str, str] = {}
    for depth in range(1, options["num_layers"] + 1):
        layer = model.layers[f"decoder.lstm{depth}"]
        states = [graph.input(name, np.float32, ("N", H)) for name in _state_names(layer, depth)]
        out, after = graph.recurrent(_join(graph, [*peek, out]), weights_of(layer), states=states)
        next_states |= zip(_state_names(layer, depth), after, strict=True)
    context = []
    if options["attention"]:
        hs = graph.input("hs", np.float32, ("N", "S", H))
        mask = graph.node("Unsqueeze", graph.input("mask", np.bool_, ("N", "S")), graph.constant(np.array([1])))
        scores = graph.node("MatMul", out, graph.node("Transpose", hs, perm=[0, 2, 1]))
        # Not minus infinity, of which a row without any step that counts would become NaN.
        least = graph.constant(np.float32(np.finfo(np.float32).min / 2))
        weights = graph.node("Softmax", graph.node("Where", mask, scores, least), axis=-1)
        context = [graph.node("MatMul", weights, hs)]
    W, b = (to_host(param) for param in model.layers["output"].params)
    scores = graph.affine(_join(graph, [*peek, *context, out]), graph.constant(W), b)
    V = options["target_vocab_size"]
    graph.output("probabilities", graph.node("Softmax", scores, axis=-1), np.float32, ("N", "T", V))
    _put_out(graph, next_states, H, "next_")
    return graph


def _decoder_width(model: Seq2seq) -> int:
    return int(model.layers["decoder.lstm1"].params[1].shape[0])


def _recurrent_layers(model: RNNLM) -> list[Layer]:
    return [model.layers[f"{model.options['cell']}{depth}"] for depth in range(1, model.options["num_layers"] + 1)]


def _state_names(layer: Layer, depth: int) -> list[str]:
    return [f"h{depth}", f"c{depth}"] if isinstance(layer, TimeLSTM) else [f"h{depth}"]


def _put_out(graph: OnnxGraph, states: dict[str, str], H: int, prefix: str = "") -> None:
    for name, state in states.items():
        graph.output(f"{prefix}{name}", state, np.float32, ("N", H))


def _join(graph: OnnxGraph, parts: Sequence[str]) -> str:
    """Side by side along the last axis."""
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=-1)


def _cast(graph: OnnxGraph, value: str, dtype: type) -> str:
    from onnx import helper

    return graph.node("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _differs(graph: OnnxGraph, ids: str, value: int) -> str:
    """Where ids (N, T) are not ``value``."""
    return graph.node("Not", graph.node("Equal", ids, graph.constant(np.array(value))))


def _rows_of(graph: OnnxGraph, ids: str) -> str:
    """How many rows ids (N, T) have, (1,)."""
    return graph.node("Gather", graph.node("Shape", ids), graph.constant(np.array([0])))


def _steps(graph: OnnxGraph, ids: str) -> str:
    """The numbers of the steps of ids (N, T), (1, T)."""
    T = graph.node("Gather", graph.node("Shape", ids), graph.constant(np.array(1)))
    numbers = graph.node("Range", graph.constant(np.array(0)), T, graph.constant(np.array(1)))
    return graph.node("Unsqueeze", numbers, graph.constant(np.array([0])))


class _Rows(NamedTuple):
    """Rows whose steps that count stand first.

    values (N, T), or (N, T, D); mask (N, T) where they stood before; valid (N, 1) steps that count, lengths (N,) at
    least 1; some (N, 1), 0 of a row where none does.
    """

    values: str
    mask: str
    valid: str
    lengths: str
    some: str


def _steps_that_count_first(graph: OnnxGraph, values: str, mask: str, steps: str, *, ids: bool = True) -> _Rows:
    """Bring the steps that count to the beginning of each row, in their order: ONNX's operators know lengths alone.

    Where a mask is False a recurrent layer carries its state over, so that its last state does not change, nor the set
    of the states at the steps that count. A row of which none counts is given one, lest a runtime trip over length 0.
    """
    T = graph.node("Gather", graph.node("Shape", mask), graph.constant(np.array([1])))
    at = graph.node("Where", mask, steps, graph.node("Add", steps, T))
    _, order = graph.nodes("TopK", [at, T], 2, axis=1, largest=0, sorted=1)
    count = graph.node("ReduceSum", _cast(graph, mask, np.int64), graph.constant(np.array([1])), keepdims=1)
    at_least_one = graph.node("Max", count, graph.constant(np.array([[1]])))
    lengths = graph.node("Squeeze", _cast(graph, at_least_one, np.int32), graph.constant(np.array([1])))
    some = graph.node("Min", _cast(graph, count, np.float32), graph.constant(np.float32(1)))
    if ids:  # of padding is made an id that an embedding has
        readable = graph.node("Where", mask, values, graph.constant(np.array(0)))
        sorted_values = graph.node("GatherElements", readable, order, axis=1)
    else:
        places = graph.node("Unsqueeze", order, graph.constant(np.array([2])))
        sorted_values = graph.node("GatherND", values, places, batch_dims=1)
    return _Rows(sorted_values, mask, count, lengths, some)
