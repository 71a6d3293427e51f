"""Clock device: the eager call with every launch queued before the first one runs, so that no gap is timed."""

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from bench.timing.base import Sample, Timed, Unsupported
from bench.timing.eager import EagerClock
from bench.timing.settings import MeasureSettings
from bench.timing.sleep_kernel import SleepKernel, cycles_per_ms, queue_depth

if TYPE_CHECKING:
    import torch


@cache
def calibrated(cuda: Any) -> tuple[float, int]:
    """(cycles in a millisecond, depth of the launch queue) of the current device; measured once in a process."""
    cycles = cycles_per_ms(cuda)
    return cycles, queue_depth(cuda, cycles)


class DeviceClock(EagerClock):
    """Gap-free GPU time of the eager call, at levels linear and block.

    Flush L2 if cold, synchronize, sleep, start event, call, end event. A sample counts only if the start event has not
    come when the call returns: then the last launch was queued before the first one ran. A whole model has more
    launches than the queue takes; such a call is unsupported, and never timed in another way under this name.
    """

    name = "device"

    def __init__(
        self, device: "torch.device", cold_l2: bool, settings: MeasureSettings | None = None, cuda: Any = None
    ) -> None:
        super().__init__(device, cold_l2, settings, cuda)
        self._sleep_kernel = SleepKernel(self._settings, self._level)
        self._host_ms: list[float] = []
        self._settled = self._asleep = False
        self._cycles = 0.0

    def prepare(self, work: Any, level: str) -> None:
        if level == "model":
            raise Unsupported("queue: a whole model has more launches than the queue takes; clock graph times it")
        super().prepare(work, level)
        self._sleep_kernel = SleepKernel(self._settings, level)
        self._cycles, depth = calibrated(self._cuda)
        launches = count_launches(work)
        if launches > self._settings.queue_share * depth:
            raise Unsupported(f"queue: about {launches} launches, and the queue takes {depth}")

    def warm_up(self) -> None:
        self._sleep_kernel = SleepKernel(self._settings, self._level)
        self._host_ms = []
        self._settled = False

    def settle(self) -> None:
        self._sleep_kernel.settle(self._host_ms)
        self._settled = True

    def sample(self, work: Timed, step: bool) -> Sample | None:
        host = self._queue(work, step)
        self._cuda.synchronize(self._device)
        if not self._settled:
            self._host_ms.append(host["step" if step else "forward-backward"])
        elif not self._sleep_kernel.judge(self._asleep):
            return None
        return self._elapsed(work, step)

    def _open(self) -> None:
        self._cuda._sleep(round(self._sleep_kernel.ms * self._cycles))

    def _closed(self) -> None:
        self._asleep = not self._events[0].query()


def count_launches(work: Timed) -> int:
    """About how many kernels one forward and backward launches: operators that are no views, and Triton kernels.

    An operator may launch none or several, so this is for the queue alone; what a graph holds is counted exactly. Of
    work that does not bear being watched what was seen so far counts: a queue that fills shows in every sample too.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    from kernels.runtime import launch

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += not func.is_view and "empty" not in func.name()
            return func(*args, **(kwargs or {}))

    counter = Counter()
    before = sum(launch.counts.values())
    with suppress(Exception), counter:
        work.backward(work.forward())
    work.clear()
    return counter.count + sum(launch.counts.values()) - before
