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
from fastlstm.distributed.bf16 import from_bf16, round_to_bf16, to_bf16
from fastlstm.distributed.gradients import GradientSum
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


def rounded(numbers: Any) -> Any:
    """To bfloat16: the nearest of the numbers whose lower half is zero, the even one of two."""
    wide = np.asarray(numbers, np.float32).astype(np.float64)
    down = (np.asarray(numbers, np.float32).view(np.uint32) & 0xFFFF0000).astype(np.uint32)
    up = down + np.uint32(1 << 16)
    low, high = (bits.view(np.float32).astype(np.float64) for bits in (down, up))
    nearer = np.where(np.abs(wide - low) < np.abs(high - wide), down, up)
    even = np.where((down >> 16) % 2 == 0, down, up)
    return np.where(np.abs(wide - low) == np.abs(high - wide), even, nearer).astype(np.uint32).view(np.float32)


def test_numbers_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, 50_000, np.uint32).view(np.float32)
    numbers = numbers[np.isfinite(numbers) & (np.abs(numbers) < 3e38)]
    ties = (rng.integers(0, 0x7F00, 500).astype(np.uint32) << 16 | 0x8000).view(np.float32)
    numbers = np.concatenate((numbers, ties, -ties, np.array([0, -0.0, 1e-45, 1, -2.5], np.float32)))
    got = numbers.copy()
    round_to_bf16(got)
    assert got.tobytes() == rounded(numbers).tobytes()
    assert from_bf16(to_bf16(got)).tobytes() == got.tobytes()
    special = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF], np.uint32).view(np.float32)
    round_to_bf16(special)
    np.testing.assert_array_equal(special, [np.nan, np.nan, np.inf, -np.inf, np.inf])


def summed_bf16(workers: ThreadWorkers | Alone, shards: int, dtype: str = "float32") -> list[Any]:
    lists = (gradients(k, dtype) for k in workers.shards_of_mine(shards))
    return sum_gradients(workers, lists, shards=shards, precision="bf16")


@pytest.mark.parametrize("shards", [1, 4, 7])
def test_rounded_sums_have_the_same_bits_for_any_number_of_workers(shards: int) -> None:
    alone = summed_bf16(Alone(), shards)
    for n in range(1, shards + 1):
        for one in on_workers(n, lambda workers: summed_bf16(workers, shards)):
            assert bits(one) == bits(alone)
    exact = summed(Alone(), shards)
    for array, same in zip(arrays(alone), arrays(exact), strict=True):
        assert array.dtype == same.dtype
        if array.dtype == np.float32:
            assert array.tobytes() == rounded(array).tobytes()
            np.testing.assert_allclose(array, same, rtol=0.02, atol=0.05)
        else:
            np.testing.assert_array_equal(array, same)
    assert bits(summed_bf16(Alone(), shards, "float64")) == bits(summed(Alone(), shards, "float64"))


def test_shards_and_their_sums_are_rounded() -> None:
    W = [rounded(gradients(k)[0]) for k in range(3)]
    assert summed_bf16(Alone(), 3)[0].tobytes() == rounded(W[0] + rounded(W[1] + W[2])).tobytes()


def test_rounded_gradients_are_half_the_bytes() -> None:
    def work(workers: ThreadWorkers, precision: Any) -> int:
        dense = np.ones(40_000, np.float32)
        rows = RowGrad(np.arange(100), np.ones((100, 640), np.float32))
        sum_gradients(workers, ([dense, rows] for _ in range(2)), shards=4, precision=precision)
        return workers.bytes_sent

    exact_bytes = on_workers(2, lambda workers: work(workers, None))
    halved_bytes = on_workers(2, lambda workers: work(workers, "bf16"))
    for exact, halved in zip(exact_bytes, halved_bytes, strict=True):
        assert halved == pytest.approx(exact / 2, rel=0.01)


def test_there_is_no_other_precision() -> None:
    with pytest.raises(ValueError, match="precision is 'fp8', expected 'bf16', or None"):
        sum_gradients(Alone(), [], shards=1, precision="fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("shards", [4, 5])
def test_gradients_that_travel_early_have_the_same_bits(
    shards: int, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastlstm.distributed.gradients.WORTH_SENDING", 50)

    def work(workers: ThreadWorkers | Alone, overlaps: bool) -> Any:
        workers.overlaps = overlaps
        total = GradientSum(workers, shards, precision)
        found: list[Any] = []
        early: list[int] = []

        def lists(step: int) -> Any:
            for k in workers.shards_of_mine(shards):
                grads = [np.full_like(grad, np.nan) for grad in gradients(k)[:4]]
                for i in reversed(range(4)):  # the last ones are final first
                    grads[i][...] = gradients(k + step)[i]
                    total.final_from(grads, i)
                early.append(len(total._travelling))
                yield grads

        for step in range(3):
            found.append(bits(total(lists(step))))
        return found, early

    wanted, _ = work(Alone(), False)
    for n in (1, 2, 3, 4):
        for found, early in on_workers(n, lambda workers: work(workers, True)):
            assert found == wanted
            mine = len(early) // 3
            assert early[:mine] == [0] * mine  # the first time nobody knows how much there is
            assert early[mine:] == [*[0] * (mine - 1), early[-1]] * 2  # nothing but what is of the last shard
            assert early[-1] >= 2
