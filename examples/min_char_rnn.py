"""A tanh RNN learns a text by characters, by hand and on fastlstm: python examples/min_char_rnn.py [FILE]."""

import sys
import time
from pathlib import Path

import numpy as np

from fastlstm import ops

TEXT = "the cat sat on the mat, and the rat sat on the cat. then the fat cat ate the rat that sat on the cat.\n" * 20
H, T, LR, LIMIT = 100, 25, 0.01, 5.0  # units, characters a step, learning rate, and what gradients are clipped to


def by_hand(p, memory, ids, targets, h):
    """A step of training: forward, backward, clipping and AdaGrad. Returns the loss and the last state."""
    hs, probabilities, loss = [h], [], 0.0
    for t in range(len(ids)):
        hs.append(np.tanh(p["Wx"][ids[t]] + hs[t] @ p["Wh"] + p["b"]))  # a one-hot row times Wx is a row of Wx
        y = np.exp(hs[-1] @ p["Wy"] + p["c"])
        probabilities.append(y / y.sum())
        loss -= np.log(probabilities[t][targets[t]])
    grads, dh_next = {name: np.zeros_like(array) for name, array in p.items()}, np.zeros_like(h)
    for t in reversed(range(len(ids))):
        dy = probabilities[t].copy()
        dy[targets[t]] -= 1
        da = (1 - hs[t + 1] ** 2) * (p["Wy"] @ dy + dh_next)
        dh_next = p["Wh"] @ da
        grads["Wx"][ids[t]] += da
        grads["Wh"] += np.outer(hs[t], da)
        grads["b"] += da
        grads["Wy"] += np.outer(hs[t + 1], dy)
        grads["c"] += dy
    for name, grad in grads.items():
        np.clip(grad, -LIMIT, LIMIT, out=grad)
        memory[name] += grad * grad
        p[name] -= LR * grad / np.sqrt(memory[name] + 1e-8)
    return loss, hs[-1]


def ours(p, memory, ids, targets, h):
    """The same step: one call where there was a loop over time."""
    xs = ops.embedding_forward(p["Wx"], ids[None])  # (1, T, H), a batch of one row: x Wx already
    hs, h_n, tape = ops.rnn_forward(xs, None, p["Wh"], p["b"], h0=h[None])
    loss, dhs, dWy, dc = ops.linear_cross_entropy(hs, p["Wy"], p["c"], targets[None], reduction="sum")
    d = ops.rnn_backward(dhs, tape)
    grads = {"Wx": ops.embedding_backward(ids[None], d.dxs, len(p["Wx"])), "Wh": d.dWh, "b": d.db, "Wy": dWy, "c": dc}
    ops.clip_grad_value(list(grads.values()), LIMIT)
    params, grads, memories = ([table[name] for name in p] for table in (p, grads, memory))
    ops.adagrad_update(params, grads, memories, LR, eps=1e-8, eps_inside_root=True)
    return loss, h_n[0]


def main(text, steps=500):
    characters, ids = np.unique(list(text), return_inverse=True)
    rng, V, seconds = np.random.default_rng(0), len(characters), []
    weights = {"Wx": rng.standard_normal((V, H)), "Wh": rng.standard_normal((H, H)), "Wy": rng.standard_normal((H, V))}
    for step in by_hand, ours:
        p = {name: 0.01 * array for name, array in weights.items()} | {"b": np.zeros(H), "c": np.zeros(V)}
        memory, h, begin = {name: np.zeros_like(array) for name, array in p.items()}, np.zeros(H), time.perf_counter()
        for k in range(steps):
            at = k * T % (len(ids) // T * T - T)
            loss, h = step(p, memory, ids[at : at + T], ids[at + 1 : at + T + 1], h)
            if (k + 1) % (steps // 5) == 0:
                print(f"{step.__name__:8} step {k + 1:4}, loss {loss / T:.6f}")
        seconds.append(time.perf_counter() - begin)
    print(f"by hand {seconds[0]:.2f} s, ours {seconds[1]:.2f} s: {seconds[0] / seconds[1]:.1f} times as fast")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text() if sys.argv[1:] else TEXT)
