"""What models have that learn rows: examples and targets that belong together row by row."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from fastlstm.contract import Array, FloatArray
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.distributed.workers import Workers
from fastlstm.models.model import Model
from fastlstm.models.row_weights import class_weights, row_weights
from fastlstm.ops import scalars
from fastlstm.ops.array_likes import host_array
from fastlstm.ops.checks import describe, is_array
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.batches import Batches, BatchSource, ShuffledRows
from fastlstm.training.callback import check_callbacks
from fastlstm.training.callbacks import BackupAndRestore
from fastlstm.training.iterated_batches import IteratedBatches


class RowModel(Model):
    """Base of the models that learn examples xs and targets ts, a row each.

    Attributes
    ----------
    class_names : (str, str) or None
        Where targets are classes: the option that says how many there are, and the attribute that names them.
    """

    class_names: ClassVar[tuple[str, str] | None] = None

    def fit(
        self,
        xs: Any,
        ts: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        metrics: Sequence[str] = ("loss",),
        callbacks: Sequence[Callback] | Callback | None = (),
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
        grad_precision: GradPrecision | None = None,
    ) -> History:
        """Train. The arguments mean what they mean in Keras.

        Parameters
        ----------
        xs, ts : arrays with one row an example
            Targets are ids; a column of them, with a last axis of one, and one-hot targets are accepted. Or xs alone,
            what gives the batches (xs, ts) or (xs, ts, sample_weight) one by one: a generator, a list, a data loader.
            They are learned as they come; where workers share them out, all have to give the same.
        epochs, batch_size : int
            The last batch of an epoch may be smaller.
        optimizer : str or optimizer
            "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw": a new one with its default values; or
            an object of ``fastlstm.optim``, which keeps its state from one ``fit`` to the next.
        max_grad : float, optional
            Clip the gradients' global norm to it.
        validation_split : float from 0 to below 1
            Hold out the last part of the rows, before any shuffling.
        validation_data : (xs, ts) or (xs, ts, sample_weight), optional
            Evaluated after every epoch; takes precedence over validation_split. Or what gives batches of them whenever
            it is read, such as a data loader.
        sample_weight : (N,) numbers, optional
            What the loss of each row is multiplied by before the mean over the rows, or over the targets, is taken;
            their sum divides nothing. Where rows have several targets, also one for each, of the shape of ts. Metrics
            do without them.
        class_weight : dict, optional
            The same by class: ``{0: 1.0, 1: 5.0}``, 1 for those it does not name. Validation does without them.
        metrics : sequence of str
            Names in ``metric_names``, or in Keras's spelling; the loss is always there.
        callbacks : sequence of callbacks
        shuffle : bool
            A new order of the rows every epoch.
        initial_epoch : int
            The number of the first epoch, where a training goes on; ``epochs`` is that of the one after the last.
        steps_per_epoch : int, optional
            How many batches of an iterable are an epoch: all, unless given. It is needed for several epochs of a
            generator, which can be read once.
        verbose : 0, 1, 2 or "auto"
            Silent, a progress bar, a line an epoch; "auto" is 1 on a terminal, else 2.
        workers : Workers, optional
            What `fastlstm.distributed.mpi` returned: processes that all make this call, with the same model and data,
            and share the work out. All have the weights and the history afterwards.
        shards : int
            Cut every batch into so many pieces of rows, whose gradients are computed one by one and summed in one
            order. At least the number of workers, of which the weights' bits do not depend: they depend on shards. A
            checkpoint belongs to one number of shards and goes on with any number of workers.
        grad_precision : "bf16", optional
            Round float32 gradients of shards, and sums of them, to bfloat16, so that half of the bytes travel: see
            `fastlstm.distributed.sum_gradients`. It changes the bits, for one worker too.

        Returns
        -------
        History
            ``history[name]`` is a list, an entry an epoch.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the batch at hand is done; the model is as it was after that batch.
        """
        callbacks = check_callbacks(callbacks)
        source, validation_data = self._source(
            (xs, ts),
            kind=ShuffledRows if shuffle else Batches,
            batch_size=batch_size,
            validation_split=validation_split,
            validation_data=validation_data,
            sample_weight=sample_weight,
            class_weight=class_weight,
            epochs=(initial_epoch, epochs),
            steps_per_epoch=steps_per_epoch,
            callbacks=callbacks,
        )
        return Trainer(
            self,
            source,
            optimizer,
            epochs=epochs,
            initial_epoch=initial_epoch,
            max_grad=max_grad,
            validation_data=validation_data,
            metrics=metrics,
            callbacks=callbacks,
            verbose=verbose,
            workers=workers,
            shards=shards,
            grad_precision=grad_precision,
        ).run()

    def _source(
        self,
        data: tuple[Any, ...],
        *,
        kind: type[Batches],
        batch_size: int,
        validation_split: float,
        validation_data: Any,
        sample_weight: Any,
        class_weight: Any,
        epochs: tuple[int, int],
        steps_per_epoch: int | None,
        callbacks: Sequence[Callback],
    ) -> tuple[BatchSource, tuple[Any, ...] | None]:
        """What ``fit`` learns from, and the arguments of ``evaluate`` for what it validates on; all is checked.

        Parameters
        ----------
        data : tuple
            The arguments of ``check_batch``; or batches and None.
        kind : class
            Of a source of rows.
        epochs : (int, int)
            The first, and the one after the last.
        """
        validation_split = scalars.below_one("validation_split", validation_split)
        of_classes = None if class_weight is None else self._class_weights(class_weight)
        if sample_weight is not None and of_classes is not None:
            raise ValueError("sample_weight and class_weight are both given; multiply them and give sample_weight")
        if is_given_in_batches(*data[:2]):
            if sample_weight is not None or validation_split:
                name = "validation_split" if sample_weight is None else "sample_weight"
                raise ValueError(f"{name} is given, but xs gives batches: let them be (xs, ts, sample_weight), and "
                                 "give validation_data")  # fmt: skip
            return self._iterated(data[0], of_classes, epochs, steps_per_epoch, callbacks), (
                self._checked_validation(validation_data)
            )
        if steps_per_epoch is not None:
            raise ValueError(
                f"steps_per_epoch is {steps_per_epoch}, but xs holds rows, whose batches are those of batch_size"
            )
        xs, ts = self.check_batch(*data)
        weights = None if sample_weight is None else self._row_weights(sample_weight, ts)
        validation = self._checked_validation(validation_data)
        if validation is None and validation_split:
            split = len(xs) - int(len(xs) * validation_split)
            if len(xs) and split == len(xs):
                raise ValueError(
                    f"validation_split is {validation_split}, which holds out none of {len(xs)} rows; use a larger "
                    "one, or 0 to train without validation"
                )
            held_out, rows = slice(split, None), slice(split)
            validation = (xs[held_out], ts[held_out], *(() if weights is None else (weights[held_out],)))
            xs, ts, weights = xs[rows], ts[rows], None if weights is None else weights[rows]
        self.require_targets(ts, "train on")
        if validation is not None and len(validation) > 1:
            self.require_targets(validation[1], "validate on")
        if of_classes is not None:
            weights = of_classes[ts]  # targets of -1 do not count, whatever they weigh
        return self.batches(xs, ts, batch_size, kind, weights), validation

    def _checked_validation(self, validation_data: Any) -> tuple[Any, ...] | None:
        """The arguments of ``evaluate``."""
        if validation_data is None:
            return None
        if not isinstance(validation_data, (tuple, list)) and gives_batches(validation_data):
            if isinstance(validation_data, Iterator):
                raise ValueError(
                    "validation_data is an iterator, which can be read once; give (xs, ts), or what can be read after "
                    "every epoch, such as a data loader"
                )
            return (validation_data,)
        data, sample_weight = self._parts_of_validation(check_validation_data(validation_data))
        xs, ts = self.check_batch(*data)
        if not len(xs):
            raise ValueError("validation_data has no rows; leave it out to train without validation")
        return (xs, ts) if sample_weight is None else (xs, ts, self._row_weights(sample_weight, ts))

    @property
    def takes_lengths(self) -> bool:
        """Whether the lengths of rows may stand behind xs and ts."""
        return False

    def _parts_of_validation(self, validation_data: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
        """The arguments of ``check_batch``, and weights or None."""
        known = ("xs", "ts", *(("lengths",) if self.takes_lengths else ()), "sample_weight")
        if len(validation_data) > len(known):
            raise ValueError(
                f"validation_data has {len(validation_data)} entries, expected some of ({', '.join(known)})"
            )
        parts = (*validation_data, None, None)[: len(known)]
        if self.takes_lengths and parts[2] is None:
            return parts[:2], parts[3]
        if self.takes_lengths and host_array("lengths", parts[2]).dtype.kind == "f":
            raise TypeError(
                "validation_data has third lengths, expected integers; weights stand fourth, (xs, ts, None, weights)"
            )
        return parts[:-1], parts[-1]

    def _iterated(
        self,
        batches: Iterable[Any],
        of_classes: FloatArray | None,
        epochs: tuple[int, int],
        steps: int | None,
        callbacks: Sequence[Callback],
    ) -> IteratedBatches:
        first, end = scalars.integer("initial_epoch", epochs[0], 0), scalars.integer("epochs", epochs[1], 0)

        def stop() -> None:
            self.stop_training = True

        source = IteratedBatches(
            batches,
            lambda batch: self._given_batch(batch, of_classes),
            epochs=range(first, end),
            steps=steps,
            stop=stop,
        )
        if not source.can_go_on and any(isinstance(callback, BackupAndRestore) for callback in callbacks):
            raise ValueError(
                "BackupAndRestore cannot go on with batches that nobody can read again: give what has a length and can "
                "be read from the beginning in every epoch, such as a list or a data loader, without steps_per_epoch"
            )
        return source

    def _given_batch(self, batch: Any, of_classes: FloatArray | None = None) -> tuple[Array, ...]:
        """A batch that was given, checked, where the model lives."""
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(f"a batch is {describe(batch)}, expected (xs, ts) or (xs, ts, sample_weight)")
        xs, ts = self.check_batch(*batch[:2])
        weights = None if of_classes is None else of_classes[ts]
        if len(batch) == 3 and batch[2] is not None:
            if weights is not None:
                raise ValueError("a batch has weights and class_weight is given; multiply them and give them with it")
            weights = self._row_weights(batch[2], ts)
        return self.batches(xs, ts, max(len(xs), 1), weights=weights).batch(0)

    def weights_shape(self, ts: Array) -> tuple[int, ...]:
        """The shape of a weight for each of checked targets."""
        return ts.shape

    def _require_weights(self) -> None:
        """Raise unless ``forward`` takes weights: a model of one's own need not."""
        if "sample_weight" not in inspect.signature(self.forward).parameters:
            raise TypeError(f"forward of {type(self).__name__} takes no sample_weight, so that none can be given")

    def _row_weights(self, sample_weight: Any, ts: Array) -> FloatArray:
        self._require_weights()
        return row_weights(sample_weight, self.weights_shape(ts), self.params[0].dtype)

    def _class_weights(self, class_weight: Any) -> FloatArray:
        if self.class_names is None:
            raise ValueError(f"{type(self).__name__} knows no classes that class_weight could weigh; use sample_weight")
        self._require_weights()
        size, names = self.class_names
        return class_weights(class_weight, self.options[size], getattr(self, names), self.params[0].dtype)

    def evaluate(
        self,
        xs: Any,
        ts: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int = 512,
        metrics: Sequence[str] | None = None,
        workers: Workers | None = None,
        shards: int = 1,
        verbose: int | str = 0,
        return_dict: bool = True,
    ) -> dict[str, float]:
        """Loss and metrics (all of ``metric_names`` unless named) over all rows, without learning.

        Parameters
        ----------
        xs, ts, sample_weight
            As for `fit`, batches without ts too.
        batch_size : int
        metrics : sequence of str, optional
        workers, shards
            Workers share the work out, as in `fit`.
        verbose : 0, 1, 2 or "auto"
            Silent, a progress bar and a line with the numbers, the line alone; "auto" is 1 on a terminal, else 2.
        return_dict : bool
            False: a list as Keras returns it, the loss first, in the place of a dictionary.

        Raises
        ------
        ValueError
            No target counts: there are no rows, or all targets are ignored.
        """
        if is_given_in_batches(xs, ts):
            batches: Iterable[tuple[Array, ...]] = self._each_given_batch(xs, sample_weight)
        else:
            xs, ts = self.check_batch(xs, ts)
            self.require_targets(ts, "evaluate")
            weights = None if sample_weight is None else self._row_weights(sample_weight, ts)
            batches = self.batches(xs, ts, batch_size, weights=weights)
        return self._evaluate(batches, metrics, workers, shards, verbose=verbose, return_dict=return_dict)

    def _each_given_batch(self, batches: Iterable[Any], sample_weight: Any = None) -> Iterator[tuple[Array, ...]]:
        if sample_weight is not None:
            raise ValueError("sample_weight is given, but xs gives batches: let them be (xs, ts, sample_weight)")
        return self._all_given(batches)

    def _all_given(self, batches: Iterable[Any]) -> Iterator[tuple[Array, ...]]:
        count = 0
        for count, batch in enumerate(batches, 1):  # noqa: B007, read behind the loop
            yield self._given_batch(batch)
        if not count:
            raise ValueError("there are no batches to evaluate")


def is_given_in_batches(xs: Any, ts: Any) -> bool:
    """Whether xs, without targets, gives batches; raises where it is data, whose targets are missing."""
    if ts is not None:
        return False
    if not gives_batches(xs):
        raise TypeError(
            f"xs is {describe(xs)} and there is no ts; expected both, or what gives batches (xs, ts) one by one"
        )
    return True


def gives_batches(value: Any) -> bool:
    """Whether something can be iterated that is no array of data."""
    return isinstance(value, Iterable) and not is_array(value) and not isinstance(value, (str, bytes, Mapping))


def require_same_rows(xs: Array, ts: Array) -> None:
    """Raise unless there are as many targets as examples."""
    if len(xs) != len(ts):
        raise ValueError(f"xs has {len(xs)} rows and ts {len(ts)}; they belong together row by row")


def check_validation_data(validation_data: Any) -> Sequence[Any]:
    """A sequence of what validation takes; raises unless it is one."""
    if not isinstance(validation_data, (tuple, list)):
        raise TypeError(f"validation_data is {describe(validation_data)}, expected (xs, ts)")
    if len(validation_data) < 2:
        raise ValueError(f"validation_data has {len(validation_data)} entries, expected (xs, ts)")
    return validation_data
