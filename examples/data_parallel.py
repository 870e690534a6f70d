"""A loop of one's own on several processes: mpiexec -n 4 python examples/data_parallel.py, with any number from 1 to 8.

An LSTM and a softmax learn to repeat what they read three steps ago. Every process has the same weights and draws the
same batches; each computes the gradients of its shards, pieces of the batch's rows. The weights' bits depend on the
number of shards, not on that of processes: the last line is the same for all.
"""

import zlib

import numpy as np

from fastlstm import distributed, ops

N, T, V, H, SHARDS = 32, 12, 8, 32, 8  # batch, time steps, vocabulary, hidden width


def train(workers, steps=200):
    rng = np.random.default_rng(0)
    shapes = {"E": (V, V), "Wx": (V, 4 * H), "Wh": (H, 4 * H), "b": (4 * H,), "W": (H, V), "c": (V,)}
    p = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    m, v = ([np.zeros_like(array) for array in p.values()] for _ in range(2))

    def grads_of_my_shards(ids, targets):
        rows = distributed.shard_slices(N, SHARDS)
        for k in workers.shards_of_mine(SHARDS):
            xs = ops.embedding_forward(p["E"], ids[rows[k]])
            hs, _, _, tape = ops.lstm_forward(xs, p["Wx"], p["Wh"], p["b"])
            loss, dhs, dW, dc = ops.linear_cross_entropy(hs, p["W"], p["c"], targets[rows[k]], reduction="sum")
            d = ops.lstm_backward(dhs, tape)
            yield [ops.embedding_backward(ids[rows[k]], d.dxs, V), d.dWx, d.dWh, d.db, dW, dc, np.array([loss])]

    for step in range(1, steps + 1):
        ids = rng.integers(0, V, (N, T))
        targets = np.where(np.arange(T) < 3, -1, np.roll(ids, 3, axis=1))  # -1 is ignored
        *grads, loss = distributed.sum_gradients(workers, grads_of_my_shards(ids, targets), shards=SHARDS)
        scale = 1 / np.count_nonzero(targets != -1)
        ops.adam_update(list(p.values()), grads, m, v, 0.01, step=step, grad_scale=scale)
        if workers.rank == 0 and step % 50 == 0:
            print(f"step {step}: loss {loss[0] * scale:.3f}")
    return zlib.crc32(b"".join(array.tobytes() for array in p.values()))


if __name__ == "__main__":
    workers = distributed.mpi()
    bits = train(workers)
    if workers.rank == 0:
        print(f"crc32 of the weights, trained by {workers.size}: {bits:08x}")
