"""Planning and launching of the kernels for GPUs, csrc/cuda/bindings.cc. Private: it trusts every address."""

from typing import Literal, TypeAlias, TypedDict

from fastlstm.contract import Precision

Kernel: TypeAlias = Literal["step", "persistent", "rows"]

class Plan(TypedDict):
    """How a pass runs; csrc/cuda/plan.h explains the words. step_cycles is an estimate, 0 for the row kernel."""

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
def plan(
    cell: Literal["lstm", "rnn"],
    direction: Literal["forward", "backward"],
    precision: Precision,
    N: int,
    T: int,
    H: int,
    multiprocessors: int,
    shared_bytes: int,
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

class SequencePass:
    def __init__(
        self,
        *,
        cell: Literal["lstm", "rnn"],
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
    ) -> None: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def plan(self) -> Plan: ...
    def run(self, arrays: dict[str, int], workspace: int, stream: int) -> None: ...
