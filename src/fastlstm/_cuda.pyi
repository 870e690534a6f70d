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
