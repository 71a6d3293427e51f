"""The clocks on a real GPU: they agree where they must, and refuse where they should."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from bench.case import Case
from bench.case.schema import Status
from bench.sweeps.expand import make_plan
from bench.timing.settings import MeasureSettings
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu

PASSES = ("forward", "backward", "forward-backward")
SETTINGS = MeasureSettings(budget_s=0.5, wall_s=5.0)
CASES = make_plan("layers", on_cpu=False, where=["layer=square-1024,square-2048"]).cases


def work_of(case: Case) -> Any:
    from bench.models.build import build

    return build(case, "cuda")


def clock_of(name: str, case: Case, settings: MeasureSettings = SETTINGS) -> Any:
    import torch

    from bench.timing.clocks import make_clock

    return make_clock(name, torch.device("cuda", torch.cuda.current_device()), case.l2 == "cold", settings)


def medians(name: str, case: Case, passes: tuple[str, ...] = PASSES) -> tuple[dict[str, float], Any]:
    from bench.record.stats import summarize
    from bench.timing.sampler import measure

    m = measure(work_of(case), clock_of(name, case), passes, case.level, SETTINGS)
    assert m.status is Status.ok, m.detail
    return {p: summarize(m.samples_ms[p, name]).median_ms for p in passes}, m


@pytest.mark.parametrize("l2", ["cold", "warm"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.describe().replace(" ", "-"))
def test_clocks_agree_on_one_layer(case: Case, l2: str) -> None:
    case = replace(case, l2=l2)
    eager, _ = medians("eager", case)
    device, _ = medians("device", case)
    graph, m = medians("graph", case)
    for p in PASSES:
        assert 0 < graph[p] <= 1.1 * eager[p], p
        assert 0 < device[p] <= 1.1 * eager[p], p
        # What an event and the start of a kernel take, a few microseconds, is in device and not in graph.
        assert graph[p] == pytest.approx(device[p], rel=0.15, abs=0.015), p
        assert m.launches[p] > 0, p
    assert m.launches["forward-backward"] == m.launches["forward"] + m.launches["backward"]
    assert graph["forward-backward"] == pytest.approx(graph["forward"] + graph["backward"], rel=0.15, abs=0.01)


@pytest.mark.parametrize("precision", ["bf16", "amp-fp16", "fp32"])
@pytest.mark.parametrize("method", ["full", "lora", "paca"])
def test_a_replay_computes_the_gradients_of_eager(method: str, precision: str) -> None:
    import torch

    case = next(c for c in CASES if c.method == method)
    adapter = None if method == "full" else "fp32" if precision != "bf16" else "bf16"
    case = replace(case, precision=precision, adapter_dtype=adapter)
    work = work_of(case)
    clock = clock_of("graph", case)
    clock.prepare(work, case.level)
    clock.settle()
    for _ in range(3):
        clock.sample(work, False)
    torch.cuda.synchronize()
    replayed = [g.clone() for g in clock.grads]
    clock.close()
    work.clear()
    work.backward(work.forward())
    work.check_leaves()
    for (name, leaf), grad in zip(work.leaves, replayed, strict=True):
        torch.testing.assert_close(grad, leaf.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_dropout_draws_a_new_mask_at_every_replay() -> None:
    import torch

    case = next(c for c in CASES if c.method == "lora")
    work = work_of(replace(case, dropout=0.5))
    clock = clock_of("graph", case)
    clock.prepare(work, case.level)
    seen = []
    for _ in range(2):
        clock.sample(work, False)
        torch.cuda.synchronize()
        names = [name for name, _ in work.leaves]
        seen.append(clock.grads[next(i for i, n in enumerate(names) if "lora_a" in n)].clone())
    clock.close()
    assert not torch.equal(*seen)


SYNCHRONIZES = """
import torch
from bench.timing.clocks import make_clock
from bench.timing.sampler import measure
from tests.timing.test_clocks_on_gpu import CASES, SETTINGS, work_of
work = work_of(CASES[0])
call = work.call
work.call = lambda: call() * float(call().isfinite().all())
for name in ("eager", "graph"):
    clock = make_clock(name, torch.device("cuda", 0), False, SETTINGS)
    m = measure(work, clock, ("forward",), "linear", SETTINGS)
    print(name, m.status, m.spoiled, m.detail)
"""


def test_work_that_synchronizes_is_unsupported_and_eager_still_measured() -> None:
    """In a process of its own, which a failed capture may spoil."""
    done = subprocess.run([sys.executable, "-c", SYNCHRONIZES], cwd=ROOT, capture_output=True, text=True, timeout=300)
    eager, graph = done.stdout.splitlines()[:2]
    assert eager.startswith("eager ok False"), done.stderr
    assert graph.startswith("graph unsupported True capture: "), graph


def test_a_sleep_as_long_as_it_was_asked_for_and_a_queue_as_deep_as_a_call_needs() -> None:
    import torch

    from bench.timing.device import calibrated

    cycles, depth = calibrated(torch.cuda)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    torch.cuda._sleep(round(2 * cycles))
    end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) == pytest.approx(2.0, rel=0.2), "clocks may have moved since"
    assert depth >= 200


def test_the_state_of_this_gpu_is_known() -> None:
    import torch

    from bench.devices import gpus
    from bench.timing.gpu_state import open_state

    state = open_state(gpus()[torch.cuda.current_device()].uuid)
    assert state is not None
    reading = state.read()
    assert reading.sm_clock_mhz and reading.temperature_c and reading.reasons is not None
    assert state.clocks()["sm_max_mhz"] >= reading.sm_clock_mhz
