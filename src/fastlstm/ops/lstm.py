"""LSTM cell and sequence. Gers, Schmidhuber, Cummins (2000), without peepholes."""

from __future__ import annotations

from fastlstm.backends import family_for
from fastlstm.contract import (
    DEFAULT_GATE_ORDER,
    RECURRENT_ACTIVATIONS,
    Array,
    FloatArray,
    LSTMCellGrads,
    LSTMCellOutput,
    LSTMFamily,
    LSTMGrads,
    LSTMOutput,
    Precision,
    RecurrentActivation,
    Tape,
)
from fastlstm.ops import checks


def lstm_cell_forward(
    x: FloatArray,
    h_prev: FloatArray,
    c_prev: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    gate_order: str = DEFAULT_GATE_ORDER,
    precision: Precision | None = None,
) -> LSTMCellOutput:
    """One LSTM step.

    Parameters
    ----------
    x : (N, D) float32 or float64
        Input; all other arrays have its dtype.
    h_prev, c_prev : (N, H)
        Hidden and cell state before the step.
    Wx : (D, 4H)
    Wh : (H, 4H)
    b : (4H,)
        Weights; gates lie in blocks of H columns in ``gate_order``.
    gate_order : str
        A permutation of "ifgo" (g is the candidate).
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "tf32" and "bf16" are for float32 arrays on a
        GPU: factors are rounded, sums and states stay float32. Backward uses the same.

    Returns
    -------
    LSTMCellOutput
        ``h`` and ``c`` (N, H) after the step, and the tape for `lstm_cell_backward`. The tape refers to x, h_prev,
        c_prev, Wx, Wh and b: change none of these before the last backward call (no ``h_prev[:] = h``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than x.
    ValueError
        A shape does not fit, or gate_order is no permutation of "ifgo".

    References
    ----------
    Gers, Schmidhuber, Cummins (2000), "Learning to forget", without peepholes.
    """
    checks.same_device("x h_prev c_prev Wx Wh b", x, h_prev, c_prev, Wx, Wh, b)
    x = checks.float_array("x", x, 2)
    N, D = x.shape
    Wx, Wh, b, H = checks.recurrent_weights(Wx, Wh, b, D, 4, x.dtype, "x")
    h_prev = checks.state("h_prev", h_prev, N, H, x.dtype, "x")
    c_prev = checks.state("c_prev", c_prev, N, H, x.dtype, "x")
    checks.check_gate_order(gate_order)
    precision = checks.precision_of(x, precision, bf16_on_host=False)
    family = family_for(x, "lstm")
    h, c, saved = family.lstm_cell_forward(
        x, Wx, Wh, b, h_prev=h_prev, c_prev=c_prev, gate_order=gate_order, precision=precision
    )
    tape = Tape("lstm_cell", family, {"N": N, "D": D, "H": H}, x.dtype, saved, checks.gpu_of("x", x))
    return LSTMCellOutput(h, c, tape)


def lstm_cell_backward(dh: FloatArray, dc: FloatArray, tape: Tape[LSTMFamily] | None) -> LSTMCellGrads:
    """Gradients of one LSTM step.

    Parameters
    ----------
    dh, dc : (N, H)
        Gradients of the loss by the step's h and c.
    tape : the tape of `lstm_cell_forward`
        May be used more than once.

    Returns
    -------
    LSTMCellGrads
        dx (N, D), dh_prev and dc_prev (N, H), dWx (D, 4H), dWh (H, 4H), db (4H,).

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, or the tape is another operator's.
    """
    tape = checks.check_tape(tape, "lstm_cell")
    checks.same_device_as_tape("dh dc", tape, dh, dc)
    N, H = tape.sizes["N"], tape.sizes["H"]
    dh = checks.state("dh", dh, N, H, tape.dtype, "the tape")
    dc = checks.state("dc", dc, N, H, tape.dtype, "the tape")
    return tape.family.lstm_cell_backward(tape.saved, dh=dh, dc=dc)


def lstm_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None = None,
    c0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    gate_order: str = DEFAULT_GATE_ORDER,
    recurrent_activation: RecurrentActivation = "sigmoid",
    training: bool = True,
    precision: Precision | None = None,
) -> LSTMOutput:
    """An LSTM over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype.
    Wx : (D, 4H)
    Wh : (H, 4H)
    b : (4H,)
        Weights; gates lie in blocks of H columns in ``gate_order``.
    h0, c0 : (N, H), optional
        State before the first step; zeros if not given.
    mask : (N, T) bool or 0/1, optional
        Where it is 0 the step carries h and c over unchanged, whatever x holds there.
    lengths : (N,) integers from 0 to T, optional
        Short form of a mask for right padding.
    reverse : bool
        Run from the last step to the first. hs[:, t] still belongs to input step t, h_n is the state after step 0.
    gate_order : str
        A permutation of "ifgo" (g is the candidate).
    recurrent_activation : "sigmoid" or "hard_sigmoid"
        The activation of i, f and o. "hard_sigmoid" is Keras 1 and 2's clip(0.2 z + 0.5, 0, 1).
    training : bool
        False keeps nothing for a backward call (tape is None).
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "tf32" and "bf16" are for float32 arrays on a
        GPU: factors are rounded, sums and states stay float32. Backward uses the same.

    Returns
    -------
    LSTMOutput
        hs (N, T, H), h_n and c_n (N, H), and the tape for `lstm_backward`. The tape refers to xs, Wx, Wh, b, h0
        and c0: change none of these before the last backward call (no ``h0[:] = h_n``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than xs.
    ValueError
        A shape or an option does not fit.

    References
    ----------
    Gers, Schmidhuber, Cummins (2000), "Learning to forget", without peepholes. Masks as in Theano's LSTM tutorial and
    Keras.
    """
    checks.same_device("xs Wx Wh b h0 c0 mask lengths", xs, Wx, Wh, b, h0, c0, mask, lengths)
    xs = checks.float_array("xs", xs, 3)
    N, T, D = xs.shape
    Wx, Wh, b, H = checks.recurrent_weights(Wx, Wh, b, D, 4, xs.dtype, "xs")
    if h0 is not None:
        h0 = checks.state("h0", h0, N, H, xs.dtype, "xs")
    if c0 is not None:
        c0 = checks.state("c0", c0, N, H, xs.dtype, "xs")
    valid = checks.valid_steps(mask, lengths, N, T)
    checks.check_gate_order(gate_order)
    checks.check_choice("recurrent_activation", recurrent_activation, RECURRENT_ACTIVATIONS)
    precision = checks.precision_of(xs, precision, bf16_on_host=False)
    family = family_for(xs, "lstm")
    hs, h_n, c_n, saved = family.lstm_forward(
        xs,
        Wx,
        Wh,
        b,
        h0=h0,
        c0=c0,
        mask=valid,
        reverse=bool(reverse),
        gate_order=gate_order,
        recurrent_activation=recurrent_activation,
        training=bool(training),
        precision=precision,
    )
    sizes = {"N": N, "T": T, "D": D, "H": H}
    tape = Tape("lstm", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs)) if training else None
    return LSTMOutput(hs, h_n, c_n, tape)


def lstm_backward(
    dhs: FloatArray | None,
    tape: Tape[LSTMFamily] | None,
    *,
    dh_n: FloatArray | None = None,
    dc_n: FloatArray | None = None,
) -> LSTMGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `lstm_forward`
        May be used more than once.
    dh_n, dc_n : (N, H), optional
        Gradients of the loss by h_n and c_n; zeros if not given.

    Returns
    -------
    LSTMGrads
        dxs (N, T, D), dWx (D, 4H), dWh (H, 4H), db (4H,), dh0 and dc0 (N, H).

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, or the tape is another operator's.
    """
    tape, dhs, dh_n, dc_n = checks.upstream_of_sequence("lstm", tape, dhs, dh_n, dc_n)
    return tape.family.lstm_backward(tape.saved, dhs=dhs, dh_n=dh_n, dc_n=dc_n)
