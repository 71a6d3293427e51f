"""Ratios of one case's time over another's, against numbers worked out here from the same samples."""

from typing import Any

import numpy as np
import pytest

from bench.record.ratios import ratio_of, with_ratios
from bench.record.stats import Estimate, Measured, Repeat
from tests.synthetic import case, sampled

ROUNDS, BLOCK = 20, 3
UNPAIRED = Measured(9.0)  # what comes out where nothing took turns


def drifted(truth: float, speed: np.ndarray, seed: int, noise: float = 0.01) -> np.ndarray:
    """Samples round by round, BLOCK to a round, of a machine whose speed differs from round to round."""
    return truth * np.repeat(speed, BLOCK) * (1 + noise * np.random.default_rng(seed).standard_normal(ROUNDS * BLOCK))


def over_rounds(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.median(ours.reshape(-1, BLOCK), axis=1) / np.median(theirs.reshape(-1, BLOCK), axis=1)


def repeat(x: np.ndarray, case_id: str, turns: str = "t", process: str = "1", **more: Any) -> Repeat:
    rounds = tuple(int(i) for i in np.repeat(np.arange(len(x) // BLOCK), BLOCK))
    return Repeat(float(np.median(x)), None, None, tuple(x), process, case_id, rounds, turns, **more)


SPEED = 1 + np.abs(np.random.default_rng(1).standard_normal(ROUNDS))
X, BASE = drifted(1.3, SPEED, 2), drifted(1.0, SPEED, 3)


def test_cases_that_took_turns_are_compared_round_by_round() -> None:
    found, estimate = ratio_of([repeat(X, "a")], [repeat(BASE, "b")], UNPAIRED)
    series = np.sort(over_rounds(X, BASE))
    assert found.value == estimate.value == pytest.approx(np.median(series))
    assert estimate.value == pytest.approx(1.3, rel=0.01), "although the speed doubles and trebles between rounds"
    assert estimate.low in series and estimate.high in series and estimate.within(0.02)
    assert found.scope == "within process"


@pytest.mark.parametrize(
    "other",
    [repeat(BASE, "b", "another set"), repeat(BASE, "b", ""), Repeat(1.0, None, None, tuple(BASE), "1", "b", (), "t")],
)
def test_samples_of_different_turns_are_no_pairs(other: Repeat) -> None:
    assert ratio_of([repeat(X, "a")], [other], UNPAIRED)[0].value == 9.0
    assert ratio_of([repeat(X, "a", "")], [repeat(BASE, "b", "")], UNPAIRED)[0].value == 9.0


def test_the_recorded_series_goes_before_pairs_and_the_rows_own_interval_before_both() -> None:
    series = tuple(np.linspace(1.9, 2.1, 11))
    told = {"ratio_to": "b", "ratios": series}
    found, estimate = ratio_of([repeat(X, "a", **told)], [repeat(BASE, "b")], UNPAIRED)
    assert found.value == pytest.approx(2.0) and 1.9 <= estimate.low < 2.0 < estimate.high <= 2.1
    own = Estimate(2.02, 1.5, 2.6)
    found, estimate = ratio_of([repeat(X, "a", **told, ratio=own)], [repeat(BASE, "b")], UNPAIRED)
    assert estimate == own and found.draws is not None
    assert ratio_of([repeat(X, "a", **told, ratio=own)], [repeat(BASE, "c", "")], UNPAIRED)[0].value == 9.0, (
        "a series to another case says nothing of this one"
    )
    alone = Repeat(1.0, 0.9, 1.1, (), "1", "a", ratio_to="b", ratio=own)  # as rows.csv has it
    found, estimate = ratio_of([alone], [Repeat(0.5, 0.4, 0.6, (), "1", "b")], UNPAIRED)
    assert estimate == own
    assert np.percentile(found.draws, (2.5, 97.5)) == pytest.approx([1.5, 2.6], abs=0.06)


def test_too_few_rounds_give_a_ratio_without_interval() -> None:
    short = [repeat(x[: 4 * BLOCK], name) for x, name in ((X, "a"), (BASE, "b"))]
    found, estimate = ratio_of(short[:1], short[1:], UNPAIRED)
    assert estimate == Estimate(found.value) and not estimate.within(0.2)
    assert found.value == pytest.approx(np.median(over_rounds(X, BASE)[:4]))


def test_several_repeats_are_combined_as_times_are() -> None:
    """Below five processes by the median of their draws, from then on by what differs between them."""
    truths = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
    pairs = [(drifted(t, SPEED, 2 * i), drifted(1.0, SPEED, 2 * i + 1)) for i, t in enumerate(truths)]
    ours = [repeat(x, "a", f"t{i}", str(i)) for i, (x, _) in enumerate(pairs)]
    theirs = [repeat(y, "b", f"t{i}", str(i)) for i, (_, y) in enumerate(pairs)]
    middles = np.array([np.median(over_rounds(x, y)) for x, y in pairs])
    found, estimate = ratio_of(ours, theirs, UNPAIRED, "forward")
    assert found.scope == "across 7 processes" and found.value == pytest.approx(np.median(middles))
    picked = np.random.default_rng(0).integers(0, 7, (4000, 7))
    assert [estimate.low, estimate.high] == pytest.approx(
        np.percentile(np.median(middles[picked], axis=1), (2.5, 97.5)), abs=0.11
    )
    few, narrow = ratio_of(ours[:3], theirs, UNPAIRED, "forward")
    assert few.scope == "within process" and few.value == pytest.approx(np.median(middles[:3]))
    assert narrow.within(0.05) and not estimate.within(0.05), "one process does not know how others differ"
    again, _ = ratio_of(ours, theirs, UNPAIRED, "forward")
    assert np.array_equal(found.draws, again.draws), "the same digits each time"
    assert ratio_of([*ours[:3], repeat(X, "a", "")], theirs, UNPAIRED)[0].value == few.value, (
        "a repeat that was measured apart from the baseline has no ratio of its own"
    )


def record(*given: tuple[Any, int, np.ndarray]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows measured alone and their lines of samples, of (case, repeat, samples)."""
    made = []
    for of, n, x in given:
        row, line = sampled("run", n, 0.0, x)
        same = {"case_id": of.case_id, "process": f"{of.case_id}-{n}"}
        made.append((row | of.axes() | same, line | same))
    return [row for row, _ in made], [line for _, line in made]


def series(truth: float, seed: int, n: int = 80) -> np.ndarray:
    return truth * (1 + 0.02 * np.random.default_rng(seed).standard_normal(n))


FULL, COMPILED = case(), case(impl="compile")
LORA = case(method="lora", rank=8, alpha=16.0, dropout=0.0)


def test_rows_measured_alone_get_the_quotient_of_their_medians() -> None:
    x, base = series(2.6, 1), series(2.0, 2)
    rows, lines = record((LORA, 0, x), (COMPILED, 0, series(1.0, 3)), (FULL, 0, base))
    lora, compiled, full = with_ratios(rows, lines)
    assert lora["ratio"] == pytest.approx(np.median(np.round(x, 6)) / np.median(np.round(base, 6)))
    rng = np.random.default_rng(0)
    drawn = [np.median(v[rng.integers(0, len(v), (3000, len(v)))], axis=1) for v in (x, base)]
    low, high = np.percentile(drawn[0] / drawn[1], (2.5, 97.5))
    assert 0.75 * (high - low) < lora["ratio_high"] - lora["ratio_low"] < 2 * (high - low)
    assert {row["ratio_to"] for row in (lora, compiled, full)} == {FULL.case_id}, "eager is the baseline where it is"
    assert compiled["ratio"] == pytest.approx(0.5, rel=0.02)
    assert [full[name] for name in ("ratio", "ratio_low", "ratio_high")] == [1.0, 1.0, 1.0]
    assert all(row["rounds"] is None for row in (lora, compiled, full))
    assert rows[0]["ratio"] is None, "the record stays as it is"
    assert with_ratios(rows, lines) == [lora, compiled, full]


def test_rows_without_a_baseline_and_rows_that_have_a_ratio_stay_as_they_are() -> None:
    x = series(2.0, 1)
    longer = case(method="lora", rank=8, alpha=16.0, dropout=0.0, seq=64)
    rows, lines = record((FULL, 0, x), (LORA, 1, x), (longer, 0, x), (LORA, 0, x), (LORA, 0, x), (LORA, 0, x))
    rows[3] |= {"clock": "graph"}
    rows[4] |= {"status": "oom", "median_ms": None, "pass": "backward"}
    rows[5] |= {"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "ratio_to": "b", "rounds": 8}
    assert with_ratios(rows, lines)[1:] == rows[1:], "another repeat, length or clock; no time; its rounds' own"
    rows[0] |= {"status": "oom", "median_ms": None}
    old = [{name: value for name, value in row.items() if not name.startswith("ratio")} for row in rows[:2]]
    assert with_ratios(old, []) == old, "rows of before there were such columns"


def test_samples_of_an_earlier_run_are_not_taken() -> None:
    rows, lines = record((LORA, 0, series(2.6, 1)), (FULL, 0, series(2.0, 2)))
    stale = [line | {"run_id": "earlier", "samples_ms": [1.0, 50.0] * 40} for line in lines]
    assert with_ratios(rows, [*stale, *lines]) == with_ratios(rows, lines)
    found = with_ratios(rows, stale)[0]
    assert found["ratio"] == with_ratios(rows, lines)[0]["ratio"] and found["ratio_high"] < 1.1 * found["ratio"]
