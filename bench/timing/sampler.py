"""Warm-up, then samples until the stopping rule says enough, as long as the GPU is in a fit state."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from types import MappingProxyType
from typing import Any

from bench.case.clocks import clocks_of
from bench.case.schema import Status
from bench.record.stats import Summary, summarize
from bench.timing.base import Clock, Timed, Unsupported
from bench.timing.gpu_state import CLOCKS_SET, GpuState, Reading, Rests, summary
from bench.timing.settings import MeasureSettings
from bench.timing.stop import stop_reason

Samples = dict[tuple[str, str], list[float]]

SLOW_MS = 5_000  # after a sample as slow as this a sign of life is due, lest check_every of them be taken for a hang


@dataclass(frozen=True)
class Measurement:
    """What one clock found for one case: samples in ms by (pass, clock), in the order they were taken."""

    samples_ms: Samples  # empty unless the status is ok
    stop: dict[str, str]  # why sampling stopped, by pass: converged, budget, wall or samples
    refresh_ms: float | None  # median of PaCA's column refresh: after an optimizer step where those were timed
    optimizer_ms: float | None  # median of the optimizer alone, within whole steps
    parts_ms: float | None  # a whole step put together: micro-steps x forward-backward + optimizer + refresh
    warmup_s: float  # capturing a graph included
    wall_s: float
    status: Status = Status.ok
    detail: str | None = None  # why there are no numbers
    cannot: dict[str, str] = field(default_factory=dict)  # passes that this clock never times, with the reason
    launches: dict[str, int] = field(default_factory=dict)  # per call, by pass
    dropped: int = 0  # samples that did not count: the sleep kernel was too short, or the GPU was throttled
    state: dict[str, Any] = field(default_factory=dict)  # columns of state.summary
    clocks_set: bool = False  # set or locked clocks held the GPU back at some time
    spoiled: bool = False  # this process must not measure anything more

    def series(self, clock: str, passes: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
        """One entry for each row that this measurement fills: pass, clock, status, and what else the row says."""
        entries: list[dict[str, Any]] = []
        for name in clocks_of(clock):
            for p in passes:
                entry: dict[str, Any] = {"pass": p, "clock": name, "status": self.status, "detail": self.detail}
                if p in self.cannot:
                    entry |= {"status": Status.unsupported, "detail": self.cannot[p]}
                elif self.status is Status.ok:
                    entry |= {"samples_ms": self.samples_ms[p, name], "stop": self.stop[p], "dropped": self.dropped}
                    entry |= {"launches": self.launches.get(p), "refresh_ms": self.refresh_ms, **self.state}
                    if p == "step" and name != "host":
                        entry |= {"optimizer_ms": self.optimizer_ms, "parts_ms": self.parts_ms}
                entries.append(entry)
        return entries


class _Unfit(Exception):
    """The GPU's state ends the measurement with this status."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Watch:
    """Looks at the GPU between blocks, keeps what was read, and rests while it is throttled."""

    def __init__(self, state: GpuState | None, settings: MeasureSettings, sleep: Callable[[float], None]) -> None:
        self._state = state
        self._rests = Rests(settings, sleep)
        self.readings: list[Reading] = []  # of blocks that count
        self.clocks_set = False

    def fit(self) -> bool:
        """Whether what was measured since the last look counts. Where it does not, the GPU has rested since.

        Raises _Unfit where another process computes on the GPU, or it never comes to rest.
        """
        if self._state is None:
            return True
        reading = self._state.read()
        self.clocks_set |= bool((reading.reasons or 0) & CLOCKS_SET)
        if reading.others:
            others = ", ".join(map(str, reading.others))
            raise _Unfit(Status.contended, f"another process has a CUDA context on this GPU: {others}")
        if not reading.slowdowns:
            self.readings.append(reading)
            return True
        if not self._rests.take():
            raise _Unfit(Status.throttled, f"{', '.join(reading.slowdowns)} after {self._rests.taken} pauses")
        return False


def measure(
    work: Timed,
    clock: Clock,
    passes: tuple[str, ...],
    level: str,
    settings: MeasureSettings,
    on_check: Callable[[str, Summary], None] = lambda _pass, _estimate: None,
    now: Callable[[], float] = perf_counter,
    state: GpuState | None = None,
    sleep: Callable[[float], None] = time.sleep,
    never: Mapping[str, str] = MappingProxyType({}),
) -> Measurement:
    """Samples `work` under `clock` until the medians of all `passes` have converged or a budget is spent.

    Micro-steps first, then whole optimizer steps where `passes` has them, each with a warm-up and budgets of its own:
    the parts of a step are timed apart, and the whole is a check on their sum.
    `on_check(pass, estimate)` is called between samples, never inside one, every `check_every` samples and after each
    slow one; `state` is asked every `check_every` samples, None where there is no NVML. What cannot be measured is a
    status of the result, not an exception.
    never: passes that this work is not timed for, with the reason, beside those of the clock.
    """
    cannot = {p: reason for p, reason in {**clock.cannot, **never}.items() if p in passes}
    timed = tuple(p for p in passes if p not in cannot)
    parts = [p for p in timed if p != "step"], [p for p in timed if p == "step"]
    started = now()
    sampling_s = 0.0
    watch = _Watch(state, settings, sleep)
    status, detail, spoiled = Status.ok, None, False
    taken: Samples = {}
    stop: dict[str, str] = {}
    dropped = 0
    try:
        if timed:
            clock.prepare(work, level)
        for part in filter(None, parts):
            try:
                _warm_up(work, clock, part, settings, now)
                begun = now()
                found = _sample(work, clock, part, level, settings, on_check, now, watch)
            except Unsupported as e:
                if e.spoils or not taken:
                    raise
                cannot |= dict.fromkeys(part, str(e))  # of whole steps; the micro-steps keep their times
                continue
            sampling_s += now() - begun
            taken |= found.taken
            stop |= dict.fromkeys(part, found.stop)
            dropped += found.dropped
    except Unsupported as e:
        status, detail, spoiled = Status.unsupported, str(e), e.spoils
    except _Unfit as e:
        status, detail, taken = e.status, str(e), {}
    finally:
        with suppress(RuntimeError):  # where the CUDA context is lost, freeing fails too, and says less
            clock.close()
    medians = {p: median(s) for (p, name), s in taken.items() if name == clock.name}
    return Measurement(
        samples_ms={key: s for key, s in taken.items() if key[0] in timed},
        stop=stop,
        refresh_ms=medians.get("refresh"),
        optimizer_ms=medians.get("optimizer"),
        parts_ms=_put_together(work, medians),
        warmup_s=now() - started - sampling_s,
        wall_s=sampling_s,
        status=status,
        detail=detail,
        cannot=cannot,
        launches=clock.launches,
        dropped=dropped,
        state=summary(watch.readings),
        clocks_set=watch.clocks_set,
        spoiled=spoiled,
    )


def _put_together(work: Timed, medians: dict[str, float]) -> float | None:
    """A whole step by its parts, where all of them were timed."""
    if not {"forward-backward", "optimizer"} <= medians.keys():
        return None
    return work.micro_steps * medians["forward-backward"] + medians["optimizer"] + medians.get("refresh", 0.0)


@dataclass(frozen=True)
class _Found:
    taken: Samples
    stop: str
    dropped: int


def _warm_up(work: Timed, clock: Clock, passes: list[str], settings: MeasureSettings, now: Callable[[], float]) -> None:
    """The real sample procedure, so that clocks ramp and caches fill as they will be."""
    clock.warm_up()
    started = now()
    calls = 0
    while calls < settings.warmup_calls or now() - started < settings.warmup_s:
        clock.sample(work, "step" in passes)
        calls += 1
        if now() - started >= settings.warmup_max_s:
            break
    clock.settle()


def _sample(
    work: Timed,
    clock: Clock,
    passes: list[str],
    level: str,
    settings: MeasureSettings,
    on_check: Callable[[str, Summary], None],
    now: Callable[[], float],
    watch: _Watch,
) -> _Found:
    """Samples in blocks of check_every. A block at whose end the GPU is throttled is dropped, and taken again."""
    step = "step" in passes
    wanted = [(p, clock.name) for p in passes]
    whole = (("step" if step else "forward-backward"), clock.name)
    taken: Samples = {}
    kept = dropped = 0  # samples of the blocks that count, and those that do not count
    measured_ms = 0.0  # of the calls themselves
    begun = now()
    while not watch.fit():
        pass
    while True:
        sample = clock.sample(work, step)
        if sample is None:
            dropped += 1
            continue
        for key, ms in sample.items():
            taken.setdefault(key, []).append(ms)
        n = len(taken[whole])
        measured_ms += sample[whole] * clock.calls
        reason = stop_reason([taken[w] for w in wanted], measured_ms / 1e3, now() - begun, settings, level)
        if sample[whole] >= SLOW_MS and n % settings.check_every:
            on_check(wanted[-1][0], summarize(taken[wanted[-1]]))
        if not reason and n % settings.check_every:
            continue
        if not watch.fit():
            dropped += n - kept
            measured_ms -= sum(taken[whole][kept:]) * clock.calls
            for samples in taken.values():
                del samples[kept:]
            continue
        kept = n
        if n % settings.check_every == 0:
            on_check(wanted[-1][0], summarize(taken[wanted[-1]]))
        if reason:
            return _Found(taken, reason, dropped)
