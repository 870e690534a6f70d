"""Losses over a sample of the vocabulary: candidates, sampled logits, NCE, sampled softmax, negative sampling.

Semantics are TensorFlow's: ``tf.random.log_uniform_candidate_sampler``, ``tf.nn.nce_loss`` and
``tf.nn.sampled_softmax_loss``.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.backends import family_for
from fastlstm.contract import (
    Array,
    Candidates,
    FloatArray,
    IntArray,
    PaddedRowGrad,
    SampledLogits,
    SampledLogitsGrads,
    SampledLoss,
    SampledLossKind,
    Tape,
)
from fastlstm.ops import checks, scalars
from fastlstm.ops.device_steps import draw_seed, rows_are_padded

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)

_Table = TypeVar("_Table", FloatArray, IntArray)

# Different classes are found by drawing again and again; a sample whose last class takes longer than this on average
# is refused instead of seeming to hang.
_MAX_EXPECTED_TRIES = 1e8


def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, *, unique: bool = True, rng: np.random.Generator
) -> Candidates:
    """Classes drawn from a log-uniform (Zipfian) law, for ids sorted by descending frequency.

    P(class) = log((class + 2) / (class + 1)) / log(range_max + 1).

    Parameters
    ----------
    num_sampled : int
        S, how many.
    range_max : int
        Classes are 0 to range_max - 1.
    true_classes : (...) int32 or int64
        Their expected counts are wanted too, usually the labels (B,) or (B, num_true).
    unique : bool
        True: all sampled classes are different; the expected counts take the number of tries as given.
    rng : numpy.random.Generator
        One 64-bit number is drawn from it. Equal seeds give equal samples on every backend.

    Returns
    -------
    Candidates
        sampled (S,) int64, true_expected_count of true_classes' shape, sampled_expected_count (S,), num_tries.

    Raises
    ------
    IndexError
        A true class lies outside 0 to range_max - 1.
    TypeError, ValueError
        An argument does not fit, or there are fewer than num_sampled classes.

    References
    ----------
    tf.random.log_uniform_candidate_sampler.
    """
    num_sampled = scalars.size("num_sampled", num_sampled)
    range_max = scalars.integer("range_max", range_max, 1)
    flat = checks.int_ids("true_classes", true_classes, range_max, "range_max = {}")
    log_range = math.log1p(range_max)
    if unique:
        _enough_classes(num_sampled, range_max, "range_max")
        _ends_in_time(num_sampled, math.log1p((range_max + 1 - num_sampled) / num_sampled) / log_range)
    candidates: Candidates = family_for(flat, "sampling").log_uniform_candidates(
        num_sampled,
        range_max,
        flat.astype(_INT64, copy=False),
        unique=bool(unique),
        log_range=log_range,
        seed=_seed(rng),
    )
    return _shaped(candidates, true_classes)


def log_uniform_expected_count(
    classes: IntArray, num_tries: int, range_max: int, *, unique: bool = True, num_sampled: int
) -> FloatArray:
    """How often classes are expected in a sample of `log_uniform_candidates`.

    Parameters
    ----------
    classes : (...) int32 or int64
        From 0 to range_max - 1.
    num_tries : int
        Draws the sample took, Candidates.num_tries; not used without ``unique``.
    range_max : int
    unique : bool
    num_sampled : int
        S, the size of the sample.

    Returns
    -------
    (...) float64 array
        p S without ``unique`` or if no draw was repeated (num_tries = S), else 1 - (1 - p)^num_tries, with
        p = log((class + 2) / (class + 1)) / log(range_max + 1). Exactly what TensorFlow computes.

    Raises
    ------
    IndexError
        A class lies outside 0 to range_max - 1.
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    ExpectedCountHelper in TensorFlow's range_sampler.cc.
    """
    range_max = scalars.integer("range_max", range_max, 1)
    num_sampled = scalars.size("num_sampled", num_sampled)
    flat = checks.int_ids("classes", classes, range_max, "range_max = {}")
    if not unique:
        num_tries = num_sampled
    elif not _stays_on_device("num_tries", num_tries, flat):
        num_tries = scalars.integer("num_tries", num_tries, num_sampled)
    count: FloatArray = family_for(flat, "sampling").log_uniform_expected_count(
        flat.astype(_INT64, copy=False),
        log_range=math.log1p(range_max),
        num_tries=num_tries,
        num_sampled=num_sampled,
    )
    return count.reshape(classes.shape)


class UnigramTable:
    """Counts made ready for `unigram_candidates`: build it once, draw from it in every step, on the host or a GPU.

    It does not change: kernels look into it without a check.

    Parameters
    ----------
    counts : (V,) integers or floats
        How often each class occurs; not negative, not all zero. Copied: later changes have no effect. From a GPU they
        are copied to the host first, which waits.
    power : float, not negative
        P(class) is proportional to counts[class] ** power.

    Attributes
    ----------
    probabilities : (V,) float64
        A numpy array that is read-only, as the two others.
    threshold, alias : (V,) float64 and int64
        The alias method's table: column v stands for class v up to threshold[v] and for class alias[v] above.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Vose (1991), "A linear algorithm for generating random numbers with a given distribution".
    """

    def __init__(self, counts: Any, *, power: float = 0.75) -> None:
        checks.require_array("counts", counts)
        if counts.dtype.kind not in "iuf" or counts.ndim != 1 or len(counts) == 0:
            raise ValueError(f"counts is {checks.describe(counts)}, expected numbers of shape (V,) with V at least 1")
        power = scalars.finite("power", power, 0)
        # On the host wherever the counts are: the same power gives the same table, to the last bit, for every device.
        counts = checks.on_host(counts).astype(np.float64)
        if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
            raise ValueError("counts holds negative numbers, NaN or infinity, or nothing but zeros")
        weights = (counts / counts.max()) ** power
        probabilities = weights / weights.sum()
        self._keep(probabilities, *family_for(counts, "sampling").alias_table(probabilities * len(counts)))

    def _keep(self, probabilities: FloatArray, threshold: FloatArray, alias: IntArray) -> None:
        self._host = probabilities, threshold, alias
        self._on_device: dict[int, tuple[Array, Array, Array]] = {}

    @property
    def probabilities(self) -> FloatArray:
        return _read_only(self._host[0])

    @property
    def threshold(self) -> FloatArray:
        return _read_only(self._host[1])

    @property
    def alias(self) -> IntArray:
        return _read_only(self._host[2])

    def __getstate__(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """For copies and pickles."""
        return self._host

    def __setstate__(self, state: tuple[Any, Any, Any]) -> None:
        probabilities, threshold, alias = (np.array(array) for array in state)
        shape = (max(len(probabilities.reshape(-1)), 1),)
        for name, array, dtype in (
            ("probabilities", probabilities, _FLOAT64),
            ("threshold", threshold, _FLOAT64),
            ("alias", alias, _INT64),
        ):
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {checks.describe(array)}, expected {dtype} of shape {shape} = (V,)")
        checks.int_ids("alias", alias, shape[0], "V = {} classes")
        self._keep(probabilities, threshold, alias)

    def __len__(self) -> int:
        """V, the number of classes."""
        return len(self._host[0])

    def __repr__(self) -> str:
        return f"UnigramTable of {len(self)} classes"

    def beside(self, array: Array) -> tuple[FloatArray, FloatArray, IntArray]:
        """Probabilities, threshold and alias where ``array`` lives; the first call copies them to its GPU."""
        device = checks.gpu_of("true_classes", array)
        if device is None:
            return self._host
        if device not in self._on_device:
            first, second, third = (checks.on_device_of(table, array) for table in self._host)
            self._on_device[device] = first, second, third
        return self._on_device[device]

    @functools.cached_property
    def mass_of_rarest(self) -> FloatArray:
        """(V + 1,) float64: the probability of the n rarest classes together, for n = 0 ... V."""
        return np.concatenate([[0.0], np.cumsum(np.sort(self.probabilities))])


def unigram_candidates(
    counts: Any,
    num_sampled: int,
    true_classes: IntArray,
    *,
    power: float = 0.75,
    unique: bool = False,
    rng: np.random.Generator,
) -> Candidates:
    """Classes drawn with probability proportional to counts ** power, by the alias method.

    Parameters
    ----------
    counts : (V,) integers or floats, or UnigramTable
        How often each class occurs. From an array the table is built anew in every call, which takes time in proportion
        to V; a loop builds a `UnigramTable` once.
    num_sampled : int
        S, how many.
    true_classes : (...) int32 or int64
        Their expected counts are wanted too, usually the labels (B,) or (B, num_true).
    power : float, not negative
        0.75 in word2vec. Not used with a UnigramTable, which has its own.
    unique : bool
        True: all sampled classes are different; the expected counts take the number of tries as given.
    rng : numpy.random.Generator
        One 64-bit number is drawn from it. Equal seeds give equal samples on every backend.

    Returns
    -------
    Candidates
        sampled (S,) int64, true_expected_count of true_classes' shape, sampled_expected_count (S,), num_tries.

    Raises
    ------
    IndexError
        A true class lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit, or fewer than num_sampled classes can be drawn.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases";
    tf.random.fixed_unigram_candidate_sampler.
    """
    num_sampled = scalars.size("num_sampled", num_sampled)
    if not isinstance(counts, UnigramTable):
        checks.same_device("true_classes counts", true_classes, counts)
        counts = UnigramTable(counts, power=power)
    table: UnigramTable = counts
    V = len(table)
    flat = checks.int_ids("true_classes", true_classes, V, "counts has V = {} classes")
    if unique:
        _enough_classes(num_sampled, int(np.count_nonzero(table.probabilities)), "the number of classes that occur")
        _ends_in_time(num_sampled, float(table.mass_of_rarest[V + 1 - num_sampled]))
    candidates: Candidates = family_for(flat, "sampling").unigram_candidates(
        *table.beside(flat),
        num_sampled,
        flat.astype(_INT64, copy=False),
        unique=bool(unique),
        seed=_seed(rng),
    )
    return _shaped(candidates, true_classes)


def sampled_logits_forward(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    subtract_log_q: bool = True,
    remove_accidental_hits: bool = False,
) -> SampledLogits:
    """Logits of the true and of the sampled classes: inputs . weights + biases.

    Parameters
    ----------
    weights : (V, E) float32 or float64
    biases : (V,)
        Of weights' dtype.
    labels : (B,) or (B, num_true), int32 or int64
        True classes, from 0 to V - 1.
    inputs : (B, E)
        Of weights' dtype.
    candidates : Candidates
        S sampled classes, shared by the batch.
    subtract_log_q : bool
        Subtract the logarithm of each class's expected count from its logit.
    remove_accidental_hits : bool
        Give a sampled class that is a true one of the row the logit -3.4e38, so that it counts for nothing.

    Returns
    -------
    SampledLogits
        logits and labels (B, num_true + S), the true columns first; a true column's label is 1 / num_true, a sampled
        one's 0; and the tape for `sampled_logits_backward`. The tape refers to weights, labels, inputs and candidates:
        change none of these before the last backward call.

    Raises
    ------
    IndexError
        A label or a sampled class lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    _compute_sampled_logits in TensorFlow's nn_impl.py.
    """
    args = _checked(weights, biases, labels, inputs, candidates, with_biases=True, with_counts=subtract_log_q)
    family = family_for(args.weights, "sampling")
    logits, is_true, saved = family.sampled_logits_forward(
        args.weights,
        args.biases,
        args.labels,
        args.inputs,
        args.sampled,
        true_expected_count=args.true_expected_count,
        sampled_expected_count=args.sampled_expected_count,
        remove_accidental_hits=bool(remove_accidental_hits),
    )
    B, num_true = args.labels.shape
    sizes = {"B": B, "E": args.inputs.shape[1], "num_true": num_true, "S": len(args.sampled)}
    tape = Tape("sampled_logits", family, sizes, args.weights.dtype, saved, checks.gpu_of("weights", args.weights))
    return SampledLogits(logits, is_true, tape)


def sampled_logits_backward(dlogits: FloatArray, tape: Any) -> SampledLogitsGrads:
    """Gradients of `sampled_logits_forward`.

    Parameters
    ----------
    dlogits : (B, num_true + S)
        Gradient of the loss by the logits.
    tape : the tape of `sampled_logits_forward`
        May be used more than once.

    Returns
    -------
    SampledLogitsGrads
        dinputs (B, E); dweights and dbiases as RowGrad over the ascending unique classes (int64), with values (U, E)
        and (U,). A class that occurs several times, as true and as sampled, has one row with the sum.

    Raises
    ------
    TypeError, ValueError
        dlogits does not fit the tape, or the tape is another operator's.
    """
    tape = checks.check_tape(tape, "sampled_logits")
    checks.same_device_as_tape("dlogits", tape, dlogits)
    dlogits = checks.float_array("dlogits", dlogits, 2, tape.dtype, "the tape")
    expected = (tape.sizes["B"], tape.sizes["num_true"] + tape.sizes["S"])
    checks.expect_shape("dlogits", dlogits, expected, "= (B, num_true + S) of the forward call")
    grads: SampledLogitsGrads = tape.family.sampled_logits_backward(tape.saved, dlogits=dlogits)
    return grads


def nce_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = False,
) -> SampledLoss:
    """Noise-contrastive estimation: sigmoid cross entropy of the true and the sampled classes, summed over the classes.

    Parameters
    ----------
    weights, biases, labels, inputs, candidates, remove_accidental_hits
        As in `sampled_logits_forward`; the logarithms of the expected counts are subtracted.

    Returns
    -------
    SampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights and dbiases as RowGrad.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `sampled_logits_forward`.

    References
    ----------
    Gutmann, Hyvärinen (2010), "Noise-contrastive estimation"; tf.nn.nce_loss.
    """
    args = _checked(weights, biases, labels, inputs, candidates, with_biases=True, with_counts=True)
    return _loss("sigmoid", args, remove_accidental_hits)


def sampled_softmax_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = True,
) -> SampledLoss:
    """Cross entropy of a softmax over the true and the sampled classes only.

    Parameters
    ----------
    weights, biases, labels, inputs, candidates, remove_accidental_hits
        As in `sampled_logits_forward`; the logarithms of the expected counts are subtracted.

    Returns
    -------
    SampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights and dbiases as RowGrad.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `sampled_logits_forward`.

    References
    ----------
    Jean et al. (2015), "On using very large target vocabulary"; tf.nn.sampled_softmax_loss.
    """
    args = _checked(weights, biases, labels, inputs, candidates, with_biases=True, with_counts=True)
    return _loss("softmax", args, remove_accidental_hits)


def negative_sampling_loss(
    weights: FloatArray, labels: IntArray, inputs: FloatArray, candidates: Candidates
) -> SampledLoss:
    """word2vec's objective: sigmoid cross entropy summed over the classes, no biases, no expected counts.

    Parameters
    ----------
    weights, labels, inputs, candidates
        As in `sampled_logits_forward`; only candidates.sampled is read.

    Returns
    -------
    SampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights as RowGrad; dbiases is None.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `sampled_logits_forward`.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases", equation 4.
    """
    args = _checked(weights, None, labels, inputs, candidates, with_biases=False, with_counts=False)
    return _loss("sigmoid", args, remove_accidental_hits=False)


class _Checked(NamedTuple):
    """Checked arguments of the logits and losses, in the order the backends take them."""

    weights: FloatArray
    biases: FloatArray | None
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray
    true_expected_count: FloatArray | None
    sampled_expected_count: FloatArray | None


def _loss(kind: SampledLossKind, args: _Checked, remove_accidental_hits: bool) -> SampledLoss:
    family = family_for(args.weights, "sampling")
    padded = rows_are_padded() and is_device_array(args.weights)
    result = (family.padded_sampled_loss if padded else family.sampled_loss)(
        args.weights,
        args.biases,
        args.labels,
        args.inputs,
        args.sampled,
        true_expected_count=args.true_expected_count,
        sampled_expected_count=args.sampled_expected_count,
        remove_accidental_hits=bool(remove_accidental_hits),
        loss=kind,
    )
    if not padded:
        loss: SampledLoss = result
        return loss
    losses, (dinputs, indices, dweights, dbiases, num_rows) = result
    of_biases: Any = None if dbiases is None else PaddedRowGrad(indices, dbiases, num_rows)
    of_weights: Any = PaddedRowGrad(indices, dweights, num_rows)
    return SampledLoss(losses, dinputs, of_weights, of_biases)


def _checked(
    weights: Any, biases: Any, labels: Any, inputs: Any, candidates: Any, *, with_biases: bool, with_counts: bool
) -> _Checked:
    if not isinstance(candidates, Candidates):
        raise TypeError(
            f"candidates is {checks.describe(candidates)}; expected the Candidates that log_uniform_candidates or "
            "unigram_candidates returned"
        )
    checks.same_device(
        "weights biases labels inputs candidates.sampled", weights, biases, labels, inputs, candidates.sampled
    )
    weights = checks.float_array("weights", weights, 2)
    V, E = weights.shape
    if V == 0 or E == 0:
        raise ValueError(f"weights has shape {weights.shape} = (V, E): both must be at least 1")
    if with_biases:
        biases = checks.float_array("biases", biases, 1, weights.dtype, "weights")
        checks.expect_shape("biases", biases, (V,), "= (V,) for weights (V, E)")
    checks.require_array("labels", labels)
    if labels.ndim == 1:
        B, num_true = labels.shape[0], 1
    else:
        if labels.ndim != 2 or labels.shape[1] == 0:
            raise ValueError(
                f"labels has shape {labels.shape}, expected (B,) or (B, num_true) with num_true at least 1"
            )
        B, num_true = labels.shape
    inputs = checks.float_array("inputs", inputs, 2, weights.dtype, "weights")
    if inputs.shape != (B, E):
        raise ValueError(
            f"inputs has shape {inputs.shape}, expected {(B, E)} = (B, E) for labels with B = {B} and weights (V, E)"
        )
    labels = checks.int_ids("labels", labels, V, "weights has V = {} rows")
    sampled = checks.int_ids("candidates.sampled", candidates.sampled, V, "weights has V = {} rows")
    true_count = sampled_count = None
    if with_counts:
        names = "weights candidates.true_expected_count candidates.sampled_expected_count"
        checks.same_device(names, weights, candidates.true_expected_count, candidates.sampled_expected_count)
        true_count = _expected_count("candidates.true_expected_count", candidates.true_expected_count, B * num_true)
        true_count = true_count.reshape(B, num_true)
        sampled_count = _expected_count(
            "candidates.sampled_expected_count", candidates.sampled_expected_count, len(sampled)
        )
    labels, sampled = labels.astype(_INT64, copy=False), sampled.astype(_INT64, copy=False)
    return _Checked(weights, biases, labels.reshape(B, num_true), inputs, sampled, true_count, sampled_count)


def _expected_count(name: str, counts: Any, size: int) -> FloatArray:
    """Expected counts as (size,) float64."""
    checks.require_array(name, counts)
    if counts.size != size:
        raise ValueError(
            f"{name} has shape {counts.shape}, expected {size} numbers; draw candidates for these labels: "
            "log_uniform_candidates(num_sampled, range_max, labels, rng=rng)"
        )
    flat = checks.float_array(name, counts, counts.ndim).reshape(-1).astype(_FLOAT64, copy=False)
    # On a GPU nobody looks at values, which would wait for the device: the logarithm of 0 gives infinite logits there.
    if size and isinstance(flat, np.ndarray) and not checks.smallest(flat) > 0:
        raise ValueError(
            f"{name} holds {checks.smallest(flat)}, whose logarithm is subtracted; expected positive numbers: "
            "every class must be one that the sampler can draw"
        )
    return flat


def _stays_on_device(name: str, number: Any, array: Array) -> bool:
    """Whether a whole number is a 0-d array beside an array on a GPU, where it is not read."""
    if not is_device_array(number):
        return False
    if number.ndim != 0 or number.dtype != _INT64:
        raise TypeError(f"{name} is {checks.describe(number)}, expected a whole number")
    checks.same_device(f"classes {name}", array, number)
    return True


def _shaped(candidates: Candidates, true_classes: IntArray) -> Candidates:
    """Candidates whose true_expected_count has the shape of the true classes; it comes flat."""
    if true_classes.ndim == 1:
        return candidates
    return candidates._replace(true_expected_count=candidates.true_expected_count.reshape(true_classes.shape))


def _read_only(array: _Table) -> _Table:
    """A view that cannot be made writeable again."""
    memory: Any = memoryview(cast(Any, array))
    view: _Table = np.asarray(memory.toreadonly())
    return view


def _seed(rng: Any) -> Any:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng is {checks.describe(rng)}; expected a numpy Generator such as numpy.random.default_rng(0)"
        )
    return draw_seed(rng)


def _enough_classes(num_sampled: int, classes: int, what: str) -> None:
    if num_sampled > classes:
        raise ValueError(
            f"num_sampled is {num_sampled}, but {what} is {classes}: there are not that many different classes; "
            "use unique=False or a smaller num_sampled"
        )


def _ends_in_time(num_sampled: int, mass_left: float) -> None:
    """Refuse a sample whose last class has, at worst, the probability mass_left in each draw."""
    if mass_left * _MAX_EXPECTED_TRIES < 1:
        raise ValueError(
            f"num_sampled is {num_sampled}, but the last of so many different classes turns up in a fraction "
            f"{mass_left:.0e} of the draws; use unique=False or a smaller num_sampled"
        )
