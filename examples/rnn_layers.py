"""The layers of a course's assignment on recurrent networks, on fastlstm: its names, its order of arguments, its gates.

x (N, T, D), h (N, T, H), weights (D, G), (H, G), (G,); an LSTM's gates stand in the order i, f, o, g. What a function
returns as cache goes to the function of the same name that ends in backward.

python examples/rnn_layers.py compares all gradients with central differences.
"""

import numpy as np

from fastlstm import ops
from fastlstm.testing import check_gradient

GATE_ORDER = "ifog"


def rnn_step_forward(x, prev_h, Wx, Wh, b):
    return ops.rnn_cell_forward(x, prev_h, Wx, Wh, b)  # next_h, cache


def rnn_step_backward(dnext_h, cache):
    return ops.rnn_cell_backward(dnext_h, cache)  # dx, dprev_h, dWx, dWh, db


def rnn_forward(x, h0, Wx, Wh, b):
    out = ops.rnn_forward(x, Wx, Wh, b, h0=h0)
    return out.hs, out.tape


def rnn_backward(dh, cache):
    d = ops.rnn_backward(dh, cache)
    return d.dxs, d.dh0, d.dWx, d.dWh, d.db


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
    return ops.lstm_cell_forward(x, prev_h, prev_c, Wx, Wh, b, gate_order=GATE_ORDER)  # next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    return ops.lstm_cell_backward(dnext_h, dnext_c, cache)  # dx, dprev_h, dprev_c, dWx, dWh, db


def lstm_forward(x, h0, Wx, Wh, b):
    out = ops.lstm_forward(x, Wx, Wh, b, h0=h0, gate_order=GATE_ORDER)
    return out.hs, out.tape


def lstm_backward(dh, cache):
    d = ops.lstm_backward(dh, cache)
    return d.dxs, d.dh0, d.dWx, d.dWh, d.db


def word_embedding_forward(x, W):
    return ops.embedding_forward(W, x), (x, len(W))


def word_embedding_backward(dout, cache):
    x, V = cache
    return ops.embedding_backward(x, dout, V)


def temporal_affine_forward(x, w, b):
    rows = x.reshape(-1, x.shape[-1])
    return ops.matrix_product(rows, w, bias=b).reshape(*x.shape[:-1], len(b)), (x, w)


def temporal_affine_backward(dout, cache):
    x, w = cache
    rows, drows = x.reshape(-1, x.shape[-1]), dout.reshape(-1, dout.shape[-1])
    return ops.matrix_product(drows, w.T).reshape(x.shape), ops.matrix_product(rows.T, drows), drows.sum(axis=0)


def temporal_softmax_loss(x, y, mask, verbose=False):
    """Summed over the words where mask is True, divided by the number of rows N."""
    loss, dx = ops.softmax_cross_entropy(x, np.where(mask, y, -1), normalizer=len(x))
    if verbose:
        print(f"dx is {dx.shape}")
    return loss, dx


def check(forward, backward, **inputs):
    """The gradients of the weighted sum of what forward returns, all but its cache, against central differences."""
    *outputs, cache = forward(**inputs)
    upstream = [np.random.default_rng(k).standard_normal(output.shape) for k, output in enumerate(outputs)]
    grads = backward(*upstream, cache)

    def loss(**floats):
        return sum(float((out * d).sum()) for out, d in zip(forward(**{**inputs, **floats}), upstream, strict=False))

    floats = {name: array for name, array in inputs.items() if array.dtype.kind == "f"}
    check_gradient(loss, floats, dict(zip(floats, grads if isinstance(grads, tuple) else (grads,), strict=True)))
    print(f"{forward.__name__}: gradients agree with central differences")


def main():
    rng = np.random.default_rng(0)
    N, T, V, D, H = 3, 5, 7, 4, 6

    def draw(*shape):
        return rng.standard_normal(shape)

    def weights(gates):
        return {"Wx": draw(D, gates * H), "Wh": draw(H, gates * H), "b": draw(gates * H)}

    check(rnn_step_forward, rnn_step_backward, x=draw(N, D), prev_h=draw(N, H), **weights(1))
    check(rnn_forward, rnn_backward, x=draw(N, T, D), h0=draw(N, H), **weights(1))
    state = {"prev_h": draw(N, H), "prev_c": draw(N, H)}
    check(lstm_step_forward, lstm_step_backward, x=draw(N, D), **state, **weights(4))
    check(lstm_forward, lstm_backward, x=draw(N, T, D), h0=draw(N, H), **weights(4))
    check(word_embedding_forward, word_embedding_backward, x=rng.integers(0, V, (N, T)), W=draw(V, D))
    check(temporal_affine_forward, temporal_affine_backward, x=draw(N, T, D), w=draw(D, V), b=draw(V))
    scores, y, mask = draw(N, T, V), rng.integers(0, V, (N, T)), rng.random((N, T)) < 0.7
    dx = temporal_softmax_loss(scores, y, mask)[1]
    check_gradient(lambda x: temporal_softmax_loss(x, y, mask)[0], {"x": scores}, {"x": dx})
    print("temporal_softmax_loss: gradients agree with central differences")


if __name__ == "__main__":
    main()
