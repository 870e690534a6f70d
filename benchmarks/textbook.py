"""What the project claims to beat: from-scratch numpy code as a reader of "Deep Learning from Scratch 2" writes it.

One cell object a time step, a Python loop over time, plain numpy, gate order "fgio", no buffer kept. It is correct
(the benchmarks compare it with ``fastlstm.ops`` before they time it) and nothing in it is slow on purpose.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class LSTMCell:
    """One LSTM step. Wx (D, 4H), Wh (H, 4H), b (4H,), gates in the order f, g, i, o."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache: tuple[Array, ...] = ()

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        Wx, Wh, b = self.params
        H = h_prev.shape[1]
        A = np.dot(x, Wx) + np.dot(h_prev, Wh) + b
        f = sigmoid(A[:, :H])
        g = np.tanh(A[:, H : 2 * H])
        i = sigmoid(A[:, 2 * H : 3 * H])
        o = sigmoid(A[:, 3 * H :])
        c_next = f * c_prev + g * i
        h_next = o * np.tanh(c_next)
        self.cache = (x, h_prev, c_prev, i, f, g, o, c_next)
        return h_next, c_next

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, i, f, g, o, c_next = self.cache
        tanh_c = np.tanh(c_next)
        ds = dc_next + (dh_next * o) * (1 - tanh_c**2)
        dc_prev = ds * f
        di = ds * g * i * (1 - i)
        df = ds * c_prev * f * (1 - f)
        do = dh_next * tanh_c * o * (1 - o)
        dg = ds * i * (1 - g**2)
        dA = np.hstack((df, dg, di, do))
        self.grads[0][...] = np.dot(x.T, dA)
        self.grads[1][...] = np.dot(h_prev.T, dA)
        self.grads[2][...] = dA.sum(axis=0)
        return np.dot(dA, Wx.T), np.dot(dA, Wh.T), dc_prev


class RNNCell:
    """One step of h = tanh(x Wx + h_prev Wh + b)."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache: tuple[Array, ...] = ()

    def forward(self, x: Array, h_prev: Array) -> Array:
        Wx, Wh, b = self.params
        h_next: Array = np.tanh(np.dot(h_prev, Wh) + np.dot(x, Wx) + b)
        self.cache = (x, h_prev, h_next)
        return h_next

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        Wx, Wh, _ = self.params
        x, h_prev, h_next = self.cache
        dt = dh_next * (1 - h_next**2)
        self.grads[0][...] = np.dot(x.T, dt)
        self.grads[1][...] = np.dot(h_prev.T, dt)
        self.grads[2][...] = np.sum(dt, axis=0)
        return np.dot(dt, Wx.T), np.dot(dt, Wh.T)


class TimeLSTM:
    """T LSTM steps. xs (N, T, D), hs (N, T, H)."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cells: list[LSTMCell] = []

    def forward(self, xs: Array, h0: Array | None = None, c0: Array | None = None) -> tuple[Array, Array, Array]:
        """hs (N, T, H) and the last h and c (N, H)."""
        Wx, Wh, b = self.params
        N, T, _ = xs.shape
        H = Wh.shape[0]
        h = np.zeros((N, H), dtype=xs.dtype) if h0 is None else h0
        c = np.zeros((N, H), dtype=xs.dtype) if c0 is None else c0
        self.cells = []
        hs = np.empty((N, T, H), dtype=xs.dtype)
        for t in range(T):
            cell = LSTMCell(Wx, Wh, b)
            h, c = cell.forward(xs[:, t, :], h, c)
            hs[:, t, :] = h
            self.cells.append(cell)
        return hs, h, c

    def backward(self, dhs: Array) -> tuple[Array, Array, Array]:
        """dxs (N, T, D), dh0 and dc0 (N, H); the weights' gradients are left in ``grads``."""
        Wx, _, _ = self.params
        N, T, H = dhs.shape
        dxs = np.empty((N, T, Wx.shape[0]), dtype=dhs.dtype)
        dh: Array = np.zeros((N, H), dtype=dhs.dtype)
        dc: Array = np.zeros((N, H), dtype=dhs.dtype)
        for grad in self.grads:
            grad[...] = 0
        for t in reversed(range(T)):
            cell = self.cells[t]
            dx, dh, dc = cell.backward(dhs[:, t, :] + dh, dc)
            dxs[:, t, :] = dx
            for total, grad in zip(self.grads, cell.grads, strict=True):
                total += grad
        return dxs, dh, dc


class TimeRNN:
    """T tanh RNN steps. xs (N, T, D), hs (N, T, H)."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cells: list[RNNCell] = []

    def forward(self, xs: Array, h0: Array | None = None) -> tuple[Array, Array]:
        """hs (N, T, H) and the last h (N, H)."""
        Wx, Wh, b = self.params
        N, T, _ = xs.shape
        H = Wh.shape[0]
        h = np.zeros((N, H), dtype=xs.dtype) if h0 is None else h0
        self.cells = []
        hs = np.empty((N, T, H), dtype=xs.dtype)
        for t in range(T):
            cell = RNNCell(Wx, Wh, b)
            h = cell.forward(xs[:, t, :], h)
            hs[:, t, :] = h
            self.cells.append(cell)
        return hs, h

    def backward(self, dhs: Array) -> tuple[Array, Array]:
        """dxs (N, T, D) and dh0 (N, H); the weights' gradients are left in ``grads``."""
        Wx, _, _ = self.params
        N, T, H = dhs.shape
        dxs = np.empty((N, T, Wx.shape[0]), dtype=dhs.dtype)
        dh: Array = np.zeros((N, H), dtype=dhs.dtype)
        for grad in self.grads:
            grad[...] = 0
        for t in reversed(range(T)):
            cell = self.cells[t]
            dx, dh = cell.backward(dhs[:, t, :] + dh)
            dxs[:, t, :] = dx
            for total, grad in zip(self.grads, cell.grads, strict=True):
                total += grad
        return dxs, dh


def embedding_forward(W: Array, ids: Array) -> Array:
    return W[ids]


def embedding_backward(dW: Array, ids: Array, dout: Array) -> None:
    """The dense gradient dW (V, E), overwritten; ids (M,), dout (M, E)."""
    dW[...] = 0
    np.add.at(dW, ids, dout)


def affine_forward(x: Array, W: Array, b: Array) -> Array:
    """x (M, H), W (H, V), b (V,)."""
    out: Array = np.dot(x, W) + b
    return out


def affine_backward(x: Array, W: Array, dout: Array) -> tuple[Array, Array, Array]:
    """dx, dW, db."""
    return np.dot(dout, W.T), np.dot(x.T, dout), np.sum(dout, axis=0)


def softmax(x: Array) -> Array:
    x = x - x.max(axis=1, keepdims=True)
    x = np.exp(x)
    x /= x.sum(axis=1, keepdims=True)
    return x


def softmax_cross_entropy(logits: Array, targets: Array, ignore_index: int = -1) -> tuple[float, Array]:
    """Mean loss over the targets that are not ignored, and its gradient. logits (M, V), targets (M,)."""
    mask = targets != ignore_index
    count = mask.sum()
    ys = softmax(logits)
    rows = np.arange(len(targets))
    losses = np.log(ys[rows, targets]) * mask
    dx = ys
    dx[rows, targets] -= 1
    dx /= count
    dx *= mask[:, np.newaxis]
    return float(-losses.sum() / count), dx


class Adam:
    """Kingma, Ba (2015); parameter after parameter, in place."""

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.iter = 0
        self.m: list[Array] = []
        self.v: list[Array] = []

    def update(self, params: list[Array], grads: list[Array]) -> None:
        if not self.m:
            self.m = [np.zeros_like(param) for param in params]
            self.v = [np.zeros_like(param) for param in params]
        self.iter += 1
        lr_t = float(self.lr * np.sqrt(1.0 - self.beta2**self.iter) / (1.0 - self.beta1**self.iter))
        for param, grad, m, v in zip(params, grads, self.m, self.v, strict=True):
            m += (1 - self.beta1) * (grad - m)
            v += (1 - self.beta2) * (grad**2 - v)
            param -= lr_t * m / (np.sqrt(v) + 1e-7)


def clip_grads(grads: list[Array], max_norm: float) -> float:
    """Scale all gradients in place so that their common norm is at most max_norm; return the norm before."""
    total_norm = 0.0
    for grad in grads:
        total_norm += float(np.sum(grad**2))
    total_norm = float(np.sqrt(total_norm))
    rate = max_norm / (total_norm + 1e-6)
    if rate < 1:
        for grad in grads:
            grad *= rate
    return total_norm


class Candidates(NamedTuple):
    """sampled (S,); true_expected_count (B, num_true); sampled_expected_count (S,); num_tries."""

    sampled: Array
    true_expected_count: Array
    sampled_expected_count: Array
    num_tries: int


def log_uniform_candidates(num_sampled: int, range_max: int, labels: Array, rng: np.random.Generator) -> Candidates:
    """num_sampled different classes, P(k) = log((k + 2) / (k + 1)) / log(range_max + 1), as TensorFlow's sampler."""
    log_range = np.log1p(range_max)
    drawn = np.empty(0, np.int64)
    first = np.empty(0, np.int64)
    while len(first) < num_sampled:
        draws = np.exp(rng.random(2 * num_sampled) * log_range).astype(np.int64) - 1
        drawn = np.concatenate((drawn, np.minimum(draws, range_max - 1)))
        _, first = np.unique(drawn, return_index=True)
    first = np.sort(first)[:num_sampled]
    num_tries = int(first[-1]) + 1

    def expected_count(classes: Array) -> Array:
        p = np.log((classes + 2) / (classes + 1)) / log_range
        expected: Array = -np.expm1(num_tries * np.log1p(-p))
        return expected

    sampled = drawn[first]
    return Candidates(sampled, expected_count(labels), expected_count(sampled), num_tries)


def nce_step(
    weights: Array,
    biases: Array,
    labels: Array,
    inputs: Array,
    *,
    num_sampled: int,
    lr: float,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """One training step with noise-contrastive estimation: sample, gather, forward, backward, sparse SGD.

    weights (V, E) and biases (V,) change in place; labels (B, num_true), inputs (B, E). Returns the loss (B,), one a
    row as ``tf.nn.nce_loss`` gives it, and the gradient of its mean by the inputs (B, E).
    """
    B, num_true = labels.shape
    candidates = log_uniform_candidates(num_sampled, weights.shape[0], labels, rng)
    sampled = candidates.sampled
    w_true, b_true = weights[labels], biases[labels]
    w_sampled, b_sampled = weights[sampled], biases[sampled]
    true_logits = np.sum(inputs[:, np.newaxis, :] * w_true, axis=2) + b_true
    true_logits -= np.log(candidates.true_expected_count).astype(inputs.dtype)
    sampled_logits = np.dot(inputs, w_sampled.T) + b_sampled
    sampled_logits -= np.log(candidates.sampled_expected_count).astype(inputs.dtype)
    logits = np.hstack((true_logits, sampled_logits))
    wanted = np.zeros_like(logits)
    wanted[:, :num_true] = 1 / num_true
    loss = np.sum(np.maximum(logits, 0) - logits * wanted + np.log1p(np.exp(-np.abs(logits))), axis=1)

    dlogits = (sigmoid(logits) - wanted) / B
    d_true, d_sampled = dlogits[:, :num_true], dlogits[:, num_true:]
    dinputs = np.sum(d_true[:, :, np.newaxis] * w_true, axis=1) + np.dot(d_sampled, w_sampled)
    dw_true = d_true[:, :, np.newaxis] * inputs[:, np.newaxis, :]
    dw_sampled = np.dot(d_sampled.T, inputs)

    ids, position = np.unique(np.concatenate((labels.ravel(), sampled)), return_inverse=True)
    dweights = np.zeros((len(ids), weights.shape[1]), weights.dtype)
    dbiases = np.zeros(len(ids), biases.dtype)
    np.add.at(dweights, position, np.concatenate((dw_true.reshape(-1, weights.shape[1]), dw_sampled)))
    np.add.at(dbiases, position, np.concatenate((d_true.ravel(), d_sampled.sum(axis=0))))
    weights[ids] -= lr * dweights
    biases[ids] -= lr * dbiases
    return loss, dinputs
