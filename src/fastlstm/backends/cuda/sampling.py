"""Sampled classes: csrc/cuda/sampling, the draws in candidates.cu, logits and losses in sampling.cu.

A sample and its expected counts are two launches, a loss with its gradients six. One thing synchronises: how many
rows the gradients have is known on the device only, so a call that returns a `RowGrad` ends with reading that number,
after all its work has been launched. `padded_sampled_loss` is the same without synchronising.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import cupy
import numpy as np

import fastlstm._cuda as _cuda
from fastlstm.backends import get_backend, load_family
from fastlstm.backends.cuda.calls import address, call_on, device_of, seed_arguments
from fastlstm.contract import (
    Candidates,
    FloatArray,
    IntArray,
    PaddedRowGrad,
    PaddedSampledLoss,
    RowGrad,
    SampledLogitsGrads,
    SampledLoss,
    SampledLossKind,
)


def _addresses(arrays: NamedTuple) -> dict[str, int]:
    """Returns where the arrays of a record begin, by their names."""
    return {name: address(array) for name, array in arrays._asdict().items()}


# --------------------------------------------------------------------------------------------
# Candidates
# --------------------------------------------------------------------------------------------


def _new_candidates(num_sampled: int, true_classes: IntArray) -> Candidates:
    return Candidates(
        cupy.empty(num_sampled, np.int64),
        cupy.empty(len(true_classes), np.float64),
        cupy.empty(num_sampled, np.float64),
        cupy.empty((), np.int64),
    )


def _sample_workspace(num_sampled: int, unique: bool) -> Any:
    bytes_ = _cuda.sample_workspace_bytes(num_sampled=num_sampled, unique=unique)
    return cupy.empty(bytes_, np.uint8) if bytes_ else None


def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, *, unique: bool, log_range: float, seed: Any
) -> Candidates:
    with device_of(true_classes):
        candidates = _new_candidates(num_sampled, true_classes)
        workspace = _sample_workspace(num_sampled, unique)
        _cuda.log_uniform_candidates(
            num_sampled=num_sampled,
            range_max=range_max,
            true_classes=address(true_classes),
            M=len(true_classes),
            unique=unique,
            log_range=log_range,
            **seed_arguments(seed),
            **_addresses(candidates),
            workspace=address(workspace),
            **call_on(true_classes),
        )
        return candidates


def log_uniform_expected_count(classes: IntArray, *, log_range: float, num_tries: Any, num_sampled: int) -> FloatArray:
    """num_tries is a number, or the 0-d array of a sample."""
    on_device = isinstance(num_tries, cupy.ndarray)
    with device_of(classes):
        counts: FloatArray = cupy.empty(len(classes), np.float64)
        _cuda.log_uniform_expected_count(
            classes=address(classes),
            M=len(classes),
            log_range=log_range,
            num_tries=address(num_tries) if on_device else 0,
            known_tries=0 if on_device else num_tries,
            num_sampled=num_sampled,
            counts=address(counts),
            **call_on(classes),
        )
        return counts


def alias_table(scaled: FloatArray) -> tuple[FloatArray, IntArray]:
    """Synchronises: every step needs the one before, so the host makes the table, once before training."""
    threshold, alias = load_family(get_backend(), "sampling").alias_table(cupy.asnumpy(scaled))
    with device_of(scaled):
        return cupy.asarray(threshold), cupy.asarray(alias)


def unigram_candidates(
    probabilities: FloatArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    true_classes: IntArray,
    *,
    unique: bool,
    seed: Any,
) -> Candidates:
    with device_of(true_classes):
        candidates = _new_candidates(num_sampled, true_classes)
        workspace = _sample_workspace(num_sampled, unique)
        _cuda.unigram_candidates(
            probabilities=address(probabilities),
            threshold=address(threshold),
            alias=address(alias),
            V=len(threshold),
            num_sampled=num_sampled,
            true_classes=address(true_classes),
            M=len(true_classes),
            unique=unique,
            **seed_arguments(seed),
            **_addresses(candidates),
            workspace=address(workspace),
            **call_on(true_classes),
        )
        return candidates


# --------------------------------------------------------------------------------------------
# Logits and losses
# --------------------------------------------------------------------------------------------


class _Saved(NamedTuple):
    """The arrays of the forward call, not copied: backward wants the weights as they were."""

    weights: FloatArray
    labels: IntArray
    inputs: FloatArray
    sampled: IntArray


class _Gradients(NamedTuple):
    """The gradients as the kernels leave them: only the device knows how many rows there are.

    dinputs : (B, E). indices : (M,), dweights : (M, E), dbiases : (M,) or None, of the M = B K + S true and sampled
    classes: as in `RowGrad` in their first ``num_rows`` rows, undefined beyond. num_rows : (1,) int32.
    """

    dinputs: FloatArray
    indices: IntArray
    dweights: FloatArray
    dbiases: Any
    num_rows: IntArray

    def padded_rows(self) -> tuple[PaddedRowGrad, PaddedRowGrad | None]:
        """Returns dweights and dbiases."""
        return (
            PaddedRowGrad(self.indices, self.dweights, self.num_rows),
            None if self.dbiases is None else PaddedRowGrad(self.indices, self.dbiases, self.num_rows),
        )


def _count(grad: PaddedRowGrad) -> int:
    """Returns how many rows it has. Synchronises."""
    return int(cupy.asnumpy(grad.num_rows)[0])


def _first(grad: PaddedRowGrad, U: int) -> RowGrad:
    return RowGrad(grad.indices[:U], grad.values[:U])


def _new_gradients(saved: _Saved, *, with_biases: bool) -> _Gradients:
    B, E = saved.inputs.shape
    M, dtype = saved.labels.size + len(saved.sampled), saved.inputs.dtype
    return _Gradients(
        cupy.empty((B, E), dtype),
        cupy.empty(M, np.int64),
        cupy.empty((M, E), dtype),
        cupy.empty(M, dtype) if with_biases else None,
        (cupy.empty if M else cupy.zeros)(1, np.int32),  # without classes no kernel counts them
    )


def _sizes(saved: _Saved) -> dict[str, int]:
    B, K = saved.labels.shape
    return {"float_bytes": saved.inputs.itemsize, "B": B, "K": K, "S": len(saved.sampled), "E": saved.inputs.shape[1]}


def sampled_logits_forward(
    weights: FloatArray,
    biases: FloatArray,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    *,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
) -> tuple[FloatArray, FloatArray, _Saved]:
    saved = _Saved(weights, labels, inputs, sampled)
    sizes = _sizes(saved)
    with device_of(inputs):
        logits, is_true = (cupy.empty((sizes["B"], sizes["K"] + sizes["S"]), inputs.dtype) for _ in range(2))
        _cuda.sampled_logits_forward(
            **sizes,
            **_addresses(saved),
            biases=address(biases),
            true_expected_count=address(true_expected_count),
            sampled_expected_count=address(sampled_expected_count),
            remove_accidental_hits=remove_accidental_hits,
            logits=address(logits),
            is_true=address(is_true),
            **call_on(inputs),
        )
        return logits, is_true, saved


def sampled_logits_backward(saved: _Saved, *, dlogits: FloatArray) -> SampledLogitsGrads:
    sizes = _sizes(saved)
    with device_of(dlogits):
        gradients = _new_gradients(saved, with_biases=True)
        workspace = cupy.empty(_cuda.sampled_workspace_bytes(**sizes, with_logits=False), np.uint8)
        _cuda.sampled_logits_backward(
            **sizes,
            **_addresses(saved),
            **_addresses(gradients),
            dlogits=address(dlogits),
            workspace=address(workspace),
            **call_on(dlogits),
        )
        dweights, dbiases = gradients.padded_rows()
        assert dbiases is not None
        U = _count(dweights)
        return SampledLogitsGrads(gradients.dinputs, _first(dweights, U), _first(dbiases, U))


def padded_sampled_loss(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    *,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
    num_true: int,
    loss: SampledLossKind,
) -> PaddedSampledLoss:
    saved = _Saved(weights, labels, inputs, sampled)
    sizes = _sizes(saved)
    with device_of(inputs):
        losses: FloatArray = cupy.empty(len(inputs), inputs.dtype)
        gradients = _new_gradients(saved, with_biases=biases is not None)
        workspace = cupy.empty(_cuda.sampled_workspace_bytes(**sizes, with_logits=True), np.uint8)
        _cuda.sampled_loss(
            **sizes,
            **_addresses(saved),
            **_addresses(gradients),
            biases=address(biases),
            true_expected_count=address(true_expected_count),
            sampled_expected_count=address(sampled_expected_count),
            remove_accidental_hits=remove_accidental_hits,
            num_true=num_true,
            softmax=loss == "softmax",
            losses=address(losses),
            workspace=address(workspace),
            **call_on(inputs),
        )
        return PaddedSampledLoss(losses, gradients.dinputs, *gradients.padded_rows())


_Arguments = ParamSpec("_Arguments")


def _synchronising(padded: Callable[_Arguments, PaddedSampledLoss]) -> Callable[_Arguments, SampledLoss]:
    """Makes the function that waits for the number of classes that take part, of the one that does not."""

    @functools.wraps(padded)
    def compute(*args: _Arguments.args, **options: _Arguments.kwargs) -> SampledLoss:
        losses, dinputs, dweights, dbiases = padded(*args, **options)
        with device_of(losses):
            U = _count(dweights)
            return SampledLoss(losses, dinputs, _first(dweights, U), None if dbiases is None else _first(dbiases, U))

    return compute


sampled_loss = _synchronising(padded_sampled_loss)
