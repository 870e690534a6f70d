"""What the LSTM, the GRU and the tanh RNN share on a GPU: a pass over a sequence, forward and backward.

The input products of all steps come first, x Wx for all rows at once; then the time loop, one call; backward the loop
comes first and leaves dz, from which all other gradients are single products over N T rows.
"""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

import cupy

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import address, current_stream, device_of
from fastlstm.backends.cuda.products import product, products_in, rows_of
from fastlstm.backends.results import in_memory
from fastlstm.contract import BoolArray, FloatArray, Precision

Cell = Literal["lstm", "rnn", "gru_reset_after", "gru_reset_before"]

# Without a tape, the gates of so many bytes are held at once, of one step at least.
INFERENCE_BYTES = 16 << 20


class Options(NamedTuple):
    """What does not depend on the arrays' sizes."""

    cell: Cell
    precision: Precision
    reverse: bool = False
    gate_order: str = "ifgo"
    hard_sigmoid: bool = False
    z_keeps: bool = False
    time_major: bool = False


class States(NamedTuple):
    """h and c (N, H), or their gradients; c is None but for the LSTM, and either where zeros are meant."""

    h: Any
    c: Any


class Saved(NamedTuple):
    """What the forward pass leaves to the backward pass.

    xs has zeros at steps that are not valid. gates (N, T, 4H), the GRU's (N, T, 3H), are activated, in the order of the
    weights; h_prev (N, T, H) is h before each step, cs (N, T, H) c after it, q (N, T, H) the GRU's of gru_cell.h. The
    RNN has hs instead of gates.
    """

    options: Options
    xs: FloatArray
    Wx: FloatArray | None
    Wh: FloatArray
    has_bias: bool
    mask: BoolArray | None
    initial: States
    gates: FloatArray | None
    hs: FloatArray
    h_prev: FloatArray
    cs: FloatArray | None
    q: FloatArray | None


class Grads(NamedTuple):
    """dxs (N, T, D); dWx (D, G); dWh (H, G); db (G,) or, of two biases, (2, G); dh0, dc0 (N, H).

    dWx and db are None without Wx and b.
    """

    dxs: FloatArray
    dWx: FloatArray | None
    dWh: FloatArray
    db: FloatArray | None
    initial: States


def forward(
    options: Options,
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    initial: States,
    mask: BoolArray | None,
    training: bool,
) -> tuple[FloatArray, States, Saved | None]:
    """hs (N, T, H), the last states, and with training the tape."""
    with device_of(xs):
        xs, Wh = cupy.ascontiguousarray(xs), cupy.ascontiguousarray(Wh)  # as the kernels read them
        if mask is not None:
            xs = cupy.where(mask[:, :, None], xs, xs.dtype.type(0))  # padding may hold anything, NaN too
        saved = None
        if training:
            hs, last, saved = _forward(options, xs, Wx, Wh, b, initial, mask, training=True)
        else:
            hs, last = _forward_in_parts(options, xs, Wx, Wh, b, initial, mask)
        return in_memory(hs, time_major=options.time_major), last, saved


def _forward_in_parts(
    options: Options,
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    states: States,
    mask: BoolArray | None,
) -> tuple[FloatArray, States]:
    """Without a tape: in parts of the sequence that need little memory, mostly one."""
    N, T, _ = xs.shape
    steps = max(1, INFERENCE_BYTES // max(1, N * Wh.size // len(Wh) * xs.itemsize))
    if steps >= T or N == 0:
        hs, states, _ = _forward(options, xs, Wx, Wh, b, states, mask, training=False)
        return hs, states
    hs = cupy.empty((N, T, len(Wh)), xs.dtype)
    parts = [slice(start, min(start + steps, T)) for start in range(0, T, steps)]
    for part in reversed(parts) if options.reverse else parts:
        mask_part = None if mask is None else cupy.ascontiguousarray(mask[:, part])
        xs_part = cupy.ascontiguousarray(xs[:, part])
        hs[:, part], states, _ = _forward(options, xs_part, Wx, Wh, b, states, mask_part, training=False)
    return hs, states


def _forward(
    options: Options,
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    initial: States,
    mask: BoolArray | None,
    *,
    training: bool,
) -> tuple[FloatArray, States, Saved | None]:
    N, T, _ = xs.shape
    H = len(Wh)
    is_lstm = options.cell == "lstm"
    hs = cupy.empty((N, T, H), xs.dtype)
    if N == 0 or T == 0:
        last = States(*(_copy_or_zeros(state, N, H, xs) for state in initial))
    else:
        last = States(cupy.empty((N, H), xs.dtype), cupy.empty((N, H), xs.dtype) if is_lstm else None)
    if Wx is None:
        gates = rows_of(xs).copy()
    else:
        with products_in(options.precision):
            gates = product(rows_of(xs), Wx)
    has_bias = b is not None
    if b is None:
        b = cupy.zeros((2, Wh.shape[1]) if options.cell == "gru_reset_after" else Wh.shape[1], xs.dtype)
    h_prev = cupy.empty((N, T, H), xs.dtype) if training else None
    cs = cupy.empty((N, T, H), xs.dtype) if training and is_lstm else None
    q = cupy.empty((N, T, H), xs.dtype) if training and _is_gru(options) else None
    arrays = {
        "gates": gates,
        "Wh": Wh,
        "b": b,
        "h0": initial.h,
        "c0": initial.c,
        "mask": mask,
        "hs": hs,
        "h_n": last.h,
        "c_n": last.c,
        "h_prev": h_prev,
        "cs": cs,
        "q": q,
    }
    _run("forward", options, (N, T, H), arrays, xs)
    if h_prev is None:
        return hs, last, None
    kept = None if options.cell == "rnn" else gates
    return hs, last, Saved(options, xs, Wx, Wh, has_bias, mask, initial, kept, hs, h_prev, cs, q)


def backward(saved: Saved, *, dhs: FloatArray | None, last: States) -> Grads:
    """The gradients, from those of hs and of the last states."""
    options, xs, Wx, Wh, has_bias, mask, initial, gates, hs, h_prev, cs, q = saved
    N, T, _ = xs.shape
    H = len(Wh)
    is_lstm = options.cell == "lstm"
    with device_of(xs):
        if dhs is not None:
            dhs = cupy.ascontiguousarray(dhs)
        dz = cupy.empty((N * T, Wh.shape[1]), xs.dtype)
        dz_state = cupy.empty(dz.shape, xs.dtype) if options.cell == "gru_reset_after" else None
        if N == 0 or T == 0:
            first = States(*(_copy_or_zeros(state, N, H, xs) for state in last))
        else:
            first = States(cupy.empty((N, H), xs.dtype), cupy.empty((N, H), xs.dtype) if is_lstm else None)
        arrays = {
            "gates": gates,
            "Wh": Wh,
            "c0": initial.c,
            "mask": mask,
            "hs": hs,
            "cs": cs,
            "q": q,
            "h_prev": h_prev if _is_gru(options) else None,
            "dhs": dhs,
            "dh_n": last.h,
            "dc_n": last.c,
            "dz": dz,
            "dz_state": dz_state,
            "dh0": first.h,
            "dc0": first.c,
        }
        _run("backward", options, (N, T, H), arrays, xs)
        with products_in(options.precision):
            dWx = None if Wx is None else product(rows_of(xs).T, dz)
            if options.cell == "gru_reset_before" and q is not None:
                dWh = cupy.empty(Wh.shape, xs.dtype)
                n = options.gate_order.index("n") * H
                for columns, state in ((slice(n), h_prev), (slice(n, n + H), q), (slice(n + H, None), h_prev)):
                    if dWh[:, columns].size:
                        dWh[:, columns] = product(rows_of(state).T, dz[:, columns])
            else:
                dWh = product(rows_of(h_prev).T, dz if dz_state is None else dz_state)
            dxs = (dz if Wx is None else product(dz, Wx.T)).reshape(xs.shape)
        dxs = in_memory(dxs, time_major=options.time_major)
        if not has_bias:
            return Grads(dxs, dWx, dWh, None, first)
        if dz_state is None:
            return Grads(dxs, dWx, dWh, dz.sum(axis=0), first)
        db = cupy.empty((2, dz.shape[1]), xs.dtype)
        db[0], db[1] = dz.sum(axis=0), dz_state.sum(axis=0)
        return Grads(dxs, dWx, dWh, db, first)


def _is_gru(options: Options) -> bool:
    return options.cell in ("gru_reset_after", "gru_reset_before")


def _copy_or_zeros(state: FloatArray | None, N: int, H: int, like: FloatArray) -> FloatArray:
    result: FloatArray = cupy.zeros((N, H), like.dtype) if state is None else state.copy()
    return result


def _run(
    direction: Literal["forward", "backward"],
    options: Options,
    sizes: tuple[int, int, int],
    arrays: dict[str, Any],
    like: Any,
) -> None:
    """The time loop, on the current stream of the device that is current."""
    N, T, H = sizes
    if N == 0 or T == 0:
        return
    sequence = _cuda.SequencePass(
        cell=options.cell,
        direction=direction,
        precision=options.precision,
        N=N,
        T=T,
        H=H,
        reverse=options.reverse,
        gate_order=options.gate_order,
        hard_sigmoid=options.hard_sigmoid,
        device=like.device.id,
        kernel=os.environ.get("FASTLSTM_CUDA_KERNEL") or None,
        z_keeps=options.z_keeps,
    )
    workspace = cupy.empty(sequence.workspace_bytes, "uint8")
    addresses = {name: address(array) for name, array in arrays.items() if array is not None}
    sequence.run(addresses, address(workspace), current_stream())
