"""The tanh recurrent network over a sequence. Elman (1990), "Finding structure in time"."""

from __future__ import annotations

from fastlstm.backends import family_for
from fastlstm.contract import Array, FloatArray, Precision, RNNFamily, RNNGrads, RNNOutput, Tape
from fastlstm.ops import checks


def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    training: bool = True,
    precision: Precision | None = None,
) -> RNNOutput:
    """h = tanh(x Wx + h_prev Wh + b) over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype.
    Wx : (D, H)
    Wh : (H, H)
    b : (H,)
        Weights.
    h0 : (N, H), optional
        State before the first step; zeros if not given.
    mask : (N, T) bool or 0/1, optional
        Where it is 0 the step carries h over unchanged, whatever x holds there.
    lengths : (N,) integers from 0 to T, optional
        Short form of a mask for right padding.
    reverse : bool
        Run from the last step to the first. hs[:, t] still belongs to input step t, h_n is the state after step 0.
    training : bool
        False keeps nothing for a backward call (tape is None).
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "tf32" and "bf16" are for float32 arrays on a
        GPU: factors are rounded, sums and states stay float32. Backward uses the same.

    Returns
    -------
    RNNOutput
        hs (N, T, H), h_n (N, H), and the tape for `rnn_backward`. The tape refers to xs, Wx, Wh, b, h0, hs and h_n:
        change none of these before the last backward call (no ``h0[:] = h_n``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than xs.
    ValueError
        A shape or an option does not fit.

    References
    ----------
    Elman (1990), "Finding structure in time".
    """
    checks.same_device("xs Wx Wh b h0 mask lengths", xs, Wx, Wh, b, h0, mask, lengths)
    xs = checks.float_array("xs", xs, 3)
    N, T, D = xs.shape
    Wx, Wh, b, H = checks.recurrent_weights(Wx, Wh, b, D, 1, xs.dtype, "xs")
    if h0 is not None:
        h0 = checks.state("h0", h0, N, H, xs.dtype, "xs")
    valid = checks.valid_steps(mask, lengths, N, T)
    precision = checks.precision_of(xs, precision, bf16_on_host=False)
    family = family_for(xs, "rnn")
    hs, h_n, saved = family.rnn_forward(
        xs,
        Wx,
        Wh,
        b,
        h0=h0,
        mask=valid,
        reverse=bool(reverse),
        training=bool(training),
        precision=precision,
    )
    sizes = {"N": N, "T": T, "D": D, "H": H}
    tape = Tape("rnn", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs)) if training else None
    return RNNOutput(hs, h_n, tape)


def rnn_backward(dhs: FloatArray | None, tape: Tape[RNNFamily] | None, *, dh_n: FloatArray | None = None) -> RNNGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `rnn_forward`
        May be used more than once.
    dh_n : (N, H), optional
        Gradient of the loss by h_n; zeros if not given.

    Returns
    -------
    RNNGrads
        dxs (N, T, D), dWx (D, H), dWh (H, H), db (H,), dh0 (N, H).

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, or the tape is another operator's.
    """
    tape, dhs, dh_n, _ = checks.upstream_of_sequence("rnn", tape, dhs, dh_n)
    return tape.family.rnn_backward(tape.saved, dhs=dhs, dh_n=dh_n)
