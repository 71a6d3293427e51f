"""Tasks into shards that take about as long as one another, without cutting what must be measured together."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from bench.case import AXES, Case
from bench.runner.plan import Task, comparisons

BUILT_FOR = ("batch", "seq")  # axes that a model is not built anew for
_HALVINGS = 60  # of the interval in which the shortest longest shard lies: to the last digits of a float


def split(tasks: Sequence[Task], shards: int, seconds: Callable[[Case], float]) -> list[list[Task]]:
    """At most so many shards, none of them empty: fewer where there are fewer comparisons, none for no tasks.

    A comparison (the cases of one repeat that are alike but for how they train) is never cut. Those of one model stand
    next to one another, and the list of all is cut so that the longest shard, by `seconds` of each case, is as short as
    it can be; within that bound between two models where possible, and into even parts. The same tasks give the same
    shards, and within a shard they have the order of `tasks`. Raises ValueError for less than one shard.
    """
    if shards < 1:
        raise ValueError(f"{shards} shards: at least 1 is needed")
    groups = sorted(comparisons(tasks), key=_build_order(tasks))
    if not groups:
        return []
    place = {task: i for i, task in enumerate(tasks)}
    builds = [_build(group[0]) for group in groups]
    borders = [i for i in range(1, len(groups)) if builds[i] != builds[i - 1]]
    cuts = _cuts([sum(seconds(case) for _, case in group) for group in groups], borders, min(shards, len(groups)))
    parts = [groups[a:b] for a, b in zip([0, *cuts], [*cuts, len(groups)], strict=True)]
    return [sorted((task for group in part for task in group), key=place.__getitem__) for part in parts]


def _build(task: Task) -> tuple[object, ...]:
    """What the cases of a model build share."""
    repeat, case = task
    return repeat, *(getattr(case, name) for name, axis in AXES.items() if not axis.trains and name not in BUILT_FOR)


def _build_order(tasks: Sequence[Task]) -> Callable[[list[Task]], int]:
    """Of a comparison: where the first one of its build stands among the tasks."""
    first: dict[tuple[object, ...], int] = {}
    for i, task in enumerate(tasks):
        first.setdefault(_build(task), i)
    return lambda group: first[_build(group[0])]


def _cuts(prices: Sequence[float], borders: Sequence[int], parts: int) -> list[int]:
    """Where each part but the first begins. parts: at most the count of prices."""
    sums = [0.0, *accumulate(prices)]
    n = len(prices)

    def end(begin: int, most: float) -> int:
        """How far a part may go that begins there; one price fits always."""
        return max(begin + 1, bisect_right(sums, sums[begin] + most, begin) - 1)

    def fits(most: float) -> bool:
        at = 0
        for _ in range(parts):
            at = end(at, most)
            if at >= n:
                return True
        return False

    low, high = max(max(prices), sums[-1] / parts), sums[-1]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    needed = [0] * (n + 1)  # parts for all prices from there on
    for i in reversed(range(n)):
        needed[i] = 1 + needed[min(n, end(i, high))]
    cuts: list[int] = []
    at = 0
    for left in range(parts - 1, 0, -1):  # parts after this one, each with a price of its own
        last = min(end(at, high), n - left)
        first = next(i for i in range(at + 1, last + 1) if needed[i] <= left)
        inside = borders[bisect_left(borders, first) : bisect_right(borders, last)]
        even = sums[at] + (sums[-1] - sums[at]) / (left + 1)
        at = min(inside or range(first, last + 1), key=lambda i: abs(sums[i] - even))
        cuts.append(at)
    return cuts
