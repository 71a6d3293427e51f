"""Clocks: ways to take one sample of forward and backward. Each is a small class with a name and `sample(work)`.

A sample is a dict from (pass, clock) to milliseconds: a micro-step yields forward, backward and forward-backward, a
whole optimizer step its own time and the optimizer's, either one PaCA's refresh, and clock eager the host's time to
enqueue the passes as well. A further clock is one more class and a line in `make_clock`.

    cpu     wall time of a run without a GPU
    eager   what a training script sees, launches included; brings `host` along
    device  the eager call with every launch queued before the first one runs: gap-free GPU time
    graph   replay of a CUDA graph of the same work: GPU time without any launch cost
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bench.timing.settings import MeasureSettings

if TYPE_CHECKING:
    import torch

Sample = dict[tuple[str, str], float]


class Timed(Protocol):
    """What a clock drives: bench.models.Work, or a fake in tests."""

    @property
    def has_refresh(self) -> bool: ...
    @property
    def micro_steps(self) -> int: ...
    def clear(self) -> None: ...
    def ready(self) -> None: ...
    def forward(self) -> Any: ...
    def backward(self, out: Any) -> None: ...
    def optimizer_step(self) -> None: ...
    def refresh(self) -> None: ...


class Unsupported(Exception):
    """This clock cannot time this work; the text says why, for people.

    spoils: the process must measure nothing more, since what went wrong may have left CUDA in disorder.
    """

    def __init__(self, reason: str, spoils: bool = False) -> None:
        super().__init__(reason)
        self.spoils = spoils


class Clock:
    """What all clocks have. The order of calls: prepare; warm_up, samples of the warm-up, settle and samples, once for
    micro-steps and once for whole steps; close."""

    name: str
    cannot: ClassVar[dict[str, str]] = {}  # passes that this clock never times, with the reason
    calls = 1  # calls that one sample is the mean of

    def __init__(self) -> None:
        self.launches: dict[str, int] = {}  # per call, by pass; empty where they are not known

    def prepare(self, work: Any, level: str) -> None:
        """What is due once, untimed. Raises Unsupported."""

    def warm_up(self) -> None:
        """A warm-up begins: nothing that was settled for other samples holds for those that follow."""

    def settle(self) -> None:
        """The warm-up is over."""

    def sample(self, work: Timed, step: bool) -> Sample | None:
        """One micro-step or, with `step`, a whole optimizer step; None where it does not count. Before it gradients are
        made ready, or dropped, outside the timed part. Raises Unsupported where it turns out that no sample will ever
        count."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the clock holds on the device."""


class CpuClock(Clock):
    """Wall time of a run without a GPU."""

    name = "cpu"

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
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


def clocks_of(name: str) -> tuple[str, ...]:
    """The clocks whose rows come out of the samples of this one."""
    return ("eager", "host") if name == "eager" else (name,)


def in_order(names: list[str] | tuple[str, ...]) -> list[str]:
    """The clocks of a sweep in the order to measure them: graph last, since a capture that fails may spoil the
    process."""
    return sorted(names, key=lambda name: name == "graph")


def make_clock(
    name: str, device: "torch.device", cold_l2: bool, settings: MeasureSettings | None = None, cuda: Any = None
) -> Clock:
    """The clock of that name for a device; `cold_l2` flushes the GPU's L2 cache before each sample.

    cuda: the module torch.cuda, or a fake of it.
    """
    if name == "cpu":
        return CpuClock()
    from bench.timing.device import DeviceClock
    from bench.timing.eager import EagerClock
    from bench.timing.graph import GraphClock

    return {"eager": EagerClock, "device": DeviceClock, "graph": GraphClock}[name](
        device, cold_l2, settings or MeasureSettings(), cuda
    )
