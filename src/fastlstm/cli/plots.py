"""Pictures of a training: loss, accuracy or perplexity by epoch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

Curves = Mapping[str, Sequence[float]]


def plot_runs(folder: Path, title: str, histories: Mapping[str, Curves]) -> None:
    """Draw loss.png and accuracy.png of one or more trainings; without matplotlib say how to install it.

    Parameters
    ----------
    folder : Path
    title : str
    histories : mapping of label to history
        History: "loss", "accuracy", "val_loss", "val_accuracy", an entry an epoch.
    """
    if _can_draw():
        _plot(folder / "loss.png", title, "loss", "cross entropy per symbol", histories)
        _plot(folder / "accuracy.png", title, "accuracy", "whole answers right, %", histories, scale="percent")


def plot_perplexity(folder: Path, title: str, history: Curves) -> None:
    """Draw perplexity.png: "perplexity" and, where there is one, "val_perplexity", an entry an epoch."""
    if _can_draw():
        _plot(folder / "perplexity.png", title, "perplexity", "perplexity", {"": history}, scale="log")


def _can_draw() -> bool:
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    print("matplotlib is not installed, so there are no pictures; run: pip install 'fastlstm[train]'", file=sys.stderr)
    return False


def _plot(
    path: Path,
    title: str,
    name: str,
    axis: str,
    histories: Mapping[str, Curves],
    *,
    scale: Literal["linear", "percent", "log"] = "linear",
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="epoch", ylabel=axis)
    for number, (label, history) in enumerate(histories.items()):
        for prefix, rows, style in (("", "training", "--"), ("val_", "held out", "-")):
            if prefix + name not in history:
                continue
            values = [100 * value if scale == "percent" else value for value in history[prefix + name]]
            axes.plot(
                range(1, len(values) + 1),
                values,
                style,
                marker="." if len(values) < 40 else None,
                color=f"C{number}",
                alpha=1.0 if prefix else 0.5,
                label=f"{label}, {rows}" if label else rows,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if scale == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0, top=102 if scale == "percent" else None)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(histories))
    figure.savefig(path, dpi=120)
