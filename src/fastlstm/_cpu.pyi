"""The compiled kernels, csrc/cpu/**/bindings.cc. Private: ``fastlstm.ops`` check what these functions trust."""

import enum
from typing import Any

from fastlstm.contract import BoolArray, FloatArray, IntArray

class OptimRule(enum.Enum):
    SGD = ...
    MOMENTUM = ...
    NESTEROV = ...
    ADAGRAD = ...
    RMSPROP = ...
    ADAM = ...

# What arrays of large results have as their base.
class ResultMemory: ...

def isa() -> str: ...
def bf16_in_hardware() -> bool: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
def team_size(threads: int) -> int: ...
def set_teams_always(always: bool) -> None: ...
def run_on_openmp(
    GOMP_parallel: int,
    omp_get_thread_num: int,
    omp_get_num_threads: int,
    omp_get_max_threads: int,
    omp_in_parallel: int,
) -> None: ...
def free_unused_buffers() -> int: ...
def buffer_bytes_in_use() -> int: ...

# xs of two axes are those of a cell; hs is None then.
def prepare_lstm(Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, gate_order: str, bf16: bool) -> Any: ...
def prepare_gru(
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    gate_order: str,
    reset_after: bool,
    z_keeps: bool,
    bf16: bool,
) -> Any: ...
def prepare_rnn(Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, bf16: bool) -> Any: ...
def lstm_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    h0: FloatArray | None,
    c0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    gate_order: str,
    hard_sigmoid: bool,
    training: bool,
    bf16: bool,
) -> tuple[Any, FloatArray, FloatArray, Any]: ...
def gru_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    gate_order: str,
    reset_after: bool,
    z_keeps: bool,
    training: bool,
    bf16: bool,
) -> tuple[Any, FloatArray, Any]: ...
def rnn_forward(
    xs: FloatArray,
    Wx: FloatArray | None,
    Wh: FloatArray,
    b: FloatArray | None,
    h0: FloatArray | None,
    mask: BoolArray | None,
    reverse: bool,
    time_major: bool,
    training: bool,
    bf16: bool,
) -> tuple[Any, FloatArray, Any]: ...
def embedding_forward(W: FloatArray, ids: IntArray) -> FloatArray: ...
def embedding_backward_rows(ids: IntArray, dout: FloatArray) -> tuple[IntArray, FloatArray]: ...
def scatter_add(target: FloatArray, ids: IntArray, rows: FloatArray, clear: bool, skip: int) -> None: ...
def clear_rows(target: FloatArray, ids: IntArray) -> None: ...
def prepare_dense(W: FloatArray, b: FloatArray | None, transposed: bool, bf16: bool) -> Any: ...
def product(
    a: FloatArray,
    b: FloatArray,
    bias: FloatArray | None,
    a_transposed: bool,
    b_transposed: bool,
    out: FloatArray,
    bf16: bool,
) -> None: ...
def softmax_cross_entropy(
    logits: FloatArray, targets: IntArray, ignore_index: int, normalizer: float | None
) -> tuple[float, FloatArray]: ...
def linear_cross_entropy(
    h: FloatArray,
    W: FloatArray,
    b: FloatArray | None,
    targets: IntArray,
    ignore_index: int,
    low_memory: bool,
    dh: FloatArray | None,
    dW: FloatArray | None,
    db: FloatArray | None,
    accumulate: bool,
    with_dh: bool,
    with_dW: bool,
    with_db: bool,
    bf16: bool,
    normalizer: float | None,
) -> tuple[float, FloatArray, FloatArray, FloatArray]: ...
def log_uniform_candidates(
    num_sampled: int, range_max: int, true_classes: IntArray, unique: bool, log_range: float, seed: int
) -> tuple[IntArray, FloatArray, FloatArray, int]: ...
def log_uniform_expected_count(classes: IntArray, log_range: float, num_tries: int, num_sampled: int) -> FloatArray: ...
def alias_table(scaled: FloatArray) -> tuple[FloatArray, IntArray]: ...
def unigram_candidates(
    probabilities: FloatArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    true_classes: IntArray,
    unique: bool,
    seed: int,
) -> tuple[IntArray, FloatArray, FloatArray, int]: ...
def sampled_logits_forward(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
) -> tuple[FloatArray, Any]: ...
def sampled_loss(
    weights: FloatArray,
    biases: FloatArray | None,
    labels: IntArray,
    inputs: FloatArray,
    sampled: IntArray,
    true_expected_count: FloatArray | None,
    sampled_expected_count: FloatArray | None,
    remove_accidental_hits: bool,
    num_true: int,
    softmax: bool,
) -> tuple[FloatArray, FloatArray, IntArray, FloatArray, FloatArray | None]: ...
def subsample(ids: IntArray, keep: FloatArray, seed: int) -> IntArray: ...
def skipgram_counts(ids: IntArray, window: int, start: int, stop: int, seed: int) -> IntArray: ...
def skipgram_pairs(ids: IntArray, window: int, start: int, stop: int, seed: int) -> tuple[IntArray, IntArray]: ...
def negative_sampling_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    lr: float,
    seed: int,
) -> float: ...
def cbow_update(
    vectors: FloatArray,
    weights: FloatArray,
    centers: IntArray,
    contexts: IntArray,
    counts: IntArray,
    threshold: FloatArray,
    alias: IntArray,
    num_sampled: int,
    lr: float,
    divide_step: bool,
    seed: int,
) -> float: ...
def optim_update(
    rule: OptimRule,
    param: FloatArray,
    grad: FloatArray,
    rows: IntArray | None,
    grad_scale: float,
    lr: float,
    first: FloatArray | None = None,
    second: FloatArray | None = None,
    momentum: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    decay: float = 0.0,
    eps_inside_root: bool = False,
) -> None: ...
def squared_norm(values: FloatArray) -> float: ...
def scale(values: FloatArray, factor: float) -> None: ...
def clip(values: FloatArray, limit: float) -> None: ...
def dropout_mask(xs: FloatArray, *, ratio: float, seed: int) -> FloatArray: ...
