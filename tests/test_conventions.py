"""docs/conventions.md: every line of its tables runs, and does what the cell beside it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastlstm import ops
from fastlstm.contract import Array

PAGE = Path(__file__).parent.parent / "docs" / "conventions.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is not beside the tests")

# By name, what a line is to make or change; computed from the names before it.
Expected = dict[str, Any]


def groups() -> list[list[tuple[str, str]]]:
    """The lines of the tables, each with its first cell. One that begins with dots goes on where the last one ended."""
    found: list[list[tuple[str, str]]] = []
    for title, code in re.findall(r"^\| (.+) \| `(.+)` \|$", PAGE.read_text() if PAGE.exists() else "", re.MULTILINE):
        if title.startswith("..."):
            found[-1].append((title, code))
        else:
            found.append([(title, code)])
    return found


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def hard_sigmoid(a: Array) -> Array:
    return np.clip(0.2 * a + 0.5, 0, 1)


def lstm_step(
    a: Array, c: Array, order: str = "ifgo", activation: Callable[[Array], Array] = sigmoid
) -> tuple[Array, Array]:
    """h and c of the pre-activations (N, 4H) of the gates."""
    gate = dict(zip(order, np.split(a, 4, axis=1), strict=True))
    c = activation(gate["f"]) * c + activation(gate["i"]) * np.tanh(gate["g"])
    return activation(gate["o"]) * np.tanh(c), c


def lstm(n: Any, b: Any, *, h0: Any = None, c0: Any = None, mask: Any = None, reverse: bool = False, **how: Any) -> Any:
    """hs, h_n and c_n of xs, Wx and Wh."""
    N, T, _ = n.xs.shape
    h, c = (np.zeros((N, n.H)) if state is None else state for state in (h0, c0))
    hs = np.zeros((N, T, n.H))
    for t in reversed(range(T)) if reverse else range(T):
        new = lstm_step(n.xs[:, t] @ n.Wx + h @ n.Wh + b, c, **how)
        counts = np.ones((N, 1), bool) if mask is None else mask[:, t, None]
        h, c = np.where(counts, new[0], h), np.where(counts, new[1], c)
        hs[:, t] = h
    return {"hs": hs, "h_n": h, "c_n": c}


def gru(n: Any, *, z_keeps: bool) -> Expected:
    """Of Gx, Gh and bg, r before the product."""
    h, hs, H = np.zeros((n.N, n.H)), np.zeros((n.N, n.T, n.H)), n.H
    for t in range(n.T):
        ax = n.xs[:, t] @ n.Gx + n.bg
        z, r = (sigmoid(ax[:, block] + h @ n.Gh[:, block]) for block in (slice(H), slice(H, 2 * H)))
        new = np.tanh(ax[:, 2 * H :] + (r * h) @ n.Gh[:, 2 * H :])
        h = z * h + (1 - z) * new if z_keeps else (1 - z) * h + z * new
        hs[:, t] = h
    return {"hs": hs, "h_n": h}


def pytorch_gru(n: Any) -> Expected:
    h, hs = np.zeros((n.N, n.H)), np.zeros((n.N, n.T, n.H))
    for t in range(n.T):
        of_x = np.split(n.xs[:, t] @ n.gru_ih.T + n.gru_bias_ih, 3, axis=1)
        of_h = np.split(h @ n.gru_hh.T + n.gru_bias_hh, 3, axis=1)
        r, z = sigmoid(of_x[0] + of_h[0]), sigmoid(of_x[1] + of_h[1])
        h = (1 - z) * np.tanh(of_x[2] + r * of_h[2]) + z * h
        hs[:, t] = h
    return {"hs": hs, "h_n": h}


def cell(n: Any) -> Expected:
    h, c = lstm_step(n.x @ n.Wx + n.h @ n.Wh + n.b, n.c)
    return {"h": h, "c": c}


def cell_grads(n: Any) -> Any:
    """Of the step whose tape there is."""
    return ops.lstm_cell_backward(n.dh, n.dc, n.tape)


def cross_entropy(logits: Array, n: Any, counts: Any, divisor: float) -> tuple[float, Array]:
    """The loss and its gradient by the logits."""
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    loss = -(counts * np.log(np.take_along_axis(p, n.targets[..., None], -1)[..., 0])).sum() / divisor
    return loss, counts[..., None] * (p - np.eye(n.V)[n.targets]) / divisor


def losses(n: Any, divisor: float, counts: Any = None) -> Expected:
    loss, dlogits = cross_entropy(n.logits, n, np.ones((n.N, n.T)) if counts is None else counts, divisor)
    return {"loss": loss, "dlogits": dlogits}


def projected(n: Any) -> Expected:
    loss, dlogits = cross_entropy(n.hs @ n.weight.T, n, np.ones((n.N, n.T)), n.N * n.T)
    return {"loss": loss, "dhs": dlogits @ n.weight, "dW": np.einsum("nth,ntv->hv", n.hs, dlogits), "db": None}


def negative_sampling(n: Any) -> Expected:
    logits = np.einsum("nh,nsh->ns", n.inputs, n.weight[np.column_stack([n.words, n.negatives])])
    signs = np.where(np.arange(n.S + 1) == 0, 1, -1)
    return {"loss": -np.log(sigmoid(signs * logits)).sum(axis=1)}


def adagrad(n: Any, root: Callable[[Array], Array]) -> Expected:
    squares = [a + g * g for a, g in zip(n.squares, n.grads, strict=True)]
    params = [p - 0.1 * g / root(a) for p, g, a in zip(n.params, n.grads, squares, strict=True)]
    return {"params": params, "squares": squares}


def adam(n: Any, divisor: Callable[[Array, float], Array]) -> Expected:
    m = [0.9 * m + 0.1 * g for m, g in zip(n.m, n.grads, strict=True)]
    v = [0.999 * v + 0.001 * g * g for v, g in zip(n.v, n.grads, strict=True)]
    steps = [0.001 * a / (1 - 0.9**n.k) / divisor(b, 1 - 0.999**n.k) for a, b in zip(m, v, strict=True)]
    return {"params": [p - step for p, step in zip(n.params, steps, strict=True)], "m": m, "v": v}


def scaled(n: Any) -> Expected:
    norm = np.sqrt(sum((grad**2).sum() for grad in n.grads))
    return {"norm": norm, "grads": [grad * 5.0 / (norm + 1e-6) for grad in n.grads]}


def blocks(W: Array) -> dict[str, Array]:
    return dict(zip(("dWxi", "dWxf", "dWxg", "dWxo"), np.split(W, 4, axis=1), strict=True))


# By the beginning of the first cell.
EXPECTED: dict[str, Callable[[Any], Expected]] = {
    "Vectors are columns": cell,
    "... and the weights' gradients in that layout": lambda n: {
        "dWx_col": cell_grads(n).dWx.T,
        "dWh_col": cell_grads(n).dWh.T,
    },
    "Four matrices": lambda n: {"Wx": np.concatenate([n.Wxi, n.Wxf, n.Wxg, n.Wxo], axis=1)},
    "... and their gradients": lambda n: blocks(n.d.dWx),
    "One matrix": cell,
    "... and its gradient": lambda n: {"dW": np.concatenate([cell_grads(n).dWx, cell_grads(n).dWh])},
    "Gates in another order": lambda n: lstm(n, n.b, order="fgio"),
    "PyTorch's weights": lambda n: lstm(n, n.bias_ih + n.bias_hh),
    "A GRU's biases of two kinds": pytorch_gru,
    "No bias": lambda n: lstm(n, 0),
    "Forget bias 1 at the beginning": lambda n: {"b": np.repeat([0, 1, 0, 0], n.H)},
    "Forget bias 1 added": lambda n: lstm(n, n.b + np.repeat([0, 1, 0, 0], n.H)),
    "Hard sigmoid": lambda n: lstm(n, n.b, activation=hard_sigmoid),
    "GRU: z lets go": lambda n: gru(n, z_keeps=False),
    "GRU: z keeps": lambda n: gru(n, z_keeps=True),
    "Time first": lambda n: {"hs_tnh": lstm(n, n.b)["hs"].swapaxes(0, 1)},
    "A loop over time": cell,
    "... whose gradients add up": lambda n: {"d.dWx": n.d.dWx + cell_grads(n).dWx, "d.db": n.d.db + cell_grads(n).db},
    "One-hot inputs": lambda n: lstm(SimpleNamespace(**{**vars(n), "xs": np.eye(n.D)[n.ids]}), n.b),
    "... and the gradient of Wx": lambda n: {"dWx": one_hot_gradient(n)},
    "The state goes on": lambda n: lstm(n, n.b, h0=n.h, c0=n.c),
    "Sequences of different lengths": lambda n: lstm(n, n.b, mask=np.arange(n.T) < n.lengths[:, None]),
    "Any other padding": lambda n: lstm(n, n.b, mask=n.mask),
    "The loss reads the last state": lambda n: {
        "d.dWx": ops.lstm_backward(np.zeros((n.N, n.T, n.H)), n.tape, dh_n=n.dh).dWx
    },
    "From the last step": lambda n: lstm(n, n.b, reverse=True),
    "Losses are summed": lambda n: losses(n, 1),
    "Summed over time": lambda n: losses(n, n.N),
    "A mask of the steps": lambda n: losses(n, n.mask.sum(), n.mask),
    "Each row's loss has a weight": lambda n: losses(n, n.N * n.T, n.w),
    "... divided by the sum of the weights": lambda n: losses(n, n.w.sum(), n.w),
    "One-hot targets": lambda n: losses(n, n.N * n.T),
    "Projection without bias": projected,
    "Negative samples": negative_sampling,
    "Every number is clipped": lambda n: {"grads": [np.clip(grad, -5, 5) for grad in n.grads]},
    "All are scaled": scaled,
    "AdaGrad, epsilon outside": lambda n: adagrad(n, lambda a: np.sqrt(a) + 1e-8),
    "AdaGrad, epsilon inside": lambda n: adagrad(n, lambda a: np.sqrt(a + 1e-8)),
    "Adam, epsilon added after": lambda n: adam(n, lambda v, corrected: np.sqrt(v / corrected) + 1e-8),
    "Adam, epsilon hat": lambda n: adam(n, lambda v, corrected: (np.sqrt(v) + 1e-8) / np.sqrt(corrected)),
}


def one_hot_gradient(n: Any) -> Array:
    tape = ops.lstm_forward(np.eye(n.D)[n.ids], n.Wx, n.Wh, n.b).tape
    return ops.lstm_backward(n.dhs, tape).dWx


def names_of_the_page() -> dict[str, Any]:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


@pytest.mark.parametrize("group", groups(), ids=lambda group: group[0][0][:30])
def test_every_line_does_what_it_says(group: list[tuple[str, str]]) -> None:
    names = names_of_the_page()
    for title, code in group:
        (expected,) = (make for start, make in EXPECTED.items() if title.startswith(start))
        want = expected(SimpleNamespace(**names))
        exec(code, names)
        for name, value in want.items():
            got = eval(name, names)
            if value is None:
                assert got is None
                continue
            both = [x if isinstance(x, list) else [x] for x in (got, value)]
            for one, other in zip(*both, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12, err_msg=f"{title}: {name}")


def test_every_line_is_compared_with_a_formula() -> None:
    titles = [title for group in groups() for title, _ in group]
    assert sorted(start for title in titles for start in EXPECTED if title.startswith(start)) == sorted(EXPECTED)
    assert len(titles) == len(EXPECTED)
