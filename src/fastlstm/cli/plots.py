"""Pictures of a training: curves by epoch, word vectors in two dimensions, where attention falls."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fastlstm.models import WordVectors

from fastlstm.contract import FloatArray

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
    if can_draw():
        _plot(folder / "loss.png", title, "loss", "cross entropy per symbol", histories)
        _plot(folder / "accuracy.png", title, "accuracy", "whole answers right, %", histories, scale="percent")


def plot_perplexity(folder: Path, title: str, history: Curves) -> None:
    """Draw perplexity.png: "perplexity" and, where there is one, "val_perplexity", an entry an epoch."""
    if can_draw():
        _plot(folder / "perplexity.png", title, "perplexity", "perplexity", {"": history}, scale="log")


def plot_words(folder: Path, words: WordVectors, count: int) -> None:
    """Draw words.png: the first ``count`` words where their unit vectors' two principal components put them."""
    if importlib.util.find_spec("matplotlib") is None:
        return  # said already
    from matplotlib.figure import Figure

    vectors = words.vectors[:count].astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors -= vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    figure = Figure(figsize=(14, 14), layout="constrained")
    axes = figure.add_subplot(title=f"The {len(places)} most frequent words, two principal components")
    axes.scatter(places[:, 0], places[:, 1], s=4, alpha=0.3)
    for word, (x, y) in zip(words.vocabulary, places, strict=False):
        axes.annotate(word.replace("$", r"\$"), (x, y), fontsize=8)
    figure.savefig(folder / "words.png", dpi=120)


def plot_errors(folder: Path, title: str, history: Curves) -> None:
    """Draw loss.png and error.png: "loss", "error", the same after "val_", and "test_error", an entry an epoch."""
    if can_draw():
        _plot(folder / "loss.png", title, "loss", "cross entropy", {"": history})
        _plot(folder / "error.png", title, "error", "wrong, %", {"": history}, scale="error")


def plot_loss(folder: Path, title: str, axis: str, histories: Mapping[str, Curves]) -> None:
    """Draw loss.png of one or more trainings, "loss" and "val_loss", with a logarithmic scale."""
    if can_draw():
        _plot(folder / "loss.png", title, "loss", axis, histories, scale="log")


def plot_series(
    path: Path, title: str, clean: FloatArray, learned: FloatArray, start: int, continued: Mapping[str, FloatArray]
) -> None:
    """Draw how models go on with a series, beside how it goes on.

    Parameters
    ----------
    path : Path
    title : str
    clean : (L,)
        The series without noise.
    learned : (P,)
        The values that were learned from, from the same step on.
    start : int
        Steps that the models read before they go on by themselves.
    continued : mapping of label to (L - start,)
    """
    if not can_draw():
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="value")
    axes.plot(clean, color="black", linewidth=1, label="sine")
    axes.plot(learned, ".", color="gray", markersize=3, label="learned from")
    for label, values in continued.items():
        axes.plot(range(start, start + len(values)), values, label=f"{label}, by itself")
    axes.axvline(start - 0.5, color="black", linestyle=":", linewidth=1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2 + len(continued))
    figure.savefig(path, dpi=120)


def plot_token_accuracy(folder: Path, title: str, symbols: str, history: Curves) -> None:
    """Draw loss.png and accuracy.png: "loss" and "token_accuracy", the same after "val_", an entry an epoch."""
    if can_draw():
        _plot(folder / "loss.png", title, "loss", "cross entropy per symbol", {"": history})
        axis = f"{symbols} right when all before are given, %"
        _plot(folder / "accuracy.png", title, "token_accuracy", axis, {"": history}, scale="percent")


class AttentionMap(NamedTuple):
    """weights (T, S): how much each of the S symbols read weighed when each of the T symbols was written."""

    read: Sequence[str]
    written: Sequence[str]
    weights: FloatArray


def plot_attention(path: Path, title: str, maps: Sequence[AttentionMap]) -> None:
    """Draw where a model looked: what it read across, what it wrote down, brighter for more weight.

    Signs that no installed font has are drawn as boxes, and a line on stderr says so.
    """
    if not can_draw():
        return
    from matplotlib.figure import Figure

    columns = min(len(maps), 2)
    rows = math.ceil(len(maps) / columns)
    font, unknown = _font_for({sign for one in maps for symbol in (*one.read, *one.written) for sign in symbol})
    if unknown:
        print(
            f"{path.name}: no installed font has {''.join(sorted(unknown)[:10])}; with one, such as the package "
            "fonts-noto-cjk, train again or plot again",
            file=sys.stderr,
        )
    figure = Figure(figsize=(7 * columns, 4.2 * rows), layout="constrained")
    figure.suptitle(title)
    for number, (read, written, weights) in enumerate(maps, 1):
        axes = figure.add_subplot(rows, columns, number)
        shown = axes.imshow(weights, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        for axis, symbols in ((axes.xaxis, read), (axes.yaxis, written)):
            labels = [_visible(symbol, unknown) for symbol in symbols]
            turned = 90 if axis is axes.xaxis and any(len(label) > 2 for label in labels) else 0
            axis.set_ticks(range(len(labels)), labels, rotation=turned, **font)
        axes.xaxis.tick_top()
        figure.colorbar(shown, ax=axes)
    figure.savefig(path, dpi=110)


# What would not be seen as a label.
_NAMES = {"\n": "end", "\t": "start", " ": "_"}


# Fonts of matplotlib that have other things in the places of signs.
_STAND_INS = ("Last Resort", "STIXNonUnicode")


def _font_for(signs: set[str]) -> tuple[dict[str, Any], set[str]]:
    """Text properties with a font that has the signs, and those that none has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    def missing_in(path: str) -> set[str]:
        font = get_font(path)
        return {sign for sign in signs if sign not in _NAMES and not font.get_char_index(ord(sign))}

    usual = missing_in(findfont(FontProperties()))
    if not usual:
        return {}, set()
    fonts = {entry.fname for entry in fontManager.ttflist if not entry.name.startswith(_STAND_INS)}
    missing, path = min((len(missing_in(path)), path) for path in fonts)
    if missing >= len(usual):
        return {}, usual
    return {"fontproperties": FontProperties(fname=path)}, missing_in(path)


def _visible(symbol: str, unknown: set[str]) -> str:
    """A symbol as a label: control characters by name, signs that cannot be drawn as boxes."""
    if symbol in _NAMES:
        return _NAMES[symbol]
    return "".join("\N{WHITE SQUARE}" if sign in unknown else sign for sign in symbol).replace("$", "\\$")


def can_draw() -> bool:
    """Whether there is matplotlib; without it say how to install it."""
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
    scale: Literal["linear", "percent", "error", "log"] = "linear",
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="epoch", ylabel=axis)
    for number, (label, history) in enumerate(histories.items()):
        for prefix, rows, style in (("", "training", "--"), ("val_", "held out", "-"), ("test_", "test", ":")):
            if prefix + name not in history:
                continue
            values = [100 * value if scale in ("percent", "error") else value for value in history[prefix + name]]
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
