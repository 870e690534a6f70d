"""The inputs of every operator, once. The test files run them in different ways.

Sizes are chosen to meet every tail of blocked and vectorised code: one below, at and above 16, 1, primes, more rows
than a tile, and zero. Every float array is random and non-zero, states and upstream gradients too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from draw import Draw
from recurrent_cases import (
    CELLS,
    CELLS_INTO,
    GRU,
    GRU_LAYOUTS,
    LSTM,
    LSTM_GATE_ORDERS,
    LSTM_LAYOUTS,
    RECURRENT_INTO,
    RNN,
    RNN_LAYOUTS,
)

from fastlstm import ops
from fastlstm.contract import Candidates, IntArray, LinearLossGrads, RowGrad
from fastlstm.testing import Case


def _embedding(name: str, V: int, E: int, ids: IntArray, *, padding_idx: int | None = None) -> list[Case]:
    """Gather, dense and row gradients and scatter_add on the same ids.

    The dense gradient is new, or goes into an array that holds NaN, everywhere or in the rows touched before.
    """
    draw = Draw("embedding" + name)
    W, dout = draw.floats(V, E), draw.floats(*ids.shape, E)
    backward = {"ids": ids, "dout": dout, "num_embeddings": V, "padding_idx": padding_idx}
    touched = draw.ids(V, 3, 2)
    used = np.zeros((V, E))
    used[touched] = np.nan
    held = draw.floats(V, E)
    return [
        Case(name, "embedding_forward", {"W": W, "ids": ids}),
        Case(name, "embedding_backward", backward),
        Case(name + "-into", "embedding_backward", {**backward, "out": np.full((V, E), np.nan)}),
        Case(name + "-touched", "embedding_backward", {**backward, "out": used, "touched": touched}),
        Case(name + "-added", "embedding_backward", {**backward, "out": held, "accumulate": True}),
        Case(name, "embedding_backward_rows", {"ids": ids, "dout": dout}),
        Case(name, "scatter_add", {"target": W, "ids": ids, "rows": dout}),
    ]


def _touched(name: str, V: int, E: int, ids: IntArray, touched: IntArray, *, padding_idx: int | None = None) -> Case:
    """A dense gradient into an array that holds NaN in the rows ``touched`` and zeros in all others."""
    out = np.zeros((V, E))
    out[touched] = np.nan
    inputs = {"ids": ids, "dout": Draw("touched" + name).floats(*ids.shape, E), "num_embeddings": V}
    return Case(
        "touched-" + name,
        "embedding_backward",
        {**inputs, "padding_idx": padding_idx, "out": out, "touched": touched},
    )


def _all_embedding_cases() -> list[Case]:
    draw = Draw("ids")
    cases = [
        *_embedding("ones", 1, 1, np.zeros((1,), np.int64)),
        *_embedding("duplicates", 5, 3, draw.ids(5, 7, 6)),
        *_embedding("one-id-often", 10, 17, np.full((50,), 7)),
        *_embedding("int32", 33, 16, draw.ids(33, 20, 3, dtype=np.int32)),
        *_embedding("few-of-many", 1000, 100, draw.ids(1000, 4, 5)),
        *_embedding("many-rows", 100, 15, draw.ids(100, 700), padding_idx=3),
        *_embedding("wide", 20, 130, draw.ids(20, 33, dtype=np.int32), padding_idx=0),
        *_embedding("no-ids", 5, 16, np.zeros((0, 3), np.int64)),
        *_embedding("one-id-no-axes", 5, 16, np.array(4)),
    ]
    cases += [
        _touched("some", 33, 17, draw.ids(33, 5, 4), draw.ids(33, 3, 4)),
        _touched("other-dtype", 50, 16, draw.ids(50, 20, dtype=np.int32), draw.ids(50, 30)),
        _touched("int32", 50, 3, draw.ids(50, 20), draw.ids(50, 30, dtype=np.int32), padding_idx=7),
        _touched("same", 20, 130, np.array([3, 19, 3]), np.array([3, 19, 3]), padding_idx=3),
        _touched("none", 9, 15, draw.ids(9, 12), np.zeros((0,), np.int64)),
        _touched("no-ids", 9, 16, np.zeros((0,), np.int64), np.array([0, 8])),
        _touched("more-than-rows", 5, 16, draw.ids(5, 4), np.arange(10) % 5),
        _touched("threads", 3000, 130, draw.ids(3000, 1500), draw.ids(3000, 1500)),
    ]
    vector = Draw("vector")
    cases.append(
        Case(
            "vector-target",
            "scatter_add",
            {"target": vector.floats(9), "ids": vector.ids(9, 40), "rows": vector.floats(40)},
        )
    )
    return cases


EMBEDDING = _all_embedding_cases()


def _targets(draw: Draw, V: int, shape: tuple[int, ...], ignored: float, ignore_index: int) -> IntArray:
    targets = draw.ids(V, *shape)
    targets[draw.rng.random(shape) < ignored] = ignore_index
    return targets


def _losses(
    name: str,
    shape: tuple[int, ...],
    H: int,
    V: int,
    *,
    ignored: float = 0.0,
    ignore_index: int = -1,
    bias: bool = True,
    **divided: Any,
) -> list[Case]:
    """softmax_cross_entropy on random logits, and linear_cross_entropy in both forms, with W and with a W that is a
    transposed array; divided as reduction or normalizer say.
    """
    draw = Draw("losses" + name)
    options = {"targets": _targets(draw, V, shape, ignored, ignore_index), "ignore_index": ignore_index, **divided}
    linear = {
        "h": draw.floats(*shape, H),
        "W": draw.weights(H, V),
        "b": draw.floats(V, scale=0.5) if bias else None,
        **options,
    }
    return [
        Case(name, "softmax_cross_entropy", {"logits": draw.floats(*shape, V, scale=3.0), **options}),
        Case(name + "-fast", "linear_cross_entropy", {**linear, "memory": "fast"}),
        Case(name + "-low", "linear_cross_entropy", {**linear, "memory": "low"}),
        Case(name + "-tied", "linear_cross_entropy", {**linear, "W": draw.weights(V, H).T, "memory": "fast"}),
        Case(name + "-tied-low", "linear_cross_entropy", {**linear, "W": draw.weights(V, H).T, "memory": "low"}),
    ]


def _extreme_logits() -> list[Case]:
    draw = Draw("extreme")
    huge = draw.floats(7, 17, scale=1e4)
    minus_infinity = draw.floats(7, 17)
    minus_infinity[:, 3:9] = -np.inf
    targets = np.full(7, 1)
    nan = draw.floats(7, 17)
    nan[2, 5] = np.nan
    nan_ignored = draw.floats(7, 17)
    nan_ignored[2] = np.nan
    ignored = np.array([1, 2, -1, 3, 4, 5, 6])
    return [
        Case("huge", "softmax_cross_entropy", {"logits": huge, "targets": targets}),
        Case("minus-infinity", "softmax_cross_entropy", {"logits": minus_infinity, "targets": targets}),
        Case("nan", "softmax_cross_entropy", {"logits": nan, "targets": targets}),
        Case("nan-ignored", "softmax_cross_entropy", {"logits": nan_ignored, "targets": ignored}),
    ]


def _product(name: str, M: int, K: int, L: int, *, bias: bool = True) -> list[Case]:
    """Both operands as they are, either transposed, and into an array that holds NaN."""
    draw = Draw("product" + name)
    a, b = draw.floats(M, K), draw.weights(K, L)
    inputs: dict[str, Any] = {"a": a, "b": b, "bias": draw.floats(L) if bias else None}
    return [
        Case(name, "matrix_product", inputs),
        Case(name + "-a-transposed", "matrix_product", {**inputs, "a": np.ascontiguousarray(a.T).T}),
        Case(name + "-b-transposed", "matrix_product", {**inputs, "b": np.ascontiguousarray(b.T).T}),
        Case(name + "-into", "matrix_product", {**inputs, "out": np.full((M, L), np.nan)}),
    ]


def _batched_product(name: str, N: int, M: int, K: int, L: int) -> list[Case]:
    """Both operands as they are, either a transposed view, and one a part of something wider."""
    draw = Draw("batched product" + name)
    a, b = draw.floats(N, M, K), draw.floats(N, K, L, scale=1 / np.sqrt(max(K, 1)))
    wider = np.concatenate([a, a], axis=2)
    return [
        Case(name, "batched_product", {"a": a, "b": b}),
        Case(name + "-a-transposed", "batched_product", {"a": a.swapaxes(1, 2).copy().swapaxes(1, 2), "b": b}),
        Case(name + "-b-transposed", "batched_product", {"a": a, "b": b.swapaxes(1, 2).copy().swapaxes(1, 2)}),
        Case(name + "-a-part", "batched_product", {"a": wider[:, :, :K], "b": b}),
    ]


DENSE = [
    *_batched_product("batch", 3, 5, 17, 7),
    *_batched_product("batch-of-one", 1, 1, 33, 16),
    *_batched_product("no-batch", 0, 5, 17, 7),
    *_batched_product("batch-without-depth", 2, 3, 0, 4),
    *_batched_product("batch-without-rows", 2, 0, 4, 5),
    *_product("ones", 1, 1, 1),
    *_product("one-row", 1, 33, 200),
    *_product("few-rows", 5, 17, 64),
    *_product("tails", 13, 15, 77, bias=False),
    *_product("one-column", 37, 100, 1),
    *_product("narrow", 700, 128, 13),
    *_product("wide", 20, 100, 999),
    *_product("deep", 7, 1300, 70),
    *_product("deep-and-narrow", 130, 1030, 33, bias=False),
    *_product("no-depth", 3, 0, 17),
    *_product("no-rows", 0, 5, 17),
    *_product("no-columns", 3, 5, 0),
]


LOSSES = [
    *_losses("ones", (1,), 1, 1),
    *_losses("V2", (2,), 3, 2),
    *_losses("V15", (5,), 16, 15, ignored=0.3),
    *_losses("V17", (7,), 17, 17),
    *_losses("batch", (4, 5), 15, 33, ignored=0.4),
    *_losses("book-addition", (20, 4), 64, 13, ignored=0.2),
    *_losses("V1000", (20, 3), 33, 1000, ignored=0.2),
    *_losses("many-rows", (130,), 16, 100),
    *_losses("ignore-0", (7, 6), 16, 33, ignored=0.5, ignore_index=0),
    *_losses("ignore-minus-100", (7,), 16, 64, ignored=0.5, ignore_index=-100),
    *_losses("all-ignored", (5,), 3, 17, ignored=1.0),
    *_losses("no-rows", (0,), 3, 17),
    *_losses("no-bias", (4, 5), 17, 33, ignored=0.2, bias=False),
    *_losses("no-bias-V1000", (20, 3), 33, 1000, bias=False, reduction="sum"),
    *_losses("sum", (4, 5), 15, 33, ignored=0.4, reduction="sum"),
    *_losses("sum-all-ignored", (5,), 3, 17, ignored=1.0, reduction="sum"),
    *_losses("normalizer", (7, 6), 16, 100, ignored=0.4, normalizer=7),
    *_losses("normalizer-no-rows", (0,), 3, 17, normalizer=0.5),
    *_extreme_logits(),
]


def _gradients_into(
    name: str,
    shape: tuple[int, ...],
    H: int,
    V: int,
    *,
    ignored: float = 0.0,
    tied: bool = False,
    bias: bool = True,
) -> list[Case]:
    """linear_cross_entropy into arrays that hold NaN, added to what there is, and without some of its results.

    dW lies in memory as W does, or as its transpose.
    """
    draw = Draw("into" + name)
    inputs: dict[str, Any] = {
        "h": draw.floats(*shape, H),
        "W": draw.weights(V, H).T if tied else draw.weights(H, V),
        "b": draw.floats(V, scale=0.5),
        "targets": _targets(draw, V, shape, ignored, -1),
    }
    nothing: Any = None
    dh, dW, db = (np.full(array.shape, np.nan) for array in (inputs["h"], inputs["W"], inputs["b"]))
    held = {"dW": draw.floats(H, V), "db": draw.floats(V)}
    if not bias:
        inputs["b"] = db = held["db"] = nothing
    added: dict[str, Any] = {"out": LinearLossGrads(nothing, nothing, **held), "accumulate": True}
    turned = {"out": LinearLossGrads(nothing, dh, np.asfortranarray(held["dW"]), nothing), "accumulate": True}
    return [
        Case(f"{name}-{memory}-{kind}", "linear_cross_entropy", {**inputs, "memory": memory, **options})
        for memory in ("fast", "low")
        for kind, options in {
            "into": {"out": LinearLossGrads(0.0, dh, dW, db)},
            "into-turned": {"out": LinearLossGrads(0.0, dh, np.asfortranarray(dW), db)},
            "added": added,
            "added-turned": turned,
            "added-sum": {**added, "reduction": "sum"},
            "without-dh": {"without": ("dh",), **added},
            "without-dW": {"without": ("dW",)},
            "without-db": {"without": ("loss", "db")},
            "db-alone": {"without": ("dh", "dW")},
            "loss-alone": {"without": ("dh", "dW", "db")},
        }.items()
    ]


LOSSES_INTO = [
    *_gradients_into("V17", (7,), 15, 17, tied=True),
    *_gradients_into("batch", (4, 5), 17, 33, ignored=0.4),
    *_gradients_into("V1000", (20, 3), 33, 1000, ignored=0.2),
    *_gradients_into("all-ignored", (5,), 3, 17, ignored=1.0),
    *_gradients_into("no-rows", (0,), 3, 17, tied=True),
    *_gradients_into("no-bias", (7, 3), 18, 130, ignored=0.2, bias=False),
]


def _softmax(name: str, *shape: int, **options: Any) -> Case:
    return Case(name, "softmax", {"logits": Draw("softmax" + name).floats(*shape, scale=3.0), **options})


SOFTMAX = [
    _softmax("ones", 1, 1),
    _softmax("vector", 17),
    _softmax("attention", 4, 5, 9),
    _softmax("cold", 7, 33, temperature=0.25),
    _softmax("hot", 7, 33, temperature=np.inf),
    _softmax("into", 5, 6, 7, out=np.full((5, 6, 7), np.nan)),
    _softmax("no-rows", 0, 17),
    *(Case(case.name, "softmax", {"logits": case.inputs["logits"]}) for case in _extreme_logits()),
    Case("nothing-but-minus-infinity", "softmax", {"logits": np.full((2, 3), -np.inf)}),
]


def _sigmoid(name: str, *shape: int, scale: float = 1.0, **options: Any) -> Case:
    draw = Draw("sigmoid" + name)
    labels = draw.rng.random(shape).round(0 if draw.rng.random() < 0.5 else 2)
    return Case(
        name, "sigmoid_cross_entropy", {"logits": draw.floats(*shape, scale=scale), "labels": labels, **options}
    )


def _squared_error(name: str, *shape: int, **options: Any) -> Case:
    draw = Draw("squared error" + name)
    return Case(name, "mean_squared_error", {"y": draw.floats(*shape), "t": draw.floats(*shape), **options})


PLAIN_LOSSES = [
    _sigmoid("one", 1),
    _sigmoid("sequence", 4, 5),
    _sigmoid("normalizer", 7, 6, normalizer=7),
    _sigmoid("huge", 33, scale=1e4),
    _sigmoid("nothing", 0),
    _sigmoid("sum", 5, 3, reduction="sum"),
    _squared_error("one", 1),
    _squared_error("sequence", 4, 5, 3),
    _squared_error("nothing", 0, 2),
    _squared_error("sum", 5, 3, reduction="sum"),
    _squared_error("normalizer", 5, 3, normalizer=10),
]


_STATES = {
    "sgd_update": (),
    "momentum_update": ("velocities",),
    "nesterov_update": ("velocities",),
    "adagrad_update": ("accumulators",),
    "rmsprop_update": ("accumulators",),
    "adam_update": ("m", "v"),
    "adamw_update": ("m", "v"),
}
_NEVER_NEGATIVE = ("accumulators", "v")


def _update(
    op: str, name: str, shape: tuple[int, ...], *, rows: int | None = None, state_scale: float = 1.0, **options: Any
) -> Case:
    """One step of an optimiser with non-zero state; with ``rows``, the gradient touches that many rows."""
    draw = Draw(op + name)
    inputs: dict[str, Any] = {"params": draw.floats(*shape), "grads": draw.floats(*shape), "lr": 0.05}
    for state in _STATES[op]:
        array = draw.floats(*shape, scale=state_scale)
        inputs[state] = array**2 if state in _NEVER_NEGATIVE else array
    if op in ("adam_update", "adamw_update"):
        inputs["step"] = 3
    if rows is not None:
        indices = np.sort(draw.rng.permutation(shape[0])[:rows])
        inputs["grads"] = RowGrad(indices, draw.floats(rows, *shape[1:]))
    return Case(name, op, {**inputs, **options})


def _updates(op: str) -> list[Case]:
    cases = [
        _update(op, "one", (1,)),
        _update(op, "tail", (3, 17)),
        _update(op, "scaled", (33,), grad_scale=0.25),
        _update(op, "threads", (50_000,)),
        _update(op, "empty", (0, 4)),
        _update(op, "rows", (20, 17), rows=7),
        _update(op, "rows-scaled", (9, 16), rows=4, grad_scale=0.25),
        _update(op, "no-rows", (9, 16), rows=0),
    ]
    if op != "sgd_update":
        cases.append(_update(op, "rows-exact", (20, 17), rows=7, lazy=False))
        cases.append(_turned(_update(op, "rows-exact-turned", (20, 17), rows=7, lazy=False)))
    turned = _turned(_update(op, "turned", (17, 3)))
    straight = {**turned.inputs, "grads": np.ascontiguousarray(turned.inputs["grads"])}
    return [*cases, turned, Case("turned-but-the-gradient", op, straight)]


def _turned(case: Case) -> Case:
    """The same case with matrices that are transposes of C-contiguous ones."""
    inputs = {
        name: np.asfortranarray(value) if isinstance(value, np.ndarray) else value
        for name, value in case.inputs.items()
    }
    return Case(case.name, case.op, inputs)


# Near 1, what is new counts for 1 - rate, which float32 rounds; at 0, nothing of the old is left.
RATES = (0.0, 0.5, 0.9999, 0.999999)


def rates_of(op: str, rate: float) -> dict[str, Any]:
    """The arguments that say how fast an optimiser forgets."""
    return {"decay": rate} if op == "rmsprop_update" else {"beta1": rate, "beta2": rate}


def _rates(op: str) -> list[Case]:
    """A first step, and one from a state that dwarfs the gradient."""
    return [
        _update(op, f"rate-{rate}-{name}", (17,), state_scale=state_scale, lr=lr, **rates_of(op, rate))
        for rate in RATES
        for name, state_scale, lr in (("first", 0.0, 2.0), ("dwarfed", 1e8, 0.05))
    ]


def _decays_to_almost_nothing() -> Case:
    draw = Draw("almost nothing")
    arrays = {name: draw.floats(17) for name in ("grads", "m")}
    state = {**arrays, "params": draw.floats(17, scale=1e4), "v": draw.floats(17) ** 2}
    return Case("almost-nothing", "adamw_update", {**state, "lr": 0.05, "step": 3, "weight_decay": 19.99})


def _list_of_params() -> Case:
    draw = Draw("list")
    shapes = ((3, 4), (7,), (2, 3, 5))
    arrays = {
        name: [draw.floats(*shape) ** (2 if name == "v" else 1) for shape in shapes]
        for name in ("params", "grads", "m", "v")
    }
    return Case("list", "adam_update", {**arrays, "lr": 0.01, "step": 1})


def _clip(op: str, name: str, **limit: float) -> Case:
    draw = Draw("clip" + name)
    rows = RowGrad(np.array([1, 4, 5]), draw.floats(3, 17))
    grads = [draw.floats(33, 17), draw.floats(5), draw.floats(0, 3), rows, draw.floats(20_001), draw.floats(7, 5).T]
    return Case(name, op, {"grads": grads, **limit})


def _clip_what_is_no_number() -> Case:
    grads = Draw("no number").floats(7, 5)
    grads[1:4, 2] = np.nan, np.inf, -np.inf
    return Case("nan", "clip_grad_value", {"grads": grads, "limit": 0.5})


OPTIM = [
    *(case for op in _STATES for case in _updates(op)),
    _update("nesterov_update", "momentum", (17,), momentum=0.5),
    _update("adagrad_update", "eps", (17,), eps=0.3),
    _update("adagrad_update", "eps-inside-root", (3, 17), eps=0.3, eps_inside_root=True),
    _update("adagrad_update", "eps-inside-root-rows", (9, 16), rows=4, eps=0.3, eps_inside_root=True),
    _update("adagrad_update", "eps-inside-root-no-state", (17,), state_scale=0.0, eps=0.3, eps_inside_root=True),
    _update("rmsprop_update", "decay", (17,), decay=0.7, eps=1e-3),
    _update("adam_update", "betas", (17,), beta1=0.5, beta2=0.7, eps=1e-3),
    _update("adamw_update", "decay", (17,), weight_decay=0.3),
    _decays_to_almost_nothing(),
    *(case for op in ("rmsprop_update", "adam_update", "adamw_update") for case in _rates(op)),
    _list_of_params(),
    _clip("clip_grad_norm", "clipped", max_norm=5.0),
    _clip("clip_grad_norm", "below-the-limit", max_norm=1e6),
    _clip("clip_grad_value", "clipped", limit=0.3),
    _clip("clip_grad_value", "below-any-limit", limit=1e300),
    _clip_what_is_no_number(),
]


def _sampled(name: str, B: int, E: int, V: int, S: int, *, num_true: int = 1) -> list[Case]:
    """Sampled logits and the three losses on one sample of classes, which holds some of the true ones."""
    draw = Draw("sampled" + name)
    labels = draw.ids(V, B, num_true)
    sampled = draw.ids(V, S)
    sampled[: min(S, B) // 2] = labels[: min(S, B) // 2, 0]
    counts = np.abs(draw.floats(B, num_true)) + 0.1, np.abs(draw.floats(S)) + 0.1
    arrays = {
        "weights": draw.weights(V, E),
        "labels": labels,
        "inputs": draw.floats(B, E),
        "candidates": Candidates(sampled, *counts, S),
    }
    biases = draw.floats(V, scale=0.5)
    dlogits = draw.floats(B, num_true + S)
    return [
        Case(name, "sampled_logits_forward", {**arrays, "biases": biases}, {"dlogits": dlogits}),
        Case(
            name + "-no-hits",
            "sampled_logits_forward",
            {**arrays, "biases": biases, "remove_accidental_hits": True, "subtract_log_q": False},
            {"dlogits": dlogits},
        ),
        Case(name, "nce_loss", {**arrays, "biases": biases}),
        Case(name, "sampled_softmax_loss", {**arrays, "biases": biases}),
        Case(name, "negative_sampling_loss", arrays),
        Case(name + "-ids", "negative_sampling_loss", {**arrays, "candidates": sampled}),
        Case(name + "-own", "negative_sampling_loss", {**arrays, "candidates": _own_samples(draw, labels, V, S)}),
    ]


def _own_samples(draw: Draw, labels: IntArray, V: int, S: int) -> IntArray:
    """(B, S): samples of each row's own, some of which repeat, and some of which are a true class of the row."""
    sampled = draw.ids(V, len(labels), S)
    sampled[::2, : S // 3] = sampled[::2, S // 3 : 2 * (S // 3)]
    if S:
        sampled[::3, -1] = labels[::3, 0]
    return sampled


SAMPLING = [
    *_sampled("ones", 1, 1, 2, 1),
    *_sampled("E15", 5, 15, 20, 7),
    *_sampled("E17", 7, 17, 50, 16, num_true=3),
    *_sampled("batch", 33, 64, 1000, 17),
    *_sampled("word2vec", 128, 100, 5000, 64),
    *_sampled("empty", 0, 16, 20, 5),
    *_sampled("no-samples", 5, 16, 20, 0, num_true=2),
    *_sampled("nothing", 0, 16, 20, 0),
]


def _skipgram(name: str, V: int, E: int, M: int, K: int) -> Case:
    """A few steps of negative sampling; few classes, so that negatives repeat and meet the context."""
    draw = Draw("skipgram" + name)
    inputs = {
        "vectors": draw.floats(V, E, scale=0.5),
        "weights": draw.floats(V, E, scale=0.5),
        "centers": draw.ids(V, M),
        "contexts": draw.ids(V, M),
        "table": ops.UnigramTable(draw.ids(50, V) + 1),
        "num_sampled": K,
        "lr": 0.05,
        "seed": 2**64 - 1,
    }
    return Case(name, "negative_sampling_update", inputs)


def _cbow(name: str, V: int, E: int, M: int, K: int, window: int = 5, **options: bool) -> Case:
    """A few steps of CBOW; few words, so that a context holds a word twice, and its center."""
    draw = Draw("cbow" + name)
    counts = draw.ids(2 * window, M) + 1
    inputs = {**_skipgram(name, V, E, M, K).inputs, "contexts": draw.ids(V, int(counts.sum())), "counts": counts}
    return Case(name, "cbow_update", {**inputs, **options})


def _text(name: str, L: int, window: int, *, ends: float = 0.0, **options: int) -> list[Case]:
    """A text, subsampled, and its pairs; ``ends`` is the share of ids that end a sentence."""
    draw = Draw("text" + name)
    ids = draw.ids(9, L)
    ids[draw.rng.random(L) < ends] = -1
    pairs = {"ids": ids, "window": window, "seed": 2**63 + 7, **options}
    keep = np.linspace(0, 1.2, 9)
    return [
        Case(name, "subsample", {"ids": ids, "keep": keep, "seed": 5}),
        Case(name, "skipgram_counts", pairs),
        Case(name, "skipgram_pairs", pairs),
    ]


SKIPGRAM = [
    *_text("empty", 0, 5),
    *_text("one-word", 1, 5),
    *_text("shorter-than-the-window", 4, 5),
    *_text("window1", 40, 1),
    *_text("sentences", 200, 5, ends=0.2),
    *_text("nothing-but-ends", 7, 2, ends=1.0),
    *_text("piece", 100, 4, ends=0.1, start=33, stop=78),
    *_text("no-piece", 30, 4, start=9, stop=9),
    _skipgram("ones", 2, 1, 3, 1),
    _skipgram("E15", 5, 15, 9, 2),
    _skipgram("E17", 7, 17, 20, 5),
    _skipgram("E64", 40, 64, 50, 4),
    _skipgram("word2vec", 300, 128, 40, 5),
    _skipgram("many-negatives", 200, 33, 20, 20),
    _skipgram("more-negatives-than-a-product-holds", 50, 5, 3, 2000),
    _skipgram("no-pairs", 5, 16, 0, 5),
    _skipgram("blocks", 2000, 3, 300, 5),
    _cbow("ones", 2, 1, 3, 1, window=1),
    _cbow("E15", 5, 15, 9, 2, divide_step=True),
    _cbow("E17", 7, 17, 20, 5),
    _cbow("word2vec", 300, 128, 40, 5),
    _cbow("many-negatives", 200, 33, 20, 20, divide_step=True),
    _cbow("no-words", 5, 16, 0, 5),
    _cbow("blocks", 2000, 3, 600, 5),
]

DROPOUT = [
    Case(f"{name}-{ratio}", "dropout_mask", {"xs": Draw(name).floats(*shape), "ratio": ratio, "seed": seed})
    for name, shape, ratio, seed in (
        ("one", (1,), 0.5, 0),
        ("empty", (0, 3), 0.5, 1),
        ("nothing-drops", (5, 7), 0.0, 2),
        ("sequence", (3, 5, 17), 0.3, 3),
        ("largest-seed", (65, 9), 0.9, 2**64 - 1),
        ("blocks", (33, 1000), 0.25, 12345),
    )
]

ALL = [
    *LSTM,
    *LSTM_GATE_ORDERS,
    *LSTM_LAYOUTS,
    *CELLS,
    *CELLS_INTO,
    *GRU,
    *GRU_LAYOUTS,
    *RNN,
    *RNN_LAYOUTS,
    *RECURRENT_INTO,
    *EMBEDDING,
    *DENSE,
    *DROPOUT,
    *LOSSES,
    *LOSSES_INTO,
    *PLAIN_LOSSES,
    *SOFTMAX,
    *OPTIM,
    *SAMPLING,
    *SKIPGRAM,
]

# Products of float32 arrays with their factors rounded; the operators take no other floats with it. Depths that end in
# half a pair, and one that is packed in pieces, are among them.
BF16 = [
    dataclasses.replace(case, name=f"{case.name}-bf16", inputs={**case.inputs, "precision": "bf16"})
    for case in (
        *DENSE,
        *_product("deep", 4, 2101, 70),
        *LOSSES,
        *_losses("odd-rows", (131,), 17, 131),
        *LOSSES_INTO,
    )
    if case.op in ("matrix_product", "batched_product", "linear_cross_entropy")
]

# A few of each operator, with every kind of input, where all would take too long.
SOME = [
    case
    for case in ALL
    if case.name
    in {"H17", "H100", "addition", "many-rows", "one-row", "holes", "lengths-reverse", "fgio", "duplicates"}
    | {"H100-pytorch", "many-rows-pytorch", "one-row-pytorch", "units-split", "units-split-holes-pytorch"}
    | {"few-of-many", "word2vec", "batch", "batch-fast", "V1000-low", "V1000-fast", "threads", "rows", "clipped"}
    | {"sentences"}
]
