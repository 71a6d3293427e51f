"""Energy of what is timed, by the GPU's own counter, in calls that nobody times."""

from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from bench.timing.base import Timed
from bench.timing.gpu_state import GpuState

# The sensor behind the counter averages over up to 1 s, and on A100 and H100 looks a quarter of the time: Accurate and
# Convenient Energy Measurements for GPUs (SC24), https://arxiv.org/abs/2312.02741. So the same work for long enough,
# after a start that does not count.
LEAST_S = 2.0
LEAD_S = 1.0


def with_energy(
    series: list[dict[str, Any]],
    work: Timed,
    state: GpuState | None,
    synchronize: Callable[[], None],
    now: Callable[[], float] = perf_counter,
) -> list[dict[str, Any]]:
    """Entries of Measurement.series with energy_j in that of the step under clock eager, or of forward-backward where
    no step was timed; as they are where neither was, or nothing is known."""
    timed = {(s["pass"], s["clock"]) for s in series if "samples_ms" in s}
    pass_ = next((p for p in ("step", "forward-backward") if (p, "eager") in timed), None)
    joules = None
    with suppress(RuntimeError):  # such as out of memory: what is timed already must not go with it
        joules = energy_j(work, state, pass_ == "step", synchronize, now) if pass_ else None
    if joules is None:
        return series
    return [s | {"energy_j": joules} if (s["pass"], s["clock"]) == (pass_, "eager") else s for s in series]


def energy_j(
    work: Timed,
    state: GpuState | None,
    step: bool,
    synchronize: Callable[[], None],
    now: Callable[[], float] = perf_counter,
) -> float | None:
    """Joules of one micro-step, or with `step` of one optimizer step, over calls back to back for at least 2 s.

    None, without a call, where there is no NVML or its counter is not supported; None where it stood still.
    """
    if state is None or state.energy_mj() is None:
        return None
    _calls(work, step, LEAD_S, synchronize, now)
    before = state.energy_mj()
    calls = _calls(work, step, LEAST_S, synchronize, now)
    after = state.energy_mj()
    work.clear()
    return (after - before) / 1e3 / calls if before is not None and after is not None and after > before else None


def _calls(work: Timed, step: bool, seconds: float, synchronize: Callable[[], None], now: Callable[[], float]) -> int:
    """How many calls there were. The host is ahead of the GPU by what the launch queue holds, so the wait counts."""
    began, calls = now(), 0
    while now() - began < seconds:
        work.clear() if step else work.ready()
        for _ in range(work.micro_steps if step else 1):
            work.backward(work.forward())
        if step:
            work.optimizer_step()
            work.refresh()
        calls += 1
    synchronize()
    return calls
