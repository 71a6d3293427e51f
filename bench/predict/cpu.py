"""This machine's CPU as one more board: one thread, fp32, by CPU time. Its rates are measured once, then kept.

They hold for a process that keeps the memory it frees, as cases are measured in one: see bench.timing.heap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from time import process_time
from typing import get_args

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from bench.case.causes import CAUSES
from bench.causes.attribution import PHASES
from bench.devices import cpu_device
from bench.errors import UserError
from bench.predict.boards import MemoryKind
from bench.predict.cpu_gemm import GEMM_CLASSES, gemm_class, gemm_terms
from bench.predict.ops import Op, Trace
from bench.predict.predicted import LEVELS, Half, Predicted, root_sum
from bench.predict.price import FUSED, Source
from bench.predict.remembered import keep, recall
from bench.timing import heap

CLOCK = "cpu-time"
SMALL, LARGE = 2**16, 2**23  # values of a tensor of a decoder's activations, and of one that no cache holds
_IN_CACHE, _BEYOND = 16 * 2**20, 64 * 2**20  # bytes of an operator; between them the rate changes evenly
# Half widths that no microbenchmark says: guesses.
_OP_HALF = (0.3, 0.5)  # of what an operator costs Python and the dispatcher, in another model
_SPEED_HALF = (0.3, 0.5)  # of all rates on another day, by neighbours and clock rate: equal for all cases of a run
_RUN_HALF = (0.03, 0.05)  # of one case's time from process to process
_RUNS = count()
# By the beginning of an operator's name, the first that fits; for the rest its kind says enough.
_BY_NAME = {
    "tanh_backward": "tanh_backward", "tanh": "tanh", "gelu_backward": "tanh", "gelu": "tanh", "exp": "silu",
    "silu_backward": "silu_backward", "silu": "silu", "sigmoid": "silu", "pow": "power", "cat": "rows",
    "native_layer_norm_backward": "norm_backward", "_fused_rms_norm_backward": "norm_backward",
    "_softmax_backward": "softmax_backward", "_log_softmax_backward": "softmax_backward", "mean": "reduction",
    "neg": "one", "slice_backward": "rows", "copy_": "rows",
}  # fmt: skip


@dataclass(frozen=True)
class CpuBoard:
    """One thread of a CPU. Times in microseconds."""

    # A board kept by an earlier version has a further rate, of new memory, and page faults in the others: refused.
    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    gemm: dict[str, list[float]]  # by gemm_class: us a multiplication, a value of w, of x, of y, and a call
    memory: dict[str, tuple[float, float]]  # us a byte by class of operators, in the cache and beyond it
    attention: tuple[float, float]  # us a FLOP, forward and backward
    operator: tuple[float, float]  # of Python, the dispatcher and autograd, forward and backward
    errors: dict[str, Half]  # half widths of the 80 and 90 % intervals of an operator, by its own microbenchmarks
    source: str


_BOARD: TypeAdapter[CpuBoard] = TypeAdapter(CpuBoard)


def measured_cpu(fresh: bool = False) -> CpuBoard:
    """The rates of this machine's CPU: what is remembered, else measured in about 10 s. fresh: in any case."""
    if not fresh and (known := remembered_cpu()) is not None:
        return known
    board = _measured()
    keep("cpu", cpu_device().name, board)
    return board


def remembered_cpu() -> CpuBoard | None:
    """What `measured_cpu` has kept for this CPU and this torch; None where it has nothing. No torch."""
    board = recall("cpu", cpu_device().name, _BOARD)
    return board if board is not None and _whole(board) else None


def _whole(board: CpuBoard) -> bool:
    """Whether a board has every rate, and none that cannot be."""
    rates = [*board.gemm.values(), *board.memory.values(), board.attention, board.operator]
    valid = all(0 <= rate < 1e6 for each in rates for rate in each)
    named = set(board.memory) >= {*get_args(MemoryKind), *_BY_NAME.values()} - {"cast"}
    sized = set(board.gemm) == set(GEMM_CLASSES) and all(len(each) == 5 for each in board.gemm.values())
    return valid and named and sized and set(board.errors) == {"gemm", "skinny", "memory", "attention"}


def _measured() -> CpuBoard:
    import torch

    from bench.predict import cpu_rates
    from bench.predict.host import operator_us

    heap.keep_freed()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        gemm, off = cpu_rates.gemm_rates()
        memory, memory_off = cpu_rates.memory_rates(SMALL, LARGE)
        attention, attention_off = cpu_rates.attention_rates()
        operator = operator_us(process_time, on_gpu=False, as_gpu=False)
    finally:
        torch.set_num_threads(threads)
        heap.give_back()
    skinny = [e for c, each in off.items() if c != "wide" for e in each]
    found = {"gemm": off["wide"], "skinny": skinny, "memory": memory_off, "attention": attention_off}
    return CpuBoard(
        name=cpu_device().name,
        gemm=gemm,
        memory=memory,
        attention=attention,
        operator=operator,
        errors={kind: half_widths(each) for kind, each in found.items()},
        source=f"measured on this machine {date.today()}: {cpu_device().name}, one thread",
    )


def half_widths(errors: Sequence[float]) -> Half:
    """What 80 and 90 % of held-out errors stay below."""
    low, high = (float(np.quantile(errors, level / 100, method="higher")) for level in LEVELS)
    return low, high


def cpu_us(board: CpuBoard, op: Op) -> float:
    """The time of one operator without what it costs Python and the dispatcher."""
    if op.kind == "gemm":
        m, n, k, batch = op.sizes
        return sum(a * b for a, b in zip(board.gemm[_class(op)], gemm_terms(m, n, k, batch), strict=True))
    if op.kind == "attention":
        return board.attention[op.backward] * op.flops
    near, far = board.memory[_class(op)]
    share = min(1.0, max(0.0, (op.bytes - _IN_CACHE) / (_BEYOND - _IN_CACHE)))
    return op.bytes * (near + share * (far - near))


def _class(op: Op) -> str:
    """The key of the board's rates."""
    if op.kind == "gemm":
        return gemm_class(*op.sizes[:3])
    name = op.name.partition("::")[2]
    found = next((c for start, c in _BY_NAME.items() if name.startswith(start)), None)
    return found or {"cast": "one"}.get(op.kind, op.kind)


def _error_kind(op: Op) -> str:
    if op.kind == "gemm":
        return "gemm" if _class(op) == "wide" else "skinny"
    return op.kind if op.kind == "attention" else "memory"


def price_cpu(
    trace: Trace, board: CpuBoard, passes: Sequence[str], micro_steps: int = 1
) -> dict[tuple[str, str], Predicted]:
    """The passes of a case by (pass, clock), of `trace(case, on_gpu=False)`; the one clock is cpu-time.

    Each call stands for a process of its own: in a ratio of two calls' predictions even equal traces differ by that.

    Raises UserError for what the rates do not speak of: other products than fp32 ones, and kernels of a GPU.
    """
    for op in {op for ops in trace.phases.values() for op in ops}:
        if op.kind in FUSED:
            raise UserError(f"--gpu cpu: {op.name} needs an NVIDIA GPU. Take impl eager or peft.")
        if op.kind in ("gemm", "attention") and op.width != 4:
            raise UserError("--gpu cpu: 16-bit products are not predicted on a CPU. Take precision fp32.")
    us = {op: cpu_us(board, op) for ops in trace.phases.values() for op in ops}
    out = {}
    for pass_ in passes:
        phases = PHASES[pass_]
        if pass_ == "step":
            phases = phases[:2] * micro_steps + phases[2:]
        out[pass_, CLOCK] = _predict(board, us, pass_, [(p, trace.phases.get(p, ())) for p in phases])
    return out


def _predict(
    board: CpuBoard, us: dict[Op, float], pass_: str, phases: Sequence[tuple[str, tuple[Op, ...]]]
) -> Predicted:
    parts = dict.fromkeys(CAUSES, 0.0)
    errors: dict[Source, float] = {}

    def add(kind: str, cause: str, ms: float, half: Half) -> None:
        source = Source("cpu", kind, cause, half)
        errors[source] = errors.get(source, 0.0) + ms

    for phase, ops in phases:
        cost = len(ops) * board.operator[phase == "backward"] / 1e3
        parts["gaps"] += cost
        add("operators", "", cost, _OP_HALF)
        for op in ops:
            parts[op.cause] += us[op] / 1e3
            add(kind := _error_kind(op), op.cause, us[op] / 1e3, board.errors[kind])
    total = sum(parts.values())
    add("speed", "", total, _SPEED_HALF)
    add("run", str(next(_RUNS)), total, _RUN_HALF)  # each pass of each case has its own
    return Predicted(
        pass_=pass_,
        clock=CLOCK,
        ms=total,
        half=root_sum({source: ms / total if total else 0.0 for source, ms in errors.items()}),
        gpu_ms=total,
        host_ms=None,
        launches=sum(len(ops) for _, ops in phases),
        parts={cause: ms for cause, ms in parts.items() if ms},
        errors=errors,
        host_limit_us=0.0,
    )
