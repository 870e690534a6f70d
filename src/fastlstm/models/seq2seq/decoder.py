"""The decoder: an embedding and a stack of LSTMs go on from the encoder's states, up to the output layer's input."""

from __future__ import annotations

from collections.abc import Sequence

from fastlstm.arrays import array_module
from fastlstm.contract import FloatArray, IntArray
from fastlstm.layers import TimeAttention, TimeDropout, TimeEmbedding, TimeLSTM
from fastlstm.models.seq2seq.encoder import Encoded


class Decoder:
    """Embedding and a stack of LSTMs that start from the encoder's states, up to what the output layer projects.

    Peeky: the encoder's last state stands before the input of every LSTM and of the output layer. Attention: the
    context vector stands before the input of the output layer.
    """

    def __init__(
        self,
        embedding: TimeEmbedding,
        lstms: Sequence[TimeLSTM],
        dropouts: Sequence[TimeDropout],
        *,
        peeky: bool,
        attention: TimeAttention | None,
    ) -> None:
        self.embedding = embedding
        self.lstms = lstms
        self.dropouts = dropouts
        self.peeky = peeky
        self.attention = attention
        self.H = lstms[0].params[1].shape[0]
        self._encoded: Encoded | None = None

    def start(self, encoded: Encoded) -> None:
        """Take over the encoder's states."""
        self._encoded = encoded
        for lstm, (h, c) in zip(self.lstms, encoded.states, strict=True):
            lstm.set_state(h, c)

    def forward(self, ids: IntArray, *, training: bool) -> FloatArray:
        """Previous ids (N, T) -> input of the output layer (N, T, F). Goes on from the last call, or from `start`."""
        assert self._encoded is not None
        out = self.embedding.forward(ids)
        h = self._encoded.states[-1][0]
        xp = array_module(h)
        peek = [xp.broadcast_to(h[:, None], (*ids.shape, self.H))] if self.peeky else []
        for dropout, lstm in zip(self.dropouts, self.lstms, strict=False):
            out = lstm.forward(_join([*peek, dropout.forward(out)]), training=training)
        encoded = self._encoded
        context = [] if self.attention is None else [self.attention.forward(encoded.hs, out, encoded.mask)]
        return self.dropouts[-1].forward(_join([*peek, *context, out]))

    def backward(self, dout: FloatArray) -> tuple[FloatArray | None, list[tuple[FloatArray | None, FloatArray | None]]]:
        """dout (N, T, F) -> dhs and dstates for `Encoder.backward`."""
        H = self.H
        dout = self.dropouts[-1].backward(dout)
        dpeek: FloatArray | None = None
        dhs: FloatArray | None = None
        if self.peeky:
            dpeek, dout = dout[..., :H].sum(axis=1), dout[..., H:]
        if self.attention is not None:
            dcontext, dout = dout[..., :H], dout[..., H:]
            dhs, dout_by_attention = self.attention.backward(array_module(dcontext).ascontiguousarray(dcontext))
            dout = dout + dout_by_attention
        dstates: list[tuple[FloatArray | None, FloatArray | None]] = []
        for dropout, lstm in reversed(list(zip(self.dropouts, self.lstms, strict=False))):
            dout = lstm.backward(dout)
            dstates.insert(0, (lstm.dh, lstm.dc))
            if dpeek is not None:
                dpeek += dout[..., :H].sum(axis=1)
                dout = dout[..., H:]
            dout = dropout.backward(dout)
        self.embedding.backward(dout)
        if dpeek is not None:
            dh, dc = dstates[-1]
            dstates[-1] = (dpeek if dh is None else dh + dpeek, dc)
        return dhs, dstates

    def pick_rows(self, rows: IntArray) -> None:
        """Go on with these rows of the states: what a beam search keeps."""
        for lstm in self.lstms:
            assert lstm.h is not None
            assert lstm.c is not None
            lstm.set_state(lstm.h[rows], lstm.c[rows])


def _join(parts: Sequence[FloatArray]) -> FloatArray:
    """Side by side along the last axis."""
    return parts[0] if len(parts) == 1 else array_module(parts[0]).concatenate(parts, axis=-1)
