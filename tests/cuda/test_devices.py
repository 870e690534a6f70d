"""Where arrays of a GPU are made, and what is asked of them, with a stand-in for CuPy that has two GPUs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import cases
import definition_on_cupy
import numpy as np
import pytest

from fastlstm import ops, testing, use_backend
from fastlstm.arrays import is_device_array
from fastlstm.contract import PaddedRowGrad, RowGrad

THERE = 1  # the GPU of the arrays; the caller's current one is 0


@pytest.fixture(scope="module")
def cupy() -> Iterator[Any]:
    with definition_on_cupy.installed() as stand_in, use_backend("numpy"):
        yield stand_in


def awkward(cupy: Any, array: Any) -> Any:
    """The array on the other GPU, as the checks have to copy it: not contiguous, or of no bool that a kernel reads."""
    with cupy.cuda.Device(THERE):
        if array.dtype == np.bool_:
            return cupy.asarray(array.astype(np.int8))
        if array.ndim < 2:
            return cupy.asarray(array)
        return cupy.asarray(np.repeat(array, 2, axis=-1))[..., ::2]


def of_every_op() -> list[testing.Case]:
    """A case of each operator that changes nothing in place; of sequences those with a mask, with lengths too."""
    chosen: dict[Any, testing.Case] = {}
    of_host = {case.op for case in cases.SKIPGRAM}
    for case in cases.ALL:
        arrays = [value for value in case.inputs.values() if isinstance(value, np.ndarray)]
        if case.op not in (*of_host, *testing.CHANGED_IN_PLACE) and all(a.size for a in arrays):
            steps = [name for name in ("mask", "lengths") if case.inputs.get(name) is not None]
            chosen.setdefault((case.op, *steps, case.inputs.get("time_major")), case)
    return list(chosen.values())


@pytest.mark.parametrize("case", of_every_op(), ids=str)
def test_all_that_an_operator_makes_lives_where_its_arrays_do(cupy: Any, case: testing.Case) -> None:
    """The definition behind the stand-in refuses what lives elsewhere than on the current GPU."""
    results = testing.run_case(case.cast("float64").map_arrays(lambda array: awkward(cupy, array)), copy=cupy.copy)
    assert {array.device.id for array in results.values() if isinstance(array, cupy.ndarray)} <= {THERE}
    assert cupy.cuda.Device().id == 0


def test_optimisers_gates_and_norms_of_another_gpu(cupy: Any) -> None:
    """Arguments that are lists and dictionaries of arrays, gradients by rows, a tape behind a gradient of nothing."""
    with cupy.cuda.Device(THERE):
        params = [cupy.zeros((5, 3)), cupy.zeros(4)]
        rows = RowGrad(cupy.asarray(np.array([1, 4])), cupy.zeros((2, 3)))
        padded = PaddedRowGrad(*rows, cupy.asarray(np.array([2], np.int32)))
        gates = {gate: cupy.zeros((2, 3)) for gate in "ifgo"}
        tape = ops.lstm_forward(*(cupy.zeros(shape) for shape in ((2, 3, 4), (4, 8), (2, 8), (8,)))).tape
    for grad in (rows, padded, cupy.zeros):
        with cupy.cuda.Device(THERE):
            grads = [grad((5, 3)) if callable(grad) else grad, cupy.zeros(4)]
        ops.sgd_update(params, grads, 0.1)
        assert ops.global_norm(grads).device.id == THERE  # type: ignore[attr-defined]
    assert ops.pack_gates(gates).device.id == THERE  # type: ignore[attr-defined]
    assert ops.lstm_backward(None, tape).dxs.device.id == THERE  # type: ignore[attr-defined]


def test_the_kind_of_an_array_is_told_by_its_type(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy makes a dictionary each time it is asked for an array's interface."""
    asked = []
    interface = cupy.ndarray.__cuda_array_interface__

    def noting(array: Any) -> Any:
        asked.append(array)
        return interface.fget(array)

    monkeypatch.setattr(cupy.ndarray, "__cuda_array_interface__", property(noting))
    array = cupy.zeros((2, 3))
    ops.softmax(array)
    ops.embedding_forward(array, cupy.asarray(np.array([1, 0])))
    assert not asked

    class OfAnotherPackage:
        __cuda_array_interface__ = None

    assert is_device_array(array)
    assert is_device_array(OfAnotherPackage())
    assert not is_device_array(np.zeros(2))
    assert not is_device_array(np.ma.zeros(1))
    assert importlib.import_module("fastlstm.arrays").array_module(array) is cupy
