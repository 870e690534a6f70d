"""What training reached, epoch by epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping


class History:
    """Numbers of every finished epoch.

    Attributes
    ----------
    epoch : list of int
        Numbers of the finished epochs, from 0.
    history : dict of name to list of float
        "loss" and the metrics of the training rows, averaged over the epoch while the weights changed; the same after
        "val_" for the validation rows.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def to_csv(self, separator: str = ",") -> str:
        """A line of names and a line an epoch, epochs counted from 1."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        writer.writerow(["epoch", *self.history])
        for row, epoch in enumerate(self.epoch):
            writer.writerow([epoch + 1, *(values[row] for values in self.history.values())])
        return text.getvalue()
