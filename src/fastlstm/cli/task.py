"""What the module of a task has: how its model learns, is measured and drawn. ``cli/tasks.py`` lists the modules."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from fastlstm.cli import run_folder
from fastlstm.cli.plots import Pictures
from fastlstm.contract import Precision
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.models import Model
from fastlstm.ops.device import Device

AnyModel = TypeVar("AnyModel", bound=Model)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What fixes a training of any task to the bit, together with its own options and the data."""

    epochs: int = 1
    seed: int = 0
    shards: int = 1
    device: Device = "cpu"
    precision: Precision | None = None
    grad_precision: GradPrecision | None = None
    patience: int | None = None
    validation: str | None = None
    test: str | None = None
    tensorboard: bool = False
    init_from: str | None = None


class Initial(NamedTuple):
    """The run whose weights another begins with; ``is_copied`` if the folder is the other's, which has copies."""

    folder: Path
    is_copied: bool

    def load(self, kind: type[AnyModel], part: str = "") -> AnyModel:
        """Its model, or that of a part of the run."""
        folder = self.folder / part
        return kind.load(folder / run_folder.INITIAL) if self.is_copied else run_folder.load_model(kind, folder)


class Task(Protocol):
    """A module of a task; its docstring describes the command ``fastlstm train TASK``.

    Attributes
    ----------
    TASK : str
        Its name.
    Options : dataclass
        The options that fix a training, with their default values.
    MODEL_OPTIONS : sequence of str
        Those of them that belong to the model and its vocabulary: a run keeps them with ``--init-from``.
    DATA_OPTIONS : sequence of str
        Those that say what is read; such a run keeps them unless one of them is given.
    """

    TASK: str
    Options: type[Any]

    @property
    def MODEL_OPTIONS(self) -> Sequence[str]: ...

    @property
    def DATA_OPTIONS(self) -> Sequence[str]: ...

    def add_options(self, parser: argparse.ArgumentParser, /) -> None:
        """The options of the command: none has a default value, so that it can be told which were given."""

    def resolve(self, given: Mapping[str, Any], /) -> Any:
        """The options of a new run from those that were given."""

    def prepare(self, options: Any, initial: Initial | None, /) -> Any:
        """Data and models; raises before there is a folder if something is wrong with them."""

    def describe(self, prepared: Any, /) -> Mapping[str, Any]:
        """What config.json says of them: the numbers of rows and classes, and what `generate` needs."""
        ...

    def train(self, folder: Path, options: Any, prepared: Any, quiet: bool, /) -> int:
        """Begin, or go on with what is in the folder; returns the exit code."""
        ...

    def files(self, options: Any, /) -> Sequence[str]:
        """Names of the files that a finished run has; pictures only count where they can be drawn."""
        ...

    def shared_epochs(self, options: Any, /) -> int:
        """How many of its first epochs a training has in common with any that is longer."""
        ...

    def measure(self, folder: Path, options: Any, path: str, /) -> Mapping[str, float]:
        """How good the model of a run is on the data of a file."""
        ...

    def pictures(self, folder: Path, options: Any, prepared: Callable[[], Any], /) -> Pictures:
        """What draws the pictures of a run, as far as it is, with what `prepare` returned where that is needed."""
        ...
