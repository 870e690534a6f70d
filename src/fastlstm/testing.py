"""Checks for whoever writes an operator, a layer or a backend.

`check_gradient` compares a gradient with central differences in random directions. `check_backend` runs one `Case`
(a call of one operator, forward and backward) on a backend and on the definition, ``fastlstm.backends.numpy``, in
float64 and compares every array. Both raise AssertionError with what differs.

Examples
--------
>>> import numpy as np
>>> from fastlstm import testing
>>> x = np.array([0.5, -1.0, 2.0])
>>> testing.check_gradient(lambda x: float((x**3).sum()), {"x": x}, {"x": 3 * x**2})
>>> case = testing.Case("gather", "embedding_forward", {"W": np.eye(3), "ids": np.array([2, 0])})
>>> testing.check_backend("numpy", case, "float32")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.backends import use_backend
from fastlstm.contract import GRADIENT_CHECK_TOLERANCE, TOLERANCE, FloatArray

# The arguments each operator changes in place; `run_case` hands copies over and returns them as results.
CHANGED_IN_PLACE: dict[str, tuple[str, ...]] = {
    "embedding_backward": ("out",),
    "scatter_add": ("target",),
    "negative_sampling_update": ("vectors", "weights"),
    "cbow_update": ("vectors", "weights"),
    "matrix_product": ("out",),
    "softmax": ("out",),
    "linear_cross_entropy": ("out",),
    "sgd_update": ("params",),
    "momentum_update": ("params", "velocities"),
    "nesterov_update": ("params", "velocities"),
    "adagrad_update": ("params", "accumulators"),
    "rmsprop_update": ("params", "accumulators"),
    "adam_update": ("params", "m", "v"),
    "adamw_update": ("params", "m", "v"),
    "clip_grad_norm": ("grads",),
    "clip_grad_value": ("grads",),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of one operator, and of its backward operator if it has one.

    Attributes
    ----------
    name : str
        Short and unique among an operator's cases; it names the test.
    op : str
        A function of ``fastlstm.ops``; for "X_forward" with a tape, "X_backward" is run too.
    inputs : mapping
        All arguments by name: arrays (floats in float64, see `cast`), lists and NamedTuples of them, options.
    upstream : mapping
        Arguments of the backward operator beside the tape, by name: dhs, dh_n, out ...
    """

    name: str
    op: str
    inputs: Mapping[str, Any]
    upstream: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def cast(self, dtype: str) -> Case:
        """The same case with every float array in ``dtype``; ids, masks and options as they are."""
        return self.map_arrays(lambda array: array.astype(dtype) if array.dtype.kind == "f" else array)

    def map_arrays(self, function: Callable[[Any], Any]) -> Case:
        """The same case with ``function`` applied to every array."""
        return dataclasses.replace(
            self,
            inputs={name: mapped(function, value) for name, value in self.inputs.items()},
            upstream={name: mapped(function, value) for name, value in self.upstream.items()},
        )

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def run_case(case: Case, *, copy: Callable[[Any], Any] = np.copy) -> dict[str, Any]:
    """Run a case on the current backend.

    Parameters
    ----------
    case : Case
    copy : callable
        Makes the copies of arrays that the operator changes in place; the case's own arrays are left as they are.

    Returns
    -------
    dict
        Every result of the operator and of its backward operator by field name ("dweights.values" for a field of a
        field), "out" for a single result; arguments changed in place under their own names, but for an ``out`` with
        fields, whose arrays are among the results.
    """
    changed = {
        name: mapped(copy, case.inputs[name]) for name in CHANGED_IN_PLACE.get(case.op, ()) if name in case.inputs
    }
    upstream = {name: mapped(copy, value) if name == "out" else value for name, value in case.upstream.items()}
    result = getattr(ops, case.op)(**{**case.inputs, **changed})
    results: dict[str, Any] = {}
    if hasattr(result, "_asdict"):
        results |= result._asdict()
    elif result is not None:
        results["out"] = result
    tape = results.pop("tape", None)
    if tape is not None:
        backward = getattr(ops, case.op.replace("_forward", "_backward"))
        results |= backward(tape=tape, **upstream)._asdict()
    return flat(results | {name: value for name, value in changed.items() if not _is_record(value)})


def check_backend(backend: str, case: Case, dtype: str, *, precision: str | None = None) -> None:
    """Compare a backend with the definition run in float64 on the same inputs, within ``contract.TOLERANCE``.

    Also checked: dtypes and shapes, that results are contiguous arrays of their own, and that nothing changes that
    the operator does not change.

    Parameters
    ----------
    backend : str
        "cpp", "numba" or "numpy"; or "cuda", to which the arrays are copied.
    case : Case
    dtype : "float32" or "float64"
    precision : "tf32" or "bf16", optional
        Of the case's products, where the operator and the device have it; its tolerance holds then.

    Raises
    ------
    AssertionError
        Naming every result that differs, by how much and where.
    """
    given = case.cast(dtype)
    if precision is not None:
        given = dataclasses.replace(given, inputs={**given.inputs, "precision": precision})
    before = given.map_arrays(np.copy)
    if backend == "cuda":
        got = _run_on_gpu(given)
    else:
        with use_backend(backend):
            got = run_case(given)
    with use_backend("numpy"):
        want = run_case(case.cast(dtype).cast("float64"))
    faults = [*_faults_of_memory(given, before, got), *_differences(got, want, dtype, precision or dtype)]
    assert not faults, f"{case} on {backend} in {dtype}:\n  " + "\n  ".join(faults)


def _run_on_gpu(case: Case) -> dict[str, Any]:
    import cupy

    results = run_case(case.map_arrays(cupy.asarray), copy=cupy.copy)
    on_host = {
        name: cupy.asnumpy(value) if isinstance(value, cupy.ndarray) else value for name, value in results.items()
    }
    # What is a number on the host is a 0-d array there, so that nobody waits for it.
    return {
        name: value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
        for name, value in on_host.items()
    }


def check_gradient(
    loss: Callable[..., float],
    inputs: Mapping[str, FloatArray],
    grads: Mapping[str, FloatArray],
    *,
    directions: int = 3,
    step: float = 1e-5,
    tolerance: float = GRADIENT_CHECK_TOLERANCE,
    seed: int = 0,
) -> None:
    """Compare gradients with central differences of the loss in random directions.

    Parameters
    ----------
    loss : callable
        ``loss(**inputs)`` is a float.
    inputs : mapping of float64 arrays
        Each is varied on its own; none is changed.
    grads : mapping of arrays
        The gradient of the loss by each input, under the same names.
    directions : int
        How many random directions of length 1 are tried for each input.
    step : float
        Half the distance between the two points of a difference.
    tolerance : float
        Largest difference, as a share of the gradient's length or of 1e-3, whichever is larger.
    seed : int
        Of the random directions.

    Raises
    ------
    AssertionError
        Naming every input whose gradient is wrong.
    """
    assert set(grads) == set(inputs), f"grads are {sorted(grads)}, inputs {sorted(inputs)}"
    rng = np.random.default_rng(seed)
    faults = []
    for name, x in inputs.items():
        assert x.dtype == np.float64, f"{name} is {x.dtype}; differences need float64"
        if grads[name].shape != x.shape:
            faults.append(f"the gradient of {name} has shape {grads[name].shape}, expected {x.shape}")
            continue
        if x.size == 0:
            continue
        scale = max(float(np.linalg.norm(grads[name])), 1e-3)
        for _ in range(directions):
            direction = rng.standard_normal(x.shape)
            direction /= np.linalg.norm(direction)
            above = loss(**{**inputs, name: x + step * direction})
            below = loss(**{**inputs, name: x - step * direction})
            numeric = (above - below) / (2 * step)
            analytic = float((grads[name] * direction).sum())
            # Written so that NaN fails.
            if not abs(numeric - analytic) <= tolerance * scale:
                faults.append(
                    f"d loss / d {name} along a random direction is {analytic:.9g}, differences give {numeric:.9g}"
                )
                break
    assert not faults, "; ".join(faults)


def _is_record(value: Any) -> bool:
    """Whether it is a NamedTuple of arrays: RowGrad, Candidates."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The value with ``function`` applied to every array in it, those in lists, dictionaries and records too."""
    if isinstance(value, np.ndarray):
        return function(value)
    if _is_record(value):
        return type(value)(*(mapped(function, entry) for entry in value))
    if isinstance(value, dict):
        return {name: mapped(function, entry) for name, entry in value.items()}
    return [mapped(function, entry) for entry in value] if isinstance(value, list) else value


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, dictionaries and records spread out to single arrays and numbers by name; None left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            found |= flat({f"{name}[{k}]": entry for k, entry in enumerate(value)})
        elif isinstance(value, dict):
            found |= flat({f"{name}[{key!r}]": entry for key, entry in value.items()})
        elif _is_record(value):
            found |= flat({f"{name}.{field}": entry for field, entry in value._asdict().items()})
        elif value is not None:
            found[name] = value
    return found


def arrays_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays among `flat` values."""
    return {name: value for name, value in flat(values).items() if isinstance(value, np.ndarray)}


def _faults_of_memory(given: Case, before: Case, got: Mapping[str, Any]) -> list[str]:
    faults = []
    given_arrays = arrays_of({**given.inputs, **given.upstream})
    originals = arrays_of({**before.inputs, **before.upstream})
    for name, array in given_arrays.items():
        if array.tobytes() != originals[name].tobytes():
            faults.append(f"{name} was changed")
    for name, result in got.items():
        if not isinstance(result, np.ndarray):
            continue
        if not (result.flags.c_contiguous or result.T.flags.c_contiguous):  # dW of a W that is a transposed array
            faults.append(f"{name} is not contiguous")
        shared = [other for other, array in given_arrays.items() if np.may_share_memory(result, array)]
        if result.dtype.kind == "f":  # two gradients may have one array of row numbers
            shared += [other for other, array in got.items() if other < name and np.may_share_memory(result, array)]
        if shared:
            faults.append(f"{name} shares memory with {', '.join(shared)}")
    return faults


def _differences(got: Mapping[str, Any], want: Mapping[str, Any], dtype: str, precision: str) -> list[str]:
    if list(got) != list(want):
        return [f"results are {list(got)}, expected {list(want)}"]
    faults = []
    for name in want:
        a, b = np.asarray(got[name]), np.asarray(want[name])
        expected = np.dtype(dtype) if b.dtype.kind == "f" and isinstance(want[name], np.ndarray) else b.dtype
        if a.dtype != expected or a.shape != b.shape or type(got[name]) is not type(want[name]):
            faults.append(f"{name} is {type(got[name]).__name__} {a.shape} {a.dtype}, expected {b.shape} {expected}")
        elif b.dtype.kind != "f":
            if not np.array_equal(a, b):
                faults.append(f"{name} differs: {a!r:.80}, expected {b!r:.80}")
        else:
            faults += _float_difference(name, a.astype(np.float64), b, TOLERANCE[precision])
    return faults


def _float_difference(name: str, got: FloatArray, want: FloatArray, tolerance: float) -> list[str]:
    finite = np.isfinite(want)
    # NaN and infinities have to stand in the same places.
    other = ~finite & ~((got == want) | (np.isnan(got) & np.isnan(want)))
    if other.any():
        at = tuple(int(k) for k in np.argwhere(other)[0])
        return [f"{name}{list(at)} is {got[at]}, expected {want[at]}"]
    if not finite.any():
        return []
    error = np.where(finite, np.abs(got - np.where(finite, want, 0)), 0)
    error = np.where(np.isnan(error), np.inf, error)
    limit = tolerance * max(1.0, float(np.abs(want[finite]).max()))
    worst = tuple(int(k) for k in np.unravel_index(int(error.argmax()), error.shape))
    if error[worst] > limit:
        return [
            f"{name}{list(worst)} is {got[worst]:.9g}, expected {want[worst]:.9g}: off by {error[worst]:.2g}, "
            f"allowed {limit:.2g}; {int((error > limit).sum())} of {error.size} elements are off"
        ]
    return []
