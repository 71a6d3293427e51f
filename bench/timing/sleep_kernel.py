"""A sleep kernel in the stream: the GPU sleeps while the host queues a call, and then runs it without gaps."""

from math import ceil
from time import perf_counter
from typing import Any

from bench.timing.base import Unsupported
from bench.timing.settings import MeasureSettings

# Spins of the GPU timed to calibrate, in its clock cycles; about 0.5 and 5 ms at 2 GHz.
CALIBRATION = (1_000_000, 10_000_000)

# The launch queue's depth: launches behind a sleep this long, until one is held up this long.
PROBE_SLEEP_MS = 200.0
PROBE_BLOCKED_MS = 5.0


def cycles_per_ms(cuda: Any) -> float:
    """GPU cycles of torch.cuda._sleep in a millisecond: the slope between two lengths, so that what a launch costs
    drops out."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    cuda._sleep(1000)  # loads the kernel
    found = []
    for cycles in CALIBRATION:
        cuda.synchronize()
        start.record()
        cuda._sleep(cycles)
        end.record()
        cuda.synchronize()
        found.append(start.elapsed_time(end))
    return (CALIBRATION[1] - CALIBRATION[0]) / (found[1] - found[0])


def queue_depth(cuda: Any, cycles: float) -> int:
    """How many launches the queue takes while the GPU sleeps, at least; `cycles` as cycles_per_ms found them.

    Tiny launches, until one of them is held up. Where the sleep is nearly over before that, the queue takes them all.
    """
    cuda.synchronize()
    begun = perf_counter()
    cuda._sleep(round(PROBE_SLEEP_MS * cycles))
    count = 0
    while True:
        before = perf_counter()
        cuda._sleep(1)
        after = perf_counter()
        if after - before >= PROBE_BLOCKED_MS / 1e3 or after - begun >= 0.9 * PROBE_SLEEP_MS / 1e3:
            break
        count += 1
    cuda.synchronize()
    return count


def percentile95(values: list[float]) -> float:
    """The 95th percentile by nearest rank: the largest of fewer than 20."""
    return sorted(values)[ceil(0.95 * len(values)) - 1]


class SleepKernel:
    """How long the GPU sleeps before a call; too short a sleep is doubled, and given up at last.

    A hiccup of the host now and then costs a sample each time, no more: only failures in a row lead to giving up.
    """

    def __init__(self, settings: MeasureSettings, level: str, ms: float | None = None) -> None:
        """ms: how long it is before anything is known; by default the least of the level."""
        self._least_ms = settings.backlog(level) * 1e3
        self.ms = self._least_ms if ms is None else ms
        self._factor = settings.backlog_factor
        self._allowed = settings.backlog_doublings
        self._doubled = 0
        self._failed = 0  # in a row

    def settle(self, host_ms: list[float]) -> None:
        """The sleep that the host's times in warm-up ask for; the first of them is left out, it loads what is new."""
        seen = host_ms[1:] or host_ms
        self.ms = max(self._least_ms, self._factor * percentile95(seen) if seen else 0.0)

    def judge(self, in_time: bool) -> bool:
        """Whether a sample counts, `in_time` saying that the GPU was still asleep when the host had queued it all.

        Raises Unsupported when doubling twice did not help.
        """
        if in_time:
            self._failed = 0
            return True
        self._failed += 1
        if self._doubled < self._allowed:
            self._doubled += 1
            self.ms = max(2 * self.ms, self._least_ms)
        elif self._failed > self._allowed:
            raise Unsupported(f"queue: the host had not queued the call after {self.ms:.3g} ms, {self._failed} times")
        return False
