"""What may be said of two groups of processes: every verdict, interleaving, the interval."""

from collections.abc import Sequence

import pytest

from bench.compare.verdict import Process, Verdict, interval, judge, smallest_change
from tests.compare.runs import CALM, WILD, processes, scaled, turns
from tests.synthetic import abba


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        (scaled(1.03), Verdict.SLOWER),
        (scaled(0.97), Verdict.FASTER),
        (scaled(1.001), Verdict.SAME),
        (CALM, Verdict.SAME),
        (scaled(1.0085), Verdict.UNCLEAR),  # the interval excludes 1, but the change is below 1 %
        (WILD, Verdict.UNCLEAR),
        (scaled(1.03, WILD), Verdict.UNCLEAR),
    ],
)
def test_verdicts(b: Sequence[float], verdict: Verdict) -> None:
    o = judge(*turns(CALM, b))
    assert (o.verdict, o.why) == (verdict, "")
    assert o.low is not None and o.high is not None and o.low <= o.ratio <= o.high
    assert o.ratio == pytest.approx(sorted(b)[2] / 2.0), "the ratio of the medians"


@pytest.mark.parametrize(
    ("clock", "b", "verdict"),
    [
        ("eager", 1.015, Verdict.SLOWER), ("cpu-time", 1.015, Verdict.SAME), ("cpu", 0.985, Verdict.SAME),
        ("cpu-time", 1.03, Verdict.SLOWER), ("cpu-time", 0.97, Verdict.FASTER), ("one of old", 1.015, Verdict.SLOWER),
    ],
)  # fmt: skip
def test_what_a_change_must_come_to(clock: str, b: float, verdict: Verdict) -> None:
    assert judge(*turns(CALM, scaled(b)), smallest_change(clock)).verdict is verdict


def test_the_verdict_turns_around_with_the_sides() -> None:
    a, b = turns(CALM, scaled(1.05))
    forth, back = judge(a, b), judge(b, a)
    assert (forth.verdict, back.verdict) == (Verdict.SLOWER, Verdict.FASTER)
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert judge(a, b) == forth, "the same rows give the same interval"


@pytest.mark.parametrize(
    ("order", "fine"),
    [
        (abba(5), True),
        (abba(6), True),
        ("AB" * 5, True),
        ("BA" * 5, True),
        ("AABBAABBAB", True),
        ("AAAAABBBBB", False),
        ("BBBBBAAAAA", False),
        ("AAABBBBBAA", False),
        (abba(5) + "B" * 40, False),  # one side measured on alone
    ],
)  # fmt: skip
def test_interleaved_or_not(order: str, fine: bool) -> None:
    a, b = ([2.0 * by + 0.001 * (i % 5) for i in range(order.count(s))] for s, by in (("A", 1), ("B", 2)))
    o = judge(*turns(a, b, order))
    assert o.ratio == pytest.approx(2, rel=0.01), "the ratio is given in any case"
    if fine:
        assert (o.verdict, o.why) == (Verdict.SLOWER, "")
    else:
        assert (o.verdict, o.cell) == (Verdict.UNCLEAR, "UNCLEAR (not interleaved)")
        assert o.low is None, "an interval would not hold the drift between them"


def test_unknown_times_are_not_interleaved() -> None:
    a, b = turns(CALM, scaled(1.05))
    b[2] = Process("b2", 2, 2.1, None)
    assert judge(a, b).cell == "UNCLEAR (not interleaved)"


@pytest.mark.parametrize(("n", "said"), [((4, 4), "4 of 5"), ((5, 3), "5 and 3 of 5"), ((1, 1), "1 of 5")])
def test_too_few_processes_give_a_ratio_and_no_verdict(n: tuple[int, int], said: str) -> None:
    o = judge(processes("a", range(n[0]), CALM[: n[0]]), processes("b", range(n[1]), scaled(1.5)[: n[1]]))
    assert o.verdict is None and o.low is None
    assert o.cell == f"no verdict ({said} processes a side)"
    assert o.ratio == pytest.approx(1.5, rel=0.01)


def test_a_drift_under_both_is_taken_out() -> None:
    """5 % from first to last: without that the interval would be as wide as the drift."""
    drift = [1 + 0.05 * i / 9 for i in range(10)]
    places = ([i for i, side in enumerate(abba(5)) if side == s] for s in "AB")
    a, b = ([ms * drift[i] for ms, i in zip(CALM, at, strict=True)] for at in places)
    o = judge(*turns(a, b))
    assert o.verdict is Verdict.SAME and o.low is not None and o.low > 0.99


def test_the_interval_is_the_bootstrap_of_scipy_where_nothing_drifts() -> None:
    import numpy as np
    from scipy.stats import bootstrap

    rng = np.random.default_rng(8)
    x, y = (2 * by * (1 + 0.01 * rng.standard_normal(12)) for by in (1.0, 1.02))
    # The same values forth and back in time: the fitted line is flat.
    a, b = turns([*x, *x[::-1]], [*y, *y[::-1]], "AB" * 12 + "BA" * 12)
    order = np.array([[0, 1] * 12 + [1, 0] * 12, [i // 2 for i in range(48)]], dtype=np.float64)
    low, high = interval(a, b, order)
    theirs = bootstrap(
        ([p.median_ms for p in a], [p.median_ms for p in b]),
        lambda a, b, axis: np.median(b, axis=axis) / np.median(a, axis=axis),
        n_resamples=9999, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.0015)
