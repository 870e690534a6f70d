"""One of each kind of model, so small that a test trains them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm import callbacks
from fastlstm.models import (
    RNNLM,
    Model,
    Seq2seq,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
    Word2Vec,
)
from fastlstm.ops.device import to_host

V = 11


def ids(*shape: int, low: int = 0) -> Any:
    return np.random.default_rng(sum(shape)).integers(low, V, shape)


def padded(N: int, T: int, padding: int) -> Any:
    rows = ids(N, T, low=1)
    for n, row in enumerate(rows):
        row[1 + (n * 5) % T :] = padding
    return rows


def with_start(rows: Any) -> Any:
    return np.concatenate([np.full((len(rows), 1), 1), rows], axis=1)


# Name, the model, and for a number of rows the data of fit.
Maker = tuple[Callable[[], Model], Callable[[int], tuple[Any, ...]], dict[str, Any]]
options: dict[str, Any] = {"seed": 5, "dtype": "float64"}
by_rows = {"epochs": 2, "batch_size": 4, "metrics": ("loss",)}


def seq2seq(**switches: Any) -> Maker:
    pad_id = switches.get("pad_id")

    def data(N: int) -> tuple[Any, ...]:
        if pad_id is None:
            return ids(N, 6), with_start(ids(N, 3))
        return padded(N, 6, pad_id), with_start(padded(N, 3, pad_id))

    metrics = {**by_rows, "metrics": ("loss", "accuracy", "token_accuracy")}
    return lambda: Seq2seq(V, 5, 4, **switches, **options), data, metrics


def rnnlm(**switches: Any) -> Maker:
    by_pieces = {"epochs": 2, "batch_size": 3, "time_size": 4, "metrics": ("loss", "perplexity", "accuracy")}
    return lambda: RNNLM(V, 6, 6, **switches, **options), lambda N: (ids(N * 3 + 2),), by_pieces


def word2vec(**switches: Any) -> Maker:
    of_words = {"epochs": 2, "batch_size": 16, "subsample": None, "optimizer": "adam"}
    return lambda: Word2Vec(V, 4, num_sampled=5, **switches, **options), lambda N: (ids(N * 8),), of_words


def classifier(**switches: Any) -> Maker:
    def data(N: int) -> tuple[Any, ...]:
        return padded(N, 7, -1), ids(N) % 3

    metrics = {**by_rows, "metrics": ("loss", "accuracy", "error")}
    return lambda: SequenceClassifier(V, 5, 4, 3, **switches, **options), data, metrics


def regressor(**switches: Any) -> Maker:
    def data(N: int) -> tuple[Any, ...]:
        series = np.sin(np.arange(N * 8 * 2.0)).reshape(N, 8, 2)
        return series[:, :-1], series[:, -1]

    return lambda: SequenceRegressor(2, 5, 2, **switches, **options), data, {**by_rows, "metrics": ("loss", "mae")}


def tagger(**switches: Any) -> Maker:
    def data(N: int) -> tuple[Any, ...]:
        xs = padded(N, 6, -1)
        return xs, np.where(xs < 0, -1, xs % 3)

    metrics = {**by_rows, "metrics": ("loss", "accuracy")}
    return lambda: SequenceTagger(V, 5, 4, 3, **switches, **options), data, metrics


def series_regressor(**switches: Any) -> Maker:
    """A target at every step, and series of different lengths."""

    def data(N: int) -> tuple[Any, ...]:
        xs = np.sin(np.arange(N * 5 * 2.0)).reshape(N, 5, 2)
        xs[padded(N, 5, -1) < 0] = 9
        return xs, np.cumsum(xs, axis=1)[..., :1]

    make = lambda: SequenceRegressor(2, 4, 1, return_sequences=True, mask_value=9, **switches, **options)  # noqa: E731
    return make, data, {**by_rows, "metrics": ("loss", "mae")}


MAKERS: dict[str, Maker] = {
    "rnnlm": rnnlm(),
    "rnnlm two layers, tied, dropout": rnnlm(num_layers=2, tie_weights=True, dropout=0.3),
    "rnnlm gru": rnnlm(cell="gru"),
    "rnnlm rnn": rnnlm(cell="rnn"),
    "seq2seq": seq2seq(),
    "seq2seq reversed, two layers, dropout": seq2seq(reverse_source=True, num_layers=2, dropout=0.2),
    "seq2seq peeky": seq2seq(peeky=True, share_embedding=True),
    "seq2seq attention, bidirectional, padding": seq2seq(attention=True, bidirectional=True, pad_id=0),
    "seq2seq peeky, attention, no cell state": seq2seq(attention=True, peeky=True, pass_cell_state=False, pad_id=0),
    "classifier": classifier(dropout=0.3),
    "classifier last": classifier(pooling="last"),
    "classifier last gru, two layers, bidirectional, frozen embedding": classifier(
        pooling="last", cell="gru", num_layers=2, bidirectional=True, freeze_embeddings=True
    ),
    "tagger, two layers, bidirectional, dropout": tagger(num_layers=2, bidirectional=True, dropout=0.3),
    "regressor": regressor(),
    "regressor rnn": regressor(cell="rnn"),
    "regressor rnn, steps, bidirectional": series_regressor(cell="rnn", bidirectional=True),
    "word2vec nce": word2vec(),
    "word2vec sampled softmax": word2vec(loss="sampled_softmax"),
    "word2vec negative sampling": word2vec(loss="negative_sampling"),
}


def parameters(model: Model) -> list[Any]:
    return [to_host(param) for param in model.params]


class Stop(callbacks.Callback):
    """As Ctrl-C after some batches."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.after -= 1
        if self.after == 0:
            self.trainer.callbacks[-1].on_interrupt()
            raise KeyboardInterrupt
