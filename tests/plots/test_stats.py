"""Intervals cover what they promise, in simulated trials with a known truth."""

import numpy as np
import pytest

from plots.data.length_fit import (
    MIN_SAMPLES,
    Estimate,
    draws_from_interval,
    inflation,
    interval,
    median_draws,
    process_draws,
    straight_line,
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
        found = interval(float(np.median(top) / np.median(bottom)), above / below)
        assert found.low is not None and found.high is not None
        hits += found.low <= 1.3 <= found.high
    assert 0.9 <= hits / trials <= 0.999


def test_interval_across_five_processes_covers_the_truth() -> None:
    rng, trials, hits = np.random.default_rng(2), 300, 0
    for _ in range(trials):
        above, below = (truth * (1 + 0.01 * rng.standard_normal(5)) for truth in (13.0, 10.0))
        draws = process_draws(above, rng) / process_draws(below, rng)
        found = interval(float(np.median(above) / np.median(below)), draws)
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


@pytest.mark.parametrize("n", [6, 16, 75])
def test_the_draws_have_the_interval_that_a_row_states(n: int) -> None:
    rng = np.random.default_rng(n)
    x = drifting(rng, n, 0.3)
    k = max(0, int(np.floor(n / 2 - 0.98 * np.sqrt(n * inflation(x)))))
    ordered, found = np.sort(x), interval(float(np.median(x)), median_draws(x, rng))
    assert found.low in ordered[max(k - 1, 0) : k + 2]  # the draws are random: one sample up or down
    assert found.high in ordered[max(n - k - 2, 0) : n - k + 1]


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
    found = interval(1.0, None)
    assert found.half is None


def test_draws_from_an_interval_have_that_interval() -> None:
    found = interval(10.0, draws_from_interval(10.0, 9.8, 10.5, np.random.default_rng(5)))
    assert found.low == pytest.approx(9.8, abs=0.03)
    assert found.high == pytest.approx(10.5, abs=0.05)


def test_a_straight_line_is_found_and_its_interval_covers() -> None:
    tokens, rng, hits = [256.0, 512.0, 1024.0, 2048.0, 4096.0], np.random.default_rng(6), 0
    for _ in range(200):
        times = [(5 + 0.02 * t) * (1 + 0.01 * rng.standard_normal()) for t in tokens]
        line = straight_line(tokens, times)
        assert line is not None and line.points == 5
        low, high = line.fixed_ms.low, line.fixed_ms.high
        assert low is not None and high is not None
        hits += low <= 5 <= high
    assert 0.9 <= hits / 200 <= 1.0


def test_two_lengths_are_no_line() -> None:
    assert straight_line([512.0, 512.0, 1024.0], [1.0, 1.1, 2.0]) is None


def test_a_rate_has_the_ends_of_its_time_the_other_way_round() -> None:
    assert Estimate(2.0, 1.0, 4.0).inverse().times(8.0) == Estimate(4.0, 2.0, 8.0)
    assert Estimate(2.0).inverse() == Estimate(0.5)
