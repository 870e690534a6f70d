"""Weights and biases gate by gate, and as the recurrent operators take them: one array, the gates side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlstm.arrays import array_module
from fastlstm.contract import DEFAULT_GATE_ORDER, GATES, GRU_CONVENTIONS, Array, FloatArray
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device

_GRU_GATES = GRU_CONVENTIONS["book"].gate_order
_MEANINGS = {
    "i": "input gate",
    "f": "forget gate",
    "g": "candidate",
    "o": "output gate",
    "z": "update gate",
    "r": "reset gate",
    "n": "candidate",
}


@on_arrays_device
def pack_gates(gates: Mapping[str, FloatArray], *, gate_order: str = DEFAULT_GATE_ORDER, axis: int = -1) -> FloatArray:
    """One array of all gates, such as Wx (D, 4H) of Wxi, Wxf, Wxg and Wxo (D, H) each.

    Parameters
    ----------
    gates : dict of arrays, float32 or float64
        All of one shape and dtype, by gate: "i" input gate, "f" forget gate, "g" candidate, "o" output gate of an LSTM;
        "z" update gate, "r" reset gate, "n" candidate of a GRU. Weights (D, H) or (H, H), biases (H,), or (2, H) of a
        GRU with two biases; with axis=0 weights (H, D).
    gate_order : str
        In which order they stand: a permutation of "ifgo", or of "zrn" for a GRU. `lstm_forward` takes the same
        argument, `gru_forward` has the order of its convention: `contract.GRU_CONVENTIONS`.
    axis : int
        Along which axis they stand: -1 as the operators take them; 0 where vectors are columns, weights (4H, D), whose
        transpose the operators take.

    Returns
    -------
    array
        Of the gates' shape, but 4 or 3 times as long along ``axis``; C-contiguous. On a GPU where the gates are there.

    Raises
    ------
    TypeError, ValueError
        A gate is missing or not known, or an array does not fit the others.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm import ops
    >>> b = ops.pack_gates({gate: np.full(2, k) / 2 for k, gate in enumerate("ifgo")}, gate_order="fgio")
    >>> b.tolist()
    [0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 1.5, 1.5]
    """
    _check_order(gate_order)
    if not isinstance(gates, Mapping):
        raise TypeError(f"gates is {checks.describe(gates)}; expected a dict of arrays by gate")
    if set(gates) != set(gate_order):
        hint = "; a GRU has gate_order='zrn' or another of the same letters" if set(gates) == set(_GRU_GATES) else ""
        meanings = ", ".join(f"{gate!r} {_MEANINGS[gate]}" for gate in gate_order)
        raise ValueError(
            f"gates has {', '.join(map(repr, gates)) or 'nothing'}, expected one array for each of {meanings}{hint}"
        )
    names = [f"gates[{gate!r}]" for gate in gate_order]
    arrays: list[FloatArray] = []
    for name, value in zip(names, (gates[gate] for gate in gate_order), strict=True):
        first = arrays[0] if arrays else value
        checks.require_array(name, value)
        checks.same_device(f"{names[0]} {name}", first, value)
        checks.expect_shape(name, value, first.shape, f"as {names[0]}")
        arrays.append(checks.float_array(name, value, value.ndim, arrays[0].dtype if arrays else None, names[0]))
    packed: FloatArray = array_module(arrays[0]).concatenate(arrays, axis=_checked_axis(axis, names[0], arrays[0]))
    return packed


@on_arrays_device
def unpack_gates(W: FloatArray, *, gate_order: str = DEFAULT_GATE_ORDER, axis: int = -1) -> dict[str, FloatArray]:
    """The gates of weights, biases or their gradients, each an array of its own.

    Parameters
    ----------
    W : array, float32 or float64
        As `pack_gates` returns it.
    gate_order : str
        In which order the gates stand in it, as in `pack_gates`.
    axis : int
        Along which axis they stand, as in `pack_gates`.

    Returns
    -------
    dict of arrays
        By gate, in ``gate_order``. Copies, C-contiguous: updates and clipping change them in place as they are, and
        nothing that happens to them changes W.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.
    """
    _check_order(gate_order)
    checks.require_array("W", W)
    W = checks.float_array("W", W, W.ndim)
    axis = _checked_axis(axis, "W", W)
    H, rest = divmod(W.shape[axis], len(gate_order))
    if rest:
        raise ValueError(
            f"W has shape {W.shape}, whose axis {axis} is no multiple of the {len(gate_order)} gates of gate_order "
            f"{gate_order!r}; where vectors are columns the gates stand along axis=0"
        )
    before = (slice(None),) * axis
    return {gate: W[(*before, slice(k * H, (k + 1) * H))].copy() for k, gate in enumerate(gate_order)}


def _check_order(gate_order: Any) -> None:
    if not isinstance(gate_order, str) or sorted(gate_order) not in (sorted(GATES), sorted(_GRU_GATES)):
        raise ValueError(
            f"gate_order is {gate_order!r:.60}, expected a permutation of {GATES!r}, the gates of an LSTM, or of "
            f"{_GRU_GATES!r}, those of a GRU"
        )


def _checked_axis(axis: Any, name: str, array: Array) -> int:
    """The axis, counted from the first."""
    place = scalars.integer("axis", axis)
    if not -array.ndim <= place < array.ndim:
        raise ValueError(
            f"axis is {place}, but {name} has shape {array.shape}; expected -1, where the gates stand as the operators "
            "take them, or 0 where vectors are columns"
        )
    return place % array.ndim
