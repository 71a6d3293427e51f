"""Fixed cost and slope: time = fixed + slope x tokens + square x batch x length^2, through times at several lengths.

The square term is attention's: softmax(Q K^T) V costs as many operations for each of batch x length^2 pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # Student's quantile; scipy.stats takes a second to import

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.panels import Panel

LEAST = 3  # lengths for a fit
SQUARE = 4  # lengths for a square term: three points always lie on some parabola, whatever their noise


@dataclass(frozen=True)
class Line:
    """What was fitted, times in ms."""

    fixed_ms: Estimate
    slope_ms: Estimate  # per token
    square_ms: Estimate | None  # per batch x length^2; 0 without an interval where the fit ends there; None: too few
    worst: float  # largest |residual| over the time
    points: int

    def at(self, batch: int, lengths: np.ndarray) -> np.ndarray:
        """The fitted times in ms."""
        square = self.square_ms.value if self.square_ms else 0.0
        return self.fixed_ms.value + batch * lengths * (self.slope_ms.value + square * lengths)


@dataclass(frozen=True)
class Series:
    """The times of a subject, batch, training type and pass over its lengths, in ms."""

    case: Case  # at one of the lengths
    type_: str
    pass_: str
    lengths: tuple[int, ...]
    times_ms: tuple[Estimate, ...]
    line: Line | None  # None with fewer than three lengths


def fit_line(batch: int, lengths: Sequence[float], times_ms: Sequence[float]) -> Line | None:
    """Least squares of relative errors, with the square term from four lengths on; None with fewer than three.

    Attention's cost cannot be below zero: where its term would be, it is left at 0 and the rest is fitted again, which
    is the solution under that constraint. fixed and slope are free, unlike under scipy's nnls: a fixed cost below zero
    tells that the form does not hold, and its interval whether noise explains it. Intervals are Student's 95 % from the
    residuals, so they hold the noise and whatever the form leaves out.
    """
    x, y = batch * np.asarray(lengths, dtype=np.float64), np.asarray(times_ms, dtype=np.float64)
    different = len(set(lengths))
    if different < LEAST or bool(np.any(y <= 0)):
        return None
    squared = different >= SQUARE
    found, halves = _polynomial(x, y, 2 if squared else 1)
    square = _estimate(found[2] * batch, halves[2] * batch) if squared else None  # tokens^2 = batch x batch x length^2
    if square and square.value < 0:
        square = Estimate(0.0)
        found, halves = _polynomial(x, y, 1)
    worst = float(np.max(np.abs(1 - np.polyval(found[::-1], x) / y)))
    return Line(_estimate(found[0], halves[0]), _estimate(found[1], halves[1]), square, worst, len(x))


def _polynomial(x: np.ndarray, y: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients from the constant on, and half of their intervals."""
    found, covariance = np.polyfit(x, y, degree, w=1 / y, cov=True)
    halves = np.sqrt(np.diag(covariance)) * float(stdtrit(len(x) - degree - 1, 0.975))
    return found[::-1], halves[::-1]


def _estimate(value: float, half: float) -> Estimate:
    return Estimate(float(value), float(value - half), float(value + half))


def fit_lengths(panel: Panel) -> list[Series]:
    """Every subject, batch and training type with at least one time, forward and backward, of blocks or models."""
    series: dict[tuple[str, int, str], list[Case]] = {}
    for case in panel.cases if panel.level != "linear" else ():
        series.setdefault((case.subject, case.batch, panel.labels[case]), []).append(case)
    found = []
    for (_, batch, type_), cases in series.items():
        for pass_ in ("forward", "backward"):
            points = [(c.seq, panel.time(c, pass_).time) for c in sorted(cases, key=lambda c: c.seq)]
            if good := [(seq, time) for seq, time in points if time]:
                lengths, times = zip(*good, strict=True)
                line = fit_line(batch, lengths, [time.value for time in times])
                found.append(Series(cases[0], type_, pass_, lengths, times, line))
    return found
