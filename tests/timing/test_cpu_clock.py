"""Samples by the CPU's clock where the system's clocks stand still."""

import json
from collections.abc import Iterable
from itertools import chain, repeat

import pytest

from bench.case.schema import Status
from bench.record.read import read_samples
from bench.timing.cpu import CpuClock
from bench.timing.sampler import Sampler
from bench.timing.settings import MeasureSettings

SETTINGS = MeasureSettings(min_samples=8, warmup_s=0.001, warmup_calls=1, budget_s=0.05)
PASSES = ("forward", "backward", "forward-backward")


class Machine:
    """A work of forward and backward on a machine whose two clocks the test turns, a call at a time."""

    has_refresh = False
    micro_steps = 1

    def __init__(self, worked: Iterable[float]) -> None:
        self.wall = self.cpu = 0.0
        self._worked = iter(worked)

    def clear(self) -> None:
        pass

    ready = clear

    def forward(self) -> None:
        self.wall += 0.001
        self.cpu += next(self._worked)

    def backward(self, _: object) -> None:
        self.forward()

    def sampler(self) -> Sampler:
        clock = CpuClock(now=lambda: self.wall, worked=lambda: self.cpu)
        return Sampler(self, clock, PASSES, "linear", SETTINGS, lambda: self.wall, waited=lambda: 0.0)


def test_a_call_without_cpu_time_does_not_count_and_the_record_can_be_read(tmp_path) -> None:
    # Warm-up and the untimed sample before a block are a forward and a backward each.
    machine = Machine(chain(repeat(0.001, 6), [0.0, 0.001, 0.001, 0.0], repeat(0.001)))
    sampler = machine.sampler()
    sampler.begin()
    block = sampler.block(0, 0.02)
    found = sampler.end("rounds")
    assert found.status is Status.ok and found.dropped == 2
    assert min(map(min, block.values())) == pytest.approx(1.0) and max(map(max, block.values())) == pytest.approx(2.0)
    key = {"case_id": "c", "pass": "forward", "clock": "cpu-time", "repeat": 0}
    (tmp_path / "samples.jsonl").write_text(json.dumps(key | {"samples_ms": block["forward", "cpu-time"]}) + "\n")
    assert len(read_samples(tmp_path)[0]) == 1


def test_a_clock_that_never_moves_ends_the_measurement_with_its_name() -> None:
    sampler = Machine(repeat(0.0)).sampler()
    sampler.begin()
    assert sampler.block(0, 0.02) == {}
    found = sampler.end("rounds")
    assert found.status is Status.unsupported
    assert found.detail == "clock cpu-time did not move during forward in 1000 calls in a row"
