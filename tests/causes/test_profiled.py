"""From the profiler's events to plain records: phases, nesting, CPU time, and kernels with and without an operator."""

from typing import Any

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from bench.causes.attribution import Role, tally
from bench.causes.profiled import RANGE, Profiled, read

FORWARD, BACKWARD = RANGE + "forward", RANGE + "backward"


class Trace:
    """Events as the profiler gives them."""

    def __init__(self) -> None:
        self.events: list[FunctionEvent] = []

    def add(self, name: str, start: float, end: float, within: FunctionEvent | None = None, **more: Any) -> Any:
        event = FunctionEvent(len(self.events), name, 1, start, end, **more)
        if within is not None:
            within.append_cpu_child(event)
            event.set_cpu_parent(within)
        self.events.append(event)
        return event

    def kernel(self, name: str, start: float, end: float, by: FunctionEvent | None = None) -> None:
        """A kernel, which the profiler lists by itself too."""
        if by is not None:
            by.append_kernel(name, 0, end - start)
        self.add(name, start, end, device_type=DeviceType.CUDA)


def annotation(trace: Trace, name: str, start: float, end: float) -> Any:
    return trace.add(name, start, end, is_user_annotation=True)


def test_an_operator_takes_its_part_of_the_cpu_time_of_its_phase() -> None:
    trace = Trace()
    trace.add("aten::before", 0, 5)
    forward = annotation(trace, FORWARD, 10, 110)
    linear = trace.add("aten::linear", 20, 80, forward)
    trace.add("aten::addmm", 30, 70, linear)
    backward = annotation(trace, BACKWARD, 200, 300)
    trace.add("torch::autograd::AccumulateGrad", 210, 220, backward)
    events = read(trace.events, {"forward": 0.5, "backward": 1.0}).events
    assert [(e.name, e.phase, e.self_us, e.parent, e.operator) for e in events] == [
        (FORWARD, "forward", 20.0, None, False),
        ("aten::linear", "forward", 10.0, 0, True),
        ("aten::addmm", "forward", 20.0, 1, True),
        (BACKWARD, "backward", 90.0, None, False),
        ("torch::autograd::AccumulateGrad", "backward", 10.0, 3, False),
    ]


def on_gpu() -> Profiled:
    """An operator with two kernels of one name, a Function that launches one, and one that nothing is known to launch;
    on the GPU's own timeline a range spans its kernels."""
    trace = Trace()
    forward = annotation(trace, FORWARD, 0, 100)
    product = trace.add("aten::mm", 1, 5, forward)
    trace.add("cudaLaunchKernel", 2, 3, product)
    function = trace.add("LoraLinear", 6, 9, forward)
    annotation(trace, BACKWARD, 100, 200)
    trace.kernel("sgemm", 10, 20, by=product)
    trace.kernel("sgemm", 20, 30, by=product)
    trace.kernel("gemm_kernel", 30, 50, by=function)
    trace.kernel("sgemm", 50, 60)
    trace.kernel("Memset (Device)", 120, 121)
    trace.add(FORWARD, 10, 60, device_type=DeviceType.CUDA, is_user_annotation=True)
    return read(trace.events, {"forward": 1.0, "backward": 1.0})


def test_kernels_are_found_by_the_operator_that_launched_them_or_by_their_own_time() -> None:
    found = on_gpu()
    launched = {e.name: e.kernels for e in found.events if e.kernels}
    assert launched == {"aten::mm": (("sgemm", 10.0), ("sgemm", 10.0)), "LoraLinear": (("gemm_kernel", 20.0),)}
    assert found.loose == [("forward", "sgemm", 10.0), ("backward", "Memset (Device)", 1.0)]


def test_every_kernel_is_counted_once() -> None:
    found = on_gpu()
    causes = tally([Role("aten::mm", "forward", "branch", 8.0, 2.0)], found.events, True, found.loose)
    assert {key: (part.us, part.launches) for key, part in causes.items()} == {
        ("forward", "branch"): (20.0, 2), ("forward", "fused"): (20.0, 1), ("forward", "left_over"): (10.0, 1),
        ("backward", "left_over"): (1.0, 1),
    }  # fmt: skip
