"""Warm-up, then samples until the stopping rule says enough."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from bench.measure.clocks import Clock, Timed
from bench.measure.settings import MeasureSettings
from bench.measure.stop import Estimate, estimate, stop_reason


@dataclass(frozen=True)
class Measurement:
    """What one clock found for one case: samples in ms by (pass, clock), in the order they were taken."""

    samples_ms: dict[tuple[str, str], list[float]]
    stop: str  # why sampling stopped: converged, budget, wall or samples
    refresh_ms: float | None  # median of PaCA's column refresh, outside every pass
    warmup_s: float
    wall_s: float


def measure(
    work: Timed,
    clock: Clock,
    passes: tuple[str, ...],
    level: str,
    settings: MeasureSettings,
    on_check: Callable[[str, Estimate], None] = lambda _pass, _estimate: None,
    now: Callable[[], float] = perf_counter,
) -> Measurement:
    """Samples `work` under `clock` until the medians of all `passes` have converged or a budget is spent.

    `on_check(pass, estimate)` is called between samples, never inside one, every `check_every` samples.
    """
    step = "step" in passes
    started = now()
    calls = 0
    while calls < settings.warmup_calls or now() - started < settings.warmup_s:
        clock.sample(work, step)
        calls += 1
        if now() - started >= settings.warmup_max_s:
            break
    warm = now()
    taken: dict[tuple[str, str], list[float]] = {}
    wanted = [(p, clock.name) for p in passes]
    whole = (("step" if step else "forward-backward"), clock.name)
    measured_s = 0.0
    while True:
        sample = clock.sample(work, step)
        for key, ms in sample.items():
            taken.setdefault(key, []).append(ms)
        measured_s += sample[whole] / 1e3
        if len(taken[whole]) % settings.check_every == 0:
            on_check(wanted[-1][0], estimate(taken[wanted[-1]]))
        if reason := stop_reason([taken[w] for w in wanted], measured_s, now() - warm, settings, level):
            break
    refresh = taken.pop(("refresh", clock.name), None)
    kept = {key: s for key, s in taken.items() if key[0] in passes}
    return Measurement(kept, reason, median(refresh) if refresh else None, warm - started, now() - warm)
