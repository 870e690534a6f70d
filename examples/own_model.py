"""A model of one's own, of layers: which kind of wave is a series of numbers?

    python examples/own_model.py

docs/own_model.md goes through it. `fastlstm.models.RowModel` brings fit, evaluate, save, load, summary, a progress bar,
callbacks, checkpoints, shards and GPUs; the model says what its layers are, and how a batch goes through them.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

import fastlstm
from fastlstm import callbacks, optim
from fastlstm.layers import TimeAffineWithLoss, TimeBiGRU, TimeMeanPooling
from fastlstm.models import RowModel

KINDS = ("sine", "square", "saw")


class SeriesClassifier(RowModel):
    """A bidirectional GRU over series (N, T, D), the mean of its states, and the probability of every class."""

    metric_names = ("loss", "accuracy")

    def __init__(self, input_size: int, hidden_size: int, num_classes: int, *, seed: int | None = None) -> None:
        # What `load` calls the constructor with.
        options = {"input_size": input_size, "hidden_size": hidden_size, "num_classes": num_classes, "seed": seed}
        super().__init__(options, seed)
        D, H = input_size, hidden_size

        def draw(*shape: int) -> Any:
            return (self.rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

        one, other = ((draw(D, 3 * H), draw(H, 3 * H), np.zeros(3 * H, np.float32)) for _ in range(2))
        self.gru = TimeBiGRU(*one, *other)
        self.pooling = TimeMeanPooling()
        self.output = TimeAffineWithLoss(draw(2 * H, num_classes), np.zeros(num_classes, np.float32))
        self._own_layers({"gru": self.gru, "pooling": self.pooling, "output": self.output})

    def check_batch(self, xs: Any, ts: Any) -> tuple[Any, Any]:
        """What fit and evaluate are given, as the arrays that forward reads."""
        xs, ts = np.ascontiguousarray(xs, np.float32), np.ascontiguousarray(ts, np.int64)
        if xs.ndim != 3 or xs.shape[2] != self.options["input_size"] or ts.shape != xs.shape[:1]:
            raise ValueError(f"xs has shape {xs.shape} and ts {ts.shape}, expected (N, T, D) and (N,)")
        return xs, ts

    def features(self, xs: Any, *, training: bool) -> Any:
        hs = self.gru.forward(xs, training=training)
        return self.pooling.forward(hs, np.ones(hs.shape[:2], bool))

    def forward(self, xs: Any, ts: Any, *, training: bool = True, reduction: Any = "mean") -> float:
        self.seen = self.features(xs, training=training), ts
        return self.output.forward(*self.seen, reduction=reduction)

    def _backward(self) -> None:
        self.gru.backward(self.pooling.backward(self.output.backward()))

    @property
    def loss_count(self) -> int:
        return len(self.seen[1])

    def batch_metrics(self, names: Any) -> dict[str, tuple[float, int]]:
        features, ts = self.seen
        right = int((self.output.scores(features).argmax(axis=1) == ts).sum())
        return dict.fromkeys(names, (right, len(ts)))

    def predict(self, xs: Any) -> Any:
        """The class of every series, (N,)."""
        return self.output.scores(self.features(np.asarray(xs, np.float32), training=False)).argmax(axis=1)


def waves(N: int, seed: int = 0) -> tuple[Any, Any]:
    """Noisy waves of any period and phase, xs (N, 40, 1), and their kinds, ts (N,)."""
    rng = np.random.default_rng(seed)
    ts = rng.integers(0, len(KINDS), N)
    phase = rng.random((N, 1)) + np.arange(40) / rng.uniform(8, 20, (N, 1))
    kinds = np.sin(2 * np.pi * phase), np.sign(np.sin(2 * np.pi * phase)), 2 * (phase % 1) - 1
    xs = np.stack(kinds)[ts, np.arange(N)] + rng.normal(0, 0.2, phase.shape)
    return xs[..., None].astype(np.float32), ts


def main(epochs: int = 20, examples: int = 600) -> float:
    xs, ts = waves(examples)
    model = SeriesClassifier(1, 16, len(KINDS), seed=0)
    model.summary()
    stop = callbacks.EarlyStopping("val_accuracy", patience=5, restore_best_weights=True)
    how: dict[str, Any] = {"epochs": epochs, "validation_split": 0.2, "metrics": ("accuracy",), "callbacks": [stop]}
    model.fit(xs, ts, optimizer=optim.Adam(0.01), **how)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/waves.safetensors")
        loaded = fastlstm.load(f"{folder}/waves.safetensors")  # the file names the class
    others, kinds = waves(200, seed=1)
    accuracy = loaded.evaluate(others, kinds)["accuracy"]
    print(f"{accuracy:.0%} of other waves are told right; the first is a {KINDS[model.predict(others[:1])[0]]}")
    return accuracy


if __name__ == "__main__":
    main()
