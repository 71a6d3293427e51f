"""The clocks, on a simulated GPU: what each of them counts, and when it refuses to."""

import ctypes
import gc
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.case.clocks import clocks_of, in_order
from bench.case.schema import Status
from bench.models.build import build
from bench.sweeps.expand import make_plan
from bench.timing import device, eager, graph, sleep_kernel
from bench.timing.base import Unsupported
from bench.timing.clocks import make_clock
from bench.timing.graph_nodes import count_nodes
from bench.timing.sampler import measure
from bench.timing.settings import MeasureSettings
from tests.fakecuda import FakeCuda, FakeGraph

CPU = torch.device("cpu")
SETTINGS = MeasureSettings(min_samples=8, min_time_s=1e-6, wall_s=2.0, warmup_s=0.001)
PASSES = ("forward", "backward", "forward-backward")


class _Kernels(torch.autograd.Function):
    """y = 2 w, with launches on the simulated GPU in both directions."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, work: "FakeWork") -> Tensor:
        ctx.work = work
        work.run(work.forward_launches)
        return 2 * w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.work.run(ctx.work.backward_launches)
        return 2 * grad, None


class FakeWork:
    """Forward and backward as lists of launches: (seconds on the GPU, seconds on the host)."""

    def __init__(self, cuda: FakeCuda, forward: int = 10, backward: int = 20, gpu: float = 2e-6, host: float = 1e-5):
        self.cuda = cuda
        self.forward_launches = [(gpu, host)] * forward
        self.backward_launches = [(gpu, host)] * backward
        self.weight = torch.ones(3, requires_grad=True)
        self.leaves = [("weight", self.weight)]
        self.autocast_cache = True
        self.has_refresh = False
        self.micro_steps = 1

    def run(self, launches: list[tuple[float, float]]) -> None:
        for gpu, host in launches:
            self.cuda.launch(gpu, host)

    def clear(self) -> None:
        self.weight.grad = None

    ready = clear

    def forward(self) -> Tensor:
        return _Kernels.apply(self.weight, self)

    def backward(self, out: Tensor) -> None:
        out.backward(self.grad_out(out))

    def grad_out(self, out: Tensor) -> Tensor:
        return torch.ones_like(out)

    def optimizer_step(self) -> None:
        self.run([(1e-6, 1e-6)])

    def refresh(self) -> None:
        if self.has_refresh:
            self.run([(3e-6, 1e-6)])


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for module in (eager, sleep_kernel):
        monkeypatch.setattr(module, "perf_counter", fake.now)
    monkeypatch.setattr(graph, "count_nodes", lambda handle: FakeGraph.made[handle].launches)
    return fake


def timed(
    name: str, work: FakeWork, passes: tuple[str, ...] = PASSES, cold: bool = False, level: str = "linear"
) -> Any:
    clock = make_clock(name, CPU, cold, SETTINGS, work.cuda)
    return measure(work, clock, passes, level, SETTINGS, now=work.cuda.now, sleep=lambda s: None)


def medians(found: Any) -> dict[tuple[str, str], float]:
    return {key: sorted(s)[len(s) // 2] for key, s in found.samples_ms.items()}


def test_eager_counts_the_gaps_between_launches_and_device_does_not(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    ms = medians(timed("eager", work))
    assert ms["forward", "eager"] == pytest.approx(0.1, rel=0.05), "ten launches of 10 us on the host"
    assert ms["forward", "host"] == pytest.approx(0.1, rel=0.01)
    assert ms["forward-backward", "host"] == pytest.approx(0.3, rel=0.01)
    ms = medians(timed("device", work))
    assert ms == pytest.approx({("forward", "device"): 0.02, ("backward", "device"): 0.04,
                                ("forward-backward", "device"): 0.06}, rel=1e-3)  # fmt: skip


def test_whole_steps_overlap_launches_that_micro_steps_apart_wait_for(cuda: FakeCuda) -> None:
    """The host runs ahead within a step: GPU work of 20 us a launch hides 10 us of host from the second launch on."""
    work = FakeWork(cuda, gpu=2e-5, host=1e-5)
    work.micro_steps, work.has_refresh = 4, True
    passes = (*PASSES, "step")
    found = timed("eager", work, passes)
    ms = medians(found)
    assert ms["forward-backward", "eager"] == pytest.approx(0.61, rel=1e-6), "30 launches, and the host's lead of one"
    assert ms["step", "eager"] == pytest.approx(4 * 0.6 + 0.01 + 0.001 + 0.003, rel=1e-6), (
        "the lead once, AdamW, refresh"
    )
    assert (found.part_ms("optimizer"), found.part_ms("refresh")) == (pytest.approx(0.001), pytest.approx(0.003))
    assert found.parts_ms() == pytest.approx(4 * 0.61 + 0.001 + 0.003), "three leads more than the whole"
    assert ms["step", "host"] == pytest.approx(4 * 0.3 + 0.002, rel=1e-6)
    assert {r["status"] for r in found.series(passes)} == {"ok"} and len(found.series(passes)) == 8
    device = timed("device", work, passes)
    assert medians(device)["step", "device"] == pytest.approx(4 * 0.6 + 0.004, rel=1e-6)


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
    timed("device", FakeWork(cuda))
    assert cuda.sleeps[-1] == pytest.approx(1e-3), "at least a millisecond"
    timed("device", FakeWork(cuda, host=1e-4))
    assert cuda.sleeps[-1] == pytest.approx(4.5e-3, rel=0.01), "1.5 times the 3 ms that 30 launches take"


def test_a_sleep_that_is_too_short_is_doubled_and_its_sample_dropped(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    clock = make_clock("device", CPU, False, SETTINGS, cuda)
    clock.prepare(work, "linear")
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
    clock.prepare(work, "linear")
    for _ in range(5):
        clock.sample(work, False)
    clock.settle()
    work.forward_launches = [(2e-6, 0.1)] * 10
    assert clock.sample(work, False) is None
    assert clock.sample(work, False) is None
    with pytest.raises(Unsupported, match=r"^queue: .*4 ms, 3 times"):
        clock.sample(work, False)


def test_a_hiccup_of_the_host_costs_one_sample_each_time(cuda: FakeCuda) -> None:
    patient = sleep_kernel.SleepKernel(MeasureSettings(), 1.0)
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


def test_graph_times_the_gpu_alone_and_counts_launches(cuda: FakeCuda) -> None:
    work = FakeWork(cuda, gpu=1e-4, host=1e-3)
    found = timed("graph", work)
    assert found.status is Status.ok
    ms = medians(found)
    assert ms == pytest.approx({("forward", "graph"): 1.0, ("backward", "graph"): 2.0,
                                ("forward-backward", "graph"): 3.0}, rel=1e-3)  # fmt: skip
    assert found.launches == {"forward": 10, "backward": 20, "forward-backward": 30}
    assert work.weight.grad is None, "no AccumulateGrad"


@pytest.mark.parametrize(("cold", "calls"), [(False, 50), (True, 1)])
def test_short_calls_share_a_graph_where_the_cache_is_warm(cuda: FakeCuda, cold: bool, calls: int) -> None:
    clock = make_clock("graph", CPU, cold, SETTINGS, cuda)
    work = FakeWork(cuda)
    clock.prepare(work, "linear")
    assert clock.calls == calls, "a millisecond's worth of 20 us"
    assert clock.launches["forward"] == 10, "of one call"
    clock.settle()
    found = clock.sample(work, False) or clock.sample(work, False)
    assert found is not None and found["forward", "graph"] == pytest.approx(0.02, rel=0.01)


def test_a_gap_between_forward_and_backward_is_not_timed(cuda: FakeCuda) -> None:
    clock = make_clock("graph", CPU, True, SETTINGS, cuda)
    work = FakeWork(cuda, forward=1, gpu=2e-6)
    clock.prepare(work, "linear")
    clock.settle()
    assert clock.sample(work, False) is None, "forward was done before backward was queued"
    found = clock.sample(work, False)
    assert found is not None and found["forward-backward", "graph"] == pytest.approx(0.042), "behind a sleep it is not"


def test_graph_times_pacas_refresh_and_leaves_the_step_out(cuda: FakeCuda) -> None:
    work = FakeWork(cuda, gpu=1e-4)
    work.has_refresh = True
    found = timed("graph", work, ("forward-backward", "step"))
    assert found.part_ms("refresh") == pytest.approx(0.003)
    assert found.launches["forward-backward"] == 30, "the refresh is outside every pass"
    rows = {r["pass"]: r for r in found.series(["forward-backward", "step"])}
    assert rows["forward-backward"]["status"] == "ok" and rows["step"]["status"] == "unsupported"
    assert "optimizer" in rows["step"]["detail"]
    alone = timed("graph", work, ("step",))
    assert [r["status"] for r in alone.series(["step"])] == ["unsupported"]


@pytest.mark.parametrize("where", ["forward_launches", "backward_launches"])
def test_what_cannot_be_captured_is_unsupported_with_the_reason(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    work = FakeWork(cuda)
    run = work.run

    def synchronizing(launches: list[tuple[float, float]]) -> None:
        if cuda.capturing is not None and launches is getattr(work, where):
            raise RuntimeError("operation not permitted when stream is capturing")
        run(launches)

    work.run = synchronizing  # type: ignore[method-assign]
    found = timed("graph", work)
    assert found.status is Status.unsupported and found.spoiled
    assert found.detail == "capture: RuntimeError: operation not permitted when stream is capturing"
    assert work.autocast_cache and gc.isenabled(), "all is as it was"


def test_out_of_memory_while_capturing_is_no_matter_of_support(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)

    def full(launches: object) -> None:
        if cuda.capturing is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    work.run = full  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        timed("graph", work)


def test_graph_is_measured_last_whatever_the_sweep_says() -> None:
    assert in_order(["graph", "eager", "device"]) == ["eager", "device", "graph"]
    assert clocks_of("eager") == ("eager", "host") and clocks_of("graph") == ("graph",)


class FakeDriver:
    """cuGraphGetNodes and cuGraphNodeGetType over a list of node kinds."""

    def __init__(self, kinds: list[int], error: int = 0) -> None:
        self.kinds, self.error = kinds, error

    def cuGraphGetNodes(self, graph: ctypes.c_void_p, nodes: Any, number: Any) -> int:
        assert graph.value == 77
        number._obj.value = len(self.kinds)
        for i in range(len(self.kinds) if nodes is not None else 0):
            nodes[i] = 1000 + i
        return self.error

    def cuGraphNodeGetType(self, node: ctypes.c_void_p, kind: Any) -> int:
        kind._obj.value = self.kinds[node.value - 1000]  # type: ignore[operator]
        return 0


def test_nodes_that_launch_are_counted() -> None:
    driver: Any = FakeDriver([7, 0, 0, 2, 1, 5, 0, 7])
    assert count_nodes(77, driver) == 5, "kernels, copies and memsets; no events, no empty nodes"
    assert count_nodes(77, FakeDriver([0], error=1)) is None  # type: ignore[arg-type]


CASES = make_plan("smoke", on_cpu=True).cases


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.describe().replace(" ", "-"))
def test_what_is_captured_computes_the_gradients_of_exactly_the_leaves(case: Any) -> None:
    work = build(case, "cpu")
    with graph.capturable(work):
        assert not work.autocast_cache and not gc.isenabled()
        found = graph.gradients(work, work.forward())
    assert work.autocast_cache and gc.isenabled()
    assert all(leaf.grad is None for _, leaf in work.leaves)
    work.backward(work.forward())
    for (name, leaf), grad in zip(work.leaves, found, strict=True):
        torch.testing.assert_close(grad, leaf.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.describe().replace(" ", "-"))
def test_nothing_that_is_captured_waits_for_the_gpu(case: Any) -> None:
    waits = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.name() in ("aten::_local_scalar_dense", "aten::nonzero", "aten::item"):
                waits.append(func.name())
            return func(*args, **(kwargs or {}))

    work = build(case, "cpu")
    graph.gradients(work, work.forward())  # dY is drawn at the first call
    with Watch():
        graph.gradients(work, work.forward())
        work.refresh()
    assert not waits


def test_a_leaf_that_is_not_reached_is_an_error() -> None:
    work = build(CASES[0], "cpu")
    work.leaves.append(("stranger", torch.ones(1, requires_grad=True)))
    with pytest.raises(RuntimeError, match="not have been used"):
        graph.gradients(work, work.forward())
