"""Sequence to sequence: an encoder LSTM reads the source, a decoder LSTM writes the target.

Sutskever, Vinyals, Le (2014), "Sequence to sequence learning with neural networks" (reversed source); Cho et al. (2014)
(the peeky decoder); Luong, Pham, Manning (2015) (attention). Layers and initial weights as in chapters 7 and 8 of "Deep
Learning from Scratch 2".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastlstm import ops
from fastlstm.arrays import array_module, is_device_array
from fastlstm.contract import DEFAULT_GATE_ORDER, Array, FloatArray, IntArray, Reduction
from fastlstm.datasets.padding import PADDING, is_ragged, padded, warn_of_zeros
from fastlstm.layers import Layer, TimeAffineWithLoss, TimeAttention, TimeBiLSTM, TimeDropout, TimeEmbedding, TimeLSTM
from fastlstm.layers.targets import as_ids
from fastlstm.models.ids import IGNORED, class_ids, expect_ids, host_array, integers
from fastlstm.models.initial_weights import InitialWeights, weights_dtype
from fastlstm.models.layer_graph import Edge
from fastlstm.models.names import Names
from fastlstm.models.row_model import RowModel, require_same_rows
from fastlstm.models.row_weights import by_step
from fastlstm.models.seq2seq.beam_search import beam_search, greedy_search
from fastlstm.models.seq2seq.decoder import Decoder
from fastlstm.models.seq2seq.encoder import Encoder
from fastlstm.models.softmax_head import SoftmaxHead
from fastlstm.ops import checks, scalars
from fastlstm.ops.device import count_true, number, to_device, to_host
from fastlstm.training.batches import Lengths
from fastlstm.training.progress import shown

AXES = "two axes, (examples, time steps), or one-hot rows"


class Seq2seq(RowModel):
    """An encoder LSTM reads the source, a decoder LSTM writes the target.

    Parameters
    ----------
    vocab_size, wordvec_size, hidden_size : int
        V, D and H. Of a bidirectional model the decoder's H is 2 * hidden_size.
    target_vocab_size : int, optional
        Of the decoder; vocab_size unless given.
    num_layers : int
        LSTMs in the encoder and in the decoder.
    reverse_source : bool
        The encoder reads the source from its end.
    share_embedding : bool
        Encoder and decoder use one embedding; needs one vocabulary.
    bidirectional : bool
        Two LSTMs a layer read the source in both directions; the decoder starts from their states side by side.
    peeky : bool
        Every LSTM of the decoder and the output layer see the encoder's last state at every step.
    attention : bool
        The output layer sees the encoder's states, weighted by their dot products with the decoder's.
    pass_cell_state : bool
        The decoder starts from the encoder's h and c; False: from h alone, as in "Deep Learning from Scratch 2".
    dropout : float from 0 to below 1
        On the inputs of every LSTM and of the output layer, while training.
    pad_id : int, optional
        The id that fills up shorter rows, anywhere in a row: in a source the encoder carries its state over it and no
        attention falls on it, in a target it does not count. -1 is the same, with a pad_id or without it.
    seed : int, optional
        Fixes the initial weights, the order of the training rows and the dropout masks.
    dtype : "float32" or "float64"

    Attributes
    ----------
    target_vocabulary : list of str or None
        What the target's ids mean; None: the same as ``vocabulary``.

    Notes
    -----
    Targets ``ts (N, T)`` hold the start symbol first: the decoder reads ``ts[:, :-1]`` and is to say ``ts[:, 1:]``.
    Targets of -1 do not count. Metrics: "accuracy", the share of rows that are right from beginning to end, as
    `generate` would write them; "token_accuracy", the share of right ids when all ids before are given. Gates lie in
    the order "ifgo".
    """

    target_vocabulary = Names("target_vocab_size")
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "token_accuracy")
    class_names: ClassVar[tuple[str, str] | None] = ("target_vocab_size", "target_vocabulary")
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary", "target_vocabulary")

    def __init__(
        self,
        vocab_size: int,
        wordvec_size: int,
        hidden_size: int,
        *,
        target_vocab_size: int | None = None,
        num_layers: int = 1,
        reverse_source: bool = False,
        share_embedding: bool = False,
        bidirectional: bool = False,
        peeky: bool = False,
        attention: bool = False,
        pass_cell_state: bool = True,
        dropout: float = 0.0,
        pad_id: int | None = None,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        dtype = weights_dtype(dtype)
        target_vocab_size = vocab_size if target_vocab_size is None else target_vocab_size
        sizes = {
            "vocab_size": scalars.integer("vocab_size", vocab_size, 1),
            "wordvec_size": scalars.integer("wordvec_size", wordvec_size, 1),
            "hidden_size": scalars.integer("hidden_size", hidden_size, 1),
            "target_vocab_size": scalars.integer("target_vocab_size", target_vocab_size, 1),
            "num_layers": scalars.integer("num_layers", num_layers, 1),
        }
        dropout = scalars.below_one("dropout", dropout)
        if share_embedding and target_vocab_size != vocab_size:
            raise ValueError(
                f"share_embedding needs one vocabulary, but vocab_size is {vocab_size} and target_vocab_size "
                f"{target_vocab_size}"
            )
        switches = {
            "reverse_source": reverse_source,
            "share_embedding": share_embedding,
            "bidirectional": bidirectional,
            "peeky": peeky,
            "attention": attention,
            "pass_cell_state": pass_cell_state,
        }
        if pad_id is not None:
            pad_id = scalars.integer("pad_id", pad_id, 0)
            if pad_id >= min(vocab_size, target_vocab_size):
                raise ValueError(
                    f"pad_id is {pad_id}, expected an id of both vocabularies, which have {vocab_size} and "
                    f"{target_vocab_size}"
                )
        rest = {"dropout": dropout, "pad_id": pad_id, "seed": seed, "dtype": dtype}
        super().__init__({**sizes, **switches, **rest}, seed)
        self.target_vocabulary = None

        weights = InitialWeights(self.rng, dtype)
        D, H = wordvec_size, hidden_size * (2 if bidirectional else 1)
        layers: dict[str, Layer] = {}

        source_embedding = weights.embedding(vocab_size, D)
        layers["encoder.embedding"] = encoder_embedding = TimeEmbedding(source_embedding)
        encoder_lstms: list[TimeLSTM | TimeBiLSTM] = []
        for depth in range(num_layers):
            width = D if depth == 0 else H
            lstm: TimeLSTM | TimeBiLSTM
            if bidirectional:
                forwards, backwards = weights.lstm(width, hidden_size), weights.lstm(width, hidden_size)
                lstm = TimeBiLSTM(*forwards, *backwards, gate_order=DEFAULT_GATE_ORDER)
            else:
                lstm = TimeLSTM(*weights.lstm(width, H), gate_order=DEFAULT_GATE_ORDER)
            layers[f"encoder.lstm{depth + 1}"] = lstm
            encoder_lstms.append(lstm)

        target_embedding = source_embedding if share_embedding else weights.embedding(target_vocab_size, D)
        layers["decoder.embedding"] = decoder_embedding = TimeEmbedding(target_embedding)
        decoder_lstms = []
        for depth in range(num_layers):
            width = (D if depth == 0 else H) + (H if peeky else 0)
            decoder_lstms.append(TimeLSTM(*weights.lstm(width, H), stateful=True, gate_order=DEFAULT_GATE_ORDER))
            layers[f"decoder.lstm{depth + 1}"] = decoder_lstms[-1]
        attention_layer = TimeAttention() if attention else None
        if attention_layer is not None:
            layers["decoder.attention"] = attention_layer
        self._dropouts = [TimeDropout(dropout, rng=self.seeds) for _ in range(2 * num_layers + 1)]
        self._output = TimeAffineWithLoss(*weights.affine(H * (1 + peeky + attention), target_vocab_size))
        self._head = SoftmaxHead(self._output)
        layers["output"] = self._output

        self._encoder = Encoder(
            encoder_embedding,
            encoder_lstms,
            self._dropouts[:num_layers],
            reverse_source=reverse_source,
            pass_cell_state=pass_cell_state,
            pad_id=pad_id,
        )
        self._pad_id = pad_id
        self._decoder = Decoder(
            decoder_embedding, decoder_lstms, self._dropouts[num_layers:], peeky=peeky, attention=attention_layer
        )
        self._own_layers(layers, self._dropouts)

    @property
    def attention_weights(self) -> list[FloatArray]:
        """Of the last call: (N, S) for each decoder step. With reverse_source the S source steps stand reversed."""
        attention = self._decoder.attention
        if attention is None:
            raise ValueError("the model has no attention; make it with attention=True")
        return attention.attention_weights

    def attention_map(self, xs: Array, ts: Array) -> FloatArray:
        """How much the decoder looks at each source step while it writes a target.

        Parameters
        ----------
        xs : (N, S) ids
        ts : (N, T) ids
            The start symbol first: what `generate` wrote goes behind it.

        Returns
        -------
        (N, T - 1, S) array
            [n, t, s] is the weight of xs[n, s] when ts[n, t + 1] is written; the sum over s is 1.

        Raises
        ------
        ValueError
            The model has no attention.
        """
        if self._decoder.attention is None:
            raise ValueError("the model has no attention; make it with attention=True")
        xs, ts = self.check_batch(xs, ts)
        device = self.device
        self._features_of(to_device(xs, device), to_device(_readable(ts[:, :-1]), device), training=False)
        weights = np.stack([to_host(step) for step in self.attention_weights], axis=1)
        return weights[..., ::-1] if self._encoder.reverse_source else weights

    def graph_edges(self) -> list[Edge]:
        """What flows between the layers, for `plot`."""
        options = self.options
        D, H = options["wordvec_size"], self._decoder.H
        edges = [Edge("source ids", "encoder.embedding", "(N, S)")]
        below = "encoder.embedding"
        for depth in range(1, options["num_layers"] + 1):
            edges.append(Edge(below, below := f"encoder.lstm{depth}", f"(N, S, {D if depth == 1 else H})"))
        top = below
        edges.append(Edge("target ids", below := "decoder.embedding", "(N, T)"))
        state = "h, c" if options["pass_cell_state"] else "h"
        for depth in range(1, options["num_layers"] + 1):
            layer = f"decoder.lstm{depth}"
            edges.append(Edge(below, layer, f"(N, T, {D if depth == 1 else H})"))
            of_the_top = depth == options["num_layers"]
            again = ", h at every step" if options["peeky"] and of_the_top else ""
            edges.append(Edge(f"encoder.lstm{depth}", layer, f"{state} (N, {H}){again}"))
            if options["peeky"] and not of_the_top:
                edges.append(Edge(top, layer, f"h (N, {H})"))
            below = layer
        if options["attention"]:
            edges.append(Edge(top, "decoder.attention", f"hs (N, S, {H})"))
            edges.append(Edge(below, "decoder.attention", f"(N, T, {H})"))
            edges.append(Edge("decoder.attention", "output", f"(N, T, {H})"))
        edges.append(Edge(below, "output", f"(N, T, {H})"))
        if options["peeky"]:
            edges.append(Edge(top, "output", f"h (N, {H})"))
        return [*edges, Edge("output", "scores", f"(N, T, {options['target_vocab_size']})")]

    def check_batch(self, xs: Any, ts: Any) -> tuple[IntArray, IntArray]:
        """Ids xs (N, S) and ts (N, T), T at least 2, of any array-likes.

        Both may be one-hot, (N, S, V) and (N, T, V), where a row of zeros is padding, as in Keras's examples; or ids
        with a last axis of one, (N, S, 1) and (N, T, 1).
        """
        xs, ts = self._source_ids(xs), self._target_ids(ts)
        require_same_rows(xs, ts)
        if ts.shape[1] < 2:
            raise ValueError(f"ts has shape {ts.shape}, expected at least 2 steps: the start symbol and what follows")
        return xs, ts

    def lengths(self, xs: Array, ts: Array) -> Lengths:
        pad_id = self._pad_id
        if pad_id is None:
            return None, None
        return _steps_before_padding(xs, pad_id, min(1, xs.shape[1])), _steps_before_padding(ts, pad_id, 2)

    def _source_ids(self, xs: Any) -> IntArray:
        V, pad_id = self.options["vocab_size"], self._pad_id
        xs = padded("xs", xs) if is_ragged(xs) else xs
        ids = integers("xs", as_ids("xs", host_array("xs", xs), 2, V, pad_id), 2, AXES)
        ids = class_ids("xs", ids, "vocab_size", V, minus_one="for padding")
        padding = ids == PADDING
        if pad_id is not None:
            return np.where(padding, ids.dtype.type(pad_id), ids) if padding.any() else ids
        warn_of_zeros("xs", ids, self.vocabulary, "Seq2seq(pad_id=0), or numpy.where(mask, xs, -1)")
        if self.device == "cuda" and padding.any():
            raise ValueError("xs holds -1 for padding; on a GPU the model needs a pad_id for that: Seq2seq(pad_id=0)")
        return ids

    def _target_ids(self, ts: Any) -> IntArray:
        V = self.options["target_vocab_size"]
        ids = integers("ts", as_ids("ts", host_array("ts", ts), 2, V, IGNORED), 2, AXES)
        return class_ids("ts", ids, "target_vocab_size", V, minus_one="to ignore it")

    def _target_id(self, name: str, value: int) -> int:
        V, value = self.options["target_vocab_size"], scalars.integer(name, value)
        if not 0 <= value < V:
            raise IndexError(f"{name} is {value}, expected 0 to {V - 1} (target_vocab_size = {V})")
        return value

    def forward(
        self,
        xs: Array,
        ts: Array,
        sample_weight: FloatArray | None = None,
        *,
        training: bool = True,
        reduction: Reduction = "mean",
    ) -> float:
        """Ids xs (N, S), targets ts (N, T) with the start symbol first -> loss. One-hot arrays are accepted.

        Weights are (N,), or (N, T), of which that of the start symbol is not read.
        """
        checks.require_array("xs", xs)
        checks.require_array("ts", ts)
        if xs.ndim == 3:
            xs = to_device(self._source_ids(xs), self.device)
        if ts.ndim == 3:
            ts = to_device(self._target_ids(ts), self.device)
        expect_ids("xs", xs)
        expect_ids("ts", ts)
        require_same_rows(xs, ts)
        if self._pad_id is not None and not is_device_array(xs):
            # Steps that are padding in every row of the batch change nothing. On a GPU, nobody looks at them here.
            xs, ts = _without_last_padding(xs, self._pad_id, 1), _without_last_padding(ts, self._pad_id, 2)
        targets = self._to_say(ts)
        previous = _readable(ts[:, :-1])
        features = self._features_of(xs, previous, training=training)
        weights = None if sample_weight is None else by_step(sample_weight, ts.shape)[:, 1:]
        return self._head.forward(features, targets, training=training, reduction=reduction, weights=weights)

    def _to_say(self, ts: IntArray) -> IntArray:
        """Targets with the start symbol first -> those behind it, -1 where they do not count."""
        xp = array_module(ts)
        targets: IntArray = xp.ascontiguousarray(ts[:, 1:])
        if self._pad_id is not None:
            targets = xp.where(targets == self._pad_id, targets.dtype.type(IGNORED), targets)
        return targets

    def _backward(self) -> None:
        dfeatures = self._head.backward()
        self._say_final("output")
        dencoded = self._decoder.backward(dfeatures)
        self._say_final("decoder.embedding")
        self._encoder.backward(*dencoded)

    def _features_of(self, xs: IntArray, previous: IntArray, *, training: bool) -> FloatArray:
        """What the output layer projects, (N, T, F), when the decoder reads ``previous``."""
        self._set_dropout(training)
        self._decoder.start(self._encoder.forward(xs, training=training))
        return self._decoder.forward(previous, training=training)

    def _set_dropout(self, training: bool) -> None:
        for dropout in self._dropouts:
            dropout.train_flg = training and dropout.dropout_ratio > 0

    def _forget(self) -> None:
        self._head.forget()

    def count_targets(self, ts: Array) -> int:
        return int(np.count_nonzero(self._to_say(ts) != IGNORED))

    @property
    def loss_count(self) -> int:
        return self._head.loss_count

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        right, counts = self._head.right_answers(), self._head.counts()
        # Greedy decoding writes the right row exactly if every step is right when all steps before are.
        answers = counts.any(axis=1)
        values = {
            "accuracy": (number(((right | ~counts).all(axis=1) & answers).sum()), count_true(answers)),
            "token_accuracy": (number((right & counts).sum()), count_true(counts)),
        }
        return {name: values[name] for name in names}

    def predict(self, xs: Array, ts: Array, *, batch_size: int = 512, verbose: int | str = 0) -> FloatArray:
        """Probabilities of every next id, given the source and the right ids before.

        Parameters
        ----------
        xs : (N, S) ids, or one-hot (N, S, V)
        ts : (N, T) ids, or one-hot
            What the decoder reads at each step, the start symbol first.
        batch_size : int
        verbose : 0, 1, 2 or "auto"
            1 shows a progress bar.

        Returns
        -------
        (N, T, V) array
            [:, t] are the probabilities of what follows ``ts[:, t]``.
        """
        xs, ts = self._source_ids(xs), _readable(self._target_ids(ts))
        require_same_rows(xs, ts)
        batch_size = scalars.integer("batch_size", batch_size, 1)
        parts = []
        with self.weights_prepared():
            for start in shown(range(0, len(xs), batch_size), verbose):
                batch = (to_device(ids[start : start + batch_size], self.device) for ids in (xs, ts))
                scores = self._output.scores(self._features_of(*batch, training=False))
                parts.append(to_host(ops.softmax(scores, out=scores)))
        return np.concatenate(parts) if parts else np.empty((*ts.shape, self.options["target_vocab_size"]))

    def generate(self, xs: Array, start_id: int, max_len: int, *, beam: int = 1, end_id: int | None = None) -> IntArray:
        """Write the target of each source, id by id.

        Parameters
        ----------
        xs : (N, S) ids, or one-hot (N, S, V)
        start_id : int
            The symbol the decoder reads first.
        max_len : int
            How many ids to write.
        beam : int
            Candidates kept at each step; 1 takes the likeliest id every time. The likeliest whole row wins.
        end_id : int, optional
            After it a row is finished and filled with it.

        Returns
        -------
        (N, max_len) int64
            Without the start symbol.
        """
        xs = host_array("xs", xs)
        if xs.ndim < 2:
            raise ValueError(f"xs has shape {xs.shape}, expected (N, S); one source is xs[None, :]")
        xs = self._source_ids(xs)
        start_id = self._target_id("start_id", start_id)
        end_id = None if end_id is None else self._target_id("end_id", end_id)
        max_len, beam = scalars.integer("max_len", max_len, 1), scalars.integer("beam", beam, 1)
        self._set_dropout(False)
        with self.weights_prepared():
            encoded = self._encoder.forward(to_device(xs, self.device), training=False)
            decoder, output = self._decoder, self._output
            if beam > 1:
                return to_host(beam_search(decoder, output, encoded, start_id, max_len, end_id, beam=beam))
            return to_host(greedy_search(decoder, output, encoded, start_id, max_len, end_id))


def _readable(ids: IntArray) -> IntArray:
    """Targets as what the decoder reads: after one that does not count it does not matter what that is."""
    readable: IntArray = array_module(ids).where(ids == IGNORED, ids.dtype.type(0), ids)
    return readable


def _steps_before_padding(ids: IntArray, pad_id: int, at_least: int) -> IntArray:
    """Of ids (N, T): the steps up to each row's last that is no padding and counts, (N,)."""
    counts = (ids != pad_id) & (ids != IGNORED)
    ends = np.where(counts.any(axis=1), ids.shape[1] - counts[:, ::-1].argmax(axis=1), 0)
    return np.maximum(ends, at_least)


def _without_last_padding(ids: IntArray, pad_id: int, at_least: int) -> IntArray:
    """Ids (N, T) without the last steps if they are padding, or do not count, in all rows."""
    used = np.flatnonzero(((ids != pad_id) & (ids != IGNORED)).any(axis=0))
    steps = max(int(used[-1]) + 1 if len(used) else 0, at_least)
    return ids if steps >= ids.shape[1] else np.ascontiguousarray(ids[:, :steps])
