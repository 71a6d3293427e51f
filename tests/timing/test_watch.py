"""Blocks that waited for a core are taken again, within a bound: the CPU's twin of a contended GPU."""

import numpy as np
import pytest

from bench.timing.sampler import Sampler
from bench.timing.settings import MeasureSettings
from bench.timing.watch import CpuWatch, run_delay_s
from tests.timing.test_stop import Simulated, cpu

SETTINGS = MeasureSettings(warmup_s=0.01, warmup_calls=1, max_rests=3)


class Neighbour:
    """Wall time and run delay, both set by the test."""

    def __init__(self) -> None:
        self.wall = self.delay = 0.0


def test_a_block_that_waited_too_long_does_not_count() -> None:
    n = Neighbour()
    watch = CpuWatch(SETTINGS, lambda: n.wall, lambda: n.delay)

    def block(delay: float) -> bool:
        n.wall += 5.0  # between blocks others ran, and waiting then is nothing
        n.delay += 4.0
        watch.begin()
        n.wall += 1.0
        n.delay += delay
        return watch.fit()

    assert block(0.05) and block(0.0)
    assert [block(0.06) for _ in range(4)] == [False, False, False, True], "so often, and then it stays"


def test_a_machine_that_is_always_busy_leaves_half_of_the_blocks() -> None:
    n = Neighbour()
    watch = CpuWatch(MeasureSettings(), lambda: n.wall, lambda: n.delay)

    def block() -> bool:
        n.wall += 1.0
        n.delay += 0.5
        return watch.fit()

    assert [block() for _ in range(6)] == [False, True, False, True, False, True]


def test_where_the_system_does_not_tell_every_block_counts() -> None:
    n = Neighbour()
    watch = CpuWatch(SETTINGS, lambda: n.wall, lambda: None)
    n.wall += 1.0
    assert watch.fit()


def test_this_system_tells() -> None:
    first = run_delay_s()
    if first is None:
        pytest.skip("no schedstat here")
    assert 0.0 <= first <= (run_delay_s() or 0.0)


def test_a_block_taken_again_is_counted_and_leaves_no_samples() -> None:
    """Through the sampler: the second of three blocks waits once."""
    work = Simulated(np.full(6000, 0.01))
    delays = iter([0.0] * 4 + [0.5] + [0.5] * 100)  # cumulative, as read at each begin and end
    sampler = Sampler(work, cpu(work), ("forward", "forward-backward"), "linear", SETTINGS,
                      work.now, waited=lambda: next(delays))  # fmt: skip
    sampler.begin()
    sizes = [len(sampler.block(i, 0.055)["forward", "cpu-time"]) for i in range(3)]
    found = sampler.end("rounds")
    assert sizes == [5, 5, 5] and found.rounds["forward"] == [0] * 5 + [1] * 5 + [2] * 5
    assert found.dropped == 5
