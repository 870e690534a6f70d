"""Pictures of a training: curves by epoch, word vectors in two dimensions, where attention falls."""

from __future__ import annotations

import importlib.util
import math
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from fastlstm.models import WordVectors

from fastlstm.contract import FloatArray
from fastlstm.models.layer_graph import write_picture

Curves = Mapping[str, Sequence[float]]

# What draws each picture of a run, by its name in the run folder.
Pictures = dict[str, Callable[[Path], None]]


def of_answers(title: str, histories: Mapping[str, Curves]) -> Pictures:
    """loss.png and accuracy.png of one or more trainings.

    Parameters
    ----------
    title : str
    histories : mapping of label to history
        History: "loss", "accuracy", "val_loss", "val_accuracy", an entry an epoch.
    """
    return {
        "loss.png": lambda path: _plot(path, title, "loss", "cross entropy per symbol", histories),
        "accuracy.png": lambda path: _plot(
            path, title, "accuracy", "whole answers right, %", histories, scale="percent"
        ),
    }


def of_perplexity(title: str, history: Curves) -> Pictures:
    """perplexity.png: "perplexity" and, where there is one, "val_perplexity", an entry an epoch."""
    return {
        "perplexity.png": lambda path: _plot(path, title, "perplexity", "perplexity", {"": history}, scale="log"),
    }


def of_errors(title: str, history: Curves) -> Pictures:
    """loss.png and error.png: "loss", "error", the same after "val_", and "test_error", an entry an epoch."""
    return {
        "loss.png": lambda path: _plot(path, title, "loss", "cross entropy", {"": history}),
        "error.png": lambda path: _plot(path, title, "error", "wrong, %", {"": history}, scale="error"),
    }


def of_loss(title: str, axis: str, histories: Mapping[str, Curves]) -> Pictures:
    """loss.png of one or more trainings, "loss" and "val_loss", with a logarithmic scale."""
    return {"loss.png": lambda path: _plot(path, title, "loss", axis, histories, scale="log")}


def of_token_accuracy(title: str, symbols: str, history: Curves) -> Pictures:
    """loss.png and accuracy.png: "loss" and "token_accuracy", the same after "val_", an entry an epoch."""
    axis = f"{symbols} right when all before are given, %"
    return {
        "loss.png": lambda path: _plot(path, title, "loss", "cross entropy per symbol", {"": history}),
        "accuracy.png": lambda path: _plot(path, title, "token_accuracy", axis, {"": history}, scale="percent"),
    }


def plot_words(path: Path, words: WordVectors, count: int) -> None:
    """Draw the first ``count`` words where their unit vectors' two principal components put them.

    Signs that no installed font has are drawn as boxes, and a line on stderr says so.
    """
    from matplotlib.figure import Figure

    vectors = words.vectors[:count].astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors -= vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    places[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    font, unknown = _font_for(path, words.vocabulary[:count])
    figure = Figure(figsize=(14, 14), layout="constrained")
    axes = _axes(figure, title=f"The {len(places)} most frequent words, two principal components")
    axes.scatter(places[:, 0], places[:, 1], s=4, alpha=0.3)
    for word, (x, y) in zip(words.vocabulary, places, strict=False):
        axes.annotate(_visible(word, unknown), (x, y), fontsize=8, parse_math=False, **font)
    write_picture(path, figure, dpi=120)


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = _axes(figure, title=title, xlabel="step", ylabel="value")
    axes.plot(clean, color="black", linewidth=1, label="sine")
    axes.plot(learned, ".", color="gray", markersize=3, label="learned from")
    for label, values in continued.items():
        axes.plot(range(start, start + len(values)), values, label=f"{label}, by itself")
    axes.axvline(start - 0.5, color="black", linestyle=":", linewidth=1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2 + len(continued))
    write_picture(path, figure, dpi=120)


def plot_forecast(
    path: Path,
    title: str,
    columns: Sequence[str],
    series: FloatArray,
    end: int,
    ahead: FloatArray,
    forecast: FloatArray,
    limits: tuple[FloatArray, FloatArray],
) -> None:
    """Draw the end of a series, how it was forecast a step ahead where it was held out, and how it goes on.

    Parameters
    ----------
    path : Path
    title : str
    columns : sequence of D names
    series : (L, D)
    end : int
        Steps that were learned from.
    ahead : (L - end, D)
        What was forecast for the steps from ``end`` on, a step ahead each.
    forecast : (horizon, D)
        How it goes on.
    limits : (horizon, D) each
        Between which it goes on.
    """
    from matplotlib.figure import Figure

    L, D = series.shape
    first = max(0, end - (L - end), L - 12 * len(forecast))
    figure = Figure(figsize=(10, 1 + 3.5 * D), layout="constrained")
    font, unknown = _font_for(path, [title, *columns])
    text, properties = _title(title, font, unknown)
    figure.suptitle(text, **properties)
    for d, name in enumerate(columns):
        axes = _axes(figure, D, 1, d + 1, xlabel="step")
        axes.set_ylabel(_visible(name, unknown), parse_math=False, **font)
        axes.plot(range(first, L), series[first:, d], color="black", linewidth=1, label="series")
        shown = max(first, end)
        axes.plot(range(shown, L), ahead[shown - end :, d], color="C0", linewidth=1, label="a step ahead, held out")
        future = range(L, L + len(forecast))
        axes.plot(future, forecast[:, d], color="C1", marker=".", label="forecast")
        axes.fill_between(future, limits[0][:, d], limits[1][:, d], color="C1", alpha=0.25, label="interval")
        axes.axvline(L - 0.5, color="black", linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    write_picture(path, figure, dpi=120)


class AttentionMap(NamedTuple):
    """weights (T, S): how much each of the S symbols read weighed when each of the T symbols was written."""

    read: Sequence[str]
    written: Sequence[str]
    weights: FloatArray


def plot_attention(path: Path, title: str, maps: Sequence[AttentionMap]) -> None:
    """Draw where a model looked: what it read across, what it wrote down, brighter for more weight.

    Signs that no installed font has are drawn as boxes, and a line on stderr says so.
    """
    from matplotlib.figure import Figure

    columns = min(len(maps), 2)
    rows = math.ceil(len(maps) / columns)
    font, unknown = _font_for(path, [title, *(symbol for one in maps for symbol in (*one.read, *one.written))])
    figure = Figure(figsize=(7 * columns, 4.2 * rows), layout="constrained")
    text, properties = _title(title, font, unknown)
    figure.suptitle(text, **properties)
    for number, (read, written, weights) in enumerate(maps, 1):
        axes = figure.add_subplot(rows, columns, number)
        shown = axes.imshow(weights, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        for axis, symbols in ((axes.xaxis, read), (axes.yaxis, written)):
            labels = [_visible(symbol, unknown) for symbol in symbols]
            turned = 90 if axis is axes.xaxis and any(len(label) > 2 for label in labels) else 0
            axis.set_ticks(range(len(labels)), labels, rotation=turned, parse_math=False, **font)
        axes.xaxis.tick_top()
        figure.colorbar(shown, ax=axes)
    write_picture(path, figure, dpi=110)


# What would not be seen as a label.
_NAMES = {"\n": "end", "\t": "start", " ": "_"}


_TITLE_WIDTH = 80  # letters that fit above a picture

# Fonts of matplotlib that have other things in the places of signs.
_STAND_INS = ("Last Resort", "STIXNonUnicode")


def _title(title: str, font: dict[str, Any], unknown: set[str]) -> tuple[str, dict[str, Any]]:
    """A picture's title, in which a file's name may stand, and its text properties; see `_font_for`."""
    # matplotlib's own wrapping reads what stands between two dollars as mathematics, whatever parse_math is.
    text = "\n".join(textwrap.fill(line, _TITLE_WIDTH) for line in _visible(title, unknown).split("\n"))
    return text, {"parse_math": False, **font, "fontsize": "large"}


def _font_for(path: Path, texts: Iterable[str]) -> tuple[dict[str, Any], set[str]]:
    """Text properties with fonts that have the signs of the texts, and those that none has, which a line tells."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    signs = {sign for text in texts if text not in _NAMES for sign in text}

    def held_by(font_path: str) -> set[str]:
        font = get_font(font_path)
        return {sign for sign in signs if font.get_char_index(ord(sign))}

    unknown = signs - held_by(findfont(FontProperties()))
    families: list[str] = []
    if unknown:
        # A font that has most of what is missing, then one that has most of the rest.
        held = {
            entry.name: held_by(entry.fname)
            for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.weight == 400))
            if not entry.name.startswith(_STAND_INS) and entry.style == "normal"
        }
        while held and unknown & held[best := max(held, key=lambda name: len(unknown & held[name]))]:
            families.append(best)
            unknown = unknown - held[best]
    if unknown:
        shown = "".join(sorted(unknown)[:10]).encode(errors="backslashreplace").decode()
        packages = " and ".join(sorted({_package_for(sign) for sign in unknown}))
        print(
            f"{path.name}: no installed font has {shown}; with one, such as of the package "
            f"{packages}, draw again: fastlstm plot {path.parent}",
            file=sys.stderr,
        )
    return ({"fontfamily": [*mpl.rcParams["font.family"], *families]} if families else {}), unknown


def _package_for(sign: str) -> str:
    """The package of Linux distributions with a font that has the sign."""
    name = unicodedata.name(sign, "")
    if name.startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(sign) == "So" else "fonts-noto-core"


def _visible(symbol: str, unknown: set[str]) -> str:
    """A symbol as a label: control characters by name, signs that cannot be drawn as boxes."""
    if symbol in _NAMES:
        return _NAMES[symbol]
    return "".join("\N{WHITE SQUARE}" if sign in unknown else sign for sign in symbol)


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def can_draw(run: Path) -> bool:
    """Whether there is matplotlib; without it say how to install it, and to draw the pictures of a run then."""
    if has_matplotlib():
        return True
    print(
        "matplotlib is not installed, so there are no pictures; run: pip install 'fastlstm[train]', then: fastlstm "
        f"plot {run}",
        file=sys.stderr,
    )
    return False


def _axes(figure: Any, *place: int, **labels: str) -> Any:
    """New axes with plain numbers beside them: neither an offset nor a power of ten stands for a part of them."""
    axes = figure.add_subplot(*place, **labels)
    axes.ticklabel_format(style="plain", useOffset=False)
    return axes


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
    from matplotlib.ticker import AutoLocator, LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = _axes(figure, xlabel="epoch", ylabel=axis)
    text, properties = _title(title, *_font_for(path, [title]))
    axes.set_title(text, **properties)
    drawn = []
    for number, (label, history) in enumerate(histories.items()):
        for prefix, rows, style in (("", "training", "--"), ("val_", "held out", "-"), ("test_", "test", ":")):
            if prefix + name not in history:
                continue
            values = [100 * value if scale in ("percent", "error") else value for value in history[prefix + name]]
            drawn.append(values)
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
    positive = [value for values in drawn for value in values if 0 < value < math.inf]
    if scale == "log" and positive:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5)) if max(positive) > 10 * min(positive) else AutoLocator()
        )
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale != "log":
        axes.set_ylim(bottom=0, top=102 if scale == "percent" else None)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(histories))
    write_picture(path, figure, dpi=120)
