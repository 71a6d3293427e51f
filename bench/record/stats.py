"""The one place where intervals come from: of a median, of ratios and of differences of medians. All at 95 %.

The sampler, the rows, the terminal, the tables and the page use it. Samples of one process are not independent: clocks
ramp, the machine drifts. Intervals that assume independence cover the true median in 0.2 to 0.55 of simulated trials
under drift; widened by the measured autocorrelation of the signs they cover in 0.90 and more (tests/record/test_stats).
`compare` asks another question, whether two programs differ, and has its own rule in bench/compare/verdict.py.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import floor, hypot, pi, sin, sqrt
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # Student's distribution; scipy.stats takes a second to import

Array = NDArray[np.float64]

DRAWS = 2000  # of where the truth lies; the ends of a 95 % interval then move by less than a tenth of its width
MIN_SAMPLES = 6  # fewer carry no interval of a median
MIN_PROCESSES = 5  # fewer say nothing about the spread between processes
LEVEL = (2.5, 97.5)  # percentiles
RATIO_NOISY = 0.05  # half of its interval over a ratio, beyond which the ratio is noisy
RATIO_TELLS = 0.2  # and beyond which it is no result


@dataclass(frozen=True)
class Summary:
    """What a row says of its samples: median in ms, its 95 % interval, and the spread of the samples behind it."""

    median_ms: float
    ci_low_ms: float
    ci_high_ms: float
    p20_ms: float
    p80_ms: float
    min_ms: float
    n: int
    outliers: int

    @property
    def half_width(self) -> float:
        """Half of the interval over the median."""
        return (self.ci_high_ms - self.ci_low_ms) / 2 / self.median_ms if self.median_ms else 0.0


def summarize(samples_ms: Sequence[float] | Array) -> Summary:
    """Median and interval of samples in the order in which they were taken. Needs at least one.

    Interval: order statistics k+1 and n-k, k = n/2 - q/2 sqrt(n tau): the normal approximation of the binomial count
    below the median, with tau the variance inflation of a first-order autoregressive series and q Student's 97.5 %
    quantile for n / tau effective samples.
    Outliers are counted, never dropped: those beyond 1.5 interquartile ranges from the quartiles (Tukey).
    """
    x = np.asarray(samples_ms, dtype=np.float64)
    n, ordered, tau = len(x), np.sort(x), inflation(x)
    k = max(0, floor(n / 2 - float(stdtrit(_freedom(n, tau), 0.975)) / 2 * sqrt(n * tau)))
    p20, q1, q3, p80 = (float(v) for v in np.percentile(ordered, (20, 25, 75, 80)))
    reach = 1.5 * (q3 - q1)
    outliers = int(np.count_nonzero((x < q1 - reach) | (x > q3 + reach)))
    ends = float(ordered[k]), float(ordered[n - k - 1])
    return Summary(float(np.median(ordered)), *ends, p20, p80, float(ordered[0]), n, outliers)


def inflation(samples: Sequence[float] | Array) -> float:
    """tau = (1 + r) / (1 - r), by which correlation between neighbours inflates a variance; 1 to 39.

    Needs at least one sample. r is recovered from the lag-1 autocorrelation of the signs about the median by the
    arcsine law, so that outliers do not hide it. A short series underestimates a correlation rho by (1 + 3 rho) / n
    (Kendall, 1954), which is added back.
    """
    x = np.asarray(samples, dtype=np.float64)
    ordered = np.sort(x)
    signs = np.sign(x - (ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2)  # np.median takes ten times as long
    power = float(np.dot(signs, signs))
    if len(signs) < 2 or power == 0:
        return 1.0
    lag1 = float(np.dot(signs[1:], signs[:-1])) / power
    lag1 = min(lag1 + (1 + 3 * max(lag1, 0.0)) / len(signs), 1.0)
    r = min(max(sin(pi / 2 * lag1), 0.0), 0.95)
    return (1 + r) / (1 - r)


def _freedom(n: int, tau: float) -> float:
    """Degrees of freedom of n samples that are worth n / tau independent ones; at least one."""
    return max(n / tau - 1, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; low and high are None where the samples are too few to carry one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float | None:
        """The larger side of the interval, so that value +- half covers all of it."""
        if self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low, 0.0)

    def within(self, part: float) -> bool:
        """Whether half of the interval is at most this part of the value, which is above zero; False without one."""
        return self.low is not None and self.high is not None and self.high - self.low <= 2 * part * self.value

    def times(self, by: float) -> "Estimate":
        """In another unit; `by` is above zero."""
        low, high = (None if v is None else v * by for v in (self.low, self.high))
        return Estimate(self.value * by, low, high)

    def inverse(self) -> "Estimate":
        """Of a value above zero: the ends of the interval change places."""
        low, high = (1 / v if v else None for v in (self.high, self.low))
        return Estimate(1 / self.value, low, high)


@dataclass(frozen=True)
class Measured:
    """A median, or what was made of several, with draws of where the truth lies: sums, differences and ratios of such
    take theirs draw by draw. `draws` is None where the samples carry no interval. `processes`: how many measured it."""

    value: float
    draws: Array | None = field(default=None, repr=False, compare=False)
    processes: int = 1

    def __add__(self, other: "Measured") -> "Measured":
        return self._with(other, np.add)

    def __sub__(self, other: "Measured") -> "Measured":
        return self._with(other, np.subtract)

    def __truediv__(self, other: "Measured") -> "Measured":
        return self._with(other, np.divide)

    def _with(self, other: "Measured", operation: np.ufunc) -> "Measured":
        draws = None if self.draws is None or other.draws is None else operation(self.draws, other.draws)
        return Measured(float(operation(self.value, other.value)), draws, min(self.processes, other.processes))

    @property
    def estimate(self) -> Estimate:
        """The value with the central 95 % of its draws."""
        if self.draws is None:
            return Estimate(self.value)
        low, high = _ends(self.draws)
        return Estimate(self.value, min(low, self.value), max(high, self.value))

    @property
    def scope(self) -> str:
        """What the interval speaks for."""
        return f"across {self.processes} processes" if self.processes >= MIN_PROCESSES else "within process"


def _ends(draws: Array) -> list[float]:
    """np.percentile(draws, LEVEL), to the last digit and in a quarter of its time."""
    places = [(len(draws) - 1) * (percent / 100) for percent in LEVEL]
    pairs = [(floor(place), min(floor(place) + 1, len(draws) - 1)) for place in places]
    ordered = np.partition(draws, [k for pair in pairs for k in pair])
    found = []
    for place, (one, other) in zip(places, pairs, strict=True):
        low, high, part = float(ordered[one]), float(ordered[other]), place - one
        found.append(high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part)
    return found


def generator(*key: object) -> np.random.Generator:
    """Random numbers that follow from what they are drawn for, so that drawing a report again gives the same digits."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, key)).encode()))


def median_draws(samples: Sequence[float] | Array, rng: np.random.Generator) -> Array | None:
    """Draws of where the true median lies, from samples in the order they were taken; None for too few of them.

    A true median has n/2 samples below it, give or take q/2 sqrt(n tau): draw q from Student's distribution, read off
    the sample at that rank. The central 95 % are then the interval of `summarize`, so that ratios are neither bolder
    nor shyer than the times they come from. Plain resampling takes drifting samples for independent ones.
    """
    x = np.asarray(samples, dtype=np.float64)
    n = len(x)
    if n < MIN_SAMPLES:
        return None
    # Evenly spread over the distribution and then shuffled: the ends do not depend on luck, only the pairing does.
    drawn: Array = np.sort(x)[rng.permutation(_ranks(n, inflation(x)))]
    return drawn


@lru_cache(256)  # series of one length have few such tau
def _ranks(n: int, tau: float) -> NDArray[np.int64]:
    """Which of n sorted samples each of DRAWS quantiles reads: n/2 + q/2 sqrt(n tau), rounded away from the middle.

    Student's distribution is asked where a rank ends, which takes a tenth of the time that its quantiles take.
    """
    freedom, scale = _freedom(n, tau), sqrt(n * tau) / 2
    below = (np.arange(DRAWS // 2) + 0.5) / DRAWS
    first = max(1, floor(n / 2 + float(stdtrit(freedom, below[0])) * scale))
    ends = stdtr(freedom, (np.arange(first, n // 2 + 1) - n / 2) / scale)
    lower = first - 1 + np.searchsorted(ends, below, side="right")
    return np.concatenate([lower, n - 1 - lower[::-1]])


def interval_draws(value: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """Draws around a median of which only the interval is known: a normal curve with a width of its own each side."""
    z = rng.standard_normal(DRAWS)
    return value + z * np.where(z > 0, max(high - value, 0.0), max(value - low, 0.0)) / 1.96


def process_draws(medians: Sequence[float] | Array, rng: np.random.Generator) -> Array:
    """Bootstrap draws over whole processes: the median of resampled per-process medians.

    The median, not the mean: at 5 processes its percentile interval covers the truth in 94 % of the trials.
    """
    x = np.asarray(medians, dtype=np.float64)
    picked: Array = np.median(x[rng.integers(0, len(x), (DRAWS, len(x)))], axis=1)
    return picked


@dataclass(frozen=True)
class Repeat:
    """What one repeat of a case found in one pass and clock: its median, its interval, its samples if they are kept.

    One that took turns with others has further what bench/record/ratios.py makes its ratios of.
    """

    median_ms: float
    low_ms: float | None
    high_ms: float | None
    samples_ms: Sequence[float] = ()
    process: str = ""
    case_id: str = ""
    rounds: Sequence[int] = ()  # of each sample
    turns: str = ""  # the set of rounds; samples of another set have nothing to do with ours
    ratio_to: str = ""  # case_id of the baseline
    ratio: Estimate | None = None  # to the baseline, as its row has it
    ratios: Sequence[float] = ()  # to the baseline, by round
    between: float = 0.0  # as ratio_estimate has it


def measured(repeats: Sequence[Repeat], rng: np.random.Generator) -> tuple[Measured, Estimate]:
    """The time of a case over its repeats, at least one, and its interval, in ms.

    From MIN_PROCESSES processes on, processes are resampled; below, the draws of each repeat are averaged by their
    median. A repeat that stands alone keeps the interval of its row.
    """
    processes = len({r.process or str(i) for i, r in enumerate(repeats)})
    medians = [r.median_ms for r in repeats]
    if processes >= MIN_PROCESSES:
        draws: Array | None = process_draws(medians, rng)
    else:
        drawn = [_repeat_draws(r, rng) for r in repeats]
        known = [d for d in drawn if d is not None]
        draws = None
        if len(known) == len(repeats):
            draws = known[0] if len(known) == 1 else np.median(np.stack(known), axis=0)
    found = Measured(float(median(medians)), draws, processes)
    first = repeats[0]
    if len(repeats) == 1 and draws is not None and first.low_ms is not None and first.high_ms is not None:
        return found, Estimate(found.value, first.low_ms, first.high_ms)
    return found, found.estimate


def ratios_by_round(
    samples: Sequence[float], rounds: Sequence[int], base: Sequence[float], base_rounds: Sequence[int]
) -> list[float]:
    """Median of a case's samples over the median of the baseline's, for each round that both have, in their order.

    rounds: the round of each sample. What changes from round to round, as a machine's speed does, is in both.
    """
    ours, theirs = _medians(samples, rounds), _medians(base, base_rounds)
    return [ours[r] / theirs[r] for r in ours if theirs.get(r)]


def _medians(samples: Sequence[float], rounds: Sequence[int]) -> dict[int, float]:
    blocks: dict[int, list[float]] = {}
    for sample, r in zip(samples, rounds, strict=True):
        blocks.setdefault(r, []).append(sample)
    return {r: float(np.median(block)) for r, block in blocks.items()}


def ratio_estimate(ratios: Sequence[float], between: float = 0.0) -> Estimate:
    """The ratio over rounds, at least one, and its 95 % interval: that of the median of the series, whose neighbours
    may be correlated, and in squares the standard deviation between starts, over the ratio, which no round sees. No
    interval below MIN_SAMPLES rounds."""
    found = summarize(ratios)
    if found.n < MIN_SAMPLES:
        return Estimate(found.median_ms)
    middle, more = found.median_ms, 1.96 * between * found.median_ms
    return Estimate(
        middle, middle - hypot(middle - found.ci_low_ms, more), middle + hypot(found.ci_high_ms - middle, more)
    )


def _repeat_draws(repeat: Repeat, rng: np.random.Generator) -> Array | None:
    if repeat.samples_ms:
        return median_draws(repeat.samples_ms, rng)
    if repeat.low_ms is None or repeat.high_ms is None:
        return None
    return interval_draws(repeat.median_ms, repeat.low_ms, repeat.high_ms, rng)
