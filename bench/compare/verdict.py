"""The ratio of two groups of fresh processes, its interval, and what may be said about it.

Samples of one process do not tell two programs apart: where its memory lies and what the machine does while it lives
moves all of them together. So the unit is the process, each counts with its median, and processes are resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench.case.clocks import clocks_of

Array = NDArray[np.float64]

MIN_PROCESSES = 5  # a side; fewer say too little about the spread between processes
SMALLEST = 0.01  # a change below 1 % is none that a verdict is given for
# Under a CPU's clocks below 2 %: of 54 verdicts on identical code, beside a busy loop on the other core, two were
# SLOWER, by 1.0 and 1.4 %, of a layer of 37 us.
SMALLEST_ON_CPU = 0.02
LUCK = 0.05  # at most so many verdicts on identical code are FASTER or SLOWER; what was seen is at interval()
DRAWS = 4000
SEED = 20240229  # the same rows give the same interval, always


class Verdict(StrEnum):
    """What B does relative to A."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    UNCLEAR = "UNCLEAR"


@dataclass(frozen=True)
class Process:
    """What one fresh process found for a row: its median in ms, and when that was on disk (None: unknown)."""

    name: str
    repeat: int
    median_ms: float
    at: datetime | None


@dataclass(frozen=True)
class Outcome:
    """B relative to A. `ratio` is B/A, of medians over processes; low and high are its 95 % interval, or None where the
    processes carry none. `verdict` is None without enough processes; `why` then says so."""

    a_ms: float
    b_ms: float
    a_processes: int
    b_processes: int
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None
    why: str = ""
    smallest: float = SMALLEST  # as smallest_change has it

    @property
    def ratio(self) -> float:
        return self.b_ms / self.a_ms

    @property
    def cell(self) -> str:
        """The verdict as a table shows it, with its reason where there is one."""
        reason = f" ({self.why})" if self.why else ""
        return f"{self.verdict or 'no verdict'}{reason}"


def smallest_change(clock: str) -> float:
    """The least change, over A, that a verdict is given for under a clock."""
    return SMALLEST_ON_CPU if clock in clocks_of("cpu-time") else SMALLEST


def judge(a: Sequence[Process], b: Sequence[Process], smallest: float = SMALLEST) -> Outcome:
    """The outcome of at least one process a side. smallest: as smallest_change has it."""
    a_ms, b_ms = (float(np.median([p.median_ms for p in side])) for side in (a, b))
    n = (a_ms, b_ms, len(a), len(b))
    if {p.name for p in a} & {p.name for p in b}:
        return Outcome(*n, verdict=Verdict.UNCLEAR, why="the same processes on both sides")
    if min(len(a), len(b)) < MIN_PROCESSES:
        counts = str(len(a)) if len(a) == len(b) else f"{len(a)} and {len(b)}"
        return Outcome(*n, why=f"{counts} of {MIN_PROCESSES} processes a side")
    order = _in_time(a, b)
    if order is None or not _interleaved(order):
        return Outcome(*n, verdict=Verdict.UNCLEAR, why="not interleaved")
    low, high = interval(a, b, order)
    return Outcome(*n, low, high, _verdict(b_ms / a_ms, low, high, smallest), smallest=smallest)


def _verdict(ratio: float, low: float, high: float, smallest: float) -> Verdict:
    if low > 1 and ratio >= 1 + smallest:
        return Verdict.SLOWER
    if high < 1 and 1 / ratio >= 1 + smallest:
        return Verdict.FASTER
    return Verdict.SAME if low >= 1 - smallest and high <= 1 + smallest else Verdict.UNCLEAR


def _in_time(a: Sequence[Process], b: Sequence[Process]) -> Array | None:
    """Processes in order of time, as two rows: their side (0 is A, 1 is B) and index in it. None without times."""
    if any(p.at is None for p in (*a, *b)):
        return None
    stamped = [(p.at, side, i) for side, group in enumerate((a, b)) for i, p in enumerate(group)]
    stamped.sort(key=lambda s: s[0])  # type: ignore[arg-type, return-value]
    return np.array([[s[1] for s in stamped], [s[2] for s in stamped]], dtype=np.float64)


def _interleaved(order: Array) -> bool:
    """Whether the two sides took turns, so that a machine that drifts cannot pass for a change.

    As many turns as ABBA ABBA has, which `--run` measures in: one more than the processes of the smaller side. And
    neither side may be later by half of what it could be, as where one was measured on for an hour alone.
    """
    sides = order[0]
    turns = 1 + int(np.count_nonzero(np.diff(sides)))
    places = [np.flatnonzero(sides == s) for s in (0, 1)]
    later = abs(float(np.mean(places[0]) - np.mean(places[1]))) / len(sides)  # 0.5 where all of one side came last
    return turns > min(map(len, places)) and later <= 0.25


def interval(a: Sequence[Process], b: Sequence[Process], order: Array) -> tuple[float, float]:
    """The 95 % interval of B/A: a straight line through time is taken out, then processes are resampled.

    Percentile bootstrap of median(B) / median(A), after the drift that both sides share, a line fitted to the
    logarithms together with the side, has been removed; the plain ratio is never left outside.
    """
    # Chosen by simulation: 5 processes a side in ABBA order, offsets of 0.5, 0.75 or 1 % sd between processes, within
    # them jitter of 1 % and AR(1) 0.9 of 0.3 %, 1 % of the samples 3 times too long, and a drift that both sides share,
    # a line and AR(1) 0.9 over processes, of 0.3 to 1.5 %. In 3000 trials a point identical code is called FASTER or
    # SLOWER in 0.6 to 3.1 %, the interval covers in 0.953 to 0.970, and a slowdown of 3 % is found in 0.91 to 1.00.
    # In 1000 to 2000 trials of the same: without the line, the slowdown is found in 0.72 to 0.77 where the drift is
    # strongest (BCa alike, Welch's t of the logarithms 0.85); resampling rounds, A with its B, finds it in 0.86 where
    # offsets and drift are 1 %; percentiles of means cover in 0.90 and call 5.7 % of identical code different.
    # Drifts that are no line (a step, a bump) make it find less, not invent more: at most 1.8 % of 600 trials.
    logs = [np.log([p.median_ms for p in side]) for side in (a, b)]
    sides, places = order[0], order[1].astype(np.int64)
    y = np.array([logs[int(s)][i] for s, i in zip(sides, places, strict=True)])
    time = np.arange(len(y)) - (len(y) - 1) / 2
    slope = np.linalg.lstsq(np.stack([np.ones_like(y), sides, time], axis=1), y, rcond=None)[0][2]
    flat = np.exp(y - slope * time)
    draws = [np.median(flat[sides == s][_resamples(int(np.count_nonzero(sides == s)), s)], axis=1) for s in (0, 1)]
    low, high = (float(v) for v in np.percentile(draws[1] / draws[0], (2.5, 97.5)))
    ratio = float(np.median([p.median_ms for p in b]) / np.median([p.median_ms for p in a]))
    return min(low, ratio), max(high, ratio)


@cache
def _resamples(n: int, side: int) -> NDArray[np.int64]:
    """DRAWS x n indices: which of a side's processes each draw takes."""
    return np.random.default_rng((SEED, side)).integers(0, n, (DRAWS, n))
