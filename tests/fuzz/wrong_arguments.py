"""Calls with one wrong argument: an error that says so, on every backend the same, and nothing is changed."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from fuzz_arrays import Source
from fuzz_run import Plan, definition, perform
from fuzz_run import faults as faults_of_result

from fastlstm.backends import use_backend
from fastlstm.contract import Array
from fastlstm.testing import Case, arrays_of

# Of these every argument is what the user gets an error for; others are none of ours.
EXPECTED = (ValueError, TypeError, IndexError)


def _array_changes(source: Source, array: Array) -> list[tuple[str, Callable[[], Any], bool]]:
    """What an array may be instead: in words, how to make it, and whether that can never be right."""
    values = np.ascontiguousarray(array)
    other_float = np.float64 if array.dtype == np.float32 else np.float32
    changes: list[tuple[str, Callable[[], Any], bool]] = [
        ("a list", lambda: values.tolist() or [[]], True),
        ("a string", lambda: "abc", True),
        ("a number", lambda: 3, True),
        ("float16", lambda: values.astype(np.float16), array.dtype.kind != "b"),
        ("complex", lambda: values.astype(np.complex64), array.dtype.kind in "fi"),
        ("objects", lambda: values.astype(object), array.dtype.kind in "fi"),
        ("other byte order", lambda: values.astype(values.dtype.newbyteorder()), array.dtype.kind == "f"),
        ("masked", lambda: np.ma.masked_array(values, np.zeros(values.shape, bool)), True),
        ("an axis more", lambda: values[None], False),
        ("an axis more at the end", lambda: values[..., None], False),
        ("flat", lambda: values.reshape(-1), False),
        ("a scalar array", lambda: np.zeros((), values.dtype), False),
        ("nothing", lambda: values[:0], False),
        ("None", lambda: None, False),
    ]
    if array.ndim:
        axis = int(source.choose.random() * array.ndim)
        repeated = np.concatenate([values, values[(slice(None),) * axis + (slice(0, 1),)]], axis=axis)
        changes += [("one longer", lambda: repeated, False), ("turned round", lambda: values.T, False)]
        if array.shape[axis]:
            one_less = np.take(values, range(array.shape[axis] - 1), axis=axis)
            changes += [("one shorter", lambda: one_less, False)] * 2
    if array.dtype.kind == "f":
        changes.append(("the other float", lambda: values.astype(other_float), False))
        changes.append(("integers", lambda: np.zeros(values.shape, np.int64), False))
    if array.dtype.kind == "i" and array.size:

        def with_id(number: int) -> Array:
            wrong = values.copy()
            wrong.flat[int(source.choose.random() * wrong.size)] = number
            return wrong

        for number in (-1, -7, 2**31 - 1, -(2**31)):
            changes.append((f"an id of {number}", functools.partial(with_id, number), False))
        changes.append(("uint64", lambda: values.astype(np.uint64), False))
    return changes


_NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 2**63, -(2**64), 1.5, float("nan"), float("inf"), -float("inf"), "x", None, True, [1], 1j, b"1"),
    *(np.float32(0.5), np.int8(3), np.array(2), np.array([1]), object()),
)


def one_wrong(source: Source, case: Case) -> tuple[Case, str]:
    """The case with one argument changed, and which, in words; "must fail" in them says that it is never right."""
    where = "inputs" if not case.upstream or source.chance(0.6) else "upstream"
    given = dict(getattr(case, where))
    name = source.pick(list(given))
    value: Any = given[name]
    must_fail = False
    if source.chance(0.04):
        given["no_such_option"], words, must_fail = 1, "an argument nobody knows", True
    elif isinstance(value, np.ndarray):
        words, make, must_fail = source.pick(_array_changes(source, value))
        must_fail = must_fail and name not in ("counts", "mask")
        with np.errstate(all="ignore"):
            given[name] = make()
    elif isinstance(value, tuple) and hasattr(value, "_fields") and source.chance(0.8):
        record: Any = value
        field = source.pick(record._fields)
        entry = getattr(record, field)
        if isinstance(entry, np.ndarray):
            words, make, must_fail = source.pick(_array_changes(source, entry))
            with np.errstate(all="ignore"):
                given[name] = record._replace(**{field: make()})
            must_fail = False
            words = f"{field}: {words}"
        else:
            given[name], words = record._replace(**{field: source.pick(_NUMBERS)}), f"{field}: another value"
    elif isinstance(value, (str, bool)) or value is None:
        given[name] = source.pick((*_NUMBERS, "ifg", "zrn", "bf16", "float64"))
        words = f"{given[name]!r}"
    else:
        given[name] = source.pick(_NUMBERS)
        words = f"{given[name]!r}"
    changes: dict[str, Any] = {where: given}
    return dataclasses.replace(case, **changes), f"{name}: {words}{', must fail' if must_fail else ''}"


def _outcome(case: Case, plan: Plan, backend: str) -> tuple[str | None, list[str]]:
    """The error that a backend raises, None if it does not, and what is wrong with how it does that."""
    given = arrays_of({**case.inputs, **case.upstream})
    before = {name: array.tobytes() for name, array in given.items()}
    made: list[tuple[Array, bytes]] = []

    def copy(array: Array) -> Array:
        made.append((np.array(array, order="K", subok=True), array.tobytes()))
        return made[-1][0]

    with use_backend(backend), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            perform(case, plan, copy)
            return None, []
        except EXPECTED as error:
            said = f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"{type(error).__name__}", [f"raises {type(error).__name__}: {error}"]
    wrong = [
        f"{name} was changed by a call that failed" for name, array in given.items() if array.tobytes() != before[name]
    ]
    wrong += ["an array was changed by a call that failed" for array, bytes_ in made if array.tobytes() != bytes_]
    if not str(said).split(": ", 1)[1]:
        wrong.append(f"raises {said} without a word")
    return said, wrong


def faults(case: Case, plan: Plan, dtype: np.dtype[Any], backends: Sequence[str], words: str) -> list[str]:
    """Errors that are none of ours, or not the same on all backends; results that differ where there is no error."""
    found: list[str] = []
    said: dict[str, str | None] = {}
    for backend in backends:
        said[backend], wrong = _outcome(case, plan, backend)
        found += [f"{backend}: {fault}" for fault in wrong]
    if found:
        return found
    if len(set(said.values())) > 1:
        return [f"{backend}: {message or 'no error'}" for backend, message in said.items()]
    if next(iter(said.values())) is None:
        if words.endswith("must fail"):
            return ["no backend raises an error"]
        # Times a denormal number, which kernels take for zero, they are something else; other rows of out may be wrong.
        if words.endswith(("inf", "nan")) or words.startswith("touched"):
            return []
        want = definition(case)
        arrays = arrays_of(definition(case, np.array)).values()
        dtype = next((array.dtype for array in arrays if array.dtype.kind == "f"), dtype)
        for backend in backends:
            found += [f"{backend}: {fault}" for fault in faults_of_result(case, backend, plan, dtype, want, False)]
    return found
