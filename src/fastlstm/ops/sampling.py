"""Losses over a sample of the vocabulary: sampled logits, NCE, sampled softmax, negative sampling.

Semantics are TensorFlow's: ``tf.nn.nce_loss`` and ``tf.nn.sampled_softmax_loss``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from fastlstm.arrays import array_module
from fastlstm.backends import device_family, family_for
from fastlstm.contract import (
    Candidates,
    FloatArray,
    IntArray,
    PaddedSampledLoss,
    SampledLogits,
    SampledLogitsGrads,
    SampledLoss,
    SampledLossKind,
    SamplingFamily,
    Tape,
)
from fastlstm.ops import checks
from fastlstm.ops.current_device import on_arrays_device

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


@on_arrays_device
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
    assert args.biases is not None
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


@on_arrays_device
def sampled_logits_backward(dlogits: FloatArray, tape: Tape[SamplingFamily] | None) -> SampledLogitsGrads:
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
    checks.same_device_as_tape(tape, {"dlogits": dlogits})
    dlogits = checks.float_array("dlogits", dlogits, 2, tape.dtype, "the tape")
    expected = (tape.sizes["B"], tape.sizes["num_true"] + tape.sizes["S"])
    checks.expect_shape("dlogits", dlogits, expected, "= (B, num_true + S) of the forward call")
    return tape.family.sampled_logits_backward(tape.saved, dlogits=dlogits)


@overload
def nce_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: Literal[False] = False,
) -> SampledLoss: ...
@overload
def nce_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: Literal[True],
) -> PaddedSampledLoss: ...
@overload
def nce_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: bool,
) -> SampledLoss | PaddedSampledLoss: ...
@on_arrays_device
def nce_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = False,
    padded: bool = False,
) -> SampledLoss | PaddedSampledLoss:
    """Noise-contrastive estimation: sigmoid cross entropy of the true and the sampled classes, summed over the classes.

    Parameters
    ----------
    weights, biases, labels, inputs, candidates, remove_accidental_hits
        As in `sampled_logits_forward`; the logarithms of the expected counts are subtracted.
    padded : bool
        For arrays on a GPU: gradients by rows as PaddedRowGrad, for whose number of rows nothing synchronises.

    Returns
    -------
    SampledLoss, or PaddedSampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights and dbiases as RowGrad.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `sampled_logits_forward`; or padded is given for arrays on the host.

    References
    ----------
    Gutmann, Hyvärinen (2010), "Noise-contrastive estimation"; tf.nn.nce_loss.
    """
    args = _checked(weights, biases, labels, inputs, candidates, with_biases=True, with_counts=True)
    return _loss("sigmoid", args, remove_accidental_hits, padded)


@overload
def sampled_softmax_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: Literal[False] = False,
) -> SampledLoss: ...
@overload
def sampled_softmax_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: Literal[True],
) -> PaddedSampledLoss: ...
@overload
def sampled_softmax_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = ...,
    padded: bool,
) -> SampledLoss | PaddedSampledLoss: ...
@on_arrays_device
def sampled_softmax_loss(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates,
    *,
    remove_accidental_hits: bool = True,
    padded: bool = False,
) -> SampledLoss | PaddedSampledLoss:
    """Cross entropy of a softmax over the true and the sampled classes only.

    Parameters
    ----------
    weights, biases, labels, inputs, candidates, remove_accidental_hits
        As in `sampled_logits_forward`; the logarithms of the expected counts are subtracted.
    padded : bool
        For arrays on a GPU: gradients by rows as PaddedRowGrad, for whose number of rows nothing synchronises.

    Returns
    -------
    SampledLoss, or PaddedSampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights and dbiases as RowGrad.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `sampled_logits_forward`; or padded is given for arrays on the host.

    References
    ----------
    Jean et al. (2015), "On using very large target vocabulary"; tf.nn.sampled_softmax_loss.
    """
    args = _checked(weights, biases, labels, inputs, candidates, with_biases=True, with_counts=True)
    return _loss("softmax", args, remove_accidental_hits, padded)


@overload
def negative_sampling_loss(
    weights: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates | IntArray,
    *,
    padded: Literal[False] = False,
) -> SampledLoss: ...
@overload
def negative_sampling_loss(
    weights: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates | IntArray,
    *,
    padded: Literal[True],
) -> PaddedSampledLoss: ...
@overload
def negative_sampling_loss(
    weights: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates | IntArray,
    *,
    padded: bool,
) -> SampledLoss | PaddedSampledLoss: ...
@on_arrays_device
def negative_sampling_loss(
    weights: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    candidates: Candidates | IntArray,
    *,
    padded: bool = False,
) -> SampledLoss | PaddedSampledLoss:
    """word2vec's objective: sigmoid cross entropy summed over the classes, no biases, no expected counts.

    Parameters
    ----------
    weights, labels, inputs
        As in `sampled_logits_forward`.
    candidates : Candidates, or int32 or int64 array (S,) or (B, S)
        S sampled classes: of Candidates, of which only ``sampled`` is read, or (S,) the batch shares them, which makes
        their logits a product of matrices; of (B, S) each row has its own. A sampled class counts as often as it
        occurs, and as sampled even if it is a true one of its row.
    padded : bool
        As for `nce_loss`.

    Returns
    -------
    SampledLoss, or PaddedSampledLoss
        loss (B,), and the gradients of loss.mean(): dinputs (B, E), dweights as RowGrad; dbiases is None.

    Raises
    ------
    IndexError, TypeError, ValueError
        As `nce_loss`.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases", equation 4.
    """
    args = _checked(weights, None, labels, inputs, candidates, with_biases=False, with_counts=False)
    if args.sampled.ndim == 2:
        columns = array_module(args.labels).concatenate([args.labels, args.sampled], axis=1)
        args = args._replace(labels=columns, sampled=args.sampled.reshape(-1)[:0])
    return _loss("sigmoid", args, False, padded)


class _Checked(NamedTuple):
    """Checked arguments of the logits and losses, in the order the backends take them."""

    weights: FloatArray
    biases: FloatArray | None
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray
    true_expected_count: FloatArray | None
    sampled_expected_count: FloatArray | None
    num_true: int


def _loss(
    kind: SampledLossKind, args: _Checked, remove_accidental_hits: bool, padded: bool
) -> SampledLoss | PaddedSampledLoss:
    compute: Callable[..., SampledLoss | PaddedSampledLoss]
    if checks.rows_are_padded(padded, "weights", args.weights):
        compute = device_family("sampling").padded_sampled_loss
    else:
        compute = family_for(args.weights, "sampling").sampled_loss
    return compute(
        *args[:5],
        true_expected_count=args.true_expected_count,
        sampled_expected_count=args.sampled_expected_count,
        remove_accidental_hits=bool(remove_accidental_hits),
        num_true=args.num_true,
        loss=kind,
    )


def _checked(
    weights: Any, biases: Any, labels: Any, inputs: Any, candidates: Any, *, with_biases: bool, with_counts: bool
) -> _Checked:
    name, ids = "candidates", candidates
    if isinstance(candidates, Candidates):
        name, ids = "candidates.sampled", candidates.sampled
    elif with_counts or with_biases or not checks.is_array(candidates):
        or_ids = "" if with_counts or with_biases else ", or an array of ids (S,) or (B, S)"
        raise TypeError(
            f"candidates is {checks.describe(candidates)}; expected the Candidates that log_uniform_candidates or "
            f"unigram_candidates returned{or_ids}"
        )
    checks.same_device(f"weights biases labels inputs {name}", weights, biases, labels, inputs, ids)
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
    sampled = checks.int_ids(name, ids, V, "weights has V = {} rows")
    if ids is candidates and ids.ndim != 1:
        if ids.ndim != 2 or len(ids) != B:
            raise ValueError(f"candidates has shape {ids.shape}, expected (S,) or (B, S) with B = {B} as labels")
        sampled = sampled.reshape(ids.shape)
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
    return _Checked(weights, biases, labels.reshape(B, num_true), inputs, sampled, true_count, sampled_count, num_true)


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
