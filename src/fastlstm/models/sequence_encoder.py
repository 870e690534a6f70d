"""What classifier, tagger and regressor read sequences with: an embedding, if they are ids, and recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from fastlstm.contract import DEFAULT_GATE_ORDER, BoolArray, FloatArray, GRUConventionName
from fastlstm.layers import (
    Layer,
    TimeBidirectional,
    TimeBiGRU,
    TimeBiLSTM,
    TimeBiRNN,
    TimeDropout,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
)
from fastlstm.layers.seeds import Seeds
from fastlstm.models.initial_weights import InitialWeights
from fastlstm.ops import scalars

CELLS = ("lstm", "gru", "rnn")
GRU_CONVENTION: GRUConventionName = "pytorch"

RecurrentLayer: TypeAlias = TimeLSTM | TimeGRU | TimeRNN | TimeBidirectional

# What models had before these options: files leave out what is as it was.
PLAIN: Mapping[str, Any] = {"cell": "lstm", "num_layers": 1, "bidirectional": False, "dropout": 0.0}


def encoder_options(cell: str, num_layers: int, bidirectional: bool, dropout: float) -> dict[str, Any]:
    """Options of a model that say how its `SequenceEncoder` is made, checked."""
    if cell not in CELLS:
        raise ValueError(f"cell is {cell!r}, expected 'lstm', 'gru' or 'rnn'")
    return {
        "cell": cell,
        "num_layers": scalars.integer("num_layers", num_layers, 1),
        "bidirectional": bool(bidirectional),
        "dropout": scalars.below_one("dropout", dropout),
    }


class SequenceEncoder:
    """Embedding, a stack of recurrent layers in one direction or both, and dropout behind each of them.

    The layers stay the model's, with their parameters.

    Parameters
    ----------
    weights : InitialWeights
        Draws the recurrent layers' weights, from below, those that run forwards first.
    seeds : Seeds
        Of dropout.
    width : int
        Of what the first recurrent layer reads.
    hidden_size : int
        Of every layer and direction.
    options : mapping
        What `encoder_options` returned.
    embedding : TimeEmbedding, optional
        With it, sequences are ids.
    frozen : bool
        The embedding does not learn.
    gate_order : str
        Of LSTMs. GRUs are written as PyTorch has them.

    Attributes
    ----------
    layers : dict of name to layer
        "embedding", and "lstm", or "lstm1", "lstm2" ... where there are several.
    dropouts : list of TimeDropout
        One behind each recurrent layer: the last drops what the output layer reads.
    output_size : int
        H, or 2H where there are two directions.
    """

    def __init__(
        self,
        weights: InitialWeights,
        seeds: Seeds,
        width: int,
        hidden_size: int,
        options: Mapping[str, Any],
        *,
        embedding: TimeEmbedding | None = None,
        frozen: bool = False,
        gate_order: str = DEFAULT_GATE_ORDER,
    ) -> None:
        cell, depth = options["cell"], options["num_layers"]
        self.output_size = hidden_size * (2 if options["bidirectional"] else 1)
        self._embedding = embedding
        self._frozen = frozen
        self._recurrent = [
            _recurrent_layer(
                weights, cell, self.output_size if k else width, hidden_size, options["bidirectional"], gate_order
            )
            for k in range(depth)
        ]
        self.dropouts = [TimeDropout(options["dropout"], rng=seeds) for _ in range(depth)]
        self.layers: dict[str, Layer] = {} if embedding is None else {"embedding": embedding}
        names = [cell] if depth == 1 else [f"{cell}{k}" for k in range(1, depth + 1)]
        self.layers |= zip(names, self._recurrent, strict=True)

    @property
    def h(self) -> FloatArray:
        """The last state of the top layer, (N, H); of two directions, each one's own last, side by side."""
        h = self._recurrent[-1].h
        assert h is not None
        return h

    def forward(self, xs: Any, mask: BoolArray | None, *, training: bool) -> FloatArray:
        """Ids (N, T), or numbers (N, T, D) without an embedding -> states of the top layer, (N, T, H).

        Where mask (N, T) is False a step carries all states over unchanged.
        """
        for dropout in self.dropouts:
            dropout.train_flg = training and dropout.dropout_ratio > 0
        out: FloatArray = xs if self._embedding is None else self._embedding.forward(xs)
        for k, layer in enumerate(self._recurrent):
            out = layer.forward(out if k == 0 else self.dropouts[k - 1].forward(out), mask=mask, training=training)
        return out

    def drop(self, features: FloatArray) -> FloatArray:
        """What the output layer reads, of what was made of the states."""
        return self.dropouts[-1].forward(features)

    def backward(self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None) -> None:
        """dhs (N, T, H) by the top layer's states, None for zeros; dh_n (N, H) by its last."""
        for k, layer in reversed(list(enumerate(self._recurrent))):
            dhs, dh_n = layer.backward(dhs, dh_n=dh_n), None
            if k:
                dhs = self.dropouts[k - 1].backward(dhs)
        if self._embedding is not None and not self._frozen:
            assert dhs is not None
            self._embedding.backward(dhs)


def _recurrent_layer(
    weights: InitialWeights, cell: str, D: int, H: int, bidirectional: bool, gate_order: str
) -> RecurrentLayer:
    if cell == "lstm":
        if bidirectional:
            return TimeBiLSTM(*weights.lstm(D, H), *weights.lstm(D, H), gate_order=gate_order)
        return TimeLSTM(*weights.lstm(D, H), gate_order=gate_order)
    if cell == "gru":
        if bidirectional:
            forwards, backwards = weights.gru(D, H, biases=2), weights.gru(D, H, biases=2)
            return TimeBiGRU(*forwards, *backwards, convention=GRU_CONVENTION)
        return TimeGRU(*weights.gru(D, H, biases=2), convention=GRU_CONVENTION)
    if bidirectional:
        return TimeBiRNN(*weights.rnn(D, H), *weights.rnn(D, H))
    return TimeRNN(*weights.rnn(D, H))
