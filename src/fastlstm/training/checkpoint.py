"""The whole state of a training in one file, so that it can go on with the same bits."""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm.contract import Array
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe, is_array
from fastlstm.ops.device import to_device, what_computes
from fastlstm.tensor_file import read_tensor_file, write_tensor_file

if TYPE_CHECKING:
    from fastlstm.training.callback import Callback
    from fastlstm.training.loop import Trainer


def save_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Write weights, optimiser, random state, place in the data, history and callbacks' states."""
    tensors: dict[str, Array] = {f"weights.{name}": param for name, param in trainer.model.named_parameters()}
    numbers, arrays = trainer.optimizer.state()
    tensors.update({f"optimizer.{name}": array for name, array in arrays.items()})
    callbacks = []
    for i, callback in enumerate(_with_state(trainer)):
        state: dict[str, Any] = {}
        for name in callback.state_names:
            value = getattr(callback, name)
            if isinstance(value, list):
                tensors.update({f"callback{i}.{name}.{k}": array for k, array in enumerate(value)})
                value = {"arrays": len(value)}
            state[name] = value
        callbacks.append({"class": type(callback).__name__, "state": state})
    description = {
        "checkpoint": 1,
        # What a file of the model would say beside the weights: a checkpoint is one, too. One's own may have none.
        "model": trainer.model.description() if hasattr(trainer.model, "description") else None,
        "training": trainer.fingerprint(),
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "means": {name: [mean.total, mean.count] for name, mean in trainer.means.items()},
        "rng": trainer.model.rng.bit_generator.state,
        "rng_of_order": trainer.rng_of_order,
        "stop_training": trainer.model.stop_training,
        "optimizer": numbers,
        "history": {"epoch": trainer.history.epoch, "history": trainer.history.history},
        "callbacks": callbacks,
    }
    write_tensor_file(path, tensors, description)


def load_checkpoint(path: str | os.PathLike[str], trainer: Trainer) -> None:
    """Put a training that is about to begin where the saved one was; nothing changes unless all of the file fits.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no checkpoint, damaged, or one of another model, data or optimiser.
    """
    tensors, description = read_tensor_file(path)
    if not is_checkpoint(description):
        raise ValueError(f"{path} is a fastlstm file, but no checkpoint of this version")
    weights = _below("weights", tensors)
    optimizer_arrays = _below("optimizer", tensors)
    try:
        _check_training(description, trainer, path)
        trainer.model.check_weights(weights, "it")
        _check_optimizer(trainer, description["optimizer"], optimizer_arrays)
        states = _checked_states(description["callbacks"], tensors, trainer)
        _check_place(description, trainer)
        bit_generator = trainer.model.rng.bit_generator
        another = type(bit_generator)()
        another.state = description["rng"]
        if description["rng_of_order"] is not None:
            another.state = description["rng_of_order"]
    except _OtherTraining:
        raise
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None

    trainer.model.set_weights(weights, str(path))
    device = trainer.model.device
    arrays = {name: to_device(array, device) for name, array in optimizer_arrays.items()}
    trainer.optimizer.set_state(description["optimizer"], arrays)
    for callback, state in zip(_with_state(trainer), states, strict=True):
        for name, value in state.items():
            on_device = [to_device(array, device) for array in value] if isinstance(value, list) else value
            setattr(callback, name, on_device)
    trainer.epoch = description["epoch"]
    trainer.batch = description["batch"]
    trainer.means = {name: trainer.model.make_mean(name, *mean) for name, mean in description["means"].items()}
    bit_generator.state = description["rng"]
    trainer.rng_of_order = description["rng_of_order"]
    trainer.model.stop_training = description["stop_training"]
    trainer.history.epoch[:] = description["history"]["epoch"]
    trainer.history.history.update(description["history"]["history"])


class Place(NamedTuple):
    """How far a saved training was: epochs done, and batches done in the epoch at hand."""

    epoch: int
    batch: int

    def __str__(self) -> str:
        if self.batch:
            return f"of epoch {self.epoch + 1}, after {self.batch} batches of it"
        return f"after epoch {self.epoch}" if self.epoch else "before the first epoch"


def is_checkpoint(description: Any) -> bool:
    """Whether a file of arrays with this description is a checkpoint."""
    return isinstance(description, dict) and description.get("checkpoint") == 1


def place_of(description: Mapping[str, Any]) -> Place:
    """How far the training of a checkpoint's description was."""
    return Place(description["epoch"], description["batch"])


def model_in(
    tensors: Mapping[str, Array], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> tuple[dict[str, Array], Any]:
    """Of a checkpoint, the weights and the description of its model, as a model's own file has them.

    Raises if it does not describe its model, as those of earlier versions; path is for the error.
    """
    if description.get("model") is None:
        raise ValueError(
            f"{path} is a fastlstm file, but no model: it is a checkpoint that does not say of which, as those of "
            "earlier versions; a training goes on with it (callbacks.BackupAndRestore, train TASK --resume RUN)"
        )
    return _below("weights", tensors), description["model"]


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """What must be the same on all workers, before a checkpoint is read."""
    return {
        **what_computes(),
        **trainer.fingerprint(),
        "epochs": trainer.epochs,
        "shards": trainer.shards,
        "crc32 of the validation data": [_crc32(array) for array in _parts(trainer.validation_data or ())],
        "callbacks": [type(callback).__name__ for callback in trainer.callbacks],
    }


def describe_progress(trainer: Trainer) -> dict[str, Any]:
    """How far a training is: workers that begin, or go on, have to begin with the same."""
    numbers, arrays = trainer.optimizer.state()
    return {
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "optimizer": numbers,
        "state of the random generator": trainer.model.rng.bit_generator.state,
        **{f"crc32 of the weights {name}": _crc32(array) for name, array in trainer.model.named_parameters()},
        **{f"crc32 of the optimizer's {name}": _crc32(array) for name, array in arrays.items()},
    }


def _parts(data: tuple[Any, ...]) -> Iterator[Any]:
    """The arrays and numbers of data, also those within what a model reads as one; not what gives batches."""
    for part in data:
        if isinstance(part, tuple):
            yield from _parts(part)
        elif is_array(part) or not isinstance(part, Iterable):
            yield part


def _crc32(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


class _OtherTraining(ValueError):
    """The file is whole, but of a training with other data, settings or callbacks."""


def _check_training(description: Mapping[str, Any], trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Raise unless the saved training is the one at hand."""
    was, now = ({"shards": 1, **training} for training in (description["training"], trainer.fingerprint()))
    if "epochs" not in now:
        was.pop("epochs", None)  # files of earlier versions name them although the learning rate stays as it is
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            raise _OtherTraining(
                f"{path} belongs to another training: {name} was {was.get(name)}, now it is {now.get(name)}"
            )
    names = [name for name in description["history"]["history"] if name.removeprefix("val_") in trainer.log_names]
    if description["epoch"] and set(names) != set(trainer.log_names):
        raise _OtherTraining(
            f"{path} belongs to another training: its epochs have {', '.join(names)}, now they have "
            f"{', '.join(trainer.log_names)}. A training goes on with validation if it began with it, else without"
        )
    saved = [callback["class"] for callback in description["callbacks"]]
    kinds = [type(callback).__name__ for callback in _with_state(trainer)]
    if saved != kinds:
        raise _OtherTraining(f"{path} was written with other callbacks; now they are {', '.join(kinds) or 'none'}")


def _check_optimizer(trainer: Trainer, numbers: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    like = copy.copy(trainer.optimizer)
    like.prepare(trainer.model.params)
    wanted_numbers, wanted = like.state()
    # Files of earlier versions do not name the hyperparameters.
    numbers = {**{name: wanted_numbers[name] for name in like.hyperparameter_names}, **numbers}
    _check_values("the optimizer", numbers, wanted_numbers)
    if numbers["class"] != wanted_numbers["class"]:
        raise ValueError(f"the optimizer is {numbers['class']}, expected {wanted_numbers['class']}")
    scalars.finite("lr", numbers["lr"], 0)
    if scalars.integer("step", numbers["step"], 0) >= 2**63:
        raise ValueError(f"step is {numbers['step']}, expected less than 2^63")
    like.step_on_device = None  # an array of the other's
    like.set_state(numbers, {})
    like.update([], [])  # refuses hyperparameters that no update takes
    shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    # A training that was stopped before its first step has none.
    if shapes and shapes != {name: (array.shape, array.dtype) for name, array in wanted.items()}:
        raise ValueError("the optimizer's arrays do not fit the model's parameters")


def _checked_states(
    saved: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array], trainer: Trainer
) -> list[dict[str, Any]]:
    """What the callbacks' attributes are to be."""
    states = []
    for i, callback in enumerate(_with_state(trainer)):
        kind = type(callback).__name__
        state = {
            name: [tensors[f"callback{i}.{name}.{k}"] for k in range(value["arrays"])]
            if isinstance(value, dict)
            else value
            for name, value in saved[i]["state"].items()
        }
        _check_values(kind, state, {name: getattr(callback, name) for name in callback.state_names})
        callback.check_state(state)
        states.append(state)
    return states


def _check_place(description: Mapping[str, Any], trainer: Trainer) -> None:
    """Epoch, batch, means and history."""
    epoch = scalars.integer("epoch", description["epoch"], 0)
    batch = scalars.integer("batch", description["batch"], 0)
    if batch > trainer.batches:
        raise ValueError(f"batch is {batch}, but an epoch has {trainer.batches}")
    means = description["means"]
    if (batch or means) and set(means) != {"loss", *trainer.metrics}:
        raise ValueError(f"the epoch at hand has {', '.join(means)}")
    for name, (total, count) in means.items():
        scalars.real(name, total)
        scalars.integer(name, count, 0)
    if not isinstance(description["stop_training"], bool):
        raise ValueError(f"stop_training is {description['stop_training']!r}, expected true or false")
    epochs, history = description["history"]["epoch"], description["history"]["history"]
    expected = range(trainer.initial_epoch, epoch)
    # No list of as many epochs as a damaged file may have.
    if not isinstance(epochs, list) or len(epochs) != max(epoch - expected.start, 0) or epochs != list(expected):
        raise ValueError(f"the history has not the epochs {expected.start} to {epoch - 1}")
    for name, values in history.items():
        if len([scalars.real(name, value) for value in values]) != len(expected) and name in trainer.log_names:
            raise ValueError(f"the history has {len(values)} values of {name}, expected {len(expected)}")


def _check_values(whose: str, got: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless the names are the same, and the values of the same kinds; None stands for any."""
    if set(got) != set(now):
        raise ValueError(f"{whose} has {', '.join(got) or 'nothing'}, expected {', '.join(now)}")
    for name, value in got.items():
        kinds = {_kind(value), _kind(now[name])}
        if "nothing a checkpoint keeps" in kinds or len(kinds - {"None"}) > 1:
            raise ValueError(f"{name} of {whose} is {describe(value)}, where now it is {describe(now[name])}")


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, (bool, int, float, np.number)):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list) and all(is_array(array) for array in value):
        return "arrays"
    return "nothing a checkpoint keeps"


def _with_state(trainer: Trainer) -> list[Callback]:
    """The others may differ when the training is continued."""
    return [callback for callback in trainer.callbacks if callback.state_names]


def _below(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
