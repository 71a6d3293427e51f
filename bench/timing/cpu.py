"""Clock cpu-time: the processor's time for this process, and wall time from the same samples."""

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

from bench.timing.base import Clock, Sample, Timed

Read = Callable[[], float]
Times = dict[str, float]  # seconds, by clock
Spans = dict[str, tuple[Times, Times]]  # start and end, by pass


class CpuClock(Clock):
    """A run without a GPU. CPU time leaves out how long the process waited for a core, which is what other users of the
    machine change most; wall time, which leaves nothing out, is under the clock `cpu`."""

    name = "cpu-time"

    def __init__(self, *_: Any, now: Read = perf_counter, worked: Read = process_time) -> None:
        """now, worked: wall time and the process's CPU time, in seconds."""
        super().__init__()
        self._clocks = {self.name: worked, "cpu": now}

    def sample(self, work: Timed, step: bool) -> Sample:
        spans = self._whole_step(work) if step else self._micro_step(work)
        return {(p, c): (end[c] - start[c]) * 1e3 for p, (start, end) in spans.items() for c in self._clocks}

    def _read(self) -> Times:
        return {name: read() for name, read in self._clocks.items()}

    def _micro_step(self, work: Timed) -> Spans:
        work.ready()
        t0 = self._read()
        out = work.forward()
        t1 = self._read()
        work.backward(out)
        t2 = self._read()
        found: Spans = {"forward": (t0, t1), "backward": (t1, t2), "forward-backward": (t0, t2)}
        if work.has_refresh:
            t3 = self._read()
            work.refresh()
            found["refresh"] = (t3, self._read())
        return found

    def _whole_step(self, work: Timed) -> Spans:
        work.clear()
        t0 = self._read()
        for _ in range(work.micro_steps):
            work.backward(work.forward())
        t1 = self._read()
        work.optimizer_step()
        t2 = t3 = self._read()
        found: Spans = {"optimizer": (t1, t2)}
        if work.has_refresh:
            work.refresh()
            t3 = self._read()
            found["refresh"] = (t2, t3)
        return found | {"step": (t0, t3)}
