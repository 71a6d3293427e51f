"""What torch makes of kineto's events of a GPU, from the kernels to the causes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bench.causes import explain, profiled
from bench.causes.attribution import Role, tally
from bench.causes.profiled import RANGE, Profiled, read
from tests.causes.kineto import ENGINE, Kineto

SHARES = {"forward": 1.0, "backward": 1.0, "optimizer": 1.0}
Times = dict[tuple[str, str], tuple[float, int]]

ROLES = [
    Role("aten::mm", "forward", "base_forward", 8.0, 2.0),
    Role("aten::copy_", "forward", "casts", 8.0),
    Role("aten::mm", "backward", "base_dx", 8.0, 2.0),
    Role("aten::add_", "backward", "accumulation", 8.0),
]


@contextmanager
def in_node(kineto: Kineto, name: str) -> Iterator[None]:
    """A node of autograd, as its engine runs it on the GPU's thread."""
    with kineto.operator(f"autograd::engine::evaluate_function: {name}", ENGINE), kineto.operator(name, ENGINE):
        yield


def a_call(kineto: Kineto) -> None:
    """Forward and backward of a base layer and of a fused one, and the optimizer's step."""
    with kineto.annotation(RANGE + "forward"):
        with kineto.operator("aten::linear"), kineto.operator("aten::mm"):
            kineto.launch("Memset (Device)", 1, by="cudaMemsetAsync")  # cuBLAS's workspace
            kineto.launch("ampere_sgemm_128x64_tn", 100, by="cudaLaunchKernelExC")
        with kineto.operator("LoraLinear"):
            with kineto.operator("aten::empty"):
                pass
            kineto.launch("project_kernel", 10, by="cuLaunchKernelEx")
            kineto.launch("gemm_kernel", 90, by="cuLaunchKernelEx")
        with kineto.operator("aten::copy_"):
            kineto.launch("Memcpy DtoD (Device -> Device)", 5, by="cudaMemcpyAsync")
        kineto.synchronize()
    with kineto.annotation(RANGE + "backward"):
        with in_node(kineto, "LoraLinearBackward"):
            kineto.launch("branch_gradients_kernel", 30, ENGINE, by="cuLaunchKernelEx")
        with in_node(kineto, "MmBackward0"), kineto.operator("aten::mm", ENGINE):
            kineto.launch("ampere_sgemm_128x64_nn", 100, ENGINE)
        with in_node(kineto, "torch::autograd::AccumulateGrad"), kineto.operator("aten::add_", ENGINE):
            kineto.launch("vectorized_elementwise_kernel", 3, ENGINE)
        kineto.synchronize()
    with kineto.annotation(RANGE + "optimizer"):
        with kineto.annotation("Optimizer.step#AdamW.step"), kineto.operator("aten::_fused_adamw_"):
            kineto.launch("multi_tensor_apply_kernel", 7)
        kineto.synchronize()


TRUTH: Times = {
    ("forward", "base_forward"): (101.0, 2), ("forward", "branch"): (10.0, 1), ("forward", "fused"): (90.0, 1),
    ("forward", "casts"): (5.0, 1), ("backward", "branch"): (30.0, 1), ("backward", "base_dx"): (100.0, 1),
    ("backward", "accumulation"): (3.0, 1), ("optimizer", "optimizer"): (7.0, 1),
}  # fmt: skip


def times(found: Profiled) -> Times:
    causes = tally(ROLES, found.events, True, found.loose)
    return {key: (pytest.approx(part.us), part.launches) for key, part in causes.items() if part.launches}


def test_every_kernel_counts_for_its_operator_or_by_its_name() -> None:
    kineto = Kineto()
    a_call(kineto)
    found = read(kineto.events(), SHARES)
    assert times(found) == TRUTH
    assert not found.loose


def test_what_cupti_does_for_itself_within_an_operator_launches_none_of_its_kernels() -> None:
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"):
        with kineto.operator("aten::mm"):
            kineto.overhead("Activity Buffer Request")
            kineto.launch("sgemm", 100)
        kineto.synchronize()
    events = kineto.events()
    assert sum(len(e.kernels) for e in events) > 1, "torch itself counts it more than once"
    assert times(read(events, SHARES)) == {("forward", "base_forward"): (100.0, 1)}


def test_what_a_kernel_waits_for_the_one_ahead_is_not_its_time() -> None:
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"):
        with kineto.operator("aten::mm"):
            kineto.launch("sgemm", 100)
        with kineto.operator("LoraLinear"):
            kineto.launch("project_kernel", 10, by="cuLaunchKernelEx", dependent=True)
            kineto.launch("gemm_kernel", 90, by="cuLaunchKernelEx", dependent=True)
        kineto.synchronize()
    assert times(read(kineto.events(), SHARES)) == {
        ("forward", "base_forward"): (100.0, 1), ("forward", "branch"): (10.0, 1), ("forward", "fused"): (90.0, 1),
    }  # fmt: skip


@pytest.mark.parametrize("first", [True, False], ids=["before-it", "behind-it"])
def test_a_call_of_cuda_with_the_number_of_an_operator_launched_none_of_its_kernels(first: bool) -> None:
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"):
        if first:
            kineto.synchronize(number=2)
        with kineto.operator("aten::mm") as number:
            assert number == 2
            kineto.launch("sgemm", 100)
        kineto.synchronize(number=None if first else 2)
    events = kineto.events()
    assert sum(len(e.kernels) for e in events) > 1, "torch itself counts it more than once"
    assert times(read(events, SHARES)) == {("forward", "base_forward"): (100.0, 1)}


def test_a_kernel_of_what_ran_before_a_phase_is_not_the_phases() -> None:
    kineto = Kineto()
    with kineto.operator("aten::mm"):
        kineto.launch("sgemm", 100)  # still runs when the phase begins
    with kineto.operator("aten::mm"):
        kineto.launch("sgemm", 101)
    a_call(kineto)
    found = read(kineto.events(), SHARES)
    assert times(found) == TRUTH
    assert not found.loose


def test_a_kernel_that_runs_behind_its_phase_on_the_host_is_of_that_phase() -> None:
    """Where a kernel is known by its operator, when it ran does not matter."""
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"), kineto.operator("aten::mm"):
        kineto.launch("sgemm", 100)
    assert kineto.events()[-1].time_range.end > 100
    assert times(read(kineto.events(), SHARES)) == {("forward", "base_forward"): (100.0, 1)}


def test_a_range_may_have_the_name_of_a_kernel() -> None:
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"):
        with kineto.annotation("gemm_kernel"):
            kineto.launch("gemm_kernel", 50)
        kineto.synchronize()
    assert read(kineto.events(), SHARES).loose == [("forward", "gemm_kernel", 50.0)]


def test_the_projects_own_operators_are_no_phases() -> None:
    """kernels/lora/custom_ops.py: torch.compile calls lorabench::lora_forward."""
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"):
        with kineto.operator("lorabench::lora_forward"):
            kineto.launch("gemm_kernel", 50)
        kineto.synchronize()
    with kineto.operator("lorabench::lora_forward"):
        kineto.launch("gemm_kernel", 50)
    found = read(kineto.events(), SHARES)
    assert [(e.phase, e.operator) for e in found.events if e.name == "lorabench::lora_forward"] == [("forward", True)]
    assert times(found) == {("forward", "fused"): (50.0, 1)}


def test_kernels_of_operators_that_torch_timed_without_cupti_are_unknown() -> None:
    """ProfilerState.KINETO_GPU_FALLBACK: each operator has one kernel of its own name, with what it calls in it."""
    kineto = Kineto()
    with kineto.annotation(RANGE + "forward"), kineto.operator("aten::linear"), kineto.operator("aten::mm"):
        pass
    for event in kineto._events[1:]:
        event.values["cuda_elapsed_us"] = 10
    events = kineto.events()
    assert sum(len(e.kernels) for e in events) == 2
    assert times(read(events, SHARES)) == {}


def test_a_phase_begins_when_the_gpu_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that the profiler may lose come first, then the call that warms up; both are over before the first."""
    done: list[str] = []
    work: Any = SimpleNamespace(
        ready=lambda: None, clear=lambda: None, micro_steps=1, has_refresh=False,
        forward=lambda: done.append("forward"), backward=lambda _: done.append("backward"),
    )  # fmt: skip
    monkeypatch.setattr(profiled, "_launch", lambda kernels: done.append(f"{kernels} kernels"))
    monkeypatch.setattr(profiled, "profile", lambda activities: nullcontext(SimpleNamespace(events=list)))
    cuda = SimpleNamespace(synchronize=lambda: done.append("synchronize"))
    profiled.profiled(work, step=False, cuda=cuda, warm_up=True)
    assert done == [
        f"{profiled.FIRST_KERNELS} kernels", "forward", "backward", "synchronize",
        "forward", "synchronize", "backward", "synchronize",
    ]  # fmt: skip
    assert profiled.FIRST_KERNELS >= 2 * explain.CALLS
