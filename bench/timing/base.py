"""What a clock is: a way to take one sample of forward and backward, a small class with a name and `sample(work)`.

A sample is a dict from (pass, clock) to milliseconds: a micro-step yields forward, backward and forward-backward, a
whole optimizer step its own time and the optimizer's, either one PaCA's refresh, and clock eager the host's time to
enqueue the passes as well. A further clock is one more class here and a line in bench/case/clocks.py.
"""

from typing import Any, ClassVar, Protocol

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
