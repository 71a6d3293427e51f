"""Clocks: ways to take one sample of forward and backward. Each is an object with a name and `sample(work)`.

A sample is a dict from (pass, clock) to milliseconds: one iteration yields forward, backward and forward-backward, and
on a GPU the host's time to enqueue them. A further clock is one more class here and a line in `make_clock`.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

Sample = dict[tuple[str, str], float]


class Timed(Protocol):
    """What a clock drives: bench.models.Work, or a fake in tests."""

    @property
    def has_refresh(self) -> bool: ...
    def clear(self) -> None: ...
    def forward(self) -> Any: ...
    def backward(self, out: Any) -> None: ...
    def optimizer_step(self) -> None: ...
    def refresh(self) -> None: ...


class Clock(Protocol):
    name: str

    def sample(self, work: Timed, step: bool) -> Sample:
        """One iteration. Gradients are cleared before it, outside the timed part. With `step`, the optimizer too."""
        ...


class CpuClock:
    """Wall time of a run without a GPU."""

    name = "cpu"

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now

    def sample(self, work: Timed, step: bool) -> Sample:
        work.clear()
        t0 = self._now()
        out = work.forward()
        t1 = self._now()
        work.backward(out)
        t2 = self._now()
        found = {"forward": t1 - t0, "backward": t2 - t1, "forward-backward": t2 - t0}
        if step:
            work.optimizer_step()
            found["step"] = self._now() - t0
        if work.has_refresh:
            t3 = self._now()
            work.refresh()
            found["refresh"] = self._now() - t3
        return {(p, self.name): s * 1e3 for p, s in found.items()}


class EagerClock:
    """What a training script sees, and what the paper timed: events around the calls, no backlog in the stream.

    The host's time for the same calls comes from the same samples, under the clock `host`. Events around backward are
    right although it runs on the autograd thread: it works on the stream of the forward.
    """

    name = "eager"

    def __init__(self, device: "torch.device", cold_l2: bool) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._flush = None
        if cold_l2:
            size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
            self._flush = torch.empty(size, dtype=torch.int8, device=device)

    def sample(self, work: Timed, step: bool) -> Sample:
        torch = self._torch
        e = [torch.cuda.Event(enable_timing=True) for _ in range(6)]
        work.clear()
        if self._flush is not None:
            self._flush.zero_()
        torch.cuda.synchronize(self._device)
        t0 = perf_counter()
        e[0].record()
        out = work.forward()
        t1 = perf_counter()
        e[1].record()
        work.backward(out)
        t2 = perf_counter()
        e[2].record()
        t3 = t2
        if step:
            work.optimizer_step()
            t3 = perf_counter()
            e[3].record()
        if work.has_refresh:
            e[4].record()
            work.refresh()
            e[5].record()
        torch.cuda.synchronize(self._device)
        gpu = {"forward": (0, 1), "backward": (1, 2), "forward-backward": (0, 2)}
        host = {"forward": t1 - t0, "backward": t2 - t1, "forward-backward": t2 - t0}
        if step:
            gpu["step"], host["step"] = (0, 3), t3 - t0
        if work.has_refresh:
            gpu["refresh"] = (4, 5)
        found = {(p, "eager"): e[a].elapsed_time(e[b]) for p, (a, b) in gpu.items()}
        return found | {(p, "host"): s * 1e3 for p, s in host.items()}


def clocks_of(name: str) -> tuple[str, ...]:
    """The clocks whose rows come out of the samples of this one."""
    return ("eager", "host") if name == "eager" else (name,)


def make_clock(name: str, device: "torch.device", cold_l2: bool) -> Clock:
    """The clock of that name for a device; `cold_l2` flushes the GPU's L2 cache before each sample."""
    return CpuClock() if name == "cpu" else EagerClock(device, cold_l2)
