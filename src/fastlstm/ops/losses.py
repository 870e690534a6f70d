"""Losses, with their gradients in the same call, and the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.backends import family_for
from fastlstm.contract import (
    BoolArray,
    FloatArray,
    IntArray,
    LinearLossGrads,
    LossGrad,
    Precision,
    Reduction,
    SquaredErrorGrad,
)
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.results import destination

_Loss = TypeVar("_Loss", LossGrad, SquaredErrorGrad)


@on_arrays_device
def softmax(logits: FloatArray, *, temperature: float = 1.0, out: FloatArray | None = None) -> FloatArray:
    """exp(logits / temperature), each row divided by its sum.

    Parameters
    ----------
    logits : (..., V) float32 or float64
    temperature : float above 0
        Below 1 the largest logits get more, above 1 less.
    out : (..., V), optional
        Overwritten and returned; C-contiguous. It may be logits, otherwise it does not overlap them.

    Returns
    -------
    (..., V) array
        A row of nothing but minus infinity is NaN.

    Raises
    ------
    TypeError, ValueError
        A dtype, a shape or an option does not fit, or out is read-only or overlaps logits in part. Nothing is changed
        then.
    """
    checks.same_device("logits out", logits, out)
    rows = _rows("logits", logits, "V")
    temperature = scalars.positive("temperature", temperature)
    into: FloatArray | None = None
    if out is not None:
        out = checks.changed_array("out", out, rows.dtype, "logits")
        checks.expect_shape("out", out, logits.shape, "= the shape of the logits")
        into = out.reshape(rows.shape)
        if checks.span(into) != checks.span(rows):
            checks.expect_apart("out", into, "logits", rows)
    p = family_for(rows, "losses").softmax(rows, temperature=temperature, out=into)
    if out is not None:
        return out
    return p if logits.ndim == 2 else p.reshape(logits.shape)


@on_arrays_device
def softmax_cross_entropy(
    logits: FloatArray,
    targets: IntArray,
    *,
    ignore_index: int = -1,
    reduction: Reduction = "mean",
    normalizer: float | FloatArray | None = None,
    weights: FloatArray | None = None,
) -> LossGrad:
    """Mean or sum of -log softmax(logits)[target] over the targets that count, and its gradient.

    Parameters
    ----------
    logits : (..., V) float32 or float64
    targets : (...) int32 or int64
        From 0 to V - 1, or ignore_index.
    ignore_index : int
        Rows with this target are not read, do not count and get a zero gradient.
    reduction : "mean" or "sum"
        "mean" divides the sum by the number of targets that count, "sum" by nothing.
    normalizer : float above 0, optional
        What the sum is divided by instead, such as the number of rows; not with reduction="sum". For logits on a GPU
        also a 0-d array there, which is not looked at.
    weights : (...) of the dtype of the logits, optional
        What each row's loss is multiplied by. They change nothing of what the sum is divided by, as Keras's
        ``sample_weight``; for the mean that their sum divides, give it as ``normalizer``.

    Returns
    -------
    LossGrad
        loss, a Python float, on a GPU a 0-d float64 array (0.0 if every target is ignored), and dlogits (..., V), its
        gradient.

    Raises
    ------
    IndexError
        A target lies outside 0 to V - 1 and is not ignore_index.
    TypeError, ValueError
        A dtype, a shape or an option does not fit.
    """
    checks.same_device("logits targets", logits, targets)
    rows = _rows("logits", logits, "V")
    V = rows.shape[1]
    flat, ignore_index = _targets(targets, logits.shape, V, ignore_index)
    divisor = _divisor("logits", rows, reduction, normalizer)
    family = family_for(rows, "losses")
    if weights is None:
        result = family.softmax_cross_entropy(rows, flat, ignore_index=ignore_index, normalizer=divisor)
    else:
        weights = _weights(weights, "logits", rows, logits.shape[:-1])
        xp, counts = array_module(rows), flat != ignore_index
        weights = xp.where(counts, weights, weights.dtype.type(0))
        if divisor is None:
            divisor = xp.maximum(counts.sum(), 1)
        sums = family.softmax_cross_entropy(rows, flat, ignore_index=ignore_index, normalizer=1.0)
        result = LossGrad(*_weighted(_softmax_losses(rows, flat, counts), sums.dlogits, weights, divisor))
    return result if logits.ndim == 2 else LossGrad(result.loss, result.dlogits.reshape(logits.shape))


@on_arrays_device
def linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray | None,
    targets: IntArray,
    *,
    ignore_index: int = -1,
    memory: Literal["fast", "low"] = "fast",
    precision: Precision | None = None,
    out: Any = None,
    accumulate: bool = False,
    without: Collection[str] = (),
    reduction: Reduction = "mean",
    normalizer: float | FloatArray | None = None,
) -> LinearLossGrads:
    """Projection to the vocabulary, softmax, cross entropy and all their gradients in one call.

    The loss is that of ``softmax_cross_entropy(h @ W + b, targets)``, without b that of h @ W.

    Parameters
    ----------
    h : (..., H) float32 or float64
        Hidden states; all other float arrays have their dtype.
    W : (H, V)
    b : (V,), or None
        Weights of the projection. W may be the transpose of a (V, H) array, such as a tied embedding or PyTorch's
        weight: it is not copied.
    targets : (...) int32 or int64
        From 0 to V - 1, or ignore_index.
    ignore_index : int
        Rows of h with this target are not read, do not count and get a zero gradient.
    memory : "fast" or "low"
        "low" never holds more than a block of the logits; on the host it computes them twice.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the three products, as for `fastlstm.ops.matrix_product`. Where the gradient of the logits is a factor, of dh
        and dW, it is rounded too; the loss and db are those of the logits as they are.
    out : LinearLossGrads, or any object with fields dh, dW, db, optional
        The gradients are written into these arrays, which are returned; for a field that is missing or None a new one
        is made. C-contiguous; dW may be the transpose of a C-contiguous (V, H). They overlap neither the inputs nor
        each other.
    accumulate : bool
        dW and db are added to what ``out`` holds: each element once, as the very number that the call without it
        returns.
    without : tuple of "loss", "dh", "dW", "db"
        What is not to be computed; its field is None.
    reduction, normalizer
        As for `softmax_cross_entropy`.

    Returns
    -------
    LinearLossGrads
        loss, a Python float, on a GPU a 0-d float64 array (0.0 if every target is ignored), and its gradients
        dh (..., H), dW (H, V), db (V,), which is None without b.

    Raises
    ------
    IndexError
        A target lies outside 0 to V - 1 and is not ignore_index.
    TypeError, ValueError
        A dtype, a shape or an option does not fit, or an array of out does not, is read-only or overlaps another.
        Nothing is changed then.
    """
    checks.same_device("h W b targets", h, W, b, targets)
    rows = _rows("h", h, "H")
    H = rows.shape[1]
    W = checks.matrix_or_transpose("W", W, rows.dtype, "h")
    V = W.shape[1]
    if b is not None:
        b = checks.float_array("b", b, 1, rows.dtype, "h")
        V = b.shape[0]
    if V == 0:
        name, array = ("W", W) if b is None else ("b", b)
        raise ValueError(f"{name} has shape {array.shape}: V must be at least 1")
    if W.shape != (H, V):
        raise ValueError(
            f"W has shape {W.shape}, expected {(H, V)} = (H, V) for h with H = {H}"
            f"{'' if b is None else f' and b with V = {V}'}. An embedding (V, E) or PyTorch's weight needs .T"
        )
    flat, ignore_index = _targets(targets, (*h.shape[:-1], V), V, ignore_index)
    checks.check_choice("memory", memory, ("fast", "low"))
    precision = checks.precision_of(rows, precision)
    divisor = _divisor("h", rows, reduction, normalizer)
    shapes = {"dh": h.shape, "dW": (H, V)} | ({} if b is None else {"db": (V,)})
    into = destination(
        LinearLossGrads._fields,
        shapes,
        rows,
        "h",
        {"h": rows, "W": W, "b": b, "targets": flat},
        out=out,
        accumulate=accumulate,
        without=without,
    )
    if b is None:
        into = into._replace(without=(*into.without, "db"))
    dh = into.arrays["dh"]
    if dh is not None:
        into = into._replace(arrays={**into.arrays, "dh": dh.reshape(rows.shape)})
    grads = family_for(rows, "losses").linear_cross_entropy(
        rows,
        W,
        b,
        flat,
        ignore_index=ignore_index,
        memory=memory,
        precision=precision,
        normalizer=divisor,
        into=into,
    )
    if dh is not None:
        grads = grads._replace(dh=dh)
    elif h.ndim != 2 and grads.dh is not None:
        grads = grads._replace(dh=grads.dh.reshape(h.shape))
    return grads._replace(loss=None) if "loss" in into.without else grads  # type: ignore[arg-type]


@on_arrays_device
def sigmoid_cross_entropy(
    logits: FloatArray,
    labels: FloatArray,
    *,
    normalizer: float | FloatArray | None = None,
    reduction: Reduction = "mean",
) -> LossGrad:
    """Mean or sum of the binary cross entropy of sigmoid(logits) with the labels, and its gradient.

    Parameters
    ----------
    logits : (...) float32 or float64
    labels : (...) of the same dtype
        0 or 1, or how probable 1 is.
    normalizer : float above 0, optional
        What the sum is divided by instead of the number of elements, such as the number of rows; not with
        reduction="sum". For logits on a GPU also a 0-d array there, which is not looked at.
    reduction : "mean" or "sum"
        "mean" divides the sum by the number of elements, "sum" by nothing.

    Returns
    -------
    LossGrad
        loss, a Python float, on a GPU a 0-d float64 array (0.0 without elements), and dlogits (...), its gradient.

    Raises
    ------
    TypeError, ValueError
        A dtype, a shape or an option does not fit.
    """
    checks.same_device("logits labels", logits, labels)
    checks.require_array("logits", logits)
    logits = checks.float_array("logits", logits, logits.ndim)
    checks.require_array("labels", labels)
    labels = checks.float_array("labels", labels, labels.ndim, logits.dtype, "logits")
    checks.expect_shape("labels", labels, logits.shape, "= the shape of the logits")
    divisor = _divisor("logits", logits, reduction, normalizer, max(logits.size, 1))
    return _of_any_shape(family_for(logits, "losses").sigmoid_cross_entropy, logits, labels, divisor)


@on_arrays_device
def mean_squared_error(
    y: FloatArray,
    t: FloatArray,
    *,
    reduction: Reduction = "mean",
    normalizer: float | FloatArray | None = None,
    weights: FloatArray | None = None,
) -> SquaredErrorGrad:
    """Mean or sum of (y - t)^2 over all elements, and its gradient.

    Parameters
    ----------
    y : (...) float32 or float64
        Outputs.
    t : (...) of the same dtype
        Targets.
    reduction : "mean" or "sum"
        "mean" divides the sum by the number of elements, "sum" by nothing.
    normalizer : float above 0, optional
        What the sum is divided by instead, such as twice the number of rows; not with reduction="sum". For y on a GPU
        also a 0-d array there, which is not looked at.
    weights : of the dtype of y and the shape of its leading axes, (N,) for y (N, K), optional
        What the squared errors of each row are multiplied by, as for `softmax_cross_entropy`.

    Returns
    -------
    SquaredErrorGrad
        loss, a Python float, on a GPU a 0-d float64 array (0.0 without elements), and dy (...), its gradient.

    Raises
    ------
    TypeError, ValueError
        A dtype, a shape or an option does not fit.
    """
    checks.same_device("y t", y, t)
    checks.require_array("y", y)
    y = checks.float_array("y", y, y.ndim)
    checks.require_array("t", t)
    t = checks.float_array("t", t, t.ndim, y.dtype, "y")
    checks.expect_shape("t", t, y.shape, "= the shape of the outputs")
    divisor = _divisor("y", y, reduction, normalizer, max(y.size, 1))
    family = family_for(y, "losses")
    if weights is None:
        return _of_any_shape(family.mean_squared_error, y, t, divisor)
    if not y.ndim:
        raise ValueError("y has no axes: a single number has no rows to weigh; leave weights out")
    weights = _weights(weights, "y", y, y.shape[:-1])
    dy = family.mean_squared_error(y, t, normalizer=1.0).dy.reshape(len(weights), y.shape[-1])
    errors = dy.astype(np.float64) / 2
    loss, dy = _weighted((errors * errors).sum(axis=1), dy, weights, divisor)
    return SquaredErrorGrad(loss, dy.reshape(y.shape))


def _weights(weights: Any, of: str, like: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Checked weights of rows, flattened."""
    checks.same_device(f"{of} weights", like, weights)
    checks.require_array("weights", weights)
    weights = checks.float_array("weights", weights, weights.ndim, like.dtype, of)
    checks.expect_shape("weights", weights, shape, f"= the leading axes of {of}, a weight a row")
    flat: FloatArray = weights.reshape(-1)
    return flat


def _softmax_losses(rows: FloatArray, targets: IntArray, counts: BoolArray) -> FloatArray:
    """logsumexp(logits) - logits[target] of every row, float64; 0 where none counts."""
    xp = array_module(rows)
    with np.errstate(all="ignore"):  # minus infinity is legal, and NaN comes of it as in the sum
        shifted = rows - rows.max(axis=1, keepdims=True)
        log_sums = xp.log(xp.exp(shifted).sum(axis=1, dtype=np.float64))
        of_targets = xp.take_along_axis(shifted, xp.where(counts, targets, 0)[:, None], axis=1)[:, 0]
        losses: FloatArray = xp.where(counts, log_sums - of_targets, 0.0)
    return losses


def _weighted(losses: FloatArray, grads: FloatArray, weights: FloatArray, divisor: Any) -> tuple[Any, FloatArray]:
    """The sum of weighted losses (M,), divided, and its gradient of those of each (M, ...), which it overwrites."""
    share = weights.astype(np.float64) / divisor
    grads *= share.astype(grads.dtype)[:, None]
    loss = (losses * share).sum()
    return loss if is_device_array(loss) else float(loss), grads


def _of_any_shape(loss: Callable[..., _Loss], outputs: FloatArray, targets: FloatArray, divisor: Any) -> _Loss:
    """A loss of all elements and its gradient, which without axes is an array too: numpy's arithmetic makes numbers."""
    if outputs.ndim:
        return loss(outputs, targets, normalizer=divisor)
    result = loss(outputs.reshape(1), targets.reshape(1), normalizer=divisor)
    return type(result)(result[0], result[1].reshape(()))


def _divisor(of: str, array: FloatArray, reduction: Any, normalizer: Any, count: int | None = None) -> Any:
    """What the sum of the losses is divided by; ``count`` in a mean, None where only a backend counts them."""
    checks.check_choice("reduction", reduction, ("mean", "sum"))
    if reduction == "sum":
        if normalizer is not None:
            raise ValueError('normalizer is given with reduction="sum", which divides by nothing; give one of them')
        return 1.0
    if normalizer is None:
        return count
    if is_device_array(normalizer):
        if normalizer.ndim != 0 or normalizer.dtype.kind not in "iuf":
            raise TypeError(f"normalizer is {checks.describe(normalizer)}, expected a number or a 0-d array of numbers")
        checks.same_device(f"{of} normalizer", array, normalizer)
        return normalizer
    return scalars.positive("normalizer", normalizer)


def _rows(name: str, array: Any, last: str) -> FloatArray:
    """array (..., last) flattened to two axes."""
    checks.require_array(name, array)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name} has shape {array.shape}, expected (..., {last}) with {last} at least 1")
    rows = checks.float_array(name, array, array.ndim)
    width = rows.shape[-1]
    return rows if rows.ndim == 2 else rows.reshape(rows.size // width, width)


def _targets(targets: Any, logits_shape: tuple[int, ...], V: int, ignore_index: Any) -> tuple[IntArray, int]:
    """targets flattened, each checked to be in [0, V) or ignore_index."""
    checks.require_array("targets", targets)
    ignore_index = scalars.integer("ignore_index", ignore_index, -math.inf, math.inf)
    if targets.shape != logits_shape[:-1]:
        hint = ""
        if targets.shape == logits_shape:
            hint = "One-hot targets are not taken; pass targets.argmax(-1), with ignore_index for rows of zeros"
        elif targets.shape == (*logits_shape[:-1], 1):
            hint = "A column of targets needs targets[..., 0]"
        checks.expect_shape("targets", targets, logits_shape[:-1], "= the leading axes of the logits", hint)
    checks.require_integers("targets", targets)
    flat = checks.in_order(targets).reshape(-1)
    ignored: int | None = ignore_index
    if not -(2**31) <= ignore_index < 2**31 and not _fits(ignore_index, flat):
        # No target is that, nor -1 then; a kernel would take the lower bits, which may be those of a class.
        ignored, ignore_index = None, -1
    if flat.size:
        bounds = checks.IdBounds("targets", V, "the logits have V = {} columns", ignored)
        if is_device_array(flat):
            return checks.device_ids(flat, bounds), ignore_index
        low, high = checks.smallest(flat), checks.largest(flat)
        # Below 0 there may be what is ignored. Which target is wrong is worked out only where one may be.
        if high >= V or (low < 0 and not low == -1 == ignored):
            outside = (flat < 0) | (flat >= V)
            wrong = flat[outside if ignored is None else outside & (flat != ignored)]
            if wrong.size:
                raise bounds.error(int(wrong[0]))
    return flat, ignore_index


def _fits(number: int, ids: IntArray) -> bool:
    """Whether the dtype of ids can hold the number."""
    limits = np.iinfo(ids.dtype)
    return int(limits.min) <= number <= int(limits.max)
