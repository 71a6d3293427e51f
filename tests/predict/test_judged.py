"""Errors, coverage and the widening of intervals, on made-up predictions."""

import numpy as np
import pytest

from bench.predict.judged import Judged, summary, widening


def judged(predicted: float, measured: float, half: tuple[float, float] = (0.1, 0.2), subject: str = "a") -> Judged:
    low, high = ((predicted * (1 - h), predicted * (1 + h)) for h in half)
    return Judged(subject, predicted, measured, (low, high))


def test_errors_are_of_predicted_over_measured() -> None:
    found = summary([judged(110, 100), judged(70, 100), judged(100, 100), judged(100, 100)])
    assert (found.rows, found.mean, found.median, found.bias) == pytest.approx((4, 0.1, 0.05, -0.05))
    assert found.p95 == pytest.approx(0.27)  # between 0.1 and 0.3, 85 % of the way


def test_an_interval_holds_what_lies_on_its_ends() -> None:
    found = summary([judged(100, 110), judged(100, 90), judged(100, 115), judged(100, 121)])
    assert (found.within_80, found.within_90) == (0.5, 0.75)


def test_intervals_that_are_half_as_wide_as_they_should_be_are_found_out() -> None:
    rng = np.random.default_rng(1)
    # 90 % of a normal distribution lie within 1.645 standard deviations; the interval states half of that.
    rows = [judged(100, 100 * (1 + 0.1 * z), (0.064, 0.082), f"model {i % 20}")
            for i, z in enumerate(rng.standard_normal(4000))]  # fmt: skip
    found = widening(rows)
    assert found is not None and (found.subjects, found.rows) == (20, 4000)
    assert found.factor == pytest.approx(2.0, rel=0.06)
    assert found.held >= 0.9
    again = widening([judged(100, r.measured, (0.128, 0.164), r.subject) for r in rows], already=2.0)
    assert again is not None and (again.factor, again.held) == pytest.approx((found.factor, found.held))


def test_intervals_that_are_wide_enough_stay() -> None:
    found = widening([judged(100, 101, subject=name) for name in "abc" for _ in range(5)])
    assert found is not None and (found.factor, found.held) == (1.0, 1.0)


def test_a_model_unlike_all_others_is_not_held_by_their_factor() -> None:
    rows = [judged(100, 105, subject=name) for name in "abc" for _ in range(10)]
    found = widening([*rows, *[judged(100, 200, subject="odd") for _ in range(10)]])
    assert found is not None and found.held == 0.75


def test_one_model_says_nothing_of_others() -> None:
    assert widening([judged(100, 105), judged(100, 95)]) is None
