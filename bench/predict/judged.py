"""Predictions beside what was measured: how far they lie off, and how often their intervals hold the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """One prediction and the measured value of it, in the same unit."""

    subject: str  # what is held out together: a model's name
    predicted: float
    measured: float
    intervals: tuple[Interval, Interval]  # at 80 and 90 %

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1

    @property
    def reach(self) -> float:
        """By how much the half width of the 90 % interval must be multiplied to just hold the measured value."""
        low, high = self.intervals[1]
        half = max(high - self.predicted, self.predicted - low)
        return abs(self.measured - self.predicted) / half if half else np.inf

    def holds(self, level: int) -> bool:
        """Whether the 80 or 90 % interval holds the measured value."""
        low, high = self.intervals[(80, 90).index(level)]
        return low <= self.measured <= high


@dataclass(frozen=True)
class Summary:
    """Of a group: |error|'s mean, median and 95th percentile, the mean error with its sign, and shares held."""

    rows: int
    mean: float
    median: float
    p95: float
    bias: float
    within_80: float
    within_90: float


def summary(judged: Sequence[Judged]) -> Summary:
    """Of at least one prediction."""
    errors = np.array([j.error for j in judged])
    off = np.abs(errors)
    held = (float(np.mean([j.holds(level) for j in judged])) for level in (80, 90))
    return Summary(len(off), float(off.mean()), float(np.median(off)), float(np.quantile(off, 0.95)),
                   float(errors.mean()), *held)  # fmt: skip


@dataclass(frozen=True)
class Widening:
    """By what factor intervals must widen. held: the share of held-out rows that the factors of the others held."""

    factor: float
    held: float
    subjects: int
    rows: int


def widening(judged: Sequence[Judged], level: float = 0.9, already: float = 1.0) -> Widening | None:
    """The factor by which 90 % intervals must widen so that they hold 90 % of the rows of models not seen.

    Each model is left out in turn, and the factor taken as a quantile of the `reach` of all others' rows. The lowest
    quantile from `level` on by which at least `level` of all held-out rows are held gives the factor, from all rows.
    Never below 1. already: by what the intervals were widened, which the factor replaces. None with fewer than two
    models.
    """
    reach = already * np.array([j.reach for j in judged])
    subjects = np.array([j.subject for j in judged])
    names = sorted(set(subjects))
    if len(names) < 2:
        return None
    quantile, held = level, 0.0
    while True:
        limits = {name: max(1.0, float(np.quantile(reach[subjects != name], quantile))) for name in names}
        held = float(np.mean([r <= limits[s] for r, s in zip(reach, subjects, strict=True)]))
        if held >= level or quantile >= 1:
            break
        quantile = min(1.0, quantile + 0.005)
    return Widening(max(1.0, float(np.quantile(reach, quantile))), held, len(names), len(reach))
