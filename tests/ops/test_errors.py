"""Bad input: one clear error each, which says what came and what was expected, and nothing is changed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest

import fastlstm
from fastlstm import BackendNotAvailable, ops, use_backend
from fastlstm.backends import why_not
from fastlstm.contract import GRUConvention, PaddedRowGrad, RowGrad
from fastlstm.ops.device import to_device, to_host

N, T, D, H, V, E = 2, 3, 4, 5, 7, 6


class OnDevice:
    """What an array on a GPU looks like to the checks."""

    __cuda_array_interface__ = None


class OnGpu(OnDevice):
    """An array of CuPy, as far as the checks look before they ask whether the backend runs."""

    def __init__(self, array: Any, number: int = 0) -> None:
        self.shape, self.dtype, self.ndim, self.flags = array.shape, array.dtype, array.ndim, array.flags
        self.device = SimpleNamespace(id=number)


def floats(*shape: int) -> Any:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _right() -> dict[str, dict[str, Any]]:
    """A right call of every operator; each wrong one differs from it in the arguments named."""
    recurrent = {"xs": floats(N, T, D), "h0": floats(N, H)}
    lstm_weights = {"Wx": floats(D, 4 * H), "Wh": floats(H, 4 * H), "b": floats(4 * H)}
    cell = {"x": floats(N, D), "h_prev": floats(N, H), "c_prev": floats(N, H), **lstm_weights}
    lstm = {**recurrent, **lstm_weights, "c0": floats(N, H)}
    gru = {**recurrent, "Wx": floats(D, 3 * H), "Wh": floats(H, 3 * H), "b": floats(3 * H)}
    rnn = {**recurrent, "Wx": floats(D, H), "Wh": floats(H, H), "b": floats(H)}
    gru_cell, rnn_cell = ({"x": floats(N, D), "h_prev": floats(N, H), **_weights_of(given)} for given in (gru, rnn))
    ids = np.array([[1, 2, 1], [0, 6, 3]])
    targets = np.array([1, -1, 2])
    update = {"params": floats(V, E), "grads": floats(V, E), "lr": 0.1}
    velocities = {"velocities": floats(V, E)}
    accumulators = {"accumulators": floats(V, E)}
    moments = {"m": floats(V, E), "v": floats(V, E), "step": 1}
    return {
        "lstm_cell_forward": cell,
        "lstm_cell_backward": {"dh": floats(N, H), "dc": floats(N, H), "tape": ops.lstm_cell_forward(**cell).tape},
        "gru_cell_forward": gru_cell,
        "gru_cell_backward": {"dh": floats(N, H), "tape": ops.gru_cell_forward(**gru_cell).tape},
        "rnn_cell_forward": rnn_cell,
        "rnn_cell_backward": {"dh": floats(N, H), "tape": ops.rnn_cell_forward(**rnn_cell).tape},
        "lstm_forward": lstm,
        "lstm_backward": {"dhs": floats(N, T, H), "tape": ops.lstm_forward(**lstm).tape},
        "gru_forward": gru,
        "gru_backward": {"dhs": floats(N, T, H), "tape": ops.gru_forward(**gru).tape},
        "rnn_forward": rnn,
        "rnn_backward": {"dhs": floats(N, T, H), "tape": ops.rnn_forward(**rnn).tape},
        "prepare_lstm": lstm_weights,
        "prepare_gru": _weights_of(gru),
        "prepare_rnn": _weights_of(rnn),
        "prepare_dense": {"W": floats(H, V), "b": floats(V)},
        "embedding_forward": {"W": floats(V, E), "ids": ids},
        "embedding_backward": {"ids": ids, "dout": floats(2, 3, E), "num_embeddings": V, "out": floats(V, E)},
        "embedding_backward_rows": {"ids": ids, "dout": floats(2, 3, E)},
        "scatter_add": {"target": floats(V, E), "ids": ids, "rows": floats(2, 3, E)},
        "log_uniform_candidates": {"num_sampled": 2, "range_max": V, "true_classes": ids, "seed": 1},
        "matrix_product": {"a": floats(3, H), "b": floats(H, V), "bias": floats(V), "out": floats(3, V)},
        "batched_product": {"a": floats(N, 3, H), "b": floats(N, H, V)},
        "softmax": {"logits": floats(3, V), "out": floats(3, V)},
        "sigmoid_cross_entropy": {"logits": floats(2, 3), "labels": floats(2, 3)},
        "mean_squared_error": {"y": floats(2, 3), "t": floats(2, 3)},
        "softmax_cross_entropy": {"logits": floats(3, V), "targets": targets},
        "linear_cross_entropy": {"h": floats(3, H), "W": floats(H, V), "b": floats(V), "targets": targets},
        "dropout_mask": {"xs": floats(2, 3), "ratio": 0.5, "seed": 1},
        "subsample": {"ids": np.array([1, -1, 6]), "keep": floats(V), "seed": 1},
        "skipgram_counts": {"ids": np.array([1, -1, 6]), "window": 2, "seed": 1},
        "skipgram_pairs": {"ids": np.array([1, -1, 6]), "window": 2, "seed": 1},
        "negative_sampling_update": {
            "vectors": floats(V, E),
            "weights": floats(V, E),
            "centers": np.array([0, 6]),
            "contexts": np.array([3, 3]),
            "table": ops.UnigramTable(np.arange(V)),
            "lr": 0.1,
            "seed": 1,
        },
        "cbow_update": {
            "vectors": floats(V, E),
            "weights": floats(V, E),
            "centers": np.array([0, 6]),
            "contexts": np.array([3, 3, 1]),
            "counts": np.array([1, 2]),
            "table": ops.UnigramTable(np.arange(V)),
            "lr": 0.1,
            "seed": 1,
        },
        "sgd_update": update,
        "momentum_update": {**update, **velocities},
        "nesterov_update": {**update, **velocities},
        "adagrad_update": {**update, **accumulators},
        "rmsprop_update": {**update, **accumulators},
        "adam_update": {**update, **moments},
        "adamw_update": {**update, **moments},
        "global_norm": {"grads": floats(V, E)},
        "clip_grad_norm": {"grads": floats(V, E), "max_norm": 1.0},
        "clip_grad_value": {"grads": floats(V, E), "limit": 1.0},
        "pack_gates": {"gates": {gate: floats(D, H) for gate in "ifgo"}},
        "unpack_gates": {"W": floats(D, 4 * H)},
        "clip_scale": {"norm": 2.0, "max_norm": 1.0},
    }


def _weights_of(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in ("Wx", "Wh", "b")}


class Wrong(NamedTuple):
    op: str
    wrong: dict[str, Any]
    error: type[Exception]
    message: str
    """A regular expression."""


def _wrong_destinations() -> Iterator[Wrong]:
    """Of ``out``, ``accumulate`` and ``without``."""
    op, right = "linear_cross_entropy", _right()["linear_cross_entropy"]
    for without in ("dh", ("dh", "dx"), None, 5):
        expected = rf"without is {re.escape(repr(without))}, expected a tuple of names among loss, dh, dW, db"
        yield Wrong(op, {"without": without}, ValueError, expected)
    yield Wrong(op, {"accumulate": True}, ValueError, "accumulate is given without out")
    for out in ({"dh": floats(3, H)}, floats(3, H), True):
        yield Wrong(
            op, {"out": out}, TypeError, "(?s)out is .*expected an object with the fields loss, dh, dW, db, for"
        )
    h, W, b = right["h"], right["W"], right["b"]
    wide = np.zeros((H, V))
    unaligned: Any = np.ndarray(V, np.float32, bytearray(4 * V + 1), offset=1)
    for name, array, error, message in (
        ("dh", 0.0, TypeError, r"out\.dh is float 0\.0; .*array, which is changed in place"),
        ("dh", floats(3, H + 1), ValueError, r"out\.dh has shape \(3, 6\), expected \(3, 5\) = the shape of dh"),
        ("dW", floats(V, H), ValueError, r"out\.dW has shape \(7, 5\), expected \(5, 7\)"),
        ("db", floats(1, V), ValueError, r"out\.db has shape \(1, 7\), expected \(7,\)"),
        ("dW", wide, TypeError, r"out\.dW has dtype float64, but h has float32; .*create it as numpy\.float32$"),
        ("dh", floats(H, 3).T, ValueError, r"out\.dh is not C-contiguous"),
        ("dW", floats(H, 2 * V)[:, ::2], ValueError, r"out\.dW is not C-contiguous"),
        ("dW", read_only(floats(V, H)).T, ValueError, r"out\.dW is read-only"),
        ("db", unaligned, ValueError, r"out\.db is not aligned to its items"),
        ("db", OnDevice(), TypeError, r"h is on the host but out\.db is on a GPU"),
        ("dh", h, ValueError, r"out\.dh overlaps h; results need arrays of their own"),
        ("dW", W, ValueError, r"out\.dW overlaps W"),
        ("db", b, ValueError, r"out\.db overlaps b"),
    ):
        # What is wrong with one array leaves those unwritten that come before it.
        out = SimpleNamespace(**{"dh": floats(3, H), "dW": None, name: array})
        yield Wrong(op, {"h": h, "W": W, "b": b, "out": out}, error, message)
    memory = floats(H * V + V)
    shared = SimpleNamespace(dW=memory[: H * V].reshape(H, V), db=memory[H * V - 1 : -1])
    yield Wrong(op, {"out": shared, "accumulate": True}, ValueError, r"out\.dW overlaps out\.db")


def _wrong_recurrent_destinations() -> Iterator[Wrong]:
    """What the arrays may not overlap, the tape knows; the rest is as above."""
    for cell in ("lstm", "gru", "rnn"):
        op, right = f"{cell}_backward", _right()[f"{cell}_backward"]
        inputs = right["tape"].inputs
        yield Wrong(op, {"accumulate": True}, ValueError, "accumulate is given without out")
        for without in (("dx",), None, 5):
            expected = rf"without is {re.escape(repr(without))}, expected .* among dxs, dWx, dWh, db, dh0"
            yield Wrong(op, {"without": without}, ValueError, expected)
        yield Wrong(op, {"out": [1]}, TypeError, "out is list .*with the fields dxs, dWx, dWh, db, dh0")
        for name, array, error, message in (
            ("dxs", inputs["xs"], ValueError, r"out\.dxs overlaps xs; results need arrays of their own"),
            ("dWh", inputs["Wh"], ValueError, r"out\.dWh overlaps Wh"),
            ("dWx", inputs["Wx"], ValueError, r"out\.dWx overlaps Wx"),
            ("db", inputs["b"], ValueError, r"out\.db overlaps b"),
            ("dh0", inputs["h0"], ValueError, r"out\.dh0 overlaps h0"),
            (
                "dxs",
                floats(T, N, D),
                ValueError,
                r"out\.dxs has shape \(3, 2, 4\), expected \(2, 3, 4\) = the shape of",
            ),
            ("dxs", floats(N, T, 2 * D)[..., ::2], ValueError, r"out\.dxs is not C-contiguous"),
            ("db", np.zeros(inputs["b"].shape), TypeError, r"out\.db has dtype float64, but the tape has float32"),
            ("dWh", read_only(np.zeros_like(inputs["Wh"])), ValueError, r"out\.dWh is read-only"),
            ("dWx", OnDevice(), TypeError, r"out\.dWx is .*OnDevice on a GPU; expected a CuPy array"),
        ):
            yield Wrong(op, {**right, "out": SimpleNamespace(**{name: array})}, error, message)
        dhs = right["dhs"]
        if dhs.shape == inputs["xs"].shape:
            yield Wrong(op, {"out": SimpleNamespace(dxs=dhs)}, ValueError, r"out\.dxs overlaps dhs")
    tape = _right()["lstm_cell_backward"]["tape"]
    out = SimpleNamespace(dh_prev=tape.inputs["h_prev"])
    yield Wrong("lstm_cell_backward", {"tape": tape, "out": out}, ValueError, r"out\.dh_prev overlaps h_prev")


def _wrong_prepared_weights() -> Iterator[Wrong]:
    right = _right()
    none = {"Wh": None, "b": None, "training": False}
    for cell in ("lstm", "gru", "rnn"):
        op, prepare = f"{cell}_forward", getattr(ops, f"prepare_{cell}")
        weights = right[f"prepare_{cell}"]
        prepared = {"Wx": prepare(**weights), **none}
        beside = r"is an array of shape .*, but Wx is prepared weights, which stand for all three"
        yield Wrong(op, {**prepared, "Wh": weights["Wh"]}, TypeError, f"Wh {beside}")
        yield Wrong(op, {**prepared, "b": weights["b"]}, TypeError, f"b {beside}")
        yield Wrong(op, {**prepared, "training": True}, ValueError, "training is True, but prepared weights have no")
        wide = {name: array.astype(np.float64) for name, array in right[op].items()}
        wide = {name: array for name, array in wide.items() if name not in weights}
        yield Wrong(op, {**wide, **prepared}, TypeError, "xs has dtype float64, but the prepared weights have float32")
        xs = floats(N, T, D + 1)
        yield Wrong(op, {**prepared, "xs": xs}, ValueError, "xs has 5 columns, expected 4, which the weights were prep")
        yield Wrong(op, {**prepared, "precision": "bf16"}, ValueError, "precision is 'bf16', but the weights were prep")
        yield Wrong(
            op,
            {**prepared, "xs": OnGpu(floats(N, T, D)), "h0": None, "c0": None}
            if cell == "lstm"
            else {**prepared, "xs": OnGpu(floats(N, T, D)), "h0": None},
            TypeError,
            "xs and the prepared weights live in two places",
        )
        of_cell = {"Wx": prepare(**weights), "Wh": None, "b": None}
        says = f"Wx is prepared weights of {cell}, which this operator does not take; give it Wx, Wh and b"
        yield Wrong(f"{cell}_cell_forward", of_cell, TypeError, says)
        no_Wx = {**weights, "Wx": None}
        xs = floats(N, T, len(weights["b"]) + 1)
        expected = f"xs has {len(weights['b']) + 1} columns, expected {len(weights['b'])}"
        yield Wrong(op, {**prepared, "Wx": prepare(**no_Wx), "xs": xs}, ValueError, expected)
    dense = {"b": ops.prepare_dense(**right["prepare_dense"]), "bias": None, "out": None}
    says = r"bias is an array of shape \(7,\), float32, but b is prepared weights, which stand for both"
    yield Wrong("matrix_product", {**dense, "bias": floats(V)}, TypeError, says)
    a = floats(3, H)
    says = "a has dtype float64, but the prepared weights have float32"
    yield Wrong("matrix_product", {**dense, "a": a.astype(np.float64)}, TypeError, says)
    yield Wrong(
        "matrix_product", {**dense, "a": floats(3, H + 1)}, ValueError, "a has 6 columns, expected 5, which the"
    )
    yield Wrong("matrix_product", {**dense, "a": OnGpu(a)}, TypeError, "a and the prepared weights live in two places")
    yield Wrong(
        "matrix_product", {**dense, "precision": "bf16"}, ValueError, "precision is 'bf16', but the weights were"
    )
    yield Wrong(
        "matrix_product", {**dense, "out": floats(3, V + 1)}, ValueError, r"out has shape .*, expected \(3, 7\)"
    )
    yield Wrong("matrix_product", {**dense, "out": read_only(floats(3, V))}, ValueError, "out is read-only")
    square = floats(5, 5)
    kept = ops.prepare_dense(square)
    yield Wrong("matrix_product", {**dense, "b": kept, "a": square, "out": square}, ValueError, "out overlaps a")
    of_rnn = ops.prepare_rnn(**right["prepare_rnn"])
    yield Wrong("matrix_product", {**dense, "b": of_rnn}, ValueError, r"of rnn; expected those of ops\.prepare_dense")
    yield Wrong("prepare_dense", {"b": floats(V + 1)}, ValueError, r"b has shape \(8,\), expected \(7,\) for W with")
    other = ops.prepare_rnn(**right["prepare_rnn"])
    yield Wrong(
        "lstm_forward",
        {**none, "Wx": other},
        ValueError,
        r"Wx is prepared weights of rnn; expected those of ops\.prepare_lstm",
    )
    ours = ops.prepare_lstm(**right["prepare_lstm"])
    wrong = {**none, "Wx": ours, "gate_order": "fgio"}
    yield Wrong("lstm_forward", wrong, ValueError, "gate_order is 'fgio', but the weights were prepared for 'ifgo'")
    message = "precision is array.*, but the weights were prepared for 'float32'"
    yield Wrong("lstm_forward", {**none, "Wx": ours, "precision": np.zeros(3)}, ValueError, message)


def _rows(indices: Any, values: Any) -> RowGrad:
    return RowGrad(np.asarray(indices), values)


def _wrong() -> Iterator[Wrong]:
    cell_tape = ops.lstm_cell_forward(**_right()["lstm_cell_forward"]).tape
    rnn_tape = ops.rnn_forward(**_right()["rnn_forward"]).tape

    # Not an array, another dtype, another number of axes: for every operator by its first array.
    for op, arguments in _right().items():
        for name, value in arguments.items():
            if not isinstance(value, np.ndarray):
                continue
            masked = np.ma.masked_array(value, value == value.flat[0])
            says = rf"{name} is a masked array, whose mask .* pass {name}\.data .* mask="
            yield Wrong(op, {name: masked}, TypeError, says)
            if value.dtype.kind == "f":
                sequence = name in {"params", "grads", "velocities", "accumulators", "m", "v"}
                expected = "a sequence of arrays" if sequence else "a numpy or CuPy array"
                yield Wrong(op, {name: 1.5}, TypeError, rf"{name} is float 1\.5; expected .*{expected}")
                yield Wrong(
                    op, {name: value.astype(np.float16)}, TypeError, f"{name} has dtype float16, expected float32 or"
                )
                yield Wrong(
                    op, {name: value.astype(np.int64)}, TypeError, f"{name} has dtype int64, expected float32 or"
                )
                yield Wrong(
                    op, {name: value.astype(">f4")}, TypeError, f"{name} has dtype >f4, expected float32 or float64"
                )
            else:
                yield Wrong(op, {name: value.tolist()}, TypeError, f"{name} is list .*expected a numpy or CuPy array")
                yield Wrong(
                    op, {name: value.astype(np.int16)}, TypeError, f"{name} has dtype int16, expected int32 or int64"
                )
                yield Wrong(
                    op, {name: value.astype(float)}, TypeError, f"{name} has dtype float64, expected int32 or int64"
                )
    # What is read is converted; a copy of what is changed would take the change with it.
    mixed = "has dtype float64, but {} has float32; .*: "
    for op, name, other in (
        ("lstm_forward", "Wx", "xs"),
        ("lstm_forward", "h0", "xs"),
        ("lstm_backward", "dhs", "the tape"),
        ("lstm_backward", "dc_n", "the tape"),
        ("gru_forward", "Wh", "xs"),
        ("gru_backward", "dhs", "the tape"),
        ("rnn_forward", "b", "xs"),
        ("lstm_cell_forward", "c_prev", "x"),
        ("lstm_cell_backward", "dc", "the tape"),
        ("scatter_add", "rows", "target"),
        ("matrix_product", "bias", "a"),
        ("linear_cross_entropy", "W", "h"),
        ("linear_cross_entropy", "b", "h"),
        ("batched_product", "b", "a"),
        ("sigmoid_cross_entropy", "labels", "logits"),
        ("mean_squared_error", "t", "y"),
        ("sgd_update", "grads", "params"),
    ):
        array = {**_right()[op], "dc_n": floats(N, H)}[name]
        says = f"{name} {mixed.format(other)}convert it with {name}.astype"
        yield Wrong(op, {name: array.astype(np.float64)}, TypeError, says)
    for op, name, other in (
        ("embedding_backward", "out", "dout"),
        ("matrix_product", "out", "a"),
        ("softmax", "out", "logits"),
        ("adam_update", "v", "params"),
        ("negative_sampling_update", "weights", "vectors"),
    ):
        says = f"{name} {mixed.format(other)}it is changed in place, so create it as numpy.float32$"
        yield Wrong(op, {name: _right()[op][name].astype(np.float64)}, TypeError, says)
    for op, name in (("scatter_add", "target"), ("clip_grad_norm", "grads"), ("adam_update", "params")):
        says = f"{name} has dtype float16, .*in place, so create it as numpy.float32$"
        yield Wrong(op, {name: _right()[op][name].astype(np.float16)}, TypeError, says)
    for op, name in (("scatter_add", "target"), ("matrix_product", "out")):
        says = f"{name} is list .*array, which is changed in place$"
        yield Wrong(op, {name: _right()[op][name].tolist()}, TypeError, says)

    # Lists of arrays: of time steps, or of rows.
    for op, name in (("lstm_forward", "xs"), ("gru_backward", "dhs"), ("rnn_forward", "xs")):
        steps = [*_right()[op][name].swapaxes(0, 1)]
        says = (
            rf"{name} is list of 3, the first an array of shape \(2, \d\), float32; .*stack\({name}, axis=1\) of time"
        )
        yield Wrong(op, {name: steps}, TypeError, says)

    # Ids that a conversion would change.
    for op, name in (("embedding_forward", "ids"), ("softmax_cross_entropy", "targets"), ("subsample", "ids")):
        array = _right()[op][name]
        for dtype, value in ((np.uint64, 2**64 - 1), (np.float64, 1.5), (np.float32, np.nan)):
            wrong: Any = np.zeros_like(array, dtype)
            wrong.flat[1] = value
            says = rf"{name} has dtype {wrong.dtype}, expected int32 or int64; it holds {re.escape(str(value))}, which"
            yield Wrong(op, {name: wrong}, TypeError, says)
        says = rf"{name} has dtype uint64, expected int32 or int64; convert it with {name}\.astype"
        yield Wrong(op, {name: np.zeros_like(array, np.uint64)}, TypeError, says)

    # Word vectors.
    op = "negative_sampling_update"
    yield Wrong(op, {"weights": floats(V, E + 1)}, ValueError, r"weights has shape \(7, 7\), expected \(7, 6\)")
    yield Wrong(op, {"vectors": floats(V)}, ValueError, r"vectors has shape \(7,\), expected 2 axes")
    buffer = np.zeros((V, E))
    ids = buffer.reshape(-1).view(np.int64)[:2]
    for name in ("centers", "contexts"):
        overlap = {"vectors": np.ones((V, E)), "weights": np.ones((V, E)), name: ids}
        yield Wrong(op, {**overlap, "vectors": buffer}, ValueError, f"vectors overlaps {name}")
        yield Wrong(op, {**overlap, "weights": buffer}, ValueError, f"weights overlaps {name}")
    rows = floats(V + 1, E)
    halves = {"vectors": rows[:V], "weights": rows[1:]}
    yield Wrong(op, halves, ValueError, "vectors and weights share memory")
    shared = floats(V, E)
    yield Wrong(op, {"vectors": shared, "weights": shared}, ValueError, "vectors and weights share memory")
    yield Wrong(op, {"vectors": read_only(floats(V, E))}, ValueError, "vectors is read-only")
    yield Wrong(op, {"weights": floats(E, V).T}, ValueError, "weights is not C-contiguous")
    yield Wrong(op, {"table": np.ones(V)}, TypeError, "table is an array .*expected a UnigramTable")
    yield Wrong(op, {"table": ops.UnigramTable(np.ones(3))}, ValueError, "table has 3 classes, expected 7 = V")
    yield Wrong(op, {"centers": np.array([0, 7])}, IndexError, "centers holds 7, expected ids from 0 to 6")
    yield Wrong(op, {"contexts": np.array([0, -1])}, IndexError, "contexts holds -1, expected ids from 0 to 6")
    yield Wrong(op, {"contexts": np.array([0])}, ValueError, r"contexts has shape \(1,\), expected \(2,\)")
    yield Wrong(op, {"num_sampled": 0}, ValueError, "num_sampled is 0, expected at least 1")
    yield Wrong(op, {"lr": np.nan}, ValueError, "lr is nan, expected a finite number")
    op = "cbow_update"
    yield Wrong(op, {"centers": np.array([0, 7])}, IndexError, "centers holds 7, expected ids from 0 to 6")
    yield Wrong(op, {"contexts": np.array([0, 7, 1])}, IndexError, "contexts holds 7, expected ids from 0 to 6")
    yield Wrong(
        op, {"counts": np.array([0, 3])}, ValueError, "counts holds 0, expected at least 1; leave words without"
    )
    yield Wrong(op, {"counts": np.array([3])}, ValueError, r"counts has shape \(1,\), expected \(2,\)")
    yield Wrong(op, {"counts": np.array([2, 2])}, ValueError, "counts says 4 contexts in all, but contexts has 3")
    yield Wrong(op, {"counts": np.array([2**62, 2**62])}, ValueError, f"counts says {2**63} contexts")
    yield Wrong(op, {"table": np.ones(V)}, TypeError, "table is an array .*expected a UnigramTable")
    yield Wrong("subsample", {"ids": np.array([7])}, IndexError, "ids holds 7, expected at most 6")
    yield Wrong("subsample", {"ids": np.array([[1]])}, ValueError, r"ids has shape \(1, 1\), expected \(L,\)")
    for op in ("skipgram_counts", "skipgram_pairs"):
        yield Wrong(op, {"window": 0}, ValueError, "window is 0, expected at least 1")
        yield Wrong(op, {"start": 2, "stop": 1}, ValueError, "start is 2 and stop 1, expected 0 <= start <= stop <= 3")
        yield Wrong(op, {"stop": 4}, ValueError, "stop 4, expected 0 <= start <= stop <= 3 for a text of 3 ids")
        yield Wrong(op, {"seed": 2**64}, ValueError, r"seed is 18446744073709551616, expected less than 2\^64")

    # Shapes of recurrent networks.
    for op, G, letters, hint in (
        ("lstm_forward", 4 * H, "4H", r"bias_ih \+ bias_hh"),
        ("gru_forward", 3 * H, "3H", "Two biases need convention='pytorch' or 'keras'"),
        ("rnn_forward", H, "H", r"bias_ih \+ bias_hh"),
    ):
        yield Wrong(op, {"xs": floats(T, D)}, ValueError, r"xs has shape \(3, 4\), expected 3 axes")
        yield Wrong(
            op,
            {"Wx": floats(G, D)},
            ValueError,
            rf"Wx has shape \({G}, 4\), expected \(4, {G}\) = \(D, {letters}\) for D = 4, H = 5\. .*weight_ih needs",
        )
        for shape in ((2 * G,), (2, G)):
            message = rf"b has shape {re.escape(str(shape))}, expected \({G},\) .*{hint}"
            yield Wrong(op, {"b": floats(*shape)}, ValueError, message)
        for shape in ((G, 1), (1, G)):
            message = rf"b has shape {re.escape(str(shape))}, expected \({G},\) .*Use b\.reshape\(-1\)$"
            yield Wrong(op, {"b": floats(*shape)}, ValueError, message)
        yield Wrong(
            op,
            {"h0": floats(H, N)},
            ValueError,
            r"h0 has shape \(5, 2\), expected \(2, 5\) for N = 2, H = 5\. .*use h0\.T",
        )
        yield Wrong(op, {"h0": floats(1, N, H)}, ValueError, r"h0 has shape \(1, 2, 5\), expected 2 axes")
        yield Wrong(op, {"mask": np.ones((N, T + 1))}, ValueError, r"mask has shape \(2, 4\), expected \(2, 3\)")
        yield Wrong(op, {"mask": np.ones((T, N))}, ValueError, r"Theano's masks are \(T, N\): use \.T")
        yield Wrong(op, {"mask": np.full((N, T), 0.5)}, ValueError, "mask has values other than 0 and 1")
        yield Wrong(op, {"mask": [[1, 1, 1]] * N}, TypeError, "mask is list")
        yield Wrong(op, {"lengths": [1, 2]}, TypeError, "lengths is list")
        yield Wrong(op, {"lengths": np.ones(N)}, TypeError, "lengths has dtype float64, expected integers")
        yield Wrong(op, {"lengths": np.array([1])}, ValueError, r"lengths has shape \(1,\), expected \(2,\) for N = 2")
        yield Wrong(
            op, {"lengths": np.array([1, 4])}, ValueError, "lengths has values from 1 to 4, expected 0 to T = 3"
        )
        yield Wrong(op, {"lengths": np.array([-1, 3])}, ValueError, "lengths has values from -1 to 3")
        both = {"lengths": np.array([1, 2]), "mask": np.ones((N, T))}
        yield Wrong(op, both, ValueError, "both mask and lengths are given")
        yield Wrong(op, {"Wh": OnDevice()}, TypeError, "xs is on the host but Wh is on a GPU")
    yield Wrong(
        "lstm_forward",
        {"Wh": floats(4 * H, H)},
        ValueError,
        r"Wh has shape \(20, 5\), expected \(5, 20\) = \(H, 4H\) for H = 5\. Gates lie along the last axis; "
        r"PyTorch's weight_hh needs \.T",
    )
    yield Wrong("rnn_forward", {"Wh": floats(H, 4 * H)}, ValueError, r"Wh has shape \(5, 20\), expected \(5, 5\)")
    no_input = {"xs": floats(N, T, 0), "Wx": floats(0, 4 * H)}
    yield Wrong("lstm_forward", no_input, ValueError, "D = 0 and H = 5: both must be at least 1")
    yield Wrong("lstm_forward", {"c0": floats(N, H + 1)}, ValueError, r"c0 has shape \(2, 6\), expected \(2, 5\)")
    for order in ("ifg", "ifgg", "IFGO", None, ["i", "f", "g", "o"]):
        yield Wrong("lstm_forward", {"gate_order": order}, ValueError, "gate_order is .*a permutation of 'ifgo'")
    # Weights and inputs that are left out or lie in another order.
    for op, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        letters = f"{gates}H" if gates > 1 else "H"
        for name, x in (("forward", "xs"), ("cell_forward", "x")):
            yield Wrong(
                f"{op}_{name}",
                {"Wx": None},
                ValueError,
                rf"^{x} has 4 columns, expected {gates * H} = {letters} for H = 5: without Wx it is what x Wx would be",
            )
        yield Wrong(f"{op}_forward", {"Wh": None}, TypeError, r"Wh is NoneType None; expected a numpy or CuPy array")
        by_time = {"xs": floats(T, N, D), "time_major": True}
        yield Wrong(
            f"{op}_forward",
            {**by_time, "mask": np.ones((N, T), bool)},
            ValueError,
            r"mask has shape \(2, 3\), expected \(3, 2\) for N = 2, T = 3\. Time comes first in it, as in xs: use \.T",
        )
        of_time = getattr(ops, f"{op}_forward")(**{**_right()[f"{op}_forward"], **by_time}).tape
        yield Wrong(
            f"{op}_backward",
            {"tape": of_time},
            ValueError,
            r"dhs has shape \(2, 3, 5\), expected \(3, 2, 5\) = \(T, N, H\) of the forward call",
        )
    for wrong_order in ("zr", "zzn", 5):
        for op in ("gru_forward", "gru_cell_forward"):
            yield Wrong(
                op,
                {"convention": GRUConvention(cast("str", wrong_order), False, False)},
                ValueError,
                rf"gate_order of convention is {wrong_order!r}, expected a permutation of 'zrn'",
            )
    yield Wrong("lstm_cell_forward", {"gate_order": "ifoc"}, ValueError, "gate_order is 'ifoc'")
    yield Wrong(
        "lstm_forward",
        {"recurrent_activation": "relu"},
        ValueError,
        "recurrent_activation is 'relu', expected one of 'sigmoid', 'hard_sigmoid'",
    )
    for convention in ("theano", None):
        expected = f"convention is {convention!r}, expected one of 'book', 'pytorch', 'keras'"
        yield Wrong("gru_forward", {"convention": convention}, ValueError, expected)
    for convention in ("pytorch", "keras"):
        expected = r"b has shape \(15,\), expected \(2, 15\) = \(2, 3H\) for H = 5: .*stack\(\[bias_ih, bias_hh\]\)"
        yield Wrong("gru_forward", {"convention": convention}, ValueError, expected)
    yield Wrong(
        "lstm_cell_forward", {"c_prev": floats(N, 1)}, ValueError, r"c_prev has shape \(2, 1\), expected \(2, 5\)"
    )
    columns = r"Wx has shape \(4, 20\), expected \(2, 20\) .*D is the last axis of x: inputs in columns need \.T"
    yield Wrong("lstm_cell_forward", {"x": floats(D, N)}, ValueError, columns)
    yield Wrong("lstm_cell_backward", {"dh": floats(N, 1)}, ValueError, r"dh has shape \(2, 1\), expected \(2, 5\)")

    # Tapes and upstream gradients.
    for op in ("lstm_backward", "gru_backward", "rnn_backward"):
        forward = op.replace("backward", "forward")
        yield Wrong(op, {"tape": None}, TypeError, f"tape is None; call {forward} with training=True")
        yield Wrong(op, {"tape": "tape"}, TypeError, f"tape is str 'tape'; expected the tape that {forward} returned")
        yield Wrong(
            op, {"tape": cell_tape}, ValueError, f"tape was made by lstm_cell_forward; expected one of {forward}"
        )
        yield Wrong(op, {"dhs": floats(T, N, H)}, ValueError, r"dhs has shape \(3, 2, 5\), expected \(2, 3, 5\)")
        yield Wrong(op, {"dh_n": floats(H)}, ValueError, r"dh_n has shape \(5,\), expected 2 axes")
    yield Wrong("lstm_cell_backward", {"tape": rnn_tape}, ValueError, "tape was made by rnn_forward")
    yield Wrong("lstm_backward", {"dc_n": floats(H, N)}, ValueError, r"dc_n has shape \(5, 2\), expected \(2, 5\)")

    # Embedding.
    too_large, negative = np.array([[0, V]]), np.array([[0, -1]])
    rows = floats(1, 2, E)
    for op, change in (
        ("embedding_forward", {}),
        ("embedding_backward", {"dout": rows}),
        ("scatter_add", {"rows": rows}),
    ):
        yield Wrong(op, {"ids": too_large, **change}, IndexError, r"ids holds 7, expected ids from 0 to 6 \(.*= 7")
        yield Wrong(
            op, {"ids": negative, **change}, IndexError, "ids holds -1, .*negative ids do not count from the end"
        )
    yield Wrong(
        "embedding_backward_rows", {"ids": negative, "dout": rows}, IndexError, "ids holds -1, expected ids from 0;"
    )
    yield Wrong("embedding_forward", {"W": floats(E)}, ValueError, r"W has shape \(6,\), expected 2 axes")
    yield Wrong(
        "embedding_forward", {"W": floats(0, E)}, ValueError, r"W has shape \(0, 6\) = \(V, E\): both must be at least"
    )
    message = "padded is True, but dout is on the host, .*known without waiting; leave padded out"
    yield Wrong("embedding_backward_rows", {"padded": True}, ValueError, message)
    for rng in (None, 0):
        message = f"rng is .*{rng}; expected a numpy Generator such as"
        yield Wrong("log_uniform_candidates", {"seed": None, "rng": rng}, TypeError, message)
    for op in ("embedding_backward", "embedding_backward_rows"):
        yield Wrong(
            op, {"dout": floats(3, 2, E)}, ValueError, r"dout has shape \(3, 2, 6\), expected \(2, 3\) \+ \(E,\)"
        )
        yield Wrong(op, {"dout": floats(2, 3, 0)}, ValueError, r"dout has shape \(2, 3, 0\): E must be at least 1")
    yield Wrong("embedding_backward", {"num_embeddings": 0}, ValueError, "num_embeddings is 0, expected at least 1")
    yield Wrong(
        "embedding_backward", {"num_embeddings": 7.0}, TypeError, r"num_embeddings is float 7\.0, expected a whole"
    )
    yield Wrong("embedding_backward", {"padding_idx": V}, IndexError, "padding_idx is 7, expected 0 to 6")
    yield Wrong("embedding_backward", {"padding_idx": -1}, IndexError, "padding_idx is -1, .*do not count from the end")
    yield Wrong(
        "embedding_backward", {"out": floats(V, E + 1)}, ValueError, r"out has shape \(7, 7\), expected \(7, 6\)"
    )
    yield Wrong(
        "embedding_backward", {"out": read_only(floats(V, E))}, ValueError, "out is read-only, but is changed in place"
    )
    no_copy = "out is not C-contiguous, but is changed in place; .* a change of a copy would be lost$"
    yield Wrong("embedding_backward", {"out": floats(E, V).T}, ValueError, no_copy)
    for touched, error, message in (
        (np.array([0, V]), IndexError, r"touched holds 7, expected ids from 0 to 6 \(num_embeddings = 7\)"),
        (np.array([[-1]]), IndexError, "touched holds -1, .*negative ids do not count from the end"),
        (np.array([0.0]), TypeError, "touched has dtype float64, expected int32 or int64"),
        ([0], TypeError, "touched is list .*expected a numpy or CuPy array"),
        (OnDevice(), TypeError, "dout is on the host but touched is on a GPU"),
    ):
        yield Wrong("embedding_backward", {"touched": touched}, error, message)
    alone = {"touched": np.array([0]), "out": None}
    yield Wrong("embedding_backward", alone, ValueError, "touched is given without out")
    yield Wrong(
        "embedding_backward",
        {"touched": np.array([0]), "accumulate": True},
        ValueError,
        "accumulate is given with touched, whose rows of out would be zeroed",
    )
    yield Wrong(
        "embedding_backward", {"out": None, "accumulate": True}, ValueError, "accumulate is given without out, to which"
    )
    one = floats(V, E)
    overlap = {"ids": np.arange(V), "dout": one, "out": one}
    yield Wrong("embedding_backward", overlap, ValueError, "out overlaps dout")
    # Ids that are overwritten would be read as places outside of the array.
    buffer = np.zeros((V, E))
    ids = buffer.reshape(-1).view(np.int64)[:3]
    overlap = {"ids": ids, "dout": np.zeros((3, E)), "out": buffer}
    yield Wrong("embedding_backward", overlap, ValueError, "out overlaps ids")
    yield Wrong(
        "embedding_backward",
        {"ids": np.arange(3), "dout": np.zeros((3, E)), "out": buffer, "touched": ids},
        ValueError,
        "out overlaps touched",
    )
    overlap = {"target": buffer, "ids": ids, "rows": np.zeros((3, E))}
    yield Wrong("scatter_add", overlap, ValueError, "target overlaps ids")
    yield Wrong(
        "scatter_add", {"target": read_only(floats(V, E))}, ValueError, "target is read-only, but is changed in place"
    )
    yield Wrong("scatter_add", {"target": floats(V, 2 * E)[:, ::2]}, ValueError, "target is not C-contiguous")
    unaligned: Any = np.ndarray((V, E), np.float32, bytearray(4 * V * E + 1), offset=1)
    yield Wrong(
        "scatter_add", {"target": unaligned}, ValueError, "target is not aligned to its items, but is changed in"
    )
    yield Wrong(
        "scatter_add", {"target": np.array(1.0)}, ValueError, r"target has shape \(\), expected at least one axis"
    )
    yield Wrong(
        "scatter_add", {"rows": floats(2, 3, 1)}, ValueError, r"rows has shape \(2, 3, 1\), expected \(2, 3, 6\)"
    )

    # Places and precisions.
    for op in ("lstm_cell_forward", "lstm_forward", "rnn_forward"):
        arrays = {name: value for name, value in _right()[op].items() if isinstance(value, np.ndarray)}
        on_gpu = {name: OnGpu(value) for name, value in arrays.items()}
        yield Wrong(op, {**on_gpu, "b": OnDevice()}, TypeError, r"b is .*OnDevice on a GPU; expected a CuPy array")
        elsewhere = {**on_gpu, "b": OnGpu(arrays["b"], 1)}
        yield Wrong(op, elsewhere, ValueError, "is on GPU 0 but b is on GPU 1; all arrays of one call live on one GPU")
        yield Wrong(
            op, {"precision": "fp8"}, ValueError, "precision is 'fp8', expected one of 'float32', 'float64', 'tf32'"
        )
        yield Wrong(
            op, {"precision": "float64"}, ValueError, "precision is 'float64', but the arrays have dtype float32"
        )
        in_float64 = {name: value.astype(np.float64) for name, value in arrays.items()}
        has = "precision is 'bf16', but the arrays have dtype float64; 'tf32' and 'bf16' are precisions of products of"
        yield Wrong(op, {**in_float64, "precision": "bf16"}, ValueError, has)
    recurrent = [f"{family}_{kind}" for family in ("lstm", "gru", "rnn") for kind in ("forward", "cell_forward")]
    for op in (*recurrent, "matrix_product", "batched_product", "linear_cross_entropy"):
        has = "precision is 'tf32', but the arrays are on the host, where products are 'float32' or 'bf16';"
        yield Wrong(op, {"precision": "tf32"}, ValueError, has)
    no_floats: dict[str, Any] = {"a": np.ones((3, H)), "b": np.ones((H, V)), "bias": None, "out": None}
    yield Wrong(
        "matrix_product",
        {**no_floats, "precision": "bf16"},
        ValueError,
        "precision is 'bf16', but the arrays have dtype float64",
    )
    for op, name in (("lstm_cell_backward", "dh"), ("lstm_backward", "dhs"), ("rnn_backward", "dhs")):
        away = {name: OnGpu(_right()[op][name])}
        yield Wrong(op, away, TypeError, f"{name} is on GPU 0, but the arrays of the forward call were on the host")

    # Losses.
    yield Wrong(
        "matrix_product", {"b": floats(H + 1, V)}, ValueError, r"b has shape \(.*, expected \(.*, L\) for a with shape"
    )
    for b in (floats(N, H + 1, V), floats(N + 1, H, V)):
        yield Wrong("batched_product", {"b": b}, ValueError, r"b has shape .*, expected \(2, 5, L\) for a with shape")
    yield Wrong("batched_product", {"a": floats(3, H)}, ValueError, r"a has shape \(3, 5\), expected 3 axes")
    yield Wrong("matrix_product", {"bias": floats(V + 1)}, ValueError, "bias has shape")
    yield Wrong("matrix_product", {"out": floats(3, V + 1)}, ValueError, "out has shape")
    yield Wrong("matrix_product", {"out": read_only(floats(3, V))}, ValueError, "out is read-only")
    square = floats(4, 4)
    for name in ("a", "b"):
        apart = {"a": floats(4, 4), "b": floats(4, 4), "bias": floats(4)}
        yield Wrong("matrix_product", {**apart, name: square, "out": square}, ValueError, f"out overlaps {name}")
    yield Wrong("matrix_product", {**apart, "bias": square[1], "out": square}, ValueError, "out overlaps bias")
    for op in ("softmax_cross_entropy", "linear_cross_entropy"):
        yield Wrong(
            op, {"targets": np.array([0, V, 1])}, IndexError, r"targets holds 7, expected 0 to 6 .*ignore_index = -1"
        )
        yield Wrong(op, {"targets": np.array([0, -2, 1])}, IndexError, "targets holds -2, expected 0 to 6")
        yield Wrong(op, {"targets": np.array([0, 1])}, ValueError, r"targets has shape \(2,\), expected \(3,\)")
        yield Wrong(op, {"targets": np.eye(3, V, dtype=int)}, ValueError, r"One-hot targets are not taken; .*argmax")
        yield Wrong(
            op, {"targets": np.array([[1], [0], [2]])}, ValueError, r"A column of targets needs .*\[\.\.\., 0\]"
        )
        yield Wrong(op, {"targets": np.array([1, -1, 2], np.int32), "ignore_index": 2**32 - 1}, IndexError, "holds -1")
        yield Wrong(op, {"ignore_index": 0.0}, TypeError, r"ignore_index is float 0\.0, expected a whole number")
    yield Wrong(
        "softmax_cross_entropy",
        {"logits": floats(3, 0)},
        ValueError,
        r"logits has shape \(3, 0\), expected \(\.\.\., V\)",
    )
    yield Wrong(
        "linear_cross_entropy", {"h": floats(3, 0)}, ValueError, r"h has shape \(3, 0\), expected \(\.\.\., H\)"
    )
    yield Wrong(
        "linear_cross_entropy", {"W": floats(V, H)}, ValueError, r"W has shape \(7, 5\), expected \(5, 7\) .*needs \.T"
    )
    yield Wrong(
        "linear_cross_entropy",
        {"b": floats(1, V)},
        ValueError,
        r"b has shape \(1, 7\), expected 1 axes; .*reshape\(-1\)",
    )
    yield Wrong("linear_cross_entropy", {"b": floats(0)}, ValueError, r"b has shape \(0,\): V must be at least 1")
    for W, message in (
        (floats(H, 0), r"W has shape \(5, 0\): V must be at least 1"),
        (floats(V, H), r"W has shape \(7, 5\), expected \(5, 5\) = \(H, V\) for h with H = 5\. .*needs \.T"),
    ):
        yield Wrong("linear_cross_entropy", {"b": None, "W": W}, ValueError, message)
    yield Wrong(
        "linear_cross_entropy", {"memory": "none"}, ValueError, "memory is 'none', expected one of 'fast', 'low'"
    )

    for op, name in (("mean_squared_error", "t"), ("sigmoid_cross_entropy", "labels")):
        yield Wrong(op, {name: floats(3, 2, 1)}, ValueError, rf"{name} has shape \(3, 2, 1\), expected \(2, ")
    for op in ("softmax_cross_entropy", "linear_cross_entropy", "sigmoid_cross_entropy", "mean_squared_error"):
        for normalizer in (0, -1.5, np.nan):
            expected = rf"normalizer is {float(normalizer)}, expected a positive number"
            yield Wrong(op, {"normalizer": normalizer}, ValueError, expected)
        yield Wrong(op, {"normalizer": "N"}, TypeError, "normalizer is str 'N', expected a number")
        for array, expected in ((floats(1), "a number"), (OnGpu(floats(1)), "a number or a 0-d array of numbers")):
            message = rf"normalizer is an array of shape \(1,\), float32, expected {expected}$"
            yield Wrong(op, {"normalizer": array}, TypeError, message)
        yield Wrong(op, {"normalizer": OnGpu(np.array(2.0))}, TypeError, "is on the host but normalizer is on a GPU")
        yield Wrong(op, {"reduction": "none"}, ValueError, "reduction is 'none', expected one of 'mean', 'sum'")
        message = 'normalizer is given with reduction="sum", which divides by nothing; give one of them'
        yield Wrong(op, {"reduction": "sum", "normalizer": 2.0}, ValueError, message)
    for op, like, rows in (("softmax_cross_entropy", "logits", 3), ("mean_squared_error", "y", 2)):
        message = (
            rf"weights has shape \({rows + 1},\), expected \({rows},\) = the leading axes of {like}, a weight a row"
        )
        yield Wrong(op, {"weights": floats(rows + 1)}, ValueError, message)
        yield Wrong(op, {"weights": floats(rows).astype(float)}, TypeError, f"float64, but {like} has float32")
        yield Wrong(op, {"weights": [1.0] * rows}, TypeError, "weights is list .*expected a numpy or CuPy array")
        yield Wrong(op, {"weights": OnGpu(floats(rows))}, TypeError, f"{like} is on the host but weights is on a GPU")
    one = np.array(1.0, np.float32)
    yield Wrong(
        "mean_squared_error", {"y": one, "t": one, "weights": one}, ValueError, "y has no axes: a single number"
    )
    yield Wrong("softmax", {"logits": floats(3, 0)}, ValueError, r"logits has shape \(3, 0\), expected \(\.\.\., V\)")
    yield Wrong("softmax", {"temperature": 0}, ValueError, r"temperature is 0\.0, expected a positive number")
    yield Wrong("softmax", {"out": floats(V, 3)}, ValueError, r"out has shape \(7, 3\), expected \(3, 7\)")
    yield Wrong("softmax", {"out": read_only(floats(3, V))}, ValueError, "out is read-only, but is changed in place")
    rows = floats(4, V)
    yield Wrong("softmax", {"logits": rows[:3], "out": rows[1:]}, ValueError, "out overlaps logits")

    yield from _wrong_destinations()
    yield from _wrong_recurrent_destinations()
    yield from _wrong_prepared_weights()

    # Dropout.
    yield Wrong(
        "dropout_mask",
        {"seed": OnGpu(floats(3))},
        TypeError,
        r"seed is an array of shape \(3,\).* a 0-d array of uint64",
    )

    # Updates.
    yield Wrong(
        "sgd_update", {"params": "params"}, TypeError, "params is str 'params'; expected an array or a sequence"
    )
    yield Wrong("sgd_update", {"params": [floats(2), [1.0]]}, ValueError, "grads has 1 entries, params has 2")
    lists = {"params": [floats(2), [1.0]], "grads": [floats(2), floats(1)]}
    yield Wrong("sgd_update", lists, TypeError, r"params\[1\] is list .*expected a numpy or CuPy array")
    yield Wrong("sgd_update", {"params": read_only(floats(V, E))}, ValueError, "params is read-only")
    yield Wrong("sgd_update", {"params": floats(V, 2 * E)[:, ::2]}, ValueError, "params is not C-contiguous")
    turned = {"params": floats(E, V).T, "grads": _rows([1], floats(1, E))}
    yield Wrong("sgd_update", turned, ValueError, "params is the transpose .* rows of grads, a RowGrad, do not lie tog")
    yield Wrong("adam_update", {"m": floats(E, V).T}, ValueError, "m does not lie .* order of params; .*zeros_like")
    yield Wrong(
        "adam_update", {"params": floats(E, V).T}, ValueError, "m does not lie in memory in the order of params"
    )
    yield Wrong(
        "sgd_update", {"grads": floats(E, V)}, ValueError, r"grads has shape \(6, 7\), expected \(7, 6\) as params"
    )
    yield Wrong("sgd_update", {"grads": OnDevice()}, TypeError, "params is on the host but grads is on a GPU")
    yield Wrong("sgd_update", {"lr": OnGpu(floats(3))}, TypeError, r"lr is an array of shape \(3,\).*expected a number")
    yield Wrong(
        "adam_update", {"step": OnGpu(floats(1)[0])}, TypeError, "step is an array .*expected a number or a 0-d"
    )
    yield Wrong("sgd_update", {"lr": OnGpu(floats(1)[0])}, TypeError, "params is on the host but lr is on a GPU")
    wrong_rows: tuple[tuple[Any, Any, type[Exception], str], ...] = (
        ([1, V], floats(2, E), IndexError, r"grads.indices holds 7, expected ids from 0 to 6 \(params has 7 rows\)"),
        ([-1, 2], floats(2, E), IndexError, "grads.indices holds -1"),
        ([2, 1], floats(2, E), ValueError, "grads.indices is not ascending and unique"),
        ([1, 1], floats(2, E), ValueError, "grads.indices is not ascending and unique"),
        ([[1]], floats(1, E), ValueError, r"grads.indices has shape \(1, 1\), expected one axis"),
        ([1.0], floats(1, E), TypeError, "grads.indices has dtype float64, expected int32 or int64"),
        ([1, 2], floats(2, E + 1), ValueError, r"grads.values has shape \(2, 7\), expected \(2, 6\)"),
        ([1], floats(1, E).astype(np.float64), TypeError, "grads.values has dtype float64, but params has float32"),
        ([1], [[1.0]], TypeError, "grads.values is list"),
    )
    for indices, values, kind, says in wrong_rows:
        yield Wrong("sgd_update", {"grads": _rows(indices, values)}, kind, says)
    padded = PaddedRowGrad(np.array([1, 2]), floats(2, E), np.array([2], np.int32))
    yield Wrong("sgd_update", {"grads": padded}, TypeError, "grads is a PaddedRowGrad on the host, where a RowGrad is")
    yield Wrong(
        "momentum_update", {"grads": padded, "lazy": False}, ValueError, "grads is a PaddedRowGrad, which changes"
    )
    scalar = {"params": np.array(1.0), "grads": _rows([0], np.array([1.0]))}
    yield Wrong("sgd_update", scalar, ValueError, "grads is a RowGrad, but params has no rows")
    yield Wrong("sgd_update", {"lr": "0.1"}, TypeError, "lr is str '0.1', expected a number")
    yield Wrong(
        "sgd_update", {"lr": np.ones(2)}, TypeError, r"lr is an array of shape \(2,\), float64, expected a number"
    )
    yield Wrong("sgd_update", {"lr": float("nan")}, ValueError, "lr is nan, expected a finite number")
    same = floats(V, E)
    yield Wrong(
        "adam_update", {"m": same, "v": same}, ValueError, "v and m are one array; each needs memory of its own"
    )
    yield Wrong("adam_update", {"params": same, "v": same}, ValueError, "v and params are one array")
    # Arrays that share memory though they are not one object.
    yield Wrong("adam_update", {"m": same, "v": same[:]}, ValueError, "v overlaps m, which is changed")
    yield Wrong("momentum_update", {"params": same, "velocities": same[:]}, ValueError, "velocities overlaps params")
    for op in ("sgd_update", "rmsprop_update", "adamw_update"):
        yield Wrong(op, {"params": same, "grads": same}, ValueError, "grads overlaps params, which is changed")
        inside = {"params": same, "grads": _rows([0, 1], same[1:3])}
        yield Wrong(op, inside, ValueError, "grads overlaps params, which is changed")
    turned = {"params": floats(E, V).T, "grads": floats(V, E)}
    turned["velocities"] = turned["params"][:]
    yield Wrong("momentum_update", turned, ValueError, "velocities overlaps params")
    one = floats(2 * V)
    lists = {"params": [one[:V], one[V - 1 : -1]], "grads": [floats(V), floats(V)]}
    yield Wrong("sgd_update", lists, ValueError, r"params\[1\] overlaps params\[0\]")
    lists = {"params": [one[:V], one[V:]], "grads": [floats(V), one[1 : V + 1]]}
    yield Wrong("sgd_update", lists, ValueError, r"(grads\[1\] overlaps params\[0\]|params\[1\] overlaps grads\[1\])")
    shared = {"params": [floats(V), floats(V)], "grads": [floats(V), floats(V)], "velocities": [one[:V], one[:V]]}
    yield Wrong("momentum_update", shared, ValueError, r"velocities\[1\] overlaps velocities\[0\]")
    ids = np.zeros((V, E)).view(np.int64)
    inside = {"params": ids.view(np.float64), "grads": _rows(ids[0, :1], np.ones((1, E)))}
    yield Wrong("sgd_update", inside, ValueError, "grads overlaps params")
    yield Wrong("clip_grad_norm", {"grads": [one[:V], one[3:]]}, ValueError, r"grads\[0\] overlaps grads\[1\]; .*twice")
    yield Wrong("adam_update", {"m": read_only(floats(V, E))}, ValueError, "m is read-only")
    yield Wrong("adam_update", {"step": 0}, ValueError, "step is 0, expected at least 1")
    # Whole numbers that no kernel takes.
    for op, name, most in (
        ("adam_update", "step", 2**63 - 1),
        ("skipgram_pairs", "window", 2**63 - 1),
        ("skipgram_counts", "stop", 2**63 - 1),
        ("negative_sampling_update", "num_sampled", 2**40),
        ("embedding_backward", "num_embeddings", 2**40),
    ):
        for number in (most + 1, 2**100):
            yield Wrong(op, {name: number}, ValueError, f"{name} is {number}, expected at most {most}$")
    yield Wrong("sgd_update", {"lr": 10**400}, ValueError, "lr is a whole number too large for a float")
    yield Wrong("adam_update", {"step": 1.0}, TypeError, r"step is float 1\.0, expected a whole number")
    yield Wrong("adam_update", {"beta1": 1.0}, ValueError, r"beta1 is 1\.0, expected at least 0 and below 1")
    yield Wrong("adam_update", {"beta2": -0.1}, ValueError, r"beta2 is -0\.1, expected at least 0 and below 1")
    yield Wrong("adam_update", {"eps": -1.0}, ValueError, r"eps is -1\.0, expected a finite number, at least 0")
    yield Wrong(
        "adamw_update", {"weight_decay": -1}, ValueError, r"weight_decay is -1\.0, expected a finite number, at least 0"
    )
    yield Wrong("momentum_update", {"momentum": 1.5}, ValueError, r"momentum is 1\.5, .* at least 0, at most 1")
    yield Wrong(
        "nesterov_update", {"momentum": True, "velocities": floats(1)}, ValueError, r"velocities has shape \(1,\)"
    )
    yield Wrong(
        "rmsprop_update", {"decay": 2}, ValueError, r"decay is 2\.0, expected a finite number, at least 0, at most 1"
    )
    yield Wrong("adagrad_update", {"accumulators": []}, ValueError, "accumulators has 0 entries, params has 1")
    yield Wrong("clip_grad_norm", {"max_norm": 0}, ValueError, r"max_norm is 0\.0, expected a positive number")
    yield Wrong("clip_grad_norm", {"grads": read_only(floats(3))}, ValueError, "grads is read-only")
    later = {"grads": [floats(3), read_only(floats(2))]}
    yield Wrong("clip_grad_norm", later, ValueError, r"grads\[1\] is read-only")
    yield Wrong("clip_grad_value", later, ValueError, r"grads\[1\] is read-only")
    yield Wrong("clip_grad_value", {"limit": 0}, ValueError, r"limit is 0\.0, expected a positive number")
    for limit in (float("inf"), float("nan")):
        yield Wrong("clip_grad_value", {"limit": limit}, ValueError, f"limit is {limit}, expected a finite number")
    yield Wrong("clip_scale", {"max_norm": float("nan")}, ValueError, "max_norm is nan, expected a positive number")

    # Gates.
    of_gates, gru = {gate: floats(D, H) for gate in "ifgo"}, {gate: floats(H) for gate in "zrn"}
    permutation = "gate_order is .*, expected a permutation of 'ifgo', .*'zrn'"
    for gate_order in ("ifg", "ifgg", "ifgozrn", "zrh", 4):
        for op in ("pack_gates", "unpack_gates"):
            yield Wrong(op, {"gate_order": gate_order}, ValueError, permutation)
    wrong_gates: tuple[tuple[Any, type[Exception], str], ...] = (
        (list(of_gates.values()), TypeError, r"gates is list of 4, .*; expected a dict of arrays by gate"),
        (
            {"i": floats(H)},
            ValueError,
            "gates has 'i', expected one array for each of 'i' input gate, 'f'",
        ),
        ({}, ValueError, "gates has nothing"),
        ({**of_gates, "c": floats(D, H)}, ValueError, "gates has 'i', 'f', 'g', 'o', 'c', expected"),
        (gru, ValueError, "gates has 'z', 'r', 'n', expected .*; a GRU has gate_order='zrn'"),
        (
            {**of_gates, "o": floats(H, D)},
            ValueError,
            r"gates\['o'\] has shape \(5, 4\), expected \(4, 5\) as",
        ),
        (
            {**of_gates, "g": of_gates["g"].astype(np.float64)},
            TypeError,
            r"gates\['g'\] has dtype float64, but gates\['i'\]",
        ),
        ({**of_gates, "i": [1.0]}, TypeError, r"gates\['i'\] is list .*expected a numpy or CuPy array"),
        ({gate: np.arange(3) for gate in "ifgo"}, TypeError, r"gates\['i'\] has dtype int64"),
        ({**of_gates, "f": OnDevice()}, TypeError, r"gates\['i'\] is on the host but gates\['f'\] is on a GPU"),
    )
    for wrong, kind, says in wrong_gates:
        yield Wrong("pack_gates", {"gates": wrong}, kind, says)
    yield Wrong("pack_gates", {"axis": 2}, ValueError, r"axis is 2, but gates\['i'\] has shape \(4, 5\); expected -1")
    yield Wrong("unpack_gates", {"axis": -3}, ValueError, r"axis is -3, but W has shape \(4, 20\)")
    yield Wrong("unpack_gates", {"W": np.array(1.0)}, ValueError, r"axis is -1, but W has shape \(\)")
    yield Wrong("unpack_gates", {"axis": "last"}, TypeError, "axis is str 'last', expected a whole number")
    yield Wrong("unpack_gates", {"gate_order": "zrn"}, ValueError, "axis 1 is no multiple of the 3 gates .*axis=0")
    yield Wrong("unpack_gates", {"W": [1.0] * 4}, TypeError, "W is list")


with use_backend("numpy"):
    WRONG = list(_wrong())


def _arrays_in(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [value]
    return [array for entry in value for array in _arrays_in(entry)] if isinstance(value, (list, tuple)) else []


def _name(wrong: Wrong) -> str:
    return f"{wrong.op}-{'-'.join(wrong.wrong)}"


def _function(op: str) -> Any:
    return getattr(ops, op)


@pytest.mark.parametrize("wrong", WRONG, ids=_name)
def test_error_says_what_is_wrong_and_nothing_is_changed(wrong: Wrong) -> None:
    arguments = {**_right()[wrong.op], **wrong.wrong}
    arrays = _arrays_in(list(arguments.values()))
    before = [array.tobytes() for array in arrays]
    with pytest.raises(wrong.error, match=wrong.message):
        _function(wrong.op)(**arguments)
    assert [array.tobytes() for array in arrays] == before


@pytest.mark.parametrize("op", _right())
def test_the_right_calls_raise_nothing(op: str, backend: str) -> None:
    with use_backend(backend):
        arguments = _right()[op]
        _function(op)(**arguments)


def _raised_from(error: BaseException) -> tuple[str, int]:
    """File and line of the ``raise`` that an error came from."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno


def test_every_raise_in_ops_is_met_by_a_wrong_call() -> None:
    met = set()
    for wrong in WRONG:
        try:
            _function(wrong.op)(**{**_right()[wrong.op], **wrong.wrong})
        except Exception as error:
            met.add(_raised_from(error))
    missed = []
    for path in Path(ops.__file__).parent.glob("*.py"):
        # test_sampling.py has the wrong calls of the first two, models/test_every_model.py those of the other.
        if path.name in ("sampling.py", "candidates.py", "array_likes.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                if not any((path.name, line) in met for line in lines):
                    missed.append(f"{path.name}:{node.lineno}")
    assert not missed, f"no test meets the errors raised at {', '.join(missed)}"


# --------------------------------------------------------------------------------------------
# Backends, threads and the environment
# --------------------------------------------------------------------------------------------


def test_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match="unknown backend 'fortran'; expected one of 'cpp', 'numba', 'numpy'"):
        fastlstm.set_backend("fortran")
    before = fastlstm.get_backend()
    with pytest.raises(ValueError, match="unknown backend"), use_backend("c++"):
        pass
    assert fastlstm.get_backend() == before


def test_a_backend_that_cannot_run_says_why() -> None:
    missing = [name for name in ("cpp", "numba", "cuda") if why_not(name) is not None]
    if not missing:
        pytest.skip("every backend runs here")
    for name in missing:
        with pytest.raises(
            BackendNotAvailable, match=f"backend '{name}' cannot run here: {re.escape(str(why_not(name)))}"
        ):
            fastlstm.set_backend(name)
    assert issubclass(BackendNotAvailable, ImportError)


def test_arrays_on_a_gpu_without_a_gpu_backend() -> None:
    if why_not("cuda") is None:
        pytest.skip("a GPU answers here")

    class Gpu(OnDevice):
        dtype, ndim, shape = np.dtype(np.float32), 2, (V, E)
        flags = np.ones(1).flags

    with pytest.raises((BackendNotAvailable, TypeError)):
        ops.embedding_forward(Gpu(), np.array([0]))  # type: ignore[arg-type]
    on_gpu: Any = OnGpu(floats(2, 3))
    with pytest.raises(BackendNotAvailable, match=r"backend 'cuda' cannot run here: .*on the host, .*cupy\.asnumpy"):
        ops.dropout_mask(on_gpu, 0.5, seed=1)


def test_a_masked_array_is_not_taken_to_a_device_without_its_mask() -> None:
    for copy in (to_host, lambda array: to_device(array, "cpu")):
        with pytest.raises(TypeError, match="the array is a masked array, whose mask no operator reads"):
            copy(np.ma.masked_array([1, 2], [True, False]))


def test_without_a_gpu_nobody_hears_of_arrays_that_they_do_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    if why_not("cuda") is None:
        pytest.skip("a GPU answers here")
    fastlstm.show_config()
    assert "asnumpy" not in capsys.readouterr().out
    with pytest.raises(BackendNotAvailable) as refused:
        fastlstm.set_backend("cuda")
    assert "asnumpy" not in str(refused.value)


@pytest.mark.parametrize("n", [0, -1, 10**9])
def test_a_number_of_threads_out_of_range(n: int) -> None:
    before = fastlstm.get_num_threads()
    with pytest.raises(ValueError, match=f"the number of threads is {n}, expected"):
        fastlstm.set_num_threads(n)
    assert fastlstm.get_num_threads() == before


@pytest.mark.parametrize("n", [1.5, "2", None, True])
def test_a_number_of_threads_that_is_no_integer(n: Any) -> None:
    with pytest.raises(TypeError, match="the number of threads is .*expected a whole number"):
        fastlstm.set_num_threads(n)


_LSTM = "import numpy as np, fastlstm; o = np.ones; fastlstm.ops.lstm_forward(o((1,1,1)), o((1,4)), o((1,4)), o(4))"


def _in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FASTLSTM_BACKEND", "fortran", "unknown backend 'fortran'"),
        ("FASTLSTM_BACKEND", "cuda", "backend 'cuda' cannot run here"),
        ("FASTLSTM_NUM_THREADS", "0", "FASTLSTM_NUM_THREADS is '0', expected a whole number from 1"),
        ("FASTLSTM_NUM_THREADS", "many", "FASTLSTM_NUM_THREADS is 'many', expected a whole number from 1"),
        ("FASTLSTM_MAX_ISA", "sse9", "FASTLSTM_MAX_ISA.*'?sse9'?.*expected"),
    ],
)
def test_a_wrong_environment_variable_is_an_error_at_the_first_call(variable: str, value: str, message: str) -> None:
    if variable != "FASTLSTM_BACKEND" and "cpp" not in fastlstm.available_backends():
        pytest.skip("the extension _cpu is not built")
    if value == "cuda" and why_not("cuda") is None:
        pytest.skip("a GPU answers here")
    done = _in_a_process(_LSTM, **{variable: value})
    assert done.returncode != 0
    assert re.search(message, done.stderr.splitlines()[-1]), done.stderr


def test_falling_back_is_said_once() -> None:
    """Without the extension: one warning, and show_config says why."""
    block = "import sys; sys.modules['fastlstm._cpu'] = None\n"
    done = _in_a_process(f"{block}{_LSTM}\n{_LSTM.split('; ')[-1]}\nfastlstm.show_config()")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert re.search(r"fastlstm runs on its slower '(numba|numpy)' backend: the compiled extension", done.stderr)
    assert "cannot run: the compiled extension fastlstm._cpu cannot be imported" in done.stdout
    # pip would take the wheel without extensions again that it has kept.
    for text in (done.stdout, done.stderr):
        assert "pip install --no-cache-dir --force-reinstall --no-deps --no-binary fastlstm fastlstm" in text


def test_show_config_names_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    fastlstm.show_config()
    text = capsys.readouterr().out
    assert f"fastlstm {fastlstm.__version__}" in text
    for name in ("cpp", "numba", "numpy", "cuda"):
        assert re.search(rf"{name}: +(can run|cannot run: .+)", text)
    assert str(fastlstm.get_num_threads()) in text
