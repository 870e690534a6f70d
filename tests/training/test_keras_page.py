"""docs/keras.md: every line of its first table runs, and does what the cell beside it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "keras.md"
TEXT = PAGE.read_text() if PAGE.exists() else ""
LINES = re.findall(r"^\| (.+) \| `(.+)` \|$", TEXT.partition("## Not the same")[0], re.MULTILINE)

pytestmark = pytest.mark.skipif(not TEXT, reason="the page is not beside the tests")


def epochs(n: Any) -> dict[str, int]:
    return {name: len(values) for name, values in n.history.history.items()}


def trained_as(n: Any, *data: Any, **options: Any) -> bool:
    """Whether the model has the weights of a training with plainer arguments."""
    model = type(n.model)(**n.model.options)
    model.fit(*data, verbose=0, **options)
    return same(model, n.model)


def same(model: Any, other: Any) -> bool:
    return all(map(np.array_equal, model.get_weights(), other.get_weights()))


def cross_entropy(n: Any) -> Any:
    return -np.log(n.model.predict(n.x)[np.arange(12), n.y])


# By the beginning of a line's first cell, whether its names are what it says.
HOLDS: dict[str, Callable[[Any], Any]] = {
    "Optimiser and metrics": lambda n: list(n.history) == ["loss", "acc"],
    "Defaults": lambda n: trained_as(n, n.x, n.y, epochs=1, batch_size=32, optimizer="adam"),
    "The learning rate": lambda n: n.optimizer.lr == n.optimizer.learning_rate == 0.01,
    "Two classes": lambda n: trained_as(n, n.x, n.y),
    "... as bool": lambda n: trained_as(n, n.x, n.y),
    "... one-hot": lambda n: trained_as(n, n.x, n.y),
    "... by name": lambda n: trained_as(n, n.x, n.y) and n.model.classes == ["no", "yes"],
    "One number a row": lambda n: epochs(n) == {"loss": 1},
    "`sample_weight`": lambda n: np.isclose(n.loss, (n.w * cross_entropy(n)).mean(), rtol=1e-5),
    "... of each step": lambda n: epochs(n) == {"loss": 1},
    "`class_weight`": lambda n: trained_as(n, n.x, n.y, sample_weight=1 + 4 * n.y),
    "A generator": lambda n: epochs(n) == {"loss": 2},
    "What can be read again": lambda n: trained_as(n, n.x, n.y, batch_size=6, shuffle=False, epochs=2),
    "Batches with weights": lambda n: trained_as(n, n.x, n.y, sample_weight=n.w, shuffle=False),
    "`validation_split`": lambda n: n.history.history["val_loss"] == [n.model.evaluate(n.x[9:], n.y[9:])["loss"]],
    "`validation_data`": lambda n: n.history.history["val_loss"] == [n.model.evaluate(n.x, n.y)["loss"]],
    "`initial_epoch`": lambda n: n.history.epoch == [2, 3, 4],
    "Callbacks": lambda n: n.history.epoch == [0, 1],
    "A schedule": lambda n: n.schedule.schedule(1) == 0.05,
    "`return_dict`": lambda n: set(n.result) == {"loss", "accuracy", "error"},
    "`predict`": lambda n: n.p.shape == (12, 2),
    "Weights as a list": lambda n: same(n.model, n.other),
    '"mse"': lambda n: list(n.result) == ["loss", "mse", "mean_absolute_error"] and n.result["mse"] > 0,
}


@pytest.mark.parametrize(("title", "code"), LINES, ids=[title[:30] for title, _ in LINES])
def test_every_line_does_what_it_says(title: str, code: str) -> None:
    (names,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(names, namespace)
    exec(code, namespace)
    (holds,) = (check for start, check in HOLDS.items() if title.startswith(start))
    assert holds(SimpleNamespace(**namespace))


def test_every_line_is_checked() -> None:
    assert sorted(start for title, _ in LINES for start in HOLDS if title.startswith(start)) == sorted(HOLDS)
    assert len(LINES) == len(HOLDS)
