"""Samples of the classes for the losses of ``sampling.py``: log-uniform ones, and by counts.

Semantics are TensorFlow's: ``tf.random.log_uniform_candidate_sampler``, ``tf.random.fixed_unigram_candidate_sampler``.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeVar, cast

import numpy as np

from fastlstm.arrays import is_device_array
from fastlstm.backends import family_for
from fastlstm.contract import Array, Candidates, FloatArray, IntArray
from fastlstm.ops import checks, scalars
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.seeds import check_seed, draw_seed, require_generator

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)

_Table = TypeVar("_Table", FloatArray, IntArray)

# Different classes are found by drawing again and again; a sample whose last class takes longer than this on average
# is refused instead of seeming to hang.
_MAX_EXPECTED_TRIES = 1e8


@on_arrays_device
def log_uniform_candidates(
    num_sampled: int,
    range_max: int,
    true_classes: IntArray,
    *,
    unique: bool = True,
    rng: np.random.Generator | None = None,
    seed: Any = None,
) -> Candidates:
    """Classes drawn from a log-uniform (Zipfian) law, for ids sorted by descending frequency.

    P(class) = log((class + 2) / (class + 1)) / log(range_max + 1).

    Parameters
    ----------
    num_sampled : int
        S, how many.
    range_max : int
        Classes are 0 to range_max - 1.
    true_classes : (...) int32 or int64
        Their expected counts are wanted too, usually the labels (B,) or (B, num_true).
    unique : bool
        True: all sampled classes are different; the expected counts take the number of tries as given.
    rng : numpy.random.Generator
        One 64-bit number, the seed, is drawn from it.
    seed : int
        In the place of rng: from 0 to 2^64 - 1; for true_classes on a GPU also a 0-d uint64 array there. Equal seeds
        give equal samples on every backend.

    Returns
    -------
    Candidates
        sampled (S,) int64, true_expected_count of true_classes' shape, sampled_expected_count (S,), num_tries.

    Raises
    ------
    IndexError
        A true class lies outside 0 to range_max - 1.
    TypeError, ValueError
        An argument does not fit, or there are fewer than num_sampled classes.

    References
    ----------
    tf.random.log_uniform_candidate_sampler.
    """
    num_sampled = scalars.size("num_sampled", num_sampled)
    range_max = scalars.integer("range_max", range_max, 1)
    flat = _int64_ids("true_classes", true_classes, range_max, "range_max = {}")
    log_range = math.log1p(range_max)
    if unique:
        _enough_classes(num_sampled, range_max, "range_max")
        _ends_in_time(num_sampled, math.log1p((range_max + 1 - num_sampled) / num_sampled) / log_range)
    candidates = family_for(flat, "sampling").log_uniform_candidates(
        num_sampled,
        range_max,
        flat,
        unique=bool(unique),
        log_range=log_range,
        seed=_seed(rng, seed, flat),
    )
    return _shaped(candidates, true_classes)


@on_arrays_device
def log_uniform_expected_count(
    classes: IntArray, num_tries: int, range_max: int, *, unique: bool = True, num_sampled: int
) -> FloatArray:
    """How often classes are expected in a sample of `log_uniform_candidates`.

    Parameters
    ----------
    classes : (...) int32 or int64
        From 0 to range_max - 1.
    num_tries : int
        Draws the sample took, Candidates.num_tries; not used without ``unique``.
    range_max : int
    unique : bool
    num_sampled : int
        S, the size of the sample.

    Returns
    -------
    (...) float64 array
        p S without ``unique`` or if no draw was repeated (num_tries = S), else 1 - (1 - p)^num_tries, with
        p = log((class + 2) / (class + 1)) / log(range_max + 1). Exactly what TensorFlow computes.

    Raises
    ------
    IndexError
        A class lies outside 0 to range_max - 1.
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    ExpectedCountHelper in TensorFlow's range_sampler.cc.
    """
    range_max = scalars.integer("range_max", range_max, 1)
    num_sampled = scalars.size("num_sampled", num_sampled)
    flat = _int64_ids("classes", classes, range_max, "range_max = {}")
    if not unique:
        num_tries = num_sampled
    elif not _stays_on_device("num_tries", num_tries, flat):
        num_tries = scalars.integer("num_tries", num_tries, num_sampled)
    count = family_for(flat, "sampling").log_uniform_expected_count(
        flat,
        log_range=math.log1p(range_max),
        num_tries=num_tries,
        num_sampled=num_sampled,
    )
    return count.reshape(classes.shape)


class UnigramTable:
    """Counts made ready for `unigram_candidates`: build it once, draw from it in every step, on the host or a GPU.

    It does not change: kernels look into it without a check.

    Parameters
    ----------
    counts : (V,) integers or floats
        How often each class occurs; not negative, not all zero. Copied: later changes have no effect. From a GPU they
        are copied to the host first, which waits.
    power : float, not negative
        P(class) is proportional to counts[class] ** power.

    Attributes
    ----------
    probabilities : (V,) float64
        A numpy array that is read-only, as the two others.
    threshold, alias : (V,) float64 and int64
        The alias method's table: column v stands for class v up to threshold[v] and for class alias[v] above.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.

    References
    ----------
    Vose (1991), "A linear algorithm for generating random numbers with a given distribution".
    """

    def __init__(self, counts: Any, *, power: float = 0.75) -> None:
        checks.require_array("counts", counts)
        if counts.dtype.kind not in "iuf" or counts.ndim != 1 or len(counts) == 0:
            raise ValueError(f"counts is {checks.describe(counts)}, expected numbers of shape (V,) with V at least 1")
        power = scalars.finite("power", power, 0)
        # On the host wherever the counts are: the same power gives the same table, to the last bit, for every device.
        counts = checks.on_host(counts).astype(np.float64)
        if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
            raise ValueError("counts holds negative numbers, NaN or infinity, or nothing but zeros")
        weights = (counts / counts.max()) ** power
        probabilities = weights / weights.sum()
        self._keep(probabilities, *family_for(counts, "sampling").alias_table(probabilities * len(counts)))

    def _keep(self, probabilities: FloatArray, threshold: FloatArray, alias: IntArray) -> None:
        self._host = probabilities, threshold, alias
        self._on_device: dict[int, tuple[Array, Array, Array]] = {}

    @property
    def probabilities(self) -> FloatArray:
        return _read_only(self._host[0])

    @property
    def threshold(self) -> FloatArray:
        return _read_only(self._host[1])

    @property
    def alias(self) -> IntArray:
        return _read_only(self._host[2])

    def __getstate__(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """For copies and pickles."""
        return self._host

    def __setstate__(self, state: tuple[Any, Any, Any]) -> None:
        probabilities, threshold, alias = (np.array(array) for array in state)
        shape = (max(len(probabilities.reshape(-1)), 1),)
        for name, array, dtype in (
            ("probabilities", probabilities, _FLOAT64),
            ("threshold", threshold, _FLOAT64),
            ("alias", alias, _INT64),
        ):
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {checks.describe(array)}, expected {dtype} of shape {shape} = (V,)")
        checks.int_ids("alias", alias, shape[0], "V = {} classes")
        self._keep(probabilities, threshold, alias)

    def __len__(self) -> int:
        """V, the number of classes."""
        return len(self._host[0])

    def __repr__(self) -> str:
        return f"UnigramTable of {len(self)} classes"

    def beside(self, array: Array) -> tuple[FloatArray, FloatArray, IntArray]:
        """Probabilities, threshold and alias where ``array`` lives; the first call copies them to its GPU."""
        device = checks.gpu_of("true_classes", array)
        if device is None:
            return self._host
        if device not in self._on_device:
            first, second, third = (checks.on_device_of(table, array) for table in self._host)
            self._on_device[device] = first, second, third
        return self._on_device[device]

    @functools.cached_property
    def mass_of_rarest(self) -> FloatArray:
        """(V + 1,) float64: the probability of the n rarest classes together, for n = 0 ... V."""
        return np.concatenate([[0.0], np.cumsum(np.sort(self.probabilities))])


@on_arrays_device
def unigram_candidates(
    counts: Any,
    num_sampled: int,
    true_classes: IntArray,
    *,
    power: float = 0.75,
    unique: bool = False,
    rng: np.random.Generator | None = None,
    seed: Any = None,
) -> Candidates:
    """Classes drawn with probability proportional to counts ** power, by the alias method.

    Parameters
    ----------
    counts : (V,) integers or floats, or UnigramTable
        How often each class occurs. From an array the table is built anew in every call, which takes time in proportion
        to V; a loop builds a `UnigramTable` once.
    num_sampled : int
        S, how many.
    true_classes : (...) int32 or int64
        Their expected counts are wanted too, usually the labels (B,) or (B, num_true).
    power : float, not negative
        0.75 in word2vec. Not used with a UnigramTable, which has its own.
    unique : bool
        True: all sampled classes are different; the expected counts take the number of tries as given.
    rng : numpy.random.Generator
        One 64-bit number, the seed, is drawn from it.
    seed : int
        In the place of rng: from 0 to 2^64 - 1; for true_classes on a GPU also a 0-d uint64 array there. Equal seeds
        give equal samples on every backend.

    Returns
    -------
    Candidates
        sampled (S,) int64, true_expected_count of true_classes' shape, sampled_expected_count (S,), num_tries.

    Raises
    ------
    IndexError
        A true class lies outside 0 to V - 1.
    TypeError, ValueError
        An argument does not fit, or fewer than num_sampled classes can be drawn.

    References
    ----------
    Mikolov et al. (2013), "Distributed representations of words and phrases";
    tf.random.fixed_unigram_candidate_sampler.
    """
    num_sampled = scalars.size("num_sampled", num_sampled)
    if not isinstance(counts, UnigramTable):
        checks.same_device("true_classes counts", true_classes, counts)
        counts = UnigramTable(counts, power=power)
    table: UnigramTable = counts
    V = len(table)
    flat = _int64_ids("true_classes", true_classes, V, "counts has V = {} classes")
    if unique:
        _enough_classes(num_sampled, int(np.count_nonzero(table.probabilities)), "the number of classes that occur")
        _ends_in_time(num_sampled, float(table.mass_of_rarest[V + 1 - num_sampled]))
    candidates = family_for(flat, "sampling").unigram_candidates(
        *table.beside(flat),
        num_sampled,
        flat,
        unique=bool(unique),
        seed=_seed(rng, seed, flat),
    )
    return _shaped(candidates, true_classes)


def _int64_ids(name: str, ids: Any, upper: int, bound: str) -> IntArray:
    return checks.int_ids(name, ids, upper, bound).astype(_INT64, copy=False)


def _stays_on_device(name: str, number: Any, array: Array) -> bool:
    """Whether a whole number is a 0-d array beside an array on a GPU, where it is not read."""
    if not is_device_array(number):
        return False
    if number.ndim != 0 or number.dtype != _INT64:
        raise TypeError(f"{name} is {checks.describe(number)}, expected a whole number")
    checks.same_device(f"classes {name}", array, number)
    return True


def _shaped(candidates: Candidates, true_classes: IntArray) -> Candidates:
    """Candidates whose true_expected_count has the shape of the true classes; it comes flat."""
    if true_classes.ndim == 1:
        return candidates
    return candidates._replace(true_expected_count=candidates.true_expected_count.reshape(true_classes.shape))


def _read_only(array: _Table) -> _Table:
    """A view that cannot be made writeable again."""
    memory: Any = memoryview(cast(Any, array))
    view: _Table = np.asarray(memory.toreadonly())
    return view


def _seed(rng: Any, seed: Any, true_classes: IntArray) -> Any:
    """The seed of a sample: given, or drawn from rng."""
    if seed is None:
        require_generator("rng", rng)
        return draw_seed(rng)
    if rng is not None:
        raise TypeError("rng and seed are both given; expected one of them, for a sample takes one seed")
    return check_seed(seed, "true_classes", true_classes)


def _enough_classes(num_sampled: int, classes: int, what: str) -> None:
    if num_sampled > classes:
        raise ValueError(
            f"num_sampled is {num_sampled}, but {what} is {classes}: there are not that many different classes; "
            "use unique=False or a smaller num_sampled"
        )


def _ends_in_time(num_sampled: int, mass_left: float) -> None:
    """Refuse a sample whose last class has, at worst, the probability mass_left in each draw."""
    if mass_left * _MAX_EXPECTED_TRIES < 1:
        raise ValueError(
            f"num_sampled is {num_sampled}, but the last of so many different classes turns up in a fraction "
            f"{mass_left:.0e} of the draws; use unique=False or a smaller num_sampled"
        )
