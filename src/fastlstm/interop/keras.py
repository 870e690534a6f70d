"""Weights from and to Keras 3: `get_weights()`, ``.weights.h5`` and ``.keras`` files. Keras itself is not needed."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from fastlstm.contract import DEFAULT_GATE_ORDER, GRU_CONVENTIONS, FloatArray
from fastlstm.interop.parts import Part, fill, listed, parts_of
from fastlstm.interop.weights import (
    UNPACKED_TIMES,
    GRUWeights,
    LSTMWeights,
    RecurrentWeights,
    RNNWeights,
    check_fits,
    float_array,
    gates_of,
    in_convention,
    in_gate_order,
    zeros_like_bias,
)
from fastlstm.layers import Layer
from fastlstm.models import Model
from fastlstm.ops.checks import describe
from fastlstm.tensor_file import regular_file

_AFTER = GRU_CONVENTIONS["keras"]
_BEFORE = _AFTER._replace(reset_after=False)


@overload
def keras_to_fastlstm(source: str | os.PathLike[str] | Sequence[Any]) -> list[RecurrentWeights]: ...
@overload
def keras_to_fastlstm(source: str | os.PathLike[str] | Sequence[Any], model: Model) -> Model: ...
def keras_to_fastlstm(
    source: str | os.PathLike[str] | Sequence[Any], model: Model | None = None
) -> list[RecurrentWeights] | Model:
    """Read the weights of recurrent layers of Keras 3.

    Parameters
    ----------
    source : list of arrays, or path
        What ``get_weights()`` of an LSTM, GRU, SimpleRNN or Bidirectional layer returns; or a ``.keras`` or
        ``.weights.h5`` file (read by h5py). Arrays and ``.weights.h5`` do not say whether a layer runs backwards
        (go_backwards) or has other activations than tanh and sigmoid: they are taken to be the usual ones.
    model : Model, optional
        Copy the weights of a file into this model: of each kind (Embedding, recurrent layer, Dense) the first into the
        first, and so on.

    Returns
    -------
    list of LSTMWeights, GRUWeights or RNNWeights; with ``model`` the model
        A layer an entry, in the order of the data; a Bidirectional one has ``backwards``. The gate order of an LSTM is
        "ifgo"; of a GRU gates are "zrn", z keeps, and reset_after is the layer's.

    Raises
    ------
    ImportError
        A file is to be read, and h5py is not installed.
    OSError
        The file cannot be read.
    TypeError, ValueError
        It holds something else, or what does not fit the model; nothing changes then.

    Notes
    -----
    With ``mask_zero`` the outputs of Keras at masked steps may be 0, those of the operators here carry the state. A
    layer with go_backwards returns its outputs in the order in which it made them.
    """
    if isinstance(source, (str, os.PathLike)):
        title, parts = os.fspath(source), _read(Path(source))
    else:
        title, parts = "the list", [Part("", "recurrent", _recurrent("the list", _arrays(source)))]
    if model is not None:
        fill(model, parts, title)
        return model
    recurrent = [part.weights for part in parts if part.kind == "recurrent"]
    if not recurrent:
        raise ValueError(f"{title} holds {listed(parts)}, expected an LSTM, GRU, SimpleRNN or Bidirectional layer")
    return recurrent  # type: ignore[return-value]


@overload
def fastlstm_to_keras(model: Layer) -> list[FloatArray]: ...
@overload
def fastlstm_to_keras(model: Model) -> dict[str, list[FloatArray]]: ...
def fastlstm_to_keras(model: Model | Layer) -> dict[str, list[FloatArray]] | list[FloatArray]:
    """Write weights as ``set_weights`` of Keras's layers takes them.

    Parameters
    ----------
    model : Model, or a recurrent layer of `fastlstm.layers`
        Any but a `Word2Vec`.

    Returns
    -------
    dict of str to lists of arrays; of a layer one list
        By the names of the model's layers. A bidirectional one is for Bidirectional(LSTM(H)), an embedding for
        Embedding, the output for Dense. A GRU is for GRU(H, reset_after=...) as its convention has it: in the book's,
        False.
    """
    found = {part.name: list(_keras_arrays(part)) for part in parts_of(model, "Keras")}
    return found[""] if isinstance(model, Layer) else found


def _keras_arrays(part: Part) -> Iterator[FloatArray]:
    one = part.weights
    if not isinstance(one, (LSTMWeights, GRUWeights, RNNWeights)):
        yield from one
        return
    if isinstance(one, LSTMWeights):
        one = in_gate_order(one, DEFAULT_GATE_ORDER)
    elif isinstance(one, GRUWeights):
        one = in_convention(one, _AFTER if one.convention.reset_after else _BEFORE, "Keras's")
    yield from one[:3]
    if one.backwards is not None:
        yield from one.backwards[:3]


def _arrays(source: Any) -> list[FloatArray]:
    if not isinstance(source, (list, tuple)):
        raise TypeError(f"source is {describe(source)}, expected a path, or the list that get_weights() returns")
    return [float_array(f"source[{i}]", array) for i, array in enumerate(source)]


def _recurrent(title: str, arrays: Sequence[FloatArray], *, reverse: bool = False) -> RecurrentWeights:
    """Of one layer: kernel, recurrent kernel and bias, and the same again of one that runs backwards."""
    if len(arrays) in (4, 6):
        half = len(arrays) // 2
        forwards, backwards = _recurrent(title, arrays[:half]), _recurrent(title, arrays[half:], reverse=True)
        return forwards._replace(backwards=backwards)  # type: ignore[arg-type]
    if len(arrays) not in (2, 3) or any(array.ndim != 2 for array in arrays[:2]):
        shapes = [array.shape for array in arrays]
        raise ValueError(
            f"{title} holds arrays of shapes {shapes}, expected kernel (D, K), recurrent kernel (H, K) and bias of one "
            "layer, or those of both layers of a Bidirectional one"
        )
    Wx, Wh, *rest = (np.array(array) for array in arrays)
    gates = gates_of(f"the recurrent kernel of {title}", Wh)
    b = rest[0] if rest else zeros_like_bias(Wx) if gates != 3 else np.stack([zeros_like_bias(Wx)] * 2)
    check_fits(title, Wx, Wh, *(b if b.ndim == 2 and gates == 3 and len(b) == 2 else [b]))
    if gates == 4:
        return LSTMWeights(Wx, Wh, b, DEFAULT_GATE_ORDER, reverse)
    if gates == 3:
        return GRUWeights(Wx, Wh, b, _AFTER if b.ndim == 2 else _BEFORE, reverse)
    return RNNWeights(Wx, Wh, b, reverse)


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


class _KerasLayer(NamedTuple):
    """What a .keras file says of a layer: its place among the others, and what matters of its options."""

    place: int
    kind: str
    config: dict[str, Any]


def _read(path: Path) -> list[Part]:
    content = regular_file(path, "one of Keras 3, .keras or .weights.h5").read_bytes()
    try:
        import h5py
    except ImportError:
        raise ImportError("files of Keras need the package h5py: pip install fastlstm[keras]") from None
    most = UNPACKED_TIMES * len(content)
    layers: dict[str, _KerasLayer] = {}
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            content, config = _unpacked(content, most)
            for place, layer in enumerate(_layers_in(config)):
                layers[layer["config"]["name"]] = _KerasLayer(place, layer["class_name"], layer["config"])
        with h5py.File(io.BytesIO(content), "r") as file:
            variables = _variables(file, most)
        return _parts(str(path), variables, layers)
    except Exception as error:  # zipfile, zlib, json and h5py raise many
        if isinstance(error, MemoryError) or str(error).startswith(str(path)):
            raise
        why = str(error)[:200] or type(error).__name__
        raise ValueError(f"{path} is no file of Keras 3, .keras or .weights.h5, or damaged: {why}") from None


def _unpacked(content: bytes, most: int) -> tuple[bytes, Any]:
    """The weights and the configuration of a .keras file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if not {"config.json", "model.weights.h5"} <= set(archive.namelist()):
            raise ValueError(
                f"it holds {', '.join(archive.namelist())}, expected Keras 3's config.json and model.weights.h5"
            )

        def member(name: str) -> bytes:
            info = archive.getinfo(name)
            # Others unpack as much as there is at once, whatever is asked for.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is packed otherwise than Keras does")
            with archive.open(info) as file:
                unpacked = file.read(most + 1)
            if len(unpacked) > most:
                raise ValueError(f"{name} unpacks to more than {most:,} bytes, as no weights of its size do")
            return unpacked

        return member("model.weights.h5"), json.loads(member("config.json"))


def _layers_in(config: Any) -> Iterator[dict[str, Any]]:
    """The layers of a model's configuration, those of models inside it too, in their order."""
    for layer in config.get("config", {}).get("layers", []):
        yield layer
        yield from _layers_in(layer)


def _variables(file: Any, most: int) -> dict[str, tuple[str, list[Any]]]:
    """By the path of each object that has variables: the name of its layer where the file says it, and the arrays.

    A file of some bytes can name arrays of any size, and in other files: they are refused before they are read.
    """
    import h5py

    names: dict[str, str] = {}
    found: dict[str, list[Any]] = {}
    left = most

    def array(group: Any, key: str) -> Any:
        nonlocal left
        here = isinstance(group.get(key, getlink=True), h5py.HardLink)
        data = group[key] if here else None
        if data is None or data.external or data.is_virtual or data.dtype.hasobject:
            raise ValueError(f"{group.name}/{key} is no array of numbers in this file")
        left -= data.nbytes
        if left < 0:
            raise ValueError(f"its arrays have more than {most:,} bytes, as no weights of its size do")
        return data[...]

    def visit(path: str, group: Any) -> None:
        owner, _, last = path.rpartition("/")
        if last == "vars" and isinstance(group, h5py.Group):
            names[owner] = str(group.attrs.get("name", ""))
            if len(group):
                found[owner] = [array(group, key) for key in sorted(group, key=int)]

    file.visititems(visit)
    return {
        owner: (names.get(re.sub(r"(/(forward_layer|backward_layer))?/cell$", "", owner), ""), arrays)
        for owner, arrays in found.items()
    }


def _parts(title: str, variables: dict[str, tuple[str, list[Any]]], layers: dict[str, _KerasLayer]) -> list[Part]:
    """The layers, in the order of the data where the file says it, else by their numbers."""
    found: dict[str, tuple[str, list[FloatArray]]] = {}
    for owner, (name, arrays) in variables.items():
        if owner.split("/")[0] == "optimizer" or owner.endswith("seed_generator"):
            continue
        layer = re.sub(r"/(forward_layer|backward_layer)/cell$", "/cell", owner)
        new = [float_array(f"{title}, {owner},", array) for array in arrays]
        before = found.get(layer, ("", []))[1]
        # Forwards comes first, whatever the alphabet says.
        found[layer] = name, [*before, *new] if owner.endswith("backward_layer/cell") else [*new, *before]
    unplaced = [owner for owner, (name, _) in found.items() if owner.endswith("/cell") and name not in layers]
    if unplaced and layers:
        raise ValueError(
            f"{title} does not say which of its layers {', '.join(unplaced)} is; a later Keras 3 writes it"
        )
    if len({_class_of(owner) for owner in unplaced}) > 1:
        raise ValueError(
            f"{title} holds recurrent layers of several classes, {', '.join(unplaced)}, but not their order; read the "
            ".keras file"
        )

    def place(owner: str) -> tuple[int, list[tuple[int, str]]]:
        layer = layers.get(found[owner][0])
        return -1 if layer is None else layer.place, _natural(owner)

    return [_part(title, owner, *found[owner], layers) for owner in sorted(found, key=place)]


def _part(title: str, owner: str, name: str, arrays: list[FloatArray], layers: dict[str, _KerasLayer]) -> Part:
    shown = name or owner.removesuffix("/cell")
    if owner.endswith("/cell"):
        reverse = name in layers and _checked(f"{title}, {shown},", layers[name])
        return Part(shown, "recurrent", _recurrent(f"{title}, {shown},", arrays, reverse=reverse))
    kind = layers[name].kind if name in layers else _class_of(owner)
    shapes = [array.shape for array in arrays]
    if [len(shape) for shape in shapes] == [2, 1]:
        return Part(shown, "affine", tuple(arrays))
    if [len(shape) for shape in shapes] == [2]:
        if kind.lower() == "embedding":
            return Part(shown, "embedding", tuple(arrays))
        return Part(shown, "affine", (arrays[0], zeros_like_bias(arrays[0])))
    raise ValueError(
        f"{title}: {shown} has arrays of shapes {shapes}, expected an Embedding, Dense, LSTM, GRU, SimpleRNN or "
        "Bidirectional layer"
    )


def _checked(title: str, layer: _KerasLayer) -> bool:
    """Whether a recurrent layer runs backwards; raises if it does what the operators here do not."""
    config = layer.config
    if layer.kind == "Bidirectional":
        if config.get("merge_mode") != "concat":
            raise ValueError(f"{title} has merge_mode {config.get('merge_mode')!r}, expected 'concat'")
        config = config["layer"]["config"]
    for option, expected in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        if config.get(option, expected) != expected:
            raise ValueError(f"{title} has {option} {config[option]!r}, expected {expected!r}")
    return layer.kind != "Bidirectional" and bool(config.get("go_backwards"))


def _class_of(owner: str) -> str:
    """Keras calls the second LSTM of a model lstm_1."""
    return re.sub(r"_\d+$", "", owner.removesuffix("/cell").rpartition("/")[2])


def _natural(text: str) -> list[tuple[int, str]]:
    """For lstm_10 to come behind lstm_2, and lstm before both."""
    return [(int(number or -1), word) for word, number in re.findall(r"([^\d]+)(\d*)", text)]
