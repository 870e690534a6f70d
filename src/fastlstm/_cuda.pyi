"""Planning and launching of the kernels for GPUs, csrc/cuda/*/bindings.cc. Private: it trusts every address."""

from typing import Literal, TypeAlias, TypedDict

from fastlstm.contract import Precision

Kernel: TypeAlias = Literal["plain", "step", "persistent", "rows", "cluster"]
Cell: TypeAlias = Literal["lstm", "rnn", "gru_reset_after", "gru_reset_before"]

class Plan(TypedDict):
    """How a pass runs; csrc/cuda/recurrent/plan.h explains the words.

    chunks and resident are those of all parts; step_cycles is an estimate, 0 for the row kernel.
    """

    kernel: Kernel
    columns: int
    rows: int
    threads: int
    units: int
    unit_blocks: int
    row_blocks: int
    pass_blocks: int
    chunks: int
    resident: int
    shared_bytes: int
    workspace_bytes: int
    step_cycles: float

def why_not() -> str | None: ...
def why_no_code(*, capability: int, driver: int, runtime: int, machine_code: list[int], ptx: int) -> str | None: ...
def dropout_mask(
    *,
    mask: int,
    float64: bool,
    count: int,
    ratio: float,
    factor: float,
    seed: int,
    seed_at: int,
    device: int,
    stream: int,
) -> None: ...
def store_scalars(*, target: int, values: list[int], device: int, stream: int) -> None: ...
def check_ids(
    *,
    ids: int,
    checked: int,
    wide: bool,
    count: int,
    upper: int | None,
    ignore_index: int | None,
    source: int,
    shared: int,
    fault: int,
    device: int,
    stream: int,
) -> None: ...
def plan(
    cell: Cell,
    direction: Literal["forward", "backward"],
    precision: Precision,
    N: int,
    T: int,
    H: int,
    multiprocessors: int,
    shared_bytes: int,
    largest_cluster: int = 0,
    kernel: str | None = None,
) -> Plan: ...
def sample_workspace_bytes(*, num_sampled: int, unique: bool) -> int: ...
def log_uniform_candidates(
    *,
    num_sampled: int,
    range_max: int,
    true_classes: int,
    M: int,
    unique: bool,
    log_range: float,
    seed: int,
    seed_at: int,
    sampled: int,
    true_expected_count: int,
    sampled_expected_count: int,
    num_tries: int,
    workspace: int,
    device: int,
    stream: int,
) -> None: ...
def log_uniform_expected_count(
    *,
    classes: int,
    M: int,
    log_range: float,
    num_tries: int,
    known_tries: int,
    num_sampled: int,
    counts: int,
    device: int,
    stream: int,
) -> None: ...
def unigram_candidates(
    *,
    probabilities: int,
    threshold: int,
    alias: int,
    V: int,
    num_sampled: int,
    true_classes: int,
    M: int,
    unique: bool,
    seed: int,
    seed_at: int,
    sampled: int,
    true_expected_count: int,
    sampled_expected_count: int,
    num_tries: int,
    workspace: int,
    device: int,
    stream: int,
) -> None: ...
def sampled_workspace_bytes(*, float_bytes: int, B: int, K: int, S: int, E: int, with_logits: bool) -> int: ...
def sampled_logits_forward(
    *,
    float_bytes: int,
    B: int,
    K: int,
    S: int,
    E: int,
    weights: int,
    biases: int,
    labels: int,
    inputs: int,
    sampled: int,
    true_expected_count: int,
    sampled_expected_count: int,
    remove_accidental_hits: bool,
    logits: int,
    is_true: int,
    device: int,
    stream: int,
) -> None: ...
def sampled_logits_backward(
    *,
    float_bytes: int,
    B: int,
    K: int,
    S: int,
    E: int,
    weights: int,
    labels: int,
    inputs: int,
    sampled: int,
    dlogits: int,
    dinputs: int,
    indices: int,
    dweights: int,
    dbiases: int,
    num_rows: int,
    workspace: int,
    device: int,
    stream: int,
) -> None: ...
def sampled_loss(
    *,
    float_bytes: int,
    B: int,
    K: int,
    S: int,
    E: int,
    weights: int,
    biases: int,
    labels: int,
    inputs: int,
    sampled: int,
    true_expected_count: int,
    sampled_expected_count: int,
    remove_accidental_hits: bool,
    num_true: int,
    softmax: bool,
    losses: int,
    dinputs: int,
    indices: int,
    dweights: int,
    dbiases: int,
    num_rows: int,
    workspace: int,
    device: int,
    stream: int,
) -> None: ...

# Addresses of param, grad, first, second and rows (0: not there), the bytes of a row number, the elements of grad and
# of a row; and address and elements. An address that is not 0 beside a number stands for it: a float64 on the device.
UpdatedTensor: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
FlatTensor: TypeAlias = tuple[int, int]
SquaredTensor: TypeAlias = tuple[int, int, int, int]

def optim_update(
    *,
    rule: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"],
    float64: bool,
    tensors: list[UpdatedTensor],
    lr: float,
    lr_at: int,
    grad_scale: float,
    grad_scale_at: int,
    correction: float,
    momentum: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    eps_inside_root: bool,
    step_at: int,
    device: int,
    stream: int,
) -> None: ...
def optim_scale(
    *, float64: bool, tensors: list[FlatTensor], factor: float, factor_at: int, device: int, stream: int
) -> None: ...
def optim_clip(*, float64: bool, tensors: list[FlatTensor], limit: float, device: int, stream: int) -> None: ...
def optim_norm_partials(*, float32: list[int], float64: list[int]) -> int: ...
def optim_norm(
    *,
    float32: list[SquaredTensor],
    float64: list[SquaredTensor],
    partials: int,
    root: bool,
    norm: int,
    device: int,
    stream: int,
) -> None: ...
def optim_clip_scale(*, norm: int, max_norm: float, scale: int, device: int, stream: int) -> None: ...

class SequencePass:
    def __init__(
        self,
        *,
        cell: Cell,
        direction: Literal["forward", "backward"],
        precision: Precision,
        N: int,
        T: int,
        H: int,
        reverse: bool,
        gate_order: str,
        hard_sigmoid: bool,
        device: int,
        kernel: str | None = None,
        z_keeps: bool = False,
    ) -> None: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def plan(self) -> Plan: ...
    def run(self, arrays: dict[str, int], workspace: int, stream: int) -> None: ...

# Rows by ids: csrc/cuda/embedding. float_bytes and id_bytes tell float32 and int32 from float64 and int64.

def gather_rows(
    *, W: int, ids: int, out: int, M: int, E: int, float_bytes: int, id_bytes: int, device: int, stream: int
) -> None: ...
def clear_rows(
    *, target: int, ids: int, M: int, E: int, float_bytes: int, id_bytes: int, device: int, stream: int
) -> None: ...
def sum_rows_workspace(*, M: int, E: int, id_bytes: int, float_bytes: int) -> int: ...
def sum_rows(
    *,
    target: int,
    ids: int,
    rows: int,
    workspace: int,
    M: int,
    E: int,
    V: int,
    skip: int,
    accumulate: bool,
    float_bytes: int,
    id_bytes: int,
    device: int,
    stream: int,
) -> None: ...
def unique_rows_workspace(*, M: int, E: int, id_bytes: int, float_bytes: int) -> int: ...
def unique_rows(
    *,
    indices: int,
    values: int,
    count: int,
    ids: int,
    rows: int,
    workspace: int,
    M: int,
    E: int,
    float_bytes: int,
    id_bytes: int,
    device: int,
    stream: int,
) -> None: ...

# Cross entropy: csrc/cuda/losses. bias may be 0: none. So may counts: then the normalizer divides the losses, which is
# read from normalizer_at unless that is 0.

TARGET_COUNTS: int

def count_targets(
    *, targets: int, counts: int, M: int, ignore_index: int, id_bytes: int, device: int, stream: int
) -> None: ...
def softmax_loss(
    *,
    logits: int,
    bias: int,
    targets: int,
    counts: int,
    normalizer: float,
    normalizer_at: int,
    dlogits: int,
    losses: int,
    rows: int,
    V: int,
    ignore_index: int,
    float_bytes: int,
    id_bytes: int,
    device: int,
    stream: int,
) -> None: ...
def mean_loss_workspace(*, M: int) -> int: ...
def mean_loss(
    *,
    losses: int,
    counts: int,
    normalizer: float,
    normalizer_at: int,
    loss: int,
    workspace: int,
    M: int,
    device: int,
    stream: int,
) -> None: ...
def copy_valid_rows(
    *,
    rows: int,
    targets: int,
    out: int,
    M: int,
    E: int,
    ignore_index: int,
    float_bytes: int,
    id_bytes: int,
    device: int,
    stream: int,
) -> None: ...
def sum_columns(
    *, matrix: int, sums: int, M: int, V: int, accumulate: bool, float_bytes: int, device: int, stream: int
) -> None: ...
