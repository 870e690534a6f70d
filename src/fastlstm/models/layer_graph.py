"""A picture of a model: a box for each layer, an arrow for what flows from one to the next."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm.tensor_file import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.21  # inches of a line of text
BOX_WIDTH, COLUMN_GAP, ROW_GAP = 2.7, 1.7, 0.6  # inches
BEND = 0.45  # inches that a bent line keeps away from the boxes it goes around


class Edge(NamedTuple):
    """What flows from one box to another, and its shape; names that are no layers are inputs and outputs."""

    source: str
    target: str
    shape: str = ""


class Box(NamedTuple):
    """A layer: its class, its own parameters, those of others that it uses (name to "layer.name"), how many numbers."""

    kind: str
    parameters: list[str]
    shared: dict[str, str]
    size: int


class _Place(NamedTuple):
    """A box in the picture, in inches: its middle and its size."""

    x: float
    y: float
    width: float
    height: float


def draw_layer_graph(path: str | os.PathLike[str], title: str, boxes: Mapping[str, Box], edges: Sequence[Edge]) -> None:
    """Write the picture. The edges may not go round in a circle.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    OSError
        The picture cannot be written; the message names it.
    ValueError
        A layer has no edge, the edges go round in a circle, or matplotlib has no format with the path's ending.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot needs matplotlib; run: pip install 'fastlstm[train]'") from None
    if alone := boxes.keys() - {name for edge in edges for name in (edge.source, edge.target)}:
        raise ValueError(f"the layer {min(alone)} has no edge, so it has no place in the picture")
    rows, columns = _rows(edges), _columns(boxes, edges)
    texts = {name: _text_of(name, boxes.get(name)) for name in rows}
    heights = {name: LINE * (len(lines) + 0.9) for name, lines in texts.items()}
    row_heights = [max(heights[name] for name in rows if rows[name] == row) for row in range(max(rows.values()) + 1)]
    width = (max(columns.values()) + 1) * (BOX_WIDTH + COLUMN_GAP)
    height = sum(row_heights) + ROW_GAP * len(row_heights) + 3 * LINE
    places = {}
    for name, row in rows.items():
        y = height - 3 * LINE - sum(row_heights[:row]) - ROW_GAP * row - row_heights[row] / 2
        x = columns[name] * (BOX_WIDTH + COLUMN_GAP) + (BOX_WIDTH + COLUMN_GAP) / 2
        places[name] = _Place(x, y, BOX_WIDTH, heights[name])

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    axes.text(width / 2, height - 1.2 * LINE, title, ha="center", va="center", size=12, weight="bold", parse_math=False)
    for name, lines in texts.items():
        _draw_box(axes, places[name], lines, boxes.get(name))
    for edge in edges:
        _draw_arrow(axes, edge, places, rows, columns)
    for name, box in boxes.items():
        for lender in sorted({full_name.rpartition(".")[0] for full_name in box.shared.values()}):
            _draw_sharing(axes, places[lender], places[name])
    write_picture(path, figure, dpi=110)


def write_picture(path: str | os.PathLike[str], figure: Figure, *, dpi: int) -> None:
    """Write a figure, as a whole or not at all, in the format of the path's ending, .png without one."""
    path = Path(path)
    if not path.suffix:
        path = path.with_name(f"{path.name}.png")
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a sign is drawn as a box, that there is little room: nobody can help it
        figure.savefig(content, format=path.suffix[1:], dpi=dpi)
    write_atomically(path, content.getvalue())


def _rows(edges: Sequence[Edge]) -> dict[str, int]:
    """Each name's row: below everything that flows into it."""
    rows = {name: 0 for edge in edges for name in (edge.source, edge.target)}
    for _ in range(len(rows) + 1):
        wrong = [edge for edge in edges if rows[edge.target] <= rows[edge.source]]
        if not wrong:
            break
        for edge in wrong:
            rows[edge.target] = max(rows[edge.target], rows[edge.source] + 1)
    else:
        raise ValueError(f"the edges go round in a circle, for instance from {wrong[0].source} to {wrong[0].target}")
    # What goes in stands right above the first box that reads it.
    targets = {edge.target for edge in edges}
    for name in rows.keys() - targets:
        rows[name] = min(rows[edge.target] for edge in edges if edge.source == name) - 1
    return rows


def _columns(boxes: Mapping[str, Box], edges: Sequence[Edge]) -> dict[str, int]:
    """Each name's column: one for each part, "encoder" of "encoder.lstm1"; others stand below what they read."""
    parts: dict[str, int] = {}
    columns = {}
    for name in boxes:
        part, dot, _ = name.partition(".")
        if dot:
            columns[name] = parts.setdefault(part, len(parts))
    for edge in edges:  # layers outside of parts stand below what they read, what comes out below its layer
        if edge.target not in columns:
            readers = [
                columns[other.source] for other in edges if other.target == edge.target and other.source in columns
            ]
            columns[edge.target] = max(readers, default=0)
    for edge in edges:
        columns.setdefault(edge.source, columns[edge.target])
    return columns


def _text_of(name: str, box: Box | None) -> list[str]:
    if box is None:
        return [name]
    shared = [f"{own} of {lender}" for own, lender in box.shared.items()]
    count = [f"{box.size:,} parameters"] if box.size else []
    return [name, box.kind, *box.parameters, *shared, *count]


def _draw_box(axes: Any, place: _Place, lines: Sequence[str], box: Box | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08" if box is not None else f"round,pad=0,rounding_size={place.height / 2}"
    face = "white" if box is None else "#fff2d9" if box.shared else "#e8f0fb"
    corner = (place.x - place.width / 2, place.y - place.height / 2)
    axes.add_patch(
        FancyBboxPatch(corner, place.width, place.height, boxstyle=style, facecolor=face, edgecolor="#444444", zorder=2)
    )
    for number, line in enumerate(lines):
        y = place.y + ((len(lines) - 1) / 2 - number) * LINE
        weight = "bold" if box is not None and number == 0 else "normal"
        axes.text(place.x, y, line, ha="center", va="center", size=9, weight=weight, zorder=3, parse_math=False)


def _draw_arrow(
    axes: Any, edge: Edge, places: Mapping[str, _Place], rows: Mapping[str, int], columns: Mapping[str, int]
) -> None:
    a, b = places[edge.source], places[edge.target]
    away = 0.0
    if columns[edge.source] != columns[edge.target]:
        side = 1 if b.x > a.x else -1
        begin, end = (a.x + side * a.width / 2, a.y), (b.x - side * b.width / 2, b.y)
    elif _between(edge, rows, columns):  # around the boxes between them, on the right
        begin, end = (a.x + a.width / 2, a.y), (b.x + b.width / 2, b.y)
        away = BEND
    else:
        begin, end = (a.x, a.y - a.height / 2), (b.x, b.y + b.height / 2)
    _draw_line(axes, begin, end, away, arrowstyle="-|>", color="#222222")
    x, y = (begin[0] + end[0]) / 2 + away, (begin[1] + end[1]) / 2
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.text(x, y, edge.shape, ha="center", va="center", size=8, zorder=4, bbox=white, parse_math=False)


def _between(edge: Edge, rows: Mapping[str, int], columns: Mapping[str, int]) -> bool:
    """Whether a box stands in the way of a straight line down."""
    return any(
        columns[name] == columns[edge.source] and rows[edge.source] < row < rows[edge.target]
        for name, row in rows.items()
    )


def _draw_sharing(axes: Any, a: _Place, b: _Place) -> None:
    """A dashed line between a layer and one that uses its weights."""
    if a.x == b.x:  # around, on the left
        begin, end, away = (a.x - a.width / 2, a.y), (b.x - b.width / 2, b.y), BEND
    else:
        side = 1 if b.x > a.x else -1
        begin, end, away = (a.x + side * a.width / 2, a.y), (b.x - side * b.width / 2, b.y), 0.0
    _draw_line(axes, end, begin, away, arrowstyle="-", color="#c07000", linestyle="dashed")


def _draw_line(axes: Any, begin: tuple[float, float], end: tuple[float, float], away: float, **style: str) -> None:
    """A line that is straight, or bent: its middle is ``away`` inches to the left of the way from begin to end."""
    # The middle of matplotlib's arc is half of rad times the distance of its ends away.
    bend = f"arc3,rad={-2 * away / math.dist(begin, end)}"
    axes.annotate("", end, begin, arrowprops={**style, "connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}, zorder=1)
