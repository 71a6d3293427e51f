"""Table 1 for pytest: which of its cases can run here, and their samples. Imports no torch until it measures."""

from functools import cache

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.case.schema import Status
from bench.devices import choose, gpus, visible_index
from bench.methods.registry import unsupported
from bench.roofline.memory import too_large
from bench.sweeps.expand import make_plan

SWEEP = "table1"
DEVICE = choose("auto", gpus())
PLAN = make_plan(SWEEP, DEVICE.is_cpu)
CLOCK = PLAN.clocks[0]  # the table's own
TURNS, SECONDS = 4, 4.0  # of a case without a GPU: turns with its neighbours, and wall time over all of them

Samples = dict[str, list[float]]  # ms, by pass


def can_run(case: Case) -> bool:
    return not unsupported(case, "cpu" if DEVICE.is_cpu else "cuda") and not too_large(case, False, DEVICE.memory_mib)


CASES = {(str(c.model), c.method, c.impl, c.batch, c.seq): c for c in PLAN.cases if can_run(c)}


def described() -> str:
    """What a person should know of the times, in a line for pytest's header."""
    threads = "one thread, " if DEVICE.is_cpu else ""
    other = len(PLAN.cases) - len(CASES)
    left_out = f"; {other} cannot run here, and `python -m bench list {SWEEP}` says why" if other else ""
    what = f"{len(CASES)} of {len(PLAN.cases)} cases on {DEVICE.name}{left_out}"
    return f"{SWEEP}: {what}\n{SWEEP}: {threads}clock {CLOCK} ({CLOCKS[CLOCK].meaning})"


@cache
def measured(cases: tuple[Case, ...], brief: bool) -> dict[Case, Samples | str]:
    """The samples of cases that are compared with each other, or why one has none. All passes come of one iteration.

    On a CPU the cases take turns, in reverse order every other time, so that a drift of the machine is in all of them.
    On a GPU, where whole models may not fit beside each other, they follow each other.
    brief: a single sample of each, where no time is asked for.
    """
    import torch

    from bench.models.build import build
    from bench.models.work import Work
    from bench.timing.clocks import make_clock
    from bench.timing.heap import keep_freed
    from bench.timing.sampler import measure

    index = None if DEVICE.is_cpu else visible_index(DEVICE)
    device = torch.device("cpu" if index is None else f"cuda:{index}")
    if index is None:
        keep_freed()
    else:
        torch.cuda.set_device(index)
    settings, turns = PLAN.settings, 1
    if DEVICE.is_cpu:
        turns = TURNS if len(cases) > 1 and not brief else 1
        wall = {"wall_s": SECONDS / turns, "wall_min_samples": 2, "warmup_calls": 1, "warmup_s": 1e-9}
        settings = settings.model_copy(update=wall)
    if brief:
        settings = settings.model_copy(update={"wall_s": 1e-9, "wall_min_samples": 1})
    works: dict[Case, Work] = {}
    found: dict[Case, Samples | str] = {case: {p: [] for p in PLAN.passes} for case in cases}
    for i in range(turns):
        for case in cases[:: -1 if i % 2 else 1]:
            samples = found[case]
            if isinstance(samples, str):
                continue
            try:
                work = works.pop(case, None) or build(case, str(device))
                clock = make_clock(CLOCK, device, case.l2 == "cold", settings)
                m = measure(work, clock, PLAN.passes, case.level, settings)
            except torch.OutOfMemoryError as e:
                found[case] = f"oom: {e}"
                continue
            if m.status is not Status.ok:
                found[case] = m.detail or m.status
                continue
            for p in PLAN.passes:
                samples[p] += m.samples_ms[p, CLOCK]
            if DEVICE.is_cpu:
                works[case] = work
    return found
