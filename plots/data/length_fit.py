"""Intervals: of a median, of a ratio of medians, of a straight line through times. All at 95 %."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 2000  # bootstrap draws; the ends of a 95 % interval then move by less than a tenth of its width
MIN_SAMPLES = 6  # fewer carry no interval of a median
MIN_PROCESSES = 5  # fewer say nothing about the spread between processes
LEVEL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; low and high are None where the samples are too few to carry one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """The larger side of the interval, so that value ± half covers all of it."""
        if self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low, 0.0)

    def times(self, by: float) -> "Estimate":
        """In another unit; `by` is above zero."""
        low, high = (None if v is None else v * by for v in (self.low, self.high))
        return Estimate(self.value * by, low, high)

    def inverse(self) -> "Estimate":
        """Of a value above zero: the ends of the interval change places."""
        low, high = (1 / v if v else None for v in (self.high, self.low))
        return Estimate(1 / self.value, low, high)


@dataclass(frozen=True)
class Line:
    """time = fixed + slope x tokens, times in ms."""

    fixed_ms: Estimate
    slope_ms: Estimate  # per token
    worst: float  # largest |residual| over the time
    points: int


def inflation(samples: Array) -> float:
    """tau = (1 + r) / (1 - r): how many times fewer independent samples a drifting series is worth.

    r is the lag-1 correlation that an autoregressive series needs for the signs about the median to correlate as seen.
    """
    signs = np.sign(samples - np.median(samples))
    power = float(signs @ signs)
    lag1 = float(signs[1:] @ signs[:-1]) / power if power > 0 else 0.0
    r = min(max(sin(pi / 2 * lag1), 0.0), 0.95)
    return (1 + r) / (1 - r)


def median_draws(samples: Sequence[float], rng: np.random.Generator) -> Array | None:
    """Draws of where the true median lies, from samples in the order they were taken; None for too few of them.

    A true median has n/2 samples below it, give or take sqrt(n tau)/2: draw that rank, read off the sample there. The
    central 95 % are then the interval that a row states, so ratios are neither bolder nor shyer than the times they
    come from. Plain resampling takes drifting samples for independent ones, and is too bold for few of them.
    """
    x = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(x)
    if n < MIN_SAMPLES:
        return None
    tau = inflation(np.asarray(samples, dtype=np.float64))
    rank = n / 2 + rng.standard_normal(DRAWS) * np.sqrt(n * tau) / 2
    outward = np.where(rank < n / 2, np.floor(rank), np.ceil(rank) - 1).astype(np.int64)
    return x[np.clip(outward, 0, n - 1)]


def draws_from_interval(value: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """Draws around a median of which only the interval is known: a normal curve with a width of its own each side."""
    z = rng.standard_normal(DRAWS)
    return value + z * np.where(z > 0, max(high - value, 0.0), max(value - low, 0.0)) / 1.96


def process_draws(medians: Sequence[float], rng: np.random.Generator) -> Array:
    """Bootstrap draws over whole processes: the median of resampled per-process medians.

    The median, not the mean: at 5 processes its percentile interval covers the truth in 94 % of the trials.
    """
    x = np.asarray(medians, dtype=np.float64)
    picked: Array = np.median(x[rng.integers(0, len(x), (DRAWS, len(x)))], axis=1)
    return picked


def interval(value: float, draws: Array | None) -> Estimate:
    """The value with the central 95 % of its draws."""
    if draws is None:
        return Estimate(value)
    low, high = (float(v) for v in np.percentile(draws, LEVEL))
    return Estimate(value, min(low, value), max(high, value))


def straight_line(tokens: Sequence[float], times_ms: Sequence[float]) -> Line | None:
    """Least squares of relative errors through at least three lengths.

    The intervals are Student's, from the residuals: they hold the noise and the curvature, of which the latter is the
    larger (attention grows with the square of the length).
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(times_ms, dtype=np.float64)
    free = len(x) - 2
    if len(set(tokens)) < 3 or bool(np.any(y <= 0)):
        return None
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes a second to import

    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ np.ones_like(y)
    residual = 1.0 - design @ beta
    spread = np.sqrt(np.diag(inverse) * float(residual @ residual) / free) * float(stdtrit(free, 0.975))
    fixed, slope = (Estimate(float(b), float(b - s), float(b + s)) for b, s in zip(beta, spread, strict=True))
    return Line(fixed, slope, float(np.max(np.abs(residual))), len(x))
