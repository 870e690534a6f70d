"""How a batch is cut into shards, who computes which, and in which order shards are summed.

All of it follows from the number of shards alone: workers only share the work out. The sum is a tree: half of the
shards and the other half, each summed in the same way. A worker's shards are whole subtrees of it, which the worker
sums by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from fastlstm.ops import scalars

Part = TypeVar("Part")


def shard_slices(N: int, shards: int) -> list[slice]:
    """The rows of each shard of a batch of N: contiguous, one after the other, their numbers differ by one at most.

    Parameters
    ----------
    N : int
        Rows of the batch. With fewer rows than shards some shards are empty.
    shards : int

    Returns
    -------
    list of slice, ``shards`` of them
    """
    N, shards = scalars.integer("N", N, 0), scalars.integer("shards", shards, 1)
    return [slice(N * k // shards, N * (k + 1) // shards) for k in range(shards)]


def shards_of(rank: int, size: int, shards: int) -> range:
    """The shards of one of ``size`` workers, at least one where there are as many shards as workers."""
    return range(shards * rank // size, shards * (rank + 1) // size)


def halves(tree: range) -> tuple[range, range]:
    """The two trees of which one of at least two shards is the sum."""
    middle = (tree.start + tree.stop) // 2
    return range(tree.start, middle), range(middle, tree.stop)


def subtrees(own: range, tree: range) -> list[range]:
    """The fewest subtrees of a tree that make up the shards ``own``, in their order."""
    if own.stop <= tree.start or tree.stop <= own.start:
        return []
    if own.start <= tree.start and tree.stop <= own.stop:
        return [tree]
    left, right = halves(tree)
    return [*subtrees(own, left), *subtrees(own, right)]


def sum_tree(tree: range, parts: Mapping[range, Part], add: Callable[[Part, Part], Part]) -> Part:
    """The sum of all shards of a tree, from those of its subtrees ``parts``."""
    if tree in parts:
        return parts[tree]
    left, right = halves(tree)
    return add(sum_tree(left, parts, add), sum_tree(right, parts, add))
