"""Language model: embedding, a stack of recurrent layers, and the probability of every next id.

Mikolov et al. (2010), "Recurrent neural network based language model"; Zaremba, Sutskever, Vinyals (2014), "Recurrent
neural network regularization" (dropout between the layers); Press, Wolf (2017), "Using the output embedding to improve
language models" (tied weights). Layers and initial weights as in chapters 5 and 6 of "Deep Learning from Scratch 2".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import DEFAULT_GATE_ORDER, Array, FloatArray, IntArray, Reduction
from fastlstm.distributed.gradients import GradPrecision
from fastlstm.distributed.workers import Workers
from fastlstm.layers import Layer, TimeAffineWithLoss, TimeDropout, TimeEmbedding, TimeGRU, TimeLSTM, TimeRNN
from fastlstm.layers.targets import as_ids
from fastlstm.layers.tied_output import TiedOutput
from fastlstm.models.ids import IGNORED, check_text, class_ids, expect_ids, host_array, integers
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.layer_graph import Edge
from fastlstm.models.model import Model
from fastlstm.models.softmax_head import SoftmaxHead
from fastlstm.models.text_streams import CarriedState, Streams, TextStreams, most_streams
from fastlstm.ops import scalars
from fastlstm.ops.device import to_device, to_host
from fastlstm.training import Callback, History, OptimizerLike, Trainer
from fastlstm.training.callback import check_callbacks
from fastlstm.training.means import PerplexityMean, RunningMean

CELLS = ("lstm", "gru", "rnn")


class RNNLM(Model):
    """A language model over ids: what comes next, given all that came before.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size : int
    cell : "lstm", "gru" or "rnn"
    num_layers : int
        Recurrent layers.
    dropout : float from 0 to below 1
        On the inputs of every recurrent layer and of the output layer, while training.
    tie_weights : bool
        The output layer projects with the embedding's weights; needs wordvec_size = hidden_size.
    init_scale : float above 0, optional
        Draw all weights and biases uniformly from -init_scale to init_scale. Without it: normal weights, scaled by
        1/sqrt(inputs), embeddings by 1/100, and biases of zero.
    seed : int, optional
        Fixes the initial weights and the dropout masks.
    dtype : "float32" or "float64"

    Notes
    -----
    ``forward`` takes ids xs (N, T) and the ids that follow, ts (N, T): N streams side by side. Each call goes on from
    the state the call before ended with; ``backward`` stays within the call (truncated backpropagation through time).
    ``reset_state`` starts anew. Targets of -1 do not count. Metrics: "perplexity", the exponential of the loss;
    "accuracy", the share of ids that were the likeliest to come next. An LSTM's gates lie in the order "ifgo", a GRU is
    written in the book's convention.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy")

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        tie_weights: bool = False,
        init_scale: float | None = None,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        dtype = weights_dtype(dtype)
        sizes = {
            "vocab_size": scalars.integer("vocab_size", vocab_size, 1),
            "wordvec_size": scalars.integer("wordvec_size", wordvec_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "num_layers": scalars.integer("num_layers", num_layers, 1),
        }
        if cell not in CELLS:
            raise ValueError(f"cell is {cell!r}, expected 'lstm', 'gru' or 'rnn'")
        if tie_weights and wordvec_size != hidden_size:
            raise ValueError(
                f"tie_weights needs equal widths, but wordvec_size is {wordvec_size} and hidden_size {hidden_size}"
            )
        dropout = scalars.below_one("dropout", dropout)
        if init_scale is not None:
            init_scale = scalars.positive("init_scale", init_scale)
        switches = {"cell": cell, "dropout": dropout, "tie_weights": tie_weights, "init_scale": init_scale}
        super().__init__({**sizes, **switches, "seed": seed, "dtype": dtype}, seed)

        weights = InitialWeights(self.rng, dtype, init_scale)
        W = weights.embedding(vocab_size, wordvec_size)
        self._embedding = TimeEmbedding(W)
        self._recurrent = [
            _recurrent_layer(weights, cell, wordvec_size if depth == 0 else hidden_size, hidden_size)
            for depth in range(num_layers)
        ]
        self._dropouts = [TimeDropout(dropout, rng=self.seeds) for _ in range(num_layers + 1)]
        self._output: TiedOutput | TimeAffineWithLoss
        if tie_weights:
            self._output = TiedOutput(W, weights.bias(vocab_size))
        else:
            self._output = TimeAffineWithLoss(*weights.affine(hidden_size, vocab_size))
        layers: dict[str, Layer] = {"embedding": self._embedding}
        layers |= {f"{cell}{depth}": layer for depth, layer in enumerate(self._recurrent, 1)}
        self._own_layers({**layers, "output": self._output}, self._dropouts)
        self._head = SoftmaxHead(self._output)

    def graph_edges(self) -> list[Edge]:
        """What flows between the layers, for `plot`."""
        names, D, H = list(self.layers), self.options["wordvec_size"], self.options["hidden_size"]
        shapes = ["(N, T)", f"(N, T, {D})", *([f"(N, T, {H})"] * self.options["num_layers"])]
        edges = [Edge(*ends, shape) for ends, shape in zip(pairwise(["ids", *names]), shapes, strict=True)]
        return [*edges, Edge(names[-1], "scores", f"(N, T, {self.options['vocab_size']})")]

    # ----------------------------------------------------------------------------------------
    # The carried state
    # ----------------------------------------------------------------------------------------

    def reset_state(self) -> None:
        """The next call starts from zeros."""
        for layer in self._recurrent:
            layer.reset_state()

    def state(self) -> list[FloatArray]:
        """What the next call starts from: h (N, H) of every layer from below, for an LSTM h and c; empty for zeros."""
        arrays = []
        for layer in self._recurrent:
            arrays += [layer.h, layer.c] if isinstance(layer, TimeLSTM) else [layer.h]
        return [array for array in arrays if array is not None]

    def set_state(self, state: Sequence[FloatArray]) -> None:
        """Go on from what `state` returned."""
        if not state:
            self.reset_state()
            return
        per_layer = 2 if self.options["cell"] == "lstm" else 1
        if len(state) != per_layer * len(self._recurrent):
            raise ValueError(f"state has {len(state)} arrays, expected {per_layer * len(self._recurrent)} or none")
        for depth, layer in enumerate(self._recurrent):
            layer.set_state(*state[depth * per_layer : (depth + 1) * per_layer])

    @contextmanager
    def _from_zero_state(self) -> Iterator[None]:
        """Inside the block the state starts at zero; afterwards it is what it was before."""
        before = self.state()
        self.reset_state()
        try:
            yield
        finally:
            self.set_state(before)

    # ----------------------------------------------------------------------------------------
    # Forward and backward
    # ----------------------------------------------------------------------------------------

    def check_batch(self, xs: Any, ts: Any) -> tuple[IntArray, IntArray]:
        """Ids xs (N, T) and the ids that follow, ts (N, T), of any array-likes.

        ts may also be (N, T, 1), or one-hot (N, T, V), where a row of zeros does not count.
        """
        ts = as_ids("ts", host_array("ts", ts), 2, self.options["vocab_size"], IGNORED)
        xs, ts = self._check_streams("xs", xs), self._check_streams("ts", ts, "to ignore it")
        if xs.shape != ts.shape:
            raise ValueError(f"ts has shape {ts.shape}, expected {xs.shape}, the shape of xs")
        return xs, ts

    def forward(self, xs: IntArray, ts: Array, *, training: bool = True, reduction: Reduction = "mean") -> float:
        """Ids xs (N, T), the ids that follow ts (N, T) -> loss. Goes on from the state of the call before."""
        expect_ids("xs", xs)
        targets = as_ids("ts", ts, 2, self.options["vocab_size"], IGNORED)
        before = self.state()
        try:
            features = self._features_of(xs, training=training)
            return self._head.forward(features, targets, training=training, reduction=reduction)
        except BaseException:  # wrong targets, or Ctrl-C between two layers: as if the call had not been
            self.set_state(before)
            raise

    def _features_of(self, xs: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, (N, T, H)."""
        h = self._recurrent[0].h
        if h is not None and len(h) != len(xs):
            raise ValueError(
                f"xs has {len(xs)} streams, but the state carried over has {len(h)}; reset_state() starts anew"
            )
        for dropout in self._dropouts:
            dropout.train_flg = training and dropout.dropout_ratio > 0
        out = self._embedding.forward(xs)
        for dropout, layer in zip(self._dropouts, self._recurrent, strict=False):
            out = layer.forward(dropout.forward(out), training=training)
        return self._dropouts[-1].forward(out)

    def _backward(self) -> None:
        dout = self._dropouts[-1].backward(self._head.backward())
        self._say_final("output")
        _, *names, _ = self.layers
        for name, dropout, layer in reversed(list(zip(names, self._dropouts, self._recurrent, strict=False))):
            dout = dropout.backward(layer.backward(dout))
            self._say_final(name)
        self._embedding.backward(dout)

    def _forget(self) -> None:
        self._head.forget()

    def count_targets(self, ts: Array) -> int:
        return int(np.count_nonzero(ts != IGNORED))

    @property
    def loss_count(self) -> int:
        return self._head.loss_count

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        """As for all models; of "perplexity", the sum of the losses, for `PerplexityMean`."""
        return self._head.metric_sums(names)

    def make_mean(self, name: str, total: float = 0.0, count: int = 0) -> RunningMean:
        return (PerplexityMean if name == "perplexity" else RunningMean)(total, count)

    # ----------------------------------------------------------------------------------------
    # Training and use
    # ----------------------------------------------------------------------------------------

    def fit(
        self,
        corpus: Array,
        *,
        epochs: int = 1,
        time_size: int = 35,
        batch_size: int = 20,
        optimizer: OptimizerLike = "adam",
        max_grad: float | None = None,
        validation_split: float = 0.0,
        validation_data: Array | None = None,
        metrics: Sequence[str] = ("loss", "perplexity"),
        callbacks: Sequence[Callback] | Callback | None = (),
        initial_epoch: int = 0,
        verbose: int | str = "auto",
        workers: Workers | None = None,
        shards: int = 1,
        grad_precision: GradPrecision | None = None,
    ) -> History:
        """Learn a text: one long array of ids, cut into parallel streams.

        Parameters
        ----------
        corpus : (L,) ids
            Integers of any kind, read where they lie: a ``numpy.memmap`` may be larger than the memory.
        epochs : int
            How often the text is read. Every epoch starts from the zero state.
        time_size : int
            Steps that ``backward`` goes back; the state is carried over from one such piece to the next. A stream that
            is shorter is one piece.
        batch_size : int
            Streams read side by side; no more than there are ids to say.
        validation_split : float from 0 to below 1
            Hold out the end of the text.
        validation_data : (K,) ids, optional
            Another text, evaluated after every epoch in batch_size streams; takes precedence over validation_split.
        optimizer, max_grad, metrics, callbacks, initial_epoch, verbose, workers, shards, grad_precision
            As in `Seq2seq.fit`. A shard is some of the streams.

        Returns
        -------
        History
            ``history["perplexity"]`` and the others are lists, an entry an epoch.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the batch at hand is done; the model is as it was after that batch.
        """
        corpus = self.check_corpus("corpus", corpus)
        split = scalars.below_one("validation_split", validation_split)
        if validation_data is not None:
            validation_data = self.check_corpus("validation_data", validation_data)
        elif split:
            end = len(corpus) - int(len(corpus) * split)
            validation_data = self.check_corpus("the held-out end of corpus", corpus[end:])
            corpus = self.check_corpus("the part of corpus to learn from", corpus[:end])
        validation = None
        if validation_data is not None:
            validation = (Streams(validation_data, most_streams(validation_data, batch_size)),)
        source = TextStreams(corpus, most_streams(corpus, batch_size), time_size, self.device)
        return Trainer(
            self,
            source,
            optimizer,
            epochs=epochs,
            initial_epoch=initial_epoch,
            max_grad=max_grad,
            validation_data=validation,
            metrics=metrics,
            callbacks=[CarriedState(self, source.batch_size), *check_callbacks(callbacks)],
            verbose=verbose,
            workers=workers,
            shards=shards,
            grad_precision=grad_precision,
        ).run()

    def evaluate(
        self,
        xs: Array | Streams,
        ts: Array | None = None,
        *,
        batch_size: int = 20,
        time_size: int = 35,
        metrics: Sequence[str] | None = None,
        workers: Workers | None = None,
        shards: int = 1,
        verbose: int | str = 0,
        return_dict: bool = True,
    ) -> dict[str, float]:
        """Loss, perplexity and accuracy of a text, without learning and without a change of the carried state.

        Parameters
        ----------
        xs : (L,) ids
            The text, read as batch_size parallel streams from the zero state. Every id but the first counts once. Like
            that of `fit` it may be a ``numpy.memmap``.
        ts : (N, L) ids, optional
            With it, xs (N, L) are streams and ts what follows each of their ids.
        batch_size, time_size : int
            time_size changes memory and speed only. There are no more streams than ids to say.
        metrics : sequence of str, optional
            Some of "perplexity" and "accuracy", all unless named.
        workers, shards
            As in `fit`.
        verbose, return_dict
            As in `Seq2seq.evaluate`.

        Raises
        ------
        ValueError
            No target counts: there are no streams or no steps, or all targets are -1.
        """
        time_size = scalars.integer("time_size", time_size, 1)
        if ts is not None:
            xs, ts = self.check_batch(xs, ts)
            self.require_targets(ts, "evaluate")
            starts = range(0, xs.shape[1], time_size)
            pieces = ((xs[:, start : start + time_size], ts[:, start : start + time_size]) for start in starts)
        else:
            if not isinstance(xs, Streams):
                corpus = self.check_corpus("xs", xs)
                xs = Streams(corpus, most_streams(corpus, batch_size))
            time_size = min(time_size, xs.steps)
            pieces = (xs.piece(i, time_size) for i in range(-(-xs.steps // time_size)))
        batches = (tuple(to_device(np.ascontiguousarray(ids), self.device) for ids in piece) for piece in pieces)
        with self._from_zero_state():
            return self._evaluate(batches, metrics, workers, shards, verbose=verbose, return_dict=return_dict)

    def predict(self, xs: IntArray) -> FloatArray:
        """Probabilities of every next id.

        Parameters
        ----------
        xs : (N, T) ids
            Read from the zero state; the carried state does not change.

        Returns
        -------
        (N, T, V) array
            [:, t] are the probabilities of what follows ``xs[:, t]``.
        """
        with self._from_zero_state():
            ids = to_device(self._check_streams("xs", xs), self.device)
            scores = self._output.scores(self._features_of(ids, training=False))
        return to_host(ops.softmax(scores, out=scores))

    def generate(
        self,
        start_ids: int | Sequence[int] | IntArray,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        skip_ids: Sequence[int] | IntArray = (),
        seed: int | None = None,
    ) -> IntArray:
        """Go on with a text, id by id.

        Parameters
        ----------
        start_ids : int or (S,) ids
            How the text begins; read from the zero state. The carried state does not change.
        length : int
            How many ids to write.
        temperature : float
            Below 1 likely ids become likelier; 0 takes the likeliest every time.
        top_k : int, optional
            Draw from the k likeliest ids only.
        skip_ids : sequence of int
            Ids that are never written.
        seed : int, optional
            The same seed draws the same text.

        Returns
        -------
        (length,) int64
            Without start_ids.
        """
        V = self.options["vocab_size"]
        if np.size(start_ids) == 0:
            raise ValueError("start_ids is empty, expected at least one id to go on from")
        start = self._check_ids("start_ids", start_ids if np.ndim(start_ids) else [start_ids])
        skip = self._check_ids("skip_ids", skip_ids)
        length = scalars.integer("length", length, 0)
        temperature = scalars.finite("temperature", temperature, 0)
        allowed = V - len(np.unique(skip))
        if not allowed:
            raise ValueError(f"skip_ids holds all {V} ids, so that nothing is left to write")
        keep = V if top_k is None else min(scalars.integer("top_k", top_k, 1), allowed)
        device = self.device
        # All at once, so that nothing has to go from the host to a GPU and back for an id.
        drawn = to_device(np.random.default_rng(seed).random(length if temperature else 0), device)
        out = to_device(np.empty(length, np.int64), device)
        skip, last = to_device(skip, device), to_device(start[None], device)
        with self._from_zero_state(), self.weights_prepared():
            for i in range(length):
                features = self._features_of(last, training=False)
                (scores,) = self._output.scores(features[:, -1])
                scores[skip] = -np.inf
                out[i : i + 1] = _choose(scores, keep, temperature, drawn[i : i + 1])
                last = out[None, i : i + 1]
        return to_host(out)

    def check_corpus(self, name: str, corpus: Any) -> IntArray:
        """A text as ids (L,) in their own dtype, not copied; raises if it cannot be learned from."""
        ids = integers(name, corpus, 1, "one axis, (ids,)")
        check_text(name, ids, "vocab_size", self.options["vocab_size"])
        if len(ids) < 2:
            raise ValueError(f"{name} has {len(ids)} ids, expected at least 2: one to read and one to say")
        return ids

    def _check_ids(self, name: str, ids: Any) -> IntArray:
        ids = integers(name, ids, 1, "one axis, (ids,)")
        return class_ids(name, ids, "vocab_size", self.options["vocab_size"])

    def _check_streams(self, name: str, ids: Any, minus_one: str = "") -> IntArray:
        ids = integers(name, ids, 2, "two axes, (streams, time steps)")
        return class_ids(name, ids, "vocab_size", self.options["vocab_size"], minus_one=minus_one)


def _recurrent_layer(weights: InitialWeights, cell: str, D: int, H: int) -> TimeLSTM | TimeGRU | TimeRNN:
    if cell == "lstm":
        return TimeLSTM(*weights.lstm(D, H), stateful=True, gate_order=DEFAULT_GATE_ORDER)
    if cell == "gru":
        return TimeGRU(*weights.gru(D, H), stateful=True)
    return TimeRNN(*weights.rnn(D, H), stateful=True)


def _choose(scores: FloatArray, keep: int, temperature: float, drawn: FloatArray) -> IntArray:
    """One id, (1,), by its score, (V,), among the ``keep`` with the highest scores.

    drawn (1,) in [0, 1) is used as numpy's Generator.choice would use it. Scores may be overwritten.
    """
    xp = array_module(scores)
    if temperature == 0 or keep == 1:
        likeliest: IntArray = scores.argmax().reshape(1)
        return likeliest
    best = None if keep >= len(scores) else xp.sort(xp.argpartition(-scores, keep - 1)[:keep])
    if best is not None:
        scores = scores[best]
    scores -= scores.max()
    with np.errstate(over="ignore"):  # a tiny temperature: minus infinity is right, and zero is none in float32
        scores /= max(temperature, 1e-30)
    cumulated = xp.exp(scores, out=scores).cumsum(dtype=np.float64)
    chosen: IntArray = (cumulated <= drawn * cumulated[-1:]).sum().reshape(1)
    return chosen if best is None else best[chosen]
