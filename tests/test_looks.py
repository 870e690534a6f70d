"""What objects show of themselves at a prompt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tiny_models import MAKERS

import fastlstm
from fastlstm import layers, optim
from fastlstm.models import Seq2seq, SequenceClassifier
from fastlstm.training import History


def test_the_package_shows_what_a_user_looks_for() -> None:
    rooms = {"callbacks", "datasets", "layers", "models", "ops", "optim"}
    assert set(dir(fastlstm)) == rooms | set(fastlstm.__all__)
    for name in dir(fastlstm):
        getattr(fastlstm, name)


@pytest.mark.parametrize("name", MAKERS)
def test_a_model_says_how_to_make_it(name: str) -> None:
    model = MAKERS[name][0]()
    made, _, rest = repr(model).partition(": ")
    other = eval(made, {type(model).__name__: type(model)})
    assert other.saved_options == model.saved_options
    assert rest == f"{model.num_parameters:,} parameters, float64 on cpu"


def test_defaults_of_a_model_are_not_shown() -> None:
    shown = "SequenceClassifier(vocab_size=1000, wordvec_size=50, hidden_size=64, num_classes=2, dropout=0.5)"
    assert repr(SequenceClassifier(1000, 50, 64, 2, dropout=0.5)) == f"{shown}: 79,570 parameters, float32 on cpu"


def test_layers_say_their_shapes_and_settings() -> None:
    W = np.zeros((5, 3))
    assert repr(layers.Affine(W, W[0])) == "Affine(W (5, 3), b (3,))"
    assert repr(layers.TimeDropout(0.2)) == "TimeDropout(dropout_ratio=0.2)"
    assert repr(layers.NCELoss(W, W[:, 0], num_sampled=2)) == "NCELoss(W (5, 3), b (5,), num_sampled=2)"
    for layer in Seq2seq(7, 3, 4, attention=True, bidirectional=True).layers.values():
        assert repr(layer).startswith(f"{type(layer).__name__}(")


def test_optimizers_say_their_settings() -> None:
    optimizer = optim.AdamW(0.5)
    assert repr(optimizer) == "AdamW(lr=0.5, beta1=0.9, beta2=0.999, weight_decay=0.004)"
    optimizer.update([np.ones(2)], [np.ones(2)])
    assert repr(optimizer).endswith(") after 1 update")
    assert repr(optim.SGD()) == "SGD(lr=0.01)"


def history(**values: list[float]) -> History:
    made = History()
    for epoch, row in enumerate(zip(*values.values(), strict=True)):
        made.append(epoch, dict(zip(values, row, strict=True)))
    return made


def test_a_history_is_a_curve() -> None:
    assert repr(history(loss=[8.0, 4.5, 1.0], val_loss=[1.0, 1.0, 1.5])) == (
        "History of 3 epochs\n  loss      █▅▁  8 to 1\n  val_loss  ▁▁█  1 to 1.5"
    )
    assert repr(history(loss=[0.25])) == "History of 1 epoch\n  loss  ▁  0.25"
    assert repr(History()) == "History of 0 epochs"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, math.nan, 2.0, math.inf], "▁x█x"),
        ([math.nan], "x"),
        ([-1.7e308, 1.7e308], "▁█"),
        ([0.0, 5e-324], "▁▁"),
        ([float(n) for n in range(1001)], "▁▁▁▂▂▂▂▂▂▃▃▃▃▃▄▄▄▄▄▄▅▅▅▅▅▅▆▆▆▆▆▇▇▇▇▇▇███"),
    ],
)
def test_curves_of_any_numbers(values: list[Any], shown: str) -> None:
    assert repr(history(loss=values)).splitlines()[1].split()[1] == shown
