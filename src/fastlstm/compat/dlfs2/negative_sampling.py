"""``ch04.negative_sampling_layer``: word2vec's loss with negative samples of each row's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import ops
from fastlstm.backends import array_module, is_device_array
from fastlstm.compat.dlfs2.arrays import ids_of, of_dtype
from fastlstm.compat.dlfs2.functions import sigmoid
from fastlstm.compat.dlfs2.layers import Embedding
from fastlstm.contract import Array, FloatArray, IntArray
from fastlstm.layers.layer import Layer, saved
from fastlstm.ops.device import number, to_device, to_host


class EmbeddingDot(Layer):
    """Dot products of rows of W with rows of h.

    Parameters
    ----------
    W : (V, E)
    """

    def __init__(self, W: FloatArray) -> None:
        self.embed = Embedding(W)
        self.params, self.grads = self.embed.params, self.embed.grads
        self._operands: tuple[FloatArray, FloatArray] | None = None

    def forward(self, h: FloatArray, idx: IntArray) -> FloatArray:
        """h (B, E), ids (B,) -> (B,)."""
        rows = self.embed.forward(idx)
        self._operands = h, rows
        products: FloatArray = array_module(h).einsum("be,be->b", rows, h)
        return products

    def backward(self, dout: FloatArray) -> FloatArray:
        """(B,) -> dh (B, E)."""
        h, rows = saved(self._operands)
        dout = dout.reshape(-1, 1)
        self.embed.backward(dout * h)
        return dout * rows


class UnigramSampler:
    """Draws words by their frequency, never a row's own target and none twice for a row.

    Numpy's global generator is asked for the numbers that ``np.random.choice(..., replace=False, p=p)``, called for
    one row after the other, would take from it, and they are used as it uses them: the same seed gives the same words,
    without that function's pass over the whole vocabulary for every row.

    Parameters
    ----------
    corpus : (L,) ids
    power : float
        Applied to the frequencies.
    sample_size : int
        Words a row.
    """

    def __init__(self, corpus: Any, power: float, sample_size: int) -> None:
        counts = np.bincount(ids_of(to_host(corpus)))
        # As many words as the corpus has different ones: the book's rule, for ids without a gap.
        self.vocab_size = int(np.count_nonzero(counts))
        self.sample_size = sample_size
        if self.vocab_size <= sample_size:
            raise ValueError(
                f"sample_size is {sample_size}, expected less than the {self.vocab_size} different words of the corpus"
            )
        self.word_p = np.power(counts[: self.vocab_size].astype(np.float64), power)
        self.word_p /= self.word_p.sum()
        self._cumulated = np.cumsum(self.word_p)

    def get_negative_sample(self, target: Any) -> IntArray:
        """Targets (B,) -> (B, sample_size) int32.

        For targets on a GPU, as in the book, words may come twice, and targets too: nobody looks at them.
        """
        if is_device_array(target):
            drawn = np.random.random_sample((len(target), self.sample_size))  # noqa: NPY002
            words = self._cumulated.searchsorted(drawn * self._cumulated[-1], side="right")
            return to_device(words.clip(0, self.vocab_size - 1).astype(np.int32), "cuda")
        target = ids_of(target)
        B, S = len(target), self.sample_size
        sample = np.empty((B, S), np.int32)
        draws: FloatArray = np.empty(0)
        row = 0
        while row < B:
            # Each row that is left takes S numbers at least, so none is drawn in vain.
            draws = np.concatenate((draws, _random((B - row) * S - len(draws))))
            words = self._words(draws.reshape(-1, S), target[row:])
            ordered = np.sort(words, axis=1)
            repeats = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            # Rows up to the first that holds a word twice are done; that one takes more numbers, and all later rows
            # take theirs further on.
            done = int(repeats.argmax()) if repeats.any() else len(words)
            sample[row : row + done] = words[:done]
            draws = draws[done * S :]
            row += done
            if row < B:
                draws = self._fill_up(sample[row], words[done], draws[S:], int(target[row]))
                row += 1
        return sample

    def _words(self, draws: FloatArray, target: IntArray) -> IntArray:
        """Numbers from 0 to 1, (B, S), to words, as if the targets (B,) had no probability."""
        p = self.word_p[target][:, None]
        before = self._cumulated[target][:, None] - p
        places = draws * (self._cumulated[-1] - p)
        places += np.where(places >= before, p, 0.0)
        words = np.searchsorted(self._cumulated, places, side="right")
        words += words == target[:, None]  # a place that rounding has put back into the target's interval
        in_range: IntArray = np.minimum(words, self.vocab_size - 1)
        return in_range

    def _fill_up(self, sample: IntArray, words: IntArray, draws: FloatArray, target: int) -> FloatArray:
        """One row's sample, by further draws in place of repeated words; returns the draws that are left."""
        p = self.word_p.copy()
        p[target] = 0.0
        found = 0
        while True:
            new = words[np.sort(np.unique(words, return_index=True)[1])]
            sample[found : found + len(new)] = new
            found += len(new)
            missing = self.sample_size - found
            if not missing:
                return draws
            p[sample[:found]] = 0.0
            cumulated = np.cumsum(p)
            draws = np.concatenate((draws, _random(missing - len(draws))))
            words = np.searchsorted(cumulated / cumulated[-1], draws[:missing], side="right")
            draws = draws[missing:]


def _random(n: int) -> FloatArray:
    return np.random.rand(max(n, 0))  # noqa: NPY002


class NegativeSamplingLoss(Layer):
    """Binary cross entropy of the target's score and of sampled words' scores, each the mean over the batch, summed.

    Parameters
    ----------
    W : (V, E)
    corpus : (L,) ids
    power, sample_size
        As for `UnigramSampler`.

    Attributes
    ----------
    params, grads : list of one array
        The book has W here sample_size + 1 times, with as many gradients, whose sum this one is.
    """

    param_names = ("W",)

    def __init__(self, W: FloatArray, corpus: Any, power: float = 0.75, sample_size: int = 5) -> None:
        super().__init__(W)
        self.sample_size = sample_size
        self.sampler = UnigramSampler(corpus, power, sample_size)
        self._saved: tuple[FloatArray, IntArray, FloatArray, FloatArray] | None = None

    def forward(self, h: FloatArray, target: Array) -> float:
        """h (B, E), target (B,) ids -> loss."""
        (W,) = self.params
        h = of_dtype(h, W.dtype)
        target = ids_of(target)
        xp = array_module(h)
        ids = xp.concatenate((target[:, None], self.sampler.get_negative_sample(target)), axis=1)
        rows = ops.embedding_forward(W, ids)
        scores = (rows @ h[:, :, None])[:, :, 0]
        dscores = sigmoid(scores)
        dscores[:, 0] -= 1
        dscores /= len(target)
        self._saved = h, ids, rows, dscores
        # -log(sigmoid(s)) of the target and -log(1 - sigmoid(s)) of the others, without the logarithm of 0.
        losses = xp.log1p(xp.exp(-xp.abs(scores)))
        losses[:, 0] += xp.maximum(-scores[:, 0], 0)
        losses[:, 1:] += xp.maximum(scores[:, 1:], 0)
        loss: float = number(losses.sum() / len(target))
        return loss

    def backward(self, dout: float = 1) -> FloatArray:
        """dh (B, E)."""
        h, ids, rows, dscores = saved(self._saved)
        if dout != 1:
            dscores = dscores * dscores.dtype.type(dout)
        (dW,) = self.grads
        ops.embedding_backward(ids, dscores[:, :, None] * h[:, None, :], len(dW), out=dW)
        dh: FloatArray = (dscores[:, None, :] @ rows)[:, 0]
        return dh
