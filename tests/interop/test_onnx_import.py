"""fastlstm.interop.lstm_from_onnx and its sisters: weights out of a file compute what the file computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import interop, ops
from fastlstm.models import RNNLM

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed")

N, T, D, H = 3, 5, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model_of(operator: str, *, ways: int = 1, bias: bool = True, lengths: bool = False, **attributes: Any) -> Any:
    """A file with one node."""
    rng, G = np.random.default_rng(0), GATES[operator]
    arrays = {
        "W": rng.normal(0, 0.5, (ways, G * H, D)),
        "R": rng.normal(0, 0.5, (ways, G * H, H)),
        **({"B": rng.normal(0, 0.5, (ways, 2 * G * H))} if bias else {}),
    }
    inputs = ["X", "W", "R", "B" if bias else "", "lengths" if lengths else ""]
    outputs = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    node = onnx.helper.make_node(operator, inputs, outputs, name="it", hidden_size=H, **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "graph",
        [value("X", 1, [T, N, D]), *([value("lengths", 6, [N])] if lengths else [])],
        [value(name, 1, None) for name in outputs],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def outputs_of(model: Any, xs: Any, lengths: Any = None) -> list[Any]:
    """Y as (N, T, directions, H), and Y_h, Y_c (directions, N, H)."""
    feeds = {"X": xs.swapaxes(0, 1)} | ({} if lengths is None else {"lengths": lengths.astype(np.int32)})
    try:
        import onnxruntime
    except ImportError:
        if lengths is not None or len(onnx.numpy_helper.to_array(model.graph.initializer[0])) == 2:
            pytest.skip("onnxruntime is not installed")
        from onnx.reference import ReferenceEvaluator

        results: Any = ReferenceEvaluator(model).run(["Y", "Y_h"], feeds)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = session.run(None, feeds)
    Y, *states = results
    return [Y.transpose(2, 0, 1, 3), *states]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm without bias, named activations": ("LSTM", {"bias": False, "activations": ["Sigmoid", "Tanh", "Tanh"]}),
    "lstm in both directions, lengths": ("LSTM", {"ways": 2, "direction": "bidirectional", "lengths": True}),
    "lstm backwards, lengths": ("LSTM", {"direction": "reverse", "lengths": True}),
    "gru": ("GRU", {}),
    "gru, linear before reset": ("GRU", {"linear_before_reset": 1}),
    "gru in both directions": ("GRU", {"ways": 2, "direction": "bidirectional", "linear_before_reset": 1}),
    "rnn": ("RNN", {}),
    "rnn in both directions": ("RNN", {"ways": 2, "direction": "bidirectional"}),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_compute_what_the_node_computes(case: str) -> None:
    operator, options = CASES[case]
    model = model_of(operator, **options)
    xs = np.random.default_rng(1).standard_normal((N, T, D)).astype(np.float32)
    lengths = np.array([5, 3, 1]) if options.get("lengths") else None
    Y, *states = outputs_of(model, xs, lengths)
    read = getattr(interop, f"{operator.lower()}_from_onnx")
    forwards = read(model)
    ways = [forwards] if forwards.backwards is None else [forwards, forwards.backwards]
    assert len(ways) == Y.shape[2]
    for k, weights in enumerate(ways):
        how: dict[str, Any] = {"reverse": weights.reverse, "lengths": lengths}
        if operator != "RNN":
            how |= {"gate_order": weights.gate_order} if operator == "LSTM" else {"convention": weights.convention}
        hs, *last, _ = getattr(ops, f"{operator.lower()}_forward")(xs, *weights[:3], **how)
        if lengths is not None:
            hs = np.where((np.arange(T) < lengths[:, None])[..., None], hs, 0)  # ONNX has zeros behind the end
        np.testing.assert_allclose(hs, Y[:, :, k], atol=1e-5)
        for got, want in zip(last, states, strict=False):
            np.testing.assert_allclose(got, want[k], atol=1e-5)


def test_from_a_file_from_a_node_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lm.onnx"
    model = RNNLM(7, 3, 4, num_layers=2, seed=0)
    interop.export_onnx(model, path)
    with pytest.raises(ValueError, match=r"holds LSTM 'lstm_\d+', LSTM 'lstm_\d+', expected one node LSTM; choose"):
        interop.lstm_from_onnx(path)
    file = onnx.load(path)
    nodes = [node for node in file.graph.node if node.op_type == "LSTM"]
    for depth, node in enumerate(nodes, 1):
        layer: Any = model.layers[f"lstm{depth}"]
        for weights in (interop.lstm_from_onnx(path, name=node.output[0]), interop.lstm_from_onnx(node, graph=file)):
            back = interop.in_gate_order(weights, layer.gate_order)
            for got, want in zip(back[:3], layer.params, strict=True):
                np.testing.assert_array_equal(got, want)


def test_weights_may_be_constants() -> None:
    model = model_of("LSTM")
    want = interop.lstm_from_onnx(model)
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    for got, array in zip(interop.lstm_from_onnx(model)[:3], want[:3], strict=True):
        np.testing.assert_array_equal(got, array)


def test_what_is_no_such_node_or_cannot_be_computed(tmp_path: Path) -> None:
    for change, words in (
        ({"clip": 3.0}, "LSTM 'it' clips its gates at 3.0"),
        ({"input_forget": 1}, "couples input and forget gate"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations sigmoid, relu, tanh, expected sigmoid, tanh, tanh"),
        ({"direction": "bidirectional"}, r"shapes \[\(1, 24, 4\), .*expected \[\(2, 24, 4\)"),
    ):
        with pytest.raises(ValueError, match=words):
            interop.lstm_from_onnx(model_of("LSTM", **change))
    model = model_of("GRU")
    with pytest.raises(ValueError, match="the graph holds GRU 'it', expected one node LSTM$"):
        interop.lstm_from_onnx(model)
    with pytest.raises(ValueError, match="a node has the names of its weights alone; give the graph"):
        interop.gru_from_onnx(model.graph.node[0])
    with pytest.raises(ValueError, match="GRU 'it' was given, expected a node RNN"):
        interop.rnn_from_onnx(model.graph.node[0], graph=model.graph)
    del model.graph.initializer[1]
    with pytest.raises(ValueError, match="GRU 'it': its input R, 'R', is no initializer"):
        interop.gru_from_onnx(model)
    with pytest.raises(TypeError, match="source is .*, expected a path or a ModelProto"):
        interop.gru_from_onnx(3)
    wrong = tmp_path / "a.onnx"
    wrong.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"a\.onnx is no ONNX file"):
        interop.lstm_from_onnx(wrong)
    model = model_of("GRU")
    model.graph.initializer[1].data_type = 0  # undefined
    onnx.save(model, wrong)
    with pytest.raises(ValueError, match=r"a\.onnx"):
        interop.gru_from_onnx(wrong)
    with pytest.raises(FileNotFoundError):
        interop.lstm_from_onnx(tmp_path / "nowhere.onnx")
