"""The state of the GPU, on a fake NVML: what ends a measurement, what drops a block, what is only recorded."""

from typing import Any

import numpy as np
import pytest

from bench.case.columns import COLUMNS
from bench.case.schema import Status
from bench.timing.gpu_state import CLOCKS_SET, POWER_CAP, SLOWDOWNS, GpuState, Reading, Rests, open_state, summary
from bench.timing.sampler import Measurement, measure
from bench.timing.settings import MeasureSettings
from tests.fake_nvml import FakeNvml
from tests.timing.test_stop import Simulated, cpu

SETTINGS = MeasureSettings(min_samples=24, min_time_s=0.01, warmup_calls=1, warmup_s=0.01)


def fake_state(**options: Any) -> GpuState:
    return GpuState(FakeNvml(**options), "GPU-1", pid=7)


def measured(state: GpuState | None, forward_s: Any = None) -> tuple[Measurement, Simulated, list[float]]:
    """A measurement of 10 ms calls under this state, what it drove, and how long it slept between blocks."""
    work = Simulated(np.full(6000, 0.01) if forward_s is None else forward_s)
    slept: list[float] = []
    found = measure(
        work, cpu(work), ("forward", "forward-backward"), "linear", SETTINGS,
        now=work.now, state=state, sleep=slept.append,
    )  # fmt: skip
    return found, work, slept


def test_a_fit_gpu_leaves_its_state_in_the_row() -> None:
    found, _, slept = measured(fake_state())
    assert found.status is Status.ok and not slept and found.dropped == 0
    expected = {"sm_clock_mhz": 1980, "mem_clock_mhz": 3201, "power_w": 412.3, "temperature_c": 61, "power_capped": 0.0}
    assert found.state == expected
    row = found.series(["forward"])[0]
    assert expected.items() <= row.items() and expected.keys() <= set(COLUMNS)


@pytest.mark.parametrize(("forward_s", "each"), [(0.01, 8), (0.0001, 48)])
def test_nvml_is_asked_every_50_ms_and_not_at_every_check(forward_s: float, each: int) -> None:
    """Calls of 11 ms, where 8 samples take longer than that, and of 1.1 ms, where 48 do."""

    class Counted(FakeNvml):
        asked = 0

        def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
            self.asked += 1
            return 61

    nvml = Counted()
    found, work, _ = measured(GpuState(nvml, "GPU-1", pid=7), np.full(6000, forward_s))
    samples = work.calls - 1  # one of warm-up at 11 ms
    assert found.status is Status.ok and nvml.asked <= 2 + samples / each


def test_what_was_sampled_since_the_last_look_is_dropped_with_it() -> None:
    slow = np.full(6000, 0.0001)
    found, work, _ = measured(fake_state(reasons=[0, 0, 0x8, 0]), slow)
    assert found.status is Status.ok and found.dropped == 48
    n = len(found.samples_ms["forward", "cpu-time"])
    assert work.calls >= n + 48 and n % 8 == 0


@pytest.mark.parametrize("bit", SLOWDOWNS)
def test_a_throttled_block_is_dropped_and_taken_again(bit: int) -> None:
    # Looks: before the first block, after the first, after the second, which is throttled; then all is well.
    slow = np.full(6000, 0.01)
    slow[9:17] = 0.5  # after one call of warm-up and a block of 8
    found, work, slept = measured(fake_state(reasons=[0, 0, bit, 0]), slow)
    assert found.status is Status.ok and found.dropped == 8 and slept == [0.05]
    assert max(found.samples_ms["forward", "cpu-time"]) == pytest.approx(10.0), "the block's samples are gone"
    n = len(found.samples_ms["forward", "cpu-time"])
    assert n == len(found.samples_ms["forward-backward", "cpu"]) and n % 8 == 0
    assert work.calls == n + 8 + 1, "one call of warm-up, and the block that was dropped"
    assert found.series(["forward"])[0]["dropped"] == 8


def test_a_gpu_that_never_comes_to_rest_is_throttled_and_leaves_no_numbers() -> None:
    found, _, slept = measured(fake_state(reasons=[0, 0x8 | 0x40]))
    assert found.status is Status.throttled
    assert len(slept) == 10 and slept[:3] == pytest.approx([0.05, 0.075, 0.1125]) and slept[-1] == 0.5
    assert found.samples_ms == {} and found.part_ms("refresh") is None
    assert "HwSlowdown, HwThermalSlowdown" in (found.detail or "") and "10 pauses" in (found.detail or "")
    row, _wall = found.series(["forward"])
    assert row == {"pass": "forward", "clock": "cpu-time", "status": "throttled", "detail": found.detail}


def test_one_that_is_throttled_from_the_start_rests_before_the_first_block() -> None:
    found, _, slept = measured(fake_state(reasons=[0x20, 0x20, 0]))
    assert found.status is Status.ok and len(slept) == 2 and found.dropped == 0


def test_rests_grow_to_a_limit_and_end() -> None:
    slept: list[float] = []
    rests = Rests(MeasureSettings(max_rests=2), slept.append)
    assert [rests.take() for _ in range(3)] == [True, True, False] and len(slept) == 2


def test_the_power_cap_is_recorded_and_drops_nothing() -> None:
    found, _, slept = measured(fake_state(reasons=[0, POWER_CAP]))
    assert found.status is Status.ok and not slept and found.dropped == 0
    assert 0.5 < found.state["power_capped"] < 1


def test_another_process_on_the_gpu_is_noticed() -> None:
    found, *_ = measured(fake_state(pids=[[], [7], [7], [7, 4242]]))
    assert found.status is Status.contended and "4242" in (found.detail or "") and "7," not in (found.detail or "")
    assert found.samples_ms == {}


@pytest.mark.parametrize(
    ("before", "after", "later", "others"),
    [
        ([], [7], [7], ()),
        ([], [9001], [9001], ()),  # a container: NVML tells the host's number of this process
        ([12], [12, 9001], [12, 9001], (12,)),
        ([], [], [], ()),  # a container that hides this process
        ([], [], [55], (55,)),
        ([], [9001], [9001, 9002], (9002,)),
        ([], [9001, 9002], [9001, 9002], (9002,)),  # two at once: one of them is another, whichever
        ([12], [7], [7], ()),  # the worker before was still there
    ],
)
def test_this_process_is_known_in_a_container_too(
    before: list[int], after: list[int], later: list[int], others: tuple[int, ...]
) -> None:
    state = fake_state(pids=[before, after, later])
    state.mark_own()
    assert state.read().others == others


def test_without_nvml_all_is_unknown_and_nothing_fails() -> None:
    found, *_ = measured(None)
    assert found.status is Status.ok and set(found.state.values()) == {None}
    assert open_state(None) is None
    broken: Any = FakeNvml(lacks="everything")
    assert open_state("GPU-1", broken) is None
    found, *_ = measured(GpuState(broken, "GPU-1"))
    assert found.status is Status.ok and set(found.state.values()) == {None}
    assert GpuState(broken, "GPU-1").clocks()["locked"] is None


def test_what_one_board_or_driver_lacks_is_unknown_alone() -> None:
    state = fake_state(lacks="nvmlDeviceGetPowerUsage")
    assert state.read().power_w is None and state.read().sm_clock_mhz == 1980
    old = fake_state(reasons=[0x8], lacks="nvmlDeviceGetCurrentClocksEventReasons")
    assert old.read().slowdowns == ["HwSlowdown"], "under its older name"
    assert open_state("GPU-1", FakeNvml()) is not None  # type: ignore[arg-type]


def test_medians_and_the_highest_temperature() -> None:
    readings = [Reading(1980, 3201, 400.0, 60, 0), Reading(1755, 3201, 500.0, 70, POWER_CAP), Reading(1965)]
    assert summary(readings) == {
        "sm_clock_mhz": 1965, "mem_clock_mhz": 3201, "power_w": 450.0, "temperature_c": 70, "power_capped": 0.5,
    }  # fmt: skip


def test_whether_clocks_are_locked_as_far_as_nvml_tells() -> None:
    assert fake_state().clocks()["locked"] is False
    assert fake_state(reasons=[CLOCKS_SET]).clocks()["locked"] is True
    nvml = FakeNvml()
    nvml.application_mhz = 1410
    assert GpuState(nvml, "GPU-1").clocks() == {
        "sm_max_mhz": 1980, "mem_max_mhz": 3201, "sm_application_mhz": 1410, "sm_default_mhz": 1980, "locked": True,
    }  # fmt: skip
    found, *_ = measured(fake_state(reasons=[0, CLOCKS_SET, 0]))
    assert found.clocks_set and found.status is Status.ok
