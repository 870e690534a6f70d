"""The cases of `fastlstm.selftest`: each operator that a backend computes, in sizes that meet the tails of its kernels.

They are few of those of the tests, which stand in the source tree. Every float array is random and not zero, states
and upstream gradients too.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.contract import Candidates, FloatArray, RowGrad
from fastlstm.testing import Case

# Of skip-grams, which no GPU computes.
HOST_ONLY = ("subsample", "skipgram_counts", "skipgram_pairs", "negative_sampling_update", "cbow_update")

# Products of float32 with factors rounded to bfloat16 on the host too.
IN_BF16 = ("matrix_product", "batched_product", "linear_cross_entropy")

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class _Draw:
    """Random arrays, the same each time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def floats(self, *shape: int, scale: float = 1.0) -> FloatArray:
        return scale * self.rng.standard_normal(shape)

    def weights(self, *shape: int) -> FloatArray:
        """Of the size that keeps products with them near 1."""
        return self.floats(*shape, scale=1 / np.sqrt(shape[0]))

    def ids(self, upper: int, *shape: int) -> Any:
        return self.rng.integers(0, upper, shape)


def recurrent_case(family: str, N: int, T: int, D: int, H: int, **options: Any) -> Case:
    """A sequence of an "lstm", "gru" or "rnn" with a mask, states and all upstream gradients."""
    draw = _Draw(N + H)
    G = _GATES[family] * H
    two_biases = options.get("convention", "book") != "book"
    inputs = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, G),
        "Wh": draw.weights(H, G),
        "b": draw.floats(*((2, G) if two_biases else (G,)), scale=0.5),
        "h0": draw.floats(N, H, scale=0.5),
        "mask": draw.rng.random((N, T)) < 0.8,
        **options,
    }
    upstream = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H)}
    if family == "lstm":
        inputs["c0"], upstream["dc_n"] = draw.floats(N, H), draw.floats(N, H)
    named = "".join(f"-{value}" for value in options.values())
    return Case(f"N{N}-T{T}-D{D}-H{H}{named}", f"{family}_forward", inputs, upstream)


def _cell(family: str, N: int, D: int, H: int) -> Case:
    draw = _Draw(N + H)
    G = _GATES[family] * H
    states = {name: draw.floats(N, H) for name in ("h_prev", "c_prev")}
    upstream = {"dh": draw.floats(N, H), "dc": draw.floats(N, H)}
    if family != "lstm":
        del states["c_prev"], upstream["dc"]
    weights = {"Wx": draw.weights(D, G), "Wh": draw.weights(H, G), "b": draw.floats(G)}
    return Case(f"N{N}-D{D}-H{H}", f"{family}_cell_forward", {"x": draw.floats(N, D), **states, **weights}, upstream)


def recurrent_cases() -> list[Case]:
    """Sequences and cells, with their gradients."""
    cases = [
        recurrent_case("lstm", 7, 5, 9, 33, reverse=True),
        recurrent_case("lstm", 20, 3, 16, 17, gate_order="fgio", recurrent_activation="hard_sigmoid"),
        recurrent_case("lstm", 1, 6, 16, 64),
        recurrent_case("lstm", 9, 2, 20, 130),
        *(recurrent_case("gru", 7, 5, 9, 33, convention=name, reverse=True) for name in ("book", "pytorch", "keras")),
        recurrent_case("gru", 20, 3, 16, 100, convention="pytorch"),
        recurrent_case("rnn", 7, 5, 9, 33, reverse=True),
        recurrent_case("rnn", 20, 3, 16, 100),
    ]
    return [*cases, *(_cell(family, N, 16, H) for family in _GATES for N, H in ((1, 33), (7, 100)))]


def _embedding_cases() -> list[Case]:
    cases: list[Case] = []
    for V, E, M, dtype in ((50, 17, 300, np.int64), (400, 64, 90, np.int32), (3, 5, 5000, np.int64)):
        draw = _Draw(V)
        ids, rows = draw.ids(V, M).astype(dtype), draw.floats(M, E)
        name = f"V{V}-E{E}-M{M}"
        backward = {"ids": ids, "dout": rows, "num_embeddings": V}
        cases += [
            Case(name, "embedding_forward", {"W": draw.floats(V, E), "ids": ids.reshape(-1, 5)}),
            Case(name, "embedding_backward", {**backward, "padding_idx": 1, "out": np.full((V, E), np.nan)}),
            Case(name, "embedding_backward_rows", {"ids": ids, "dout": rows}),
            Case(name, "scatter_add", {"target": draw.floats(V, E), "ids": ids, "rows": rows}),
        ]
    return cases


def _product_and_loss_cases() -> list[Case]:
    draw = _Draw(3)
    cases = [
        Case(
            f"M{M}-K{K}-X{X}",
            "matrix_product",
            {"a": draw.floats(M, K), "b": draw.weights(K, X), "bias": draw.floats(X)},
        )
        for M, K, X in ((1, 33, 200), (13, 101, 77), (130, 64, 17))
    ]
    cases.append(Case("batch", "batched_product", {"a": draw.floats(3, 5, 17), "b": draw.weights(3, 17, 7)}))
    for rows, H, V in ((7, 16, 17), (33, 17, 1000), (70, 64, 513)):
        targets = draw.ids(V, rows)
        targets[::4] = -1
        linear = {"h": draw.floats(rows, H), "W": draw.weights(H, V), "b": draw.floats(V), "targets": targets}
        tied = {**linear, "W": draw.weights(V, H).T, "reduction": "sum"}
        name = f"rows{rows}-V{V}"
        cases += [
            Case(name, "softmax_cross_entropy", {"logits": draw.floats(rows, V, scale=3.0), "targets": targets}),
            Case(f"{name}-fast", "linear_cross_entropy", {**linear, "memory": "fast"}),
            Case(f"{name}-low", "linear_cross_entropy", {**linear, "memory": "low"}),
            Case(f"{name}-tied", "linear_cross_entropy", {**tied, "memory": "fast"}),
            Case(name, "softmax", {"logits": draw.floats(rows, V, scale=3.0), "temperature": 0.5}),
        ]
    labels = draw.rng.random((9, 5)).round(2)
    return [
        *cases,
        Case("labels", "sigmoid_cross_entropy", {"logits": draw.floats(9, 5, scale=3.0), "labels": labels}),
        Case("rows", "mean_squared_error", {"y": draw.floats(9, 5), "t": draw.floats(9, 5)}),
        *(
            Case(f"ratio{ratio}", "dropout_mask", {"xs": draw.floats(33, 70), "ratio": ratio, "seed": 2**64 - 1})
            for ratio in (0.0, 0.3)
        ),
    ]


def _optimizer_cases() -> list[Case]:
    states: dict[str, tuple[str, ...]] = {
        "sgd": (),
        "momentum": ("velocities",),
        "nesterov": ("velocities",),
        "adagrad": ("accumulators",),
        "rmsprop": ("accumulators",),
        "adam": ("m", "v"),
        "adamw": ("m", "v"),
    }
    cases: list[Case] = []
    for (rule, names), shape in itertools.product(states.items(), ((33,), (20, 17))):
        draw = _Draw(len(cases))
        inputs: dict[str, Any] = {"params": draw.floats(*shape), "grads": draw.floats(*shape), "lr": 0.05}
        inputs |= {name: draw.floats(*shape) for name in names}
        inputs |= {name: inputs[name] ** 2 for name in ("accumulators", "v") if name in names}
        if "v" in names:
            inputs["step"] = 3
        cases.append(Case(f"{len(shape)}d", f"{rule}_update", {**inputs, "grad_scale": 0.25}))
        if len(shape) == 2:
            rows = RowGrad(np.array([1, 4, 5, 19]), draw.floats(4, shape[1]))
            cases.append(Case("rows", f"{rule}_update", {**inputs, "grads": rows}))
    draw = _Draw(9)
    grads = [draw.floats(33, 17), draw.floats(5), RowGrad(np.array([1, 4]), draw.floats(2, 7)), draw.floats(20_001)]
    return [
        *cases,
        Case("norm", "global_norm", {"grads": grads}),
        Case("norm", "clip_grad_norm", {"grads": grads, "max_norm": 5.0}),
        Case("value", "clip_grad_value", {"grads": grads, "limit": 0.3}),
    ]


def _sampling_cases() -> list[Case]:
    draw = _Draw(5)
    cases: list[Case] = []
    for B, num_true, S, E, V in ((5, 1, 7, 15, 20), (33, 2, 64, 100, 1000)):
        counts = np.abs(draw.floats(B, num_true)) + 0.1, np.abs(draw.floats(S)) + 0.1
        arrays = {
            "weights": draw.weights(V, E),
            "labels": draw.ids(V, B, num_true),
            "inputs": draw.floats(B, E),
            "candidates": Candidates(draw.ids(V, S), *counts, S),
        }
        with_biases = {**arrays, "biases": draw.floats(V, scale=0.5)}
        upstream = {"dlogits": draw.floats(B, num_true + S)}
        name = f"B{B}-S{S}-E{E}"
        cases += [
            Case(name, "sampled_logits_forward", {**with_biases, "remove_accidental_hits": True}, upstream),
            Case(name, "nce_loss", with_biases),
            Case(name, "sampled_softmax_loss", with_biases),
            Case(name, "negative_sampling_loss", arrays),
        ]
    return cases


def sample_cases() -> list[Case]:
    """Draws of classes, the same on every backend; their expected counts are float64 in any case."""
    labels = np.array([[0, 7], [499, 3]])
    table = ops.UnigramTable(np.arange(500.0))
    counts = {"classes": labels, "num_tries": 33, "range_max": 500, "num_sampled": 20}
    cases = [Case("counts", "log_uniform_expected_count", counts)]
    for unique in (False, True):
        drawn = {"num_sampled": 200, "true_classes": labels, "unique": unique, "seed": 2**63 + 5}
        cases += [
            Case(f"unique{unique:d}", "log_uniform_candidates", {**drawn, "range_max": 50_000}),
            Case(f"unique{unique:d}", "unigram_candidates", {**drawn, "counts": table}),
        ]
    return cases


def _skipgram_cases() -> list[Case]:
    draw = _Draw(6)
    ids = draw.ids(9, 200)
    ids[::7] = -1
    pairs = {"ids": ids, "window": 4, "seed": 2**63 + 7}
    table = ops.UnigramTable(draw.ids(50, 40) + 1)
    update = {"vectors": draw.floats(40, 64, scale=0.5), "weights": draw.floats(40, 64, scale=0.5), "table": table}
    update |= {"centers": draw.ids(40, 50), "contexts": draw.ids(40, 50), "num_sampled": 4, "lr": 0.05, "seed": 5}
    words = {**update, "counts": np.tile([1, 2, 3, 4], 5), "centers": draw.ids(40, 20)}
    return [
        Case("text", "subsample", {"ids": ids, "keep": np.linspace(0, 1.2, 9), "seed": 5}),
        Case("text", "skipgram_counts", pairs),
        Case("text", "skipgram_pairs", pairs),
        Case("pairs", "negative_sampling_update", update),
        Case("words", "cbow_update", {**words, "divide_step": True}),
    ]


def other_cases() -> list[Case]:
    """All families but the recurrent ones."""
    return [
        *_embedding_cases(),
        *_product_and_loss_cases(),
        *_optimizer_cases(),
        *_sampling_cases(),
        *_skipgram_cases(),
    ]
