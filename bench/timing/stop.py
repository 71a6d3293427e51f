"""The rule that says when to stop sampling."""

from collections.abc import Sequence

import numpy as np

from bench.record.stats import inflation, summarize
from bench.timing.settings import MeasureSettings


def _converged(samples_ms: Sequence[float], target: float) -> bool:
    """Whether the interval is narrow enough, and carried by at least 4 samples' worth of independent ones: with fewer
    it is the range of the samples, which says little about where a drifting series goes next. A tenth is kept in hand,
    since the moment at which an interval is first narrow enough is not chosen at random."""
    x = np.asarray(samples_ms, dtype=np.float64)
    return len(x) > 0 and summarize(x).half_width <= 0.9 * target and len(x) >= 4 * inflation(x)


def stop_reason(
    series: Sequence[Sequence[float]], measured_s: float, wall_s: float, settings: MeasureSettings, level: str
) -> str | None:
    """Why to stop now, or None to go on.

    `series` holds the samples of every pass that must converge, all of one length. `measured_s` is their time, `wall_s`
    that of the whole procedure. Reasons: wall, converged, budget, samples.
    """
    n = len(series[0])
    if wall_s >= settings.wall_s and n >= settings.wall_min_samples:
        return "wall"
    if n == 0 or n % settings.check_every or n < settings.min_samples or measured_s < settings.least_time(level):
        return None
    # At two checks in a row: the first narrow interval out of many is narrow by luck too often. Simulated, under drift
    # (AR(1) 0.9 of 0.3 %, 600 trials) the interval then covers the truth in 0.90 of them; with one check, the normal
    # quantile and no correction for short series in 0.81.
    if all(_converged(s[: n - back], settings.target) for s in series for back in (0, settings.check_every)):
        return "converged"
    if measured_s >= settings.budget(level):
        return "budget"
    return "samples" if n >= settings.max_samples else None
