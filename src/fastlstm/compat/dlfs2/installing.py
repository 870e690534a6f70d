"""How the modules get under the book's names.

A finder at the head of ``sys.meta_path`` answers for these names only. It has the user's own module found and executed
as usual, if there is one, and then puts our names over its names; all others stay as they are. Where there is none, the
module has our names alone.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from fastlstm import optim
from fastlstm.compat.dlfs2 import (
    arrays,
    base_model,
    data,
    evaluation,
    functions,
    layers,
    negative_sampling,
    optimizer,
    trainer,
    words,
)
from fastlstm.ops.device import check_device


@dataclass(frozen=True)
class Stand:
    """What a module gets: ``ours`` over the user's own names, ``missing`` where the user has no such name."""

    ours: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)


def _of(module: ModuleType, names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names.split()}


_NUMPY = {"np": np, "GPU": False}
_FUNCTIONS = _of(functions, "sigmoid relu softmax cross_entropy_error")
_LAYERS = _of(layers, "MatMul Affine Softmax SoftmaxWithLoss Sigmoid SigmoidWithLoss Dropout Embedding")
_TIME_LAYERS = _of(
    layers,
    "RNN TimeRNN LSTM TimeLSTM GRU TimeGRU TimeEmbedding TimeAffine TimeSoftmaxWithLoss TimeDropout TimeBiLSTM "
    "TimeSigmoidWithLoss",
)
_NEGATIVE_SAMPLING = Stand(
    _of(negative_sampling, "EmbeddingDot UnigramSampler NegativeSamplingLoss"),
    {**_NUMPY, "Embedding": layers.Embedding, "SigmoidWithLoss": layers.SigmoidWithLoss},
)
_ATTENTION = Stand(_of(layers, "TimeAttention"), {**_NUMPY, "Softmax": layers.Softmax})

MODULES: dict[str, Stand] = {
    # Packages, for who has no folders of the book's at all.
    **{name: Stand() for name in ("common", "dataset", "ch04", "ch08")},
    "common.config": Stand(missing={"GPU": False}),
    "common.np": Stand(missing=_NUMPY),
    "common.functions": Stand(_FUNCTIONS, _NUMPY),
    "common.layers": Stand({**_LAYERS, **_of(functions, "softmax cross_entropy_error")}, _NUMPY),
    "common.time_layers": Stand({**_LAYERS, **_TIME_LAYERS, **_of(functions, "sigmoid softmax")}, _NUMPY),
    "common.optimizer": Stand(_of(optimizer, "SGD Momentum Nesterov AdaGrad RMSprop Adam"), _NUMPY),
    "common.trainer": Stand(_of(trainer, "Trainer RnnlmTrainer remove_duplicate"), _NUMPY),
    "common.util": Stand(
        {
            **_of(words, "preprocess create_contexts_target convert_one_hot cos_similarity normalize"),
            **_of(words, "most_similar analogy"),
            **_of(evaluation, "eval_perplexity eval_seq2seq"),
            **_of(arrays, "to_cpu to_gpu"),
            "clip_grads": optim.clip_grads,
        },
        _NUMPY,
    ),
    "common.base_model": Stand(_of(base_model, "BaseModel"), _NUMPY),
    "dataset.sequence": Stand(
        {"load_data": data.load_sequences, **_of(data, "get_vocab id_to_char char_to_id")},
    ),
    "dataset.ptb": Stand(missing={"load_data": data.load_ptb, "load_vocab": data.load_ptb_vocab}),
    "ch04.negative_sampling_layer": _NEGATIVE_SAMPLING,
    "negative_sampling_layer": _NEGATIVE_SAMPLING,
    "ch08.attention_layer": _ATTENTION,
    "attention_layer": _ATTENTION,
}
_PACKAGES = frozenset(name.partition(".")[0] for name in MODULES if "." in name)

_ABSENT = object()


def install(*, keep: Sequence[str] = ()) -> None:
    """Put our layers, losses, optimisers, trainers and helpers under the book's names; before the first import of them.

    Parameters
    ----------
    keep : sequence of str
        Full names that stay the user's own, for instance ``["common.layers.Affine"]``.

    Raises
    ------
    ValueError
        A name in ``keep`` is none that would be replaced.
    RuntimeError
        It is installed already, with another ``keep``.
    """
    kept = frozenset(keep)
    replaced = {f"{module}.{name}" for module, stand in MODULES.items() for name in stand.ours}
    if unknown := sorted(kept - replaced):
        raise ValueError(f"keep has {', '.join(unknown)}, which nothing of ours replaces")
    for finder in _installed():
        if finder.keep != kept:
            raise RuntimeError(f"installed already with keep={sorted(finder.keep)}; call uninstall() first")
        return
    finder = _Finder(kept)
    sys.meta_path.insert(0, finder)
    early = [name for name, stand in MODULES.items() if stand.ours and name in sys.modules]
    for name in early:
        finder.overlay(sys.modules[name])
    if early:
        warnings.warn(
            f"{', '.join(early)} were imported before fastlstm.compat.dlfs2.install(): what other modules took from "
            "them with 'from ... import' is still the book's. Call install() first",
            stacklevel=2,
        )


def uninstall() -> None:
    """Give all names back; what was imported with ``from ... import`` meanwhile stays. Without install, nothing."""
    for finder in _installed():
        sys.meta_path.remove(finder)
        finder.restore()


@contextmanager
def installed(*, keep: Sequence[str] = ()) -> Iterator[None]:
    """`install` for the length of a with block."""
    install(keep=keep)
    try:
        yield
    finally:
        uninstall()


def _installed() -> list[_Finder]:
    return [finder for finder in sys.meta_path if isinstance(finder, _Finder)]


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, keep: frozenset[str]) -> None:
        self.keep = keep
        self._before: list[tuple[ModuleType, str, Any]] = []
        self._made: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        spec = self._users_own(fullname, path, target)
        if fullname in _PACKAGES:
            return spec or ModuleSpec(fullname, _Loader(self, None), is_package=True)
        if spec is None:
            return ModuleSpec(fullname, _Loader(self, None))
        spec.loader = _Loader(self, spec.loader)
        return spec

    def _users_own(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                return spec
        return None

    def overlay(self, module: ModuleType) -> None:
        """Our names over a module's own."""
        stand = MODULES[module.__name__]
        for name, value in stand.ours.items():
            if f"{module.__name__}.{name}" not in self.keep:
                self._before.append((module, name, vars(module).get(name, _ABSENT)))
                setattr(module, name, value)

    def made(self, module: ModuleType) -> None:
        """A module for which the user has no file."""
        self._made.append(module.__name__)

    def restore(self) -> None:
        for module, name, value in self._before:
            if value is _ABSENT:
                delattr(module, name)
            else:
                setattr(module, name, value)
        for name in self._made:
            sys.modules.pop(name, None)
            package, _, last = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(last, None)


class _Loader(importlib.abc.Loader):
    """Executes the user's own module, if there is one, and puts our names over it."""

    def __init__(self, finder: _Finder, own: importlib.abc.Loader | None) -> None:
        self._finder = finder
        self._own = own

    def __getattr__(self, name: str) -> Any:
        # What inspect and linecache ask a loader for: the user's own source.
        if name.startswith("_") or self._own is None:
            raise AttributeError(name)
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None if self._own is None else self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name, gpu = module.__name__, _on_gpu(module.__name__)
        # The book's own GPU mode asks CuPy for a name that it has no more.
        own = None if gpu and name == "common.np" else self._own
        if own is None:
            self._finder.made(module)
        else:
            own.exec_module(module)
        if own is None or MODULES[name].ours:
            missing = MODULES[name].missing
            for known, value in ({**missing, **_cupy()} if gpu and "np" in missing else missing).items():
                vars(module).setdefault(known, value)
        self._finder.overlay(module)


def _on_gpu(name: str) -> bool:
    """Whether a module is imported where ``common.config.GPU`` is True."""
    return "np" in MODULES[name].missing and bool(importlib.import_module("common.config").GPU)


def _cupy() -> dict[str, Any]:
    """What the book's modules know as np."""
    check_device("cuda")
    cupy: Any = importlib.import_module("cupy")
    if not hasattr(cupy, "scatter_add"):
        cupy.scatter_add = arrays.scatter_add
    return {"np": cupy, "GPU": True}
