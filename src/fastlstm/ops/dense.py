"""Products of matrices: with the weights of dense layers, and of many pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.backends import family_for
from fastlstm.contract import DenseFamily, FloatArray, Precision, PreparedWeights
from fastlstm.ops import checks, prepared
from fastlstm.ops.current_device import on_arrays_device


@on_arrays_device
def matrix_product(
    a: FloatArray,
    b: FloatArray | PreparedWeights[DenseFamily],
    *,
    bias: FloatArray | None = None,
    out: FloatArray | None = None,
    precision: Precision | None = None,
) -> FloatArray:
    """a @ b + bias, on the threads of the kernels: numpy's own threads would take the cores away from them.

    Parameters
    ----------
    a : (M, K) float32 or float64
    b : (K, L) of the same dtype
        Either may be the transpose of a C-contiguous array: it is not copied. `prepare_dense` makes what stands for b
        and bias in many calls.
    bias : (L,), optional
    out : (M, L), optional
        Overwritten and returned; C-contiguous, and not a part of the others.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Not given, the product is exact in the arrays' dtype. "bf16", for float32 arrays: the factors are rounded to
        bfloat16, sums and results are float32. "tf32" is for arrays on a GPU, and there "bf16" is the same.

    Returns
    -------
    (M, L)

    Raises
    ------
    TypeError, ValueError
        A dtype, a shape or the precision does not fit, or out is read-only or overlaps another array. Nothing is
        changed then.
    """
    if isinstance(b, PreparedWeights):
        return _prepared_product(a, b, bias, out, precision)
    checks.same_device("a b bias out", a, b, bias, out)
    a = checks.matrix_or_transpose("a", a)
    b = checks.matrix_or_transpose("b", b, a.dtype, "a")
    (M, K), L = a.shape, b.shape[1]
    if b.shape[0] != K:
        raise ValueError(f"b has shape {b.shape}, expected ({K}, L) for a with shape {a.shape}")
    if bias is not None:
        bias = checks.float_array("bias", bias, 1, a.dtype, "a")
        if bias.shape != (L,):
            checks.expect_shape("bias", bias, (L,), f"for b with shape {b.shape}")
    if out is not None:
        out = checks.changed_array("out", out, a.dtype, "a")
        checks.expect_shape("out", out, (M, L), f"for a and b with shapes {a.shape} and {b.shape}")
        checks.expect_apart("out", out, "a b bias", a, b, bias)
    precision = checks.precision_of(a, precision)
    return family_for(a, "dense").matrix_product(a, b, bias=bias, out=out, precision=precision)


def _prepared_product(
    a: FloatArray, weights: PreparedWeights[DenseFamily], bias: Any, out: FloatArray | None, precision: Any
) -> FloatArray:
    checks.same_device("a out", a, out)
    a = checks.float_array("a", a, 2)
    prepared.check("dense", weights, "b", "a", a, a.shape[1], precision, ("bias", bias))
    if out is not None:
        out = checks.changed_array("out", out, a.dtype, "a")
        checks.expect_shape("out", out, (len(a), weights.H), f"for a with shape {a.shape} and {weights}")
        checks.expect_apart("out", out, "a", a)
    b, bias = weights.arguments
    return weights.family.matrix_product(a, b, bias=bias, out=out, precision=weights.precision)


@on_arrays_device
def prepare_dense(
    W: FloatArray, b: FloatArray | None = None, *, precision: Precision | None = None
) -> PreparedWeights[DenseFamily]:
    """A snapshot of a dense layer's weights as the kernels read them, for many calls of `matrix_product`.

    A product of one row, or a few, takes as long as its weights take to be read: here they lie in the order in which
    they are read, and with precision="bf16" in two bytes each.

    Parameters
    ----------
    W : (K, L) float32 or float64
        May be the transpose of a C-contiguous array, such as an embedding's.
    b : (L,), optional
        The bias. Later changes of W and b do not change the snapshot.
    precision : "float32", "float64", "tf32" or "bf16", optional
        As for `matrix_product`.

    Returns
    -------
    PreparedWeights
        Stands in place of b and bias: ``matrix_product(a, prepared)``, in any number of threads at once.

    Raises
    ------
    TypeError
        Something is no array, or of another dtype than W.
    ValueError
        A shape or the precision does not fit.
    """
    checks.same_device("W b", W, b)
    W = checks.matrix_or_transpose("W", W)
    if b is not None:
        b = checks.float_array("b", b, 1, W.dtype, "W")
        checks.expect_shape("b", b, (W.shape[1],), f"for W with shape {W.shape}")
    precision = checks.precision_of(W, precision)
    family = family_for(W, "dense")
    arguments = family.prepare_dense(W, b, precision=precision)
    K, L = W.shape
    return PreparedWeights("dense", family, K, L, W.dtype, arguments, checks.gpu_of("W", W), None, precision)


@on_arrays_device
def batched_product(a: FloatArray, b: FloatArray, *, precision: Precision | None = None) -> FloatArray:
    """a[n] @ b[n] for every n.

    Parameters
    ----------
    a : (N, M, K) float32 or float64
    b : (N, K, L) of the same dtype
        Either may be ``swapaxes(1, 2)`` of a C-contiguous array: it is not copied.
    precision : "float32", "float64", "tf32" or "bf16", optional
        Not given, the product is exact in the arrays' dtype. "bf16", for float32 arrays: the factors are rounded to
        bfloat16, sums and results are float32. "tf32" is for arrays on a GPU, and there "bf16" is the same.

    Returns
    -------
    (N, M, L)

    Raises
    ------
    TypeError, ValueError
        A dtype, a shape or the precision does not fit.
    """
    checks.same_device("a b", a, b)
    a = _matrices("a", a)
    b = _matrices("b", b, a.dtype, "a")
    N, _, K = a.shape
    if b.shape[:2] != (N, K):
        raise ValueError(f"b has shape {b.shape}, expected ({N}, {K}, L) for a with shape {a.shape}")
    return family_for(a, "dense").batched_product(a, b, precision=checks.precision_of(a, precision))


def _matrices(name: str, value: Any, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """A float array with three axes that is C-contiguous, or was before its last two were swapped."""
    if checks.is_array(value) and value.ndim == 3 and not value.flags.c_contiguous:
        swapped = value.swapaxes(1, 2)
        if swapped.flags.c_contiguous:
            return checks.float_array(name, swapped, 3, dtype, of).swapaxes(1, 2)
    return checks.float_array(name, value, 3, dtype, of)
