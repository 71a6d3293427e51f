"""One call of a work under torch's profiler, as plain records of its operators and kernels."""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from bench.causes.attribution import Event
from bench.timing.base import Timed

RANGE = "lorabench::"  # begins the names of the ranges around the phases
CUDA_CALL = re.compile(r"cu(da)?[A-Z]")  # cudaLaunchKernel, cuLaunchKernelEx
# CUPTI of CUDA 12.6 to 13.0 loses the first kernels of a session, one more in each session of a process
# (github.com/pytorch/pytorch/issues/192021). A process here has two sessions for each of explain.CALLS.
FIRST_KERNELS = 64

Enter = Callable[[str], None]


def run(work: Timed, step: bool, phase: Callable[[str], Any]) -> None:
    """One micro-step or whole optimizer step as the clocks run it (bench/timing/cpu.py), each part within phase(its
    name); gradients are made ready, or dropped, before the first."""
    work.clear() if step else work.ready()
    for _ in range(work.micro_steps if step else 1):
        with phase("forward"):
            out = work.forward()
        with phase("backward"):
            work.backward(out)
        del out
    if step:
        with phase("optimizer"):
            work.optimizer_step()
        if work.has_refresh:
            with phase("refresh"):
                work.refresh()


@dataclass(frozen=True)
class Profiled:
    """What the profiler saw of one call. loose: (phase, kernel, us) of kernels that no operator launched."""

    events: list[Event]
    loose: list[tuple[str, str, float]]


def profiled(work: Timed, step: bool, cuda: Any = None, trace: Path | None = None, warm_up: bool = False) -> Profiled:
    """Runs one call under the profiler. cuda: the module torch.cuda where the work is on a GPU; each phase then ends
    when its kernels have, so that a kernel lies within its phase. trace: where a Chrome trace of it goes. warm_up:
    another call first, which does not count: starting the profiler has emptied the caches."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]

    wall: defaultdict[str, float] = defaultdict(float)
    worked: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        with record_function(RANGE + name):
            begun, at_work = perf_counter(), process_time()
            yield
            if cuda:
                cuda.synchronize()
            worked[name] += process_time() - at_work
            wall[name] += perf_counter() - begun

    with profile(activities=activities) as profiler:
        if cuda:
            _launch(FIRST_KERNELS)
        if warm_up:
            run(work, step, lambda _: nullcontext())
        if cuda:
            cuda.synchronize()
        run(work, step, phase)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    return read(profiler.events(), {name: worked[name] / wall[name] or 1.0 for name in wall})


def _launch(kernels: int) -> None:
    """That many small kernels, outside of all phases."""
    one = torch.ones(1, device="cuda")
    for _ in range(kernels):
        one.add_(1)


def read(events: Any, shares: Mapping[str, float]) -> Profiled:
    """The profiler's events (torch.autograd.profiler_util.FunctionEvent) that lie in a phase.

    shares: CPU time over wall time of each phase. The profiler knows an operator's wall time alone, and the clock that
    it is held against leaves out waiting for a core: so each takes its part of the phase's CPU time.
    """
    there = sorted(events, key=lambda e: (e.time_range.start, -e.time_range.end))
    spans = [
        (e.time_range.start, e.time_range.end, e.name.removeprefix(RANGE))
        for e in there
        if e.device_type == DeviceType.CPU and e.is_user_annotation and e.name.startswith(RANGE)
    ]
    found: list[Event] = []
    places: dict[int, int] = {}
    left = _on_gpu(there)
    launchers: set[int] = set()
    for e in there:
        if e.device_type != DeviceType.CPU:
            continue
        kernels = tuple(_launched(e, left, launchers))  # a phase does not count those of what ran before it
        phase = _phase(spans, e.time_range.start)
        if phase is None:
            continue
        parent = None if e.cpu_parent is None else places.get(id(e.cpu_parent))
        places[id(e)] = len(found)
        found.append(Event(e.name, phase, e.self_cpu_time_total * shares[phase], parent, kernels, _is_operator(e)))
    unknown = sorted((start, name, us) for (name, _), each in left.items() for start, us in each)
    loose = [(phase, name, us) for start, name, us in unknown if (phase := _phase(spans, start)) is not None]
    return Profiled(found, loose)


Kernels = dict[tuple[str, float], deque[tuple[float, float]]]  # (start, us) of each, by name and time as torch has it


def _on_gpu(events: list[Any]) -> Kernels:
    """The kernels, copies and fills among events that come in the order of their starts.

    Under programmatic dependent launch a kernel begins before the one ahead has ended, and waits for it: it counts from
    that end on, so that no time counts twice.
    """
    found: Kernels = defaultdict(deque)
    until = 0.0
    for e in events:
        if e.device_type == DeviceType.CPU or e.is_user_annotation:  # a range spans its kernels there
            continue
        start, end = e.time_range.start, e.time_range.end
        found[e.name, float(end - start)].append((start, float(max(0.0, end - max(start, until)))))
        until = max(until, end)
    return found


def _launched(event: Any, left: Kernels, launchers: set[int]) -> Iterator[tuple[str, float]]:
    """(name, us) of the kernels that an event of the host launched, which are no longer left then.

    torch gives kernels to every event that has the number of their operator. So has what CUPTI notes of itself within
    the operator ('Activity Buffer Request'), and by chance a call of CUDA, since CUPTI numbers these on its own.
    launchers: the numbers of the operators before it. Where torch was built without CUPTI it gives each operator one
    kernel of its name, which has no event.
    """
    if event.kernels and event.id not in launchers and not CUDA_CALL.match(event.name):
        launchers.add(event.id)
        for k in event.kernels:
            if each := left.get((k.name, float(k.duration))):
                yield k.name, each.popleft()[1]


def _phase(spans: list[tuple[float, float, str]], start: float) -> str | None:
    return next((name for begin, end, name in spans if begin <= start < end), None)


def _is_operator(event: Any) -> bool:
    """Of all that the profiler notes on the host, what the dispatcher called, or a compiler made: neither ranges nor
    autograd's nodes, nor calls of the CUDA runtime."""
    if "CompiledFxGraph" in event.name:
        return True
    nodes = ("autograd::", "torch::autograd::")
    return "::" in event.name and not event.name.startswith(nodes) and not event.is_user_annotation
