"""Clock device on a simulated GPU: what it counts, its sleep kernel, and when it refuses to."""

import pytest
from torch import Tensor

from bench.case.schema import Status
from bench.models.build import build
from bench.sweeps.expand import make_plan
from bench.timing import device, sleep_kernel
from bench.timing.base import Unsupported
from bench.timing.clocks import make_clock
from bench.timing.settings import MeasureSettings
from tests.fakecuda import FakeCuda
from tests.timing.fake_work import CPU, PASSES, SETTINGS, FakeWork, timed


def test_a_step_that_fills_the_queue_leaves_the_micro_steps_their_times(cuda: FakeCuda) -> None:
    cuda.depth = 100
    work = FakeWork(cuda)
    work.micro_steps = 4  # 120 launches: the host waits for the GPU before the last one is queued
    rows = {r["pass"]: r for r in timed("device", work, (*PASSES, "step")).series([*PASSES, "step"])}
    assert rows["step"]["status"] == "unsupported" and rows["step"]["detail"].startswith("queue:")
    assert {rows[p]["status"] for p in PASSES} == {"ok"}


def test_a_cold_case_is_flushed_before_each_sample(cuda: FakeCuda) -> None:
    clock = make_clock("device", CPU, True, SETTINGS, cuda)
    clock.prepare(FakeWork(cuda), "linear")
    assert clock._flush.numel() == 2 * 512  # type: ignore[attr-defined]
    clock._flush.fill_(1)  # type: ignore[attr-defined]
    clock.sample(FakeWork(cuda), False)
    assert not clock._flush.any()  # type: ignore[attr-defined]
    clock.close()
    assert clock._flush is None  # type: ignore[attr-defined]


def test_the_sleep_follows_the_hosts_time_in_warm_up(cuda: FakeCuda) -> None:
    assert sleep_kernel.cycles_per_ms(cuda) == pytest.approx(1.9e6)
    assert sleep_kernel.percentile95([1.0] * 19 + [9.0]) == 1.0
    assert sleep_kernel.percentile95([1.0, 2.0, 9.0]) == 9.0
    timed("device", FakeWork(cuda), level="block")
    assert cuda.sleeps[-1] == pytest.approx(1e-3), "at least a millisecond"
    timed("device", FakeWork(cuda, host=1e-6))
    assert cuda.sleeps[-1] == pytest.approx(2e-4), "less for a layer"
    timed("device", FakeWork(cuda, host=1e-4))
    assert cuda.sleeps[-1] == pytest.approx(4.5e-3, rel=0.01), "1.5 times the 3 ms that 30 launches take"


def test_a_sleep_that_is_too_short_is_doubled_and_its_sample_dropped(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    clock = make_clock("device", CPU, False, SETTINGS, cuda)
    clock.prepare(work, "block")
    for _ in range(5):
        assert clock.sample(work, False) is not None
    clock.settle()
    work.forward_launches = [(2e-6, 1.5e-4)] * 10  # 1.7 ms of host time, where 1 ms is slept
    assert clock.sample(work, False) is None
    found = clock.sample(work, False)
    assert found is not None and cuda.sleeps[-1] == pytest.approx(2e-3)
    assert found["forward", "device"] == pytest.approx(0.02), "and then no gap is timed"


def test_two_doublings_in_vain_are_unsupported(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    clock = make_clock("device", CPU, False, SETTINGS, cuda)
    clock.prepare(work, "block")
    for _ in range(5):
        clock.sample(work, False)
    clock.settle()
    work.forward_launches = [(2e-6, 0.1)] * 10
    assert clock.sample(work, False) is None
    assert clock.sample(work, False) is None
    with pytest.raises(Unsupported, match=r"^queue: .*4 ms, 3 times"):
        clock.sample(work, False)


def test_a_hiccup_of_the_host_costs_one_sample_each_time(cuda: FakeCuda) -> None:
    patient = sleep_kernel.SleepKernel(MeasureSettings(), "block")
    judged = [patient.judge(i % 10 != 0) for i in range(100)]
    assert judged.count(False) == 10
    assert patient.ms == 4.0, "doubled twice, no more"


def test_dropped_samples_are_counted(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    hiccup = iter([*[0.0] * 10, 0.01, *[0.0] * 10_000])
    original = work.forward

    def forward() -> Tensor:
        out = original()
        cuda.host += next(hiccup)
        return out

    work.forward = forward  # type: ignore[method-assign]
    found = timed("device", work)
    assert found.dropped == 1 and found.status is Status.ok
    assert found.series(PASSES)[0]["dropped"] == 1


def test_the_depth_of_the_queue_is_measured(cuda: FakeCuda) -> None:
    cuda.depth = 700
    assert sleep_kernel.queue_depth(cuda, sleep_kernel.cycles_per_ms(cuda)) == pytest.approx(700, abs=1)


@pytest.mark.parametrize(("launches", "status"), [(560, Status.ok), (562, Status.unsupported)])
def test_a_call_that_nearly_fills_the_queue_is_unsupported(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, launches: int, status: Status
) -> None:
    cuda.depth = 702
    monkeypatch.setattr(device, "count_launches", lambda work: launches)
    found = timed("device", FakeWork(cuda))
    assert found.status is status
    if status is Status.unsupported:
        assert found.detail == f"queue: about {launches} launches, and the queue takes 701" and not found.samples_ms
        assert not found.spoiled, "graph may follow"


def test_a_queue_that_fills_unnoticed_is_never_timed(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "count_launches", lambda work: 0)
    found = timed("device", FakeWork(cuda, forward=1500, host=1e-6))
    assert found.status is Status.unsupported and found.detail.startswith("queue: ")


def test_a_whole_model_has_no_device_time(cuda: FakeCuda) -> None:
    found = timed("device", FakeWork(cuda), level="model")
    assert found.status is Status.unsupported and "whole model" in found.detail
    (row, *_) = found.series(PASSES)
    assert row["status"] == "unsupported" and "samples_ms" not in row and row["pass"] == "forward"


def test_launches_are_counted_without_views() -> None:
    case = next(c for c in make_plan("smoke", on_cpu=True).cases if c.method == "lora")
    assert 8 <= device.count_launches(build(case, "cpu")) <= 20
