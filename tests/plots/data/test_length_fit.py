"""Fits through times: what they find, and that their intervals cover it."""

from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

from plots.data.length_fit import fit_line
from tests.plots.reading import cells_of, draw_tables, value

LENGTHS = [128, 256, 384, 512, 768, 1024]


@pytest.mark.parametrize(("square", "lengths"), [(0.0, LENGTHS[:3]), (2e-5, LENGTHS), (0.0, LENGTHS)])
def test_planted_parameters_are_found_and_intervals_cover_them(square: float, lengths: list[int]) -> None:
    """Three lengths: a straight line alone. Six: with attention's term and, planted at its limit of 0, without."""
    rng, batch = np.random.default_rng(6), 4
    truth, hits, limit = {"fixed_ms": 5.0, "slope_ms": 0.02, "square_ms": square}, dict.fromkeys(range(3), 0), 0
    for _ in range(200):
        times = [(5 + batch * s * (0.02 + square * s)) * (1 + 0.01 * rng.standard_normal()) for s in lengths]
        line = fit_line(batch, lengths, times)
        assert line is not None and line.points == len(lengths)
        assert (line.square_ms is None) == (len(lengths) < 4)
        limit += line.square_ms is not None and line.square_ms.low is None
        for i, (name, true) in enumerate(truth.items()):
            found = getattr(line, name)
            hits[i] += found is None or found.low is None or found.low <= true <= found.high
    assert all(0.9 <= n / 200 <= 1.0 for n in hits.values()), hits
    assert (limit == 0) if square or len(lengths) < 4 else (60 < limit < 140), "about half of the noise is below 0"


@pytest.mark.parametrize(("points", "degree"), [(3, 1), (5, 2), (9, 2)])
def test_it_equals_the_normal_equations_of_relative_errors(points: int, degree: int) -> None:
    rng, batch = np.random.default_rng(points), 3
    s = np.sort(rng.uniform(100, 5_000, points))
    y = (rng.uniform(0, 50) + rng.uniform(0, 0.1) * batch * s + 1e-4 * batch * s**2) * (
        1 + 0.01 * rng.standard_normal(points)
    )
    design = np.stack([np.ones_like(s), batch * s, batch * s**2][: degree + 1], axis=1) / y[:, None]
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ np.ones_like(y)
    residual = 1 - design @ beta
    freedom = points - degree - 1
    half = np.sqrt(np.diag(inverse) * (residual @ residual) / freedom) * stdtrit(freedom, 0.975)
    line = fit_line(batch, list(s), list(y))
    assert line is not None and line.worst == pytest.approx(np.max(np.abs(residual)))
    assert line.at(batch, s) == pytest.approx(y * (1 - residual))
    for found, b, wide in zip((line.fixed_ms, line.slope_ms, line.square_ms), beta, half, strict=False):
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((b, b - wide, b + wide), rel=1e-5)


def test_below_its_limit_the_square_term_leaves_a_straight_line() -> None:
    times = [5 + 0.02 * s - 2e-6 * s**2 for s in LENGTHS]
    line = fit_line(1, LENGTHS, times)
    slope, fixed = np.polyfit(LENGTHS, times, 1, w=1 / np.asarray(times))
    assert line is not None and line.square_ms is not None and line.square_ms.value == 0
    assert (line.fixed_ms.value, line.slope_ms.value) == pytest.approx((fixed, slope))


def test_two_lengths_are_no_line() -> None:
    assert fit_line(1, [512.0, 512.0, 1024.0], [1.0, 1.1, 2.0]) is None


def test_the_papers_two_points_and_the_square_term_stand_beside(maker: Any, make_case: Any) -> None:
    for method, impl in (("full", "eager"), ("lora", "eager"), ("lora", "triton")):
        for s in LENGTHS if impl == "eager" else LENGTHS[:2]:
            ms = 5 + 4 * s * (0.03 + 2e-5 * s)
            maker.timed(make_case(method, impl, seq=s), {"forward": ms, "backward": 2 * ms}, noise=0.0002)
    draw_tables(maker)
    text = (maker.path / "report.md").read_text()
    cells = cells_of(text, "gpt2-xl", "4", "LoRA eager", "backward")
    assert value(cells["Square (ns)"]) == pytest.approx(2 * 20, rel=0.05)
    assert value(cells["Slope (us a token)"]) == pytest.approx(60, rel=0.02)
    slope = (246.82 - 124.34) / 2048  # results/paper/table1.csv: LoRA's backward at 4 x 512 and 4 x 1024
    assert float(cells["The paper's line, slope (us a token)"]) == pytest.approx(1e3 * slope, abs=0.05)
    assert float(cells["The paper's line, fixed (ms)"]) == pytest.approx(124.34 - 2048 * slope, abs=0.05)
    assert "Not fitted, with times at fewer than 3 lengths: gpt2-xl LoRA triton at batch 4." in text


def test_too_few_lengths_are_told_in_a_line(maker: Any, make_case: Any) -> None:
    for s in (128, 256):
        maker.timed(make_case(seq=s), {"forward": 1.0 * s, "backward": 2.0 * s})
    draw_tables(maker)
    text = (maker.path / "report.md").read_text()
    assert "Not fitted: it takes forward and backward times of blocks or whole models at 3 lengths" in text
    assert "here are times at 2 at most" in text
