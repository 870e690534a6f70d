"""Training on several processes or machines at once, with the same bits for any number of them."""

from fastlstm.distributed.gradients import sum_gradients
from fastlstm.distributed.mpi import mpi
from fastlstm.distributed.shards import shard_slices
from fastlstm.distributed.workers import Alone, Workers

__all__ = ["Alone", "Workers", "mpi", "shard_slices", "sum_gradients"]
