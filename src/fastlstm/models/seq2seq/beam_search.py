"""How a decoder writes by itself: the likeliest id every time, or the likeliest row that a beam search finds."""

from __future__ import annotations

import numpy as np

from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import BoolArray, FloatArray, IntArray
from fastlstm.layers import TimeAffineWithLoss
from fastlstm.models.seq2seq.decoder import Decoder
from fastlstm.models.seq2seq.encoder import Encoded
from fastlstm.ops.device import to_host

STEPS_BETWEEN_LOOKS = 16  # on a GPU, whether all rows are finished is read so often


def greedy_search(
    decoder: Decoder, output: TimeAffineWithLoss, encoded: Encoded, start_id: int, max_len: int, end_id: int | None
) -> IntArray:
    """Ids (N, max_len), the likeliest at every step; behind end_id a row is filled with it."""
    decoder.start(encoded)
    xp, N = array_module(encoded.hs), len(encoded.hs)
    last = xp.full((N, 1), start_id, np.int64)
    ended = xp.zeros((N, 1), bool)
    out: IntArray = xp.full((N, max_len), 0 if end_id is None else end_id, np.int64)
    for t in range(max_len):
        last = _next_scores(decoder, output, last).argmax(axis=-1)[:, None]
        if end_id is not None:
            last = xp.where(ended, end_id, last)
            ended |= last == end_id
        out[:, t] = last[:, 0]
        if end_id is not None and _all_known_to_have(ended, t):
            break
    return out


def beam_search(
    decoder: Decoder,
    output: TimeAffineWithLoss,
    encoded: Encoded,
    start_id: int,
    max_len: int,
    end_id: int | None,
    *,
    beam: int,
) -> IntArray:
    """Ids (N, max_len), the likeliest row found when ``beam`` candidates are kept at each step."""
    xp = array_module(encoded.hs)
    N, V = len(encoded.hs), output.params[0].shape[1]
    copies = xp.repeat(xp.arange(N), beam)
    states = [(h[copies], None if c is None else c[copies]) for h, c in encoded.states]
    mask = None if encoded.mask is None else encoded.mask[copies]
    decoder.start(Encoded(encoded.hs[copies], states, mask))
    # All candidates of a row start equal: only the first may go on, or the beam would hold one row many times.
    total = xp.full((N, beam), -np.inf)
    total[:, 0] = 0.0
    written = xp.full((N, beam, max_len), 0 if end_id is None else end_id, np.int64)
    ended = xp.zeros((N, beam), bool)
    only_the_end = xp.full(V, -np.inf)
    if end_id is not None:
        only_the_end[end_id] = 0.0
    last = xp.full((N * beam, 1), start_id, np.int64)
    for t in range(max_len):
        log_p = _log_softmax(_next_scores(decoder, output, last)).reshape(N, beam, V).astype(np.float64)
        if end_id is not None:
            log_p = xp.where(ended[:, :, None], only_the_end, log_p)
        candidates = (total[:, :, None] + log_p).reshape(N, beam * V)
        best = xp.argsort(-candidates, axis=1, kind="stable")[:, :beam]
        total = xp.take_along_axis(candidates, best, axis=1)
        parents, ids = best // V, best % V
        written = xp.take_along_axis(written, parents[:, :, None], axis=1)
        written[:, :, t] = ids
        if end_id is not None:
            ended = xp.take_along_axis(ended, parents, axis=1) | (ids == end_id)
            if _all_known_to_have(ended, t):
                break
        decoder.pick_rows((xp.arange(N)[:, None] * beam + parents).ravel())
        last = ids.reshape(N * beam, 1)
    best_row: IntArray = written[:, 0]
    return best_row


def _log_softmax(scores: FloatArray) -> FloatArray:
    """The logarithms of the probabilities, of scores (..., V): finite where `ops.softmax` underflows to 0."""
    shifted: FloatArray = scores - scores.max(axis=-1, keepdims=True)
    xp = array_module(scores)
    shifted -= xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _next_scores(decoder: Decoder, output: TimeAffineWithLoss, last: IntArray) -> FloatArray:
    """Ids (N, 1) written last -> scores (N, V) of the next."""
    return output.scores(decoder.forward(last, training=False))[:, 0]


def _all_known_to_have(ended: BoolArray, step: int) -> bool:
    """Whether all rows have ended; on a GPU, which has to be waited for, it is found out only now and then."""
    if is_device_array(ended) and (step + 1) % STEPS_BETWEEN_LOOKS:
        return False
    return bool(to_host(ended).all())
