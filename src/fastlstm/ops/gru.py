"""The gated recurrent unit over a sequence. Cho et al. (2014), in the book's, PyTorch's and Keras's convention."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from fastlstm.backends import family_for
from fastlstm.contract import (
    GRU_CONVENTIONS,
    Array,
    FloatArray,
    GRUCellGrads,
    GRUCellOutput,
    GRUConvention,
    GRUConventionName,
    GRUFamily,
    GRUGrads,
    GRUOutput,
    Precision,
    PreparedWeights,
    Tape,
)
from fastlstm.ops import checks, recurrent
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.prepared import check_option


@on_arrays_device
def gru_cell_forward(
    x: FloatArray,
    h_prev: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    convention: GRUConventionName | GRUConvention = "book",
    precision: Precision | None = None,
) -> GRUCellOutput:
    """One step of a GRU.

    Parameters
    ----------
    x : (N, D) float32 or float64
        Input; all other arrays have its dtype.
    h_prev : (N, H)
        Hidden state before the step.
    Wx : (D, 3H), or None
        None: x has 3H columns, which are x Wx already.
    Wh : (H, 3H)
    b : (3H,), or (2, 3H) with the reset gate after the product, or None
        Weights; gates lie in blocks of H columns in the convention's order. None is no bias.
        Wx and Wh may be transposes of C-contiguous arrays, such as PyTorch's ``weight_ih.T``, at no cost.
    convention : "book", "pytorch", "keras", or a GRUConvention
        As for `gru_forward`.
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `gru_forward`.

    Returns
    -------
    GRUCellOutput
        ``h`` (N, H) after the step, and the tape for `gru_cell_backward`. The tape refers to x, h_prev, Wx, Wh, b and
        h: change none of these before the last backward call (no ``h_prev[:] = h``).

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than x.
    ValueError
        A shape or an option does not fit.
    """
    checks.same_device("x h_prev Wx Wh b", x, h_prev, Wx, Wh, b)
    x = checks.float_array("x", x, 2)
    N, D = x.shape
    chosen = _convention(convention)
    Wx, Wh, b, H = recurrent.weights(Wx, Wh, b, D, 3, x.dtype, "x", two_biases=chosen.reset_after)
    h_prev = recurrent.state("h_prev", h_prev, N, H, x.dtype, "x")
    precision = checks.precision_of(x, precision)
    family = family_for(x, "gru")
    h, saved = family.gru_cell_forward(x, Wx, Wh, b, h_prev=h_prev, convention=chosen, precision=precision)
    inputs = {"x": x, "h_prev": h_prev, "Wx": Wx, "Wh": Wh, "b": b}
    tape = Tape("gru_cell", family, {"N": N, "D": D, "H": H}, x.dtype, saved, checks.gpu_of("x", x), inputs)
    return GRUCellOutput(h, tape)


@on_arrays_device
def gru_cell_backward(
    dh: FloatArray,
    tape: Tape[GRUFamily] | None,
    *,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> GRUCellGrads:
    """Gradients of one step of a GRU.

    Parameters
    ----------
    dh : (N, H)
        Gradient of the loss by the step's h.
    tape : the tape of `gru_cell_forward`
        May be used more than once.
    out : GRUCellGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    GRUCellGrads
        dx (N, D), dh_prev (N, H), dWx (D, 3H), dWh (H, 3H), db of the shape of b.

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, given = recurrent.upstream_of_cell("gru_cell", tape, dh=dh)
    into = recurrent.destination(GRUCellGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    return tape.family.gru_cell_backward(tape.saved, **given, into=into)


@on_arrays_device
def prepare_gru(
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    *,
    convention: GRUConventionName | GRUConvention = "book",
    precision: Precision | None = None,
) -> PreparedWeights[GRUFamily]:
    """A snapshot of weights as the kernels read them, for many calls of `gru_forward` without training.

    Every forward call brings its weights into the kernels' order first. Where one row, or a few, are read step by step,
    as texts are generated, that takes as long as the products.

    Parameters
    ----------
    Wx : (D, 3H) float32 or float64, or None
    Wh : (H, 3H)
    b : (3H,), or (2, 3H) with the reset gate after the product, or None
        As for `gru_forward`. Later changes of them do not change the snapshot.
    convention : "book", "pytorch", "keras", or a GRUConvention
        As for `gru_forward`.
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `gru_forward`.

    Returns
    -------
    PreparedWeights
        Stands in place of all three: ``gru_forward(xs, prepared, training=False)``, in any number of threads at once.

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than Wh.
    ValueError
        A shape or an option does not fit.
    """
    chosen = _convention(convention)
    Wx, Wh, b, columns = recurrent.shapes_of_weights(Wx, Wh, b, 3, two_biases=chosen.reset_after)
    precision = checks.precision_of(Wh, precision)
    family = family_for(Wh, "gru")
    arguments = family.prepare_gru(Wx, Wh, b, convention=chosen, precision=precision)
    device = checks.gpu_of("Wh", Wh)
    return PreparedWeights("gru", family, columns, Wh.shape[0], Wh.dtype, arguments, device, chosen, precision)


@on_arrays_device
def gru_forward(
    xs: FloatArray,
    Wx: FloatArray | PreparedWeights[GRUFamily] | None,
    Wh: FloatArray | None = None,
    b: FloatArray | None = None,
    *,
    h0: FloatArray | None = None,
    mask: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    convention: GRUConventionName | GRUConvention = "book",
    training: bool = True,
    time_major: bool = False,
    precision: Precision | None = None,
) -> GRUOutput:
    """A GRU over a whole sequence.

    Parameters
    ----------
    xs : (N, T, D) float32 or float64
        Inputs, batch first; all other float arrays have their dtype. Any strides over N and T cost nothing.
    Wx : (D, 3H), None, or PreparedWeights
        Those of `prepare_gru` stand for all three weights. None: xs has 3H columns, which are x Wx already.
    Wh : (H, 3H)
        Weights; gates lie in blocks of H columns: z, r, n for "book" and "keras", r, z, n for "pytorch" (z update
        gate, r reset gate, n candidate). Both may be transposes of C-contiguous arrays, such as PyTorch's
        ``weight_ih.T``, at no cost.
    b : (3H,) for "book", (2, 3H) for "pytorch" and "keras" (reset_after), or None
        Two biases, of the inputs and of the state: PyTorch's are ``numpy.stack([bias_ih, bias_hh])``. None is no bias.
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
    convention : "book", "pytorch", "keras", or a GRUConvention
        "book": r before the product, n = tanh(x Wxn + (r h_prev) Whn + bn), and h = (1 - z) h_prev + z n.
        "pytorch" and "keras": r after it, n = tanh(x Wxn + bxn + r (h_prev Whn + bhn)), and h = z h_prev + (1 - z) n;
        the two differ in the order of the gates. ``GRUConvention(gate_order, reset_after, z_keeps)`` is any other: with
        ("zrn", False, True) r comes before the product and z keeps, as in Cho et al. and in ONNX.
    training : bool
        False keeps nothing for a backward call (tape is None). Prepared weights have none, and need False.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products. Not given, they are exact in the arrays' dtype. "bf16", for float32 arrays: their factors are
        rounded to bfloat16, among them the states and the gates' gradients, while sums, gates, states and all results
        are float32; with a GPU's arrays, the large products outside of the loop run in TF32. "tf32" is for arrays on a
        GPU. Backward uses the same.

    Returns
    -------
    GRUOutput
        hs (N, T, H), h_n (N, H), and the tape for `gru_backward`. The tape refers to xs, Wx, Wh, b and h0: change
        none of these before the last backward call (no ``h0[:] = h_n``), nor hs on a GPU.

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
    prepared = Wx if isinstance(Wx, PreparedWeights) else None
    weights: Sequence[Any]
    checks.same_device("xs Wx Wh b h0 mask lengths", xs, None if prepared else Wx, Wh, b, h0, mask, lengths)
    xs = recurrent.sequence("xs", xs)
    N, T, D = recurrent.batch_first(xs, time_major).shape
    chosen = _convention(convention)
    if prepared is None:
        *weights, H = recurrent.weights(Wx, Wh, b, D, 3, xs.dtype, "xs", two_biases=chosen.reset_after)
        precision = checks.precision_of(xs, precision)
        family = family_for(xs, "gru")
    else:
        recurrent.check_prepared("gru", prepared, xs, D, Wh, b, training=training, precision=precision)
        if convention != "book":
            check_option("convention", chosen, prepared.gates)
        weights, H, family = prepared.arguments, prepared.H, prepared.family
        chosen, precision = prepared.gates, prepared.precision
    if h0 is not None:
        h0 = recurrent.state("h0", h0, N, H, xs.dtype, "xs")
    valid = recurrent.valid_steps(mask, lengths, N, T, time_major=time_major)
    hs, h_n, saved = family.gru_forward(
        recurrent.batch_first(xs, time_major),
        *weights,
        h0=h0,
        mask=valid,
        reverse=bool(reverse),
        time_major=bool(time_major),
        convention=chosen,
        training=bool(training),
        precision=precision,
    )
    hs, tape = recurrent.batch_first(hs, time_major), None
    if training:
        sizes = {"N": N, "T": T, "D": D, "H": H}
        Wx, Wh, b = weights
        inputs: dict[str, Any] = {"xs": xs, "Wx": Wx, "Wh": Wh, "b": b, "h0": h0}
        tape = Tape("gru", family, sizes, xs.dtype, saved, checks.gpu_of("xs", xs), inputs, time_major)
    return GRUOutput(hs, h_n, tape)


@on_arrays_device
def gru_backward(
    dhs: FloatArray | None,
    tape: Tape[GRUFamily] | None,
    *,
    dh_n: FloatArray | None = None,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
) -> GRUGrads:
    """Back-propagation through time over a whole sequence.

    Parameters
    ----------
    dhs : (N, T, H), (T, N, H) of a time_major call, or None for zeros
        Gradient of the loss by hs.
    tape : the tape of `gru_forward`
        May be used more than once.
    dh_n : (N, H), optional
        Gradient of the loss by h_n; zeros if not given.
    out : GRUGrads, or any object with some of its fields, optional
        Results are written to its arrays and these are returned; a field that is missing or None gets a new array.
        dWx and dWh may be transposes of C-contiguous arrays.
    accumulate : bool
        Adds dWx, dWh and db to what ``out`` holds, once an element: the very bits that the call without it returns.
    without : names of results
        They are not computed, and None.

    Returns
    -------
    GRUGrads
        dxs of the shape of xs, dWx (D, 3H), dWh (H, 3H), db of the shape of b, dh0 (N, H). dWx and db are None
        without Wx and b. New dWx and dWh lie in memory as Wx and Wh do, on the compiled backend.

    Raises
    ------
    TypeError, ValueError
        The gradients do not fit the tape, the tape is another operator's, or an array of out does not fit, is read-only
        or overlaps another. Nothing is changed then.
    """
    tape, dhs, dh_n, _ = recurrent.upstream("gru", tape, dhs, dh_n)
    given = {"dhs": dhs, "dh_n": dh_n}
    into = recurrent.destination(GRUGrads._fields, tape, given, out=out, accumulate=accumulate, without=without)
    grads = tape.family.gru_backward(tape.saved, dhs=dhs, dh_n=dh_n, into=into)
    return recurrent.in_callers_order(grads, tape, out)


def _convention(convention: Any) -> GRUConvention:
    if not isinstance(convention, GRUConvention):
        checks.check_choice("convention", convention, tuple(GRU_CONVENTIONS), "a GRUConvention")
        chosen: GRUConvention = GRU_CONVENTIONS[convention]
        return chosen
    if not isinstance(convention.gate_order, str) or sorted(convention.gate_order) != sorted("zrn"):
        raise ValueError(f"gate_order of convention is {convention.gate_order!r:.60}, expected a permutation of 'zrn'")
    return convention._replace(reset_after=bool(convention.reset_after), z_keeps=bool(convention.z_keeps))
