"""The steps of a training whose batches are cut into shards, with or without other workers that compute some of them.

Each shard is a batch by itself: it has its rows of the carried state, seeds that follow from the batch's and its
number, and gradients, losses and metrics that are sums over its targets. They are summed over the shards in one order,
and divided once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np

from fastlstm.contract import Array, BackendNotAvailable, FloatArray, RowGrad
from fastlstm.distributed.gradients import GradientSum
from fastlstm.distributed.shards import shard_slices, shards_of, sum_tree
from fastlstm.distributed.workers import Workers
from fastlstm.training.batches import parts_of
from fastlstm.training.eager import EagerSteps
from fastlstm.training.means import Means, RunningMean
from fastlstm.training.trainable import SaysWhatIsFinal, Trainable

if TYPE_CHECKING:
    from fastlstm.training.loop import Trainer


class Shards:
    """Of batches that are cut into shards, those that this worker computes.

    Parameters
    ----------
    model : Trainable
        On the host.
    names : sequence of str
        "loss" and the metrics.
    workers : Workers
    shards : int
        Into how many a batch is cut.
    """

    def __init__(self, model: Trainable, names: Sequence[str], workers: Workers, shards: int) -> None:
        if model.device != "cpu":
            raise BackendNotAvailable(
                f"shards is {shards}, which trains on the host only: call model.to('cpu'), or leave shards out: one "
                "GPU trains the whole batch"
            )
        self._model = model
        self._names = tuple(names)
        self._workers = workers
        self._mine = workers.shards_of_mine(shards)
        self._shards_of = [shards_of(rank, workers.size, shards) for rank in range(workers.size)]
        self._sums = np.zeros((shards, len(self._names), 2))
        self._slices: list[slice] = []

    def each(
        self, N: int, part: Callable[[slice], tuple[Array, ...]], seed: int
    ) -> Iterator[tuple[tuple[Array, ...], dict[str, RunningMean]]]:
        """Each of this worker's shards of a batch, and empty means for its loss and metrics.

        N is how many rows the batch has, ``part`` reads some of them: it is asked for those of this worker alone.

        While it is at hand, the model has its state and draws its seeds. Afterwards the model's state is that of the
        batch, without the rows of other workers' shards.
        """
        model = self._model
        self._slices = shard_slices(N, len(self._sums))
        before = model.state()
        after: list[Array] = []
        for k in self._mine:
            rows = self._slices[k]
            model.set_state([array[rows] for array in before])
            means = {name: RunningMean() for name in self._names}
            with model.seeds.drawn_by(np.random.default_rng((seed, k))):
                yield part(rows), means
            self._sums[k] = [(mean.total, mean.count) for mean in means.values()]
            left = model.state()
            after = after or [np.empty((N, *array.shape[1:]), array.dtype) for array in left]
            for whole, array in zip(after, left, strict=True):
                whole[rows] = array
        model.set_state(after)

    def add_to(self, means: Means) -> int:
        """Add loss and metrics of all shards, which all workers have then; returns over how many targets the loss is.

        Called after `each` is done.
        """
        self._gather_rows(self._sums, [slice(shards.start, shards.stop) for shards in self._shards_of])
        every = {range(k, k + 1): sums for k, sums in enumerate(self._sums)}
        sums = sum_tree(range(len(self._sums)), every, operator.add)
        for name, (total, count) in zip(self._names, sums.tolist(), strict=True):
            means[name].add(total, int(count))
        return int(sums[0, 1])

    def share_state(self) -> None:
        """Have the state of all rows on all workers."""
        state = self._model.state()
        if self._workers.size == 1 or not state:
            return
        # One message for all arrays.
        whole = np.concatenate([array.reshape(len(array), -1) for array in state], axis=1)
        rows_of = [slice(self._slices[mine.start].start, self._slices[mine.stop - 1].stop) for mine in self._shards_of]
        self._gather_rows(whole, rows_of)
        ends = np.cumsum([array[0].size for array in state])[:-1]
        parts = np.split(whole, ends, axis=1)
        self._model.set_state(
            [np.ascontiguousarray(part).reshape(array.shape) for part, array in zip(parts, state, strict=True)]
        )

    def _gather_rows(self, whole: Array, rows_of: Sequence[slice]) -> None:
        """Of an array whose rows the workers have computed, have all on all of them."""
        width = whole[0].size
        self._workers.gather(whole.reshape(-1), [(rows.stop - rows.start) * width for rows in rows_of])


class ShardedSteps(EagerSteps):
    """Runs the steps of one training, each batch in shards.

    Parameters
    ----------
    trainer : Trainer
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self._shards = Shards(trainer.model, ("loss", *trainer.metrics), trainer.workers, trainer.shards)
        self._sum = GradientSum(trainer.workers, trainer.shards, trainer.grad_precision)

    def run(self, i: int) -> None:
        """One step on batch i."""
        trainer, shards = self._trainer, self._shards
        grads = self._sum(self._gradients(i))
        count = shards.add_to(trainer.means)
        shards.share_state()
        trainer.optimizer.update(trainer.model.params, grads, trainer.max_grad, grad_scale=1 / max(count, 1))

    def _gradients(self, i: int) -> Iterator[Sequence[FloatArray | RowGrad]]:
        model = self._trainer.model
        N, part = parts_of(self._trainer.source, i)
        for rows, means in self._shards.each(N, part, model.seeds.draw()):
            with self._told_what_is_final():
                grads = model.gradients(rows, means, reduction="sum")
            yield cast("Sequence[FloatArray | RowGrad]", grads)

    @contextmanager
    def _told_what_is_final(self) -> Iterator[None]:
        """Inside the block, gradients that are complete are on their way while the model computes others."""
        model = self._trainer.model
        if not isinstance(model, SaysWhatIsFinal):
            yield
            return
        model.on_final = lambda first: self._sum.final_from(model.grads, first)
        try:
            yield
        finally:
            model.on_final = None
