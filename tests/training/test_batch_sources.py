"""Where a training takes its batches from, and that the loop needs no more of a model than it says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.callbacks import BackupAndRestore, Callback, EarlyStopping, ModelCheckpoint
from fastlstm.contract import Array, FloatArray, Reduction
from fastlstm.layers import Layer
from fastlstm.layers.seeds import Seeds
from fastlstm.models import skipgram_batches
from fastlstm.models.skipgram_batches import SkipgramBatches
from fastlstm.models.text_streams import TextStreams
from fastlstm.ops.device import Device
from fastlstm.optim import Optimizer
from fastlstm.training import Trainer
from fastlstm.training.batches import Batches, ShuffledRows
from fastlstm.training.means import Means, RunningMean


class Line:
    """``w * x + b`` for numbers x: a model that is none of fastlstm's."""

    device: Device = "cpu"

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.layers: dict[str, Layer] = {}
        self.params: list[FloatArray] = [np.zeros(2)]
        self.grads: list[FloatArray] = [np.zeros(2)]
        self.rng = np.random.default_rng(0)
        self.seeds = Seeds(self.rng)
        self.stop_training = False

    def loss(self, xs: FloatArray, ts: FloatArray) -> float:
        w, b = self.params[0]
        differences = w * xs + b - ts
        self.grads[0][:] = 2 * (differences * xs).mean(), 2 * differences.mean()
        return float((differences**2).mean())

    def check_metrics(self, metrics: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in metrics if name != "loss")

    def make_mean(self, name: str, total: float = 0.0, count: int = 0) -> RunningMean:
        return RunningMean(total, count)

    def train_step(
        self, batch: tuple[Array, ...], optimizer: Optimizer, means: Means, *, max_grad: float | None = None
    ) -> None:
        optimizer.update(self.params, self.gradients(batch, means), max_norm=max_grad)

    def gradients(
        self, batch: tuple[Array, ...], means: Means, *, reduction: Reduction = "mean"
    ) -> Sequence[FloatArray]:
        xs, ts = batch
        means["loss"].add(self.loss(xs, ts) * len(xs), len(xs))
        return [grad * (len(xs) if reduction == "sum" else 1) for grad in self.grads]

    def capture_key(self) -> tuple[Any, ...]:
        return (*self.params, *self.grads)

    def forget_step(self) -> None: ...

    def evaluate(self, xs: Any, ts: Any, **_: Any) -> dict[str, float]:
        return {"loss": self.loss(xs, ts)}

    def state(self) -> list[FloatArray]:
        return []

    def set_state(self, state: Sequence[FloatArray]) -> None:
        assert not state

    def named_parameters(self) -> Iterator[tuple[str, FloatArray]]:
        return iter([("line", self.params[0])])

    def check_weights(self, tensors: Mapping[str, Array], source: str) -> None:
        assert list(tensors) == ["line"], source

    def set_weights(self, tensors: Mapping[str, Array], source: str) -> None:
        self.check_weights(tensors, source)
        self.params[0][:] = tensors["line"]

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_bytes(self.params[0].tobytes())


class DrawnNumbers:
    """Points of a line, new ones in every batch: no rows stand behind them."""

    unit = "point"
    units_per_batch = 8

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        assert 0 <= epoch < 30
        self._seed = int(rng.integers(1 << 30))

    def __len__(self) -> int:
        return 5

    def batch(self, i: int) -> tuple[Array, ...]:
        xs = np.random.default_rng([self._seed, i]).standard_normal(8)
        return xs, 3 * xs + 1

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "drawn"}


class Stop(Callback):
    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        if (self.trainer.epoch, batch) == (11, 2):
            self.trainer.callbacks[-1].on_interrupt()
            raise KeyboardInterrupt


def test_the_loop_trains_any_model_on_any_source_and_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    def trainer(name: str, *more: Callback) -> Trainer:
        early, best = EarlyStopping(patience=40), ModelCheckpoint(tmp_path / f"{name}.model", save_best_only=True)
        every = [*more, early, best, BackupAndRestore(tmp_path / f"{name}.checkpoint")]
        data = np.arange(4.0), 3 * np.arange(4.0) + 1
        return Trainer(Line(), DrawnNumbers(), "adam", epochs=30, validation_data=data, callbacks=every, verbose=0)

    whole = trainer("whole")
    wanted = whole.run().history
    with pytest.raises(KeyboardInterrupt):
        trainer("part", Stop()).run()
    resumed = trainer("part")
    assert resumed.run().history == wanted
    assert wanted["val_loss"][-1] < wanted["val_loss"][0]
    np.testing.assert_array_equal(resumed.model.params[0], whole.model.params[0])
    assert (tmp_path / "part.model").read_bytes() == (tmp_path / "whole.model").read_bytes()


def test_the_loop_cuts_the_batches_of_any_source_into_shards() -> None:
    losses = [
        Trainer(Line(), DrawnNumbers(), "sgd", epochs=9, shards=shards, verbose=0).run().history["loss"]
        for shards in (1, 3)
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-12)
    assert losses[1][-1] < losses[1][0]


def test_rows_in_a_new_order_are_all_rows_and_the_last_batch_is_smaller() -> None:
    xs, ts = np.arange(10)[:, None], np.arange(10) * 2
    rng = np.random.default_rng(0)
    source = ShuffledRows(xs, ts, 4, "cpu")
    orders = []
    for epoch in range(2):
        source.begin_epoch(epoch, rng)
        assert [len(batch) for batch, _ in source] == [4, 4, 2]
        got_xs, got_ts = (np.concatenate(parts) for parts in zip(*source, strict=True))
        np.testing.assert_array_equal(got_xs[:, 0] * 2, got_ts)
        np.testing.assert_array_equal(np.sort(got_ts), ts)
        orders.append(got_ts)
    assert not np.array_equal(orders[0], orders[1])


def test_batches_are_cut_to_the_longest_of_their_rows_in_any_order() -> None:
    xs = np.arange(24).reshape(4, 6)
    batches = Batches(xs, np.arange(4), 2, "cpu", (np.array([1, 5, 2, 0]), None))
    assert [batch.shape for batch, _ in batches] == [(2, 5), (2, 2)]
    batches.shuffle_to(np.array([3, 0, 1, 2]))
    assert [batch.shape for batch, _ in batches] == [(2, 1), (2, 5)]
    np.testing.assert_array_equal(batches.batch(0)[0][:, 0], xs[[3, 0], 0])


def test_streams_are_read_from_their_beginning_in_every_epoch() -> None:
    source = TextStreams(np.arange(14), 2, 4, "cpu")
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    read = []
    for epoch in range(2):
        source.begin_epoch(epoch, rng)
        read.append(np.concatenate([xs for xs, _ in source], axis=1))
    np.testing.assert_array_equal(read[0][:, :7], [np.arange(7), [*np.arange(7, 13), 0]])
    np.testing.assert_array_equal(read[0], read[1])
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("batch_size", [1, 3, 40, 5000])
@pytest.mark.parametrize("length", [2, 29, 30, 31, 300])
def test_no_epoch_of_pairs_has_more_batches_than_were_announced(
    batch_size: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skipgram_batches, "PIECE", 10)
    corpus = np.zeros(length, np.int64)
    source = SkipgramBatches(corpus, np.array([length]), batch_size, window=1, subsample=None, device="cpu")
    most, rng = len(source), np.random.default_rng(0)
    for epoch in range(3):
        source.begin_epoch(epoch, rng)
        assert 0 < len(source) <= most
        pairs = [source.batch(i) for i in range(len(source))]
        assert sum(len(centers) for centers, _ in pairs) == 2 * (length - 1)  # a window of 1 is never shorter


class Watched(np.ndarray):
    """Notes the places of its first axis that are read."""

    read: set[int]

    @classmethod
    def of(cls, array: Array) -> Watched:
        watched = array.view(cls)
        watched.read = set()
        return watched

    def __getitem__(self, key: Any) -> Any:
        self.read.update(np.arange(len(self))[key[0] if isinstance(key, tuple) else key].ravel().tolist())
        return np.asarray(self)[key]


@pytest.mark.parametrize("kind", [Batches, ShuffledRows])
def test_some_rows_of_a_batch_are_read_without_the_others(kind: type[Batches], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlstm.training.batches.to_device", lambda array, _: array)
    xs, ts = (Watched.of(array) for array in (np.arange(22.0).reshape(11, 2), np.arange(11)))
    source = kind(xs, ts, 4, "cpu")
    source.begin_epoch(0, np.random.default_rng(0))
    whole = list(source)
    for i, (batch_xs, batch_ts) in enumerate(whole):
        N = source.rows_of(i)
        assert len(batch_xs) == len(batch_ts) == N
        for rows in (slice(0, 1), slice(1, N), slice(N, N)):
            xs.read.clear()
            ts.read.clear()
            some_xs, some_ts = source.part(i, rows)
            np.testing.assert_array_equal(some_xs, batch_xs[rows])
            np.testing.assert_array_equal(some_ts, batch_ts[rows])
            assert xs.read == ts.read == set(batch_ts[rows].tolist())


def test_some_streams_are_read_without_the_others() -> None:
    corpus = Watched.of(np.arange(1, 40))
    source = TextStreams(corpus, 4, 3, "cpu")
    for i, (xs, ts) in enumerate(source):
        corpus.read.clear()
        for part, batch in zip(source.part(i, slice(1, 3)), (xs, ts), strict=True):
            np.testing.assert_array_equal(part, batch[1:3])
        assert corpus.read == {word - 1 for word in np.concatenate((xs[1:3], ts[1:3])).ravel().tolist() if word > 0}
