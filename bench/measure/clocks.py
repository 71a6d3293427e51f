"""Clocks: ways to take one sample of forward and backward. Each is a small class with a name and `sample(work)`.

A sample is a dict from (pass, clock) to milliseconds: one iteration yields forward, backward and forward-backward, and
clock eager the host's time to enqueue them as well. A further clock is one more class and a line in `make_clock`.

    cpu     wall time of a run without a GPU
    eager   what a training script sees, launches included; brings `host` along
    device  the eager call with every launch queued before the first one runs: gap-free GPU time
    graph   replay of a CUDA graph of the same work: GPU time without any launch cost
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bench.measure.settings import MeasureSettings

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


class Unsupported(Exception):
    """This clock cannot time this work; the text says why, for people.

    spoils: the process must measure nothing more, since what went wrong may have left CUDA in disorder.
    """

    def __init__(self, reason: str, spoils: bool = False) -> None:
        super().__init__(reason)
        self.spoils = spoils


class Clock:
    """What all clocks have. The order of calls: prepare, samples of the warm-up, settle, samples, close."""

    name: str
    cannot: ClassVar[dict[str, str]] = {}  # passes that this clock never times, with the reason
    calls = 1  # calls that one sample is the mean of

    def __init__(self) -> None:
        self.launches: dict[str, int] = {}  # per call, by pass; empty where they are not known

    def prepare(self, work: Any, level: str) -> None:
        """What is due once, untimed. Raises Unsupported."""

    def settle(self) -> None:
        """The warm-up is over."""

    def sample(self, work: Timed, step: bool) -> Sample | None:
        """One iteration, None where it does not count. Gradients are cleared before it, outside the timed part. With
        `step`, the optimizer too. Raises Unsupported where it turns out that no sample will ever count."""
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
    from bench.measure.device import DeviceClock
    from bench.measure.eager import EagerClock
    from bench.measure.graph import GraphClock

    return {"eager": EagerClock, "device": DeviceClock, "graph": GraphClock}[name](
        device, cold_l2, settings or MeasureSettings(), cuda
    )
