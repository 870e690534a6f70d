"""What the tests of the CUDA backend run, on an emulated GPU and on a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cases
import numpy as np
import recurrent_cases
from draw import Draw

from fastlstm import ops
from fastlstm.contract import Candidates, IntArray, Precision
from fastlstm.testing import Case, check_backend

H200 = {"multiprocessors": 132, "shared_bytes": 232448, "largest_cluster": 16}
# So few and so small that short sequences take several units, several groups of rows, weights that do not fit, and
# several passes one after the other.
SMALL = {"multiprocessors": 12, "shared_bytes": 60_000, "largest_cluster": 8}

RUNS: list[tuple[str, Precision]] = [
    ("plain", "float32"),
    ("plain", "float64"),
    ("plain", "tf32"),
    ("plain", "bf16"),
    ("step", "float32"),
    ("step", "float64"),
    ("step", "tf32"),
    ("step", "bf16"),
    ("persistent", "float32"),
    ("persistent", "float64"),
    ("persistent", "tf32"),
    ("persistent", "bf16"),
    ("rows", "float32"),
    ("cluster", "float32"),
    ("cluster", "float64"),
    ("cluster", "tf32"),
    ("cluster", "bf16"),
]
# Families without a choice of kernels, in the precisions of the arrays.
RECURRENT = [
    *recurrent_cases.LSTM,
    *recurrent_cases.LSTM_GATE_ORDERS,
    *recurrent_cases.GRU,
    *recurrent_cases.RNN,
    *recurrent_cases.CELLS,
    *recurrent_cases.LSTM_LAYOUTS,
    *recurrent_cases.GRU_LAYOUTS,
    *recurrent_cases.RNN_LAYOUTS,
    *(case for case in recurrent_cases.RECURRENT_INTO if case.name.startswith("H17")),
]


def fits(case: Case, kernel: str, precision: str) -> bool:
    """Whether the kernel takes the case on the SMALL device, in bearable time."""
    H = case.inputs["Wh"].shape[0]
    if case.name.startswith(("layout", "convention", "H17-")) and (kernel, precision) != ("step", "float32"):
        return False  # what surrounds the kernels is the same for all of them
    if case.name == "addition" or (precision in ("tf32", "bf16") and case.name.startswith("saturated")):
        return False  # the emulation is slow; inputs of 1000 leave no digits to compare
    if kernel == "rows":
        return case.op.startswith("lstm") and H < 100  # wider ones have their own test
    if kernel == "cluster":
        widest = {"float64": 64, "bf16": 130}.get(precision, 100)  # of the cases that 8 blocks hold
        return not case.op.startswith("gru") and widest >= H
    if kernel == "persistent" and case.op == "gru_forward" and H > 12 * 20:
        return False  # a multiprocessor takes 21 units, of three columns each
    return not (kernel == "persistent" and precision == "float64" and H >= 100)


def in_precision(case: Case, precision: Precision) -> None:
    dtype = "float64" if precision == "float64" else "float32"
    check_backend("cuda", case, dtype, precision=precision)


def gru_case(N: int, T: int, D: int, H: int, convention: str, **options: Any) -> Case:
    """A GRU with a mask, a state and all upstream gradients."""
    draw = Draw(f"cuda gru {N} {T} {D} {H}")
    bias = draw.floats(2, 3 * H, scale=0.5)
    inputs = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, 3 * H),
        "Wh": draw.weights(H, 3 * H),
        "b": bias[0] if convention == "book" else bias,
        "h0": draw.floats(N, H, scale=0.5),
        "mask": draw.rng.random((N, T)) < 0.8,
        "convention": convention,
        **options,
    }
    upstream = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H)}
    return Case(f"N{N}-T{T}-D{D}-H{H}-{convention}", "gru_forward", inputs, upstream)


def recurrent_case(N: int, T: int, D: int, H: int, **options: Any) -> Case:
    """An LSTM with a mask, states and all upstream gradients."""
    draw = Draw(f"cuda {N} {T} {D} {H}")
    inputs = {
        "xs": draw.floats(N, T, D),
        "Wx": draw.weights(D, 4 * H),
        "Wh": draw.weights(H, 4 * H),
        "b": draw.floats(4 * H, scale=0.5),
        "h0": draw.floats(N, H, scale=0.5),
        "c0": draw.floats(N, H),
        "mask": draw.rng.random((N, T)) < 0.8,
        **options,
    }
    upstream = {"dhs": draw.floats(N, T, H), "dh_n": draw.floats(N, H), "dc_n": draw.floats(N, H)}
    return Case(f"N{N}-T{T}-D{D}-H{H}", "lstm_forward", inputs, upstream)


# --------------------------------------------------------------------------------------------
# Embedding and losses
# --------------------------------------------------------------------------------------------


def embedding_cases(name: str, V: int, E: int, ids: IntArray) -> list[Case]:
    """Dense and row gradients and scatter_add."""
    draw = Draw(f"cuda embedding {name}")
    ids = ids.copy()
    dout = draw.floats(ids.size, E)
    backward = {"ids": ids, "dout": dout, "num_embeddings": V}
    return [
        Case(name, "embedding_backward", backward),
        Case(name + "-padding", "embedding_backward", {**backward, "padding_idx": int(ids[0])}),
        Case(name, "embedding_backward_rows", {"ids": ids, "dout": dout}),
        Case(name, "scatter_add", {"target": draw.floats(V, E), "ids": ids, "rows": dout}),
    ]


def _many_ids() -> list[Case]:
    """Beyond one chunk of the sort, and segments through more groups of the sum than a thread adds at once."""
    draw = Draw("cuda many ids")
    text = np.minimum(draw.rng.zipf(1.3, 20_001), 500) - 1
    return [
        *embedding_cases("one-id", 3, 5, np.full(1500, 2)),
        *embedding_cases("two-ids", 3, 2, np.repeat([2, 0], [900, 700])),
        *embedding_cases("one-chunk", 300, 4, draw.ids(300, 8192)),
        *embedding_cases("two-chunks", 400, 3, draw.ids(400, 8193, dtype=np.int32)),
        *embedding_cases("text", 500, 1, text),
        *embedding_cases("text-int32", 500, 2, text.astype(np.int32)),
        Case("wide-ids", "embedding_backward_rows", {"ids": draw.ids(40, 300) << 40, "dout": draw.floats(300, 6)}),
    ]


def losses_case(name: str, rows: int, V: int, *, ignored: float = 0.2) -> Case:
    draw = Draw(f"cuda losses {name}")
    targets = draw.ids(V, rows)
    targets[draw.rng.random(rows) < ignored] = -1
    return Case(name, "softmax_cross_entropy", {"logits": draw.floats(rows, V, scale=3.0), "targets": targets})


def _poisoned(memory: str) -> Case:
    """Rows that are not valid hold NaN, and nothing may come of it."""
    draw = Draw("cuda poisoned")
    h, targets = draw.floats(9, 17), draw.ids(33, 9, dtype=np.int32)
    targets[[0, 4, 8]] = 5
    h[targets == 5] = np.nan
    inputs = {"h": h, "W": draw.weights(17, 33), "b": draw.floats(33), "targets": targets}
    return Case(f"poisoned-{memory}", "linear_cross_entropy", {**inputs, "ignore_index": 5, "memory": memory})


OF_A_FAMILY = {
    "embedding": [*cases.EMBEDDING, *_many_ids()],
    "losses": [
        *cases.LOSSES,
        *cases.LOSSES_INTO,
        *cases.PLAIN_LOSSES,
        # numpy, which stands behind the emulation's arrays, warns of -inf - -inf; CuPy does not.
        *(case for case in cases.SOFTMAX if case.name != "nothing-but-minus-infinity"),
        # A row of a warp at most, of a block, and beyond what stays in shared memory; in packs of 1, 2 and 4.
        *(losses_case(f"V{V}", 3, V) for V in (509, 510, 512, 513, 514, 516, 10_239, 10_242, 10_244)),
        losses_case("many-means", 16_385, 2),
        _poisoned("fast"),
        _poisoned("low"),
    ],
    "sampling": cases.SAMPLING,
    "dense": cases.DENSE,
    "dropout": cases.DROPOUT,
    "optim": cases.OPTIM,
}


# --------------------------------------------------------------------------------------------
# Sampled classes
# --------------------------------------------------------------------------------------------


def samples(labels: Any) -> Iterator[Candidates]:
    """Drawn from one stream of seeds; labels lie where the sample is to be."""
    rng = np.random.default_rng(11)
    table = ops.UnigramTable(np.arange(5000.0))
    for unique in (True, False):
        for num_sampled, range_max in [(1, 1), (64, 50_000), (200, 200), (1500, 10**9)]:
            yield ops.log_uniform_candidates(num_sampled, range_max, labels[:1], unique=unique, rng=rng)
        yield ops.unigram_candidates(table, 600, labels, unique=unique, rng=rng)


def sampled_case(op: str, B: int, K: int, S: int, E: int, V: int) -> Case:
    draw = Draw(f"cuda sampled {B} {K} {S} {E}")
    counts = np.abs(draw.floats(B, K)) + 0.1, np.abs(draw.floats(S)) + 0.1
    inputs = {
        "weights": draw.weights(V, E),
        "biases": draw.floats(V),
        "labels": draw.ids(V, B, K),
        "inputs": draw.floats(B, E),
        "candidates": Candidates(draw.ids(V, S), *counts, S),
        "remove_accidental_hits": True,
    }
    upstream = {"dlogits": draw.floats(B, K + S)} if op == "sampled_logits_forward" else {}
    return Case(f"B{B}-K{K}-S{S}-E{E}", op, inputs, upstream)


def faults_of(family: str, dtype: str, after_each: Callable[[], None] = lambda: None) -> str:
    """What differs from the definition, over all cases of a family."""
    faults = []
    for case in OF_A_FAMILY[family]:
        try:
            check_backend("cuda", case, dtype)
            after_each()
        except (AssertionError, RuntimeError) as error:
            faults.append(f"{case}: {error}")
    return "\n".join(faults)
