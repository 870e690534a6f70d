"""Losses over a few classes instead of the whole vocabulary: negative sampling, NCE, sampled softmax."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import (
    Candidates,
    FloatArray,
    IntArray,
    PaddedRowGrad,
    PaddedSampledLoss,
    Reduction,
    RowGrad,
    SampledLoss,
)
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.layer import Layer, saved
from fastlstm.layers.losses import SigmoidWithLoss
from fastlstm.layers.seeds import Seeds, seeds_of
from fastlstm.ops import checks
from fastlstm.ops.array_likes import integers
from fastlstm.ops.device import number, row_grad, to_device, to_host


class EmbeddingDot(Layer):
    """Rows of W by id, each multiplied with a row of the input and summed.

    Parameters
    ----------
    W : (V, E)
    """

    param_names: ClassVar[tuple[str, ...]] = ("W",)

    def __init__(self, W: FloatArray) -> None:
        self.embed = Embedding(W)
        self.params = self.embed.params
        self.grads = self.embed.grads
        self.cache: tuple[FloatArray, FloatArray] | None = None

    def forward(self, h: FloatArray, idx: IntArray) -> FloatArray:
        """h (N, E), ids idx (N,) -> (N,). Keeps both."""
        h = _rows("h", h, self.params[0])
        checks.require_array("idx", idx)
        checks.expect_shape("idx", idx, h.shape[:1], "= (N,) for h (N, E)")
        target_W = self.embed.forward(idx)
        self.cache = (h, target_W)
        out: FloatArray = array_module(h).einsum("ne,ne->n", target_W, h)
        return out

    def backward(self, dout: FloatArray) -> FloatArray:
        """Gradient (N,) -> gradient by h, (N, E)."""
        h, target_W = saved(self.cache)
        checks.require_array("dout", dout)
        checks.expect_shape("dout", dout, h.shape[:1], "= (N,) of the forward call")
        column = dout[:, None]
        self.embed.backward(column * h)
        return column * target_W

    def forget_step(self) -> None:
        self.embed.forget_step()


def _rows(name: str, rows: Any, W: FloatArray) -> FloatArray:
    """Rows (N, E) as wide as those of W and of its dtype."""
    right = checks.float_array(name, rows, 2, W.dtype, "W")
    checks.expect_shape(name, right, (len(right), W.shape[1]), f"= (N, E) for W with shape {W.shape}")
    return right


class UnigramSampler:
    """Draws words that are not the target, each by its frequency to the power of ``power``, none twice for a target.

    Numpy's global generator is asked for the numbers that ``np.random.choice(..., replace=False, p=p)``, called for
    one target after the other as in "Deep Learning from Scratch 2", would take from it, and they are used as it uses
    them: the same seed gives the same words, without that function's pass over the whole vocabulary for every target.

    Parameters
    ----------
    corpus : (L,) ids
    power : float
    sample_size : int
        How many for each target.
    """

    def __init__(self, corpus: Any, power: float, sample_size: int) -> None:
        counts = self.word_counts(corpus)
        self.sample_size = sample_size
        self.vocab_size = len(counts)
        if sample_size >= self.vocab_size:
            raise ValueError(
                f"sample_size is {sample_size}, expected less than the {self.vocab_size} different words of the "
                "corpus: the sampled ones are different from each other and from the target"
            )
        self.word_p = counts.astype(np.float64) ** power
        self.word_p /= self.word_p.sum()
        self._cumulative = np.cumsum(self.word_p)

    def word_counts(self, corpus: Any) -> IntArray:
        """How often each word of the vocabulary occurs, (vocab_size,)."""
        if checks.is_array(corpus):
            checks.require_array("corpus", corpus)
        counts = np.bincount(to_host(corpus))
        if not counts.all():
            raise ValueError(
                f"corpus has ids up to {len(counts) - 1}, but {int(np.argmin(counts))} is not among them: every word "
                "of the vocabulary has to occur"
            )
        return counts

    def get_negative_sample(self, target: IntArray) -> IntArray:
        """Targets (N,) -> (N, sample_size) int32.

        For targets on a GPU, as in the book, words may come twice, and targets too: nobody looks at them.
        """
        if is_device_array(target):
            drawn = np.random.random_sample((len(target), self.sample_size))  # noqa: NPY002
            words = self._cumulative.searchsorted(drawn * self._cumulative[-1], side="right")
            return to_device(words.clip(0, self.vocab_size - 1).astype(np.int32), "cuda")
        target = np.asarray(target)
        N, S = len(target), self.sample_size
        sample = np.empty((N, S), np.int32)
        draws: FloatArray = np.empty(0)
        row = 0
        while row < N:
            # Each row that is left takes S numbers at least, so none is drawn in vain.
            draws = np.concatenate((draws, _random((N - row) * S - len(draws))))
            words = self._words(draws.reshape(-1, S), target[row:])
            ordered = np.sort(words, axis=1)
            repeats = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            # Rows up to the first that holds a word twice are done; that one takes more numbers, and all later rows
            # take theirs further on.
            done = int(repeats.argmax()) if repeats.any() else len(words)
            sample[row : row + done] = words[:done]
            draws = draws[done * S :]
            row += done
            if row < N:
                draws = self._fill_up(sample[row], words[done], draws[S:], int(target[row]))
                row += 1
        return sample

    def _words(self, draws: FloatArray, target: IntArray) -> IntArray:
        """Numbers from 0 to 1, (N, S), to words, as if the targets (N,) had no probability."""
        p = self.word_p[target][:, None]
        before = self._cumulative[target][:, None] - p
        places = draws * (self._cumulative[-1] - p)
        places += np.where(places >= before, p, 0.0)
        words = np.searchsorted(self._cumulative, places, side="right")
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
            cumulative = np.cumsum(p)
            draws = np.concatenate((draws, _random(missing - len(draws))))
            words = np.searchsorted(cumulative / cumulative[-1], draws[:missing], side="right")
            draws = draws[missing:]


def _random(n: int) -> FloatArray:
    return np.random.rand(max(n, 0))  # noqa: NPY002


class NegativeSamplingLoss(Layer):
    """Is this word the target? Sigmoid cross entropy of the target and of sample_size sampled words, summed.

    Parameters
    ----------
    W : (V, E)
    corpus : (L,) ids
        Every id of the vocabulary occurs in it.
    power : float
    sample_size : int
        Words drawn for each target, see `UnigramSampler`.
    """

    setting_names: ClassVar[tuple[str, ...]] = ("sample_size",)
    param_names: ClassVar[tuple[str, ...]] = ("W",)
    sampler_type: ClassVar[type[UnigramSampler]] = UnigramSampler

    def __init__(self, W: FloatArray, corpus: Any, power: float = 0.75, sample_size: int = 5) -> None:
        super().__init__(W)
        self.sample_size = sample_size
        self.sampler = self.sampler_type(corpus, power, sample_size)
        self._columns = SigmoidWithLoss()
        self._saved: tuple[FloatArray, IntArray, FloatArray] | None = None

    def forward(self, h: FloatArray, target: IntArray) -> float:
        """h (N, E), targets (N,) -> the loss: the sum over the words of the mean over the batch. Keeps h."""
        h = _rows("h", h, self.params[0])
        xp = array_module(h)
        if not is_device_array(target):
            target = integers("target", target, 1, "(N,)").astype(np.int64, copy=False)
            target = checks.int_ids("target", target, len(self.params[0]), "V = {}")
        checks.expect_shape("target", target, h.shape[:1], "= (N,) for h (N, E)")
        classes = xp.concatenate((target[:, None], self.sampler.get_negative_sample(target)), axis=1)
        rows = ops.embedding_forward(self.params[0], classes)
        self._saved = (h, classes, rows)
        is_true = xp.zeros(classes.shape, np.int32)
        is_true[:, 0] = 1
        return self._columns.forward(xp.einsum("nse,ne->ns", rows, h), is_true)

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by h, (N, E)."""
        h, classes, rows = saved(self._saved)
        dscores = self._columns.backward(dout)
        (dW,) = self.grads
        ops.embedding_backward(classes, dscores[:, :, None] * h[:, None, :], len(dW), out=dW)
        dh: FloatArray = array_module(h).einsum("ns,nse->ne", dscores, rows)
        return dh


class SampledClassesLoss(Layer):
    """Base of the losses whose sampled classes the whole batch shares.

    Parameters
    ----------
    params : W (V, E) and, where the loss has biases, b (V,)
    num_sampled : int
        S, how many classes are drawn for a batch.
    rng : numpy Generator, or Seeds that layers share, such as ``model.seeds``; optional
        Draws them; a new generator without a seed if there is none.

    Attributes
    ----------
    seeds : Seeds
    update_grads : list of RowGrad, on a GPU of PaddedRowGrad
        The gradients of the last forward call as optimisers take them, for those who need no array of the parameters'
        size: nothing synchronises.
    row_grads : list of RowGrad
        The same. On a GPU this synchronises.
    """

    def __init__(self, *params: FloatArray, num_sampled: int, rng: np.random.Generator | Seeds | None) -> None:
        super().__init__(*params)
        self.num_sampled = num_sampled
        self.seeds = seeds_of(np.random.default_rng() if rng is None else rng)
        self.update_grads: list[RowGrad | PaddedRowGrad] = []
        self._dh: FloatArray | None = None

    def candidates(self, target: IntArray) -> Candidates:
        """The classes for targets (N,)."""
        raise NotImplementedError

    def losses(self, h: FloatArray, target: IntArray, candidates: Candidates) -> SampledLoss | PaddedSampledLoss:
        """The loss of h (N, E) with targets (N,), and all gradients of its mean; padded on a GPU."""
        raise NotImplementedError

    def forward(self, h: FloatArray, target: IntArray, *, reduction: Reduction = "mean") -> float:
        """h (N, E), targets (N,) -> the mean or the sum of their losses. All gradients are computed here."""
        loss, self._dh, dweights, dbiases = self.losses(h, target, self.candidates(target))
        self.update_grads = [dweights] if dbiases is None else [dweights, dbiases]
        total: float = number(loss.sum())
        if reduction == "sum":
            for grad in (self._dh, *(rows.values for rows in self.update_grads)):
                grad *= len(loss)
            return total
        return total / max(len(loss), 1)

    @property
    def row_grads(self) -> list[RowGrad]:
        return [row_grad(grad) for grad in self.update_grads]

    def input_gradient(self) -> FloatArray:
        """The gradient by h, (N, E), without a change of ``grads``."""
        return saved(self._dh)

    def backward(self, dout: float = 1) -> FloatArray:
        """Gradient by h, (N, E)."""
        dh = saved(self._dh)
        factor = dh.dtype.type(dout)
        for grad, rows in zip(self.grads, self.row_grads, strict=True):
            grad[...] = 0
            grad[rows.indices] = rows.values * factor
        return dh * factor

    def capture_key(self) -> tuple[Any, ...]:
        return (*super().capture_key(), self.num_sampled, self.seeds)


class NCELoss(SampledClassesLoss):
    """Noise-contrastive estimation, as ``tf.nn.nce_loss`` with its log-uniform sampler.

    Parameters
    ----------
    W : (V, E)
    b : (V,)
    num_sampled : int
    rng : numpy Generator or Seeds, optional

    Notes
    -----
    Ids are to be sorted by descending frequency. The classes drawn for a batch are all different where the vocabulary
    is at least twice as large as the sample.
    """

    setting_names: ClassVar[tuple[str, ...]] = ("num_sampled",)
    param_names: ClassVar[tuple[str, ...]] = ("W", "b")

    def __init__(
        self, W: FloatArray, b: FloatArray, num_sampled: int = 64, *, rng: np.random.Generator | Seeds | None = None
    ) -> None:
        super().__init__(W, b, num_sampled=num_sampled, rng=rng)

    def candidates(self, target: IntArray) -> Candidates:
        V = len(self.params[0])
        unique = 2 * self.num_sampled <= V
        return ops.log_uniform_candidates(self.num_sampled, V, target, unique=unique, seed=self.seeds.take())

    def losses(self, h: FloatArray, target: IntArray, candidates: Candidates) -> SampledLoss | PaddedSampledLoss:
        W, b = self.params
        return ops.nce_loss(W, b, target, h, candidates, padded=is_device_array(h))


class SampledSoftmaxLoss(NCELoss):
    """Softmax over the target and the sampled classes, as ``tf.nn.sampled_softmax_loss``; arguments as of `NCELoss`."""

    def losses(self, h: FloatArray, target: IntArray, candidates: Candidates) -> SampledLoss | PaddedSampledLoss:
        W, b = self.params
        return ops.sampled_softmax_loss(W, b, target, h, candidates, padded=is_device_array(h))


class SharedNegativeSamplingLoss(SampledClassesLoss):
    """Negative sampling whose negatives the whole batch shares, which makes it a product of matrices.

    Parameters
    ----------
    W : (V, E)
    counts : (V,)
        How often each word occurs.
    num_sampled : int
    power : float
    rng : numpy Generator or Seeds, optional
    """

    param_names: ClassVar[tuple[str, ...]] = ("W",)

    def __init__(
        self,
        W: FloatArray,
        counts: IntArray,
        num_sampled: int = 5,
        power: float = 0.75,
        *,
        rng: np.random.Generator | Seeds | None = None,
    ) -> None:
        super().__init__(W, num_sampled=num_sampled, rng=rng)
        self.table = ops.UnigramTable(counts, power=power)

    def candidates(self, target: IntArray) -> Candidates:
        return ops.unigram_candidates(self.table, self.num_sampled, target, seed=self.seeds.take())

    def losses(self, h: FloatArray, target: IntArray, candidates: Candidates) -> SampledLoss | PaddedSampledLoss:
        return ops.negative_sampling_loss(self.params[0], target, h, candidates, padded=is_device_array(h))

    def capture_key(self) -> tuple[Any, ...]:
        return (*super().capture_key(), self.table)
