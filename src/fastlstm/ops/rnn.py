"""The tanh recurrent network over a sequence. Elman (1990), "Finding structure in time"."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastlstm.backends import family_for
from fastlstm.contract import (
    Array,
    FloatArray,
    Precision,
    PreparedWeights,
    RNNCellGrads,
    RNNCellOutput,
    RNNFamily,
    RNNGrads,
    RNNOutput,
    Tape,
)
from fastlstm.ops import checks, recurrent
from fastlstm.ops.current_device import on_arrays_device


@on_arrays_device
def rnn_cell_forward(
    x: FloatArray,
    h_prev: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    precision: Precision | None = None,
) -> RNNCellOutput:
    """One step of a tanh RNN.

    Parameters
    ----------
    x : (N, D) float32 or float64
        Input; all other arrays have its dtype.
    h_prev : (N, H)
        Hidden state before the step.
    Wx : (D, H), or None
        None: x has H columns, which are x Wx already.
    Wh : (H, H)
    b : (H,), or None
        Weights. None is no bias.
        Wx and Wh may be transposes of C-contiguous arrays, such as PyTorch's ``weight_ih.T``, at no cost.
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `rnn_forward`.

    Returns
    -------
    RNNCellOutput
        ``h`` (N, H) after the step, and the tape for `rnn_cell_backward`. The tape refers to x, h_prev, Wx, Wh, b and
        h: change none of these before the last backward call (no ``h_prev[:] = h``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than x.
    ValueError
        A shape does not fit.
    """
    checks.same_device("x h_prev Wx Wh b", x, h_prev, Wx, Wh, b)
    x = checks.float_array("x", x, 2)
    N, D = x.shape
    Wx, Wh, b, H = recurrent.weights(Wx, Wh, b, D, 1, x.dtype, "x")
    h_prev = recurrent.state("h_prev", h_prev, N, H, x.dtype, "x")
    precision = checks.precision_of(x, precision)
    family = family_for(x, "rnn")
    h, saved = family.rnn_cell_forward(x, Wx, Wh, b, h_prev=h_prev, precision=precision)
    inputs = {"x": x, "h_prev": h_prev, "Wx": Wx, "Wh": Wh, "b": b}
    tape = Tape("rnn_cell", family, {"N": N, "D": D, "H": H}, x.dtype, saved, checks.gpu_of("x", x), inputs)
    return RNNCellOutput(h, tape)


@on_arrays_device
def rnn_cell_backward(
    dh: FloatArray,
    tape: Tape[RNNFamily] | None,
    *,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> RNNCellGrads:
    """Gradients of one step of a tanh RNN.

    Parameters
    ----------
    dh : (N, H)
        Gradient of the loss by the step's h.
    tape : the tape of `rnn_cell_forward`
        May be used more than once.
    out : RNNCellGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    RNNCellGrads
        dx (N, D), dh_prev (N, H), dWx (D, H), dWh (H, H), db of the shape of b.

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, given = recurrent.upstream_of_cell("rnn_cell", tape, dh=dh)
    into = recurrent.destination(RNNCellGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    return tape.family.rnn_cell_backward(tape.saved, **given, into=into)


@on_arrays_device
def prepare_rnn(
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    precision: Precision | None = None,
) -> PreparedWeights[RNNFamily]:
    """A snapshot of weights as the kernels read them, for many calls of `rnn_forward` without training.

    Every forward call brings its weights into the kernels' order first. Where one row, or a few, are read step by step,
    as texts are generated, that takes as long as the products.

    Parameters
    ----------
    Wx : (D, H) float32 or float64, or None
    Wh : (H, H)
    b : (H,), or None
        As for `rnn_forward`. Later changes of them do not change the snapshot.
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `rnn_forward`.

    Returns
    -------
    PreparedWeights
        Stands in place of all three: ``rnn_forward(xs, prepared, training=False)``, in any number of threads at once.

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than Wh.
    ValueError
        A shape or an option does not fit.
    """
    Wx, Wh, b, columns = recurrent.shapes_of_weights(Wx, Wh, b, 1)
    precision = checks.precision_of(Wh, precision)
    family = family_for(Wh, "rnn")
    arguments = family.prepare_rnn(Wx, Wh, b, precision=precision)
    device = checks.gpu_of("Wh", Wh)
    return PreparedWeights("rnn", family, columns, Wh.shape[0], Wh.dtype, arguments, device, None, precision)


@on_arrays_device
def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray | PreparedWeights[RNNFamily] | None,
    Wh: FloatArray | None = None,
    b: FloatArray | None = None,
    *,
    h0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    training: bool = True,
    time_major: bool = False,
    precision: Precision | None = None,
) -> RNNOutput:
    """h = tanh(x Wx + h_prev Wh + b) over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype. Any strides over N and T cost nothing.
    Wx : (D, H), None, or PreparedWeights
        Those of `prepare_rnn` stand for all three weights. None: xs has H columns, which are x Wx already.
    Wh : (H, H)
    b : (H,), or None
        Weights. None is no bias.
        Wx and Wh may be transposes of C-contiguous arrays, such as PyTorch's ``weight_ih.T``, at no cost.
        Weights.
    h0 : (N, H), optional
        State before the first step; zeros if not given.
    mask : (N, T) bool or 0/1, optional
        Where it is 0 the step carries h over unchanged, whatever x holds there.
    lengths : (N,) integers from 0 to T, optional
        Short form of a mask for right padding.
    reverse : bool
        Run from the last step to the first. hs[:, t] still belongs to input step t, h_n is the state after step 0.
    time_major : bool
        Time comes first: xs is (T, N, D), mask (T, N), hs (T, N, H), and so are their gradients.
    training : bool
        False keeps nothing for a backward call (tape is None). Prepared weights have none, and need False.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "bf16", for float32 arrays: their factors are
        rounded to bfloat16, among them the states and the gates' gradients, while sums, gates, states and all results
        are float32; with a GPU's arrays, the large products outside of the loop run in TF32. "tf32" is for arrays on a
        GPU. Backward uses the same.

    Returns
    -------
    RNNOutput
        hs (N, T, H), h_n (N, H), and the tape for `rnn_backward`. The tape refers to xs, Wx, Wh, b and h0: change
        none of these before the last backward call (no ``h0[:] = h_n``), nor hs and h_n on a GPU.

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
    prepared = Wx if isinstance(Wx, PreparedWeights) else None
    weights: Sequence[Any]
    checks.same_device("xs Wx Wh b h0 mask lengths", xs, None if prepared else Wx, Wh, b, h0, mask, lengths)
    xs = recurrent.sequence("xs", xs)
    N, T, D = recurrent.batch_first(xs, time_major).shape
    if prepared is None:
        *weights, H = recurrent.weights(Wx, Wh, b, D, 1, xs.dtype, "xs")
        precision = checks.precision_of(xs, precision)
        family = family_for(xs, "rnn")
    else:
        recurrent.check_prepared("rnn", prepared, xs, D, Wh, b, training=training, precision=precision)
        weights, H, family = prepared.arguments, prepared.H, prepared.family
        precision = prepared.precision
    if h0 is not None:
        h0 = recurrent.state("h0", h0, N, H, xs.dtype, "xs")
    valid = recurrent.valid_steps(mask, lengths, N, T, time_major=time_major)
    hs, h_n, saved = family.rnn_forward(
        recurrent.batch_first(xs, time_major),
        *weights,
        h0=h0,
        mask=valid,
        reverse=bool(reverse),
        time_major=bool(time_major),
        training=bool(training),
        precision=precision,
    )
    hs, tape = recurrent.batch_first(hs, time_major), None
    if training:
        sizes = {"N": N, "T": T, "D": D, "H": H}
        Wx, Wh, b = weights
        inputs: dict[str, Any] = {"xs": xs, "Wx": Wx, "Wh": Wh, "b": b, "h0": h0}
        tape = Tape("rnn", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs), inputs, time_major)
    return RNNOutput(hs, h_n, tape)


@on_arrays_device
def rnn_backward(
    dhs: FloatArray | None,
    tape: Tape[RNNFamily] | None,
    *,
    dh_n: FloatArray | None = None,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> RNNGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), (T, N, H) of a time_major call, or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `rnn_forward`
        May be used more than once.
    dh_n : (N, H), optional
        Gradient of the loss by h_n; zeros if not given.
    out : RNNGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    RNNGrads
        dxs of the shape of xs, dWx (D, H), dWh (H, H), db (H,), dh0 (N, H). dWx and db are None
        without Wx and b. New dWx and dWh lie in memory as Wx and Wh do, on the compiled backend.

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, dhs, dh_n, _ = recurrent.upstream("rnn", tape, dhs, dh_n)
    given = {"dhs": dhs, "dh_n": dh_n}
    into = recurrent.destination(RNNGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    grads = tape.family.rnn_backward(tape.saved, dhs=dhs, dh_n=dh_n, into=into)
    return recurrent.in_callers_order(grads, tape, out)
