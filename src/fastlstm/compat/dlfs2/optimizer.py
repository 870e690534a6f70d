"""``common.optimizer``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastlstm import ops, optim
from fastlstm.arrays import is_device_array
from fastlstm.contract import FloatArray
from fastlstm.optim import Grad


class BookOptimizer(optim.Optimizer):
    """Also takes parameters that are transposed views, as the output weight of a tied model is."""

    def update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[Grad],
        max_norm: float | None = None,
        *,
        grad_scale: float = 1.0,
    ) -> None:
        if not all(param.flags.c_contiguous for param in params):
            turned = [not param.flags.c_contiguous for param in params]
            params = [param.T if turn else param for param, turn in zip(params, turned, strict=True)]
            arrays = cast("Sequence[FloatArray]", grads)
            grads = [grad.T if turn else grad for grad, turn in zip(arrays, turned, strict=True)]
        super().update(params, grads, max_norm, grad_scale=grad_scale)


class SGD(BookOptimizer, optim.SGD):
    """p -= lr g."""


class Momentum(BookOptimizer, optim.Momentum):
    """v = momentum v - lr g; p += v."""


class Nesterov(BookOptimizer, optim.Momentum):
    """v = momentum v - lr g; p += momentum^2 v - (1 + momentum) lr g.

    The book's second step takes v after the first one has changed it, where ``fastlstm.optim.Nesterov`` takes it as it
    was before.
    """

    def _update(self, params: Sequence[FloatArray], grads: Sequence[Grad], scale: float) -> None:
        velocities = self._slots["v"]
        ops.momentum_update(params, grads, velocities, self.lr, momentum=self.momentum, grad_scale=scale)
        # p has v too much by now, but for its share momentum^2.
        step: Any
        for param, grad, velocity in zip(params, cast("Sequence[FloatArray]", grads), velocities, strict=True):
            param -= (1 - self.momentum**2) * velocity
            step = (1 + self.momentum) * self.lr * scale
            param -= (step.astype(param.dtype) if is_device_array(step) else param.dtype.type(step)) * grad


class AdaGrad(BookOptimizer, optim.AdaGrad):
    """h += g^2; p -= lr g / (sqrt(h) + 1e-7)."""


class RMSprop(BookOptimizer, optim.RMSprop):
    """h = decay_rate h + (1 - decay_rate) g^2; p -= lr g / (sqrt(h) + 1e-7)."""


class Adam(BookOptimizer, optim.Adam):
    """Adam; see docs/decisions/adam-epsilon.md."""
