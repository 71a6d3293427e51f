"""Intervals cover what they promise, in simulated trials with a known truth."""

import numpy as np
import pytest
import scipy.stats

from bench.record.stats import (
    DRAWS,
    MIN_SAMPLES,
    Estimate,
    Measured,
    Repeat,
    inflation,
    interval_draws,
    measured,
    median_draws,
    process_draws,
    ratio_estimate,
    summarize,
)


def drifting(rng: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    """An autoregressive series with median 0 and unit variance."""
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.standard_normal()
    return x


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_ratio_interval_covers_the_truth(correlation: float) -> None:
    rng, trials, hits = np.random.default_rng(1), 300, 0
    for _ in range(trials):
        top, bottom = (truth * (1 + 0.02 * drifting(rng, 60, correlation)) for truth in (13.0, 10.0))
        above, below = median_draws(top, rng), median_draws(bottom, rng)
        assert above is not None and below is not None
        found = (Measured(float(np.median(top)), above) / Measured(float(np.median(bottom)), below)).estimate
        assert found.low is not None and found.high is not None
        hits += found.low <= 1.3 <= found.high
    assert 0.9 <= hits / trials <= 0.999


def test_what_starts_differ_by_is_in_the_interval_where_it_is_known() -> None:
    """Each start has a ratio of its own, around which its rounds scatter."""
    rng = np.random.default_rng(8)
    known, unknown = 0, 0
    for _ in range(400):
        series = 0.7 * (1 + 0.004 * rng.standard_normal() + 0.005 * rng.standard_normal(32))
        found, narrow = ratio_estimate(series, between=0.004), ratio_estimate(series)
        assert found.value == narrow.value and found.low < narrow.low <= narrow.high < found.high
        known += found.low <= 0.7 <= found.high
        unknown += narrow.low <= 0.7 <= narrow.high
    assert known / 400 >= 0.93 and unknown / 400 < 0.8
    assert ratio_estimate(series[: MIN_SAMPLES - 1], between=0.004).low is None


def test_interval_across_five_processes_covers_the_truth() -> None:
    rng, trials, hits = np.random.default_rng(2), 300, 0
    for _ in range(trials):
        above, below = (truth * (1 + 0.01 * rng.standard_normal(5)) for truth in (13.0, 10.0))
        top, bottom = (Measured(float(np.median(x)), process_draws(x, rng)) for x in (above, below))
        found = (top / bottom).estimate
        assert found.low is not None and found.high is not None
        hits += found.low <= 1.3 <= found.high
    assert hits / trials >= 0.9


def test_drift_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    calm, drift = rng.standard_normal(400), drifting(rng, 400, 0.9)
    assert inflation(calm) < 1.5 < 4 < inflation(drift)
    narrow, wide = median_draws(calm, rng), median_draws(drift, rng)
    assert narrow is not None and wide is not None
    assert np.std(wide) > 2 * np.std(narrow)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [6, 16, 24, 75, 400])
def test_the_draws_have_the_interval_that_a_row_states(n: int, correlation: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng((n, seed))
        x = 10 + drifting(rng, n, correlation)
        row, found = summarize(x), Measured(float(np.median(x)), median_draws(x, rng)).estimate
        ordered = [*np.sort(x)]
        low, high = ordered.index(row.ci_low_ms), ordered.index(row.ci_high_ms)
        assert found.value == row.median_ms
        # A percentile of finitely many draws may lie between two samples, or at the next one.
        assert ordered[max(low - 1, 0)] <= found.low <= ordered[min(low + 1, n - 1)]
        assert ordered[max(high - 1, 0)] <= found.high <= ordered[min(high + 1, n - 1)]


@pytest.mark.parametrize("freedom", [1, 3, 10, 100])
def test_student_is_used_for_few_samples(freedom: int) -> None:
    """Independent samples, n - 1 degrees of freedom: the ranks are those of Student's quantile, from SciPy's own."""
    n = freedom + 1
    x = np.tile([1.0, 3.0, 2.0, 4.0], n)[:n] + np.arange(n) * 1e-9
    found, tau = summarize(x), inflation(x)
    q = scipy.stats.t.ppf(0.975, max(n / tau - 1, 1))
    k = max(0, int(np.floor(n / 2 - q / 2 * np.sqrt(n * tau))))
    assert (found.ci_low_ms, found.ci_high_ms) == (np.sort(x)[k], np.sort(x)[n - k - 1])


def test_one_repeat_keeps_the_interval_of_its_row_and_five_processes_get_one_of_their_own() -> None:
    rng = np.random.default_rng(8)
    series = [10 + 0.1 * rng.standard_normal(40) + 0.5 * i for i in range(5)]
    rows = [summarize(x) for x in series]
    repeats = [
        Repeat(r.median_ms, r.ci_low_ms, r.ci_high_ms, tuple(x), str(i))
        for i, (r, x) in enumerate(zip(rows, series, strict=True))
    ]
    alone, estimate = measured(repeats[:1], np.random.default_rng(0))
    assert estimate == Estimate(rows[0].median_ms, rows[0].ci_low_ms, rows[0].ci_high_ms)
    assert alone.scope == "within process"
    many, across = measured(repeats, np.random.default_rng(0))
    assert many.scope == "across 5 processes"
    assert across.low < rows[1].median_ms and across.high > rows[3].median_ms, "the spread between processes is in it"
    again, _ = measured(repeats, np.random.default_rng(0))
    assert np.array_equal(many.draws, again.draws), "the same digits each time"


def test_sums_and_differences_of_equal_series_are_exact_in_value_and_wide_enough() -> None:
    rng = np.random.default_rng(9)
    a, b = (Measured(m, median_draws(m + 0.1 * rng.standard_normal(200), rng)) for m in (10.0, 4.0))
    assert ((a - b).value, (a + b).value, (a / b).value) == (6.0, 14.0, 2.5)
    both = (a - b).estimate
    single = a.estimate
    assert both.high - both.low > single.high - single.low
    assert (a / Measured(4.0)).estimate == Estimate(2.5), "no interval where either side has none"


def test_the_draws_equal_a_plain_bootstrap_of_many_independent_samples() -> None:
    rng = np.random.default_rng(4)
    x = rng.gamma(3, 1, 2000)
    plain = np.median(x[rng.integers(0, len(x), (1500, len(x)))], axis=1)
    drawn = median_draws(x, rng)
    assert drawn is not None
    widths = [float(np.subtract(*np.percentile(draws, (97.5, 2.5)))) for draws in (drawn, plain)]
    assert 0.85 < widths[0] / widths[1] < 1.3
    assert np.median(drawn) == pytest.approx(np.median(plain), rel=0.01)


def test_too_few_samples_carry_no_interval() -> None:
    assert median_draws([1.0] * (MIN_SAMPLES - 1), np.random.default_rng(0)) is None
    assert Measured(1.0, None).estimate.half is None


def test_draws_from_an_interval_have_that_interval() -> None:
    found = Measured(10.0, interval_draws(10.0, 9.8, 10.5, np.random.default_rng(5))).estimate
    assert found.low == pytest.approx(9.8, abs=0.03)
    assert found.high == pytest.approx(10.5, abs=0.05)


def test_a_rate_has_the_ends_of_its_time_the_other_way_round() -> None:
    assert Estimate(2.0, 1.0, 4.0).inverse().times(8.0) == Estimate(4.0, 2.0, 8.0)
    assert Estimate(2.0).inverse() == Estimate(0.5)


@pytest.mark.parametrize("n", [6, 7, 24, 100, 1001])
@pytest.mark.parametrize("correlated", [False, True])
def test_draws_of_a_median_read_students_quantiles(n: int, correlated: bool) -> None:
    """By the quantiles themselves, one for each draw."""
    x = np.random.default_rng(n).standard_normal(n)
    x = np.cumsum(x) if correlated else x
    tau = inflation(x)
    rank = n / 2 + scipy.stats.t.ppf((np.arange(DRAWS) + 0.5) / DRAWS, max(n / tau - 1, 1)) * np.sqrt(n * tau) / 2
    outward = np.where(rank < n / 2, np.floor(rank), np.ceil(rank) - 1).clip(0, n - 1).astype(int)
    drawn = median_draws(x, np.random.default_rng(0))
    assert drawn is not None and np.array_equal(np.sort(drawn), np.sort(x)[outward])
