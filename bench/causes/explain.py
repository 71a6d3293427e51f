"""From a case and its measured medians to what the time went into."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import torch

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.causes import reconcile
from bench.causes.attribution import Role, Tallies, of_pass, tally
from bench.causes.profiled import profiled, run
from bench.causes.roles import Roles
from bench.models.build import build
from bench.models.work import Work
from bench.record.causes import Split
from bench.timing.base import Sample
from bench.timing.cpu import CpuClock

CALLS = 15  # profiled ones
LEAST_CALLS = 5  # of which the least and the most hold the median in 94 of 100 draws
# Of wall time, after which no more than LEAST_CALLS are made. On a CPU, where each profiled call comes with a plain one
# and a call takes 0.05 to 0.5 s, all of Table 1's 24 blocks take 1:20 so on two cores of an AMD EPYC.
SECONDS = {"cpu": 1.5, "cuda": 4.0}
WARMUP_CALLS = 2  # a first call allocates, and compiles
# Calls as short as this are slower behind the profiler's work than behind each other: without an untimed one before,
# plain calls of 0.3 to 3 ms took 10 to 40 % longer than profiled ones on one thread of an AMD EPYC, with it 0 to 2 %.
QUICK_S = 0.1
NO_KERNELS = (
    "the profiler saw no kernel on the GPU. Either this user may not profile: load the driver's module with "
    "NVreg_RestrictProfilingToAdminUsers=0, or run as root (in a container, with the capability SYS_ADMIN). Or another "
    "profiler holds the GPU, as nsys and DCGM do: end it."
)


def explain(
    case: Case,
    device: str,
    medians: Mapping[tuple[str, str], float],
    trace: Path | None = None,
    calls: int = CALLS,
    seconds: float | None = None,
) -> dict[tuple[str, str], Split]:
    """What each of `medians` (ms, by pass and clock) goes into, by (pass, clock); those of the clocks cpu-time, eager,
    graph and device. Builds the case on `device` ('cpu', 'cuda:0') and runs it, so this process should time nothing
    else. trace: where a Chrome trace of one call goes. Raises what building and running raise, and RuntimeError where
    the profiler sees nothing of the GPU.

    calls: how many are profiled, LEAST_CALLS where they take more than `seconds`, by default those of SECONDS.
    """
    work = build(case, device)
    seconds = SECONDS[work.device.type] if seconds is None else seconds
    found: dict[tuple[str, str], Split] = {}
    for step in (False, True):
        wanted = {key: ms for key, ms in medians.items() if (key[0] == "step") == step and _explained(key[1])}
        if wanted:
            found |= _splits(work, step, wanted, trace, calls, seconds)
            trace = None
    return {key: found[key] for key in medians if key in found}


def _explained(clock: str) -> bool:
    return clock in ("cpu-time", "eager") or CLOCKS[clock].gpu_work


def _splits(
    work: Work, step: bool, medians: Mapping[tuple[str, str], float], trace: Path | None, calls: int, seconds: float
) -> dict[tuple[str, str], Split]:
    cuda = torch.cuda if work.device.type == "cuda" else None
    clock = CpuClock()
    for _ in range(WARMUP_CALLS):
        clock.sample(work, step)
    compiled = work.case.compiles
    roles = [] if compiled else _roles(work, step)
    tallies: list[Tallies] = []
    plain: list[Sample] = []
    begun = perf_counter()
    run(work, step, lambda _: nullcontext())
    quick = perf_counter() - begun < QUICK_S
    while len(tallies) < calls and (len(tallies) < LEAST_CALLS or perf_counter() - begun < seconds):
        if cuda is None:  # by turns, so that both see the machine alike
            if quick:
                clock.sample(work, step)
            plain.append(clock.sample(work, step))
        keep = trace if not tallies else None
        found = profiled(work, step, cuda, keep, warm_up=quick and keep is None)
        tallies.append(tally(roles, found.events, cuda is not None, found.loose, compiled))
    if cuda is not None and not any(part.us for each in tallies for part in each.values()):
        raise RuntimeError(NO_KERNELS)
    splits = {}
    for (pass_, name), median_ms in medians.items():
        each = [of_pass(t, pass_) for t in tallies]
        if cuda is None:
            splits[pass_, name] = reconcile.on_cpu(each, [s[pass_, name] for s in plain], median_ms)
        else:
            work_ms = next((medians[pass_, c] for c in ("graph", "device") if (pass_, c) in medians), None)
            own = median_ms if CLOCKS[name].gpu_work else work_ms
            splits[pass_, name] = reconcile.on_gpu(each, median_ms, own)
    return splits


def _roles(work: Work, step: bool) -> list[Role]:
    with Roles(work) as roles:

        @contextmanager
        def phase(name: str) -> Iterator[None]:
            roles.phase = name
            yield
            roles.phase = ""

        run(work, step, phase)
    return roles.found
