"""The encoder: an embedding and a stack of LSTMs read the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import BoolArray, FloatArray, IntArray
from fastlstm.datasets.padding import PADDING
from fastlstm.layers import TimeBiLSTM, TimeDropout, TimeEmbedding, TimeLSTM


class Encoded(NamedTuple):
    """What the decoder gets: hs (N, S, H) of the top layer; h and c (N, H) of every layer after the last step.

    mask (N, S) is False where hs belongs to padding; None if none does.
    """

    hs: FloatArray
    states: list[tuple[FloatArray, FloatArray | None]]
    mask: BoolArray | None = None


class Encoder:
    """Embedding and a stack of LSTMs over the source."""

    def __init__(
        self,
        embedding: TimeEmbedding,
        lstms: Sequence[TimeLSTM | TimeBiLSTM],
        dropouts: Sequence[TimeDropout],
        *,
        reverse_source: bool,
        pass_cell_state: bool,
        pad_id: int | None,
    ) -> None:
        self.embedding = embedding
        self.lstms = lstms
        self.dropouts = dropouts
        self.reverse_source = reverse_source
        self.pass_cell_state = pass_cell_state
        self.pad_id = pad_id

    def forward(self, xs: IntArray, *, training: bool) -> Encoded:
        """Ids (N, S) -> states."""
        if self.reverse_source:
            xs = array_module(xs).ascontiguousarray(xs[:, ::-1])
        mask: BoolArray | None = None
        if self.pad_id is not None:
            padding = xs == self.pad_id
            # On a GPU nobody looks whether there is any.
            if is_device_array(xs) or padding.any():
                mask = ~padding
        elif not is_device_array(xs) and (xs == PADDING).any():  # a GPU's have none
            mask = xs != PADDING
            xs = np.where(mask, xs, xs.dtype.type(0))  # where nothing is read, any id will do
        out = self.embedding.forward(xs)
        states = []
        for dropout, lstm in zip(self.dropouts, self.lstms, strict=True):
            out = lstm.forward(dropout.forward(out), mask=mask, training=training)
            assert lstm.h is not None
            states.append((lstm.h, lstm.c if self.pass_cell_state else None))
        return Encoded(out, states, mask)

    def backward(self, dhs: FloatArray | None, dstates: Sequence[tuple[FloatArray | None, FloatArray | None]]) -> None:
        """dhs (N, S, H) by the top layer's states, None for zeros; dstates by every layer's last h and c."""
        for dropout, lstm, (dh, dc) in reversed(list(zip(self.dropouts, self.lstms, dstates, strict=True))):
            dhs = dropout.backward(lstm.backward(dhs, dh_n=dh, dc_n=dc if self.pass_cell_state else None))
        assert dhs is not None
        self.embedding.backward(dhs)
