"""Prepared weights: the bits of the weights they were made of, in every backend, and through the models."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, use_backend
from fastlstm.contract import FloatArray, GRUConvention
from fastlstm.layers import TimeBiLSTM, TimeGRU, TimeLSTM, TimeRNN
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


def _layers() -> list[Any]:
    lstm: Any = [_draw(6, 20), _draw(5, 20), _draw(20)]
    return [
        TimeRNN(_draw(6, 5), _draw(5, 5), _draw(5)),
        TimeLSTM(*lstm),
        TimeGRU(_draw(6, 15), _draw(5, 15), _draw(2, 15), convention="keras"),
        TimeBiLSTM(*lstm, *[2 * weight for weight in lstm]),
    ]


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
