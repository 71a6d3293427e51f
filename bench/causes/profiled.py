"""One call of a work under torch's profiler, as plain records of its operators and kernels."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from bench.causes.attribution import Event
from bench.timing.base import Timed

RANGE = "lorabench::"  # begins the names of the ranges around the phases

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
        if warm_up:
            run(work, step, lambda _: nullcontext())
        run(work, step, phase)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    return read(profiler.events(), {name: worked[name] / wall[name] or 1.0 for name in wall})


def read(events: Any, shares: Mapping[str, float]) -> Profiled:
    """The profiler's events (torch.autograd.profiler_util.FunctionEvent) that lie in a phase.

    shares: CPU time over wall time of each phase. The profiler knows an operator's wall time alone, and the clock that
    it is held against leaves out waiting for a core: so each takes its part of the phase's CPU time.
    """
    there = sorted(events, key=lambda e: (e.time_range.start, -e.time_range.end))
    spans = [
        (e.time_range.start, e.time_range.end, e.name.removeprefix(RANGE))
        for e in there
        if e.device_type == DeviceType.CPU and e.name.startswith(RANGE)
    ]
    found: list[Event] = []
    places: dict[int, int] = {}
    launched: Counter[tuple[str, float]] = Counter()
    for e in there:
        phase = _phase(spans, e)
        if e.device_type != DeviceType.CPU or phase is None:
            continue
        kernels = tuple((k.name, float(k.duration)) for k in e.kernels)
        launched.update(kernels)
        parent = None if e.cpu_parent is None else places.get(id(e.cpu_parent))
        places[id(e)] = len(found)
        found.append(Event(e.name, phase, e.self_cpu_time_total * shares[phase], parent, kernels, _is_operator(e)))
    ranges = {e.name for e in there if e.device_type == DeviceType.CPU and e.is_user_annotation}
    loose = []
    for e in there:
        phase = _phase(spans, e)
        if e.device_type == DeviceType.CPU or phase is None or e.name in ranges:  # a range spans its kernels there
            continue
        kernel = e.name, float(e.time_range.elapsed_us())
        if launched[kernel]:
            launched[kernel] -= 1
        else:
            loose.append((phase, *kernel))
    return Profiled(found, loose)


def _phase(spans: list[tuple[float, float, str]], event: Any) -> str | None:
    start = event.time_range.start
    return next((name for begin, end, name in spans if begin <= start < end), None)


def _is_operator(event: Any) -> bool:
    """Of all that the profiler notes on the host, what the dispatcher called, or a compiler made: neither ranges nor
    autograd's nodes, nor calls of the CUDA runtime."""
    if "CompiledFxGraph" in event.name:
        return True
    ranges = ("autograd::", "torch::autograd::", RANGE)
    return "::" in event.name and not event.name.startswith(ranges) and not event.is_user_annotation
