"""Clock cpu: wall time."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.timing.base import Clock, Sample, Timed


class CpuClock(Clock):
    """Wall time of a run without a GPU."""

    name = "cpu"

    def __init__(self, *_: Any, now: Callable[[], float] = perf_counter) -> None:
        super().__init__()
        self._now = now

    def sample(self, work: Timed, step: bool) -> Sample:
        found = self._whole_step(work) if step else self._micro_step(work)
        return {(p, self.name): s * 1e3 for p, s in found.items()}

    def _micro_step(self, work: Timed) -> dict[str, float]:
        work.ready()
        t0 = self._now()
        out = work.forward()
        t1 = self._now()
        work.backward(out)
        t2 = self._now()
        found = {"forward": t1 - t0, "backward": t2 - t1, "forward-backward": t2 - t0}
        if work.has_refresh:
            t3 = self._now()
            work.refresh()
            found["refresh"] = self._now() - t3
        return found

    def _whole_step(self, work: Timed) -> dict[str, float]:
        work.clear()
        t0 = self._now()
        for _ in range(work.micro_steps):
            work.backward(work.forward())
        t1 = self._now()
        work.optimizer_step()
        t2 = t3 = self._now()
        found = {"optimizer": t2 - t1}
        if work.has_refresh:
            work.refresh()
            t3 = self._now()
            found["refresh"] = t3 - t2
        return found | {"step": t3 - t0}
