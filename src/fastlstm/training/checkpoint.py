"""The whole state of a training in one file, so that it can go on with the same bits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastlstm.contract import Array
from fastlstm.models.model import RunningMean
from fastlstm.models.tensor_file import read_tensor_file, write_tensor_file
from fastlstm.ops.device import to_device

if TYPE_CHECKING:
    from fastlstm.training.callbacks import Callback
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
    """Put a training that is about to begin where the saved one was.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no checkpoint, or one of another model, data or optimiser.
    """
    tensors, description = read_tensor_file(path)
    if not isinstance(description, dict) or description.get("checkpoint") != 1:
        raise ValueError(f"{path} is a fastlstm file, but no checkpoint of this version")
    was, now = description["training"], trainer.fingerprint()
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            raise ValueError(
                f"{path} belongs to another training: {name} was {was.get(name)}, now it is {now.get(name)}"
            )
    callbacks = _with_state(trainer)
    kinds = [type(callback).__name__ for callback in callbacks]
    if [callback["class"] for callback in description["callbacks"]] != kinds:
        raise ValueError(f"{path} was written with other callbacks; now they are {', '.join(kinds) or 'none'}")

    trainer.model.set_weights(_below("weights", tensors), str(path))
    device = trainer.model.device
    tensors = {name: to_device(array, device) for name, array in tensors.items()}
    trainer.optimizer.set_state(description["optimizer"], _below("optimizer", tensors))
    for i, (callback, saved) in enumerate(zip(callbacks, description["callbacks"], strict=True)):
        for name, value in saved["state"].items():
            if isinstance(value, dict):
                value = [tensors[f"callback{i}.{name}.{k}"] for k in range(value["arrays"])]
            setattr(callback, name, value)
    trainer.epoch = description["epoch"]
    trainer.batch = description["batch"]
    trainer.means = {name: RunningMean(*mean) for name, mean in description["means"].items()}
    trainer.model.rng.bit_generator.state = description["rng"]
    trainer.rng_of_order = description["rng_of_order"]
    trainer.model.stop_training = description["stop_training"]
    trainer.history.epoch[:] = description["history"]["epoch"]
    trainer.history.history.update(description["history"]["history"])


def _with_state(trainer: Trainer) -> list[Callback]:
    """The others may differ when the training is continued."""
    return [callback for callback in trainer.callbacks if callback.state_names]


def _below(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
