"""Shards: every task once, no comparison cut, and the longest as short as it can be."""

from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.case import Case
from bench.cluster.split import split
from bench.runner.plan import Task, comparisons
from tests.synthetic import case

# Two layers are two builds; two lengths of a layer are two comparisons of one build.
AXES = st.fixed_dictionaries(
    {
        "layer": st.sampled_from(["square-64", "square-128", "square-256"]),
        "seq": st.sampled_from([16, 32]),
        "method": st.sampled_from(["full", "lora", "paca"]),
    }
)
SECONDS = st.integers(0, 50)


@st.composite
def priced(draw: st.DrawFn, most: int = 14) -> tuple[list[Task], dict[Case, int]]:
    """Tasks in any order, and what a task of each case takes."""
    cases = [case(**axes) for axes in draw(st.lists(AXES, max_size=most, unique_by=lambda a: tuple(sorted(a.items()))))]
    repeats = draw(st.integers(1, 2))
    return [(r, c) for r in range(repeats) for c in cases], {c: draw(SECONDS) for c in cases}


def build_order(tasks: list[Task]) -> list[list[Task]]:
    """Comparisons, those of a build together where its first one stands."""
    groups, builds = comparisons(tasks), []
    for group in groups:
        if (build := (group[0][0], group[0][1].layer)) not in builds:
            builds.append(build)
    return sorted(groups, key=lambda group: builds.index((group[0][0], group[0][1].layer)))


def lengths(shards: list[list[Task]], seconds: dict[Case, int]) -> list[int]:
    return [sum(seconds[c] for _, c in shard) for shard in shards]


def best(prices: list[int], shards: int) -> int:
    """The longest of so many neighbouring parts, where it is shortest, by trying all."""
    ends = [(0, *cuts, len(prices)) for cuts in combinations(range(1, len(prices)), shards - 1)]
    return min(max(sum(prices[a:b]) for a, b in pairwise(e)) for e in ends)


@given(priced(), st.integers(1, 9))
def test_every_task_is_on_one_shard_and_no_comparison_is_cut(
    given_: tuple[list[Task], dict[Case, int]], n: int
) -> None:
    tasks, seconds = given_
    shards = split(tasks, n, seconds.__getitem__)
    assert Counter(task for shard in shards for task in shard) == Counter(tasks)
    assert all(shards) and len(shards) == min(n, len(comparisons(tasks)))
    where = {task: i for i, shard in enumerate(shards) for task in shard}
    assert all(len({where[task] for task in group}) == 1 for group in comparisons(tasks))


@given(priced(), st.integers(1, 9))
def test_the_longest_shard_is_as_short_as_it_can_be(given_: tuple[list[Task], dict[Case, int]], n: int) -> None:
    tasks, seconds = given_
    prices = [sum(seconds[c] for _, c in group) for group in build_order(tasks)]
    found = lengths(split(tasks, n, seconds.__getitem__), seconds)
    if prices:
        assert max(found) == best(prices, min(n, len(prices)))
        assert max(found) <= sum(prices) / n + max(prices)


@given(priced(), st.integers(1, 9))
def test_shards_are_the_same_each_time_and_keep_the_order(given_: tuple[list[Task], dict[Case, int]], n: int) -> None:
    tasks, seconds = given_
    shards = split(tasks, n, seconds.__getitem__)
    assert shards == split(list(tasks), n, seconds.__getitem__)
    assert all(shard == sorted(shard, key=tasks.index) for shard in shards)


def test_a_model_stays_on_one_shard_though_a_sweep_goes_length_by_length() -> None:
    tasks = [(0, case(layer, seq=seq)) for seq in (16, 32, 64) for layer in ("square-64", "square-128")]
    small, large = split(tasks, 2, lambda _: 1.0)
    assert {c.layer for _, c in small} == {"square-64"} and {c.layer for _, c in large} == {"square-128"}
    assert [c.seq for _, c in small] == [16, 32, 64]


def test_a_cut_between_models_is_preferred_where_it_costs_nothing() -> None:
    """One comparison of 8 s is the longest shard whatever happens; the other six need not be in even parts."""
    prices = {"square-64": 8.0, "square-128": 1.0, "square-256": 1.0}
    counts = {"square-64": 1, "square-128": 4, "square-256": 2}
    tasks = [(0, case(layer, seq=seq)) for layer, n in counts.items() for seq in range(16, 16 + n)]
    shards = split(tasks, 3, lambda c: prices[c.layer or ""])
    assert [sorted({c.layer for _, c in shard}) for shard in shards] == [["square-64"], ["square-128"], ["square-256"]]


def test_repeats_are_comparisons_of_their_own() -> None:
    tasks = [(r, case(method=m)) for r in range(3) for m in ("full", "lora")]
    assert split(tasks, 3, lambda _: 1.0) == [tasks[:2], tasks[2:4], tasks[4:]]


def test_no_tasks_one_shard_and_more_shards_than_comparisons() -> None:
    tasks = [(0, case(seq=seq, method=m)) for seq in (16, 32) for m in ("full", "lora")]
    assert split([], 4, lambda _: 1.0) == []
    assert split(tasks, 1, lambda _: 1.0) == [tasks]
    assert split(tasks, 50, lambda _: 0.0) == [tasks[:2], tasks[2:]]
    with pytest.raises(ValueError, match="at least 1"):
        split(tasks, 0, lambda _: 1.0)
