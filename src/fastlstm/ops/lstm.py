"""LSTM cell and sequence. Gers, Schmidhuber, Cummins (2000), without peepholes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

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
    PreparedWeights,
    RecurrentActivation,
    Tape,
)
from fastlstm.ops import checks, recurrent
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.prepared import check_option


@on_arrays_device
def lstm_cell_forward(
    x: FloatArray,
    h_prev: FloatArray,
    c_prev: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
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
    Wx : (D, 4H), or None
        None: x has 4H columns, which are x Wx already.
    Wh : (H, 4H)
    b : (4H,), or None
        Weights; gates lie in blocks of H columns in ``gate_order``. None is no bias.
        Wx and Wh may be transposes of C-contiguous arrays, such as PyTorch's ``weight_ih.T``, at no cost.
    gate_order : str
        A permutation of "ifgo" (g is the candidate): Keras's and PyTorch's unless given. The default of
        `fastlstm.layers` is the book's, "fgio".
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "bf16", for float32 arrays: their factors are
        rounded to bfloat16, among them the states and the gates' gradients, while sums, gates, states and all results
        are float32; with a GPU's arrays, the large products outside of the loop run in TF32. "tf32" is for arrays on a
        GPU. Backward uses the same.

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
    Wx, Wh, b, H = recurrent.weights(Wx, Wh, b, D, 4, x.dtype, "x")
    h_prev = recurrent.state("h_prev", h_prev, N, H, x.dtype, "x")
    c_prev = recurrent.state("c_prev", c_prev, N, H, x.dtype, "x")
    recurrent.check_gate_order(gate_order)
    precision = checks.precision_of(x, precision)
    family = family_for(x, "lstm")
    h, c, saved = family.lstm_cell_forward(
        x, Wx, Wh, b, h_prev=h_prev, c_prev=c_prev, gate_order=gate_order, precision=precision
    )
    inputs = {"x": x, "h_prev": h_prev, "c_prev": c_prev, "Wx": Wx, "Wh": Wh, "b": b}
    tape = Tape("lstm_cell", family, {"N": N, "D": D, "H": H}, x.dtype, saved, checks.gpu_of("x", x), inputs)
    return LSTMCellOutput(h, c, tape)


@on_arrays_device
def lstm_cell_backward(
    dh: FloatArray,
    dc: FloatArray,
    tape: Tape[LSTMFamily] | None,
    *,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> LSTMCellGrads:
    """Gradients of one LSTM step.

    Parameters
    ----------
    dh, dc : (N, H)
        Gradients of the loss by the step's h and c.
    tape : the tape of `lstm_cell_forward`
        May be used more than once.
    out : LSTMCellGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    LSTMCellGrads
        dx (N, D), dh_prev and dc_prev (N, H), dWx (D, 4H), dWh (H, 4H), db (4H,).

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, given = recurrent.upstream_of_cell("lstm_cell", tape, dh=dh, dc=dc)
    into = recurrent.destination(LSTMCellGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    return tape.family.lstm_cell_backward(tape.saved, **given, into=into)


@on_arrays_device
def prepare_lstm(
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    gate_order: str = DEFAULT_GATE_ORDER,
    precision: Precision | None = None,
) -> PreparedWeights[LSTMFamily]:
    """A snapshot of weights as the kernels read them, for many calls of `lstm_forward` without training.

    Every forward call brings its weights into the kernels' order first. Where one row, or a few, are read step by step,
    as texts are generated, that takes as long as the products.

    Parameters
    ----------
    Wx : (D, 4H) float32 or float64, or None
    Wh : (H, 4H)
    b : (4H,), or None
        As for `lstm_forward`. Later changes of them do not change the snapshot.
    gate_order : str
        A permutation of "ifgo".
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `lstm_forward`.

    Returns
    -------
    PreparedWeights
        Stands in place of all three: ``lstm_forward(xs, prepared, training=False)``, in any number of threads at once.

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than Wh.
    ValueError
        A shape or an option does not fit.
    """
    recurrent.check_gate_order(gate_order)
    Wx, Wh, b, columns = recurrent.shapes_of_weights(Wx, Wh, b, 4)
    precision = checks.precision_of(Wh, precision)
    family = family_for(Wh, "lstm")
    arguments = family.prepare_lstm(Wx, Wh, b, gate_order=gate_order, precision=precision)
    device = checks.gpu_of("Wh", Wh)
    return PreparedWeights("lstm", family, columns, Wh.shape[0], Wh.dtype, arguments, device, gate_order, precision)


@on_arrays_device
def lstm_forward(
    xs: FloatArray,
    Wx: FloatArray | PreparedWeights[LSTMFamily] | None,
    Wh: FloatArray | None = None,
    b: FloatArray | None = None,
    *,
    h0: FloatArray | None = None,
    c0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    gate_order: str = DEFAULT_GATE_ORDER,
    recurrent_activation: RecurrentActivation = "sigmoid",
    training: bool = True,
    time_major: bool = False,
    precision: Precision | None = None,
) -> LSTMOutput:
    """An LSTM over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype. Any strides over N and T cost nothing.
    Wx : (D, 4H), None, or PreparedWeights
        Those of `prepare_lstm` stand for all three weights. None: xs has 4H columns, which are x Wx already.
    Wh : (H, 4H)
    b : (4H,), or None
        Weights; gates lie in blocks of H columns in ``gate_order``. None is no bias.
        Wx and Wh may be transposes of C-contiguous arrays, such as PyTorch's ``weight_ih.T``, at no cost.
    h0, c0 : (N, H), optional
        State before the first step; zeros if not given.
    mask : (N, T) bool or 0/1, optional
        Where it is 0 the step carries h and c over unchanged, whatever x holds there.
    lengths : (N,) integers from 0 to T, optional
        Short form of a mask for right padding.
    reverse : bool
        Run from the last step to the first. hs[:, t] still belongs to input step t, h_n is the state after step 0.
    time_major : bool
        Time comes first: xs is (T, N, D), mask (T, N), hs (T, N, H), and so are their gradients.
    gate_order : str
        A permutation of "ifgo" (g is the candidate): Keras's and PyTorch's unless given. The default of
        `fastlstm.layers` is the book's, "fgio".
    recurrent_activation : "sigmoid" or "hard_sigmoid"
        The activation of i, f and o. "hard_sigmoid" is Keras 1 and 2's clip(0.2 z + 0.5, 0, 1).
    training : bool
        False keeps nothing for a backward call (tape is None). Prepared weights have none, and need False.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "bf16", for float32 arrays: their factors are
        rounded to bfloat16, among them the states and the gates' gradients, while sums, gates, states and all results
        are float32; with a GPU's arrays, the large products outside of the loop run in TF32. "tf32" is for arrays on a
        GPU. Backward uses the same.

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
    prepared = Wx if isinstance(Wx, PreparedWeights) else None
    weights: Sequence[Any]
    checks.same_device("xs Wx Wh b h0 c0 mask lengths", xs, None if prepared else Wx, Wh, b, h0, c0, mask, lengths)
    xs = recurrent.sequence("xs", xs)
    N, T, D = recurrent.batch_first(xs, time_major).shape
    if prepared is None:
        *weights, H = recurrent.weights(Wx, Wh, b, D, 4, xs.dtype, "xs")
        recurrent.check_gate_order(gate_order)
        precision = checks.precision_of(xs, precision)
        family = family_for(xs, "lstm")
    else:
        recurrent.check_prepared("lstm", prepared, xs, D, Wh, b, training=training, precision=precision)
        if gate_order != DEFAULT_GATE_ORDER:
            check_option("gate_order", gate_order, prepared.gates)
        weights, H, family = prepared.arguments, prepared.H, prepared.family
        gate_order, precision = prepared.gates, prepared.precision
    if h0 is not None:
        h0 = recurrent.state("h0", h0, N, H, xs.dtype, "xs")
    if c0 is not None:
        c0 = recurrent.state("c0", c0, N, H, xs.dtype, "xs")
    valid = recurrent.valid_steps(mask, lengths, N, T, time_major=time_major)
    checks.check_choice("recurrent_activation", recurrent_activation, RECURRENT_ACTIVATIONS)
    hs, h_n, c_n, saved = family.lstm_forward(
        recurrent.batch_first(xs, time_major),
        *weights,
        h0=h0,
        c0=c0,
        mask=valid,
        reverse=bool(reverse),
        time_major=bool(time_major),
        gate_order=gate_order,
        recurrent_activation=recurrent_activation,
        training=bool(training),
        precision=precision,
    )
    tape = None
    if training:
        sizes = {"N": N, "T": T, "D": D, "H": H}
        Wx, Wh, b = weights
        inputs: dict[str, Any] = {"xs": xs, "Wx": Wx, "Wh": Wh, "b": b, "h0": h0, "c0": c0}
        tape = Tape("lstm", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs), inputs, time_major)
    return LSTMOutput(recurrent.batch_first(hs, time_major), h_n, c_n, tape)


@on_arrays_device
def lstm_backward(
    dhs: FloatArray | None,
    tape: Tape[LSTMFamily] | None,
    *,
    dh_n: FloatArray | None = None,
    dc_n: FloatArray | None = None,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> LSTMGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), (T, N, H) of a time_major call, or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `lstm_forward`
        May be used more than once.
    dh_n, dc_n : (N, H), optional
        Gradients of the loss by h_n and c_n; zeros if not given.
    out : LSTMGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    LSTMGrads
        dxs of the shape of xs, dWx (D, 4H), dWh (H, 4H), db (4H,), dh0 and dc0 (N, H). dWx and db are None without Wx
        and b. New dWx and dWh lie in memory as Wx and Wh do, on the compiled backend.

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, dhs, dh_n, dc_n = recurrent.upstream("lstm", tape, dhs, dh_n, dc_n)
    given = {"dhs": dhs, "dh_n": dh_n, "dc_n": dc_n}
    into = recurrent.destination(LSTMGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    grads = tape.family.lstm_backward(tape.saved, dhs=dhs, dh_n=dh_n, dc_n=dc_n, into=into)
    return recurrent.in_callers_order(grads, tape, out)
