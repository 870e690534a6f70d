"""Runs an example on a backend and compares it with the definition."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from fuzz_arrays import between_margins, margins_are_whole

import fastlstm
from fastlstm import ops
from fastlstm.backends import use_backend
from fastlstm.contract import TOLERANCE, Array, FloatArray
from fastlstm.ops import checks
from fastlstm.testing import CHANGED_IN_PLACE, Case, arrays_of, flat, mapped

# The kernels take denormal numbers for zeros, in each of the numbers that a sum is of, which may be divided by another
# small one.
NOTHING = 1e6
# What an error within float32's own may be in multiples of that of the definition, computed in the same dtype or from
# inputs that differ in their last bits.
SLACK = 32.0
ALWAYS_FLOAT64 = ("log_uniform_candidates", "log_uniform_expected_count", "unigram_candidates", "UnigramTable")
# Of the others, gradients are products of two inputs that may be large.
ONE_FACTOR = (
    *("embedding_forward", "embedding_backward", "embedding_backward_rows", "scatter_add", "dropout_mask"),
    *("sgd_update", "momentum_update", "nesterov_update", "clip_grad_norm", "clip_grad_value", "pack_gates"),
    *("unpack_gates", "softmax", "softmax_cross_entropy"),
)
# Gradients by differences of probabilities, which all but cancel where a class is both true and drawn, or there is one
# class alone, times these numbers.
_SAMPLED = {"dbiases.values": None, "dinputs": "weights", "dweights.values": "inputs"}
CANCELLING = {
    "linear_cross_entropy": {"db": None, "dh": "W", "dW": "h"},
    **dict.fromkeys(("sampled_softmax_loss", "nce_loss", "negative_sampling_loss"), _SAMPLED),
}
# The kernels' sigmoid is never below 1e-38: products with three larger numbers a step do not leave that small.
LARGEST_WITH_GATES = {"float32": 1e12, "float64": 1e100}
# What learns pair by pair: where a step changes the next scores by more than they have digits, rounding decides.
LEARNING = ("negative_sampling_update", "cbow_update")
LARGEST_ROUNDING = 1e-3
WITH_EPS = ("adagrad_update", "rmsprop_update", "adam_update", "adamw_update")
PREPARED = {"lstm": ("gate_order",), "gru": ("convention",), "rnn": ()}

_other_thread = ThreadPoolExecutor(1)


class Plan(NamedTuple):
    """How a backend is called. The definition is called plainly.

    threads : of the kernels, in the forward and in the backward call.
    prepared : whether the weights are prepared.
    tape : "once"; "twice", with the same bits; "interleaved" with another call, whose tape is freed on another thread;
        "elsewhere", on another thread.
    again : with so many threads, to the same bits on a compiled backend; 0 for not again.
    """

    threads: tuple[int, int] = (1, 1)
    prepared: bool = False
    tape: str = "once"
    again: int = 0


def _called(op: str, inputs: dict[str, Any], prepared: bool) -> Any:
    if not prepared:
        return getattr(ops, op)(**inputs)
    if op == "matrix_product":
        weights = ops.prepare_dense(inputs.pop("b"), inputs.pop("bias", None), precision=inputs.get("precision"))
        return ops.matrix_product(inputs.pop("a"), weights, **inputs)
    family = op.removesuffix("_forward")
    given = {name: inputs.pop(name) for name in ("Wx", "Wh", "b")}
    options = {name: inputs[name] for name in (*PREPARED[family], "precision") if name in inputs}
    weights = getattr(ops, f"prepare_{family}")(**given, **options)
    return getattr(ops, op)(inputs.pop("xs"), weights, **inputs)


def perform(case: Case, plan: Plan, copy: Callable[[Array], Array]) -> dict[str, Any]:
    """Every result by name, of the backward operator too, and the arguments changed in place, which are copies."""
    copies: dict[int, Array] = {}

    def once(array: Array) -> Array:
        """One copy of an array, that stands for it wherever it is an argument."""
        if id(array) not in copies:
            copies[id(array)] = copy(array)
        return copies[id(array)]

    changed = {
        name: mapped(once, case.inputs[name]) for name in CHANGED_IN_PLACE.get(case.op, ()) if name in case.inputs
    }
    others = {name: mapped(lambda array: copies.get(id(array), array), value) for name, value in case.inputs.items()}
    fastlstm.set_num_threads(plan.threads[0])
    result = _called(case.op, {**others, **changed}, plan.prepared)
    fastlstm.set_num_threads(plan.threads[1])
    results: dict[str, Any] = {}
    if isinstance(result, ops.UnigramTable):
        results |= {name: getattr(result, name) for name in ("probabilities", "threshold", "alias")}
    elif hasattr(result, "_asdict"):
        results |= result._asdict()
    elif result is not None:
        results["out"] = result
    tape = results.pop("tape", None)
    if tape is not None:
        backward = getattr(ops, case.op.replace("_forward", "_backward"))

        def gradients() -> Any:
            upstream = {name: mapped(copy, value) if name == "out" else value for name, value in case.upstream.items()}
            grads = backward(tape=tape, **upstream)
            _expect_margins(arrays_of({"out": upstream.get("out")}))
            return grads._asdict()

        if plan.tape == "interleaved":
            others = {
                name: value if name == "mask" else mapped(_other_numbers, value) for name, value in case.inputs.items()
            }
            other = getattr(ops, case.op)(**others).tape
            backward(
                tape=other,
                **{name: value for name, value in case.upstream.items() if name not in ("out", "accumulate")},
            )
            held = [other]
            del other
            _other_thread.submit(held.clear).result()
        made = _other_thread.submit(gradients).result() if plan.tape == "elsewhere" else gradients()
        if plan.tape == "twice":
            again = flat(gradients())
            for name, value in flat(made).items():
                assert np.asarray(value).tobytes() == np.asarray(again[name]).tobytes(), (
                    f"{name} differs the second time"
                )
        results |= made
    _expect_margins(arrays_of(changed))
    kept = {name: value for name, value in changed.items() if not hasattr(value, "dW")}
    return flat(results | kept)


def _other_numbers(array: Array) -> Array:
    return array * array.dtype.type(0.5) if array.dtype.kind == "f" and array.ndim > 1 else array


def _expect_margins(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        assert not _has_margins(array) or margins_are_whole(array), f"something was written beside {name}"


def _has_margins(array: Array) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, np.ndarray) and base.dtype == np.uint8 and base is not array


def definition(case: Case, convert: Callable[[Array], Array] | None = None) -> dict[str, Any]:
    """What the definition makes of the case, in float64 if nothing else is said."""

    def in_float64(array: Array) -> Array:
        return np.array(array, np.float64 if array.dtype.kind == "f" else None, order="K")

    copies: dict[int, Array] = {}

    def once(array: Array) -> Array:
        if id(array) not in copies:
            copies[id(array)] = (convert or in_float64)(array)
        return copies[id(array)]

    def made(value: Any) -> Any:
        return mapped(once, value)

    given = Case(
        case.name,
        case.op,
        *({name: made(value) for name, value in values.items()} for values in (case.inputs, case.upstream)),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(use_backend("numpy"))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(np.errstate(all="ignore"))
        if case.inputs.get("precision") == "bf16":  # the sums of rounded factors are float64's then
            stack.enter_context(mock.patch.object(checks, "precision_of", lambda array, asked: asked))
        warnings.simplefilter("ignore", RuntimeWarning)
        return perform(given, Plan(), np.copy)


def faults(case: Case, backend: str, plan: Plan, dtype: np.dtype[Any], want: dict[str, Any], tiny: bool) -> list[str]:
    """What a backend does otherwise than the definition, whose results in float64 are ``want``."""
    given = arrays_of({**case.inputs, **case.upstream})
    before = {name: array.tobytes() for name, array in given.items()}
    again_with = 0 if backend == "numpy" else plan.again  # numpy's products are its BLAS's, which promises no bits
    with use_backend(backend), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            got = perform(case, plan, between_margins)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        if again_with:
            again = perform(case, plan._replace(threads=(again_with, again_with)), between_margins)
    found = [f"{name} was changed" for name, array in given.items() if array.tobytes() != before[name]]
    if again_with:
        found += [
            f"{name} is not the same bits with {again_with} threads"
            for name, value in got.items()
            if not np.array_equal(value, again[name], equal_nan=np.asarray(value).dtype.kind == "f")
        ]
    if list(got) != list(want):
        return [*found, f"results are {list(got)}, expected {list(want)}"]
    limits = _limits(case, dtype, tiny)
    for name in want:
        its = limits
        if name in CANCELLING.get(case.op, {}):
            factor = case.inputs.get(CANCELLING[case.op][name] or "")
            rounding = float(np.finfo(dtype).eps) * (1.0 if factor is None else _largest_of([factor]))
            its = limits._replace(nothing=max(limits.nothing, rounding))
        found += _difference(name, got[name], want[name], case, dtype, its)
        if isinstance(got[name], np.ndarray):
            found += [
                f"{name} shares memory with {other}"
                for other, array in given.items()
                if np.may_share_memory(got[name], array)
            ]
    return found


class Limits(NamedTuple):
    """How far a result may be from the definition's in float64.

    relative : of the largest number of the result, or of ``floor`` if that is larger.
    nothing : what counts for nothing.
    """

    relative: float
    floor: float
    nothing: float


def _limits(case: Case, dtype: np.dtype[Any], tiny: bool) -> Limits:
    floor = 0.0 if tiny else max(1.0, _largest_intermediate(case))
    if "mask" in case.inputs or "lengths" in case.inputs:
        weights = [case.inputs[name] for name in ("Wx", "Wh", "b") if case.inputs.get(name) is not None]
        if not all(np.isfinite(array).all() for array in weights):
            floor = np.inf  # NaN of these may reach the gradients of steps that do not count
    if case.op.startswith(("lstm", "gru")) and _largest(case) > LARGEST_WITH_GATES[dtype.name]:
        floor = np.inf
    if case.op in LEARNING and float(np.finfo(dtype).eps) * _largest(case) ** 2 > LARGEST_ROUNDING:
        floor = np.inf
    eps = case.inputs.get("eps", 1e-7 if case.op in WITH_EPS else 1.0)
    nothing = NOTHING * float(np.finfo(dtype).smallest_normal) / (eps or 1.0)
    return Limits(TOLERANCE[case.inputs.get("precision") or dtype.name], floor, nothing)


def _difference(name: str, got: Any, want: Any, case: Case, dtype: np.dtype[Any], limits: Limits) -> list[str]:
    a, b = np.asarray(got), np.asarray(want)
    is_float = b.dtype.kind == "f"
    expected = b.dtype if not is_float or case.op in ALWAYS_FLOAT64 or not isinstance(want, np.ndarray) else dtype
    if a.dtype != expected or a.shape != b.shape or type(got) is not type(want):
        return [f"{name} is {type(got).__name__} {a.shape} {a.dtype}, expected {b.shape} {expected}"]
    if not is_float:
        differ = a != b
        at = tuple(int(k) for k in np.argwhere(differ)[0]) if differ.any() else None
        return [] if at is None else [f"{name}{list(at)} is {a[at]}, expected {b[at]}"]
    with np.errstate(all="ignore"):
        wrong = _wrong(a.astype(np.float64), b, limits, dtype)
        if wrong is not None and wrong.any():
            wrong = wrong & _beyond_the_dtype(name, a.astype(np.float64), b, case, limits.nothing, dtype)
    if wrong is None or not wrong.any():
        return []
    at = tuple(int(k) for k in np.argwhere(wrong)[0])
    return [f"{name}{list(at)} is {a[at]!r}, expected {b[at]!r}; {int(wrong.sum())} of {wrong.size} differ"]


def _wrong(got: FloatArray, want: FloatArray, limits: Limits, dtype: np.dtype[Any]) -> Array | None:
    """Which numbers are not those of the definition. NaN and infinities have to stand in the same places."""
    if got.size == 0:
        return None
    finite = np.isfinite(want)
    largest = np.abs(want).max() if finite.all() else np.abs(want[finite]).max(initial=0.0)
    limit = limits.relative * max(limits.floor, float(largest)) + limits.nothing
    close = np.abs(got - want) <= limit
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    # Where numbers on the way leave the dtype, inf - inf is NaN or is not as sums go.
    beyond = (~np.isfinite(got) | ~finite) & (limit > float(np.finfo(dtype).max))
    return ~(np.where(finite, close, same) | beyond)


def _largest(case: Case) -> float:
    return _largest_of(arrays_of({**case.inputs, **case.upstream}).values())


def _largest_of(arrays: Iterable[Array]) -> float:
    floats = [array for array in arrays if array.dtype.kind == "f"]
    return max((float(np.fmax.reduce(np.abs(array), axis=None, initial=0.0)) for array in floats), default=0.0)


def _largest_intermediate(case: Case) -> float:
    """How large numbers on the way to a result may be, whose rounding it cannot but show."""
    largest = _largest(case)
    if largest < 100:
        return 1.0
    return largest if case.op in ONE_FACTOR else largest**2


def _beyond_the_dtype(
    name: str, got: FloatArray, want: FloatArray, case: Case, nothing: float, dtype: np.dtype[Any]
) -> Array:
    """Which numbers are wrong even when it counts what the definition itself makes of the dtype's rounding.

    The definition runs in the dtype of the case, and in float64 on inputs that differ in their last bits. How far
    these are from what it returns in float64, any sum in another order may be, too; and what overflows there, may.
    """
    eps = float(np.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    # The slope of the hard sigmoid jumps where a sum of products passes a bound, by whose rounding it may.
    jumps = case.inputs.get("recurrent_activation") == "hard_sigmoid"
    nudge, count = (16 * eps, 6) if jumps else (eps, 2)

    def nudged(array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        signs = 0.0 if np.isin(array, (0, 1)).all() else rng.choice((-1.0, 1.0), array.shape)  # a mask stays one
        return np.asarray(array * (1 + nudge * signs), np.float64)

    others = [np.asarray(definition(case, np.array)[name]).astype(np.float64)]
    others += [np.asarray(definition(case, nudged)[name]) for _ in range(count)]
    error = np.zeros(want.shape)
    overflows = np.zeros(want.shape, bool)
    same = np.zeros(want.shape, bool)
    for other in others:
        both = np.isfinite(other) & np.isfinite(want)
        error = np.maximum(error, np.where(both, np.abs(other - want), 0.0))
        overflows |= np.isfinite(other) != np.isfinite(want)
        same |= (got == other) | (np.isnan(got) & np.isnan(other))
    finite = np.isfinite(want)
    largest = np.abs(want[finite]).max(initial=0.0)
    limit = SLACK * (error.max(initial=0.0) + eps * largest)
    close = np.abs(got - want) <= limit + nothing
    wrong: Array = ~(close | same | overflows)
    return wrong


def shapes_of(case: Case) -> str:
    """The arguments of a case in a few words."""
    parts = []
    for name, value in flat({**case.inputs, **case.upstream}).items():
        text = f"{value!r:.60}"
        if isinstance(value, np.ndarray):
            text = f"{value.dtype}{list(value.shape)}"
            if not value.flags.carray:
                text += f" strides {list(value.strides)}"
        parts.append(f"{name}={text}")
    return ", ".join(parts)
