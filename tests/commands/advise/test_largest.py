"""The largest size that fits: the search, and tries in processes of their own under a limit of memory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.case import Case
from bench.commands.advise.largest import TRIES, AtLeast, OutOfTime, Tries, largest, largest_of, sized
from bench.devices import cpu_device
from tests.commands.advise.tiny import TINY


@given(st.integers(0, 500), st.integers(1, 300), st.integers(1, 64), st.integers(64, 400))
def test_the_search_finds_the_largest_multiple(limit: int, start: int, grain: int, most: int) -> None:
    asked: list[int] = []

    def fits(n: int) -> bool:
        asked.append(n)
        return n <= limit

    expected = max((n for n in range(grain, most + 1, grain) if n <= limit), default=0)
    assert largest(fits, start, most, grain) == expected
    assert all(0 < n <= most and n % grain == 0 for n in asked) and len(asked) == len({*asked}) <= 20


def test_what_was_found_is_told_where_the_time_is_over() -> None:
    asked: list[int] = []

    def fits(n: int) -> bool:
        asked.append(n)
        if len(asked) > 3:
            raise OutOfTime
        return True

    with pytest.raises(AtLeast) as told:
        largest(fits, 2, 1000)
    assert told.value.value == 8


def case_of(tmp_path: Path) -> Case:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return Case("model", str(path), None, "lora", "eager", "all", 4, 8.0, 0.0, "all-linear", "fp32", "fp32", 1, 128)


@pytest.mark.parametrize(("seq", "limit", "most"), [(128, 10**9, 192), (100, 100, 100), (100, 128, 128), (128, 99, 64)])
def test_the_largest_length_can_be_measured_and_is_none_below_one_that_fits(
    tmp_path: Path, seq: int, limit: int, most: int
) -> None:
    path = tmp_path / "sliding.json"
    path.write_text(json.dumps(TINY | {"model_type": "mistral", "sliding_window": 200}))
    case = sized(replace(case_of(tmp_path), model=str(path)), "seq", seq)
    assert largest_of(case, "seq", lambda sized: sized.seq <= limit) == most
    assert largest_of(case, "batch", lambda sized: sized.batch <= 7) == 7


@pytest.mark.slow
def test_a_process_under_a_limit_tells_what_fits(tmp_path: Path) -> None:
    limit, case = 1200 * 2**20, case_of(tmp_path)
    tries = Tries(tmp_path, cpu_device(), limit, lambda: 500.0)
    small = tries.attempt(case)
    assert small.fits and small.peak and 50 * 2**20 < small.peak < limit
    large = tries.attempt(sized(case, "batch", 4096))
    assert not large.fits and large.peak is None and "memory" in large.detail.lower()
    batch = tries.largest(sized(case, "batch", 64), "batch")
    lines = [json.loads(line) for line in (tmp_path / TRIES).read_text().splitlines()]
    assert 1 <= batch < 4096 and {line["batch"]: line["fits"] for line in lines}[batch]
    assert all(line["fits"] == (line["batch"] <= batch) for line in lines), "a limit, and what was tried on both sides"
    left = Tries(tmp_path, cpu_device(), limit, lambda: 0.0)
    assert left.largest(sized(case, "batch", 64), "batch") == batch, "what was tried is not tried again"
    with pytest.raises(OutOfTime):
        Tries(tmp_path, cpu_device(), limit + 1, lambda: 0.0).attempt(case)


def test_a_case_that_fails_for_another_reason_says_which(tmp_path: Path) -> None:
    wrong = sized(case_of(tmp_path), "seq", 4096)  # beyond the model's positions
    with pytest.raises(RuntimeError, match="seq"):
        Tries(tmp_path, cpu_device(), 2**34, lambda: 300.0).attempt(wrong)
    assert not (tmp_path / TRIES).exists()
