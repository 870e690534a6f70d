"""``common.trainer``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm import optim
from fastlstm.arrays import array_module, is_device_array
from fastlstm.compat.dlfs2.arrays import beside
from fastlstm.contract import Array, FloatArray, IntArray
from fastlstm.ops.device import device_of, read, to_device


class Trainer:
    """Trains a model on rows of x and t in a new order every epoch.

    Attributes
    ----------
    loss_list : list of float
        The mean loss since the entry before, every ``eval_interval`` iterations.
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_list: list[float] = []
        self.eval_interval: int | None = None
        self.current_epoch = 0

    def fit(
        self,
        x: Array,
        t: Array,
        max_epoch: int = 10,
        batch_size: int = 32,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train, and print a line every ``eval_interval`` iterations; None prints nothing."""
        max_iters = len(x) // batch_size
        self.eval_interval = eval_interval
        log = _Log(eval_interval, max_iters)
        x, t = beside(self.model, x, t)
        for _ in range(max_epoch):
            order = to_device(np.random.permutation(np.arange(len(x))), device_of(x))  # noqa: NPY002
            x, t = x[order], t[order]
            for iters in range(max_iters):
                rows = slice(iters * batch_size, (iters + 1) * batch_size)
                log.add(train_step(self.model, self.optimizer, x[rows], t[rows], max_grad))
                if log.is_due(iters):
                    loss = log.mean()
                    log.print(self.current_epoch, iters, f"loss {loss:.2f}")
                    self.loss_list.append(loss)
            self.current_epoch += 1

    def plot(self, ylim: tuple[float, float] | None = None) -> None:
        """Show the losses."""
        _plot(self.loss_list, "loss", self.eval_interval, ylim)


class RnnlmTrainer:
    """Trains a language model on one long text, cut into ``batch_size`` streams that are read side by side.

    Attributes
    ----------
    ppl_list : list of float
        Perplexities of the last ``fit``, every ``eval_interval`` iterations.
    """

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model = model
        self.optimizer = optimizer
        self.time_idx = 0
        self.ppl_list: list[float] = []
        self.eval_interval: int | None = None
        self.current_epoch = 0

    def get_batch(self, x: Array, t: Array, batch_size: int, time_size: int) -> tuple[IntArray, IntArray]:
        """The next ``time_size`` ids of every stream: (batch_size, time_size) int32."""
        xp = array_module(x)
        starts = xp.arange(batch_size) * (len(x) // batch_size)
        places = (starts[:, None] + xp.arange(self.time_idx, self.time_idx + time_size)) % len(x)
        self.time_idx += time_size
        return x[places].astype(np.int32), t[places].astype(np.int32)

    def fit(
        self,
        xs: Array,
        ts: Array,
        max_epoch: int = 10,
        batch_size: int = 20,
        time_size: int = 35,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train, and print a line every ``eval_interval`` iterations; None prints nothing."""
        max_iters = len(xs) // (batch_size * time_size)
        xs, ts = beside(self.model, xs, ts)
        self.time_idx = 0
        self.ppl_list = []
        self.eval_interval = eval_interval
        log = _Log(eval_interval, max_iters)
        for _ in range(max_epoch):
            for iters in range(max_iters):
                batch = self.get_batch(xs, ts, batch_size, time_size)
                log.add(train_step(self.model, self.optimizer, *batch, max_grad))
                if log.is_due(iters):
                    perplexity = float(np.exp(log.mean()))
                    log.print(self.current_epoch, iters, f"perplexity {perplexity:.2f}")
                    self.ppl_list.append(perplexity)
            self.current_epoch += 1

    def plot(self, ylim: tuple[float, float] | None = None) -> None:
        """Show the perplexities."""
        _plot(self.ppl_list, "perplexity", self.eval_interval, ylim)


class _Log:
    """The lines that a fit prints."""

    def __init__(self, interval: int | None, max_iters: int) -> None:
        self._interval = interval
        self._max_iters = max_iters
        self._start = time.time()
        self._total, self._count = 0.0, 0

    def add(self, loss: float) -> None:
        self._total = self._total + loss  # on a GPU, if it is there
        self._count += 1

    def is_due(self, iters: int) -> bool:
        return self._interval is not None and iters % self._interval == 0

    def mean(self) -> float:
        """Of the losses since the call before."""
        mean = read(self._total) / self._count
        self._total, self._count = 0.0, 0
        return mean

    def print(self, epoch: int, iters: int, result: str) -> None:
        seconds = int(time.time() - self._start)
        print(f"| epoch {epoch + 1} |  iter {iters + 1} / {self._max_iters} | time {seconds}[s] | {result}")


def train_step(model: Any, optimizer: Any, x: Array, t: Array, max_grad: float | None) -> float:
    """Forward, backward, clip, update; returns the loss."""
    loss: float = model.forward(x, t)
    model.backward()
    params, grads = remove_duplicate(model.params, model.grads)
    if max_grad is None:
        optimizer.update(params, grads)
    elif isinstance(optimizer, optim.Optimizer):
        optimizer.update(params, grads, max_grad)
    else:
        optim.clip_grads(grads, max_grad)
        optimizer.update(params, grads)
    return loss


def remove_duplicate(
    params: Sequence[FloatArray], grads: Sequence[FloatArray]
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Every parameter once. The first one's gradient becomes the sum of all, in place.

    Two are the same if they are one object, or if one is the transposed view of the other (tied weights). The book
    compares numbers there, which merges different matrices while they happen to be equal.
    """
    ties = any(param.ndim == 2 and not param.flags.c_contiguous for param in params)
    merged: dict[Any, int] = {}
    kept_params: list[FloatArray] = []
    kept_grads: list[FloatArray] = []
    for param, grad in zip(params, grads, strict=True):
        key = _place(param) if ties else id(param)
        if key not in merged:
            merged[key] = len(kept_params)
            kept_params.append(param)
            kept_grads.append(grad)
            continue
        first = merged[key]
        kept_grads[first] += grad if kept_params[first].strides == param.strides else grad.T
    return kept_params, kept_grads


def _place(param: FloatArray) -> tuple[Any, ...]:
    """Where an array lies in memory; equal for a matrix and its transposed view."""
    if param.ndim == 2 and not param.flags.c_contiguous:
        param = param.T
    on_gpu: Any = param
    address = on_gpu.data.ptr if is_device_array(param) else param.__array_interface__["data"][0]
    return address, param.shape, param.strides


def _plot(values: Sequence[float], name: str, interval: int | None, ylim: tuple[float, float] | None) -> None:
    import matplotlib.pyplot as plt

    if ylim is not None:
        plt.ylim(*ylim)
    plt.plot(range(len(values)), values, label="train")
    plt.xlabel(f"iterations (x{interval})")
    plt.ylabel(name)
    plt.show()
