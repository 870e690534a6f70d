"""What all callbacks have: the base of those that come along, and of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from fastlstm.ops.checks import describe
from fastlstm.training.trainable import Trainable

if TYPE_CHECKING:
    from fastlstm.training.loop import Trainer

Logs: TypeAlias = Mapping[str, float]


class Callback:
    """Base of all callbacks: override what is needed.

    Methods whose names begin with "on_" are hooks: one of another name, or with other arguments, is an error before
    training begins. Of a model on a GPU, ``logs`` of ``on_train_batch_end`` are read when they are asked for, so that
    ``logs["loss"]`` waits for the batch.

    Attributes
    ----------
    model : the model
        Set ``model.stop_training`` to end the training after the batch or epoch at hand.
    trainer : Trainer
        The running loop: ``trainer.optimizer``, ``trainer.epoch``, ``trainer.history`` ...
    state_names : tuple of str
        Attributes that a checkpoint keeps: numbers, strings, None, or lists of arrays. What is a number, a string or a
        list when training begins stays one, or becomes None.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.model: Trainable
        self.trainer: Trainer

    def check_log_names(self, names: Sequence[str]) -> None:
        """Raise if ``names``, all that the logs of an epoch will have, are not what the callback needs.

        Called before training begins, unless a callback of one's own comes first: it may add to the logs.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What of the callback must be equal for a checkpoint to be continued."""
        return {}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if ``state``, a checkpoint's values by their ``state_names``, cannot be the callback's."""

    def on_train_begin(self) -> None: ...

    def on_train_end(self) -> None: ...

    def on_epoch_begin(self, epoch: int) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Logs) -> None: ...

    def on_train_batch_begin(self, batch: int) -> None: ...

    def on_train_batch_end(self, batch: int, logs: Logs) -> None: ...

    def on_interrupt(self) -> None:
        """After Ctrl-C, between two batches; KeyboardInterrupt follows."""

    def close(self) -> None:
        """However training ended, exceptions included."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
# Keras calls these too.
_OTHERS = {"on_batch_begin": "on_train_batch_begin", "on_batch_end": "on_train_batch_end"}


def check_callbacks(callbacks: Any) -> Sequence[Callback]:
    """The callbacks as a sequence, of one or of None too; raises if something among them is none."""
    if callbacks is None:
        return ()
    if isinstance(callbacks, Callback):
        return (callbacks,)
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is {describe(callbacks)}, expected a sequence of callbacks, () for none")
    listed = tuple(callbacks)
    for i, callback in enumerate(listed):
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{i}] is {describe(callback)}, expected an object of fastlstm.callbacks, or of a class "
                "derived from its Callback"
            )
    return listed


def check_hooks(callbacks: Iterable[Callback]) -> None:
    """Raise if a callback has a hook that is never called, or one that cannot be called as hooks are."""
    for callback in callbacks:
        for name in dir(callback):
            if not name.startswith("on_") or not callable(getattr(callback, name)):
                continue
            if name not in HOOKS:
                from difflib import get_close_matches

                likely = [_OTHERS[name]] if name in _OTHERS else get_close_matches(name, HOOKS, 1)
                hint = f"is {likely[0]} meant?" if likely else f"there are {', '.join(HOOKS)}"
                raise ValueError(f"{type(callback).__name__}.{name} is never called: {hint}")
            _check_signature(callback, name)


def _check_signature(callback: Callback, name: str) -> None:
    arguments = [*signature(getattr(Callback, name)).parameters][1:]
    hook = getattr(callback, name)
    if not takes(hook, *arguments):
        names = signature(hook).parameters
        hint = "; give logs a default: logs=None" if "logs" in names and "logs" not in arguments else ""
        raise TypeError(
            f"{type(callback).__name__}.{name}{signature(hook)} is called with ({', '.join(arguments)}){hint}"
        )


def takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a function can be called with so many arguments; of what is not written in Python it is assumed."""
    try:
        expected = signature(function)
    except (TypeError, ValueError):
        return True
    try:
        expected.bind(*arguments)
    except TypeError:
        return False
    return True
