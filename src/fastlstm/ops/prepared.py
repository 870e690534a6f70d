"""The check of weights that were prepared once, where they stand in place of a call's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlstm.contract import FloatArray, PreparedWeights
from fastlstm.ops import checks


def check(
    op: str,
    prepared: PreparedWeights[Any],
    place: str,
    beside: Mapping[str, Any],
    name: str,
    inputs: FloatArray,
    columns: int,
    options: Mapping[str, tuple[Any, Any]],
) -> None:
    """Raise unless prepared weights, given as argument ``place``, fit a call of ``op``.

    Parameters
    ----------
    beside
        The other arguments that they stand for, None all of them.
    name, inputs, columns
        The inputs, and how many columns they have.
    options
        What was asked for (None: nothing was), and what the weights were prepared for.
    """
    if prepared.op != op:
        raise ValueError(f"{place} is prepared weights of {prepared.op}; expected those of ops.prepare_{op}")
    for other, given in beside.items():
        if given is not None:
            count = "both" if len(beside) == 1 else "all three"
            raise TypeError(
                f"{other} is {checks.describe(given)}, but {place} is prepared weights, which stand for {count}"
            )
    if inputs.dtype != prepared.dtype:
        raise TypeError(f"{name} has dtype {inputs.dtype}, but the prepared weights have {prepared.dtype}")
    if columns != prepared.columns:
        raise ValueError(
            f"{name} has {columns} columns, expected {prepared.columns}, which the weights were prepared for"
        )
    if checks.gpu_of(name, inputs) != prepared.device:
        raise TypeError(
            f"{name} and the prepared weights live in two places; prepare weights that live where {name} does"
        )
    for option, (asked, right) in options.items():
        if asked is not None and asked != right:
            raise ValueError(f"{option} is {asked!r}, but the weights were prepared for {right!r}")
