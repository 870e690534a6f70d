"""The steps of a training on the host: each runs at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastlstm.training.loop import Trainer


class EagerSteps:
    """Runs the steps of one training.

    Parameters
    ----------
    trainer : Trainer
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def run(self, i: int) -> None:
        """One step on batch i."""
        self._trainer.step(self._trainer.source.batch(i), self._trainer.means)

    def logs(self) -> Mapping[str, float]:
        """Loss and metrics of the epoch so far."""
        return {name: mean.value for name, mean in self._trainer.means.items()}

    def close(self) -> None:
        """Nothing has been changed for the training's time."""
