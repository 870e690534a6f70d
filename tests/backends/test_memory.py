"""What the compiled kernels hold: a tape keeps what backward needs and nothing twice, and gives it back."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import ops
from fastlstm.ops import checks

_cpu = pytest.importorskip("fastlstm._cpu", reason="the compiled extension is not built")

N, T, D, H = 20, 35, 100, 112
FLOAT = 4
SLACK = 1.2  # sizes are rounded up by an eighth at most, blocks are padded


@pytest.fixture(autouse=True)
def compiled() -> Any:
    with fastlstm.use_backend("cpp"):
        gc.collect()
        yield


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def held_by_tape(forward: Any, gates: int) -> int:
    """Bytes that stay in use while a forward call's tape lives, its results apart."""
    xs, Wx, Wh, b = arrays(0, (N, T, D), (D, gates * H), (H, gates * H), (gates * H,))
    before = _cpu.buffer_bytes_in_use()
    tape = forward(xs, Wx, Wh, b).tape
    held: int = _cpu.buffer_bytes_in_use() - before
    del tape
    assert _cpu.buffer_bytes_in_use() == before
    return held


def test_lstm_tape_holds_gates_and_states_once() -> None:
    needed = (T * N * 4 * H + 2 * (T + 1) * N * H) * FLOAT
    assert needed <= held_by_tape(ops.lstm_forward, 4) <= SLACK * needed


def test_gru_tape_holds_gates_and_states_once() -> None:
    padded = 128  # units lie in blocks of 64
    needed = (4 * T + T + 1) * N * padded * FLOAT
    assert needed <= held_by_tape(ops.gru_forward, 3) <= SLACK * needed


def test_rnn_tape_holds_states_once() -> None:
    padded = 128  # units lie in blocks of 64
    needed = (T + 1) * N * padded * FLOAT
    assert needed <= held_by_tape(ops.rnn_forward, 1) <= SLACK * needed


def test_forward_without_training_holds_nothing() -> None:
    xs, Wx, Wh, b = arrays(1, (N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,))
    before = _cpu.buffer_bytes_in_use()
    hs = ops.lstm_forward(xs, Wx, Wh, b, training=False).hs
    assert _cpu.buffer_bytes_in_use() - before <= SLACK * hs.nbytes


@pytest.mark.parametrize(
    ("forward", "backward", "gates"),
    [(ops.lstm_forward, ops.lstm_backward, 4), (ops.gru_forward, ops.gru_backward, 3)],
    ids=["lstm", "gru"],
)
def test_training_steps_reuse_their_memory(forward: Any, backward: Any, gates: int) -> None:
    """No allocation in the steady state: after the first step nothing is added to the pool."""
    G = gates * H
    xs, Wx, Wh, b, dhs = arrays(2, (N, T, D), (D, G), (H, G), (G,), (N, T, H))

    def step() -> None:
        backward(dhs, forward(xs, Wx, Wh, b).tape)

    fastlstm.free_unused_memory()
    before = _cpu.buffer_bytes_in_use()
    step()
    after_one = fastlstm.free_unused_memory()
    for _ in range(5):
        step()
    assert _cpu.buffer_bytes_in_use() == before
    assert fastlstm.free_unused_memory() == after_one > 0
    assert fastlstm.free_unused_memory() == 0


def test_results_outlive_the_pool() -> None:
    xs, Wx, Wh, b = arrays(3, (N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,))
    hs = ops.lstm_forward(xs, Wx, Wh, b, training=False).hs
    kept = hs.copy()
    fastlstm.free_unused_memory()
    ops.lstm_forward(-xs, Wx, Wh, b, training=False)
    np.testing.assert_array_equal(hs, kept)


def test_large_results_overlap_where_they_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = arrays(4, (N, T, D), (D, 4 * H), (H, 4 * H), (4 * H,))
    one, other = (ops.lstm_forward(*inputs, training=False).hs for _ in range(2))
    assert isinstance(one.base, _cpu.ResultMemory)
    assert checks.overlapping([one[:10]], [one[10:]]) is None
    assert checks.overlapping([one[:10]], [other, one[9:]]) == (0, 2)
    monkeypatch.setattr(checks, "span", lambda array: pytest.fail("addresses were looked at"))
    assert checks.overlapping([one], [other, other[1:]]) is None


def test_low_memory_loss_holds_a_block_of_the_logits() -> None:
    """All that a call took lies in the pool after it, but for its smallest results."""
    M, E, V = 700, 64, 10_000
    h, W, b = arrays(4, (M, E), (E, V), (V,))
    targets = np.arange(M) % V
    peaks = {}
    for memory in ("fast", "low"):
        fastlstm.free_unused_memory()
        result = ops.linear_cross_entropy(h, W, b, targets, memory=memory)
        gradients = sum(array.nbytes for array in result[1:])
        del result
        peaks[memory] = fastlstm.free_unused_memory() - gradients
    assert peaks["low"] < 4e6 < M * V * FLOAT < peaks["fast"]
