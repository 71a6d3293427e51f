"""Clock graph on a simulated GPU: what it counts, what it cannot capture, and what it captures."""

import ctypes
import gc
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.case.clocks import clocks_of, in_order
from bench.case.schema import Status
from bench.models.build import build
from bench.sweeps.expand import make_plan
from bench.timing import graph
from bench.timing.clocks import make_clock
from bench.timing.graph_nodes import count_nodes
from tests.fakecuda import FakeCuda, FakeGraph
from tests.timing.fake_work import CPU, SETTINGS, FakeWork, medians, timed


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


def test_a_cold_forward_and_backward_are_one_graph_without_a_gap(cuda: FakeCuda) -> None:
    clock = make_clock("graph", CPU, True, SETTINGS, cuda)
    work = FakeWork(cuda, forward=1, gpu=2e-6)
    work.has_refresh = True
    clock.prepare(work, "linear")
    clock.settle()
    cuda.sleeps.clear()
    found = clock.sample(work, False)
    ms = {("forward", "graph"): 0.002, ("backward", "graph"): 0.04, ("forward-backward", "graph"): 0.042}
    assert found == pytest.approx(ms | {("refresh", "graph"): 0.003}), "the start of a graph is in none of them"
    assert not cuda.sleeps, "nothing has to be queued in time"
    assert clock.launches == {"forward": 1, "backward": 20, "forward-backward": 21}


def test_a_gap_between_two_graphs_is_not_timed(cuda: FakeCuda) -> None:
    """Warm: a graph of forwards and one of backwards, the second behind a sleep where it came too late."""
    clock = make_clock("graph", CPU, False, SETTINGS, cuda)
    work = FakeWork(cuda, forward=1, gpu=2e-6)
    clock.prepare(work, "linear")
    clock.settle()
    for made in FakeGraph.made:
        made.replay_host = 0.6e-3
    assert clock.calls == 256 and clock.sample(work, False) is None, "forward was done before backward was queued"
    cuda.sleeps.clear()
    found = clock.sample(work, False)
    assert found is not None and found["forward-backward", "graph"] == pytest.approx(0.042), "behind a sleep it is not"
    assert cuda.sleeps == pytest.approx([1e-3])


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
