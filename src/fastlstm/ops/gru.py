"""The gated recurrent unit over a sequence. Cho et al. (2014), in the book's, PyTorch's and Keras's convention."""

from __future__ import annotations

from fastlstm.backends import family_for
from fastlstm.contract import (
    GRU_CONVENTIONS,
    Array,
    FloatArray,
    GRUConventionName,
    GRUFamily,
    GRUGrads,
    GRUOutput,
    Precision,
    Tape,
)
from fastlstm.ops import checks


def gru_forward(
    xs: FloatArray,
    Wx: FloatArray,
    Wh: FloatArray,
    b: FloatArray,
    *,
    h0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    convention: GRUConventionName = "book",
    training: bool = True,
    precision: Precision | None = None,
) -> GRUOutput:
    """A GRU over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype.
    Wx : (D, 3H)
    Wh : (H, 3H)
        Weights; gates lie in blocks of H columns: z, r, n for "book" and "keras", r, z, n for "pytorch" (z update
        gate, r reset gate, n candidate).
    b : (3H,) for "book", (2, 3H) for "pytorch" and "keras"
        Two biases, of the inputs and of the state: PyTorch's are ``numpy.stack([bias_ih, bias_hh])``.
    h0 : (N, H), optional
        State before the first step; zeros if not given.
    mask : (N, T) bool or 0/1, optional
        Where it is 0 the step carries h over unchanged, whatever x holds there.
    lengths : (N,) integers from 0 to T, optional
        Short form of a mask for right padding.
    reverse : bool
        Run from the last step to the first. hs[:, t] still belongs to input step t, h_n is the state after step 0.
    convention : "book", "pytorch" or "keras"
        "book": r before the product, n = tanh(x Wxn + (r h_prev) Whn + bn), and h = (1 - z) h_prev + z n.
        "pytorch" and "keras": r after it, n = tanh(x Wxn + bxn + r (h_prev Whn + bhn)), and h = z h_prev + (1 - z) n;
        the two differ in the order of the gates.
    training : bool
        False keeps nothing for a backward call (tape is None).
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "tf32" and "bf16" are for float32 arrays on a
        GPU: factors are rounded, sums and states stay float32. Backward uses the same.

    Returns
    -------
    GRUOutput
        hs (N, T, H), h_n (N, H), and the tape for `gru_backward`. The tape refers to xs, Wx, Wh, b, h0 and hs: change
        none of these before the last backward call (no ``h0[:] = h_n``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than xs.
    ValueError
        A shape or an option does not fit.

    References
    ----------
    Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder"; Chung et al. (2014), "Empirical
    evaluation of gated recurrent neural networks on sequence modeling", for "book".
    """
    checks.same_device("xs Wx Wh b h0 mask lengths", xs, Wx, Wh, b, h0, mask, lengths)
    xs = checks.float_array("xs", xs, 3)
    N, T, D = xs.shape
    checks.check_choice("convention", convention, tuple(GRU_CONVENTIONS))
    chosen = GRU_CONVENTIONS[convention]
    Wx, Wh, b, H = checks.recurrent_weights(Wx, Wh, b, D, 3, xs.dtype, "xs", two_biases=chosen.reset_after)
    if h0 is not None:
        h0 = checks.state("h0", h0, N, H, xs.dtype, "xs")
    valid = checks.valid_steps(mask, lengths, N, T)
    precision = checks.precision_of(xs, precision, bf16_on_host=False)
    family = family_for(xs, "gru")
    hs, h_n, saved = family.gru_forward(
        xs,
        Wx,
        Wh,
        b,
        h0=h0,
        mask=valid,
        reverse=bool(reverse),
        convention=chosen,
        training=bool(training),
        precision=precision,
    )
    sizes = {"N": N, "T": T, "D": D, "H": H}
    tape = Tape("gru", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs)) if training else None
    return GRUOutput(hs, h_n, tape)


def gru_backward(dhs: FloatArray | None, tape: Tape[GRUFamily] | None, *, dh_n: FloatArray | None = None) -> GRUGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `gru_forward`
        May be used more than once.
    dh_n : (N, H), optional
        Gradient of the loss by h_n; zeros if not given.

    Returns
    -------
    GRUGrads
        dxs (N, T, D), dWx (D, 3H), dWh (H, 3H), db of the shape of b, dh0 (N, H).

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, or the tape is another operator's.
    """
    tape, dhs, dh_n, _ = checks.upstream_of_sequence("gru", tape, dhs, dh_n)
    return tape.family.gru_backward(tape.saved, dhs=dhs, dh_n=dh_n)
