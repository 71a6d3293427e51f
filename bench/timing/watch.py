"""Whether the device was in a fit state while a block of samples was taken: asked between blocks, never inside one."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bench.case.schema import Status
from bench.timing.gpu_state import CLOCKS_SET, GpuState, Reading, Rests
from bench.timing.settings import MeasureSettings


class Watch(Protocol):
    """Looks at the device around each block, and says whether the block counts."""

    readings: list[Reading]  # of blocks that count
    clocks_set: bool  # set or locked clocks held the device back at some time

    def begin(self) -> None:
        """A block begins now. Raises Unfit."""

    def fit(self) -> bool:
        """Whether what was measured since the last look counts. Where it does not, it is to be taken again."""


class Unfit(Exception):
    """The GPU's state ends the measurement with this status."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class GpuWatch:
    """Looks at the GPU between blocks, keeps what was read, and rests while it is throttled."""

    def __init__(self, state: GpuState | None, settings: MeasureSettings, sleep: Callable[[float], None]) -> None:
        self._state = state
        self._rests = Rests(settings, sleep)
        self.readings: list[Reading] = []  # of blocks that count
        self.clocks_set = False

    def begin(self) -> None:
        while not self.fit():
            pass

    def fit(self) -> bool:
        """As Watch has it; where the block does not count, the GPU has rested since.

        Raises Unfit where another process computes on the GPU, or it never comes to rest.
        """
        if self._state is None:
            return True
        reading = self._state.read()
        self.clocks_set |= bool((reading.reasons or 0) & CLOCKS_SET)
        if reading.others:
            others = ", ".join(map(str, reading.others))
            raise Unfit(Status.contended, f"another process has a CUDA context on this GPU: {others}")
        if not reading.slowdowns:
            self.readings.append(reading)
            return True
        if not self._rests.take():
            raise Unfit(Status.throttled, f"{', '.join(reading.slowdowns)} after {self._rests.taken} pauses")
        return False


def run_delay_s() -> float | None:
    """Seconds that the threads of this process were ready to run and waited for a core, so far; None where it is not
    known. Source: the second field of /proc/<pid>/task/<tid>/schedstat (Documentation/scheduler/sched-stats)."""
    total = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that has ended since
                total += int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


class CpuWatch:
    """The CPU's twin of `contended`: a block during which the process waited for a core for more than `max_waiting` of
    the wall time is taken again, `max_rests` times at most in one measurement, and not more often than blocks have
    counted, so that a busy machine leaves half of the samples. What is worse stays: the interval of the row says it."""

    def __init__(
        self, settings: MeasureSettings, now: Callable[[], float], waited: Callable[[], float | None] = run_delay_s
    ) -> None:
        self._settings, self._now, self._waited = settings, now, waited
        self._retaken = self._counted = 0
        self._start: tuple[float, float | None] = (now(), waited())
        self.readings: list[Reading] = []
        self.clocks_set = False

    def begin(self) -> None:
        self._start = (self._now(), self._waited())

    def fit(self) -> bool:
        (began, before), (ended, after) = self._start, (self._now(), self._waited())
        self._start = (ended, after)
        waited = (
            before is not None and after is not None and after - before > self._settings.max_waiting * (ended - began)
        )
        if not waited or self._retaken > self._counted or self._retaken >= self._settings.max_rests:
            self._counted += 1
            return True
        self._retaken += 1
        return False
