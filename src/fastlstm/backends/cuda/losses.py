"""Cross entropy: csrc/cuda/losses, around products of cuBLAS. The loss stays on the device, as a 0-d array.

Softmax, sigmoid and squared error are CuPy's elementwise kernels: a few numbers a row, where a step has products.

linear_cross_entropy takes the rows in blocks: the logits of a block, their softmax, loss and gradient in their place,
and from that gradient dh of the block and its share of dW and db. "fast" is one block of all rows; "low" holds
LOW_MEMORY_BYTES of logits at a time. Nothing is computed twice.
"""

from __future__ import annotations

from typing import Any, Literal

import cupy

import fastlstm._cuda as _cuda
from fastlstm.backends.cuda.calls import address, call_on, device_of
from fastlstm.backends.cuda.products import add_transposed_product, product, products_in
from fastlstm.backends.results import new_arrays, put_all
from fastlstm.contract import Destination, FloatArray, IntArray, LinearLossGrads, LossGrad, Precision, SquaredErrorGrad

# With memory="low", logits of so many bytes are held at a time; of so many rows at least, because every block reads and
# writes dW once, and narrower products do not keep a GPU busy.
LOW_MEMORY_BYTES = 4 << 20
LOW_MEMORY_ROWS = 64


def softmax_cross_entropy(
    logits: FloatArray, targets: IntArray, *, ignore_index: int, normalizer: float | None
) -> LossGrad:
    with device_of(logits):
        mean = _Mean(targets, ignore_index, normalizer, logits)
        dlogits = cupy.empty(logits.shape, logits.dtype)
        mean.softmax(slice(0, len(targets)), logits, None, dlogits)
        return LossGrad(mean.loss(), dlogits)


def linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray | None,
    targets: IntArray,
    *,
    ignore_index: int,
    memory: Literal["fast", "low"],
    precision: Precision,
    normalizer: float | None,
    into: Destination,
) -> LinearLossGrads:
    M, H = h.shape
    V = W.shape[1]
    with device_of(h), products_in(precision):
        mean = _Mean(targets, ignore_index, normalizer, h)
        # What is added to must not take part in the sums over blocks, whose bits would be others.
        sums_into = new_arrays(LinearLossGrads._fields)._replace(without=into.without) if into.accumulate else into
        turned = not W.flags.c_contiguous
        dh = _result("dh", into, (M, H), h)
        dW = _result("dW", sums_into, (V, H) if turned else (H, V), h, turned=turned)
        db = _result("db", sums_into, (V,), h)
        for sums in (dW, db):
            if M == 0 and sums is not None:
                sums.fill(0)
        rows = M if memory == "fast" else min(M, max(LOW_MEMORY_ROWS, LOW_MEMORY_BYTES // (V * h.itemsize)))
        logits = cupy.empty((rows, V), h.dtype)
        for start in range(0, M, max(rows, 1)):
            block = slice(start, min(start + rows, M))
            # A row that is not valid may hold anything, NaN too, and 0 NaN would be NaN in dW.
            valid = mean.valid_rows(block, h[block])
            z = product(valid, W, out=logits[: len(valid)])
            mean.softmax(block, z, b, z)
            if dh is not None:
                product(z, W.T, out=dh[block])
                mean.valid_rows(block, dh[block], in_place=True)  # nor may 0 NaN of a W with NaN
            if dW is not None:
                add_transposed_product(valid, z, dW, first=start == 0)
            if db is not None:
                _sum_columns(z, db, accumulate=start > 0)
        grads = {"dW": dW, "db": db}
        return LinearLossGrads(mean.loss(), dh, **(put_all(into, **grads) if into.accumulate else grads))


def _result(name: str, into: Destination, shape: tuple[int, ...], like: FloatArray, *, turned: bool = False) -> Any:
    """The array given, or a new one, or none where the result is not wanted."""
    if name in into.without:
        return None
    given = into.arrays[name]
    if given is not None:
        return given
    made: FloatArray = cupy.empty(shape, like.dtype)
    return made.T if turned else made


def softmax(logits: FloatArray, *, temperature: float, out: FloatArray | None) -> FloatArray:
    with device_of(logits):
        p: FloatArray = cupy.empty(logits.shape, logits.dtype) if out is None else out
        p[...] = logits - logits.max(axis=1, keepdims=True)
        if temperature != 1:
            p /= p.dtype.type(temperature)
        cupy.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        return p


def sigmoid_cross_entropy(logits: FloatArray, labels: FloatArray, *, normalizer: float) -> LossGrad:
    with device_of(logits):
        e = cupy.exp(-cupy.abs(logits))
        sigmoid = cupy.where(logits >= 0, logits.dtype.type(1), e) / (1 + e)
        dlogits = (sigmoid - labels) / _typed(normalizer, logits)
        losses = (cupy.maximum(logits, 0) - logits * labels).astype("float64") + cupy.log1p(e)
        return LossGrad(losses.sum() / normalizer, dlogits)


def mean_squared_error(y: FloatArray, t: FloatArray, *, normalizer: float) -> SquaredErrorGrad:
    with device_of(y):
        difference = y - t
        loss: Any = cupy.square(difference, dtype="float64").sum() / normalizer
        return SquaredErrorGrad(loss, difference * _typed(2 / normalizer, y))


def _typed(number: Any, like: FloatArray) -> Any:
    """A number of the host's, or a 0-d array, in the dtype of an array."""
    return number.astype(like.dtype) if isinstance(number, cupy.ndarray) else like.dtype.type(number)


class _Mean:
    """A mean over the valid targets (M,): how many they are, or a normalizer, and their losses, on the device."""

    def __init__(self, targets: IntArray, ignore_index: int, normalizer: Any, like: FloatArray) -> None:
        self._targets = targets
        self._losses = cupy.empty(len(targets), "float64")
        self._common: dict[str, Any] = {"ignore_index": ignore_index, "id_bytes": targets.itemsize, **call_on(like)}
        counts, on_device, number = None, None, 0.0
        if normalizer is None:
            counts = cupy.empty(_cuda.TARGET_COUNTS, "int32")
            _cuda.count_targets(targets=address(targets), counts=address(counts), M=len(targets), **self._common)
        elif isinstance(normalizer, cupy.ndarray):
            on_device = normalizer.astype("float64", copy=False)
        else:
            number = normalizer
        self._kept = counts, on_device
        self._divisor: dict[str, Any] = {
            "counts": address(counts),
            "normalizer": number,
            "normalizer_at": address(on_device),
        }

    def softmax(self, block: slice, logits: FloatArray, bias: FloatArray | None, dlogits: FloatArray) -> None:
        """Computes the losses of the rows of a block, and dlogits (rows, V), which may be logits."""
        rows, V = logits.shape
        _cuda.softmax_loss(
            logits=address(logits),
            bias=address(bias),
            targets=address(self._targets[block]),
            dlogits=address(dlogits),
            losses=address(self._losses[block]),
            rows=rows,
            V=V,
            float_bytes=logits.itemsize,
            **self._divisor,
            **self._common,
        )

    def valid_rows(self, block: slice, rows: FloatArray, *, in_place: bool = False) -> FloatArray:
        """Returns rows (rows, E) of a block, zeros where the target is not valid."""
        M, E = rows.shape
        out: FloatArray = rows if in_place else cupy.empty((M, E), rows.dtype)
        _cuda.copy_valid_rows(
            rows=address(rows),
            targets=address(self._targets[block]),
            out=address(out),
            M=M,
            E=E,
            float_bytes=rows.itemsize,
            **self._common,
        )
        return out

    def loss(self) -> Any:
        """Returns the divided sum of the losses, a 0-d float64 array."""
        loss = cupy.empty((), "float64")
        M = len(self._targets)
        workspace = cupy.empty(_cuda.mean_loss_workspace(M=M), "uint8")
        _cuda.mean_loss(
            losses=address(self._losses),
            loss=address(loss),
            workspace=address(workspace),
            M=M,
            **self._divisor,
            device=self._common["device"],
            stream=self._common["stream"],
        )
        return loss


def _sum_columns(matrix: FloatArray, sums: FloatArray, *, accumulate: bool) -> None:
    """Computes sums (V,) = or += the sums over the rows of matrix (M, V)."""
    M, V = matrix.shape
    _cuda.sum_columns(
        matrix=address(matrix),
        sums=address(sums),
        M=M,
        V=V,
        accumulate=accumulate,
        float_bytes=matrix.itemsize,
        **call_on(matrix),
    )
