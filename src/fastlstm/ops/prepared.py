"""The checks of weights that were prepared once, where they stand in place of a call's."""

from __future__ import annotations

from typing import Any

from fastlstm.contract import FloatArray, PreparedWeights
from fastlstm.ops import checks


def check(
    op: str,
    prepared: PreparedWeights[Any],
    place: str,
    name: str,
    inputs: FloatArray,
    columns: int,
    precision: Any,
    *beside: tuple[str, Any],
) -> None:
    """Raise unless prepared weights, given as argument ``place``, fit a call of ``op``.

    Parameters
    ----------
    name, inputs, columns
        The inputs, and how many columns they have.
    precision
        As it was asked for; None: it was not.
    beside
        The other arguments that they stand for, which have to be None, and their names.
    """
    if prepared.op != op:
        raise ValueError(f"{place} is prepared weights of {prepared.op}; expected those of ops.prepare_{op}")
    for other, given in beside:
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
    if precision is not None:
        check_option("precision", precision, prepared.precision)


def check_option(option: str, asked: Any, right: Any) -> None:
    """Raise unless the weights were prepared for what is asked for."""
    if not isinstance(asked, type(right)) or asked != right:  # an array is neither the same nor not
        raise ValueError(f"{option} is {asked!r:.60}, but the weights were prepared for {right!r}")
