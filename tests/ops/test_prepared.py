"""Prepared weights: the bits of the weights they were made of, in every backend, and through the models."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from fastlstm import get_num_threads, ops, set_num_threads, use_backend
from fastlstm.contract import TOLERANCE, FloatArray, GRUConvention, Precision
from fastlstm.layers import TimeAffineWithLoss, TimeBiLSTM, TimeGRU, TimeLSTM, TimeRNN
from fastlstm.layers.tied_output import TiedOutput
from fastlstm.models import RNNLM, Seq2seq

# One row and one or two steps have ways of their own; 130 leaves a tail of every vector, and 0 rows or steps are legal.
SHAPES = [(1, 1, 7, 5), (1, 2, 9, 130), (1, 5, 9, 65), (3, 4, 20, 70), (9, 3, 33, 130), (0, 3, 4, 5), (2, 0, 4, 5)]
KINDS: list[tuple[str, int, dict[str, Any]]] = [
    ("lstm", 4, {"gate_order": "fgio"}),
    ("gru", 3, {"convention": "book"}),
    ("gru", 3, {"convention": "pytorch"}),
    ("gru", 3, {"convention": GRUConvention("nzr", reset_after=False, z_keeps=True)}),
    ("rnn", 1, {}),
]


def _draw(*shape: int, dtype: str = "float32") -> FloatArray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype) / 4


@pytest.mark.parametrize(("cell", "gates", "options"), KINDS)
def test_prepared_weights_change_no_bit(backend: str, cell: str, gates: int, options: dict[str, Any]) -> None:
    variants = [("Wx Wh b", "float32")]
    if backend == "cpp":  # the one that packs
        variants += [("Wx Wh b", "float64"), ("Wx Wh", "float32"), ("Wh b", "float32")]
    for (has, dtype), (N, T, D, H) in itertools.product(variants, SHAPES):
        G = gates * H
        columns = D if "Wx" in has else G
        Wx = _draw(D, G, dtype=dtype) if "Wx" in has else None
        Wh = np.asfortranarray(_draw(H, G, dtype=dtype))
        biases = (2, G) if options.get("convention") == "pytorch" else (G,)
        b = _draw(*biases, dtype=dtype) if "b" in has else None
        given: dict[str, Any] = {"h0": _draw(N, H, dtype=dtype), "mask": _draw(T, N) < 0.2, "reverse": True}
        if cell == "lstm":
            given["c0"] = _draw(N + 1, H, dtype=dtype)[1:]
        xs = _draw(T, N, columns, dtype=dtype)
        forward = getattr(ops, f"{cell}_forward")
        with use_backend(backend):
            prepared = getattr(ops, f"prepare_{cell}")(Wx, Wh, b, **options)
            expected = forward(xs, Wx, Wh, b, **options, **given, time_major=True, training=False)
            for array in (Wx, Wh, b):
                if array is not None:
                    array[...] = np.nan  # a snapshot does not see it
        got = forward(xs, prepared, **given, time_major=True, training=False)
        assert got.tape is None
        for name in expected._fields[:-1]:
            message = f"{name} of {has}, {dtype}, {N, T, D, H}"
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=message)


# Rows alone, and with others; 130 is no whole number of panels, 1,025 of pairs, and 40 by 700 by 300 takes two threads.
PRODUCTS = [(1, 1, 1), (1, 9, 130), (1, 1025, 200), (1, 700, 900), (3, 20, 70), (13, 33, 64), (40, 700, 300), (0, 3, 5)]


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prepared_matrix_changes_nothing(backend: str, dtype: str, precision: Precision | None) -> None:
    if precision == "bf16" and dtype == "float64":
        pytest.skip("bf16 is of float32 arrays")
    for (M, K, L), transposed, has_bias in itertools.product(PRODUCTS, (False, True), (False, True)):
        a, b = _draw(M, K, dtype=dtype), _draw(K, L, dtype=dtype)
        b = np.asfortranarray(b) if transposed else b
        bias = _draw(L, dtype=dtype) if has_bias else None
        with use_backend(backend):
            prepared = ops.prepare_dense(b, bias, precision=precision)
            expected = ops.matrix_product(a, b, bias=bias, precision=precision)
            for array in (b, bias):
                if array is not None:
                    array[...] = np.nan  # a snapshot does not see it
        for threads in (1, 2, 3) if backend == "cpp" else (1,):
            before = get_num_threads()
            try:
                set_num_threads(threads)
                got = ops.matrix_product(a, prepared)
                out = np.full_like(expected, np.nan)
                assert ops.matrix_product(np.asfortranarray(a), prepared, out=out) is out
            finally:
                set_num_threads(before)
            assert got.flags.c_contiguous
            # OpenBLAS's last bits depend on where an array lies in memory.
            limit = 0.0 if backend == "cpp" else TOLERANCE[dtype]
            for one in (got, out):
                message = f"{M, K, L}, {transposed}, {has_bias}, {threads}"
                np.testing.assert_allclose(one, expected, rtol=limit, atol=limit, err_msg=message)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_steps_of_one_row_are_the_definitions(backend: str, cell: str, precision: Precision) -> None:
    """As texts are generated, with prepared weights, in any number of threads; 300 units take two."""
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    forward, prepare = getattr(ops, f"{cell}_forward"), getattr(ops, f"prepare_{cell}")
    for D, H in ((7, 5), (65, 130), (300, 300)):
        xs, h0 = _draw(1, 1, D), _draw(1, H)
        weights = _draw(D, gates * H), _draw(H, gates * H), _draw(gates * H)
        with use_backend("numpy"):
            want = forward(xs, *weights, h0=h0, training=False, precision=precision)
        with use_backend(backend):
            prepared = prepare(*weights, precision=precision)
        results, before = [], get_num_threads()
        try:
            for threads in (1, 2, 3):
                set_num_threads(threads)
                results.append(forward(xs, prepared, h0=h0, training=False))
        finally:
            set_num_threads(before)
        for got in results:
            np.testing.assert_array_equal(got.hs, results[0].hs)
            np.testing.assert_array_equal(got.h_n, results[0].h_n)
            np.testing.assert_allclose(got.hs, want.hs, rtol=0, atol=TOLERANCE["float32"])


def _layers() -> list[Any]:
    lstm: Any = [_draw(6, 20), _draw(5, 20), _draw(20)]
    return [
        TimeRNN(_draw(6, 5), _draw(5, 5), _draw(5)),
        TimeLSTM(*lstm),
        TimeGRU(_draw(6, 15), _draw(5, 15), _draw(2, 15), convention="keras"),
        TimeBiLSTM(*lstm, *[2 * weight for weight in lstm]),
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_prepared_output_layer_reads_its_snapshot_for_scores_alone(tied: bool) -> None:
    W, b = _draw(5, 9), _draw(9)
    layer = TiedOutput(np.ascontiguousarray(W.T), b) if tied else TimeAffineWithLoss(W, b)
    hs, ts = _draw(2, 3, 5), np.arange(6).reshape(2, 3)
    before = layer.scores(hs)
    layer.set_prepared(True)
    for param in layer.params:
        param *= 2
    np.testing.assert_array_equal(layer.scores(hs), before)
    losses = layer.forward(hs, ts), layer.forward(hs, ts, weights=np.ones((2, 3), np.float32))
    layer.set_prepared(False)
    assert losses == (layer.forward(hs, ts), layer.forward(hs, ts, weights=np.ones((2, 3), np.float32)))
    assert not np.array_equal(layer.scores(hs), before)


@pytest.mark.parametrize("layer", _layers(), ids=lambda layer: type(layer).__name__)
def test_prepared_layer_reads_its_snapshot_without_training_alone(layer: Any) -> None:
    xs = _draw(3, 4, 6)
    before = layer.forward(xs, training=False)
    layer.set_prepared(True)
    for param in layer.params:
        param *= 2
    np.testing.assert_array_equal(layer.forward(xs, training=False), before)
    assert not np.array_equal(layer.forward(xs), before)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not np.array_equal(copied.forward(xs, training=False), before)
    layer.set_prepared(False)
    assert not np.array_equal(layer.forward(xs, training=False), before)


def test_models_prepare_their_weights_and_forget_them(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []

    def prepare(*weights: FloatArray, **options: Any) -> Any:
        prepared.append(weights)
        return ops.prepare_lstm(*weights, **options)

    monkeypatch.setattr("fastlstm.layers.recurrent.ops", _Ops(prepare))
    model = RNNLM(9, 4, 5, num_layers=2, seed=1)
    corpus = np.arange(40) % 9
    model.generate(3, 5)
    assert len(prepared) == 2
    before = model.evaluate(corpus)["loss"]
    assert len(prepared) == 4
    for param in model.params:
        param *= 2
    assert model.evaluate(corpus)["loss"] != before

    translator = Seq2seq(9, 4, 5, seed=1)
    prepared.clear()
    with pytest.raises(ValueError, match="beam"):
        translator.generate(np.ones((2, 3), int), 0, 4, beam=0)
    translator.generate(np.ones((2, 3), int), 0, 4, beam=2)
    assert len(prepared) == 2


class _Ops:
    """`fastlstm.ops` with another ``prepare_lstm``."""

    def __init__(self, prepare_lstm: Any) -> None:
        self.prepare_lstm = prepare_lstm

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)
