"""Straight lines through times: what they find, and that their intervals cover it."""

import numpy as np
import pytest
from scipy.special import stdtrit

from plots.data.length_fit import straight_line


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


@pytest.mark.parametrize("points", [3, 5, 9])
def test_it_equals_the_normal_equations_of_relative_errors(points: int) -> None:
    rng = np.random.default_rng(points)
    x = np.sort(rng.uniform(100, 10_000, points))
    y = (rng.uniform(0, 50) + rng.uniform(0, 0.1) * x) * (1 + 0.05 * rng.standard_normal(points))
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ np.ones_like(y)
    residual = 1 - design @ beta
    half = np.sqrt(np.diag(inverse) * (residual @ residual) / (points - 2)) * stdtrit(points - 2, 0.975)
    line = straight_line(list(x), list(y))
    assert line is not None and line.worst == pytest.approx(np.max(np.abs(residual)))
    for found, value, wide in zip((line.fixed_ms, line.slope_ms), beta, half, strict=True):
        assert (found.value, found.low, found.high) == pytest.approx((value, value - wide, value + wide), rel=1e-6)


def test_two_lengths_are_no_line() -> None:
    assert straight_line([512.0, 512.0, 1024.0], [1.0, 1.1, 2.0]) is None
