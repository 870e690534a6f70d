"""Shards, and the sum of their gradients: the same bits for any number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_workers import ThreadWorkers, on_workers

from fastlstm.contract import RowGrad
from fastlstm.distributed import Alone, shard_slices, sum_gradients
from fastlstm.distributed.shards import shards_of, subtrees


def gradients(shard: int, dtype: str = "float32") -> list[Any]:
    """What a shard may have: matrices, one of them a transpose, a vector, nothing, and rows of both."""
    rng = np.random.default_rng(shard)
    rows = np.unique(rng.integers(0, 30, 8)) if shard % 3 else np.arange(0)
    W = rng.standard_normal((5, 3)).astype(dtype)
    return [
        W,
        rng.standard_normal((4, 7)).astype(dtype).T,
        np.array([shard, 1.0]),
        np.empty((0, 3), dtype),
        RowGrad(rows, rng.standard_normal((len(rows), 3)).astype(dtype)),
        RowGrad(rows.astype(np.int32), rng.standard_normal(len(rows)).astype(dtype)),
    ]


def summed(workers: ThreadWorkers | Alone, shards: int, dtype: str = "float32") -> list[Any]:
    return sum_gradients(workers, (gradients(k, dtype) for k in workers.shards_of_mine(shards)), shards=shards)


def arrays(grads: Sequence[Any]) -> list[Any]:
    return [array for grad in grads for array in (grad if isinstance(grad, RowGrad) else [grad])]


def bits(grads: Sequence[Any]) -> list[Any]:
    return [(array.shape, array.dtype, array.tobytes()) for array in arrays(grads)]


def dense(grad: Any) -> Any:
    if not isinstance(grad, RowGrad):
        return grad
    whole = np.zeros((30, *grad.values.shape[1:]), grad.values.dtype)
    whole[grad.indices] = grad.values
    return whole


@given(st.integers(0, 40), st.integers(1, 20))
def test_shards_are_contiguous_and_of_one_size(N: int, shards: int) -> None:
    slices = shard_slices(N, shards)
    assert [n for rows in slices for n in range(N)[rows]] == list(range(N))
    lengths = [rows.stop - rows.start for rows in slices]
    assert len(lengths) == shards
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 40), st.integers(1, 40))
def test_workers_share_out_whole_subtrees(shards: int, size: int) -> None:
    """One subtree each where the number of workers is a power of two that divides the shards."""
    size = min(size, shards)
    shares = [shards_of(rank, size, shards) for rank in range(size)]
    assert [k for share in shares for k in share] == list(range(shards))
    for share in shares:
        trees = subtrees(share, range(shards))
        assert [k for tree in trees for k in tree] == list(share)
        if shards % size == 0 and size & (size - 1) == 0:
            assert len(trees) == 1


def test_the_sum_is_a_pairwise_tree_over_the_shards() -> None:
    W = [gradients(k)[0] for k in range(7)]
    tree = (W[0] + (W[1] + W[2])) + ((W[3] + W[4]) + (W[5] + W[6]))
    assert summed(Alone(), 7)[0].tobytes() == tree.tobytes()
    assert summed(Alone(), 1)[0].tobytes() == W[0].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shards", [4, 7, 12])
def test_any_number_of_workers_has_the_bits_of_one(shards: int, dtype: str) -> None:
    alone = summed(Alone(), shards, dtype)
    for n in range(1, shards + 1):
        for one in on_workers(n, lambda workers: summed(workers, shards, dtype)):
            assert bits(one) == bits(alone)
    for total, *parts in zip(alone, *(gradients(k, dtype) for k in range(shards)), strict=True):
        np.testing.assert_allclose(dense(total), sum(map(dense, parts)), rtol=1e-5, atol=1e-6)
    assert alone[1].flags.f_contiguous
    assert [alone[4].indices.dtype, alone[5].indices.dtype] == [np.int64, np.int32]
    assert (np.diff(alone[4].indices) > 0).all()


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(0, 11), min_size=1, max_size=4))
def test_any_sizes_have_the_bits_of_one_worker(n: int, shards: int, sizes: list[int]) -> None:
    def work(workers: ThreadWorkers | Alone) -> list[Any]:
        mine = workers.shards_of_mine(shards)
        lists = ([np.random.default_rng((k, size)).standard_normal(size) for size in sizes] for k in mine)
        return bits(sum_gradients(workers, lists, shards=shards))

    n = min(n, shards)
    assert on_workers(n, work) == [work(Alone())] * n


def test_what_is_sent_is_what_it_has_to_be() -> None:
    """2 (n - 1) / n of dense gradients, for a power of two that divides the shards; of rows what was touched."""
    P = 40_000
    for n in (2, 4, 8):

        def work(workers: ThreadWorkers) -> int:
            sum_gradients(workers, ([np.ones(P, np.float32)] for _ in workers.shards_of_mine(8)), shards=8)
            return workers.bytes_sent

        for sent in on_workers(n, work):
            assert sent == pytest.approx(2 * (n - 1) / n * 4 * P, rel=0.01)

    def rows(workers: ThreadWorkers) -> int:
        grads = [RowGrad(np.arange(100), np.ones((100, 64), np.float32))]
        sum_gradients(workers, [grads], shards=2)
        return workers.bytes_sent

    assert on_workers(2, rows)[0] == pytest.approx(100 * (4 * 64 + 8), rel=0.01)


def test_shards_may_lie_in_memory_in_any_order() -> None:
    W = np.arange(6.0).reshape(2, 3)
    for first, second in ((W, np.asfortranarray(W)), (np.asfortranarray(W), W), (W, np.repeat(W, 2, axis=1)[:, ::2])):
        (total,) = sum_gradients(Alone(), [[first], [second]], shards=2)
        np.testing.assert_array_equal(total, 2 * W)


def test_gradients_stay_as_they_are_and_a_generator_may_use_its_arrays_again() -> None:
    grads = [gradients(k) for k in range(4)]
    before = [bits(of_shard) for of_shard in grads]
    wanted = bits(sum_gradients(Alone(), grads, shards=4))
    assert [bits(of_shard) for of_shard in grads] == before
    again = gradients(0)[:4]

    def generated() -> Any:
        for of_shard in grads:
            for array, new in zip(again, of_shard, strict=False):
                array[...] = new
            yield [*again, *of_shard[4:]]

    assert bits(sum_gradients(Alone(), generated(), shards=4)) == wanted


@pytest.mark.parametrize(
    ("lists", "error"),
    [
        ([], "there are fewer lists of gradients than shards of this worker, 2"),
        ([[np.ones(2)]], "there are fewer lists"),
        ([[np.ones(2)]] * 3, "there are more lists of gradients than shards of this worker, 2"),
        ([[np.ones(2)], [np.ones(3)]], "gradients of a shard are float64 .3,., those of one before float64 .2,."),
        ([[np.ones(2)], [np.ones(2, np.float32)]], "those of one before"),
        ([[np.ones(2, np.int64)]] * 2, "gradient 0 is .*, expected a float32 or float64 array on the host"),
        ([[[1.0]]] * 2, "gradient 0 is"),
    ],
)
def test_wrong_gradients_are_refused(lists: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        sum_gradients(Alone(), lists, shards=2)


def test_workers_with_other_gradients_all_stop() -> None:
    def work(workers: ThreadWorkers) -> None:
        with pytest.raises(ValueError, match="worker 1 has gradients of other shapes, dtypes or orders in memory than"):
            sum_gradients(workers, [[np.ones(2 + workers.rank)]], shards=2)

    on_workers(2, work)


def test_more_workers_than_shards_are_refused() -> None:
    def work(workers: ThreadWorkers) -> None:
        with pytest.raises(ValueError, match="shards is 2, but there are 3 workers"):
            workers.shards_of_mine(2)

    on_workers(3, work)
    with pytest.raises(ValueError, match="shards is 0, expected at least 1"):
        Alone().shards_of_mine(0)
