"""Two queues, against a simulation that goes from one operator to the next."""

from collections.abc import Sequence

import numpy as np
import pytest

from bench.predict.queues import BOUND, eager_us, host_limit_us, slopes


def simulated_us(gpu: Sequence[float], host: Sequence[float], start: float) -> float:
    issued, free = 0.0, 0.0
    for work, cost in zip(gpu, host, strict=True):
        issued += cost
        free = max(free, issued + start) + work
    return free


@pytest.mark.parametrize("seed", range(20))
def test_eager_is_what_a_simulation_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    gpu, host = rng.exponential(10, n), rng.exponential(rng.uniform(1, 20), n)
    assert eager_us(gpu, host, 2.5) == pytest.approx(simulated_us(gpu, host, 2.5), rel=1e-12)


def test_a_short_host_leaves_the_gpu_s_time_and_a_long_one_its_own() -> None:
    gpu = np.full(100, 10.0)
    assert eager_us(gpu, np.full(100, 1.0), 2.5) == pytest.approx(1000 + 1 + 2.5)
    assert eager_us(gpu, np.full(100, 30.0), 2.5) == pytest.approx(3000 + 10 + 2.5)


def test_a_queue_that_ran_full_hides_a_slow_phase_of_the_host() -> None:
    """100 long kernels are still running when 100 short ones are issued."""
    gpu = np.r_[np.full(100, 50.0), np.full(100, 1.0)]
    assert eager_us(gpu, np.full(200, 10.0), 0.0) == pytest.approx(5000 + 10 + 100)
    assert eager_us(gpu[::-1], np.full(200, 10.0), 0.0) == pytest.approx(1000 + 10 + 5000)


@pytest.mark.parametrize("seed", range(10))
def test_the_limit_is_where_eager_passes_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gpu, launches = rng.exponential(20, 300), rng.integers(1, 5, 300)
    limit = host_limit_us(gpu, launches, 2.5)
    assert limit > 0
    assert simulated_us(gpu, limit * launches, 2.5) == pytest.approx((1 + BOUND) * gpu.sum(), rel=1e-9)
    assert simulated_us(gpu, 1.01 * limit * launches, 2.5) > (1 + BOUND) * gpu.sum()


def test_a_pass_that_a_launch_alone_makes_late_is_always_launch_bound() -> None:
    assert host_limit_us(np.array([1.0]), np.array([1]), 2.5) == 0


def test_the_longer_queue_alone_has_a_slope() -> None:
    gpu, host = np.full(1000, 10.0), np.full(1000, 1.0)
    assert slopes(gpu, host, 2.5, (0.2, 0.2)) == (pytest.approx(1), pytest.approx(0, abs=2e-3))
    assert slopes(host, gpu, 2.5, (0.2, 0.2)) == (pytest.approx(0, abs=2e-3), pytest.approx(1))


def test_a_queue_that_is_longer_by_less_than_the_error_does_not_hide_it() -> None:
    """The GPU takes a tenth less than the host, and half of a fifth more is seen."""
    of_gpu, of_host = slopes(np.full(1000, 10.0), np.full(1000, 11.0), 0.0, (0.2, 0.2))
    assert of_gpu == pytest.approx(0.5, abs=0.01)
    assert of_host == pytest.approx(1)
