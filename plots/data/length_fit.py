"""Fixed cost and slope: straight lines through the times of at least three lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # Student's quantile; scipy.stats takes a second to import

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.panels import Panel


@dataclass(frozen=True)
class Line:
    """time = fixed + slope x tokens, times in ms."""

    fixed_ms: Estimate
    slope_ms: Estimate  # per token
    worst: float  # largest |residual| over the time
    points: int


def straight_line(tokens: Sequence[float], times_ms: Sequence[float]) -> Line | None:
    """Least squares of relative errors through at least three lengths.

    The intervals are Student's, from the residuals: they hold the noise and the curvature, of which the latter is the
    larger (attention grows with the square of the length).
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(times_ms, dtype=np.float64)
    if len(set(tokens)) < 3 or bool(np.any(y <= 0)):
        return None
    (slope, fixed), covariance = np.polyfit(x, y, 1, w=1 / y, cov=True)
    wide = np.sqrt(np.diag(covariance)) * float(stdtrit(len(x) - 2, 0.975))
    worst = float(np.max(np.abs(1 - (fixed + slope * x) / y)))
    return Line(_estimate(fixed, wide[1]), _estimate(slope, wide[0]), worst, len(x))


def _estimate(value: float, half: float) -> Estimate:
    return Estimate(float(value), float(value - half), float(value + half))


def fit_lengths(panel: Panel) -> dict[tuple[str, int, str, str], Line]:
    """(subject, batch, training type, pass) -> fixed + slope x tokens, where at least three lengths were measured."""
    found: dict[tuple[str, int, str, str], Line] = {}
    series: dict[tuple[str, int, str], list[Case]] = {}
    for case in panel.cases:
        series.setdefault((case.subject, case.batch, panel.labels[case]), []).append(case)
    for key, cases in series.items():
        for pass_ in ("forward", "backward"):
            points = [(c.tokens, panel.time(c, pass_)) for c in sorted(cases, key=lambda c: c.seq)]
            good = [(tokens, cell.time.value) for tokens, cell in points if cell.time]
            if len(good) >= 3 and (line := straight_line(*zip(*good, strict=True))):
                found[(*key, pass_)] = line
    return found
