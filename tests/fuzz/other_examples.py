"""Examples of the operators that are not recurrent, one function a family or a part of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz_arrays import Source

from fastlstm import ops
from fastlstm.contract import Candidates, IntArray, LinearLossGrads, RowGrad
from fastlstm.testing import Case

SEEDS = (0, 1, 12345, 2**63 - 1, 2**63, 2**64 - 1)


def embedding(source: Source, op: str) -> Case:
    V, E = source.pick((1, 2, 5, 17, 100, 1000)), source.width()
    ids = source.ids(V, *source.shape(int(source.choose.random() * 4), 9))
    if op == "embedding_forward":
        return Case("gather", op, {"W": source.laid_out(source.floats(V, E)), "ids": ids})
    dout = source.laid_out(source.floats(*ids.shape, E))
    if op == "embedding_backward_rows":
        return Case("rows", op, {"ids": ids, "dout": dout})
    if op == "scatter_add":
        if source.chance(0.1):  # all rows are read before the target changes
            target = source.floats(V, E)
            return Case("itself", op, {"target": target, "ids": source.ids(V, V), "rows": target})
        tail = () if source.chance(0.2) else (2, 3) if source.chance(0.2) else (E,)
        rows = source.laid_out(source.floats(*ids.shape, *tail))
        return Case("add", op, {"target": source.floats(V, *tail), "ids": ids, "rows": rows})
    inputs: dict[str, Any] = {"ids": ids, "dout": dout, "num_embeddings": V}
    if source.chance(0.3):
        inputs["padding_idx"] = int(source.choose.random() * V)
    way = source.choose.random()
    if way < 0.25:
        inputs["out"] = np.full((V, E), np.nan, source.dtype)
    elif way < 0.5:
        inputs |= {"out": source.floats(V, E, plain=True), "accumulate": True}
    elif way < 0.75:
        touched = source.ids(V, *source.shape(1, 20))
        inputs |= {"out": np.zeros((V, E), source.dtype), "touched": touched}
        inputs["out"][touched] = np.nan
    return Case("dense", op, inputs)


def product(source: Source, op: str) -> Case:
    M, K, L = source.count(), source.count(), source.count()
    if source.chance(0.05):
        M, K, L = source.pick(((1, 700, 30), (150, 20, 3), (3, 5, 400), (130, 257, 129)))
    inputs: dict[str, Any] = {}
    if op == "batched_product":
        N = source.count(5)
        inputs["a"], inputs["b"] = source.floats(N, M, K), source.floats(N, K, L)
        for name in ("a", "b"):
            if source.chance(0.3):
                inputs[name] = np.ascontiguousarray(inputs[name].swapaxes(1, 2)).swapaxes(1, 2)
            inputs[name] = source.laid_out(inputs[name])
    else:
        inputs["a"], inputs["b"] = source.weights(M, K), source.weights(K, L)
        if source.chance(0.5):
            inputs["bias"] = source.laid_out(source.floats(L))
        if source.chance(0.3):
            inputs["out"] = np.full((M, L), np.nan, source.dtype)
    if source.dtype == np.float32 and source.chance(0.25):
        inputs["precision"] = "bf16"
    return Case("product", op, inputs)


def dropout(source: Source, op: str) -> Case:
    xs = source.laid_out(source.floats(*source.shape(int(source.choose.random() * 4), 20)))
    return Case("mask", op, {"xs": xs, "ratio": source.pick((0, 0.1, 0.5, 0.999)), "seed": source.pick(SEEDS)})


def _divided(source: Source) -> dict[str, Any]:
    way = source.choose.random()
    if way < 0.2:
        return {"reduction": "sum"}
    return {"normalizer": source.pick((1, 2.5, 1e-3, 70))} if way < 0.4 else {}


def softmax(source: Source, op: str) -> Case:
    logits = source.laid_out(source.floats(*source.shape(1 + source.chance(0.3), 20), source.width()))
    inputs: dict[str, Any] = {"logits": logits}
    if source.chance(0.4):
        inputs["temperature"] = source.pick((1, 0.5, 3.0, 1e-3, 1e3))
    if source.chance(0.4):
        out = np.full(logits.shape, np.nan, source.dtype)
        inputs["out"] = logits if source.chance(0.4) and logits.flags.carray else out
    return Case("softmax", op, inputs)


def cross_entropy(source: Source, op: str) -> Case:
    V = source.pick((1000, 4097)) if source.chance(0.04) else source.width()
    leading = source.shape(1 + source.chance(0.3), 24)
    ignore_index = source.pick((-1, -1, -100, 0, V - 1, 2**40))
    targets = source.ids(V, *leading)
    if source.chance(0.5) and ignore_index < 2**31:
        targets = targets.copy()
        targets[source.rng.random(leading) < source.choose.random()] = ignore_index
    inputs: dict[str, Any] = {"targets": targets, "ignore_index": ignore_index, **_divided(source)}
    if op == "softmax_cross_entropy":
        inputs["logits"] = source.laid_out(source.floats(*leading, V, scale=source.pick((1.0, 30.0))))
        if source.chance(0.2):
            inputs["weights"] = source.laid_out(source.floats(*leading, plain=True))
        return Case("logits", op, inputs)
    H = source.width(97)
    inputs |= {"h": source.laid_out(source.floats(*leading, H)), "W": source.weights(H, V)}
    inputs["b"] = None if source.chance(0.2) else source.laid_out(source.floats(V))
    inputs["memory"] = source.pick(("fast", "low"))
    if source.dtype == np.float32 and source.chance(0.15):
        inputs["precision"] = "bf16"
    if source.chance(0.25):
        inputs["without"] = tuple(name for name in LinearLossGrads._fields if source.chance(0.4))
    if source.chance(0.3):
        accumulate = source.chance(0.5)

        def array(*shape: int, added: bool = True) -> Any:
            made = source.floats(*shape, plain=True) if accumulate and added else np.full(shape, np.nan, source.dtype)
            return None if source.chance(0.3) else made

        dW = array(H, V)
        if dW is not None and source.chance(0.4):
            dW = source.turned(dW)
        db = None if inputs["b"] is None else array(V)
        inputs["out"] = LinearLossGrads(None, array(*leading, H, added=False), dW, db)  # type: ignore[arg-type]
        inputs["accumulate"] = accumulate
    return Case("linear", op, inputs)


def elementwise_loss(source: Source, op: str) -> Case:
    shape = source.shape(int(source.choose.random() * 4), 12)
    first, second = source.floats(*shape), source.floats(*shape)
    if op == "mean_squared_error":
        weights = {"weights": source.floats(*shape[:-1], plain=True)} if shape and source.chance(0.2) else {}
        return Case(
            "loss", op, {"y": source.laid_out(first), "t": source.laid_out(second), **_divided(source), **weights}
        )
    labels = np.asarray(source.rng.random(shape) if source.chance(0.5) else second > 0, source.dtype)
    return Case("loss", op, {"logits": source.laid_out(first), "labels": source.laid_out(labels), **_divided(source)})


STATES: dict[str, tuple[str, ...]] = {
    "sgd_update": (),
    "momentum_update": ("velocities",),
    "nesterov_update": ("velocities",),
    "adagrad_update": ("accumulators",),
    "rmsprop_update": ("accumulators",),
    "adam_update": ("m", "v"),
    "adamw_update": ("m", "v"),
}


def _row_grad(source: Source, shape: tuple[int, ...]) -> RowGrad:
    indices = np.flatnonzero(source.rng.random(shape[0]) < source.choose.random())
    indices = indices.astype(source.pick((np.int64, np.int32)))
    return RowGrad(indices, source.laid_out(source.floats(len(indices), *shape[1:])))


def update(source: Source, op: str) -> Case:
    inputs: dict[str, Any] = {name: [] for name in ("params", "grads", *STATES[op])}
    lazy = op == "sgd_update" or source.chance(0.7)
    for _ in range(1 + source.count(3)):
        shape = source.shape(int(source.choose.random() * 4), 20)
        turned = source.chance(0.2)
        by_rows = len(shape) > 0 and source.chance(0.3) and not (turned and lazy and len(shape) > 1)
        for name in ("params", *STATES[op]):
            array = source.floats(*shape, positive=name in ("accumulators", "v"))
            inputs[name].append(source.turned(array) if turned else array)
        grad = source.floats(*shape)
        whole = source.turned(grad) if turned and source.chance(0.6) else source.laid_out(grad)
        inputs["grads"].append(_row_grad(source, shape) if by_rows else whole)
    if len(inputs["params"]) == 1 and source.chance(0.5):
        inputs = {name: arrays[0] for name, arrays in inputs.items()}
    inputs["lr"] = source.pick((0.0, 1e-3, 0.05, 1.0, 30.0, -0.1))
    if source.chance(0.4):
        inputs["grad_scale"] = source.pick((0.0, 0.25, 1.0, 1e-3, 7))
    if op != "sgd_update":
        inputs["lazy"] = lazy
    if "velocities" in inputs and source.chance(0.5):
        inputs["momentum"] = source.pick((0, 0.5, 0.999, 1.0))
    rates = (0, 0.5, 0.9, 0.999, 0.9999)
    if op == "rmsprop_update" and source.chance(0.6):
        inputs["decay"] = source.pick((*rates, 1.0))
    if op.startswith("adam"):
        inputs["step"] = source.pick((1, 2, 3, 100, 10**6))
        if source.chance(0.6):
            inputs |= {"beta1": source.pick(rates), "beta2": source.pick(rates)}
    if op == "adamw_update" and source.chance(0.6):
        inputs["weight_decay"] = source.pick((0, 0.01, 3.0))
    if op == "adagrad_update" and source.chance(0.4):
        inputs["eps_inside_root"] = True
    if op not in ("sgd_update", "momentum_update", "nesterov_update") and source.chance(0.4):
        inputs["eps"] = source.pick((1e-10, 1e-3, 1))
    return Case("update", op, inputs)


def clipping(source: Source, op: str) -> Case:
    if op == "clip_scale":
        norm = source.pick((0.0, 1.0, 1e-30, 1e30, np.inf, np.nan, abs(source.rng.standard_normal())))
        return Case("scale", op, {"norm": float(norm), "max_norm": source.pick((0.25, 1, 1e-20, 1e20))})
    grads: list[Any] = []
    for _ in range(source.count(4)):
        shape = source.shape(int(source.choose.random() * 4), 20)
        if shape and source.chance(0.2):
            rows = _row_grad(source, shape)
            grads.append(RowGrad(rows.indices, np.ascontiguousarray(rows.values)))
        else:
            array = source.floats(*shape)
            grads.append(source.turned(array) if source.chance(0.2) else array)
    if grads and source.chance(0.1):  # what stands there twice counts once
        grads.append(grads[0])
    inputs: dict[str, Any] = {"grads": grads[0] if len(grads) == 1 and source.chance(0.5) else grads}
    if op == "clip_grad_norm":
        inputs["max_norm"] = source.pick((1e-3, 0.5, 5.0, 1e6))
    elif op == "clip_grad_value":
        inputs["limit"] = source.pick((1e-3, 0.5, 5.0, 1e300))
    return Case("clip", op, inputs)


def candidates(source: Source, op: str) -> Case:
    V = source.pick((1, 2, 5, 17, 100, 5000))
    if op == "UnigramTable":
        counts = source.rng.integers(0, 50, V)
        counts[int(source.choose.random() * V)] += 1
        return Case(
            "table",
            op,
            {
                "counts": counts.astype(source.pick((np.int64, np.float32, np.uint8))),
                "power": source.pick((0, 0.75, 1, 3.5)),
            },
        )
    classes = source.ids(V, *source.shape(source.pick((0, 1, 1, 2)), 12))
    if op == "log_uniform_expected_count":
        S = source.width(64)
        tries = S + source.pick((0, 1, 50))
        inputs = {"classes": classes, "num_tries": tries, "range_max": V, "num_sampled": S}
        return Case("expected", op, {**inputs, "unique": source.chance(0.7)})
    unique = source.chance(0.5)
    inputs = {"true_classes": classes, "unique": unique, "seed": source.pick(SEEDS)}
    inputs["num_sampled"] = min(source.width(64), max(V // 3, 1)) if unique else source.width(64)
    if op == "log_uniform_candidates":
        return Case("drawn", op, {**inputs, "range_max": V})
    counts = source.rng.integers(1, 50, V)
    table = ops.UnigramTable(counts)
    return Case("drawn", op, {**inputs, "counts": table if source.chance(0.5) else counts})


def sampled(source: Source, op: str) -> Case:
    V, E, B, S = source.pick((1, 2, 7, 50, 1000)), source.width(), source.count(33), source.count(24)
    num_true = 1 + source.count(2)
    labels = source.ids(V, B) if num_true == 1 and source.chance(0.5) else source.ids(V, B, num_true)
    num_true = labels.size // B if B else num_true
    drawn: IntArray = source.ids(V, S)
    true_count, sampled_count = (np.abs(source.rng.standard_normal(shape)) + 0.1 for shape in (labels.shape, S))
    inputs: dict[str, Any] = {
        "weights": source.laid_out(source.floats(V, E, scale=1 / np.sqrt(E))),
        "labels": labels,
        "inputs": source.laid_out(source.floats(B, E)),
        "candidates": Candidates(drawn, true_count, sampled_count, S),
    }
    if op == "negative_sampling_loss":
        way = source.choose.random()
        if way < 0.7:
            inputs["candidates"] = drawn if way < 0.35 else source.ids(V, B, S)
        return Case("loss", op, inputs)
    inputs["biases"] = source.laid_out(source.floats(V, scale=0.5))
    if source.chance(0.5):
        inputs["remove_accidental_hits"] = source.chance(0.5)
    if op != "sampled_logits_forward":
        return Case("loss", op, inputs)
    if source.chance(0.4):
        inputs["subtract_log_q"] = False
    columns = (labels.shape[1] if labels.ndim == 2 else 1) + S
    return Case("logits", op, inputs, {"dlogits": source.laid_out(source.floats(B, columns))})


def skipgram(source: Source, op: str) -> Case:
    seed = source.pick(SEEDS)
    if op in ("negative_sampling_update", "cbow_update"):
        V, E, M = source.pick((2, 5, 40, 300)), source.width(100), source.count(24)
        inputs = {
            "vectors": source.floats(V, E, scale=0.3),
            "weights": source.floats(V, E, scale=0.3),
            "centers": source.ids(V, M),
            "contexts": source.ids(V, M),
            "table": ops.UnigramTable(source.rng.integers(1, 50, V)),
            "num_sampled": source.pick((1, 2, 5, 20)),
        }
        if op == "cbow_update":
            counts = source.rng.integers(1, 6, M)
            inputs |= {"counts": source.laid_out(counts), "contexts": source.ids(V, int(counts.sum()))}
            inputs["divide_step"] = source.chance(0.5)
        return Case("steps", op, {**inputs, "lr": source.pick((0.0, 0.025, 0.5)), "seed": seed})
    L = source.count()
    ids = np.where(source.rng.random(L) < source.pick((0.0, 0.2)), -1, source.rng.integers(0, 9, L))
    inputs = {"ids": source.laid_out(ids.astype(source.pick((np.int64, np.int32)))), "seed": seed}
    if source.chance(0.3):
        inputs["first"] = source.pick((0, 5, 10**9))
    if op == "subsample":
        keep = source.rng.random(9).astype(source.dtype) * 1.3
        return Case("text", op, {**inputs, "keep": source.laid_out(keep)})
    if source.chance(0.4):
        start, stop = sorted(int(source.choose.random() * (L + 1)) for _ in range(2))
        inputs |= {"start": start, "stop": stop}
    return Case("text", op, {**inputs, "window": source.pick((1, 2, 5, 70))})


def gates(source: Source, op: str) -> Case:
    order = list(source.pick(("ifgo", "zrn")))
    source.choose.shuffle(order)
    axis = source.pick((-1, 0))
    shape = source.shape(1 + source.chance(0.6), 12)
    inputs: dict[str, Any] = {"gate_order": "".join(order), "axis": axis}
    if op == "pack_gates":
        inputs["gates"] = {gate: source.laid_out(source.floats(*shape)) for gate in order}
        return Case("pack", op, inputs)
    longer = list(shape)
    longer[axis] *= len(order)
    return Case("unpack", op, {**inputs, "W": source.laid_out(source.floats(*longer))})
