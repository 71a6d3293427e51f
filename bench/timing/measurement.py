"""What one clock found for one case: samples, or why there are none."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.case.clocks import clocks_of
from bench.case.schema import Status

Samples = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Measurement:
    """What one clock found for one case: samples in ms by (pass, clock), in the order they were taken."""

    clock: str
    samples_ms: Samples  # with those of refresh and optimizer beside the passes; empty unless the status is ok
    stop: dict[str, str]  # why sampling stopped, by pass: converged, budget, wall or samples
    micro_steps: int
    warmup_s: float  # capturing a graph included
    wall_s: float
    rounds: dict[str, list[int]] = field(default_factory=dict)  # of each sample, by pass; empty if measured alone
    status: Status = Status.ok
    detail: str | None = None  # why there are no numbers
    cannot: dict[str, str] = field(default_factory=dict)  # passes that this clock never times, with the reason
    launches: dict[str, int] = field(default_factory=dict)  # per call, by pass
    dropped: int = 0  # samples that did not count: the sleep kernel was too short, or the device was not fit
    state: dict[str, Any] = field(default_factory=dict)  # columns of state.summary
    clocks_set: bool = False  # set or locked clocks held the GPU back at some time
    spoiled: bool = False  # this process must not measure anything more

    def part_ms(self, part: str, clock: str | None = None) -> float | None:
        """Median of a part of a step: `optimizer` within whole steps, `refresh` after an optimizer step where those
        were timed."""
        found = self.samples_ms.get((part, clock or self.clock))
        return median(found) if found else None

    def parts_ms(self, clock: str | None = None) -> float | None:
        """A whole step by its parts, micro-steps x forward-backward + optimizer + refresh, where all were timed."""
        micro, optimizer = (self.part_ms(p, clock) for p in ("forward-backward", "optimizer"))
        if micro is None or optimizer is None:
            return None
        return self.micro_steps * micro + optimizer + (self.part_ms("refresh", clock) or 0.0)

    def series(self, passes: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
        """One entry for each row that this measurement fills: pass, clock, status, and what else the row says."""
        entries: list[dict[str, Any]] = []
        for name in clocks_of(self.clock):
            for p in passes:
                entry: dict[str, Any] = {"pass": p, "clock": name, "status": self.status, "detail": self.detail}
                if p in self.cannot:
                    entry |= {"status": Status.unsupported, "detail": self.cannot[p]}
                elif self.status is Status.ok:
                    entry |= {"samples_ms": self.samples_ms[p, name], "stop": self.stop[p], "dropped": self.dropped}
                    entry |= {"rounds": self.rounds[p]} if self.rounds else {}
                    parts = self.clock if name == "host" else name  # the host's time has no parts of its own
                    entry |= {"launches": self.launches.get(p), "refresh_ms": self.part_ms("refresh", parts)}
                    entry |= self.state
                    if p == "step" and name != "host":
                        entry |= {"optimizer_ms": self.part_ms("optimizer", name), "parts_ms": self.parts_ms(name)}
                entries.append(entry)
        return entries
