"""What a model consists of, as a table and as a picture: its layers, their parameters, and whose those are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fastlstm.contract import FloatArray
from fastlstm.layers import Layer
from fastlstm.models.layer_graph import Box, Edge, draw_layer_graph


class LayerSummary(NamedTuple):
    """A layer: its class, shapes of its own parameters, those of others that it uses (name to "layer.name"), formula.

    ``size`` is how many numbers its own parameters hold.
    """

    kind: str
    own: dict[str, tuple[int, ...]]
    shared: dict[str, str]
    size: int
    formula: str


def summarize(
    layers: Mapping[str, Layer], named_parameters: Iterable[tuple[str, FloatArray]]
) -> dict[str, LayerSummary]:
    """Each layer of a model whose parameters have these names, "layer.name"; a shared one has its first layer's."""
    owner = {id(param): name for name, param in named_parameters}
    summaries = {}
    for layer_name, layer in layers.items():
        named = dict(zip(layer.param_names, layer.params, strict=True))
        own = {name: param for name, param in named.items() if owner[id(param)] == f"{layer_name}.{name}"}
        summaries[layer_name] = LayerSummary(
            type(layer).__name__,
            {name: param.shape for name, param in own.items()},
            {name: owner[id(param)] for name, param in named.items() if name not in own},
            sum(param.size for param in own.values()),
            _formula(layer),
        )
    return summaries


def table(title: str, layers: Mapping[str, LayerSummary]) -> str:
    """A row a layer, then how their parameters come about, gate by gate, and how many there are."""
    rows = [("layer", "kind", "parameters", "count")]
    for name, layer in layers.items():
        shown = [f"{own} {'x'.join(map(str, shape))}" for own, shape in layer.own.items()]
        shown += [f"{own} of {lender}" for own, lender in layer.shared.items()]
        rows.append((name, layer.kind, ", ".join(shown), f"{layer.size:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    head, *body = (
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  {row[3]:>{widths[3]}}" for row in rows
    )
    rule = "-" * len(head)
    formulas = [f"  {name}: {layer.formula}" for name, layer in layers.items() if layer.formula]
    return "\n".join([title, rule, head, rule, *body, rule, *formulas, f"{_total(layers):,} parameters"])


def draw(path: str | os.PathLike[str], title: str, layers: Mapping[str, LayerSummary], edges: Sequence[Edge]) -> None:
    """Write a picture: a box a layer, an arrow for what flows from one to the next; see `draw_layer_graph`."""
    boxes = {
        name: Box(
            layer.kind,
            [f"{own} ({', '.join(map(str, shape))})" for own, shape in layer.own.items()],
            layer.shared,
            layer.size,
        )
        for name, layer in layers.items()
    }
    draw_layer_graph(path, f"{title}, {_total(layers):,} parameters", boxes, edges)


def _total(layers: Mapping[str, LayerSummary]) -> int:
    """How many numbers are learned; shared parameters count once."""
    return sum(layer.size for layer in layers.values())


def _formula(layer: Layer) -> str:
    """How a layer's number of parameters comes about."""
    formula = layer.count_formula
    return formula and f"{formula} = {sum(param.size for param in layer.params):,}"
