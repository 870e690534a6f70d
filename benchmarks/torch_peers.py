"""The same work as PyTorch users write it, on torch's best path. Import it only where PyTorch is installed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fastlstm.contract import Array


def tensor(array: Array, device: str = "cpu") -> torch.Tensor:
    """A copy: torch and we change parameters in place."""
    return torch.from_numpy(array.copy()).to(device)


def parameter(array: Array, device: str = "cpu") -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor(array, device))


def fill_recurrent(layer: Any, Wx: Array, Wh: Array, b: Array) -> None:
    """Our weights, gates in PyTorch's order, into a torch.nn.LSTM, GRU or RNN of one layer; b with one bias or two."""
    of_inputs, of_state = b if b.ndim == 2 else (b, np.zeros_like(b))
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(Wx.T))
        layer.weight_hh_l0.copy_(torch.from_numpy(Wh.T))
        layer.bias_ih_l0.copy_(torch.from_numpy(of_inputs))
        layer.bias_hh_l0.copy_(torch.from_numpy(of_state))


def recurrent_gradients(layer: Any) -> tuple[Array, Array, Array]:
    """dWx, dWh, db in our layout."""
    grads = {name: param.grad.float().numpy() for name, param in layer.named_parameters()}
    db = grads["bias_ih_l0"]
    if isinstance(layer, torch.nn.GRU):
        db = np.stack([db, grads["bias_hh_l0"]])
    return grads["weight_ih_l0"].T, grads["weight_hh_l0"].T, db


class Recurrent:
    """Forward and backward of torch.nn.LSTM (oneDNN), GRU or RNN over xs (N, T, D), with dhs (N, T, H).

    Batch first, as the data lies; ``time_first`` is the common advice, xs and dhs transposed beforehand. The forward
    maybe under bf16 autocast, or xs and the module in bf16 throughout.
    """

    def __init__(
        self,
        kind: type[torch.nn.LSTM | torch.nn.GRU | torch.nn.RNN],
        xs: Array,
        Wx: Array,
        Wh: Array,
        b: Array,
        dhs: Array,
        *,
        time_first: bool = False,
        autocast: bool = False,
        bf16: bool = False,
    ) -> None:
        self._autocast = autocast
        dtype = torch.bfloat16 if bf16 else torch.float32
        self._layer = kind(Wx.shape[0], Wh.shape[0], batch_first=not time_first)
        fill_recurrent(self._layer, Wx, Wh, b)
        self._layer.to(dtype)
        self._axes = (1, 0, 2) if time_first else (0, 1, 2)
        self._xs = tensor(np.ascontiguousarray(xs.transpose(self._axes))).to(dtype).requires_grad_()
        self._dhs = tensor(np.ascontiguousarray(dhs.transpose(self._axes)))

    def __call__(self) -> torch.Tensor:
        for param in self._layer.parameters():
            param.grad = None
        self._xs.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            hs: torch.Tensor = self._layer(self._xs)[0]
        hs.backward(self._dhs.to(hs.dtype))  # type: ignore[no-untyped-call]
        return hs

    def results(self) -> dict[str, Array]:
        hs = self().detach().float().numpy()
        assert self._xs.grad is not None
        dWx, dWh, db = recurrent_gradients(self._layer)
        hs, dxs = (array.transpose(self._axes) for array in (hs, self._xs.grad.float().numpy()))
        return {"hs": hs, "dxs": dxs, "dWx": dWx, "dWh": dWh, "db": db}


class EmbeddingGradient:
    """The dense gradient (V, E) of one batch after the other, as torch.nn.Embedding's backward computes it."""

    def __init__(self, batches: Sequence[tuple[Array, Array]], V: int) -> None:
        self._batches = [(tensor(ids), torch.from_numpy(dout)) for ids, dout in batches]
        self._V = V
        self._step = 0

    def __call__(self) -> torch.Tensor:
        ids, dout = self._batches[self._step % len(self._batches)]
        self._step += 1
        grad: torch.Tensor = torch.ops.aten.embedding_dense_backward(dout, ids, self._V, -1, False)
        return grad


class LinearCrossEntropy:
    """torch.nn.functional.linear and cross_entropy, forward and backward; the forward maybe under bf16 autocast."""

    def __init__(self, h: Array, W: Array, b: Array, targets: Array, *, autocast: bool = False) -> None:
        self._autocast = autocast
        self._h = tensor(h).requires_grad_()
        self._W = tensor(np.ascontiguousarray(W.T)).requires_grad_()
        self._b = tensor(b).requires_grad_()
        self._targets = tensor(targets)

    def __call__(self) -> torch.Tensor:
        self._h.grad = self._W.grad = self._b.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            loss = functional.cross_entropy(functional.linear(self._h, self._W, self._b), self._targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def results(self) -> dict[str, Array]:
        loss = self().detach().numpy()
        assert self._h.grad is not None
        assert self._W.grad is not None
        assert self._b.grad is not None
        return {"loss": loss, "dh": self._h.grad.numpy(), "dW": self._W.grad.numpy().T, "db": self._b.grad.numpy()}


class MatrixProduct:
    """a b + bias as torch.nn.functional.linear computes it, maybe under bf16 autocast."""

    def __init__(self, a: Array, b: Array, bias: Array, *, autocast: bool = False) -> None:
        self._autocast = autocast
        self._a, self._bias = tensor(a), tensor(bias)
        self._b = tensor(np.ascontiguousarray(b.T))

    def __call__(self) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            return functional.linear(self._a, self._b, self._bias)

    def results(self) -> dict[str, Array]:
        return {"out": self().float().numpy()}


class Candidates:
    """One sample of log-uniform classes: sampled (S,), expected counts of the true (B,) and the sampled ones (S,)."""

    def __init__(self, sampled: torch.Tensor, true_count: torch.Tensor, sampled_count: torch.Tensor) -> None:
        self.sampled, self.true_count, self.sampled_count = sampled, true_count, sampled_count


class NCEStep:
    """Noise-contrastive estimation with sparse gradients: sample, gather, forward, backward, SGD.

    One gather for true and sampled classes together, so that each table has one sparse gradient a step.
    """

    def __init__(
        self,
        embedding: Array,
        weights: Array,
        biases: Array,
        batches: Sequence[tuple[Array, Array]],
        *,
        num_sampled: int,
        lr: float,
        device: str = "cpu",
    ) -> None:
        self._device = device
        self._embedding = parameter(embedding, device)
        self._weights = parameter(weights, device)
        self._biases = parameter(biases[:, np.newaxis], device)
        self._optimizer = torch.optim.SGD([self._embedding, self._weights, self._biases], lr=lr)
        self._batches = [(tensor(ids, device), tensor(labels, device)) for ids, labels in batches]
        self._S = num_sampled
        self._V = len(biases)
        self._log_range = math.log1p(self._V)
        self._step = 0

    def __call__(self) -> torch.Tensor:
        ids, labels = self._batches[self._step % len(self._batches)]
        self._step += 1
        return self.step(ids, labels, self._sample(labels))

    def step(self, ids: torch.Tensor, labels: torch.Tensor, candidates: Candidates) -> torch.Tensor:
        """The loss of every row (B,)."""
        classes = torch.cat((labels, candidates.sampled))
        x = functional.embedding(ids, self._embedding, sparse=True)
        w = functional.embedding(classes, self._weights, sparse=True)
        b = functional.embedding(classes, self._biases, sparse=True)[:, 0]
        B = len(labels)
        true_logits = (x * w[:B]).sum(1) + b[:B] - candidates.true_count.log().float()
        sampled_logits = x @ w[B:].T + (b[B:] - candidates.sampled_count.log().float())
        loss = functional.softplus(-true_logits) + functional.softplus(sampled_logits).sum(1)
        self._optimizer.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss

    def tables(self) -> dict[str, Array]:
        """The parameters as they are now."""
        return {
            "embedding": self._embedding.detach().cpu().numpy(),
            "weights": self._weights.detach().cpu().numpy(),
            "biases": self._biases.detach().cpu().numpy()[:, 0],
        }

    def _sample(self, labels: torch.Tensor) -> Candidates:
        """Different classes in the order of their first draws, and the expected counts for that many draws."""
        draws = self._draw()
        while True:
            values, order = torch.sort(draws, stable=True)
            is_first = torch.ones_like(values, dtype=torch.bool)
            torch.ne(values[1:], values[:-1], out=is_first[1:])
            first = torch.sort(order[is_first]).values[: self._S]
            if len(first) == self._S:
                break
            draws = torch.cat((draws, self._draw()))
        sampled, num_tries = draws[first], int(first[-1]) + 1
        return Candidates(sampled, self._expected_count(labels, num_tries), self._expected_count(sampled, num_tries))

    def _draw(self) -> torch.Tensor:
        u = torch.rand(2 * self._S, dtype=torch.float64, device=self._device)
        return (torch.exp(u * self._log_range).long() - 1) % self._V

    def _expected_count(self, classes: torch.Tensor, num_tries: int) -> torch.Tensor:
        p = torch.log1p(1 / (classes.double() + 1)) / self._log_range
        return -torch.expm1(num_tries * torch.log1p(-p))


def match_eps(adam: torch.optim.Optimizer, step: int) -> None:
    """Our eps of 1e-7: ours is added before the correction of v (Kingma and Ba, end of section 2), torch's after it."""
    adam.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**step)


class Adam:
    """torch's fused Adam over given parameters and gradients, with or without clipping of the global norm before."""

    def __init__(self, params: Sequence[Array], grads: Sequence[Array], *, lr: float, max_norm: float | None) -> None:
        self._params = [parameter(param) for param in params]
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = tensor(grad)
        self._optimizer = torch.optim.Adam(self._params, lr=lr, fused=True)
        self._max_norm = max_norm
        self._step = 0

    @property
    def params(self) -> list[Array]:
        return [param.detach().numpy() for param in self._params]

    def __call__(self) -> None:
        self._step += 1
        if self._max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._params, self._max_norm)
        match_eps(self._optimizer, self._step)
        self._optimizer.step()


class TrainedModel:
    """A model with its optimiser; one call is one training step: forward, backward, clip, update.

    With ``autocast`` set, the forward runs under bf16 autocast.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, batches: Sequence[tuple[Array, Array]], max_norm: float
    ) -> None:
        self.autocast = False
        self._optimizer = optimizer
        self._batches = [(tensor(xs), tensor(ts)) for xs, ts in batches]
        self._max_norm = max_norm
        self._step = 0
        self._params: list[Any] = [param for group in optimizer.param_groups for param in group["params"]]

    def loss(self, xs: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def __call__(self) -> float:
        xs, ts = self._batches[self._step % len(self._batches)]
        self._step += 1
        self._optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = self.loss(xs, ts)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._params, self._max_norm)
        self._optimizer.step()
        return float(loss.detach())


class Seq2seq(TrainedModel):
    """`fastlstm.models.Seq2seq` without its options, from the same weights; fused Adam."""

    def __init__(
        self, weights: Mapping[str, Array], batches: Sequence[tuple[Array, Array]], *, lr: float, max_norm: float
    ) -> None:
        self._source = _embedding(weights["encoder.embedding.W"])
        self._target = _embedding(weights["decoder.embedding.W"])
        self._encoder, self._decoder = (
            _lstm(*(weights[f"{part}.lstm1.{name}"] for name in ("Wx", "Wh", "b"))) for part in ("encoder", "decoder")
        )
        self._output = _linear(weights["output.W"], weights["output.b"])
        modules = torch.nn.ModuleList([self._source, self._target, self._encoder, self._decoder, self._output])
        self._adam = torch.optim.Adam(modules.parameters(), lr=lr, fused=True)
        super().__init__(self._adam, batches, max_norm)

    def __call__(self) -> float:
        match_eps(self._adam, self._step + 1)
        return super().__call__()

    def loss(self, xs: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
        _, state = self._encoder(self._source(xs))
        hs, _ = self._decoder(self._target(ts[:, :-1]), state)
        return functional.cross_entropy(self._output(hs).flatten(0, 1), ts[:, 1:].flatten())


class PeekySeq2seq(Seq2seq):
    """`fastlstm.models.Seq2seq` with ``reverse_source`` and ``peeky``: the encoder's h before the decoder's inputs."""

    def loss(self, xs: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
        _, state = self._encoder(self._source(xs.flip(1)))
        peek = state[0][0][:, None].expand(-1, ts.shape[1] - 1, -1)
        hs, _ = self._decoder(torch.cat((peek, self._target(ts[:, :-1])), 2), state)
        return functional.cross_entropy(self._output(torch.cat((peek, hs), 2)).flatten(0, 1), ts[:, 1:].flatten())

    def weights(self) -> dict[str, Array]:
        """As they are now, with our names."""
        found = {
            "encoder.embedding.W": self._source.weight,
            "decoder.embedding.W": self._target.weight,
            "output.W": self._output.weight.T,
            "output.b": self._output.bias,
        }
        for part, lstm in (("encoder", self._encoder), ("decoder", self._decoder)):
            found[f"{part}.lstm1.Wx"] = lstm.weight_ih_l0.T
            found[f"{part}.lstm1.Wh"] = lstm.weight_hh_l0.T
            found[f"{part}.lstm1.b"] = lstm.bias_ih_l0
        return {name: weight.detach().numpy() for name, weight in found.items()}


class Classifier(TrainedModel):
    """`fastlstm.models.SequenceClassifier` with mean pooling, from the same weights; fused Adam.

    The LSTM runs over the padding too, whose states are left out of the mean: what stands behind a sequence's end
    changes nothing before it. With packed sequences, which oneDNN does not take, a step is four times slower.
    """

    def __init__(
        self, weights: Mapping[str, Array], batches: Sequence[tuple[Array, Array]], *, lr: float, max_norm: float
    ) -> None:
        self._embedding = _embedding(weights["embedding.W"])
        self._lstm = _lstm(*(weights[f"lstm.{name}"] for name in ("Wx", "Wh", "b")))
        self._output = _linear(weights["output.W"], weights["output.b"])
        modules = torch.nn.ModuleList([self._embedding, self._lstm, self._output])
        self._adam = torch.optim.Adam(modules.parameters(), lr=lr, fused=True)
        super().__init__(self._adam, batches, max_norm)

    def __call__(self) -> float:
        match_eps(self._adam, self._step + 1)
        return super().__call__()

    def loss(self, xs: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
        mask = xs >= 0
        hs, _ = self._lstm(self._embedding(xs.clamp(min=0)))
        weights = mask / mask.sum(dim=1, keepdim=True)
        pooled = torch.bmm(weights[:, None], hs)[:, 0]
        return functional.cross_entropy(self._output(pooled), ts)


class LanguageModel(TrainedModel):
    """Embedding, LSTMs and a projection to the vocabulary; fused SGD. Tied without an output."""

    def __init__(
        self,
        embedding: Array,
        lstms: Sequence[tuple[Array, Array, Array]],
        output: Array | None,
        biases: Array,
        batches: Sequence[tuple[Array, Array]],
        *,
        lr: float,
        max_norm: float,
    ) -> None:
        self._embedding = _embedding(embedding)
        self._lstms = [_lstm(*lstm) for lstm in lstms]
        self._output = _linear(embedding.T if output is None else output, biases)
        if output is None:
            self._output.weight = self._embedding.weight
        self._states: list[Any] = [None] * len(lstms)
        modules = torch.nn.ModuleList([self._embedding, *self._lstms, self._output])
        super().__init__(torch.optim.SGD(modules.parameters(), lr=lr, fused=True), batches, max_norm)

    def loss(self, xs: torch.Tensor, ts: torch.Tensor) -> torch.Tensor:
        hs = self._embedding(xs)
        for k, lstm in enumerate(self._lstms):
            hs, (h, c) = lstm(hs, self._states[k])
            self._states[k] = (h.detach(), c.detach())
        return functional.cross_entropy(self._output(hs).flatten(0, 1), ts.flatten())


def _embedding(W: Array) -> torch.nn.Embedding:
    return torch.nn.Embedding.from_pretrained(tensor(W), freeze=False)  # type: ignore[no-untyped-call,no-any-return]


def _lstm(Wx: Array, Wh: Array, b: Array) -> torch.nn.LSTM:
    layer = torch.nn.LSTM(Wx.shape[0], Wh.shape[0], batch_first=True)
    fill_recurrent(layer, Wx, Wh, b)
    layer.bias_hh_l0.requires_grad_(False)  # added to the first bias: learning both would double its steps
    return layer


def _linear(W: Array, b: Array) -> torch.nn.Linear:
    layer = torch.nn.Linear(*W.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(W.T))
        layer.bias.copy_(torch.from_numpy(b))
    return layer
