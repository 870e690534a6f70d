"""Targets of a loss as ids, whether they came as ids, as a column of ids or as one-hot rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import Array, IntArray
from fastlstm.ops import checks


def as_ids(name: str, targets: Any, ndim: int, V: int, zeros: int | None) -> IntArray:
    """Ids with ``ndim`` axes of targets for V classes; whether they are in range is left to others.

    Parameters
    ----------
    name : str
        Of the targets, in errors.
    targets : ids (...), a column of them (..., 1), or one-hot rows (..., V)
        With V = 1, what has one column is one-hot rows.
    ndim : int
    V : int
    zeros : int or None
        The id of a row of zeros: where it is what is ignored, the row does not count. None: there may be none.

    Returns
    -------
    ids
        Of a GPU's one-hot rows, at which nobody looks, one that is none has the id V, which is out of range.

    Raises
    ------
    ValueError
        With one axis more than ids have, the last is neither 1 nor V long, or V long and a row is not one-hot.
    """
    if not checks.is_array(targets):
        targets = np.asarray(targets)
    if targets.ndim != ndim + 1:
        ids: IntArray = targets
        return ids
    if targets.shape[-1] == V:
        return _from_one_hot(name, targets, V, zeros)
    if targets.shape[-1] == 1:
        column: IntArray = targets[..., 0]
        return column
    axes = "1 axis" if ndim == 1 else f"{ndim} axes"
    raise ValueError(
        f"{name} has shape {targets.shape}, expected one-hot rows of V = {V}, ids of {axes}, or a column of ids"
    )


def _from_one_hot(name: str, rows: Array, V: int, zeros: int | None) -> IntArray:
    checks.require_array(name, rows)
    xp = array_module(rows)
    ones = xp.count_nonzero(rows, axis=-1)
    ids: IntArray = rows.argmax(axis=-1)
    wrong = (ones > 1) | (rows.max(axis=-1) != ones)
    if is_device_array(rows):
        return xp.where(wrong, V, xp.where(ones == 0, V if zeros is None else zeros, ids))  # type: ignore[no-any-return]
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        row = rows[place]
        found = ", ".join(map(str, row[row != 0][:5].tolist()))
        raise ValueError(
            f"{name} has V = {V} columns, but its rows are not one-hot: {name}[{', '.join(map(str, place))}] holds "
            f"{found} beside zeros, expected a single 1, or zeros alone where nothing counts"
        )
    if not ones.all():
        if zeros is None:
            raise ValueError(f"{name} has one-hot rows of zeros, which are padding; make the model with pad_id=...")
        ids[ones == 0] = zeros
    return ids
