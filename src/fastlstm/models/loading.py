"""Models from files that say what they are."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any

from fastlstm.models.model import Model, class_named, read_model_file


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model that `Model.save` wrote, of whichever class: the file names it.

    Parameters
    ----------
    path : path
        Of a run of the command line, ``RUN/model.safetensors``, or while it learns ``RUN/checkpoint.safetensors``.

    Returns
    -------
    Model
        An RNNLM, Seq2seq, SequenceClassifier ...; or of a class of your own that is derived from `Model` and defined by
        now.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no model, cut short, of an unknown class or another format, or its weights do not fit its options.
    """
    import fastlstm.models  # noqa: F401, defines ours

    tensors, description = read_model_file(path)
    name = class_named(description, path)
    # Of classes of one name the one defined last: a notebook defines a class once more when its cell runs again.
    known = {cls.__name__: cls for cls in _classes_below(Model) if not inspect.isabstract(cls)}
    if name not in known:
        raise ValueError(
            f"{path} holds a {name}, expected one of {', '.join(sorted(known))}; a class of your own has to be "
            "imported first"
        )
    return known[name].from_file(tensors, description, path)


def _classes_below(cls: type[Any]) -> Iterator[type[Model]]:
    for below in cls.__subclasses__():
        yield below
        yield from _classes_below(below)
