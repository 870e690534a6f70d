"""The weights of Theano's LSTM tutorial (deeplearning.net, lstm.py): lstm_model.npz."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.contract import THEANO_GATE_ORDER
from fastlstm.interop.parts import Part, fill, parts_of
from fastlstm.interop.weights import UNPACKED_TIMES, LSTMWeights, check_fits, float_array, in_gate_order
from fastlstm.models import SequenceClassifier
from fastlstm.tensor_file import regular_file

_NAMES = ("Wemb", "lstm_W", "lstm_U", "lstm_b", "U", "b")


def theano_to_fastlstm(path: str | os.PathLike[str], *, use_dropout: bool = True) -> SequenceClassifier:
    """Read what the tutorial's training saved as a classifier that says the same.

    Parameters
    ----------
    path : path
        lstm_model.npz; nothing pickled in it is read.
    use_dropout : bool
        What the tutorial's option of this name was; its default is True. It multiplies by 1/2 what its output layer
        sees when it does not train, where dropout here scales what it keeps: the weights U are halved.

    Returns
    -------
    SequenceClassifier
        With the mean pooling, gate order ("ifog") and dropout of the tutorial, whose padding is a mask: give
        ``lengths``, or -1.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no .npz, or holds other arrays.
    """
    arrays = _read(Path(path))
    W, lstm_W, lstm_U, lstm_b, U, b = (float_array(f"{name} of {path}", arrays[name]) for name in _NAMES)
    if W.ndim != 2 or U.ndim != 2:
        raise ValueError(f"{path} has Wemb of shape {W.shape} and U of shape {U.shape}, expected (V, D) and (D, C)")
    check_fits(str(path), lstm_W, lstm_U, lstm_b)
    model = SequenceClassifier(
        W.shape[0],
        W.shape[1],
        lstm_U.shape[0],
        U.shape[1],
        dropout=0.5 if use_dropout else 0.0,
        dtype=str(W.dtype),
        gate_order=THEANO_GATE_ORDER,
    )
    lstm = LSTMWeights(lstm_W, lstm_U, lstm_b, THEANO_GATE_ORDER)
    parts = [Part("Wemb", "embedding", (W,)), Part("lstm", "recurrent", lstm)]
    fill(model, [*parts, Part("U", "affine", (U / 2 if use_dropout else U, b))], str(path))
    return model


def fastlstm_to_theano(model: SequenceClassifier, path: str | os.PathLike[str], *, use_dropout: bool = True) -> None:
    """Write a classifier as the tutorial's .npz, with the meaning of ``use_dropout`` in `theano_to_fastlstm`.

    Raises
    ------
    ValueError
        The tutorial has no such model: it is not one LSTM in one direction, the embedding is not as wide as the LSTM,
        or the pooling is not the mean.
    """
    cell, num_layers, bidirectional = (model.options[name] for name in ("cell", "num_layers", "bidirectional"))
    if cell != "lstm" or num_layers > 1 or bidirectional:
        raise ValueError(
            f"the model has cell {cell!r}, num_layers {num_layers} and bidirectional {bidirectional}; the tutorial's "
            "has one LSTM in one direction"
        )
    D, H, pooling = (model.options[name] for name in ("wordvec_size", "hidden_size", "pooling"))
    if D != H or pooling != "mean":
        raise ValueError(
            f"the model has wordvec_size {D}, hidden_size {H} and pooling {pooling!r}; the tutorial's has equal sizes "
            "and 'mean'"
        )
    embedding, recurrent, output = (part.weights for part in parts_of(model, "Theano's tutorial"))
    assert isinstance(recurrent, LSTMWeights)
    lstm = in_gate_order(recurrent, THEANO_GATE_ORDER)
    arrays: dict[str, Any] = dict(zip(_NAMES, (embedding[0], *lstm[:3], *output[:2]), strict=True))
    if use_dropout:
        arrays["U"] = 2 * arrays["U"]
    with open(path, "wb") as file:  # numpy would append .npz to another name
        np.savez(file, **arrays)


def _read(path: Path) -> dict[str, Any]:
    with open(regular_file(path, "an .npz of numpy"), "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            names = getattr(archive, "files", None)
            if names is not None and set(_NAMES) <= set(names):
                packed, unpacked = os.fstat(file.fileno()).st_size, sum(part.file_size for part in archive.zip.filelist)
                if unpacked > UNPACKED_TIMES * packed:
                    raise ValueError(f"its {packed:,} bytes unpack to {unpacked:,}, more than weights do")
                return {name: archive[name] for name in _NAMES}
        except Exception as error:  # numpy, zipfile and zlib raise many
            raise ValueError(
                f"{path} is no .npz of numpy, or damaged: {str(error)[:200] or type(error).__name__}"
            ) from None
    held = "one array" if names is None else ", ".join(names) or "nothing"
    raise ValueError(f"{path} holds {held:.200}, expected {', '.join(_NAMES)} of Theano's LSTM tutorial")
