"""The clocks there are: what each sees, which class takes its samples, and which stands for a case. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """One clock, as sweep files, rows and tables know it."""

    meaning: str
    made_by: str  # module:class in bench.timing; empty for one whose rows come from another's samples
    rows: tuple[str, ...]  # clocks whose rows come out of its samples
    in_sweeps: bool = True  # a sweep file may name it
    in_rounds: bool = False  # cases take turns under it; others hold what a neighbour needs, or are set for one case
    gpu_work: bool = False  # sees the work of the GPU alone, without the cost of launching it
    between: float = 0.0  # standard deviation of a ratio from one start to the next, over it; rounds do not see it


# Table 1 three times in a row (AMD EPYC, 2 cores), three times over, the last beside a busy loop: the intervals of its
# 54 ratios by rounds alone held the median of the other two runs in 72, 87 and 88 %, with this in them in 86, 91 and
# 98 %. Of a GPU it is not known.
STARTS = 0.003

# The first that a folder has is its headline; of those that see the GPU's work alone, graph comes first.
CLOCKS = {
    "eager": Clock(
        "what a training script sees, launches included", "eager:EagerClock", ("eager", "host"), in_rounds=True
    ),
    "cpu-time": Clock(
        "without a GPU: time that the processor worked for the process, user and system, over all of its threads",
        "cpu:CpuClock", ("cpu-time", "cpu"), in_sweeps=False, in_rounds=True, between=STARTS,
    ),
    "cpu": Clock("without a GPU: wall time, from the same samples", "", (), in_sweeps=False, between=STARTS),
    "graph": Clock(
        "replay of a CUDA graph of the same work: GPU time without any launch cost", "graph:GraphClock", ("graph",),
        gpu_work=True,
    ),
    "device": Clock(
        "the eager call with every launch queued before the first one runs: GPU time without gaps",
        "device:DeviceClock", ("device",), gpu_work=True,
    ),
    "host": Clock("the time that Python and C++ take to queue the work, from eager's samples", "", (), in_sweeps=False),
}  # fmt: skip


def clocks_of(name: str) -> tuple[str, ...]:
    """The clocks whose rows come out of the samples of this one."""
    return CLOCKS[name].rows


def between_starts(name: str) -> float:
    """Clock.between of a clock; 0 for one that a record alone knows."""
    return CLOCKS[name].between if name in CLOCKS else 0.0


def in_order(names: list[str] | tuple[str, ...]) -> list[str]:
    """The clocks of a sweep in the order to measure them: graph last, since a capture that fails may spoil the
    process."""
    return sorted(names, key=lambda name: name == "graph")
