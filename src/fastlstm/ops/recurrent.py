"""What the LSTM, the GRU and the tanh RNN have in common: the checks of their cells and sequences."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from fastlstm.arrays import array_module
from fastlstm.backends.results import new_arrays
from fastlstm.contract import (
    GATES,
    BoolArray,
    Destination,
    FloatArray,
    GRUGrads,
    LSTMGrads,
    PreparedWeights,
    RNNGrads,
    Tape,
)
from fastlstm.ops import checks, prepared, results

_Family = TypeVar("_Family")
_Grads = TypeVar("_Grads", LSTMGrads, GRUGrads, RNNGrads)
_GATE_ORDERS = frozenset(map("".join, itertools.permutations(GATES)))


def sequence(name: str, value: Any, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """A float array with three axes; on the host of any strides but that of the last axis. dtype as `float_array`."""
    if (
        type(value) is ndarray
        and value.ndim == 3
        and (value.dtype is dtype or (dtype is None and value.dtype in checks.FLOATS))
        and ((flags := value.flags).carray or (flags.aligned and value.strides[2] == value.itemsize))
    ):
        return value
    return checks.float_array(name, value, 3, dtype, of)


def batch_first(array: FloatArray, time_major: bool) -> FloatArray:
    """(N, T, ...) of an array whose first axis is time, or the other way round: a view."""
    return array.swapaxes(0, 1) if time_major else array


def state(name: str, value: Any, N: int, H: int, dtype: np.dtype[Any], of: str) -> FloatArray:
    """A recurrent state or its gradient, (N, H)."""
    if type(value) is ndarray and value.shape == (N, H) and value.dtype is dtype and value.flags.carray:
        return value
    array = checks.float_array(name, value, 2, dtype, of)
    if array.shape != (N, H):
        hint = f". States lie in rows: use {name}.T" if array.shape == (H, N) else ""
        raise ValueError(f"{name} has shape {array.shape}, expected {(N, H)} for N = {N}, H = {H}{hint}")
    return array


def weights(
    Wx: Any, Wh: Any, b: Any, D: int, gates: int, dtype: np.dtype[Any], of: str, *, two_biases: bool = False
) -> tuple[FloatArray | None, FloatArray, FloatArray | None, int]:
    """Wx (D, gates * H) or None, Wh (H, gates * H), b (gates * H,) or, with two biases, (2, gates * H), or None; and H.

    D and the dtype are those ``of`` the inputs. Wx and Wh are C-contiguous or transposes of what is.
    """
    if Wh is None and isinstance(Wx, PreparedWeights):
        raise TypeError(f"Wx is prepared weights of {Wx.op}, which this operator does not take; give it Wx, Wh and b")
    Wh = checks.matrix_or_transpose("Wh", Wh, dtype, of)
    H = Wh.shape[0]
    G = gates * H
    right = H > 0 and Wh.shape == (H, G)
    if Wx is None:
        right &= D == G
    else:
        Wx = checks.matrix_or_transpose("Wx", Wx, dtype, of)
        right &= D > 0 and Wx.shape == (D, G)
    if b is not None:
        b = checks.float_array("b", b, getattr(b, "ndim", 1), dtype, of)
        right &= b.shape == ((2, G) if two_biases else (G,))
    if not right:
        raise _error_of_weights(Wx, Wh, b, D, gates, of, two_biases=two_biases)
    return Wx, Wh, b, H


def _error_of_weights(
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    D: int,
    gates: int,
    of: str,
    *,
    two_biases: bool,
) -> ValueError:
    """What is wrong with weights of which something is."""
    H = min(Wh.shape) if gates != 1 else Wh.shape[0]
    G = gates * H
    letters, lie = "H", "PyTorch's"
    if gates != 1:
        letters, lie = f"{gates}H", "Gates lie along the last axis; PyTorch's"
    if H == 0 or (D == 0 and Wx is not None):
        return ValueError(f"D = {D} and H = {H}: both must be at least 1; only N and T may be 0")
    if Wh.shape != (H, G):
        return ValueError(
            f"Wh has shape {Wh.shape}, expected {(H, G)} = (H, {letters}) for H = {H}. {lie} weight_hh needs .T"
        )
    if Wx is None and D != G:
        return ValueError(
            f"{of} has {D} columns, expected {G} = {letters} for H = {H}: without Wx it is what x Wx would be, the "
            "pre-activations of all gates"
        )
    if Wx is not None and Wx.shape != (D, G):
        hint = f"{lie} weight_ih needs .T"
        if Wx.shape[1] == G:
            hint = f"D is the last axis of {of}: inputs in columns need .T"
        return ValueError(f"Wx has shape {Wx.shape}, expected {(D, G)} = (D, {letters}) for D = {D}, H = {H}. {hint}")
    assert b is not None
    if two_biases:
        return ValueError(
            f"b has shape {b.shape}, expected {(2, G)} = (2, {letters}) for H = {H}: the bias of the inputs and that "
            "of the state, of PyTorch numpy.stack([bias_ih, bias_hh])"
        )
    hint = "PyTorch's two biases are added: bias_ih + bias_hh"
    if gates == 3:
        hint = "Two biases need convention='pytorch' or 'keras'"
    if b.size == G:
        hint = "Use b.reshape(-1)"
    return ValueError(f"b has shape {b.shape}, expected {(G,)} = ({letters},) for H = {H}. {hint}")


def shapes_of_weights(Wx: Any, Wh: Any, b: Any, gates: int, *, two_biases: bool = False) -> tuple[Any, Any, Any, int]:
    """Wx, Wh, b as `weights` has them, where there are no inputs to fit to, and the columns of these."""
    checks.same_device("Wh Wx b", Wh, Wx, b)
    Wh = checks.matrix_or_transpose("Wh", Wh)
    columns = gates * Wh.shape[0]
    if Wx is not None:
        columns = checks.matrix_or_transpose("Wx", Wx, Wh.dtype, "Wh").shape[0]
    Wx, Wh, b, _ = weights(Wx, Wh, b, columns, gates, Wh.dtype, "Wh", two_biases=two_biases)
    return Wx, Wh, b, columns


def check_prepared(
    op: str,
    weights: PreparedWeights[Any],
    xs: FloatArray,
    columns: int,
    Wh: Any,
    b: Any,
    *,
    training: Any,
    precision: Any,
) -> None:
    """Raise unless prepared weights fit a forward call of ``op``, whose inputs have so many columns."""
    if training:
        raise ValueError(
            f"training is {training!r}, but prepared weights have no backward call; pass training=False, or Wx, Wh, b"
        )
    prepared.check(op, weights, "Wx", "xs", xs, columns, precision, ("Wh", Wh), ("b", b))


def check_gate_order(gate_order: Any) -> None:
    if not isinstance(gate_order, str) or gate_order not in _GATE_ORDERS:
        raise ValueError(
            f"gate_order is {gate_order!r}, expected a permutation of 'ifgo' such as 'ifgo' (Keras, PyTorch), "
            "'fgio' (Deep Learning from Scratch 2), 'ifog' (Theano) or 'iofg' (ONNX)"
        )


def valid_steps(mask: Any, lengths: Any, N: int, T: int, *, time_major: bool = False) -> BoolArray | None:
    """mask (N, T), bool, from ``mask``, which is (T, N) where time comes first, or ``lengths``; None if neither."""
    if mask is None and lengths is None:
        return None
    if mask is not None and lengths is not None:
        raise ValueError("both mask and lengths are given; give one of them")
    if lengths is not None:
        checks.require_array("lengths", lengths)
        if lengths.dtype.kind not in "iu":
            raise TypeError(f"lengths has dtype {lengths.dtype}, expected integers")
        checks.expect_shape("lengths", lengths, (N,), f"for N = {N}")
        # On a GPU nobody looks at values, which would wait for the device: lengths count as if cut off at 0 and T.
        if N and isinstance(lengths, ndarray) and (lengths.min() < 0 or lengths.max() > T):
            raise ValueError(f"lengths has values from {lengths.min()} to {lengths.max()}, expected 0 to T = {T}")
        steps = array_module(lengths).arange(T if N else 0)
        before_end: BoolArray = steps[None, :] < lengths[:, None]
        return before_end if N else before_end.reshape(N, T)
    checks.require_array("mask", mask)
    shape = (T, N) if time_major else (N, T)
    if mask.shape != shape:
        hint = ""
        if mask.shape == shape[::-1]:
            hint = ". Time comes first in it, as in xs: use .T" if time_major else ". Theano's masks are (T, N): use .T"
        raise ValueError(f"mask has shape {mask.shape}, expected {shape} for N = {N}, T = {T}{hint}")
    if mask.dtype == np.bool_:
        # The bytes of bools are 0 and 1 only where numpy has computed them, and kernels rely on that.
        mask = mask.view(np.uint8)
    elif isinstance(mask, ndarray) and not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask has values other than 0 and 1; 1 marks the steps that count")
    valid: BoolArray = mask != 0
    return checks.in_order(valid.T if time_major else valid)


def upstream(
    op: str,
    tape: Tape[_Family] | None,
    dhs: FloatArray | None,
    dh_n: FloatArray | None,
    dc_n: FloatArray | None = None,
) -> tuple[Tape[_Family], FloatArray | None, FloatArray | None, FloatArray | None]:
    """The tape of ``op`` and the gradients by its results: dhs (N, T, H), and (N, H) by each last state."""
    tape = checks.check_tape(tape, op)
    checks.same_device_as_tape(tape, {"dhs": dhs, "dh_n": dh_n, "dc_n": dc_n})
    N, T, H = tape.sizes["N"], tape.sizes["T"], tape.sizes["H"]
    if dhs is not None:
        dhs = sequence("dhs", dhs, tape.dtype, "the tape")
        if tape.time_major:
            checks.expect_shape("dhs", dhs, (T, N, H), "= (T, N, H) of the forward call")
            dhs = dhs.swapaxes(0, 1)
        else:
            checks.expect_shape("dhs", dhs, (N, T, H), "= (N, T, H) of the forward call")
    if dh_n is not None:
        dh_n = state("dh_n", dh_n, N, H, tape.dtype, "the tape")
    if dc_n is not None:
        dc_n = state("dc_n", dc_n, N, H, tape.dtype, "the tape")
    return tape, dhs, dh_n, dc_n


def upstream_of_cell(
    op: str, tape: Tape[_Family] | None, **grads: FloatArray
) -> tuple[Tape[_Family], dict[str, FloatArray]]:
    """The tape of ``op`` and the gradients (N, H) by its results, by name."""
    tape = checks.check_tape(tape, op)
    checks.same_device_as_tape(tape, grads)
    N, H = tape.sizes["N"], tape.sizes["H"]
    for name, grad in grads.items():
        grads[name] = state(name, grad, N, H, tape.dtype, "the tape")
    return tape, grads


def destination(
    fields: tuple[str, ...],
    tape: Tape[Any],
    upstream: Mapping[str, FloatArray | None],
    *,
    out: Any,
    accumulate: bool,
    without: Collection[str],
) -> Destination:
    """The arguments ``out``, ``accumulate`` and ``without`` of a backward call, whose results have ``fields``.

    A field is named "d" and the input whose gradient it is, and has its shape. ``upstream`` are the gradients that the
    call is given, by name.
    """
    if out is None and not accumulate and type(without) is tuple and not without:
        return new_arrays(fields)
    if out is None:
        return results.destination(fields, {}, tape, "", {}, out=None, accumulate=accumulate, without=without)
    of_state = (tape.sizes["N"], tape.sizes["H"])
    shapes = {}
    for field in fields:
        given = tape.inputs[field[1:]]
        if given is not None:
            shapes[field] = given.shape
        elif field not in ("dWx", "db"):
            shapes[field] = of_state
    read = {**tape.inputs, **upstream}
    into = results.destination(fields, shapes, tape, "the tape", read, out=out, accumulate=accumulate, without=without)
    if not tape.time_major or (dxs := into.arrays["dxs"]) is None:
        return into
    return into._replace(arrays={**into.arrays, "dxs": dxs.swapaxes(0, 1)})


def in_callers_order(grads: _Grads, tape: Tape[Any], out: Any) -> _Grads:
    """The gradients with dxs as xs was, time first or batch first; the array of ``out`` if that has one."""
    if not tape.time_major or grads.dxs is None:
        return grads
    given = getattr(out, "dxs", None)
    return grads._replace(dxs=grads.dxs.swapaxes(0, 1) if given is None else given)
