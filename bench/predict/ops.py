"""What a case does, operator by operator: what tracing finds and pricing reads. Plain records; no torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from bench.predict.boards import MemoryKind

# lora_forward, lora_backward and paca_product: this project's kernels, each with its GEMM and all that belongs to it.
OpKind = Literal["gemm", "attention", "lora_forward", "lora_backward", "paca_product"] | MemoryKind

MEMORY_KINDS: tuple[MemoryKind, ...] = get_args(MemoryKind)


@dataclass(frozen=True)
class Op:
    """One operator that launches something; views and allocations are not among them.

    sizes: of a gemm (m, n, k, batch) of y (m, n) = x (m, k) w (k, n); of lora_forward and lora_backward (m, n, k, rank)
    of the layer, x (m, k), weight (n, k); of paca_product (m, n, rank) of dY (m, n) and x's live columns (m, rank).
    """

    name: str  # as the dispatcher has it: aten::mm
    cause: str  # a key of bench.case.causes.CAUSES
    kind: OpKind
    sizes: tuple[int, ...] = ()
    width: int = 2  # bytes of an element of a gemm's operands
    fp32: bool = False  # a gemm on the ordinary cores, as torch computes fp32 by default
    bytes: float = 0.0  # read and written, by the sizes of the operands
    flops: float = 0.0  # as torch counts them; of attention without what a causal mask leaves out
    backward: bool = False  # of attention: its backward kernel
    dropout: bool = False  # of lora_*: the branch has dropout


@dataclass(frozen=True)
class Trace:
    """The operators of one call of a case, in the order in which the host issues them, by phase: forward, backward,
    optimizer, refresh. Most operators of a model are alike and are the same object."""

    phases: dict[str, tuple[Op, ...]]
