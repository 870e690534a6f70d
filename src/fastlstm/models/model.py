"""What all models have: parameters by name, fit, evaluate, summary, save and load."""

from __future__ import annotations

import abc
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from fastlstm.contract import Array, FloatArray, Precision, Reduction
from fastlstm.distributed.workers import Workers, checked_workers
from fastlstm.layers import Layer
from fastlstm.layers.seeds import Seeds
from fastlstm.models.initial_weights import room_for
from fastlstm.models.layer_graph import Edge
from fastlstm.models.names import Names
from fastlstm.models.summary import LayerSummary, draw, summarize, table
from fastlstm.ops import scalars
from fastlstm.ops.array_likes import host_array
from fastlstm.ops.device import Device, check_device, copier_to, device_of, to_device, to_host
from fastlstm.optim import Grad, Optimizer
from fastlstm.tensor_file import read_tensor_file, write_tensor_file
from fastlstm.training import History
from fastlstm.training.batches import Batches, Lengths, rows_of_batch
from fastlstm.training.checkpoint import is_checkpoint, model_in
from fastlstm.training.means import Means, RunningMean, add_batch
from fastlstm.training.progress import numbers_line, say, shown
from fastlstm.training.sharded import Shards

FORMAT_VERSION = 1
# Of metrics, as Keras knows them.
SPELLINGS = {"acc": "accuracy", "mean_absolute_error": "mae", "mean_squared_error": "mse"}

Kept = TypeVar("Kept")


class Model(abc.ABC):
    """Base of all models.

    A model calls ``Model.__init__`` with its options, then ``_own_layers`` once its layers exist.

    Parameters
    ----------
    options : mapping
        The constructor's arguments, as JSON can hold them, but for those in ``unsaved_options``; ``load`` calls the
        constructor with them.
    seed : int or None
        Fixes the initial weights, the order of the training rows and the dropout masks.

    Attributes
    ----------
    layers : dict of name to layer, in the order of the data
    params, grads : list of arrays
        Every parameter that learns once, also where layers share it; the same array objects for the model's life,
        unless ``to`` moves the model: then both lists, and those of the layers, hold new arrays from then on.
    rng : numpy Generator
        The source of everything random in the model and its training.
    seeds : Seeds
        What ``rng`` draws for dropout and sampled losses: all layers that draw are made with ``rng=model.seeds``.
    vocabulary : list of str or None
        What the ids mean, at most as many as there are; saved with the model. Another sequence of str becomes a list
        when it is set.
    tokenizer : str or None
        How texts were cut into the words of the vocabulary, see `fastlstm.datasets.tokenizers`; saved with the model.
    stop_training : bool
        A callback sets it to end ``fit`` after the batch or epoch at hand.
    on_final : callable or None
        Called in ``backward`` with a number k, once all of ``grads[k:]`` are what they are going to be.
    """

    vocabulary = Names("vocab_size")
    metric_names: ClassVar[tuple[str, ...]] = ("loss",)
    further_metric_names: ClassVar[tuple[str, ...]] = ()  # that ``evaluate`` shows only where they are asked for
    vocabulary_names: ClassVar[tuple[str, ...]] = ("vocabulary",)
    on_final: Callable[[int], None] | None = None
    optional_names: ClassVar[tuple[str, ...]] = ()  # those of them that a file need not have
    younger_options: ClassVar[Mapping[str, Any]] = {}  # that files leave out where they are as here
    unsaved_options: ClassVar[tuple[str, ...]] = ()  # that only say what weights begin with

    def __init__(self, options: Mapping[str, Any], seed: int | None) -> None:
        if seed is not None:
            seed = scalars.integer("seed", seed, 0, math.inf)
        # JSON holds Python's numbers only; a size may be ids.max() + 1, which is numpy's.
        self.options = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()
        }
        self.seeds = Seeds(np.random.default_rng(seed))
        self.layers: dict[str, Layer] = {}
        self._all_layers: tuple[Layer, ...] = ()
        self.params: list[FloatArray] = []
        self.grads: list[FloatArray] = []
        self.vocabulary = None
        self.tokenizer: str | None = None
        self.stop_training = False
        self._names: list[str] = []
        self._frozen: dict[str, FloatArray] = {}
        self._positions: dict[str, int] = {}  # of each layer's first parameter
        self._shared: list[tuple[FloatArray, FloatArray]] = []

    @property
    def rng(self) -> np.random.Generator:
        return self.seeds.rng

    @rng.setter
    def rng(self, rng: np.random.Generator) -> None:
        self.seeds.rng = rng

    def __repr__(self) -> str:
        """The constructor's arguments that are not its defaults, how many parameters are learned, and where."""
        defaults = {name: given.default for name, given in inspect.signature(type(self)).parameters.items()}
        given = (f"{name}={value!r}" for name, value in self.saved_options.items() if value != defaults.get(name))
        made = f"{type(self).__name__}({', '.join(given)})"
        return f"{made}: {self.num_parameters:,} parameters, {self.params[0].dtype} on {self.device}"

    @property
    def saved_options(self) -> dict[str, Any]:
        """The options that files hold."""
        return {
            name: value
            for name, value in self.options.items()
            if name not in self.unsaved_options
            and not (name in self.younger_options and value == self.younger_options[name])
        }

    def _own_layers(
        self, layers: Mapping[str, Layer], dropouts: Sequence[Layer] = (), frozen: Collection[str] = ()
    ) -> None:
        """Collect the parameters. Where layers share one, the first layer's gradient is the sum of all.

        Dropouts, which have none, do not count among the layers that a model shows. The parameters of layers whose
        names are ``frozen`` are saved with the model, but not learned: they are not in ``params``.
        """
        self.layers = dict(layers)
        self._all_layers = (*layers.values(), *dropouts)
        first: dict[int, int] = {}
        for layer_name, layer in self.layers.items():
            self._positions[layer_name] = len(self.params)
            for name, param, grad in zip(layer.param_names, layer.params, layer.grads, strict=True):
                if layer_name in frozen:
                    self._frozen[f"{layer_name}.{name}"] = param
                    continue
                if id(param) in first:
                    self._shared.append((self.grads[first[id(param)]], grad))
                    continue
                first[id(param)] = len(self.params)
                self._names.append(f"{layer_name}.{name}")
                self.params.append(param)
                self.grads.append(grad)

    @abc.abstractmethod
    def forward(self, xs: Array, ts: Array, *, training: bool = True, reduction: Reduction = "mean") -> float:
        """The loss of a batch, the mean or the sum over its targets.

        With training=False dropout is off and nothing is kept for ``backward``.
        """

    @abc.abstractmethod
    def _backward(self) -> None:
        """Fill the layers' gradients for the last forward call."""

    def _forget(self) -> None:  # noqa: B027, a model need not keep any
        """Keep no array of the last forward call; layers forget theirs when they move."""

    def batch_metrics(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:  # noqa: ARG002
        """Of the last forward call, for each name but "loss": the sum of what is averaged, and over how many."""
        return {}

    @property
    @abc.abstractmethod
    def loss_count(self) -> int:
        """Over how many targets the last forward call's loss is the mean."""

    def count_targets(self, ts: Array) -> int:
        """How many of checked targets count."""
        return ts.size

    def require_targets(self, ts: Array, use: str) -> None:
        """Raise unless some of checked targets count: the mean of nothing is no number."""
        if not len(ts):
            raise ValueError(f"there are no rows to {use}")
        if not self.count_targets(ts):
            raise ValueError(f"there are no targets to {use}: none of ts, of shape {ts.shape}, counts")

    @abc.abstractmethod
    def check_batch(self, xs: Any, ts: Any) -> tuple[Array, Array]:
        """Training or validation data as arrays of ids; raises if they cannot be learned from."""

    def state(self) -> list[FloatArray]:
        """What one call leaves to the next beside the parameters; no arrays where that is nothing, or zeros."""
        return []

    def set_state(self, state: Sequence[FloatArray]) -> None:
        """Go on from what `state` returned."""
        if state:
            raise ValueError(f"state has {len(state)} arrays, but {type(self).__name__} carries none")

    def capture_key(self) -> tuple[Any, ...]:
        """What a captured step depends on, beside what each replay is given: see `Layer.capture_key`."""
        return (*self.params, *self.grads, *(part for layer in self._all_layers for part in layer.capture_key()))

    @contextmanager
    def weights_prepared(self) -> Iterator[None]:
        """Inside the block, forward calls with training=False read weights that are packed once; none may change."""
        try:
            for layer in self._all_layers:
                layer.set_prepared(True)
            yield
        finally:
            for layer in self._all_layers:
                layer.set_prepared(False)

    def forget_step(self) -> None:
        """Forget what Python knows of the step before: a replay, which runs no Python, takes its place."""
        for layer in self._all_layers:
            layer.forget_step()

    def backward(self) -> None:
        """Gradients of the last forward call's loss, into ``grads``."""
        self._backward()
        for total, part in self._shared:
            total += part

    def _say_final(self, layer: str) -> None:
        """For ``_backward``: the gradients of this layer, and of all after it in ``layers``, are complete."""
        if self.on_final is not None:
            # Those of shared parameters are summed at the end.
            shared = {id(total) for total, _ in self._shared}
            open_until = max((k for k, grad in enumerate(self.grads, 1) if id(grad) in shared), default=0)
            self.on_final(max(self._positions[layer], open_until))

    def named_parameters(self) -> Iterator[tuple[str, FloatArray]]:
        """Name and array of every parameter, for instance "encoder.lstm1.Wx"; those that do not learn come last."""
        yield from zip(self._names, self.params, strict=True)
        yield from self._frozen.items()

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned; shared weights count once."""
        return sum(param.size for param in self.params)

    def summary(self) -> str:
        """Print a table of the layers, their parameters' shapes and counts (by gates too), and return it."""
        shown = table(f"{type(self).__name__}, {self.params[0].dtype}", self._layer_summaries())
        print(shown)
        return shown

    def graph_edges(self) -> Sequence[Edge]:
        """What flows between the layers, for `plot`: one after the other, unless a model says otherwise.

        Names that are no layers are what goes in or comes out.
        """
        return [Edge(*names) for names in pairwise(["input", *self.layers, "output of the model"])]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the layers, their parameters' shapes and what flows between them; needs matplotlib.

        Parameters
        ----------
        path : path
            A picture to write, for instance "layers.png". A layer that uses a parameter of another is drawn with the
            other's name and joined to it by a dashed line.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        draw(path, type(self).__name__, self._layer_summaries(), self.graph_edges())

    def _layer_summaries(self) -> dict[str, LayerSummary]:
        return summarize(self.layers, self.named_parameters())

    @abc.abstractmethod
    def fit(self, *data: Any, **options: Any) -> History:
        """Train; the data are of the model's own kind."""

    def train_step(
        self, batch: tuple[Array, ...], optimizer: Optimizer, means: Means, *, max_grad: float | None = None
    ) -> None:
        """One step of the optimiser on a batch; loss and metrics, of the weights before it, are added to ``means``.

        Parameters
        ----------
        batch : tuple of arrays
            The arguments of ``forward``, where the model lives.
        optimizer : an object of ``fastlstm.optim``
        means : mapping of "loss" and names of metrics to `RunningMean`
        max_grad : float, optional
            Clip the gradients' global norm to it.
        """
        optimizer.update(self.params, self.gradients(batch, means), max_norm=max_grad)

    def gradients(self, batch: tuple[Array, ...], means: Means, *, reduction: Reduction = "mean") -> Sequence[Grad]:
        """The gradients of a batch's loss, in the order of ``params``; loss and metrics are added to ``means``.

        Parameters
        ----------
        batch, means
            As for `train_step`.
        reduction : "mean" or "sum"
            Of the loss over the targets of the batch.
        """
        loss = self._batch_loss(batch, reduction)
        self.backward()
        add_batch(means, self, loss, [name for name in means if name != "loss"], reduction)
        return self.grads

    def _batch_loss(self, batch: tuple[Array, ...], reduction: Reduction) -> float:
        """That of a training step. A model of one's own whose ``forward`` knows no reduction trains without shards."""
        return self.forward(*batch) if reduction == "mean" else self.forward(*batch, reduction=reduction)

    @abc.abstractmethod
    def evaluate(self, *data: Any, **options: Any) -> dict[str, float]:
        """Loss and metrics of data of the model's own kind, without learning."""

    def _evaluate(
        self,
        batches: Iterable[tuple[Array, ...]],
        metrics: Sequence[str] | None,
        workers: Workers | None,
        shards: int,
        seed: int = 0,
        *,
        verbose: int | str = 0,
        return_dict: bool = True,
    ) -> dict[str, float]:
        """Loss and metrics over batches where the model lives; what is drawn for them depends on ``seed`` only."""
        batches = shown(batches, verbose)
        names = self.check_metrics(self.metric_names if metrics is None else metrics)
        means = {name: self.make_mean(name) for name in ("loss", *names)}
        workers = checked_workers(workers)
        workers.shards_of_mine(shards)
        with self.weights_prepared(), self.seeds.drawn_by(np.random.default_rng(seed)):
            if shards == 1:
                for batch in batches:
                    add_batch(means, self, self.forward(*batch, training=False), names)
            else:
                cut = Shards(self, tuple(means), workers, shards)
                for batch in batches:
                    for rows, sums in cut.each(len(batch[0]), rows_of_batch(batch), self.seeds.draw()):
                        loss = self.forward(*rows, training=False, reduction="sum")
                        add_batch(sums, self, loss, names, "sum")
                    cut.add_to(means)
        values = {name: mean.value for name, mean in means.items()}
        if verbose and workers.rank == 0:
            say(numbers_line(values))
        # Keras's list is for those who ask for it; types know the dictionary alone.
        return values if return_dict else list(values.values())  # type: ignore[return-value]

    def make_mean(self, name: str, total: float = 0.0, count: int = 0) -> RunningMean:  # noqa: ARG002
        """The mean of "loss" or of a metric, which begins with these sums."""
        return RunningMean(total, count)

    def check_metrics(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """The names without "loss"; raises on a name the model has not."""
        if isinstance(metrics, str):
            raise TypeError(f"metrics is the string {metrics!r}, expected a sequence of names such as ({metrics!r},)")
        for name in metrics:
            if self._metric(name) not in (*self.metric_names, *self.further_metric_names):
                known = ", ".join((*self.metric_names, *self.further_metric_names))
                raise ValueError(f"unknown metric {name!r}; {type(self).__name__} has {known}")
        return tuple(name for name in metrics if name != "loss")

    def _metric(self, name: str) -> str:
        """The metric that ``batch_metrics`` knows by a name of the history's, which may be Keras's spelling."""
        return name if name in self.metric_names else SPELLINGS.get(name, name)

    def metric_sums(self, names: Sequence[str]) -> dict[str, tuple[float, int]]:
        """`batch_metrics`, by the names as they are spelled."""
        metrics = {name: self._metric(name) for name in names}
        sums = self.batch_metrics(tuple(dict.fromkeys(metrics.values())))
        return {name: sums[metric] for name, metric in metrics.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, options and vocabulary into one safetensors file; an older file is replaced at once."""
        write_tensor_file(path, dict(self.named_parameters()), self.description())

    def description(self) -> dict[str, Any]:
        """What a saved file says beside the weights."""
        for name in set(self.vocabulary_names).intersection(vars(self)):
            setattr(self, name, vars(self)[name])  # checked again: a list may have been changed since it was set
        return {
            "format": FORMAT_VERSION,
            "class": type(self).__name__,
            "options": self.saved_options,
            **{
                name: value
                for name in self.vocabulary_names
                if (value := getattr(self, name)) is not None or name not in self.optional_names
            },
            **({} if self.tokenizer is None else {"tokenizer": self.tokenizer}),
        }

    @property
    def device(self) -> Device:
        """Where the parameters live: "cpu" or "cuda"."""
        return device_of(self.params[0])

    def to(self, device: Device, *, precision: Precision | None = None) -> Self:
        """Move the model to a device, and return it.

        ``params`` and ``grads``, of the model and of its layers, hold new arrays afterwards, for the model's life or
        until it is moved again; arrays taken from them before are no longer the model's. Carried states move too; what
        the last forward call kept for ``backward`` is forgotten. Nothing of this happens where the model is there
        already.

        On "cuda", ``forward`` takes CuPy arrays and returns the loss as a CuPy array without axes; ``fit``,
        ``evaluate``, ``predict`` and ``generate`` take and return numbers and arrays of the host, as ever.

        Parameters
        ----------
        device : "cpu" or "cuda"
        precision : "bf16", or on a GPU "tf32", optional
            Of the products of recurrent, dense and attention layers, as for `fastlstm.ops.lstm_forward`, until the
            model is moved again, maybe to where it is. Not given, they are exact. Sampled losses always are. It is not
            saved with the model.

        Raises
        ------
        ValueError
            There is no device or no precision of that name, or the device or the model's dtype does not have it.
        BackendNotAvailable
            "cuda": no GPU answers; the message says why. Nothing changes then.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device is {device!r}, expected 'cpu' or 'cuda'")
        check_device(device)
        self._check_precision(precision, device)
        for layer in self.layers.values():
            layer.set_precision(precision)
        if device == self.device:
            return self
        copy = copier_to(device)
        for layer in self.layers.values():
            layer.move(copy)
        for arrays in (self.params, self.grads):
            arrays[:] = [copy(array) for array in arrays]
        self._frozen = {name: copy(array) for name, array in self._frozen.items()}
        self._shared = [(copy(total), copy(part)) for total, part in self._shared]
        self._forget()
        return self

    def _check_precision(self, precision: Precision | None, device: Device) -> None:
        if precision is None:
            return
        if precision not in ("tf32", "bf16"):
            raise ValueError(f"precision is {precision!r}, expected 'tf32', 'bf16' or None for exact products")
        dtype = self.params[0].dtype
        if dtype != np.float32 or (precision == "tf32" and device != "cuda"):
            where = " on a GPU" if precision == "tf32" else ""
            raise ValueError(
                f"precision is {precision!r}, for a {dtype} model on {device!r}: only products of float32 "
                f"arrays{where} have it. Leave it out for exact ones"
            )

    def batches(
        self, xs: Array, ts: Array, batch_size: int, kind: type[Batches] = Batches, weights: Array | None = None
    ) -> Batches:
        """Checked data where the model lives, row by row in batches."""
        device = self.device
        return kind(xs, ts, batch_size, device, (None, None) if device == "cpu" else self.lengths(xs, ts), weights)

    def lengths(self, xs: Array, ts: Array) -> Lengths:  # noqa: ARG002, all steps count
        """How many steps of each row count, of checked data: others are left out of batches on a GPU."""
        return None, None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that ``save`` wrote, or the one in a checkpoint: with the weights that it had then.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no model, cut short, of another class or format, or its weights do not fit its options.
        """
        return cls.from_file(*read_model_file(path), path)

    @classmethod
    def from_file(cls, tensors: Mapping[str, Array], description: Any, path: str | os.PathLike[str]) -> Self:
        """The model in what `read_model_file` returned; path is for errors, which are those of `load`."""
        if (named := class_named(description, path)) != cls.__name__:
            raise ValueError(f"{path} holds a {named}, expected a {cls.__name__}")
        if description.get("format") != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {description.get('format')}, this version of fastlstm reads {FORMAT_VERSION}; "
                "install the version that wrote it"
            )
        try:
            with room_for(sum(array.size for array in tensors.values())):
                model = cls(**description["options"])
            for name in cls.vocabulary_names:
                if name in description or name not in cls.optional_names:
                    setattr(model, name, description[name])
            model.tokenizer = description.get("tokenizer")
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{path} is damaged: its options do not make a {cls.__name__} ({error})") from None
        model.set_weights(tensors, str(path))
        return model

    def get_weights(self) -> list[FloatArray]:
        """Copies of all parameters, arrays of the host in the order of `named_parameters`, for `set_weights`."""
        return [np.array(to_host(param)) for _, param in self.named_parameters()]

    def set_weights(self, tensors: Mapping[str, Array] | Sequence[Any], source: str = "the list of weights") -> None:
        """Copy every parameter; nothing changes unless all fit.

        Parameters
        ----------
        tensors : list of arrays, or mapping of names to arrays
            Those of `get_weights`, numbers of any dtype; or by the names of `named_parameters`, in their dtypes.
        source : str
            Where they come from, for errors.

        Raises
        ------
        ValueError
            There are others, or more or fewer than there are parameters, or shapes do not fit.
        """
        if not isinstance(tensors, Mapping):
            tensors = self._by_name(tensors, source)
        self.check_weights(tensors, source)
        for name, param in self.named_parameters():
            param[...] = to_device(tensors[name], self.device)

    def _by_name(self, weights: Sequence[Any], source: str) -> dict[str, Array]:
        names = [name for name, _ in self.named_parameters()]
        if len(weights) != len(names):
            raise ValueError(f"{source} has {len(weights)} arrays, expected {len(names)}: {', '.join(names)}")
        arrays = {name: host_array(name, array) for name, array in zip(names, weights, strict=True)}
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{source}: {name} has dtype {array.dtype}, expected numbers")
        return {name: array.astype(self.params[0].dtype) for name, array in arrays.items()}

    def check_weights(self, tensors: Mapping[str, Array], source: str) -> None:
        """Raise unless ``tensors`` are the model's parameters by name, shape and dtype."""
        params = dict(self.named_parameters())
        if missing := sorted(params.keys() - tensors.keys()):
            raise ValueError(f"{source} lacks the weights {', '.join(missing)}")
        if unknown := sorted(tensors.keys() - params.keys()):
            raise ValueError(f"{source} has weights the model does not have: {', '.join(unknown)}")
        for name, param in params.items():
            got = tensors[name]
            if got.shape != param.shape or got.dtype != param.dtype:
                raise ValueError(
                    f"{source}: {name} has shape {got.shape} and dtype {got.dtype}, "
                    f"expected {param.shape} and {param.dtype}"
                )


def read_model_file(path: str | os.PathLike[str]) -> tuple[dict[str, Array], Any]:
    """Weights by name and the description of a model's file, or of the model in a checkpoint."""
    tensors, description = read_tensor_file(path)
    return model_in(tensors, description, path) if is_checkpoint(description) else (tensors, description)


def class_named(description: Any, path: str | os.PathLike[str]) -> str:
    """The name of the class of the model in a file with that description; raises if it holds something else."""
    if not isinstance(description, dict) or "class" not in description:
        raise ValueError(f"{path} is a fastlstm file, but no model")
    return str(description["class"])


def kept(value: Kept | None) -> Kept:
    """What the forward call kept for the metrics."""
    if value is None:
        raise RuntimeError("batch_metrics was called before forward")
    return value
