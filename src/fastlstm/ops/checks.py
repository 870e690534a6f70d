"""The checks that operators share: what came, what was expected, how to mend it.

Every check runs before anything is computed or changed. Inputs come back C-contiguous and aligned (copied if they were
not); arrays that are changed in place must be contiguous, aligned and writeable as they are.

Small operators take a few microseconds, so what is right has to pass in a few attribute reads: the checks try the usual
case first (a numpy array, as it should be), and only what is not usual is looked at closely. Texts of errors are made
when there is an error.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np
from numpy import ndarray

from fastlstm.arrays import OWNERS, array_module, is_device_array
from fastlstm.backends import device_ids_family
from fastlstm.contract import PRECISIONS, Array, FloatArray, IntArray, Precision, Tape

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INTS = (np.dtype(np.int64), np.dtype(np.int32))
_Family = TypeVar("_Family")


def is_array(value: Any) -> TypeGuard[Array]:
    return isinstance(value, ndarray) or is_device_array(value)


def describe(value: Any) -> str:
    """What a caller passed, in a few words."""
    if is_array(value):
        return f"an array of shape {value.shape}, {value.dtype}"
    if _holds_arrays(value):
        return f"{type(value).__name__} of {len(value)}, the first {describe(value[0])}"
    return f"{type(value).__name__} {value!r:.60}"


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and is_array(value[0])


def require_array(name: str, value: Any, *, in_place: bool = False) -> None:
    """Raise unless value is an array of which every element counts; ``in_place`` says that it is to be changed."""
    if not is_array(value):
        hint = "for instance numpy.asarray(...)"
        if _holds_arrays(value):
            hint = f"numpy.stack({name}, axis=1) of time steps, for the batch comes first, numpy.stack({name}) of rows"
        if in_place:
            hint = "which is changed in place"
        raise TypeError(f"{name} is {describe(value)}; expected a numpy or CuPy array, {hint}")
    refuse_masked(name, value, in_place=in_place)


def refuse_masked(name: str, value: Any, *, in_place: bool = False) -> None:
    """Raise if value is one of numpy's masked arrays: whoever takes it for an array loses the mask."""
    if type(value) is not ndarray and isinstance(value, ndarray) and isinstance(value, np.ma.MaskedArray):
        hint = "" if in_place else f", or pass {name}.filled(...) with a value that is to count in the masked places"
        raise TypeError(
            f"{name} is a masked array, whose mask no operator reads; pass {name}.data and what is masked by the "
            f"operator's own argument, such as mask= or ignore_index={hint}"
        )


def in_order(array: Array) -> Array:
    """The array, C-contiguous and aligned: itself, or a copy."""
    if is_device_array(array):
        return array if array.flags.c_contiguous else array.copy(order="C")
    if array.flags.c_contiguous and array.flags.aligned:
        return np.asarray(array)  # arrays of subclasses have methods of their own
    return np.array(array, order="C")


def float_array(name: str, value: Any, ndim: int, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """A float array with ndim axes, C-contiguous; of ``dtype`` if that is given, which is that ``of`` another array."""
    if (
        type(value) is ndarray  # the product of two numpy.matrix is not that of its elements
        and value.ndim == ndim
        and (value.dtype is dtype or (dtype is None and value.dtype in FLOATS))
        and value.flags.carray
    ):
        return value
    require_array(name, value)
    _expect_floats(name, value, dtype, of, f"convert it with {name}.astype(numpy.{{}})")
    if value.ndim != ndim:
        hint = ""
        if ndim == 1 and value.size == max(value.shape, default=0):
            hint = f"; use {name}.reshape(-1)"
        raise ValueError(f"{name} has shape {value.shape}, expected {ndim} axes{hint}")
    return in_order(value)


def changed_array(name: str, value: Any, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """A float array that is changed in place, as it is: C-contiguous, aligned and writeable; dtype as `float_array`.

    No hint says how to copy it: the change would be lost with the copy.
    """
    require_array(name, value, in_place=True)
    _expect_floats(name, value, dtype, of, "it is changed in place, so create it as numpy.{}")
    require_writeable(name, value)
    changed: FloatArray = value
    return changed


def _expect_floats(name: str, array: Array, dtype: np.dtype[Any] | None, of: str, hint: str) -> None:
    """Raise unless ``array`` holds floats, of ``dtype`` if that is given; ``hint`` has a place for the right dtype."""
    if array.dtype not in FLOATS:
        right = dtype or FLOATS[0]
        raise TypeError(f"{name} has dtype {array.dtype}, expected float32 or float64; {hint.format(right)}")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, but {of} has {dtype}; all floats of one call have one dtype: "
            f"{hint.format(dtype)}"
        )


def matrix_or_transpose(name: str, value: Any, dtype: np.dtype[Any] | None = None, of: str = "") -> FloatArray:
    """A float matrix that is C-contiguous or the transpose of one that is."""
    if (
        type(value) is ndarray
        and value.ndim == 2
        and (value.dtype is dtype or (dtype is None and value.dtype in FLOATS))
    ):
        flags = value.flags
        if flags.carray or (flags.f_contiguous and flags.behaved):  # flags.farray is true of any strides
            return value
    if is_array(value) and value.ndim == 2 and value.flags.f_contiguous:
        return float_array(name, value.T, 2, dtype, of).T
    return float_array(name, value, 2, dtype, of)


def expect_shape(name: str, array: Array, expected: tuple[int, ...], why: str, hint: str = "") -> None:
    """Raise unless ``array`` has the shape; ``why`` says where the numbers come from, ``hint`` how to mend it."""
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}, expected {expected} {why}{'. ' if hint else ''}{hint}")


def on_host(array: Array) -> Array:
    """The same values as a numpy array; from a GPU, that waits."""
    if isinstance(array, ndarray):
        return array
    copied: Array = array_module(array).asnumpy(array)
    return copied


def on_device_of(array: Array, like: Array) -> Array:
    """A numpy array, copied to the GPU that ``like`` lives on."""
    with array_module(like).cuda.Device(gpu_of("array", like)):
        copied: Array = array_module(like).asarray(array)
    return copied


def precision_of(array: FloatArray, asked: Any) -> Precision:
    """In what precision products of ``array`` are made: as asked, or exactly in its dtype if that is None."""
    exact: Precision = "float32" if array.dtype == FLOATS[0] else "float64"
    if asked is None:
        return exact
    check_choice("precision", asked, PRECISIONS)
    precision: Precision = asked
    if precision != exact:
        if precision in ("float32", "float64") or exact != "float32":
            raise ValueError(
                f"precision is {precision!r}, but the arrays have dtype {exact}; 'tf32' and 'bf16' are precisions of "
                "products of float32 arrays, 'float32' and 'float64' those of their dtypes"
            )
        if precision == "tf32" and not is_device_array(array):
            raise ValueError(
                "precision is 'tf32', but the arrays are on the host, where products are 'float32' or 'bf16'; leave it "
                "out for exact ones, or pass CuPy arrays"
            )
    return precision


def check_choice(name: str, value: Any, choices: tuple[str, ...], or_else: str = "") -> None:
    """Raise unless value is one of the choices; ``or_else`` says in the error what else would be right."""
    if not isinstance(value, str) or value not in choices:
        hint = f" or {or_else}" if or_else else ""
        raise ValueError(f"{name} is {value!r:.60}, expected one of {', '.join(map(repr, choices))}{hint}")


def check_tape(tape: Tape[_Family] | None, op: str) -> Tape[_Family]:
    """The tape that ``{op}_forward`` made."""
    if isinstance(tape, Tape):
        if tape.op != op:
            raise ValueError(f"tape was made by {tape.op}_forward; expected one of {op}_forward")
        return tape
    if tape is None:
        raise TypeError(f"tape is None; call {op}_forward with training=True to get one")
    raise TypeError(f"tape is {describe(tape)}; expected the tape that {op}_forward returned")


def require_integers(name: str, ids: Any) -> None:
    """Raise unless ids are an array of int32 or int64; the error names an id that a conversion would change."""
    require_array(name, ids)
    if ids.dtype in INTS:
        return
    hint = f"convert it with {name}.astype(numpy.int64)"
    if isinstance(ids, ndarray) and ids.dtype.kind in "uf":
        with np.errstate(invalid="ignore"):
            changed = ids[ids.astype(np.int64) != ids]
        if changed.size:
            hint = f"it holds {changed.flat[0]}, which is no id"
    raise TypeError(f"{name} has dtype {ids.dtype}, expected int32 or int64; {hint}")


def int_ids(name: str, ids: Any, upper: int | None, bound: str) -> IntArray:
    """Integer ids in [0, upper), flattened to (M,); ``bound`` says in the error where upper, its {}, comes from."""
    flat: IntArray = ids
    if not (type(ids) is ndarray and ids.dtype in INTS and ids.flags.carray):
        require_integers(name, ids)
        flat = in_order(ids)
    if flat.ndim != 1:
        flat = flat.reshape(-1)
    if flat.size == 0:
        return flat
    if not isinstance(flat, ndarray):
        return device_ids(flat, IdBounds(name, upper, bound))
    low, high = smallest(flat), largest(flat)
    if low < 0 or (upper is not None and high >= upper):
        raise IdBounds(name, upper, bound).error(low if low < 0 else high)
    return flat


class IdBounds(NamedTuple):
    """Which ids of an argument are right: from 0 to upper - 1, or ``ignored`` if there is such an id.

    ``bound`` says in the error where upper, its {}, comes from.
    """

    name: str
    upper: int | None
    bound: str
    ignored: int | None = None

    def error(self, value: int) -> IndexError:
        if self.ignored is not None:
            assert self.upper is not None
            return IndexError(
                f"{self.name} holds {value}, expected 0 to {self.upper - 1} ({self.bound.format(self.upper)}) or "
                f"ignore_index = {self.ignored}"
            )
        limit = "" if self.upper is None else f" to {self.upper - 1} ({self.bound.format(self.upper)})"
        return IndexError(
            f"{self.name} holds {value}, expected ids from 0{limit}; negative ids do not count from the end"
        )


def device_ids(ids: IntArray, bounds: IdBounds) -> IntArray:
    """A copy of ids (M,) on a GPU, in which those out of bounds are 0.

    Nobody waits for the check: `raise_if_ids_were_wrong` says later what it found.
    """
    module = device_ids_family()
    raise_if_ids_were_wrong()
    return module.check(ids, upper=bounds.upper, ignore_index=bounds.ignored, source=bounds)


def raise_if_ids_were_wrong() -> None:
    """Raise the error of an earlier call whose ids on a GPU were out of bounds, if that has been found out by now.

    Called wherever arrays on a GPU come in, and after everything that waits for the device.
    """
    module = sys.modules.get("fastlstm.backends.cuda.ids")
    if module is not None:
        module.raise_fault()


def smallest(values: Array) -> Any:
    """The smallest of at least one number, flat; NaN if there is one."""
    # numpy finds the place of an extreme several times faster than the extreme itself.
    return values.item(values.argmin()) if isinstance(values, ndarray) else values.min().item()


def largest(values: Array) -> Any:
    """The largest of at least one number, flat; NaN if there is one."""
    return values.item(values.argmax()) if isinstance(values, ndarray) else values.max().item()


def require_writeable(name: str, array: Array) -> None:
    """An array that is changed in place: contiguous, aligned and writeable."""
    if isinstance(array, ndarray) and array.flags.carray:
        return
    wrong = None
    if not array.flags.c_contiguous:
        wrong = "not C-contiguous"
    elif isinstance(array, ndarray):
        wrong = "not aligned to its items" if array.flags.writeable else "read-only"
    if wrong is not None:
        raise ValueError(
            f"{name} is {wrong}, but is changed in place; it has to be right where it is created, for a change of a "
            "copy would be lost"
        )


def expect_apart(name: str, written: Array, read_names: str, *read: Array | None) -> None:
    """Raise if an array shares memory with one that is read while it is written. Absent ones (None) are skipped.

    ``read_names`` are the names of the arrays that are read, with spaces between them.
    """
    present = [(other, array) for other, array in zip(read_names.split(), read, strict=True) if array is not None]
    pair = overlapping([written], [array for _, array in present])
    if pair is not None:
        other = present[max(pair) - 1][0]
        raise ValueError(f"{name} overlaps {other}, which is read while {name} is written; pass an array of its own")


def overlapping(written: Sequence[Array], read: Sequence[Array]) -> tuple[int, int] | None:
    """Two arrays that share memory though one of them is written, by their places in [*written, *read]; None: no two.

    What is written is contiguous, in C's or Fortran's order: its memory is all from its first byte to its last.
    """
    arrays = [*written, *read]
    # Nearly always each is an array that owns its memory, or a view of one, and what is written has owners of its own.
    owners = []
    for owner in arrays:
        while type(owner) is ndarray and (base := owner.base) is not None:
            owner = base
        if type(owner) not in OWNERS:
            break
        owners.append(id(owner))
    else:
        of_written = set(owners[: len(written)])
        if len(of_written) == len(written) and of_written.isdisjoint(owners[len(written) :]):
            return None
    spans = sorted((*span(array), k) for k, array in enumerate(arrays) if array.size)
    ends = {True: (0, 0), False: (0, 0)}  # of the written ones so far, and of the others: the farthest, and whose it is
    for start, stop, k in spans:
        is_written = k < len(written)
        for end, other in (ends[True], ends[False]) if is_written else (ends[True],):
            if start < end:
                return other, k
        ends[is_written] = max(ends[is_written], (stop, k))
    return None


def span(array: Array) -> tuple[int, int]:
    """The addresses of an array's first byte, and of that behind its last."""
    of_any_kind: Any = array
    start: int
    if isinstance(array, ndarray) and not (array.flags.c_contiguous or array.flags.f_contiguous):
        ends = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
        first = of_any_kind.__array_interface__["data"][0]
        return first + sum(min(end, 0) for end in ends), first + sum(max(end, 0) for end in ends) + array.itemsize
    if not isinstance(array, ndarray):
        start = of_any_kind.data.ptr
    elif array.flags.carray and array.size:  # a fifth of the time that numpy takes
        start = ctypes.addressof(ctypes.c_char.from_buffer(of_any_kind))
    else:
        start = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def same_device(names: str, *arrays: Any) -> None:
    """Raise unless all arrays live on the host, or all on one GPU as CuPy arrays. Absent arrays (None) are skipped.

    ``names`` are the arrays' names, with spaces between them.
    """
    for array in arrays:
        if not (isinstance(array, ndarray) or array is None):
            break
    else:
        return
    on_device = is_device_array(arrays[0])
    first, *others = names.split()
    for name, array in zip(others, arrays[1:], strict=True):
        if array is not None and is_device_array(array) != on_device:
            here, there = ("on a GPU", "on the host") if on_device else ("on the host", "on a GPU")
            raise TypeError(f"{first} is {here} but {name} is {there}; all arrays of one call live in one place")
    if on_device:
        raise_if_ids_were_wrong()
        device = gpu_of(first, arrays[0])
        for name, array in zip(others, arrays[1:], strict=True):
            if array is not None and gpu_of(name, array) != device:
                raise ValueError(
                    f"{first} is {_place(device)} but {name} is {_place(gpu_of(name, array))}; all arrays of one call "
                    "live on one GPU: copy with cupy.asarray(...) where that is the current one"
                )


def rows_are_padded(padded: bool, name: str, array: Array) -> bool:
    """Whether gradients by rows are wanted as PaddedRowGrad, which only arrays on a GPU have."""
    if padded and not is_device_array(array):
        raise ValueError(
            f"padded is {padded}, but {name} is on the host, where the number of rows is known without waiting; "
            "leave padded out"
        )
    return bool(padded)


def same_device_as_tape(tape: Tape[Any], arrays: Mapping[str, Any]) -> None:
    """Raise unless the gradients live where the arrays of the forward call lived. Absent ones (None) are skipped."""
    for name, array in arrays.items():
        if array is None or (isinstance(array, ndarray) and tape.device is None) or not is_array(array):
            continue
        device = gpu_of(name, array)
        if device != tape.device:
            raise TypeError(
                f"{name} is {_place(device)}, but the arrays of the forward call were {_place(tape.device)}; "
                "gradients live where the tape does"
            )


def gpu_of(name: str, array: Array) -> int | None:
    """The number of the GPU that a CuPy array lives on; None on the host."""
    if not is_device_array(array):
        return None
    # CuPy's devices have an id; those of other packages, whose arrays only look alike, do not.
    number: int | None = getattr(getattr(array, "device", None), "id", None)
    if number is None:
        raise TypeError(
            f"{name} is {type(array).__module__}.{type(array).__name__} on a GPU; expected a CuPy array, for instance "
            "cupy.from_dlpack(...)"
        )
    return number


def _place(device: int | None) -> str:
    return "on the host" if device is None else f"on GPU {device}"
