"""The time of a pass on a board: its operators on two queues, the host's and the GPU's, and how wrong it may be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.case.causes import CAUSES
from bench.predict.boards import Board
from bench.predict.ops import MEMORY_KINDS, Op, Trace
from bench.predict.price import FUSED, gpu_us
from bench.record.causes import Part, Split

LEVELS = (80, 90)
BOUND = 0.05  # of the GPU's own time: what it may wait for the host before a pass counts as launch-bound
PASS_PHASES = {
    "forward": ("forward",),
    "backward": ("backward",),
    "forward-backward": ("forward", "backward"),
    "step": ("forward", "backward", "optimizer", "refresh"),
}  # as bench.causes.attribution.PHASES, which is a layer above
HOST_HALF = (0.15, 0.25)  # of the host's cost, measured at another time or on a like machine: a guess
FUSED_HALF = (0.2, 0.3)  # of this project's kernels over cuBLAS: a guess, since they never ran on a GPU

# By which the half widths are widened where whole models miss by more than their operators' errors say. 1: not widened.
# `python -m bench predict --check` says how often the intervals hold what was measured.
MODEL_FACTOR = {"time": 1.0, "ratio": 1.0}

Half = tuple[float, float]


@dataclass(frozen=True)
class Host:
    """Host time of one operator that launches something, views and autograd included. Microseconds."""

    forward_us: float  # of the optimizer and of a refresh too
    backward_us: float
    source: str  # "given by --host-us", "measured on this machine 2026-11-29: AMD EPYC ..."


@dataclass(frozen=True)
class Error:
    """One source of error: by how many ms the pass grows if the source is wrong by a factor of e, and half widths."""

    ms: float
    half: Half


@dataclass(frozen=True)
class Predicted:
    """One pass of a case on a board by one clock; never a measurement."""

    pass_: str  # forward, backward, forward-backward, step
    clock: str  # graph: GPU time alone; eager: with the host
    ms: float
    half: Half  # relative half widths of the 80 and 90 % intervals of ms
    gpu_ms: float
    host_ms: float | None  # None of graph
    launches: int
    parts: Mapping[str, float]  # ms by cause, in the order of CAUSES; they add up to ms. gaps: the GPU waits
    errors: Mapping[str, Error]  # by source of error; a source of the same name is the same in another prediction
    host_limit_us: float  # cost of an operator on the host, in all phases alike, above which eager is launch-bound

    @property
    def launch_bound(self) -> bool:
        """Whether the GPU waits for the host for more than 5 % of its own time; of graph never, nor of a CPU."""
        return self.host_ms is not None and self.parts.get("gaps", 0.0) > BOUND * self.gpu_ms

    def interval(self, level: int) -> tuple[float, float]:
        """The interval of ms at 80 or 90 %."""
        return _interval(self.ms, self.half, level)


@dataclass(frozen=True)
class Ratio:
    """A predicted time over another one of the same board."""

    value: float
    half: Half

    def interval(self, level: int) -> tuple[float, float]:
        """The interval of value at 80 or 90 %."""
        return _interval(self.value, self.half, level)


def _interval(value: float, half: Half, level: int) -> tuple[float, float]:
    by = half[LEVELS.index(level)]
    return value * max(0.0, 1 - by), value * (1 + by)


def price(
    trace: Trace, board: Board, passes: Sequence[str], micro_steps: int = 1, host: Host | None = None
) -> dict[tuple[str, str], Predicted]:
    """The passes of a case by (pass, clock); eager only with a host.

    micro_steps: forward and backward of a step, before its one optimizer and refresh. Each pass begins with empty
    queues, as it does where it is timed alone.
    """
    kinds = list({id(op): op for ops in trace.phases.values() for op in ops}.values())
    at = {id(op): i for i, op in enumerate(kinds)}
    index = {phase: np.array([at[id(op)] for op in ops], dtype=int) for phase, ops in trace.phases.items()}
    priced = _Priced(board, kinds, gpu_us(board, kinds))
    out = {}
    for pass_ in passes:
        phases = PASS_PHASES[pass_]
        if pass_ == "step":
            phases = phases[:2] * micro_steps + phases[2:]
        parts = [(phase, index.get(phase, np.array([], dtype=int))) for phase in phases]
        out[pass_, "graph"] = _predict(priced, pass_, parts, None)
        if host is not None:
            out[pass_, "eager"] = _predict(priced, pass_, parts, host)
    return out


@dataclass(frozen=True)
class _Priced:
    board: Board
    ops: list[Op]
    us: NDArray[Any]  # (2, ops)


def _predict(priced: _Priced, pass_: str, phases: list[tuple[str, NDArray[Any]]], host: Host | None) -> Predicted:
    which = np.concatenate([index for _, index in phases])
    queued, graph = priced.us[0][which], priced.us[1][which]
    issue = np.ones(len(which))
    start = priced.board.launch_us
    limit = _host_limit_us(queued, issue, start)
    gpu = graph if host is None else queued
    of_host = np.zeros(len(which))
    if host is not None:
        cost = {"backward": host.backward_us}
        of_host = np.concatenate([np.full(len(i), cost.get(phase, host.forward_us)) for phase, i in phases])
    total = float(gpu.sum()) if host is None else eager_us(gpu, of_host, start)
    parts = dict.fromkeys(CAUSES, 0.0)
    for i, us in enumerate(np.bincount(which, gpu, len(priced.ops))):
        parts[priced.ops[i].cause] += float(us) / 1e3
    parts["gaps"] += (total - float(gpu.sum())) / 1e3
    errors = _errors(priced, which, gpu, of_host if host else None, total)
    return Predicted(
        pass_=pass_,
        clock="graph" if host is None else "eager",
        ms=total / 1e3,
        half=_half({name: (e.ms * 1e3 / total if total else 0.0, e.half) for name, e in errors.items()}, "time"),
        gpu_ms=float(gpu.sum()) / 1e3,
        host_ms=None if host is None else float(of_host.sum()) / 1e3,
        launches=len(which),
        parts={cause: ms for cause, ms in parts.items() if ms},
        errors=errors,
        host_limit_us=limit,
    )


def eager_us(gpu: NDArray[Any], host: NDArray[Any], start: float) -> float:
    """When the last of the operators ends, that take the GPU and, before, the host so long. Microseconds.

    The host issues one operator after another and waits for none; the GPU starts one when it is issued, plus `start`,
    and the one before has ended: end = start + max over j of (host_1 + .. + host_j + gpu_j + .. + gpu_n).
    """
    if not len(gpu):
        return 0.0
    done = np.cumsum(gpu)
    return start + float(done[-1] + (np.cumsum(host) - done + gpu).max())


def _host_limit_us(gpu: NDArray[Any], issue: NDArray[Any], start: float) -> float:
    """The largest host cost h of an operator for which start + max over j of (h j - gpu_1 - .. - gpu_(j-1)) is at most
    BOUND of the GPU's time."""
    if not len(gpu):
        return 0.0
    before = np.cumsum(gpu) - gpu
    return max(0.0, float(((BOUND * gpu.sum() - start + before) / np.cumsum(issue)).min()))


def _errors(
    priced: _Priced, which: NDArray[Any], gpu: NDArray[Any], host: NDArray[Any] | None, total: float
) -> dict[str, Error]:
    """The sources of error: of each cause what each kind of operator takes of it; and the host."""
    found: dict[str, Error] = {}
    for i, us in enumerate(np.bincount(which, gpu, len(priced.ops))):
        op = priced.ops[i]
        if not us:
            continue
        kind = "memory" if op.kind in MEMORY_KINDS else "fused" if op.kind in FUSED else op.kind
        name = f"{priced.board.key} {kind} {op.cause}"
        half = FUSED_HALF if kind == "fused" else priced.board.errors[kind]  # type: ignore[index]
        before = found.get(name, Error(0.0, half))
        found[name] = Error(before.ms + float(us) / 1e3, half)
    if host is not None:
        start = priced.board.launch_us
        more = eager_us(gpu, host * (1 + HOST_HALF[1]), start) - total
        found["host"] = Error(more / HOST_HALF[1] / 1e3, HOST_HALF)
    return found


def _half(errors: Mapping[str, tuple[float, Half]], quantity: str) -> Half:
    """The root of the sum of squares over sources of (share, half widths)."""
    low, high = (sqrt(sum((share * half[i]) ** 2 for share, half in errors.values())) for i in (0, 1))
    return low * MODEL_FACTOR[quantity], high * MODEL_FACTOR[quantity]


def ratio(of: Predicted, base: Predicted) -> Ratio:
    """of over base. A source of error that is in both counts by the difference of its shares: what is common cancels."""
    sources = {**base.errors, **of.errors}
    none = Error(0.0, (0.0, 0.0))
    shares = {
        name: (of.errors.get(name, none).ms / of.ms - base.errors.get(name, none).ms / base.ms, error.half)
        for name, error in sources.items()
    }
    return Ratio(of.ms / base.ms, _half(shares, "ratio"))


def as_split(p: Predicted) -> Split:
    """In the form of a measured pass, so that bench.record.causes.sentence tells differences in the same words. Without
    intervals of the parts: errors of two predictions cancel, which they would not know."""
    return Split({cause: Part(ms) for cause, ms in p.parts.items()}, None, 0.0, "kernels")
