"""An LSTM learns a text by characters, by hand and on fastlstm, and writes: python examples/char_lstm.py [FILE]."""

import sys
import time
from pathlib import Path

import numpy as np

from fastlstm import ops

TEXT = "the cat sat on the mat, and the rat sat on the cat. then the fat cat ate the rat that sat on the cat.\n" * 20
H, T, LR = 100, 25, 1.0  # units, characters a step, learning rate


def by_hand(p, ids, targets, h, c):
    """Loss, gradients, last states. A matrix for each gate, of the character (one-hot) and the state in one row."""
    steps, loss, V = [], 0.0, p["Wy"].shape[1]
    for t in range(T):
        z = np.append(np.eye(V)[ids[t]], h)
        i, f, o = (1 / (1 + np.exp(-z @ p[f"W{gate}"] - p[f"b{gate}"])) for gate in "ifo")
        g, c_prev = np.tanh(z @ p["Wg"] + p["bg"]), c
        c = f * c_prev + i * g
        h = o * np.tanh(c)
        y = np.exp(h @ p["Wy"] + p["by"])
        steps.append((z, i, f, g, o, c_prev, c, h, y / y.sum()))
        loss -= np.log(steps[t][-1][targets[t]]) / T
    grads, dh, dc = {name: np.zeros_like(array) for name, array in p.items()}, np.zeros(H), np.zeros(H)
    for t, (z, i, f, g, o, c_prev, c_t, h_t, dy) in reversed(list(enumerate(steps))):
        dy[targets[t]] -= 1
        dh = dh + p["Wy"] @ dy / T
        dc = dc + dh * o * (1 - np.tanh(c_t) ** 2)
        da = {"i": dc * g * i * (1 - i), "f": dc * c_prev * f * (1 - f), "g": dc * i * (1 - g * g)}
        da["o"] = dh * np.tanh(c_t) * o * (1 - o)
        for name, x, dout in [("y", h_t, dy / T), *((gate, z, da[gate]) for gate in da)]:
            grads[f"W{name}"] += np.outer(x, dout)
            grads[f"b{name}"] += dout
        dh, dc = sum(p[f"W{gate}"] @ da[gate] for gate in da)[V:], dc * f
    return loss, grads, h, c


def ours(p, ids, targets, h, c):
    """The same, of a batch of one row. The gates' matrices lie side by side: Wx (V, 4H), Wh (H, 4H)."""
    xs = ops.embedding_forward(p["Wx"], ids[None])  # (1, T, 4H): one-hot rows times Wx are rows of Wx
    hs, h_n, c_n, tape = ops.lstm_forward(xs, None, p["Wh"], p["b"], h0=h[None], c0=c[None])
    loss, dhs, dWy, dby = ops.linear_cross_entropy(hs, p["Wy"], p["by"], targets[None])
    d = ops.lstm_backward(dhs, tape)
    dWx = ops.embedding_backward(ids[None], d.dxs, len(p["Wx"]))
    return loss, {"Wx": dWx, "Wh": d.dWh, "b": d.db, "Wy": dWy, "by": dby}, h_n[0], c_n[0]


def main(text, steps=500):
    characters, ids = np.unique(list(text), return_inverse=True)
    rng, V, seconds = np.random.default_rng(0), len(characters), []
    gates = {f"W{gate}": 0.1 * rng.standard_normal((V + H, H)) for gate in "ifgo"}
    gates |= {f"b{gate}": np.full(H, float(gate == "f")) for gate in "ifgo"}  # what is new is kept at first
    gates |= {"Wy": 0.1 * rng.standard_normal((H, V)), "by": np.zeros(V)}
    W, b = (ops.pack_gates({gate: gates[kind + gate] for gate in "ifgo"}) for kind in "Wb")
    packed = {"Wx": W[:V], "Wh": W[V:], "b": b, "Wy": gates["Wy"].copy(), "by": gates["by"].copy()}
    for step, p in (by_hand, gates), (ours, packed):
        h, c, begin = np.zeros(H), np.zeros(H), time.perf_counter()
        for k in range(steps):
            at = k * T % (len(ids) // T * T - T)
            loss, grads, h, c = step(p, ids[at : at + T], ids[at + 1 : at + T + 1], h, c)
            for name, grad in grads.items():
                p[name] -= LR * grad
            if (k + 1) % (steps // 5) == 0:
                print(f"{step.__name__:8} step {k + 1:4}, loss {loss:.6f}")
        seconds.append(time.perf_counter() - begin)
    print(f"by hand {seconds[0]:.2f} s, ours {seconds[1]:.2f} s: {seconds[0] / seconds[1]:.1f} times as fast")
    h, c, written = h[None], c[None], [ids[0]]
    for _ in range(200):
        h, c, tape = ops.lstm_cell_forward(p["Wx"][written[-1:]], h, c, None, p["Wh"], p["b"])
        written.append(rng.choice(V, p=ops.softmax(h @ p["Wy"] + p["by"])[0]))
    print("".join(characters[written]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text() if sys.argv[1:] else TEXT)
