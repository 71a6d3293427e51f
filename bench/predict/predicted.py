"""The time of a pass on a board, by operators on two queues, and how wrong it may be.

Each operator's time may be wrong by what its kind has been wrong by on rows that no fit had seen. What is of one kind
and one cause is taken to be wrong as one, and different kinds and causes independently of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.case.causes import CAUSES
from bench.causes.attribution import PHASES
from bench.predict.boards import Board
from bench.predict.ops import Op, Trace
from bench.predict.price import GRAPH, QUEUED, Prices, Source, prices
from bench.predict.queues import BOUND, eager_us, host_limit_us, slopes
from bench.record.causes import Part, Split

LEVELS = (80, 90)
OPERATOR_HALF = (0.1, 0.15)  # of the host's cost of one cause's operators, which are not all alike: a guess
HOST_HALF = (0.15, 0.25)  # half widths of the host's cost, which was measured at another time: a guess

# By which half widths are widened, since whole models miss by more than the errors of their operators say. From rows of
# whole models published by others, each model left out in turn (`python -m bench predict --check --published DIR`,
# 2026-11-29). Time: 109 rows of 12 models (sitar-lab/NeuSight 68, mli/transformers-benchmarks 24, fms-acceleration 10,
# stas00/ml-engineering 6, torchtune 1); the others' factor held 92 % of them. Ratio: no more than 4 rows, of LoRA over
# Full-FT of 2 models (fms-acceleration); the other's factor held 2. The paper's tables are not among them.
MODEL_FACTOR = {"time": 1.7, "ratio": 3.4}

Half = tuple[float, float]  # relative half widths of the 80 and 90 % intervals


@dataclass(frozen=True)
class Host:
    """Host time of one operator that launches something, views and autograd included. Microseconds.

    One of this project's kernels' operators counts as often as it launches.
    """

    forward_us: float  # of the optimizer and a refresh too
    backward_us: float
    source: str  # "given by --host-us", "measured on this machine 2026-11-29: AMD EPYC ..."


@dataclass(frozen=True)
class Predicted:
    """One pass of a case on a board by one clock; never a measurement."""

    pass_: str  # forward, backward, forward-backward, step
    clock: str  # graph: the GPU's time alone; eager: with the host
    ms: float
    half: Half
    gpu_ms: float  # in which it works
    host_ms: float | None  # in which the host issues; None of graph
    launches: int
    parts: Mapping[str, float]  # ms by cause, in the order of CAUSES; they add up to ms. gaps: the GPU waits
    errors: Mapping[Source, float]  # ms by source: what the pass takes longer, over the share by which the source does
    host_limit_us: float  # cost of an operator on the host, alike in all phases, above which eager is launch-bound

    @property
    def launch_bound(self) -> bool:
        """Whether the GPU waits for the host for more than 5 % of its own time; of graph never, nor of a CPU."""
        return self.host_ms is not None and self.parts.get("gaps", 0.0) > BOUND * self.gpu_ms

    def interval(self, level: int) -> tuple[float, float]:
        """The interval of ms at 80 or 90 %."""
        return _interval(self.ms, self.half, level)


@dataclass(frozen=True)
class Ratio:
    """One predicted time over another."""

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

    micro_steps: forward and backward passes of a step, before its one optimizer and refresh. Each pass begins with
    empty queues, as where it is timed alone, and within it the queues run on from phase to phase.
    """
    ops, places = _distinct(trace)
    known = prices(board, ops)
    out = {}
    for name in passes:
        phases = PHASES[name]
        if name == "step":
            phases = phases[:2] * micro_steps + phases[2:]
        which = np.concatenate([places.get(phase, _NONE) for phase in phases])
        out[name, "graph"] = _predict(name, board, ops, known, which, None)
        if host is not None:
            cost = {phase: host.backward_us if phase == "backward" else host.forward_us for phase in phases}
            each = np.concatenate([np.full(len(places.get(phase, _NONE)), cost[phase]) for phase in phases])
            out[name, "eager"] = _predict(name, board, ops, known, which, each)
    return out


_NONE = np.zeros(0, dtype=int)


def _distinct(trace: Trace) -> tuple[list[Op], dict[str, NDArray[Any]]]:
    """The distinct operators of a trace, and by phase their places in that list. First by identity: hashing each of
    15,000 takes 20 ms."""
    once = {id(op): op for phase in trace.phases.values() for op in phase}
    ops = list(dict.fromkeys(once.values()))
    at = {op: i for i, op in enumerate(ops)}
    place = {key: at[op] for key, op in once.items()}
    return ops, {
        name: np.array([place[id(op)] for op in phase], dtype=int) for name, phase in trace.phases.items()
    }  # fmt: skip


def _predict(
    pass_: str, board: Board, ops: Sequence[Op], known: Prices, which: NDArray[Any], cost: NDArray[Any] | None
) -> Predicted:
    """cost: of a launch on the host, for each operator; None: from a graph."""
    clock = GRAPH if cost is None else QUEUED
    gpu, count = known.us[clock][which], np.bincount(which, minlength=len(ops))
    launches = known.launches[which]
    host = np.zeros(len(which)) if cost is None else cost * launches
    start = 0.0 if cost is None else board.launch_us
    gpu_us = float(gpu.sum())
    us = gpu_us if cost is None else eager_us(gpu, host, start)
    errors = {source: float(of[clock] @ count) for source, of in known.sources.items()}
    errors = {source: wrong for source, wrong in errors.items() if wrong}
    if cost is not None and us:
        half = root_sum({source: wrong / gpu_us for source, wrong in errors.items()})[1]
        of_gpu, of_host = slopes(gpu, host, start, (half, HOST_HALF[1]))
        errors = {source: wrong * of_gpu for source, wrong in errors.items()}
        errors[_HOST] = of_host * float(host.sum())
        of_op = np.bincount(which, host, len(ops))
        for op, by_host in zip(ops, of_op, strict=True):
            source = Source("", "host", op.cause, OPERATOR_HALF)
            errors[source] = errors.get(source, 0.0) + of_host * float(by_host)
    return Predicted(
        pass_=pass_,
        clock="graph" if cost is None else "eager",
        ms=us / 1e3,
        half=_half({source: wrong / us for source, wrong in errors.items()}, "time"),
        gpu_ms=gpu_us / 1e3,
        host_ms=None if cost is None else float(host.sum()) / 1e3,
        launches=int(launches.sum()),
        parts=_parts(ops, known.us[clock] * count / 1e3, 0.0 if cost is None else (us - gpu_us) / 1e3),
        errors={source: wrong / 1e3 for source, wrong in errors.items()},
        host_limit_us=host_limit_us(known.us[QUEUED][which], launches, board.launch_us),
    )


_HOST = Source("", "host", "", HOST_HALF)


def _parts(ops: Sequence[Op], ms: NDArray[Any], gaps: float) -> dict[str, float]:
    found = dict.fromkeys(CAUSES, 0.0)
    for op, of in zip(ops, ms, strict=True):
        found[op.cause] += float(of)
    found["gaps"] += gaps
    return {cause: of for cause, of in found.items() if of}


def root_sum(shares: Mapping[Source, float]) -> Half:
    """Half widths of what is wrong by these shares of itself if the sources are, each independently of the others."""
    low, high = (sqrt(sum((share * source.half[i]) ** 2 for source, share in shares.items())) for i in (0, 1))
    return low, high


def _half(shares: Mapping[Source, float], quantity: str) -> Half:
    low, high = root_sum(shares)
    return low * MODEL_FACTOR[quantity], high * MODEL_FACTOR[quantity]


def ratio(of: Predicted, base: Predicted) -> Ratio:
    """of over base. An error of a source that both have counts by the difference of its shares of their times, which is
    the derivative of the ratio's logarithm: as far as the shares agree, it cancels. MODEL_FACTOR is of GPUs."""
    sources = dict.fromkeys([*of.errors, *base.errors])
    shares = {s: of.errors.get(s, 0.0) / of.ms - base.errors.get(s, 0.0) / base.ms for s in sources}
    on_gpu = of.clock in ("graph", "eager")
    return Ratio(of.ms / base.ms, _half(shares, "ratio") if on_gpu else root_sum(shares))


def as_split(p: Predicted) -> Split:
    """As a profiled pass, so that bench.record.causes.sentence tells the difference of two predictions in the same
    words. Its parts have no intervals: errors that are common to both would be counted twice."""
    return Split({cause: Part(ms) for cause, ms in p.parts.items()}, None, 0.0, "kernels")
