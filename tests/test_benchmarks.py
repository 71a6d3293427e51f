"""The cases under pytest-benchmark: `pytest --benchmark-only`. The smoke cases on a CPU, the layers cases on a GPU.

pytest-benchmark keeps its table, JSON, compare and histogram; the times are ours. The engine measures, and the samples
are replayed through pytest-benchmark's own rounds by a timer that returns them one by one.
"""

from functools import cache
from typing import Any

import pytest

from bench.case import Case
from bench.case.schema import Status
from bench.devices import choose, gpus, visible_index
from bench.methods.registry import impl_of, unsupported
from bench.record.stats import summarize
from bench.sweeps.expand import Plan, make_plan

DEVICE = choose("auto", gpus())


class Replay:
    """A timer for pytest-benchmark: 0.0 at a round's start, the next sample in seconds at its end."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._started = False

    def load(self, samples_ms: list[float]) -> None:
        self._samples = [ms / 1e3 for ms in reversed(samples_ms)]
        self._started = False

    def __call__(self) -> float:
        self._started = not self._started
        return 0.0 if self._started else self._samples.pop()


CLOCK = Replay()
pytestmark = pytest.mark.benchmark(timer=CLOCK)


@cache
def plan() -> Plan:
    return make_plan("smoke" if DEVICE.is_cpu else "layers", DEVICE.is_cpu)


@cache
def measured(case: Case) -> tuple[str, dict[str, list[float]]]:
    """(clock, samples of each pass in ms); one iteration yields all passes, so a case is measured once.

    On a GPU by CUDA-graph replay, which launch cost does not blur; by the sweep's own clock where that cannot be.
    """
    import torch

    from bench.models.build import build
    from bench.timing.clocks import make_clock
    from bench.timing.sampler import measure

    if not DEVICE.is_cpu:
        torch.cuda.set_device(visible_index(DEVICE))
    device = torch.device("cpu" if DEVICE.is_cpu else f"cuda:{visible_index(DEVICE)}")
    for name in sorted(plan().clocks, key=lambda name: name != "graph"):
        work = build(case, str(device))
        clock = make_clock(name, device, case.l2 == "cold", plan().settings)
        m = measure(work, clock, plan().passes, case.level, plan().settings)
        if m.status is Status.ok:
            return name, {p: m.samples_ms[p, name] for p in plan().passes}
    pytest.skip(m.detail or m.status)


@pytest.mark.parametrize("pass_", plan().passes)
@pytest.mark.parametrize("case", plan().cases, ids=lambda c: c.describe().replace(" ", "-"))
def test_case(benchmark: Any, case: Case, pass_: str) -> None:
    where = "cpu" if DEVICE.is_cpu else "cuda"
    if reason := unsupported(case, where) or impl_of(case).cannot.get(pass_):
        pytest.skip(reason)
    clock, found = measured(case)
    samples = found[pass_]
    CLOCK.load(samples)
    benchmark.group = f"{case.model or ''} {case.layer or ''} {pass_}".strip()
    benchmark.extra_info.update(case.axes() | {"case_id": case.case_id, "pass": pass_, "clock": clock})
    benchmark.pedantic(lambda: None, rounds=len(samples))
    if benchmark.stats is not None:  # None under --benchmark-disable
        assert benchmark.stats.stats.median * 1e3 == pytest.approx(summarize(samples).median_ms)
