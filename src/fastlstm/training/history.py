"""What training reached, epoch by epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

MOST_COLUMNS = 40  # of a curve as text
LEVELS = "▁▂▃▄▅▆▇█"


class History:
    """Numbers of every finished epoch.

    Attributes
    ----------
    epoch : list of int
        Numbers of the finished epochs, from 0.
    history : dict of name to list of float
        "loss" and the metrics of the training rows, averaged over the epoch while the weights changed; the same after
        "val_" for the validation rows.
    device_steps : dict of "graph" and "eager" to int
        How many steps of the training on a GPU were a replay of a CUDA graph each, and how many ran operator by
        operator; both are 0 on the host. Not part of a checkpoint.
    why_no_graph : str or None
        Why steps ran operator by operator beyond the first of every shape of a batch.
    """

    def __init__(self) -> None:
        self.device_steps = {"graph": 0, "eager": 0}
        self.why_no_graph: str | None = None
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def __repr__(self) -> str:
        """A line for every number: its curve between its least and its greatest value, the first and the last."""
        count = len(self.epoch)
        lines = [f"History of {count:,} epoch{'' if count == 1 else 's'}"]
        width = max(map(len, self.history), default=0)
        for name, values in self.history.items():
            if values:
                numbers = f"{values[0]:.4g}" if len(values) == 1 else f"{values[0]:.4g} to {values[-1]:.4g}"
                lines.append(f"  {name:{width}}  {curve(values)}  {numbers}")
        return "\n".join(lines)

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def to_csv(self, separator: str = ",") -> str:
        """A line of names and a line an epoch, epochs counted from 1; what a list of one's own lacks stays empty."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        writer.writerow(["epoch", *self.history])
        for row, epoch in enumerate(self.epoch):
            numbers = [values[row] if row < len(values) else "" for values in self.history.values()]
            writer.writerow([epoch + 1, *numbers])
        return text.getvalue()


def curve(values: Sequence[float]) -> str:
    """Numbers as a line of text: low to high bars, "x" where one is NaN or infinite; of many, every so many."""
    if len(values) > MOST_COLUMNS:
        step = (len(values) - 1) / (MOST_COLUMNS - 1)
        values = [values[round(i * step)] for i in range(MOST_COLUMNS)]
    halves = [value / 2 for value in values]  # whose differences are finite
    finite = [half for half in halves if math.isfinite(half)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = (high - low) / (len(LEVELS) - 1) or math.inf
    return "".join(LEVELS[round((half - low) / step)] if math.isfinite(half) else "x" for half in halves)
