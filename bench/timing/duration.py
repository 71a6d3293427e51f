"""How long a measurement takes by the rules of the sampler and of the rounds, from the time of a call. Nothing is
measured here, and nothing imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from bench.record.stats import MIN_SAMPLES
from bench.timing.settings import MeasureSettings

# Samples that narrow an interval of the median to 0.9 of the target: normal samples, whose median deviates by 1.2533
# sigma / sqrt(n), at 1.96.
_NORMAL = 1.96 * 1.2533 / 0.9


@dataclass(frozen=True)
class Pace:
    """Of a case: seconds of a call and of what a sample costs beside it, by part of a measurement."""

    parts: tuple[float, ...]  # micro-step, and where it is timed the whole step
    beside: float

    @property
    def first(self) -> float:
        return self.parts[0]


def warm_up_s(p: Pace, s: MeasureSettings) -> float:
    """As Sampler warms up: calls and seconds at least, and so long at most."""
    found = 0.0
    for part in p.parts:
        each = part + p.beside
        calls = max(s.warmup_calls, ceil(s.warmup_s / each))
        found += min(calls, ceil(s.warmup_max_s / each)) * each
    return found


def alone_s(p: Pace, s: MeasureSettings, level: str, jitter: float) -> float:
    """Warm-up and samples of a case that is measured alone; see bench.timing.stop. jitter: relative deviation of a
    sample."""
    found = warm_up_s(p, s)
    for part in p.parts:
        narrow = ceil((_NORMAL * jitter / s.target) ** 2)
        n = max(s.min_samples, narrow + s.check_every, ceil(s.least_time(level) / part))  # at two checks in a row
        n = ceil(n / s.check_every) * s.check_every
        n = min(n, ceil(max(s.budget(level) / part, s.min_samples)), s.max_samples)
        n = min(n, max(s.wall_min_samples, ceil(s.wall_s / (part + p.beside))))
        found += n * (part + p.beside)
    return found


def rounds_s(
    paces: Sequence[Pace], s: MeasureSettings, level: str, jitter: float, turn_s: float, on_cpu: bool = False
) -> list[float]:
    """Warm-up and rounds of a comparison, by case; see bench.runner.rounds. jitter: relative deviation of a ratio by
    round; turn_s: what a block costs beside its samples. on_cpu: no untimed sample where four would fill a block."""
    measured, walls = 0.0, []
    for p in paces:
        wall = turn_s
        for part in p.parts:
            block_s = s.block_s / len(p.parts)
            samples = max(1, ceil(block_s / (part + p.beside)))
            untimed = not on_cpu or 4 * part < block_s
            wall += (samples + untimed) * (part + p.beside)
        measured += samples * part  # of the last part, which holds all others
        walls.append(wall)
    narrow = ceil((_NORMAL * jitter / s.ratio_target) ** 2) + 2
    budget = ceil(s.budget(level) * len(paces) / measured)
    n = min(max(s.min_rounds, min(narrow, budget)), s.max_rounds)
    n = min(n + n % 2, max(MIN_SAMPLES, ceil(s.wall_s * len(paces) / sum(walls))))
    return [warm_up_s(p, s) + n * wall for p, wall in zip(paces, walls, strict=True)]
