"""Losses over a vocabulary, with their gradients in the same call."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.backends import family_for
from fastlstm.contract import FloatArray, IntArray, LinearLossGrads, LossGrad, Precision
from fastlstm.ops import checks, scalars


def softmax_cross_entropy(logits: FloatArray, targets: IntArray, *, ignore_index: int = -1) -> LossGrad:
    """Mean of -log softmax(logits)[target] over the targets that count, and its gradient.

    Parameters
    ----------
    logits : (..., V) float32 or float64
    targets : (...) int32 or int64
        From 0 to V - 1, or ignore_index.
    ignore_index : int
        Rows with this target are not read, do not count and get a zero gradient.

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
        A dtype or a shape does not fit.
    """
    checks.same_device("logits targets", logits, targets)
    rows = _rows("logits", logits, "V")
    V = rows.shape[1]
    flat, ignore_index = _targets(targets, logits.shape, V, ignore_index)
    result = family_for(rows, "losses").softmax_cross_entropy(rows, flat, ignore_index=ignore_index)
    return result if logits.ndim == 2 else LossGrad(result.loss, result.dlogits.reshape(logits.shape))


def linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray,
    targets: IntArray,
    *,
    ignore_index: int = -1,
    memory: Literal["fast", "low"] = "fast",
    precision: Precision | None = None,
) -> LinearLossGrads:
    """Projection to the vocabulary, softmax, cross entropy and all their gradients in one call.

    The loss is that of ``softmax_cross_entropy(h @ W + b, targets)``.

    Parameters
    ----------
    h : (..., H) float32 or float64
        Hidden states; all other float arrays have their dtype.
    W : (H, V)
    b : (V,)
        Weights of the projection. W may be the transpose of a (V, H) array, such as a tied embedding: it is not copied.
    targets : (...) int32 or int64
        From 0 to V - 1, or ignore_index.
    ignore_index : int
        Rows of h with this target are not read, do not count and get a zero gradient.
    memory : "fast" or "low"
        "low" never holds more than a block of the logits; on the host it computes them twice.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Of the products, as for `fastlstm.ops.lstm_forward`; the last two are one here.

    Returns
    -------
    LinearLossGrads
        loss, a Python float, on a GPU a 0-d float64 array (0.0 if every target is ignored), and its gradients
        dh (..., H), dW (H, V), db (V,).

    Raises
    ------
    IndexError
        A target lies outside 0 to V - 1 and is not ignore_index.
    TypeError, ValueError
        A dtype, a shape or an option does not fit.
    """
    checks.same_device("h W b targets", h, W, b, targets)
    rows = _rows("h", h, "H")
    H = rows.shape[1]
    W = checks.matrix_or_transpose("W", W, rows.dtype, "h")
    b = checks.float_array("b", b, 1, rows.dtype, "h")
    V = b.shape[0]
    if V == 0:
        raise ValueError("b has shape (0,): V must be at least 1")
    if W.shape != (H, V):
        raise ValueError(
            f"W has shape {W.shape}, expected {(H, V)} = (H, V) for h with H = {H} and b with V = {V}. "
            "An embedding (V, E) or PyTorch's weight needs .T"
        )
    flat, ignore_index = _targets(targets, (*h.shape[:-1], V), V, ignore_index)
    checks.check_choice("memory", memory, ("fast", "low"))
    precision = checks.precision_of(rows, precision)
    grads = family_for(rows, "losses").linear_cross_entropy(
        rows, W, b, flat, ignore_index=ignore_index, memory=memory, precision=precision
    )
    return grads if h.ndim == 2 else grads._replace(dh=grads.dh.reshape(h.shape))


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
