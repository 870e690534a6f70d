"""Independent oracles: PyTorch's autograd and optimisers, ONNX's reference evaluator. In float64, on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import cases
import numpy as np
import pytest
import recurrent_cases

from fastlstm import ops, use_backend
from fastlstm.contract import TOLERANCE, FloatArray
from fastlstm.testing import Case, run_case


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnx", reason="ONNX is not installed: pip install onnx")
    import onnx.reference

    return onnx


def assert_close(got: Any, want: Any, name: str) -> None:
    """Within the contract's tolerance for float64."""
    want = np.asarray(want)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE["float64"] * scale, err_msg=name)


def by_name(all_cases: list[Case], *names: str) -> list[Case]:
    chosen = [case for case in all_cases if case.name in names]
    assert len(chosen) == len(names)
    return chosen


# --------------------------------------------------------------------------------------------
# Recurrent networks against torch.nn
# --------------------------------------------------------------------------------------------

_PLAIN = ("ones", "H17", "H64", "H100", "one-row", "reverse")


def _torch_recurrent(torch: Any, case: Case) -> dict[str, Any]:
    """Results and gradients of a case from torch.nn.LSTM, GRU or RNN, both its biases summed to b but for the GRU's.

    Rows with lengths go through pack_padded_sequence; a reversed sequence is the second half of a bidirectional
    network whose first half is thrown away.
    """
    inputs = {name: torch.tensor(v) for name, v in case.inputs.items() if isinstance(v, np.ndarray)}
    xs, Wx, Wh, b = (inputs[name].requires_grad_() for name in ("xs", "Wx", "Wh", "b"))
    N, T, D = xs.shape
    H = Wh.shape[0]
    reverse = case.inputs.get("reverse", False)
    lstm = case.op == "lstm_forward"
    kind = {"lstm_forward": torch.nn.LSTM, "gru_forward": torch.nn.GRU, "rnn_forward": torch.nn.RNN}[case.op]
    net = kind(D, H, batch_first=True, bidirectional=reverse, dtype=torch.float64)
    suffix = "_l0_reverse" if reverse else "_l0"
    of_inputs, of_state = b if b.ndim == 2 else (b, torch.zeros_like(b))
    weights = {
        "weight_ih" + suffix: Wx.T,
        "weight_hh" + suffix: Wh.T,
        "bias_ih" + suffix: of_inputs,
        "bias_hh" + suffix: of_state,
    }
    states = [inputs[name].requires_grad_() for name in (("h0", "c0") if lstm else ("h0",))]
    directions = [torch.stack([torch.zeros_like(s), s]) if reverse else s[None] for s in states]
    lengths = inputs.get("lengths")
    packed = xs
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
    hs, last = torch.func.functional_call(net, weights, (packed, tuple(directions) if lstm else directions[0]))
    if lengths is not None:
        hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True, total_length=T)
    outputs = {"hs": hs[..., -H:], "h_n": (last[0] if lstm else last)[-1]}
    if lstm:
        outputs["c_n"] = last[1][-1]
    loss = sum((outputs[name[1:]] * torch.tensor(grad)).sum() for name, grad in case.upstream.items())
    loss.backward()
    varied = {"xs": xs, "Wx": Wx, "Wh": Wh, "b": b, **dict(zip(("h0", "c0"), states, strict=False))}
    return {name: v.detach().numpy() for name, v in outputs.items()} | {
        "d" + name: v.grad.numpy() for name, v in varied.items()
    }


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    "case",
    [
        *by_name(recurrent_cases.LSTM, *_PLAIN),
        *by_name(recurrent_cases.GRU, *(f"{name}-pytorch" for name in _PLAIN)),
        *by_name(recurrent_cases.RNN, *_PLAIN),
    ],
    ids=str,
)
def test_recurrent_network_agrees_with_torch(backend: str, case: Case, torch: Any) -> None:
    with use_backend(backend):
        got = run_case(case)
    for name, want in _torch_recurrent(torch, case).items():
        assert_close(got[name], want, name)


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", ["lengths", "lengths-reverse"])
@pytest.mark.parametrize("of", ["lstm", "gru", "rnn"])
def test_lengths_agree_with_torch_packed_sequences(backend: str, of: str, name: str, torch: Any) -> None:
    of_kind = {"lstm": recurrent_cases.LSTM, "gru": recurrent_cases.GRU, "rnn": recurrent_cases.RNN}[of]
    (case,) = by_name(of_kind, f"{name}-pytorch" if of == "gru" else name)
    T = case.inputs["xs"].shape[1]
    lengths = np.maximum(case.inputs["lengths"], 1)  # torch knows no empty rows
    valid = (np.arange(T) < lengths[:, None])[..., None]
    # torch leaves zeros in the padding of hs, fastlstm the last state: compare, and weigh, the valid steps.
    upstream = {**case.upstream, "dhs": case.upstream["dhs"] * valid}
    case = Case(case.name, case.op, {**case.inputs, "lengths": lengths}, upstream)
    with use_backend(backend):
        got = run_case(case)
    got["hs"] = got["hs"] * valid
    for result, want in _torch_recurrent(torch, case).items():
        assert_close(got[result], want, result)


# --------------------------------------------------------------------------------------------
# Recurrent networks against ONNX's reference evaluator
# --------------------------------------------------------------------------------------------


def _onnx_run(
    onnx: Any, op: str, inputs: dict[str, Any], outputs: list[str], hidden_size: int, **options: int
) -> list[FloatArray]:
    make, double = onnx.helper, onnx.TensorProto.DOUBLE
    node = make.make_node(op, list(inputs), outputs, hidden_size=hidden_size, **options)
    values = [make.make_tensor_value_info(name, double, None) for name in inputs if name]
    results = [make.make_tensor_value_info(name, double, None) for name in outputs]
    model = make.make_model(make.make_graph([node], "g", values, results), opset_imports=[make.make_opsetid("", 14)])
    session = onnx.reference.ReferenceEvaluator(model)
    return list(session.run(None, {name: v for name, v in inputs.items() if name}))


@pytest.mark.needs_onnx
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("of", ["lstm", "rnn"])
def test_forward_agrees_with_onnx(backend: str, of: str, reverse: bool, onnx: Any) -> None:
    (case,) = by_name(recurrent_cases.LSTM if of == "lstm" else recurrent_cases.RNN, "H33")
    options = {"gate_order": "iofg"} if of == "lstm" else {}
    case = Case(case.name, case.op, {**case.inputs, "reverse": reverse, **options}, case.upstream)
    with use_backend(backend):
        got = run_case(case)
    a = case.inputs
    steps_first = a["xs"].swapaxes(0, 1)
    inputs = {
        "X": steps_first[::-1] if reverse else steps_first,
        "W": a["Wx"].T[None],
        "R": a["Wh"].T[None],
        "B": np.concatenate([a["b"], np.zeros_like(a["b"])])[None],
        "": None,
        "initial_h": a["h0"][None],
    }
    if of == "lstm":
        inputs["initial_c"] = a["c0"][None]
    # Not Y_c: the evaluator has it since onnx 1.23 only. torch checks c_n above.
    hs, h_n = _onnx_run(onnx, of.upper(), inputs, ["Y", "Y_h"], a["Wh"].shape[0])
    hs = hs[:, 0].swapaxes(0, 1)
    assert_close(got["hs"], hs[:, ::-1] if reverse else hs, "hs")
    assert_close(got["h_n"], h_n[0], "h_n")


@pytest.mark.needs_onnx
@pytest.mark.parametrize("convention", ["book", "keras"])
def test_gru_forward_agrees_with_onnx(backend: str, convention: str, onnx: Any) -> None:
    (case,) = by_name(recurrent_cases.GRU, "H33" if convention == "book" else "H33-keras")
    with use_backend(backend):
        got = run_case(case)
    a = case.inputs
    H = a["Wh"].shape[0]
    W, R, B = a["Wx"].copy(), a["Wh"].copy(), np.concatenate(a["b"] if convention == "keras" else (a["b"], 0 * a["b"]))
    if convention == "book":  # ONNX's z is the share of h_prev, the book's that of the candidate: sigmoid(-a) is 1 - it
        for weights in (W, R, B):
            weights[..., :H] *= -1
    inputs = {
        "X": a["xs"].swapaxes(0, 1),
        "W": W.T[None],
        "R": R.T[None],
        "B": B[None],
        "": None,
        "initial_h": a["h0"][None],
    }
    linear = int(convention == "keras")
    hs, h_n = _onnx_run(onnx, "GRU", inputs, ["Y", "Y_h"], H, linear_before_reset=linear)
    assert_close(got["hs"], hs[:, 0].swapaxes(0, 1), "hs")
    assert_close(got["h_n"], h_n[0], "h_n")


# --------------------------------------------------------------------------------------------
# Embedding and losses against torch.nn.functional
# --------------------------------------------------------------------------------------------


@pytest.mark.needs_torch
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_embedding_agrees_with_torch(backend: str, padding_idx: int | None, torch: Any) -> None:
    (case,) = (c for c in cases.EMBEDDING if str(c) == "embedding_backward-many-rows")
    ids, dout, V = case.inputs["ids"], case.inputs["dout"], case.inputs["num_embeddings"]
    W = torch.randn(V, dout.shape[-1], dtype=torch.float64, requires_grad=True)
    out = torch.nn.functional.embedding(torch.tensor(ids), W, padding_idx=padding_idx)
    (out * torch.tensor(dout)).sum().backward()
    with use_backend(backend):
        assert_close(ops.embedding_forward(W.detach().numpy(), ids), out.detach(), "out")
        assert_close(ops.embedding_backward(ids, dout, V, padding_idx=padding_idx), W.grad, "dW")


@pytest.mark.needs_torch
@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("name", ["V17", "batch", "ignore-0", "ignore-minus-100", "sum", "no-bias"])
def test_cross_entropy_agrees_with_torch(backend: str, name: str, memory: str, torch: Any) -> None:
    (case,) = (c for c in cases.LOSSES if str(c) == f"linear_cross_entropy-{name}-{memory}")
    given = {k: case.inputs[k] for k in ("h", "W", "b") if case.inputs[k] is not None}
    leaves = {k: torch.tensor(array, requires_grad=True) for k, array in given.items()}
    targets = case.inputs["targets"]
    options = {k: case.inputs[k] for k in ("ignore_index", "reduction") if k in case.inputs}
    logits = leaves["h"] @ leaves["W"] + leaves.get("b", 0.0)
    logits.retain_grad()
    flat = logits.reshape(-1, logits.shape[-1])
    loss = torch.nn.functional.cross_entropy(flat, torch.tensor(targets.reshape(-1)), **options)
    loss.backward()
    with use_backend(backend):
        plain = ops.softmax_cross_entropy(logits.detach().numpy(), targets, **options)
        fused = run_case(case)
    assert_close(plain.loss, loss.item(), "loss")
    assert_close(plain.dlogits, logits.grad, "dlogits")
    assert_close(fused["loss"], loss.item(), "loss")
    for k, leaf in leaves.items():
        assert_close(fused["d" + k], leaf.grad, "d" + k)


# --------------------------------------------------------------------------------------------
# Optimisers against torch.optim: five steps from zero state
# --------------------------------------------------------------------------------------------

Step = Callable[[FloatArray, FloatArray, Mapping[str, FloatArray], int], None]
_LR, _B1, _B2, _EPS = 0.05, 0.8, 0.95, 1e-3


def _hat(step: int) -> float:
    """The eps that makes our Adam PyTorch's: ours is added before the bias correction, PyTorch's after it."""
    return _EPS * math.sqrt(1 - _B2**step)


_OPTIMIZERS: dict[str, tuple[str, dict[str, Any], Step]] = {
    "sgd": ("SGD", {}, lambda p, g, s, t: ops.sgd_update(p, g, _LR)),
    "momentum": ("SGD", {"momentum": 0.8}, lambda p, g, s, t: ops.momentum_update(p, g, s["m"], _LR, momentum=0.8)),
    "nesterov": (
        "SGD",
        {"momentum": 0.8, "nesterov": True},
        lambda p, g, s, t: ops.nesterov_update(p, g, s["m"], _LR, momentum=0.8),
    ),
    "adagrad": ("Adagrad", {"eps": _EPS}, lambda p, g, s, t: ops.adagrad_update(p, g, s["v"], _LR, eps=_EPS)),
    "rmsprop": (
        "RMSprop",
        {"alpha": 0.9, "eps": _EPS},
        lambda p, g, s, t: ops.rmsprop_update(p, g, s["v"], _LR, decay=0.9, eps=_EPS),
    ),
    "adam": (
        "Adam",
        {"betas": (_B1, _B2), "eps": _EPS},
        lambda p, g, s, t: ops.adam_update(p, g, s["m"], s["v"], _LR, step=t, beta1=_B1, beta2=_B2, eps=_hat(t)),
    ),
    "adamw": (
        "AdamW",
        {"betas": (_B1, _B2), "eps": _EPS, "weight_decay": 0.1},
        lambda p, g, s, t: ops.adamw_update(
            p, g, s["m"], s["v"], _LR, step=t, beta1=_B1, beta2=_B2, eps=_hat(t), weight_decay=0.1
        ),
    ),
}


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_optimizer_agrees_with_torch(backend: str, name: str, torch: Any) -> None:
    torch_name, options, step = _OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    param = rng.standard_normal((7, 17))
    state = {"m": np.zeros_like(param), "v": np.zeros_like(param)}
    theirs = torch.tensor(param, requires_grad=True)
    optimizer = getattr(torch.optim, torch_name)([theirs], lr=_LR, **options)
    with use_backend(backend):
        for t in range(1, 6):
            grad = rng.standard_normal(param.shape)
            theirs.grad = torch.tensor(grad)
            optimizer.step()
            step(param, grad, state, t)
    assert_close(param, theirs.detach(), name)


@pytest.mark.needs_torch
@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clip_grad_norm_agrees_with_torch(backend: str, max_norm: float, torch: Any) -> None:
    grads = [np.random.default_rng(k).standard_normal((3, 5 + k)) for k in range(4)]
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for parameter, grad in zip(theirs, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    with use_backend(backend):
        assert ops.clip_grad_norm(grads, max_norm) == pytest.approx(want.item(), rel=1e-12)
    for parameter, grad in zip(theirs, grads, strict=True):
        assert_close(grad, parameter.grad, "grad")


@pytest.mark.needs_torch
def test_clip_grad_value_agrees_with_torch(backend: str, torch: Any) -> None:
    grad = np.random.default_rng(0).standard_normal((3, 50))
    grad[1, 3:6] = np.nan, np.inf, -np.inf
    theirs = torch.zeros(grad.shape, dtype=torch.float64, requires_grad=True)
    theirs.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_value_(theirs, 0.4)
    with use_backend(backend):
        ops.clip_grad_value(grad, 0.4)
    np.testing.assert_array_equal(grad, theirs.grad.numpy())
