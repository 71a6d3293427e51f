"""Energy of a call, by the counter of a fake NVML that counts what a simulated GPU draws."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.case.columns import COLUMNS
from bench.timing.energy import LEAST_S, energy_j, with_energy
from bench.timing.gpu_state import GpuState
from tests.fake_nvml import FakeNvml
from tests.fakecuda import FakeCuda
from tests.timing.fake_work import PASSES, FakeWork, timed

WATTS = 500


def _state(energy_mj: Callable[[], int], **options: Any) -> GpuState:
    nvml = FakeNvml(**options)
    nvml.energy_mj = energy_mj
    return GpuState(nvml, "GPU-1", pid=7)


@pytest.mark.parametrize(("step", "ms"), [(False, 30.0), (True, 4 * 30.0 + 0.001)])
def test_it_is_the_counters_over_the_calls_for_two_seconds(step: bool, ms: float) -> None:
    """500 W for a micro-step of 30 ms, and for a step of four of them with an optimizer of 1 us; the GPU is the
    bottleneck, so nothing else is in it."""
    cuda = FakeCuda(depth=20)
    work = FakeWork(cuda, forward=1, backward=2, gpu=0.01)
    work.micro_steps = 4
    reads: list[float] = []

    def counter() -> int:
        reads.append(cuda.host)
        return 10**9 + round(1e3 * WATTS * cuda.host)

    found = energy_j(work, _state(counter), step, cuda.synchronize, cuda.now)
    assert found == pytest.approx(WATTS * ms / 1e3, rel=0.01)
    assert reads[-1] - reads[-2] >= LEAST_S and work.weight.grad is None


def test_without_a_counter_nothing_runs() -> None:
    cuda = FakeCuda()
    work = FakeWork(cuda)
    lacking = _state(lambda: 1, lacks="nvmlDeviceGetTotalEnergyConsumption")
    for state in (None, lacking):
        assert energy_j(work, state, False, cuda.synchronize, cuda.now) is None
    assert cuda.host == 0


def test_a_counter_that_stands_still_or_goes_back_tells_nothing() -> None:
    cuda = FakeCuda()
    work = FakeWork(cuda, gpu=1e-3)
    assert energy_j(work, _state(lambda: 7), False, cuda.synchronize, cuda.now) is None
    falling = iter(range(100, 0, -1))
    assert energy_j(work, _state(lambda: next(falling)), False, cuda.synchronize, cuda.now) is None


@pytest.mark.parametrize(
    ("clock", "passes", "where"),
    [("eager", PASSES, "forward-backward"), ("eager", (*PASSES, "step"), "step"), ("device", PASSES, None)],
)
def test_it_stands_in_the_row_of_what_trains(
    cuda: FakeCuda, clock: str, passes: tuple[str, ...], where: str | None
) -> None:
    work = FakeWork(cuda, gpu=1e-3)
    series = timed(clock, work, passes).series(passes)
    state = _state(lambda: round(1e3 * WATTS * cuda.host))
    found = with_energy(series, work, state, cuda.synchronize, cuda.now)
    told = {(s["pass"], s["clock"]) for s in found if s.get("energy_j")}
    assert told == ({(where, "eager")} if where else set()) and "energy_j" in COLUMNS
    assert [{k: v for k, v in s.items() if k != "energy_j"} for s in found] == series


def test_what_is_timed_stays_where_energy_cannot_be_had(cuda: FakeCuda) -> None:
    work = FakeWork(cuda, gpu=1e-3)
    series = timed("eager", work, PASSES).series(PASSES)

    def fails() -> None:
        raise RuntimeError("CUDA error: out of memory")

    work.forward = fails  # type: ignore[method-assign,assignment]
    state = _state(lambda: round(1e3 * WATTS * cuda.host))
    assert with_energy(series, work, state, cuda.synchronize, cuda.now) == series
