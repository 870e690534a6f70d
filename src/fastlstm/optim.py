"""Optimisers: objects that keep their state between updates, on top of the fused update operators.

Names and default values are those of "Deep Learning from Scratch 2", AdamW's those of Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from fastlstm import ops
from fastlstm.arrays import array_module, free_unused_memory
from fastlstm.contract import FloatArray, PaddedRowGrad, RowGrad
from fastlstm.ops import scalars
from fastlstm.ops.checks import describe
from fastlstm.ops.device import device_of, to_device
from fastlstm.ops.parameters import is_transpose

Grad: TypeAlias = "FloatArray | RowGrad | PaddedRowGrad"


def clip_grads(grads: Sequence[Grad], max_norm: float) -> float:
    """Scale all gradients in place so that their global norm is at most ``max_norm``; return the norm before."""
    return ops.clip_grad_norm(grads, max_norm)


class Optimizer:
    """Base of all optimisers.

    Attributes
    ----------
    lr, learning_rate : float
        Learning rate, by two names; may be changed between updates. A ValueError unless finite and at least 0. Each
        constructor takes one of them, or neither for ``default_lr``.
    step : int
        Updates done.
    step_on_device : 0-d int64 array, or None
        The same on a GPU, after `count_on_device`.
    lr_on_device : 0-d float64 array, or None
        Stands for ``lr`` in updates while it is there: a captured graph reads it in every replay. Whoever sets it keeps
        it equal to ``lr``.
    """

    slot_names: ClassVar[tuple[str, ...]] = ()
    hyperparameter_names: ClassVar[tuple[str, ...]] = ()  # of attributes that a checkpoint keeps, beside lr
    default_lr: ClassVar[float] = 0.01

    def __init__(self, lr: float | None = None, *, learning_rate: float | None = None) -> None:
        if lr is not None and learning_rate is not None:
            raise TypeError("lr and learning_rate are the same; give one of them")
        given = learning_rate if lr is None else lr
        self.lr = self.default_lr if given is None else given
        self.step = 0
        self.step_on_device: Any = None
        self.lr_on_device: Any = None
        self._slots: dict[str, list[FloatArray]] = {}
        self._is_restored = False  # and not yet laid out as the parameters are

    @property
    def lr(self) -> float:
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = scalars.finite("lr", value, 0)

    @property
    def learning_rate(self) -> float:
        return self.lr

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.lr = value

    def __repr__(self) -> str:
        settings = (f"{name}={getattr(self, name)!r}" for name in ("lr", *self.hyperparameter_names))
        done = f" after {self.step:,} update{'' if self.step == 1 else 's'}" if self.step else ""
        return f"{type(self).__name__}({', '.join(settings)}){done}"

    def update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[Grad],
        max_norm: float | None = None,
        *,
        grad_scale: float = 1.0,
    ) -> None:
        """Change the parameters in place.

        Parameters
        ----------
        params : sequence of arrays
            The same in every call: the state belongs to their positions. They and the gradients lie in memory as in
            `ops.sgd_update`.
        grads : sequence of arrays or RowGrad, on a GPU also PaddedRowGrad
        max_norm : float, optional
            Clip the gradients' global norm to it, as part of the update: ``grads`` stay as they are.
        grad_scale : float
            The gradients are ``grad_scale * grads``: 1 / n, where ``grads`` are those of a sum over n targets.
        """
        self.prepare(params)
        scale = grad_scale
        if max_norm is not None:
            norm = ops.global_norm(grads)
            scale = ops.clip_scale(norm, max_norm) if scale == 1 else scale * ops.clip_scale(scale * norm, max_norm)
        if self.step_on_device is not None:
            self.step_on_device += 1
        self._update(params, grads, scale)
        self.step += 1

    def prepare(self, params: Sequence[FloatArray]) -> None:
        """Make the state of the parameters, or move it to where they have been moved; `update` begins with that."""
        if not self._slots and self.slot_names:
            # What the first step left unused is more than later steps take, whose tapes need no room for new state.
            free_unused_memory()
            self._slots = {
                name: [array_module(param).zeros_like(param) for param in params] for name in self.slot_names
            }
        elif params:
            self._follow(params)

    def capture_key(self) -> tuple[Any, ...]:
        """What a captured update depends on: the arrays of the state, and all settings but what a replay is given.

        Once one of these is another, so is the update, and has to be captured again.
        """
        arrays = (array for slot in self._slots.values() for array in slot)
        given = ("_lr", "step", "step_on_device", "lr_on_device", "_slots", "_is_restored")
        return (*arrays, *(value for name, value in vars(self).items() if name not in given))

    def _lr_now(self) -> Any:
        """The learning rate of this update, on the device if it stands there."""
        return self.lr if self.lr_on_device is None else self.lr_on_device

    def count_on_device(self, zero: Any) -> None:
        """Count the updates on the GPU too, which makes them capturable.

        A graph repeats what it was captured with, so Adam has to find the number of its step on the device. Each
        update adds 1 there, in every replay too; `step`, on the host, is for whoever replays the graph to add to. The
        learning rate is read where ``lr_on_device`` says, else the graph has it as it was when captured.

        Parameters
        ----------
        zero : 0-d int64 array on the GPU
            Becomes `step_on_device`, with the number of updates done so far in it.
        """
        self.step_on_device = zero
        self.step_on_device[...] = self.step

    def _follow(self, params: Sequence[FloatArray]) -> None:
        """Move the state to where the parameters have been moved; what came from elsewhere lies as they do then."""
        device = device_of(params[0])
        for slot in self._slots.values():
            if slot and (self._is_restored or device_of(slot[0]) != device):
                slot[: len(params)] = [
                    _laid_out(to_device(array, device), param) for array, param in zip(slot, params, strict=False)
                ]
        self._is_restored = False

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        raise NotImplementedError

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """What a checkpoint needs: numbers, and arrays by name."""
        arrays = {f"{name}.{i}": array for name, slot in self._slots.items() for i, array in enumerate(slot)}
        hyperparameters = {name: getattr(self, name) for name in self.hyperparameter_names}
        return {"class": type(self).__name__, "lr": self.lr, "step": self.step, **hyperparameters}, arrays

    def set_state(self, numbers: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> None:
        """Go on from what `state` returned; hyperparameters that it did not return yet stay as they are."""
        if numbers["class"] != type(self).__name__:
            raise ValueError(f"the saved optimizer is {numbers['class']}, this one is {type(self).__name__}")
        self.lr, self.step = numbers["lr"], numbers["step"]
        for name in self.hyperparameter_names:
            setattr(self, name, numbers.get(name, getattr(self, name)))
        slots: dict[str, list[FloatArray]] = {}
        for name in self.slot_names:
            count = sum(key.startswith(f"{name}.") for key in arrays)
            slots[name] = [arrays[f"{name}.{i}"].copy() for i in range(count)]
        self._slots = slots if arrays else {}
        self._is_restored = True
        if self.step_on_device is not None:
            self.step_on_device[...] = self.step


def _laid_out(array: FloatArray, param: FloatArray) -> FloatArray:
    """The array, or a copy that lies in memory in the order of the parameter."""
    if is_transpose(array) == is_transpose(param):
        return array
    return array.copy(order="F" if is_transpose(param) else "C")


class SGD(Optimizer):
    """Stochastic gradient descent."""

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.sgd_update(params, grads, self._lr_now(), grad_scale=scale)


class Momentum(Optimizer):
    """Momentum: v = momentum v - lr g; p += v."""

    slot_names: ClassVar[tuple[str, ...]] = ("v",)
    hyperparameter_names: ClassVar[tuple[str, ...]] = ("momentum",)

    def __init__(self, lr: float | None = None, momentum: float = 0.9, *, learning_rate: float | None = None) -> None:
        super().__init__(lr, learning_rate=learning_rate)
        self.momentum = momentum

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.momentum_update(params, grads, self._slots["v"], self._lr_now(), momentum=self.momentum, grad_scale=scale)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient (Bengio, Boulanger-Lewandowski, Pascanu, 2012)."""

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.nesterov_update(params, grads, self._slots["v"], self._lr_now(), momentum=self.momentum, grad_scale=scale)


class AdaGrad(Optimizer):
    """AdaGrad (Duchi, Hazan, Singer, 2011); eps_inside_root as in `ops.adagrad_update`."""

    slot_names: ClassVar[tuple[str, ...]] = ("h",)
    hyperparameter_names: ClassVar[tuple[str, ...]] = ("eps_inside_root",)

    def __init__(
        self, lr: float | None = None, *, eps_inside_root: bool = False, learning_rate: float | None = None
    ) -> None:
        super().__init__(lr, learning_rate=learning_rate)
        self.eps_inside_root = eps_inside_root

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.adagrad_update(
            params,
            grads,
            self._slots["h"],
            self._lr_now(),
            eps_inside_root=self.eps_inside_root,
            grad_scale=scale,
        )


class RMSprop(Optimizer):
    """RMSprop (Tieleman, Hinton, 2012)."""

    slot_names: ClassVar[tuple[str, ...]] = ("h",)
    hyperparameter_names: ClassVar[tuple[str, ...]] = ("decay_rate",)

    def __init__(
        self, lr: float | None = None, decay_rate: float = 0.99, *, learning_rate: float | None = None
    ) -> None:
        super().__init__(lr, learning_rate=learning_rate)
        self.decay_rate = decay_rate

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.rmsprop_update(params, grads, self._slots["h"], self._lr_now(), decay=self.decay_rate, grad_scale=scale)


class Adam(Optimizer):
    """Adam (Kingma, Ba, 2015)."""

    slot_names: ClassVar[tuple[str, ...]] = ("m", "v")
    hyperparameter_names: ClassVar[tuple[str, ...]] = ("beta1", "beta2")

    default_lr: ClassVar[float] = 0.001

    def __init__(
        self,
        lr: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(lr, learning_rate=learning_rate)
        self.beta1 = beta1
        self.beta2 = beta2

    def _step_now(self) -> Any:
        """The number of this update, on the device if it is counted there."""
        return self.step + 1 if self.step_on_device is None else self.step_on_device

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.adam_update(
            params,
            grads,
            self._slots["m"],
            self._slots["v"],
            self._lr_now(),
            step=self._step_now(),
            beta1=self.beta1,
            beta2=self.beta2,
            grad_scale=scale,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov, Hutter, 2019)."""

    hyperparameter_names: ClassVar[tuple[str, ...]] = ("beta1", "beta2", "weight_decay")

    def __init__(
        self,
        lr: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.004,
        *,
        learning_rate: float | None = None,
    ) -> None:
        super().__init__(lr, beta1, beta2, learning_rate=learning_rate)
        self.weight_decay = weight_decay

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        ops.adamw_update(
            params,
            grads,
            self._slots["m"],
            self._slots["v"],
            self._lr_now(),
            step=self._step_now(),
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            grad_scale=scale,
        )


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}


def make_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """The optimiser of that name with its default values, or the one given. "Adam" is "adam", as in Keras."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(
            f"optimizer is {describe(optimizer)}, expected a name such as 'adam' or an object such as optim.Adam()"
        )
    if optimizer.lower() not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; expected one of {', '.join(OPTIMIZERS)}, or an Optimizer")
    return OPTIMIZERS[optimizer.lower()]()
