"""Parameters as the models of "Deep Learning from Scratch 2" save them: a pickled list of float16 arrays."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm.array_pickle import read_params
from fastlstm.contract import BOOK_GATE_ORDER, GRU_CONVENTIONS, FloatArray
from fastlstm.interop.parts import Part, fill, parts_of
from fastlstm.interop.weights import (
    GRUWeights,
    LSTMWeights,
    RecurrentWeights,
    RNNWeights,
    float_array,
    in_convention,
    in_gate_order,
)
from fastlstm.models import RNNLM, Seq2seq

_CELLS = {1: "rnn", 3: "gru", 4: "lstm"}


def book_to_fastlstm(path: str | os.PathLike[str]) -> RNNLM | Seq2seq:
    """Read a .pkl of the book's: of Rnnlm, BetterRnnlm, Seq2seq, PeekySeq2seq or AttentionSeq2seq.

    Parameters
    ----------
    path : path
        What save_params wrote. Arrays alone are read from it, no code is run.

    Returns
    -------
    RNNLM or Seq2seq
        In float32, with the layers whose weights are there, and without dropout, which is not. An `RNNLM` is tied where
        the output has the embedding's weights. A `Seq2seq` reads the source as it comes, as the book's class does.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no list of arrays, or they are not those of one of these models.
    """
    arrays = [float_array(f"an array of {path}", array) for array in read_params(path)]
    shapes = [array.shape for array in arrays]
    parts, rest = _stack("encoder", arrays)
    if len(parts) > 1 and [array.ndim for array in rest] != [2, 1]:
        decoder, rest = _stack("decoder", rest)
        parts += decoder
    embeddings = [part.weights[0] for part in parts if part.kind == "embedding"]
    recurrent: list[RecurrentWeights] = [
        part.weights for part in parts if isinstance(part.weights, (LSTMWeights, GRUWeights, RNNWeights))
    ]
    if [array.ndim for array in rest] != [2, 1] or len(recurrent) < len(embeddings) or not embeddings:
        raise ValueError(
            f"{path} holds arrays of shapes {shapes}, expected embedding, LSTMs and output layer of an Rnnlm, or those "
            "of the encoder and decoder of a Seq2seq"
        )
    W, b = rest
    parts.append(Part("output", "affine", (W, b)))
    (V, D), H = embeddings[0].shape, recurrent[0].Wh.shape[0]
    model: RNNLM | Seq2seq
    if len(embeddings) == 1:
        cell = _CELLS[recurrent[0].Wh.shape[1] // H]
        tied = D == H and np.array_equal(W, embeddings[0].T)
        model = RNNLM(V, D, H, cell=cell, num_layers=len(recurrent), tie_weights=tied)
    else:
        peeky = recurrent[-1].Wx.shape[0] == D + H
        model = Seq2seq(
            V,
            D,
            H,
            target_vocab_size=len(embeddings[1]),
            peeky=peeky,
            attention=len(W) == H * (2 + peeky),
            pass_cell_state=False,
        )
    fill(model, parts, str(path))
    return model


def fastlstm_to_book(model: RNNLM | Seq2seq, path: str | os.PathLike[str]) -> None:
    """Write a model's parameters as the book's classes do, for load_params; float16 keeps three digits.

    Raises
    ------
    TypeError, ValueError
        The book has no such model: bidirectional, of several layers a side, or with a cell state that is passed on.
    """
    if not isinstance(model, (RNNLM, Seq2seq)):
        raise TypeError(f"model is a {type(model).__name__}, expected an RNNLM or a Seq2seq")
    if isinstance(model, Seq2seq):
        expected = {"bidirectional": False, "num_layers": 1, "pass_cell_state": False, "pad_id": None}
        actual = {name: model.options[name] for name in expected}
        if actual != expected:
            raise ValueError(f"the model has {_listed(actual)}, expected {_listed(expected)}")
    arrays: list[FloatArray] = []
    for part in parts_of(model, "the book"):
        weights = part.weights
        if isinstance(weights, LSTMWeights):
            weights = in_gate_order(weights, BOOK_GATE_ORDER)
        elif isinstance(weights, GRUWeights):
            weights = in_convention(weights, GRU_CONVENTIONS["book"], "the book's")
        arrays += [array for array in weights[:3] if isinstance(array, np.ndarray)]
    with open(path, "wb") as file:
        pickle.dump([np.array(array, np.float16, order="C") for array in arrays], file)


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _stack(name: str, arrays: Sequence[FloatArray]) -> tuple[list[Part], Sequence[FloatArray]]:
    """An embedding and the recurrent layers behind it; and what is left."""
    if not arrays or arrays[0].ndim != 2:
        return [], arrays
    parts, rest = [Part(f"{name}.embedding", "embedding", (arrays[0],))], arrays[1:]
    while weights := _recurrent(rest[:3]):
        parts.append(Part(f"{name}.{_CELLS[weights.Wh.shape[1] // len(weights.Wh)]}", "recurrent", weights))
        rest = rest[3:]
    return parts, rest


def _recurrent(arrays: Sequence[FloatArray]) -> RecurrentWeights | None:
    """Wx (D, kH), Wh (H, kH) and b (kH,) with k gates, if that is what the arrays are."""
    if [array.ndim for array in arrays] != [2, 2, 1]:
        return None
    Wx, Wh, b = arrays
    gates, remainder = divmod(Wh.shape[1], max(len(Wh), 1))
    if remainder or gates not in _CELLS or not Wx.shape[1:] == Wh.shape[1:] == b.shape:
        return None
    if gates == 4:
        return LSTMWeights(Wx, Wh, b, BOOK_GATE_ORDER)
    return RNNWeights(Wx, Wh, b) if gates == 1 else GRUWeights(Wx, Wh, b, GRU_CONVENTIONS["book"])
