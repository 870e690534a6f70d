"""Sequences of ids of different lengths, as models read them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import BoolArray, IntArray
from fastlstm.datasets.padding import PADDING, padded, warn_of_zeros
from fastlstm.models.ids import class_ids, expect_ids, host_array, integers, signed
from fastlstm.ops import checks, recurrent


class ReadsIds:
    """What models have that read ids: the option "vocab_size", and a vocabulary."""

    options: dict[str, Any]
    vocabulary: Any

    def check_sequences(self, xs: Any, lengths: Any = None) -> IntArray:
        """Sequences as ids (N, T) with -1 for padding; raises if they are none.

        Parameters
        ----------
        xs : (N, T) ids, or a sequence of N id sequences
        lengths : (N,) integers from 0 to T, optional
            How many ids of each row of an array count; what stands behind them is not read.
        """
        V = self.options["vocab_size"]
        xs = xs if checks.is_array(xs) else padded("xs", xs)
        ids = integers("xs", xs, 2, "two axes, (examples, time steps)")
        if lengths is None:
            warn_of_zeros("xs", ids, self.vocabulary, "lengths=, or numpy.where(mask, xs, -1)")
            return class_ids("xs", ids, "vocab_size", V, minus_one="for padding")
        valid = recurrent.valid_steps(None, host_array("lengths", lengths), *ids.shape)
        assert valid is not None
        class_ids("xs", ids[valid], "vocab_size", V, minus_one="for padding")
        ids = signed(ids)
        return np.where(valid, ids, ids.dtype.type(PADDING))


class Steps(NamedTuple):
    """What a model reads: ids (N, T), of which those count where mask (N, T) is True; ``some_masked`` unless all do."""

    ids: IntArray
    mask: BoolArray
    some_masked: bool

    @property
    def for_layers(self) -> BoolArray | None:
        """The mask, if recurrent layers need one."""
        return self.mask if self.some_masked else None


def steps_of(xs: IntArray) -> Steps:
    """Of ids (N, T) with -1 for padding, on the host cut to the longest row."""
    expect_ids("xs", xs)
    mask: BoolArray = xs != PADDING
    some_masked = True
    if not is_device_array(xs):  # on a GPU nobody looks at them here; `Batches` has cut them
        T = longest(mask)
        xs, mask = xs[:, :T], np.ascontiguousarray(mask[:, :T])
        some_masked = not mask.all()
    # Where the mask is False a recurrent layer reads nothing, so any id will do.
    return Steps(array_module(xs).where(mask, xs, xs.dtype.type(0)), mask, some_masked)


def longest(mask: BoolArray) -> int:
    """Steps up to the last that is valid in any row of mask (N, T)."""
    steps = np.flatnonzero(mask.any(axis=0))
    return int(steps[-1]) + 1 if len(steps) else 0


def last_steps(mask: BoolArray) -> IntArray:
    """Of mask (N, T) of the host: the steps up to each row's last that counts, (N,)."""
    if not mask.size:
        return np.zeros(len(mask), np.int64)
    ends: IntArray = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    return np.where(mask.any(axis=1), ends, 0)
