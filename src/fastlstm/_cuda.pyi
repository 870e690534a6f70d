"""Planning and launching of the kernels for GPUs, csrc/cuda/bindings.cc. Private: it trusts every address."""

from typing import Literal, TypeAlias, TypedDict

from fastlstm.contract import Precision

Kernel: TypeAlias = Literal["step", "persistent", "rows"]
Cell: TypeAlias = Literal["lstm", "rnn", "gru_reset_after", "gru_reset_before"]

class Plan(TypedDict):
    """How a pass runs; csrc/cuda/plan.h explains the words.

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
def plan(
    cell: Cell,
    direction: Literal["forward", "backward"],
    precision: Precision,
    N: int,
    T: int,
    H: int,
    multiprocessors: int,
    shared_bytes: int,
    kernel: str | None = None,
) -> Plan: ...

# Addresses of param, grad, first, second and rows (0: not there), the bytes of a row number, the elements of grad and
# of a row; and address and elements. An address that is not 0 beside a number stands for it: a float64 on the device.
UpdatedTensor: TypeAlias = tuple[int, int, int, int, int, int, int, int]
FlatTensor: TypeAlias = tuple[int, int]

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
    step_at: int,
    device: int,
    stream: int,
) -> None: ...
def optim_scale(
    *, float64: bool, tensors: list[FlatTensor], factor: float, factor_at: int, device: int, stream: int
) -> None: ...
def optim_norm_partials(*, float32: list[int], float64: list[int]) -> int: ...
def optim_norm(
    *, float32: list[FlatTensor], float64: list[FlatTensor], partials: int, norm: int, device: int, stream: int
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
