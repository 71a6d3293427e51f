"""Work whose blocks take turns: a sample is one of each stage, and its value their mean."""

import pytest

from bench.case.schema import Status
from bench.methods.stages import in_each_stage
from bench.timing.clocks import make_clock
from bench.timing.cpu import CpuClock
from bench.timing.cycle import CycleClock
from bench.timing.sampler import measure
from tests.fakecuda import FakeCuda
from tests.timing.fake_work import CPU, SETTINGS, FakeWork

PASSES = ("forward", "backward", "forward-backward", "step")


class Turns(FakeWork):
    """Three stages whose backward takes 10, 20 and 60 launches; what a change costs must not show."""

    stages = 3
    launches = (10, 20, 60)

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__(cuda, gpu=1e-4, host=1e-6)
        self.selected: list[int] = []
        self.has_refresh = True

    def select(self, stage: int) -> None:
        self.selected.append(stage)
        self.backward_launches = [(1e-4, 1e-6)] * self.launches[stage]
        self.cuda.launch(7.0, 1e-6)
        self.cuda.synchronize()

    def ready_optimizer(self) -> None:
        self.cuda.launch(5.0, 1e-6)
        self.cuda.synchronize()


def clock_of(name: str, work: Turns) -> CycleClock:
    return CycleClock(make_clock(name, CPU, False, SETTINGS, work.cuda), work.stages)


def test_a_sample_is_the_mean_over_the_stages() -> None:
    work = Turns(FakeCuda())
    clock = clock_of("eager", work)
    clock.prepare(work, "model")
    sample = clock.sample(work, False)
    assert sample is not None and work.selected == [0, 1, 2] and clock.calls == 3
    assert sample["forward", "eager"] == pytest.approx(1.0, abs=0.05)
    assert sample["backward", "eager"] == pytest.approx((1 + 2 + 6) / 3, abs=0.05)
    assert sample["forward-backward", "eager"] == pytest.approx(4.0, abs=0.05)
    assert {c for _, c in sample} == {"eager", "host"} and ("refresh", "eager") in sample
    step = clock.sample(work, True)
    assert step is not None
    assert step["step", "eager"] == pytest.approx(4.0, abs=0.1), "without what the first step of a stage makes"
    assert step["optimizer", "eager"] < 0.1


def test_a_measurement_counts_all_calls_towards_its_budget() -> None:
    """24 ms a sample of three calls of 8 ms: at a budget of 0.2 s it is over after nine or so, at a look."""
    work = Turns(FakeCuda())
    settings = SETTINGS.model_copy(update={"model_budget_s": 0.1, "wall_s": 1e6, "target": 1e-9, "min_samples": 8})
    found = measure(work, clock_of("eager", work), PASSES[:3], "model", settings, now=work.cuda.now)
    assert found.status is Status.ok and found.clock == "eager"
    n = len(found.samples_ms["forward-backward", "eager"])
    assert n == 16, "8 samples of 3 x 4 ms are 0.096 s"
    assert found.stop["forward"] == "budget"


def test_one_that_does_not_count_costs_the_whole_sample() -> None:
    class Every3rd(CpuClock):
        taken = 0

        def sample(self, work: object, step: bool) -> dict[tuple[str, str], float] | None:  # type: ignore[override]
            self.taken += 1
            return None if self.taken == 2 else {("forward", "cpu"): float(self.taken)}

    clock = CycleClock(Every3rd(), 3)
    work = Turns(FakeCuda())
    assert clock.sample(work, False) is None
    assert clock.sample(work, False) == {("forward", "cpu"): 5.0}


def test_a_graph_holds_one_set_of_blocks() -> None:
    work = Turns(FakeCuda())
    found = measure(work, clock_of("graph", work), PASSES[:3], "model", SETTINGS, now=work.cuda.now)
    assert found.status is Status.unsupported and not found.spoiled
    assert found.detail is not None and "one set of blocks" in found.detail and "3 take turns" in found.detail


def test_memory_is_looked_at_in_each_stage() -> None:
    work = Turns(FakeCuda())
    assert in_each_stage(work, lambda: work.selected[-1]) == [0, 1, 2] and work.selected == [0, 1, 2, 0]
